//! Reads `Retry-After` of endpoints.

use std::time::{Duration, UNIX_EPOCH};

use weir_proto_h1::Head;

use crate::limits::RETRY_AFTER_MAX_MS;

/// How long the endpoint asks to be left alone, at most [`RETRY_AFTER_MAX_MS`]. `wall_ms` is the time now, in milliseconds
/// since the Unix epoch. `None` if the field is missing or malformed, or names a time that is over.
//= rfc9110#10.2.3
pub(super) fn read(head: &Head, block: &[u8], wall_ms: u64) -> Option<Duration> {
    let value = head.find_name(b"Retry-After", block)?.value.get(block);
    let text = std::str::from_utf8(value).ok()?.trim();
    let pause = match text.bytes().all(|b| b.is_ascii_digit()) {
        // So many digits that the number overflows mean a long time.
        true if !text.is_empty() => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        _ => {
            let at = httpdate::parse_http_date(text).ok()?;
            let now = UNIX_EPOCH + Duration::from_millis(wall_ms);
            at.duration_since(now).ok()?
        }
    };
    (!pause.is_zero()).then_some(pause.min(Duration::from_millis(RETRY_AFTER_MAX_MS)))
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Limits, parse_request};

    use super::*;

    #[test]
    fn it_is_seconds_or_a_date() {
        // 1994-11-15 08:12:31 UTC.
        let now_ms = 784_887_151_000;
        for (value, expected) in [
            ("2", Some(2)),
            ("0", None),
            ("120", Some(10)),
            ("99999999999999999999999", Some(10)),
            ("Tue, 15 Nov 1994 08:12:34 GMT", Some(3)),
            ("Tue, 15 Nov 1994 08:12:30 GMT", None),
            ("Wed, 16 Nov 1994 08:12:34 GMT", Some(10)),
            ("-1", None),
            ("soon", None),
            ("1.5", None),
        ] {
            let block = format!("GET / HTTP/1.1\r\nHost: a\r\nRetry-After: {value}\r\n\r\n");
            let mut head = Head::new();
            parse_request(block.as_bytes(), &Limits::default(), &mut head).expect("valid");
            let read = read(&head, block.as_bytes(), now_ms);
            assert_eq!(read, expected.map(Duration::from_secs), "{value}");
        }
    }
}
