//! The id of a request: Weir's own, or the id that a trusted proxy has given. Log, endpoint and client get the same id.

use weir_proto_h1::{FieldId, Head, Span};

use super::Exchange;
use crate::io::Net;
use crate::limits::REQUEST_ID_BYTES_MAX;

/// The field that carries the id.
pub(super) const FIELD: &str = "X-Request-Id";

/// Finds the id that a trusted proxy has given a request. Removes ids that are repeated, too long, or have other
/// characters than letters, digits and a few marks, so that the endpoint gets only one.
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

/// Whether an id needs no escaping in a field, a JSON string or a line of a log.
fn is_usable(id: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"-_.:/+=@~|".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

impl<N: Net> Exchange<'_, N> {
    /// Whether answers carry the id of the request. If so, Weir removes any other id from them.
    pub(super) fn shows_request_id(&self) -> bool {
        self.down.context.listener.plan.borrow().shows_request_id
    }

    /// Adds the id to the fields of the answer.
    pub(super) fn append_request_id(&mut self) {
        let edits = &mut self.buffers.to_client;
        match self.record.given_id.get(self.down.block) {
            [] => {
                let mut digits = [0; 32];
                self.record.id.write_hex(&mut digits);
                edits.append_fixed(FIELD, &digits);
            }
            given => edits.append(FIELD, given),
        }
    }
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
