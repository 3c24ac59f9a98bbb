//! A certificate for `inner.test`, of tests in which one Weir speaks TLS to another.
#![allow(unreachable_pub)]

use std::path::Path;
use std::sync::OnceLock;

/// The keys `cert` and `key` of a configuration. Ed25519 signatures have a fixed length, so a seed reproduces all sizes.
pub fn certificate() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(["inner.test".to_owned()]).unwrap();
        let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        format!("cert = {cert_file:?}, key = {key_file:?}")
    })
}

/// The path of the certificate.
pub fn certificate_file() -> &'static str {
    certificate().split('"').nth(1).unwrap()
}
