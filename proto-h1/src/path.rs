//! Path normalization for matching, and the parts of a path that programs read in different ways.

use alloc::vec::Vec;
use core::ops::BitOr;

use crate::error::Error;
use crate::scan;

pub use crate::scan::is_unreserved;

/// The result of normalizing a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormalizedPath {
    /// Whether the path was in normal form already. The buffer is then unused.
    pub is_unchanged: bool,
    /// The parts that programs read in different ways.
    pub ambiguities: PathAmbiguities,
}

/// Which parts of a path programs read in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathAmbiguities(u8);

impl PathAmbiguities {
    /// None: all programs read the path alike.
    pub const NONE: Self = Self(0);
    /// A segment is `.` or `..`, plain or percent-encoded.
    pub const DOT_SEGMENT: Self = Self(1);
    /// A segment is empty. Some programs merge the slashes around it, before or after they resolve
    /// dot segments.
    pub const DOUBLE_SLASH: Self = Self(2);
    /// `%2F`. Some programs decode it into a separator.
    pub const ENCODED_SLASH: Self = Self(4);
    /// `%5C`. Some programs decode it into a backslash, and treat that as a separator.
    pub const ENCODED_BACKSLASH: Self = Self(8);
    /// `;` or `%3B`. Some programs cut parameters off segments.
    pub const SEMICOLON: Self = Self(16);
    /// An overlong UTF-8 form of an ASCII character, such as `%C0%AF`. Some programs decode it into
    /// that character.
    pub const OVERLONG: Self = Self(32);
    /// `%25`. Some programs decode twice.
    pub const ENCODED_PERCENT: Self = Self(64);

    /// Returns whether `self` and `other` have something in common.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether all programs read the path alike.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for PathAmbiguities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Normalizes a path for matching: percent-encodes in upper case and only where necessary, then
/// merges slashes, then removes dot segments. An encoded slash or backslash stays part of its
/// segment.
///
/// `out` receives the result, unless the path is in normal form already. Its capacity is reused.
///
/// # Errors
/// [`Error::BadPercentEncoding`], [`Error::Backslash`] and [`Error::EncodedNul`].
//= rfc3986#6.2.2
// Case, percent-encoding and dot segments are normalized.
#[inline]
pub fn normalize_path(path: &[u8], out: &mut Vec<u8>) -> Result<NormalizedPath, Error> {
    if is_plain(path) {
        return Ok(NormalizedPath {
            is_unchanged: true,
            ambiguities: PathAmbiguities::NONE,
        });
    }
    normalize(path, out)
}

/// Returns true if a path is in normal form and unambiguous. May return false for such a path: the
/// check favours speed.
#[inline]
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    let Some(last) = path.last_chunk::<8>() else {
        return is_short_path_plain(path);
    };
    let mut at = 0;
    while let Some(word) = scan::word(path, at) {
        if scan::may_be_ambiguous(word) {
            return false;
        }
        // Words overlap by a byte, so each pair of neighbours lies in one of them.
        at += 7;
    }
    !scan::may_be_ambiguous(u64::from_le_bytes(*last))
}

fn is_short_path_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        if matches!(byte, b'%' | b'\\' | b';') || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

fn normalize(path: &[u8], out: &mut Vec<u8>) -> Result<NormalizedPath, Error> {
    out.clear();
    out.reserve(path.len());
    let mut ambiguities = PathAmbiguities::NONE;
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                let (octet, after) = decode_octet(rest).ok_or(Error::BadPercentEncoding)?;
                if octet == 0 {
                    return Err(Error::EncodedNul);
                }
                ambiguities = ambiguities | octet_ambiguities(octet, after);
                if is_unreserved(octet) {
                    out.push(octet);
                } else {
                    let digits = tail.iter().take(2).map(u8::to_ascii_uppercase);
                    out.push(b'%');
                    out.extend(digits);
                }
                after
            }
            b'\\' => return Err(Error::Backslash),
            b'/' => {
                ambiguities = ambiguities | end_segment(out);
                if out.last() == Some(&b'/') {
                    ambiguities = ambiguities | PathAmbiguities::DOUBLE_SLASH;
                } else {
                    out.push(b'/');
                }
                tail
            }
            _ => {
                if byte == b';' {
                    ambiguities = ambiguities | PathAmbiguities::SEMICOLON;
                }
                out.push(byte);
                tail
            }
        };
    }
    ambiguities = ambiguities | end_segment(out);
    Ok(NormalizedPath {
        is_unchanged: out.as_slice() == path,
        ambiguities,
    })
}

