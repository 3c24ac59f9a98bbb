//! The cryptography that rustls uses: its own provider on AWS-LC, except for the key derivation of TLS 1.3.
//!
//! rustls uses AWS-LC's HKDF, which hashes a secret anew for every key that it expands, and a handshake expands about
//! twenty-five. Here the keys of AWS-LC's HMAC keep what was hashed.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};
use weir_config::Cipher;

/// The cryptography provider, limited to these cipher suites if there are any.
pub(super) fn provider(ciphers: &[Cipher]) -> CryptoProvider {
    let mut provider = default_provider();
    for suite in &mut provider.cipher_suites {
        let mut ours = TLS13_SUITES.iter();
        if let Some(ours) = ours.find(|ours| ours.common.suite == suite.suite()) {
            *suite = SupportedCipherSuite::Tls13(ours);
        }
    }
    if !ciphers.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| ciphers.iter().any(|cipher| is_same_suite(*suite, *cipher)));
    }
    provider
}

/// Whether a cipher of the configuration is this suite. OpenSSL's names omit the parts that are always the same.
fn is_same_suite(suite: SupportedCipherSuite, cipher: Cipher) -> bool {
    let name = suite.suite().as_str().unwrap_or_default();
    match name.strip_prefix("TLS13_") {
        Some(name) => cipher.0.strip_prefix("TLS_") == Some(name),
        None => {
            let name = name
                .strip_prefix("TLS_")
                .unwrap_or(name)
                .replace("_WITH", "");
            let name = name.replace("AES_", "AES").replace('_', "-");
            name == cipher.0 || name.strip_suffix("-SHA256") == Some(cipher.0)
        }
    }
}

static TLS13_SUITES: [&Tls13CipherSuite; 3] = [
    &TLS13_AES_256_GCM_SHA384,
    &TLS13_AES_128_GCM_SHA256,
    &TLS13_CHACHA20_POLY1305_SHA256,
];

static TLS13_AES_256_GCM_SHA384: Tls13CipherSuite =
    with_hkdf(&cipher_suite::TLS13_AES_256_GCM_SHA384, &HKDF_SHA384);
static TLS13_AES_128_GCM_SHA256: Tls13CipherSuite =
    with_hkdf(&cipher_suite::TLS13_AES_128_GCM_SHA256, &HKDF_SHA256);
static TLS13_CHACHA20_POLY1305_SHA256: Tls13CipherSuite =
    with_hkdf(&cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &HKDF_SHA256);

static HKDF_SHA256: AwsLcHkdf = AwsLcHkdf::new(hmac::HMAC_SHA256);
static HKDF_SHA384: AwsLcHkdf = AwsLcHkdf::new(hmac::HMAC_SHA384);

/// A suite of rustls with another HKDF, and without the parts for QUIC.
const fn with_hkdf(suite: &SupportedCipherSuite, hkdf: &'static dyn Hkdf) -> Tls13CipherSuite {
    let SupportedCipherSuite::Tls13(suite) = suite else {
        panic!("the suite is not one of TLS 1.3");
    };
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: hkdf,
        aead_alg: suite.aead_alg,
        quic: None,
    }
}

/// HKDF (RFC 5869) over AWS-LC's HMAC with one hash function.
struct AwsLcHkdf {
    algorithm: hmac::Algorithm,
    /// The key that every handshake without a session begins with (RFC 8446 section 7.1).
    first: OnceLock<hmac::Key>,
}

impl AwsLcHkdf {
    const fn new(algorithm: hmac::Algorithm) -> Self {
        Self {
            algorithm,
            first: OnceLock::new(),
        }
    }

    fn extract(&self, salt: Option<&[u8]>, secret: Option<&[u8]>) -> hmac::Key {
        let zeroes = [0; OkmBlock::MAX_LEN];
        let zeroes = &zeroes[..self.algorithm.tag_len()];
        let salt = hmac::Key::new(self.algorithm, salt.unwrap_or(zeroes));
        let extracted = hmac::sign(&salt, secret.unwrap_or(zeroes));
        hmac::Key::new(self.algorithm, extracted.as_ref())
    }
}

