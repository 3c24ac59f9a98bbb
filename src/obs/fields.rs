//! Encodes the configured request and response fields for a log record: for each name, in order, a length and the
//! value.

use super::limits::{CUT_MARK, LOG_FIELD_BYTES_MAX};

/// Takes the place of a length if the message has no such field.
const ABSENT: u16 = u16::MAX;

/// Appends the value of a field. Several values become one list.
pub fn put<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>, separator: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&ABSENT.to_le_bytes());
    let value_start = out.len();
    let mut is_first = true;
    for value in values {
        if !is_first {
            out.extend_from_slice(separator);
        }
        is_first = false;
        out.extend_from_slice(value.get(..=LOG_FIELD_BYTES_MAX).unwrap_or(value));
        if out.len() - value_start > LOG_FIELD_BYTES_MAX {
            out.truncate(value_start + LOG_FIELD_BYTES_MAX);
            out.extend_from_slice(CUT_MARK);
            break;
        }
    }
    let len = (out.len() - value_start) as u16;
    if let (false, Some(place)) = (is_first, out.get_mut(start..value_start)) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// Takes the next value. Returns `None` if the message has no such field.
pub(super) fn next<'a>(values: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = values.split_first_chunk()?;
    *values = rest;
    match u16::from_le_bytes(*len) {
        ABSENT => None,
        len => {
            let (value, rest) = rest.split_at_checked(usize::from(len))?;
            *values = rest;
            Some(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_values_survive_encoding() {
        let long = [b'x'; LOG_FIELD_BYTES_MAX];
        let longer = [b'x'; 3 * LOG_FIELD_BYTES_MAX];
        let mut all = Vec::new();
        let cases: [&[&[u8]]; 6] = [
            &[b"a"],
            &[],
            &[b""],
            &[b"a", b"", b"b"],
            &[&long],
            &[&longer, b"b"],
        ];
        for values in cases {
            put(&mut all, values.iter().copied(), b", ");
        }
        let mut rest = all.as_slice();
        let mut value = || next(&mut rest).map(|value| value.escape_ascii().to_string());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(value(), text("a"));
        assert_eq!(value(), None);
        assert_eq!(value(), text(""));
        assert_eq!(value(), text("a, , b"));
        assert_eq!(value(), Some("x".repeat(LOG_FIELD_BYTES_MAX)));
        assert_eq!(value(), Some("x".repeat(LOG_FIELD_BYTES_MAX) + "[cut]"));
        assert_eq!(value(), None);
    }
}
