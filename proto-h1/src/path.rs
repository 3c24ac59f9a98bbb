//! Paths: their normal form for matching, and what in them programs read in different ways.

use alloc::vec::Vec;
use core::ops::BitOr;

use crate::error::Error;
use crate::scan;

pub use crate::scan::is_unreserved;

/// What normalising a path found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormalizedPath {
    /// The path is its own normal form: the buffer holds nothing of use.
    pub is_unchanged: bool,
    /// What programs read in different ways.
    pub ambiguities: PathAmbiguities,
}

/// What in a path programs read in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathAmbiguities(u8);

impl PathAmbiguities {
    /// All programs read the path alike.
    pub const NONE: Self = Self(0);
    /// A segment is `.` or `..`, plain or percent-encoded.
    pub const DOT_SEGMENT: Self = Self(1);
    /// A segment is empty: some programs merge the slashes around it, some before and some after they resolve dot
    /// segments.
    pub const DOUBLE_SLASH: Self = Self(2);
    /// `%2F`, which some programs decode into a separator.
    pub const ENCODED_SLASH: Self = Self(4);
    /// `%5C`, which some programs decode into a backslash and that into a separator.
    pub const ENCODED_BACKSLASH: Self = Self(8);
    /// `;` or `%3B`: some programs cut parameters off segments.
    pub const SEMICOLON: Self = Self(16);
    /// A longer UTF-8 form of an ASCII character, such as `%C0%AF`, which some programs take for that character.
    pub const OVERLONG: Self = Self(32);
    /// `%25`: some programs decode twice.
    pub const ENCODED_PERCENT: Self = Self(64);

    /// Says whether something of `other` is in here.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Says whether all programs read the path alike.
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

/// Brings a path into the form that routes are matched against: percent-encoding in upper case and only where it is
/// needed, then no duplicate slashes, then no dot segments. An encoded slash or backslash is a character of its
/// segment.
///
/// `out` is overwritten, and only when the path is not normal already; its capacity is reused.
///
/// # Errors
/// [`Error::BadPercentEncoding`], [`Error::Backslash`] and [`Error::EncodedNul`].
//= rfc3986#6.2.2
// Case, percent-encoding and dot segments are normalised.
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

/// Says quickly that a path is its own normal form and has no ambiguities. It may have none as well when this says no.
#[inline]
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    let Some(last) = path.last_chunk::<8>() else {
        return is_short_path_plain(path);
    };
    let mut at = 0;
    while let Some(word) = scan::word(path, at) {
        if scan::is_path_odd(word) {
            return false;
        }
        // Words overlap by a byte, so that every pair of neighbours is seen in one of them.
        at += 7;
    }
    !scan::is_path_odd(u64::from_le_bytes(*last))
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

/// Takes the octet that a percent sign and two hexadecimal digits stand for off the front of a text.
#[must_use]
pub fn decode_octet(text: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, after @ ..] = text else {
        return None;
    };
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let octet = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    Some((octet, after))
}

/// The longest form of a character that UTF-8 ever had (RFC 2279).
pub const OVERLONG_OCTETS_MAX: u8 = 6;

/// Takes the ASCII character that a longer UTF-8 form of it stands for off the front of a text, whose first octet has
/// been decoded already: `%C0%AF` is a slash to programs that do not look closely. Forms of more than `octets_max` are
/// none.
#[must_use]
pub fn decode_overlong(first: u8, text: &[u8], octets_max: u8) -> Option<(u8, &[u8])> {
    let more = match first {
        0xc0 | 0xc1 => 1,
        0xe0 => 2,
        0xf0 => 3,
        // Forms of RFC 2279, before UTF-8 ended at U+10FFFF.
        0xf8 => 4,
        0xfc => 5,
        _ => return None,
    };
    if more >= octets_max {
        return None;
    }
    let (mut value, mut rest) = (u32::from(first & 0x03), text);
    for _ in 0..more {
        // The top bits say that it continues; programs that do not look closely do not look at them either. So any octet
        // does, and it need not be encoded: `%C0.` is the same text as `%C0%2E`.
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

/// Resolves the last segment when it is `.` or `..`. The slash before it stays.
//= rfc3986#5.2.4
// "." goes, ".." takes the segment before it along and never leaves the root.
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
