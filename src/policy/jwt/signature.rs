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

/// Whether an Ed25519 key is a point of order 1, 2, 4 or 8. With such a key, anyone can find signatures that verify.
pub(super) fn has_small_order(point: &[u8]) -> bool {
    // The last byte also has the sign of x, and y alone decides.
    let Some((y, last)) = point.split_last_chunk::<1>() else {
        return false;
    };
    let [last] = *last;
    let last = last & 0x7f;
    let is_near_prime = |first: &u8, rest: &[u8]| {
        (0xec..=0xee).contains(first) && last == 0x7f && rest.iter().all(|byte| *byte == 0xff)
    };
    match y {
        // y is 0 or 1.
        [0 | 1, rest @ ..] if last == 0 && rest.iter().all(|byte| *byte == 0) => true,
        // y is -1, or 0 or 1 in a form that is not reduced.
        [first, rest @ ..] if is_near_prime(first, rest) => true,
        y => ORDER_8
            .iter()
            .any(|known| known.split_last() == Some((&last, y))),
    }
}

/// y of the points of order 8.
const ORDER_8: [[u8; 32]; 2] = [
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// Whether `signature`, R and S of 66 bytes each, is one of `message` by ES512.
pub(super) fn verify_es512(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let verified = ECDSA_P521_SHA512_FIXED.verify_sig(point, message, signature);
    verified.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y and the sign of x for every encoding of a point of small order.
    fn small_points() -> Vec<[u8; 32]> {
        let near_prime = |first| {
            let mut y = [0xff; 32];
            (y[0], y[31]) = (first, 0x7f);
            y
        };
        let one = std::array::from_fn(|index| u8::from(index == 0));
        let mut points = vec![[0; 32], one, ORDER_8[0], ORDER_8[1]];
        points.extend([0xec, 0xed, 0xee].map(near_prime));
        for mut point in points.clone() {
            point[31] |= 0x80;
            points.push(point);
        }
        points
    }

    /// The numbers are right: for each of the eight points, signatures without a secret verify. The library refuses the
    /// other encodings only when it verifies.
    #[test]
    fn a_key_of_small_order_verifies_what_nobody_signed() {
        let points = small_points();
        assert!(points.iter().all(|key| has_small_order(key)));
        let is_forgeable = |key: &&[u8; 32]| {
            (0..100_u8).any(|message| {
                points.iter().any(|r| {
                    let signature = [&r[..], &[0; 32]].concat();
                    ED25519.verify_sig(&key[..], &[message], &signature).is_ok()
                })
            })
        };
        assert_eq!(points.iter().filter(is_forgeable).count(), 8);
    }

    #[test]
    fn other_keys_have_no_small_order() {
        let mut random = fastrand::Rng::with_seed(1);
        for point in small_points() {
            let mut other = point;
            other[random.usize(1..31)] ^= 1 << random.u8(..8);
            assert!(!has_small_order(&other), "{other:x?}");
        }
        assert!(!has_small_order(&[]) && !has_small_order(&[1]));
    }
}