impl Hkdf for AwsLcHkdf {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        Box::new(AwsLcExpander(match salt {
            None => self.first.get_or_init(|| self.extract(None, None)).clone(),
            salt => self.extract(salt, None),
        }))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(AwsLcExpander(self.extract(salt, Some(secret))))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(AwsLcExpander(hmac::Key::new(self.algorithm, okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        let key = hmac::Key::new(self.algorithm, key.as_ref());
        Tag::new(hmac::sign(&key, message).as_ref())
    }
}

/// A pseudorandom key, ready to expand.
struct AwsLcExpander(hmac::Key);

impl AwsLcExpander {
    /// Block `n` of the output, behind the block `before`.
    fn block(&self, before: &[u8], info: &[&[u8]], n: u8) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(before);
        info.iter().for_each(|part| context.update(part));
        context.update(&[n]);
        context.sign()
    }
}

impl HkdfExpander for AwsLcExpander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > usize::from(u8::MAX) * self.hash_len() {
            return Err(OutputLengthError);
        }
        let mut before = None;
        for (n, part) in (1..=u8::MAX).zip(output.chunks_mut(self.hash_len())) {
            let block = self.block(before.as_ref().map_or(&[], hmac::Tag::as_ref), info, n);
            part.copy_from_slice(&block.as_ref()[..part.len()]);
            before = Some(block);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.block(&[], info, 1).as_ref())
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_rustls_derives() {
        let suites = default_provider().cipher_suites;
        let theirs: Vec<_> = suites
            .iter()
            .filter_map(SupportedCipherSuite::tls13)
            .collect();
        assert_eq!(theirs.len(), TLS13_SUITES.len());
        for theirs in theirs {
            let ours = provider(&[]).cipher_suites;
            let ours = ours
                .into_iter()
                .find(|ours| ours.suite() == theirs.common.suite);
            let (ours, theirs) = (
                ours.unwrap().tls13().unwrap().hkdf_provider,
                theirs.hkdf_provider,
            );
            let salts = [None, Some(&b"salt"[..]), Some(&[7; 64])];
            for (salt, secret) in salts
                .into_iter()
                .flat_map(|salt| [(salt, &b""[..]), (salt, &[9; 48])])
            {
                same(
                    &*ours.extract_from_zero_ikm(salt),
                    &*theirs.extract_from_zero_ikm(salt),
                );
                same(
                    &*ours.extract_from_secret(salt, secret),
                    &*theirs.extract_from_secret(salt, secret),
                );
            }
            let okm = theirs
                .extract_from_zero_ikm(None)
                .expand_block(&[b"secret"]);
            same(
                &*ours.expander_for_okm(&okm),
                &*theirs.expander_for_okm(&okm),
            );
            for message in [&b""[..], b"message", &[1; 1000]] {
                let tags = (
                    ours.hmac_sign(&okm, message),
                    theirs.hmac_sign(&okm, message),
                );
                assert_eq!(tags.0.as_ref(), tags.1.as_ref());
            }
        }
    }

    fn same(ours: &dyn HkdfExpander, theirs: &dyn HkdfExpander) {
        assert_eq!(ours.hash_len(), theirs.hash_len());
        let infos: [&[&[u8]]; 4] = [
            &[],
            &[b"info"],
            &[b"in", b"", b"fo"],
            &[b"in", &[3; 126], b"fo"],
        ];
        for info in infos {
            let block = (ours.expand_block(info), theirs.expand_block(info));
            assert_eq!(block.0.as_ref(), block.1.as_ref());
            for bytes in [
                1,
                12,
                32,
                48,
                49,
                200,
                255 * ours.hash_len(),
                255 * ours.hash_len() + 1,
            ] {
                let (mut a, mut b) = (vec![0; bytes], vec![0; bytes]);
                let expanded = ours.expand_slice(info, &mut a);
                assert_eq!(expanded.is_ok(), theirs.expand_slice(info, &mut b).is_ok());
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn every_cipher_suite_has_a_name_in_the_configuration() {
        let all = provider(&[]).cipher_suites;
        let text = weir_config::reference();
        let mut known = 0;
        for suite in &all {
            let name = suite.suite().as_str().unwrap_or_default();
            let names: Vec<_> = text
                .split('"')
                .filter(|word| word.starts_with("TLS_") || word.starts_with("ECDHE-"))
                .collect();
            let found = names.iter().any(|name| {
                let name: &'static str = Box::leak((*name).to_owned().into_boxed_str());
                is_same_suite(*suite, Cipher(name))
            });
            assert!(found, "{name} has no name in the configuration");
            known += 1;
        }
        assert_eq!(known, 9);
    }
}
