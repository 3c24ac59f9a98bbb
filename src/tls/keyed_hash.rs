//! Keyed hashes of names, for cookies that must not show the names.

use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// The length of a mark.
pub const MARK_BYTES: usize = 16;

/// The keyed hash of a name, as hex digits: 64 bits of HMAC-SHA-256 (RFC 2104).
pub type Mark = [u8; MARK_BYTES];

/// Makes marks of names with one key.
#[derive(Debug)]
pub struct Marker(hmac::Key);

impl Marker {
    /// Uses `key`, of any length.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    /// The mark of `name`.
    #[must_use]
    pub fn mark(&self, name: &str) -> Mark {
        let tag = hmac::sign(&self.0, name.as_bytes());
        let digit = |half: u8| match half {
            0..=9 => b'0' + half,
            _ => b'a' + half - 10,
        };
        let halves = tag.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut mark = [b'0'; MARK_BYTES];
        for (place, half) in mark.iter_mut().zip(halves) {
            *place = digit(half);
        }
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_begin_of_an_hmac() {
        // RFC 4231, section 4.3.
        let marker = Marker::new(b"Jefe");
        assert_eq!(
            &marker.mark("what do ya want for nothing?"),
            b"5bdcc146bf60754e"
        );
    }

    #[test]
    fn keys_and_names_make_different_marks() {
        let (one, other) = (Marker::new(b"one"), Marker::new(b"other"));
        assert_ne!(one.mark("a"), one.mark("b"));
        assert_ne!(one.mark("a"), other.mark("a"));
        assert_eq!(one.mark("a"), Marker::new(b"one").mark("a"));
    }
}
