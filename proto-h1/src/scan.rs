//! Byte classes, and the searches of the parser, which test eight bytes at a time.
//!
//! A search flags the bytes of a word that end it. Because of borrows, subtraction may also flag
//! bytes *above* the first hit, but none below it, so the lowest flag is exact.

/// May appear in a token (RFC 9110, section 5.6.2).
const TOKEN: u8 = 1;
/// May appear in a host name that is not a bracketed address.
const HOST: u8 = 2;
/// Never needs percent-encoding in a URI (RFC 3986, section 2.3).
const UNRESERVED: u8 = 4;

const CLASS: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, which checks the bounds"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric() {
            class |= TOKEN | HOST | UNRESERVED;
        }
        if matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        ) {
            class |= TOKEN;
        }
        if matches!(b, b'-' | b'.' | b'_' | b'~') {
            class |= HOST | UNRESERVED;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

#[inline]
fn has_class(byte: u8, class: u8) -> bool {
    // Every `u8` is a valid index; `get` avoids a panic path.
    CLASS
        .get(usize::from(byte))
        .is_some_and(|have| have & class != 0)
}

/// Returns whether `byte` may appear in a token.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    has_class(byte, TOKEN)
}

/// Returns whether `byte` never folds into another in a field name: a letter, a digit, a hyphen.
#[inline]
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// What a text is when used as a field name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// Letters, digits and hyphens.
    Plain,
    /// A token with other bytes.
    Odd,
    /// Not a token.
    NoToken,
}

/// Returns whether `bytes` is a token (RFC 9110, section 5.6.2).
#[inline]
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    name_kind(bytes) != NameKind::NoToken
}

/// Classifies `bytes` as a field name.
#[inline]
pub(crate) fn name_kind(bytes: &[u8]) -> NameKind {
    // Nearly all names consist of letters, digits and hyphens. Two overlapping loads cover them.
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
        && bytes.len() <= 16
        && is_plain_name(first)
        && is_plain_name(last)
    {
        return NameKind::Plain;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>())
        && bytes.len() <= 32
        && is_plain_name(first)
        && is_plain_name(last)
    {
        return NameKind::Plain;
    }
    if bytes.is_empty() || !bytes.iter().all(|&byte| is_token_byte(byte)) {
        NameKind::NoToken
    } else if bytes.iter().all(|&byte| is_name_byte(byte)) {
        NameKind::Plain
    } else {
        NameKind::Odd
    }
}

/// Returns whether all bytes are letters, digits or hyphens. Written to be vectorized.
#[inline]
fn is_plain_name<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().fold(true, |plain, &byte| {
        let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let is_digit = byte.wrapping_sub(b'0') < 10;
        plain & (is_letter | is_digit | (byte == b'-'))
    })
}

/// Returns whether all bytes are visible ASCII or spaces. Written to be vectorized.
#[inline]
pub(crate) fn is_visible<const N: usize>(bytes: &[u8; N]) -> bool {
    fn all(bytes: &[u8]) -> bool {
        let is_visible = |byte: u8| byte.wrapping_sub(0x20) < 0x5f;
        bytes.iter().fold(true, |all, &byte| all & is_visible(byte))
    }
    match (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        // The two loads overlap.
        (Some(first), Some(last)) if N <= 32 => all(first) & all(last),
        _ => all(bytes),
    }
}

/// Returns whether eight bytes are letters, digits, hyphens and dots, with no two adjacent dots.
#[inline]
pub(crate) fn is_name_part(bytes: &[u8; 8]) -> bool {
    let word = u64::from_le_bytes(*bytes);
    let letters = within(word | (LOW * 0x20), b'a', b'z');
    // In ASCII, the dot follows the hyphen.
    let others = within(word, b'0', b'9') | within(word, b'-', b'.');
    let dots = exactly(word, b'.');
    (letters | others) & !word & HIGH == HIGH && dots & dots >> 8 == 0
}

/// Returns whether `byte` may appear in a registered name or an IPv4 address.
#[inline]
pub(crate) fn is_host_byte(byte: u8) -> bool {
    has_class(byte, HOST)
}

/// Returns whether `byte` means the same with and without percent-encoding (RFC 3986, section 2.3).
#[inline]
#[must_use]
pub fn is_unreserved(byte: u8) -> bool {
    has_class(byte, UNRESERVED)
}

/// Returns whether `byte` may appear in a field value: visible, space, tab or above ASCII.
#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

#[inline]
fn is_target_byte(byte: u8) -> bool {
    (byte.wrapping_sub(0x21) < 0x5e) & (byte != b'#')
}

/// Finds the first byte from `at` on that a field value may not contain, or the end.
#[inline(always)] // As `field_line`, of which it is a part.
pub(crate) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let stops = below(word, 0x20) | equal(word, 0x7f);
        if stops != 0 {
            at += lowest(stops);
            if bytes.get(at) != Some(&b'\t') {
                return at;
            }
            at += 1;
            continue;
        }
        // A value longer than a word is often much longer.
        at = skip(bytes, at + 8, |byte| (byte < 0x20) | (byte == 0x7f));
    }
    tail(bytes, at, is_value_byte)
}