/// Decodes the percent-encoded octet at the front of `text`. Returns it and the rest.
#[must_use]
pub fn decode_octet(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, after @ ..] = text else {
        return None;
    };
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let octet = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    Some((octet, after))
}

/// Octets of the longest form of a character in any version of UTF-8 (RFC 2279).
pub const OVERLONG_OCTETS_MAX: u8 = 6;

/// Decodes an overlong UTF-8 form of an ASCII character, as lenient programs do: `%C0%AF` is a
/// slash to them. `first` is the first octet, already decoded, and `text` follows it. Returns the
/// character and the rest, or `None` for a form longer than `octets_max`.
#[must_use]
pub fn decode_overlong(first: u8, text: &[u8], octets_max: u8) -> Option<(u8, &[u8])> {
    let more = match first {
        0xc0 | 0xc1 => 1,
        0xe0 => 2,
        0xf0 => 3,
        // RFC 2279 forms, from before UTF-8 ended at U+10FFFF.
        0xf8 => 4,
        0xfc => 5,
        _ => return None,
    };
    if more >= octets_max {
        return None;
    }
    let (mut value, mut rest) = (u32::from(first & 0x03), text);
    for _ in 0..more {
        // The top bits mark a continuation, and lenient programs do not check them. So any octet
        // serves, encoded or not: `%C0.` is the same text as `%C0%2E`.
        let bare = || rest.split_first().map(|(&byte, after)| (byte, after));
        let (octet, after) = decode_octet(rest).or_else(bare)?;
        value = value << 6 | u32::from(octet & 0x3f);
        rest = after;
    }
    let value = u8::try_from(value).ok()?;
    value.is_ascii().then_some((value, rest))
}

fn octet_ambiguities(octet: u8, after: &[u8]) -> PathAmbiguities {
    match octet {
        b'/' => PathAmbiguities::ENCODED_SLASH,
        b'\\' => PathAmbiguities::ENCODED_BACKSLASH,
        b';' => PathAmbiguities::SEMICOLON,
        b'%' => PathAmbiguities::ENCODED_PERCENT,
        _ => match decode_overlong(octet, after, OVERLONG_OCTETS_MAX) {
            Some((b';', _)) => PathAmbiguities::OVERLONG | PathAmbiguities::SEMICOLON,
            Some((b'%', _)) => PathAmbiguities::OVERLONG | PathAmbiguities::ENCODED_PERCENT,
            Some(_) => PathAmbiguities::OVERLONG,
            None => PathAmbiguities::NONE,
        },
    }
}

/// Resolves a last segment of `.` or `..`. The slash before it stays.
//= rfc3986#5.2.4
// "." disappears; ".." also removes the segment before it, but not the root.
fn end_segment(out: &mut Vec<u8>) -> PathAmbiguities {
    let start = after_last_slash(out);
    match out.get(start..) {
        Some(b".") => out.truncate(start),
        Some(b"..") => {
            let parent = out.get(..start.saturating_sub(1)).unwrap_or_default();
            let keep = after_last_slash(parent);
            out.truncate(keep.max(usize::from(start > 0)));
        }
        _ => return PathAmbiguities::NONE,
    }
    PathAmbiguities::DOT_SEGMENT
}

fn after_last_slash(path: &[u8]) -> usize {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    slash.map_or(0, |slash| slash + 1)
}
