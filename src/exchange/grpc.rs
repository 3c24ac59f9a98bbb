//! gRPC: the deadlines that clients set, and errors in the form that gRPC libraries read.
//!
//! A gRPC call ends with a `grpc-status`; its HTTP status says little. Weir answers a failed call with one head that
//! has both ("trailers-only" in gRPC's description of its use of HTTP/2), and ends a truncated answer with trailers.

use std::time::Duration;

use weir_proto_h1::{Decimal, Edits, FieldId, Head, Span, Trailers};
use weir_proto_h2::ErrorCode;

use crate::fault::Reason;

/// Digits of a `grpc-timeout`; the protocol allows no more.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// How long the client waits for the call to end, from `grpc-timeout`. `None` if the field is missing or malformed.
pub(super) fn timeout(head: &Head, block: &[u8]) -> Option<Duration> {
    let field = head.find_name(b"grpc-timeout", block)?;
    let (unit, digits) = field.value.get(block).split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let mut amount = 0;
    for digit in digits {
        amount = amount * 10 + u64::from(char::from(*digit).to_digit(10)?);
    }
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3_600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Adds the fields that tell a gRPC client why its call failed.
pub(super) fn append_problem(reason: Reason, edits: &mut Edits) {
    edits.append("Content-Type", "application/grpc");
    edits.append(
        "Grpc-Status",
        Decimal::new(status_of(reason).into()).as_bytes(),
    );
    // Texts of reasons are printable ASCII without a percent sign, so they need no encoding.
    edits.append("Grpc-Message", reason.text());
}

/// Makes the trailers that end an incomplete answer.
pub(super) fn make_trailers(status: u32, reason: Reason) -> Trailers {
    let (mut head, mut block) = (Head::new(), Vec::new());
    let mut put = |bytes: &[u8]| {
        let start = block.len();
        block.extend_from_slice(bytes);
        Span::new(start, block.len())
    };
    for (name, value) in [
        ("grpc-status", Decimal::new(status.into()).as_bytes()),
        ("grpc-message", reason.text().as_bytes()),
    ] {
        head.push(FieldId::Other, put(name.as_bytes()), put(value));
    }
    let mut trailers = Trailers::default();
    trailers.fill(&head, &block);
    trailers
}

/// Reads the value of a `grpc-status` field. A value that is no number is `UNKNOWN`.
pub(super) fn parse_status(value: &[u8]) -> u32 {
    let text = std::str::from_utf8(value).ok();
    let digits = text.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN)
}

/// The status in the head of an answer. Only answers without a body have it there.
pub(super) fn status_in_head(head: &Head, block: &[u8]) -> Option<u32> {
    let field = head.find_name(b"grpc-status", block)?;
    Some(parse_status(field.value.get(block)))
}

/// The HTTP status that the head of an answer to a call stands for: an answer without a body that ends the call with
/// `UNAVAILABLE` stands for 503.
pub(super) fn status_of_answer(head: &Head, block: &[u8]) -> u16 {
    match head.status {
        200 if status_in_head(head, block) == Some(UNAVAILABLE) => 503,
        status => status,
    }
}

/// The status in the trailers of an answer, or in the fields of an answer that Weir writes itself.
pub(super) fn status_in<'a>(mut fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<u32> {
    let is_status = |name: &[u8]| name.eq_ignore_ascii_case(b"grpc-status");
    let (_, value) = fields.find(|(name, _)| is_status(name))?;
    Some(parse_status(value))
}

/// The status of a call whose answer is truncated. If the endpoint reset the stream, its code decides, by the table in
/// gRPC's description of its use of HTTP/2.
pub(super) fn status_of_broken(reason: Reason, reset: Option<ErrorCode>) -> u32 {
    match reset {
        None => status_of(reason),
        Some(ErrorCode::REFUSED_STREAM) => UNAVAILABLE,
        Some(ErrorCode::CANCEL) => CANCELLED,
        Some(ErrorCode::ENHANCE_YOUR_CALM) => RESOURCE_EXHAUSTED,
        Some(ErrorCode::INADEQUATE_SECURITY) => PERMISSION_DENIED,
        Some(_) => INTERNAL,
    }
}

const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const DATA_LOSS: u32 = 15;
const UNAUTHENTICATED: u32 = 16;

/// The gRPC status of a reason. Most follow from the HTTP status as in gRPC's `http-grpc-status-mapping`; deadlines
/// have a status of their own.
fn status_of(reason: Reason) -> u32 {
    match reason {
        Reason::TotalTimeout | Reason::FirstByteTimeout | Reason::BodyTimeout => DEADLINE_EXCEEDED,
        _ => status_of_http(reason.status()),
    }
}

/// Whether a call with this status failed because of the server.
pub(super) const fn is_server_error(status: u32) -> bool {
    matches!(
        status,
        UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE | DATA_LOSS
    )
}

/// The status of a call whose answer has none.
pub(super) fn implied_status(reason: Option<Reason>, http: u16) -> u32 {
    reason.map_or_else(|| status_of_http(http), status_of)
}

fn status_of_http(status: u16) -> u32 {
    match status {
        413 | 414 | 431 => RESOURCE_EXHAUSTED,
        499 => CANCELLED,
        400 | 500 | 508 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 | 505 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Limits, parse_request};

    use super::*;

    fn with(field: &str) -> (Head, Vec<u8>) {
        let block = format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).expect("a valid request");
        (head, block)
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        for (value, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("15M", Some(Duration::from_secs(900))),
            ("100m", Some(Duration::from_millis(100))),
            ("250u", Some(Duration::from_micros(250))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0S", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("10", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            let (head, block) = with(&format!("grpc-timeout: {value}"));
            assert_eq!(timeout(&head, &block), expected, "{value}");
        }
        let (head, block) = with("X: y");
        assert_eq!(timeout(&head, &block), None);
    }

    #[test]
    fn statuses_are_numbers() {
        for (value, expected) in [
            ("0", 0),
            ("14", 14),
            ("007", 7),
            ("99", 99),
            ("", 2),
            ("-1", 2),
            ("+1", 2),
            ("OK", 2),
            ("99999999999999999999", 2),
        ] {
            assert_eq!(parse_status(value.as_bytes()), expected, "{value}");
            let (head, block) = with(&format!("Grpc-Status: {value}"));
            assert_eq!(status_in_head(&head, &block), Some(expected), "{value}");
        }
        let (head, block) = with("X: y");
        assert_eq!(status_in_head(&head, &block), None);
    }

    #[test]
    fn every_reason_has_a_status_and_a_message_that_needs_no_encoding() {
        for &reason in Reason::ALL {
            assert!((1..=16).contains(&status_of(reason)), "{}", reason.code());
            let text = reason.text();
            assert!(
                text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'%'),
                "{text}"
            );
        }
        assert_eq!(status_of(Reason::NoEndpoint), 14);
        assert_eq!(status_of(Reason::ConnectTimeout), 14);
        assert_eq!(status_of(Reason::TotalTimeout), 4);
        assert_eq!(status_of(Reason::NoRoute), 12);
        assert_eq!(status_of(Reason::BodyTooLarge), 8);
    }
}
