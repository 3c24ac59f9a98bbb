//! A certificate of tests in which Weir speaks TLS.
#![allow(unreachable_pub)]

use std::path::Path;
use std::sync::OnceLock;

/// The name that it is for.
pub const NAME: &str = "inner.test";

/// A certificate and its key, as files.
pub struct Certificate {
    /// The path of the certificate.
    pub cert: String,
    key: String,
}

impl Certificate {
    /// The keys `cert` and `key` of a configuration.
    pub fn settings(&self) -> String {
        let Self { cert, key } = self;
        format!("cert = {cert:?}, key = {key:?}")
    }
}

/// Makes the certificate once. Ed25519 signatures have a fixed length, so a seed reproduces all sizes.
pub fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let write = |name: &str, text: String| {
            let file = dir.join(name);
            std::fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        Certificate {
            cert: write("cert.pem", pem),
            key: write("key.pem", key.serialize_pem()),
        }
    })
}
