//! What `jsonwebtoken` lacks: ES512, and a look at keys before the first token comes. The only file beside `src/tls`
//! that names the cryptographic library.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, VerificationAlgorithm,
};

use super::key::Curve;

/// Whether `point`, in the form of SEC 1 section 2.3.3 without compression, lies on the curve.
pub(super) fn is_point(curve: Curve, point: &[u8]) -> bool {
    let algorithm: &dyn VerificationAlgorithm = match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
        Curve::Ed25519 => &ED25519,
    };
    ParsedPublicKey::new(algorithm, point).is_ok()
}

/// Whether `signature`, R and S of 66 bytes each, is one of `message` by ES512.
pub(super) fn verify_es512(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let verified = ECDSA_P521_SHA512_FIXED.verify_sig(point, message, signature);
    verified.is_ok()
}
