use std::collections::HashMap;

use tinyjson::JsonValue;

use super::super::tests::{event, plan};
use super::super::{fields, redactor};
use super::*;
use crate::fault::Reason;
use crate::obs::access_log::LineStyle;

/// What a client may send to imitate another part of a line.
const EVIL: [&[u8]; 12] = [
    b"a\" 200 0 \"b\" \"c",
    b"a\\",
    b"a\\\" b=c",
    b"a\r\n127.0.0.1 - - [x] \"GET / HTTP/1.1\" 200 0 \"-\" \"-\"",
    b"a\nstatus=500",
    b"a b=c status=500 d",
    b"\",\"status\":500,\"x\":\"",
    b"\x00\x1b[2J\x7f\x08",
    b"\xff\xfe\xc3(",
    "\u{85}\u{2028}\u{202e}\u{feff}\u{e9}".as_bytes(),
    b"=",
    b"-",
];

/// An exchange in which every text that a client chooses is `evil`.
fn evil(evil: &'static [u8], fields: &'static [u8]) -> ExchangeEvent<'static> {
    ExchangeEvent {
        method: evil,
        host: evil,
        path: evil,
        query: Some(evil),
        sni: evil,
        client_cert: evil,
        subject: evil,
        user_agent: evil,
        referer: evil,
        given_id: b"given",
        fields,
        ..event(0)
    }
}

/// The names of a plan that logs two request fields and one response field.
fn names() -> PlanNames {
    let log = "to = \"stdout\"\nrequest_headers = [\"X-A\", \"X-B\"]\nresponse_headers = \"X-C\"\n";
    let rest = "[listen.\"127.0.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nrespond = 404\n";
    let (plan, endpoints) = plan(1, &format!("[access_log]\n{log}{rest}"));
    PlanNames::of(&plan, &endpoints, None)
}

fn line(format: LogFormat, event: &ExchangeEvent<'_>, names: Option<&PlanNames>) -> String {
    let mut out = String::new();
    exchange(&mut out, &LineStyle::from(format), event, names);
    out
}

/// A line for each evil text, with that text.
fn evil_lines(format: LogFormat) -> Vec<(String, &'static [u8])> {
    let names = names();
    let lines = EVIL.into_iter().map(|text| {
        let mut values = Vec::new();
        fields::put(&mut values, [text].into_iter(), b", ");
        fields::put(&mut values, [].into_iter(), b", ");
        fields::put(&mut values, [text, text].into_iter(), b", ");
        let event = evil(text, values.leak());
        (line(format, &event, Some(&names)), text)
    });
    lines.collect()
}

/// Checks that a line stays one line for every reader, also on a terminal.
fn check(line: &str) -> &str {
    let line = line.strip_suffix('\n').expect("a line");
    let is_seen =
        |c: char| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c) && c != '\u{feff}';
    assert!(line.chars().all(is_seen), "{line:?}");
    line
}

#[test]
fn no_request_forges_a_member_of_a_json_line() {
    for (line, text) in evil_lines(LogFormat::Json) {
        let line: JsonValue = check(&line).parse().unwrap();
        let members: &HashMap<String, JsonValue> = line.get().unwrap();
        assert_eq!(members.len(), 35);
        assert_eq!(line["status"].get::<f64>(), Some(&200.0));
        assert_eq!(line["id"].get::<String>().unwrap(), "given");
        let shown = line["user_agent"].get::<String>().unwrap();
        if let Ok(text) = std::str::from_utf8(text) {
            assert_eq!(shown, text);
        }
        let headers: &HashMap<String, JsonValue> = line["request_headers"].get().unwrap();
        assert_eq!(headers.len(), 2);
        assert!(line["request_headers"]["x-b"].is_null());
        let twice = line["response_headers"]["x-c"].get::<String>().unwrap();
        assert_eq!(*twice, format!("{shown}, {shown}"));
    }
}

/// Parses a line into names and values, as `logfmt` libraries do.
fn read_logfmt(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').expect("a value");
        assert!(!name.is_empty() && !name.contains([' ', '"']), "{line}");
        let is_quoted = after.starts_with('"');
        let end = if is_quoted {
            let mut is_escaped = false;
            let end = after.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !is_escaped;
                is_escaped = *c == '\\' && !is_escaped;
                ends
            });
            end.expect("a closing quote").0 + 1
        } else {
            after.find(' ').unwrap_or(after.len())
        };
        let (value, next) = after.split_at(end);
        let value = if is_quoted {
            let value: JsonValue = value.parse().unwrap();
            value.get::<String>().unwrap().clone()
        } else {
            assert!(!value.contains(['"', '=', '\\']), "{line}");
            value.to_owned()
        };
        pairs.push((name.to_owned(), value));
        rest = next.strip_prefix(' ').unwrap_or(next);
    }
    pairs
}

