//! A cookie of the application that carries the mark of an endpoint before its value: `MARK~VALUE`.
//!
//! When an endpoint sets the cookie, Weir writes the mark before the value; when a client sends the cookie, Weir takes the
//! mark off. So Weir needs no table of sessions, and the application sees its own value.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::tls::MARK_BYTES;

/// The byte between the mark and the value.
const SEPARATOR: u8 = b'~';

/// Splits a value of the cookie: the mark, and the value as the application wrote it. `None`: it has no mark. The
/// mark of a quoted value stands within the quotes, and the value has lost its first quote with it.
pub(super) fn split_mark(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = value.strip_prefix(b"\"").unwrap_or(value);
    let (mark, rest) = inner.split_at_checked(MARK_BYTES)?;
    let is_mark = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let rest = rest.strip_prefix(&[SEPARATOR])?;
    mark.iter().all(is_mark).then_some((mark, rest))
}

/// Writes the value of a `Cookie` field without the marks of the cookie `name`. Returns false, and writes nothing that
/// counts, if there is no mark.
//= rfc6265#4.2.1
// Pairs stand in one field with "; " between them.
pub(super) fn write_unmarked(field: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut has_mark = false;
    for (index, pair) in field.split(|&byte| byte == b';').enumerate() {
        if index > 0 {
            out.push(b';');
        }
        match marked_value(pair, name) {
            Some((before, value, rest)) => {
                has_mark = true;
                out.extend_from_slice(before);
                if value.starts_with(b"\"") {
                    out.push(b'"');
                }
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(pair),
        }
    }
    has_mark
}

/// The marked value of a pair of this name: what stands before it, all of it, and what follows the mark.
fn marked_value<'p>(pair: &'p [u8], name: &[u8]) -> Option<(&'p [u8], &'p [u8], &'p [u8])> {
    let (before, value) = value_of(pair, name)?;
    let (_, rest) = split_mark(value)?;
    Some((before, value, rest))
}

/// The value of a pair of this name without the blanks before it, and all that stands before that.
fn value_of<'p>(pair: &'p [u8], name: &[u8]) -> Option<(&'p [u8], &'p [u8])> {
    let at = pair.iter().position(|&byte| byte == b'=')?;
    let (key, value) = pair.split_at_checked(at + 1)?;
    let blanks = value.len() - value.trim_ascii_start().len();
    let key = key.strip_suffix(b"=").unwrap_or(key);
    (key.trim_ascii() == name).then(|| pair.split_at_checked(at + 1 + blanks))?
}

/// Where the mark goes in the value of a `Set-Cookie` field: what stands before and behind it. `None`: it sets another
/// cookie, or ends this one.
pub(super) fn place_of_mark<'f>(field: &'f [u8], name: &[u8]) -> Option<(&'f [u8], &'f [u8])> {
    let end = field.iter().position(|&byte| byte == b';');
    let (pair, attributes) = field.split_at_checked(end.unwrap_or(field.len()))?;
    let (before, value) = value_of(pair, name)?;
    let quote = usize::from(value.starts_with(b"\""));
    let is_empty = matches!(value.trim_ascii(), b"" | b"\"\"");
    let is_over = attributes.split(|&byte| byte == b';').any(ends_cookie);
    match is_empty || is_over {
        true => None,
        false => field.split_at_checked(before.len() + quote),
    }
}

/// Whether an attribute makes the client forget the cookie.
//= rfc6265#5.2.2
// A `Max-Age` of 0 or less ends the cookie at once.
fn ends_cookie(attribute: &[u8]) -> bool {
    let Some(at) = attribute.iter().position(|&byte| byte == b'=') else {
        return false;
    };
    let Some((name, value)) = attribute.split_at_checked(at) else {
        return false;
    };
    let age = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
    let is_zero = age.first() == Some(&b'-') || age.iter().all(|&byte| byte == b'0');
    name.trim_ascii().eq_ignore_ascii_case(b"max-age") && !age.is_empty() && is_zero
}

/// The separator, for writers.
pub(super) const fn separator() -> [u8; 1] {
    [SEPARATOR]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8] = b"0123456789abcdef";

    fn marked(field: &str) -> Option<String> {
        let (before, behind) = place_of_mark(field.as_bytes(), b"SID")?;
        let all = [before, MARK, &separator(), behind].concat();
        Some(String::from_utf8(all).expect("text"))
    }

    fn unmarked(field: &str) -> Option<String> {
        let mut out = Vec::new();
        let has_mark = write_unmarked(field.as_bytes(), b"SID", &mut out);
        has_mark.then(|| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_mark_is_written_before_the_value() {
        for (field, expected) in [
            ("SID=abc", Some("SID=0123456789abcdef~abc")),
            (
                "SID=a=b; Path=/; HttpOnly",
                Some("SID=0123456789abcdef~a=b; Path=/; HttpOnly"),
            ),
            (
                "SID=\"a b\"; Path=/",
                Some("SID=\"0123456789abcdef~a b\"; Path=/"),
            ),
            (" SID = abc", Some(" SID = 0123456789abcdef~abc")),
            (
                "SID=abc; Max-Age=60",
                Some("SID=0123456789abcdef~abc; Max-Age=60"),
            ),
            // The end of a cookie.
            ("SID=; Path=/", None),
            ("SID=\"\"; Path=/", None),
            ("SID=deleted; max-age=0; Path=/", None),
            ("SID=deleted; Max-Age = -1", None),
            // Others.
            ("sid=abc", None),
            ("SIDX=abc", None),
            ("other=SID=abc", None),
            ("SID", None),
            ("", None),
        ] {
            assert_eq!(marked(field).as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn the_application_sees_its_own_value() {
        for (field, expected) in [
            ("SID=0123456789abcdef~abc", Some("SID=abc")),
            (
                "a=b; SID=0123456789abcdef~abc; c=d",
                Some("a=b; SID=abc; c=d"),
            ),
            ("SID=\"0123456789abcdef~a b\"", Some("SID=\"a b\"")),
            (
                "SID=0123456789abcdef~a; SID=0123456789abcdef~b",
                Some("SID=a; SID=b"),
            ),
            ("SID=abc", None),
            ("SID=0123456789ABCDEF~abc", None),
            ("SID=0123456789abcdef", None),
            ("other=0123456789abcdef~abc", None),
        ] {
            assert_eq!(unmarked(field).as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn what_goes_out_comes_back() {
        for value in [
            "abc",
            "\"abc\"",
            "~",
            "0123456789abcdef~x",
            "a=b",
            "\"a~b\"",
        ] {
            let field = format!("SID={value}; Path=/");
            let out = marked(&field).expect("a mark");
            let pair = out.split(';').next().unwrap_or_default();
            let back = unmarked(pair).expect("a mark");
            assert_eq!(back, format!("SID={value}"));
        }
    }
}
