//! A signer of tokens, which also writes what no honest one would.

use std::sync::OnceLock;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Library, EncodingKey, crypto};
use rcgen::{KeyPair, SigningKey as _};
use weir_config::JwtAlgorithm as Algorithm;

/// A key pair, or a secret.
pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    /// The public key as a JWK without `alg` and `kid`.
    pub(super) members: String,
    /// The public key in PEM; empty for a secret.
    pub(super) pem: String,
    secret: Secret,
}

enum Secret {
    Library(Library, EncodingKey),
    P521(KeyPair),
}

pub(super) const SECRET: &[u8] =
    b"a secret of at least sixty-four bytes, as HS512 asks for: 0123456789abcdef";

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// One for each algorithm.
    pub(super) fn all() -> Vec<&'static Self> {
        use Algorithm::*;
        let all = [
            Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, Es256, Es384, Es512, EdDsa, Hs256, Hs384,
            Hs512,
        ];
        all.into_iter().map(Self::of).collect()
    }

    pub(super) fn of(algorithm: Algorithm) -> &'static Self {
        static ALL: [OnceLock<Signer>; 13] = [const { OnceLock::new() }; 13];
        ALL[algorithm as usize].get_or_init(|| Self::new(algorithm))
    }

    pub(super) fn new(algorithm: Algorithm) -> Self {
        use Algorithm::*;
        let library = match algorithm {
            Rs256 => Library::RS256,
            Rs384 => Library::RS384,
            Rs512 => Library::RS512,
            Ps256 => Library::PS256,
            Ps384 => Library::PS384,
            Ps512 => Library::PS512,
            Es256 => Library::ES256,
            Es384 => Library::ES384,
            EdDsa => Library::EdDSA,
            Hs256 => Library::HS256,
            Hs384 => Library::HS384,
            Hs512 => Library::HS512,
            Es512 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
                return Self {
                    algorithm,
                    members: ec_members("P-521", pair.public_key_raw()),
                    pem: pair.public_key_pem(),
                    secret: Secret::P521(pair),
                };
            }
        };
        let (members, pem, key) = match algorithm {
            Hs256 | Hs384 | Hs512 => {
                let members = format!("\"kty\":\"oct\",\"k\":\"{}\"", encode(SECRET));
                (members, String::new(), EncodingKey::from_secret(SECRET))
            }
            Es256 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                let key = EncodingKey::from_ec_der(&pair.serialize_der());
                (
                    ec_members("P-256", pair.public_key_raw()),
                    pair.public_key_pem(),
                    key,
                )
            }
            Es384 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
                let key = EncodingKey::from_ec_der(&pair.serialize_der());
                (
                    ec_members("P-384", pair.public_key_raw()),
                    pair.public_key_pem(),
                    key,
                )
            }
            EdDsa => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
                let key = EncodingKey::from_ed_der(&pair.serialize_der());
                let x = encode(pair.public_key_raw());
                let members = format!("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"");
                (members, pair.public_key_pem(), key)
            }
            _ => {
                let pair = rsa_pair();
                let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
                let (n, e) = super::super::key::read_rsa_der(pair.public_key_raw()).unwrap();
                let n = &n[usize::from(n[0] == 0)..];
                let members = format!(
                    "\"kty\":\"RSA\",\"n\":\"{}\",\"e\":\"{}\"",
                    encode(n),
                    encode(e)
                );
                (members, pair.public_key_pem(), key)
            }
        };
        Self {
            algorithm,
            members,
            pem,
            secret: Secret::Library(library, key),
        }
    }

    /// The key as a JWK with its algorithm and this id.
    pub(super) fn jwk(&self, id: &str) -> String {
        format!(
            "{{{},\"alg\":\"{}\",\"kid\":\"{id}\"}}",
            self.members,
            self.algorithm.name()
        )
    }

    /// A header with this id.
    pub(super) fn header(&self, id: &str) -> String {
        format!("{{\"alg\":\"{}\",\"kid\":\"{id}\"}}", self.algorithm.name())
    }

    /// A token with the header that belongs to it.
    pub(super) fn token(&self, claims: &str) -> String {
        self.sign(&self.header("k"), claims)
    }

    /// A token with any header.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_text(&format!("{}.{}", encode(header), encode(claims)))
    }

    /// `text` with its signature.
    pub(super) fn sign_text(&self, text: &str) -> String {
        format!("{text}.{}", encode(self.signature(text)))
    }

    /// The bytes of the signature of `text`.
    pub(super) fn signature(&self, text: &str) -> Vec<u8> {
        match &self.secret {
            Secret::Library(algorithm, key) => {
                let signature = crypto::sign(text.as_bytes(), key, *algorithm).unwrap();
                URL_SAFE_NO_PAD.decode(signature).unwrap()
            }
            Secret::P521(pair) => from_der(&pair.sign(text.as_bytes()).unwrap(), 66),
        }
    }
}

/// One pair for all algorithms of RSA, because a new one takes long.
fn rsa_pair() -> &'static KeyPair {
    static PAIR: OnceLock<KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap())
}

fn ec_members(curve: &str, point: &[u8]) -> String {
    let (x, y) = point[1..].split_at(point.len() / 2);
    format!(
        "\"kty\":\"EC\",\"crv\":\"{curve}\",\"x\":\"{}\",\"y\":\"{}\"",
        encode(x),
        encode(y)
    )
}

/// R and S in `length` bytes each, from the form that X.509 uses.
fn from_der(der: &[u8], length: usize) -> Vec<u8> {
    let mut numbers = &der[if der[1] < 0x80 { 2 } else { 3 }..];
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let (number, rest) = numbers[2..].split_at(usize::from(numbers[1]));
        let number = &number[usize::from(number[0] == 0)..];
        fixed.extend(std::iter::repeat_n(0, length - number.len()));
        fixed.extend_from_slice(number);
        numbers = rest;
    }
    fixed
}

/// R and S in the form that X.509 uses.
pub(super) fn to_der(fixed: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for number in fixed.chunks(fixed.len() / 2) {
        let first = number.iter().position(|byte| *byte != 0).unwrap();
        let pad = usize::from(number[first] & 0x80 != 0);
        body.extend([2, (number.len() - first + pad) as u8]);
        body.extend(std::iter::repeat_n(0, pad));
        body.extend_from_slice(&number[first..]);
    }
    [&[0x30, body.len() as u8][..], &body].concat()
}
