//! The base64 of tokens and keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes that `text` stands for in base64url without padding. `None` for any other text, and for one whose last
/// character has bits that mean nothing: then two texts would stand for the same bytes.
//= rfc7515#2
//= rfc4648#3.5
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_decoded() {
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"AA").unwrap(), [0]);
        assert_eq!(decode(b"-_8").unwrap(), [0xfb, 0xff]);
        for text in [
            "A", "AB", "AA=", "AA==", "AAF", "+/8", "A A", "AA\n", " AA", "AA.", "Ä",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn no_two_texts_stand_for_the_same_bytes() {
        let mut known = std::collections::HashSet::new();
        let alphabet: Vec<u8> = (0..=255).collect();
        for &one in &alphabet {
            for &other in &alphabet {
                if let Some(bytes) = decode(&[one, other]) {
                    assert!(known.insert(bytes));
                }
            }
        }
        assert_eq!(known.len(), 256);
    }
}