#[test]
fn no_request_forges_a_pair_of_a_logfmt_line() {
    for (line, text) in evil_lines(LogFormat::Logfmt) {
        let pairs = read_logfmt(check(&line));
        let names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        let expected = "time id client listener method host path query version sni client_cert subject \
            user_agent referer status bytes_in bytes_out route attempts total_ms queue_ms connect_ms \
            first_byte_ms request_headers.x-a response_headers.x-c";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
        let value = |name: &str| &pairs.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(value("status"), "200");
        if let Ok(text) = std::str::from_utf8(text) {
            assert_eq!(value("user_agent"), text);
        }
    }
}

/// Splits a combined line as GoAccess and AWStats do.
fn read_combined(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let (open, close) = match first {
            '"' => (1, "\""),
            '[' => (1, "]"),
            _ => (0, " "),
        };
        let body = &rest[open..];
        let end = body.find(close).unwrap_or(body.len());
        parts.push(&body[..end]);
        rest = body[end..].strip_prefix(close).unwrap_or("");
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    parts
}

#[test]
fn no_request_forges_a_part_of_a_combined_line() {
    for (line, _) in evil_lines(LogFormat::Combined) {
        let line = check(&line);
        assert!(line.is_ascii(), "{line}");
        let parts = read_combined(line);
        assert_eq!(parts.len(), 9, "{line}");
        assert_eq!(parts[..3], ["192.0.2.7", "-", "-"], "{line}");
        assert_eq!(parts[3], "22/Nov/2026:09:30:00 +0000", "{line}");
        assert_eq!(parts[4].split(' ').count(), 3, "{line}");
        assert!(parts[4].ends_with(" HTTP/1.1"), "{line}");
        assert_eq!(parts[5..7], ["200", "1000"], "{line}");
    }
}

#[test]
fn a_combined_line_is_that_of_apache_and_nginx() {
    assert_eq!(
        line(LogFormat::Combined, &event(0), None),
        "192.0.2.7 - - [22/Nov/2026:09:30:00 +0000] \"GET /a?x=1 HTTP/1.1\" 200 1000 \
         \"https://example.com/\" \"curl/8.9\"\n"
    );
    let odd = ExchangeEvent {
        client: None,
        version: "HTTP/2",
        query: Some(b"token=abc"),
        user_agent: b"Agent \"7\" \\ \xe9\x01",
        referer: b"",
        ..event(0)
    };
    assert_eq!(
        line(LogFormat::Combined, &odd, None),
        "- - - [22/Nov/2026:09:30:00 +0000] \"GET /a?token=REDACTED HTTP/2.0\" 200 1000 \"-\" \
         \"Agent \\x227\\x22 \\x5C \\xE9\\x01\"\n"
    );
    let refused = ExchangeEvent {
        method: b"",
        user_agent: b"",
        status: 0,
        bytes_out: 0,
        client: Some("2001:db8::1".parse().unwrap()),
        ..odd
    };
    assert_eq!(
        line(LogFormat::Combined, &refused, None),
        "2001:db8::1 - - [22/Nov/2026:09:30:00 +0000] \"-\" 444 0 \"-\" \"-\"\n"
    );
}

#[test]
fn no_request_forges_a_part_of_a_text_line() {
    for (line, _) in evil_lines(LogFormat::Text) {
        let line = check(&line);
        // Outside the quotes, all lines are equal.
        let (mut bare, mut is_quoted, mut is_escaped) = (String::new(), false, false);
        for c in line.chars() {
            let ends = c == '"' && !is_escaped;
            is_escaped = is_quoted && c == '\\' && !is_escaped;
            is_quoted ^= ends;
            if !is_quoted && !ends {
                bare.push(c);
            }
        }
        assert_eq!(
            bare,
            "2026-11-22T09:30:00.125Z 192.0.2.7    HTTP/1.1 200 in=10 out=1000 total=12.345 queue=0.000 \
             connect=0.250 first_byte=9.000 listener= route= upstream=- endpoint=- query= sni= \
             client_cert= subject= user_agent= referer= request_headers.x-a= response_headers.x-c= attempts=1 \
             reason=- id=given",
            "{line}"
        );
    }
}

#[test]
fn a_text_line_is_one_line() {
    let event = ExchangeEvent {
        path: b"/\n\" x",
        reason: Some(Reason::NoRoute),
        ..event(0)
    };
    assert_eq!(
        line(LogFormat::Text, &event, Some(&names())),
        "2026-11-22T09:30:00.125Z 192.0.2.7 \"GET\" \"example.com\" \"/\\x0a\\\" x\" HTTP/1.1 200 in=10 \
         out=1000 total=12.345 queue=0.000 connect=0.250 first_byte=9.000 listener=\"127.0.0.1:8080\" \
         route=\"/*\" upstream=- endpoint=- query=\"x=1\" user_agent=\"curl/8.9\" \
         referer=\"https://example.com/\" attempts=1 reason=no_route \
         id=00000000000000010000000000000002\n"
    );
}

#[test]
fn the_reference_names_every_secret() {
    let reference = include_str!("../reference.md");
    let (_, secrets) = reference.split_once("### Secrets").unwrap();
    let (list, _) = secrets.split_once(", or when").unwrap();
    let listed: Vec<_> = list.split('`').skip(3).step_by(2).collect();
    assert_eq!(listed, redactor::SECRETS);
}