/// Finds the first byte from `at` on that ends a path: `?`, or one that a target may not contain.
#[inline]
pub(crate) fn path_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let stops = target_stops(word) | equal(word, b'?');
        if stops != 0 {
            return at + lowest(stops);
        }
        at = skip(bytes, at + 8, |byte| !is_target_byte(byte) | (byte == b'?'));
    }
    tail(bytes, at, |byte| is_target_byte(byte) && byte != b'?')
}

/// Finds the first byte from `at` on that a target may not contain, or the end.
#[inline]
pub(crate) fn target_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word(bytes, at) {
        let stops = target_stops(word);
        if stops != 0 {
            return at + lowest(stops);
        }
        at = skip(bytes, at + 8, |byte| !is_target_byte(byte));
    }
    tail(bytes, at, is_target_byte)
}

/// Finds the first colon, or the end.
#[inline]
pub(crate) fn colon(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = word(bytes, at) {
        let stops = equal(word, b':');
        if stops != 0 {
            return at + lowest(stops);
        }
        at += 8;
    }
    tail(bytes, at, |byte| byte != b':')
}

/// Skips runs of 16 bytes without a stop. Written to be vectorized.
#[inline]
fn skip(bytes: &[u8], mut at: usize, stops: impl Fn(u8) -> bool) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>())
        && !chunk.iter().fold(false, |any, &byte| any | stops(byte))
    {
        at += 16;
    }
    at
}

/// The eight bytes at `at`, if there are so many.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}

/// Returns whether eight bytes of a path contain something that may not be in normal form or may be
/// ambiguous: a percent sign, a backslash, a semicolon, or a slash before a slash or a dot.
#[inline]
pub(crate) fn may_be_ambiguous(word: u64) -> bool {
    let slashes = exactly(word, b'/');
    let dots = exactly(word, b'.');
    let single = exactly(word, b'%') | exactly(word, b'\\') | exactly(word, b';');
    single | (slashes & (slashes | dots) >> 8) != 0
}

#[inline]
fn target_stops(word: u64) -> u64 {
    // Bytes above ASCII, DEL, space, control bytes and the fragment mark.
    (word & HIGH) | equal(word, 0x7f) | below(word, 0x21) | equal(word, b'#')
}

#[inline]
fn tail(bytes: &[u8], mut at: usize, goes_on: impl Fn(u8) -> bool) -> usize {
    while let Some(&byte) = bytes.get(at) {
        if !goes_on(byte) {
            return at;
        }
        at += 1;
    }
    at
}

const LOW: u64 = u64::from_le_bytes([0x01; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// Flags bytes below `limit`, which is at most 0x80.
#[inline]
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(LOW * limit as u64) & !word & HIGH
}

/// Flags bytes equal to `byte`.
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    let differs = word ^ (LOW * byte as u64);
    differs.wrapping_sub(LOW) & !differs & HIGH
}

/// Flags bytes equal to `byte` and no others, for one more step than [`equal`].
#[inline]
const fn exactly(word: u64, byte: u8) -> u64 {
    let differs = word ^ (LOW * byte as u64);
    !(((differs & !HIGH) + !HIGH) | differs) & HIGH
}

/// Flags bytes from `first` to `last`. Valid only if no byte is above ASCII.
#[inline]
const fn within(word: u64, first: u8, last: u8) -> u64 {
    let from = word.wrapping_add(LOW * (0x80 - first) as u64);
    let beyond = word.wrapping_add(LOW * (0x7f - last) as u64);
    from & !beyond & HIGH
}

#[inline]
const fn lowest(flags: u64) -> usize {
    (flags.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Each search agrees with a naive one, for every byte at every position of two words.
    #[test]
    fn searches_agree_with_naive_ones() {
        for byte in 0..=255u8 {
            for place in 0..19 {
                let mut text = vec![b'a'; 19];
                text[place] = byte;
                let expect = |goes_on: &dyn Fn(u8) -> bool| {
                    text.iter().position(|&b| !goes_on(b)).unwrap_or(text.len())
                };
                assert_eq!(
                    value_end(&text, 0),
                    expect(&is_value_byte),
                    "value {byte} {place}"
                );
                assert_eq!(
                    target_end(&text, 0),
                    expect(&is_target_byte),
                    "target {byte} {place}"
                );
                assert_eq!(
                    path_end(&text, 0),
                    expect(&|b| is_target_byte(b) && b != b'?'),
                    "path {byte} {place}"
                );
                assert_eq!(colon(&text), expect(&|b| b != b':'), "colon {byte} {place}");
            }
        }
    }

    #[test]
    fn ambiguous_bytes_are_found_at_every_position() {
        for place in 0..8 {
            for byte in 0..=255u8 {
                let mut text = *b"abcdefgh";
                text[place] = byte;
                let is_odd = matches!(byte, b'%' | b'\\' | b';');
                assert_eq!(
                    may_be_ambiguous(u64::from_le_bytes(text)),
                    is_odd,
                    "{byte} {place}"
                );
                if place > 0 {
                    text[place - 1] = b'/';
                    let is_odd = is_odd || matches!(byte, b'/' | b'.');
                    assert_eq!(
                        may_be_ambiguous(u64::from_le_bytes(text)),
                        is_odd,
                        "/{byte} {place}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_borrow_after_a_hit_is_ignored() {
        // The borrow flags the 0x21 after the space. The space is the lowest flag.
        assert_eq!(target_end(b"abc !zzzzzz", 0), 3);
        assert_eq!(value_end(b"a\t b\t\tc\r\n", 0), 7);
    }
}
