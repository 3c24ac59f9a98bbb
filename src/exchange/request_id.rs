//! The id of a request, which the log, the endpoint and the client share: ours, or what a trusted proxy has given it.

use weir_proto_h1::{FieldId, Head, Span};

use super::record::Record;
use crate::conn::Kit;
use crate::limits::REQUEST_ID_BYTES_MAX;

/// The field that carries it.
pub(super) const FIELD: &str = "X-Request-Id";

/// Finds the id that a trusted proxy has given a request. One that is repeated, too long or made of other than
/// letters, digits and a few marks leaves the head, so that what takes its place is the only one.
pub(super) fn take_given(head: &mut Head, block: &[u8]) -> Span {
    let span = {
        let mut given = head.all(FieldId::XRequestId).map(|field| field.value);
        given.next().filter(|_| given.next().is_none())
    };
    let span = span.unwrap_or(Span::EMPTY);
    if is_usable(span.get(block)) {
        return span;
    }
    head.remove(FieldId::XRequestId);
    Span::EMPTY
}

/// Whether an id can stand in a field, a JSON string and a line of any log as it is.
fn is_usable(id: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"-_.:/+=@~|".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// Whether clients are told the id: then an answer has no other.
pub(super) fn is_shown(kit: &Kit) -> bool {
    kit.door.plan.borrow().shows_request_id
}

/// Adds the id to the fields of an answer, where clients are told it. Says whether they are.
pub(super) fn show(record: &Record, kit: &mut Kit) -> bool {
    let is_shown = is_shown(kit);
    if is_shown {
        match record.given_id.get(&kit.block) {
            [] => {
                let mut digits = [0; 32];
                record.id.write_hex(&mut digits);
                kit.edits.append_fixed(FIELD, &digits);
            }
            given => kit.edits.append(FIELD, given),
        }
    }
    is_shown
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Limits, parse_request};

    use super::*;

    #[test]
    fn a_given_id_is_one_short_word() {
        let long = "x".repeat(REQUEST_ID_BYTES_MAX);
        let longer = format!("X-Request-Id: {long}y");
        let longest = format!("X-Request-Id: {long}");
        let cases: &[(&str, &str)] = &[
            ("X-Request-Id: 3f2e", "3f2e"),
            (
                "x-request-id: 67e55044-10b1-426f-9247-bb680e5fe0c8",
                "67e55044-10b1-426f-9247-bb680e5fe0c8",
            ),
            (
                "X-Request-Id: Root=1-67891233-abcdef012345678912345678",
                "Root=1-67891233-abcdef012345678912345678",
            ),
            (&longest, &long),
            (&longer, ""),
            ("X-Request-Id:", ""),
            ("X-Request-Id: a b", ""),
            ("X-Request-Id: a,b", ""),
            ("X-Request-Id: a\"b", ""),
            ("X-Request-Id: a\\b", ""),
            ("X-Request-Id: \u{e9}", ""),
            ("X-Request-Id: a\r\nX-Request-Id: a", ""),
            ("X: y", ""),
        ];
        for (fields, expected) in cases {
            let block = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
            let mut head = Head::new();
            parse_request(&block, &Limits::default(), &mut head).expect("a valid request");
            let given = take_given(&mut head, &block);
            assert_eq!(given.get(&block), expected.as_bytes(), "{fields}");
            let is_left = head.find(FieldId::XRequestId).is_some();
            assert_eq!(is_left, !expected.is_empty(), "{fields}");
        }
    }
}
