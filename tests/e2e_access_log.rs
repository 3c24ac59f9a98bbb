//! The access log's fields and redaction, in every format.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::path::Path;

use tinyjson::JsonValue;

use e2e::*;
use peers::{Client, Protocol, request, run};

/// Waits until a log file has `count` lines.
fn lines(file: &Path, count: usize) -> Vec<String> {
    eventually("lines of the log", || {
        let text = std::fs::read_to_string(file).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
}

/// Starts a Weir that logs to a file, with further keys of `access_log`.
fn logged(keys: &str, rest: &str) -> (std::path::PathBuf, Weir) {
    let dir = Weir::dir();
    let log = dir.join("access.log");
    let config = format!("[access_log]\nto = {log:?}\n{keys}\n{rest}");
    let weir = Weir::start_in(&dir, &config);
    (log, weir)
}

const REQUEST: &str = "GET /a;token=p?x=1&access_token=secret&%74oken=two HTTP/1.1\r\nHost: weir.test\r\n\
    User-Agent: Agent \"7\"\r\nReferer: https://me:pw@other.test/b?password=three\r\nX-Tenant: one\r\n\
    x-tenant: t=\"wo\"\r\nAuthorization: Bearer four\r\nCookie: sid=five; b=six\r\nX-Api-Key: seven\r\n\r\n";

const SECRETS: [&str; 8] = [
    "secret", "=two", "three", "four", "five", "six", "seven", "=p?",
];

const CHOSEN: &str = "request_headers = [\"X-Tenant\", \"Authorization\", \"Cookie\", \"X-Api-Key\", \"X-None\"]\n\
    response_headers = [\"X-Cache\", \"Set-Cookie\", \"Location\", \"X-Request-Id\"]";

fn endpoint() -> Endpoint {
    Endpoint::answering(|_| {
        "HTTP/1.1 302 Found\r\nX-Cache: HIT\r\nX-Cache: a, b\r\nSet-Cookie: s=five; HttpOnly\r\n\
         Location: /cb?token=three&state=x\r\nContent-Length: 5\r\n\r\nhello"
    })
}

#[test]
fn a_line_has_the_fields_that_were_chosen_and_no_secrets() {
    let endpoint = endpoint();
    let (log, weir) = logged(
        &format!("format = \"json\"\n{CHOSEN}"),
        &route_to(&[&endpoint]),
    );
    let id = weir.ask(REQUEST).field("X-Request-Id").unwrap().to_owned();
    let text = lines(&log, 1).remove(0);
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let line: JsonValue = text.parse().unwrap();
    let expected: JsonValue = r#"{
        "path": "/a;token=REDACTED", "query": "x=1&access_token=REDACTED&%74oken=REDACTED",
        "user_agent": "Agent \"7\"", "referer": "https://REDACTED@other.test/b?password=REDACTED",
        "grpc_status": null, "sni": null, "status": 302,
        "request_headers": {
            "x-tenant": "one, t=\"wo\"", "authorization": "Bearer REDACTED",
            "cookie": "sid=REDACTED; b=REDACTED", "x-api-key": "REDACTED", "x-none": null
        }
    }"#
    .parse()
    .unwrap();
    let expected: &std::collections::HashMap<String, JsonValue> = expected.get().unwrap();
    for (name, value) in expected {
        assert_eq!(&line[name.as_str()], value, "{name}");
    }
    let answered = &line["response_headers"];
    for (name, value) in [
        ("x-cache", "HIT, a, b"),
        ("set-cookie", "s=REDACTED; HttpOnly"),
        ("location", "/cb?token=REDACTED&state=x"),
        ("x-request-id", &id),
    ] {
        assert_eq!(answered[name].get::<String>().unwrap(), value, "{name}");
    }
    // Redaction does not change the forwarded request.
    assert!(
        endpoint
            .only_request()
            .start
            .contains("access_token=secret&%74oken=two")
    );
}

#[test]
fn lines_of_every_format_are_of_one_line_each() {
    for (format, expected) in [
        (
            "combined",
            " \"GET /a;token=REDACTED?x=1&access_token=REDACTED&%74oken=REDACTED HTTP/1.1\" 302 5 \
             \"https://REDACTED@other.test/b?password=REDACTED\" \"Agent \\x227\\x22\"",
        ),
        (
            "logfmt",
            " path=\"/a;token=REDACTED\" query=\"x=1&access_token=REDACTED&%74oken=REDACTED\" version=HTTP/1.1 \
             user_agent=\"Agent \\\"7\\\"\" referer=\"https://REDACTED@other.test/b?password=REDACTED\" status=302 ",
        ),
        (
            "text",
            " query=\"x=1&access_token=REDACTED&%74oken=REDACTED\" user_agent=\"Agent \\\"7\\\"\" \
             referer=\"https://REDACTED@other.test/b?password=REDACTED\" ",
        ),
    ] {
        let endpoint = endpoint();
        let chosen = if format == "combined" { "" } else { CHOSEN };
        let keys = format!("format = \"{format}\"\n{chosen}");
        let (log, weir) = logged(&keys, &route_to(&[&endpoint]));
        weir.ask(REQUEST);
        weir.ask("BAD\r\n\r\n");
        let lines = lines(&log, 2);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains(expected),
            "{}\nhas not\n{expected}",
            lines[0]
        );
        for secret in SECRETS {
            assert!(!lines[0].contains(secret), "{secret} in {}", lines[0]);
        }
        if format != "combined" {
            for part in [
                "request_headers.authorization=\"Bearer REDACTED\"",
                "request_headers.x-tenant=\"one, t=\\\"wo\\\"\"",
                "response_headers.x-cache=\"HIT, a, b\"",
            ] {
                assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
            }
            assert!(!lines[0].contains("x-none"));
        }
    }
}

#[test]
fn names_of_the_file_are_redacted_and_off_shows_all() {
    let rest = "[[route]]\nmatch = \"/*\"\nrespond = { body = \"hello\", headers = { X-Cache = \"own\" } }\n";
    for (redact, expected) in [
        (
            "redact = [\"Reset-Code\"]",
            "reset%5Fcode=REDACTED&token=REDACTED&id=1",
        ),
        ("redact = []", "reset%5Fcode=9&token=REDACTED&id=1"),
        ("redact = \"off\"", "reset%5Fcode=9&token=8&id=1"),
    ] {
        let keys = format!(
            "{redact}\nrequest_headers = \"Authorization\"\nresponse_headers = \"X-Cache\""
        );
        let (log, weir) = logged(&keys, rest);
        weir.ask(
            "GET /?reset%5Fcode=9&token=8&id=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n",
        );
        let line: JsonValue = lines(&log, 1)[0].parse().unwrap();
        assert_eq!(line["query"].get::<String>().unwrap(), expected);
        // Credentials stay redacted even with `off`.
        let sent = &line["request_headers"]["authorization"];
        assert_eq!(sent.get::<String>().unwrap(), "Basic REDACTED");
        let answered = &line["response_headers"]["x-cache"];
        assert_eq!(answered.get::<String>().unwrap(), "own");
    }
}

#[test]
fn long_values_are_cut_and_refused_requests_are_logged() {
    let keys = "request_headers = \"X-Long\"";
    let (log, weir) = logged(keys, "[[route]]\nmatch = \"/*\"\nrespond = 204\n");
    let long = "x".repeat(3_000);
    weir.ask(format!(
        "GET /? HTTP/1.1\r\nHost: a\r\nUser-Agent: {long}\r\nReferer: {long}\r\nX-Long: {long}\r\n\r\n"
    ));
    weir.ask("GET http://me:secret@weir.test/a?token=secret HTTP/1.1\r\nHost: a\r\n\r\n");
    let lines = lines(&log, 2);
    let line: JsonValue = lines[0].parse().unwrap();
    let text = |value: &JsonValue| value.get::<String>().unwrap().clone();
    assert_eq!(
        text(&line["user_agent"]),
        format!("{}[cut]", &long[..1_024])
    );
    assert_eq!(text(&line["referer"]), long);
    let chosen = text(&line["request_headers"]["x-long"]);
    assert_eq!(chosen, format!("{}[cut]", &long[..512]));
    assert_eq!(text(&line["query"]), "");
    assert!(lines[1].contains("\"status\":400"), "{}", lines[1]);
    assert!(!lines[1].contains("secret"), "{}", lines[1]);
}

#[test]
fn fields_are_chosen_anew_by_a_reload() {
    let config = |chosen: &str| {
        format!(
            "access_log = {{ to = \"stdout\", request_headers = {chosen} }}\n\
             [[route]]\nmatch = \"/*\"\nrespond = 204\n"
        )
    };
    let weir = Weir::start(&config("[\"X-A\"]"));
    let ask = |path: &str| {
        weir.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B: 2\r\n\r\n"
        ))
    };
    ask("/before");
    weir.reload(&config("[\"X-B\", \"X-A\"]"));
    weir.wait_for("reloaded in");
    ask("/after");
    let line = |path: &str| {
        weir.log
            .wait(path, |line| line.contains(path).then(|| line.to_owned()))
    };
    assert!(line("/before").contains("\"request_headers\":{\"x-a\":\"1\"}}"));
    assert!(line("/after").contains("\"request_headers\":{\"x-b\":\"2\",\"x-a\":\"1\"}}"));
}

#[test]
fn fields_of_http2_are_logged_alike() {
    run(async {
        let endpoint = endpoint();
        let (log, weir) = logged(CHOSEN, &route_to(&[&endpoint]));
        let mut client = Client::connect(Protocol::Http2, weir.address).await;
        let asked = request("GET", "/h2?token=eight")
            .header("user-agent", "two")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-tenant", "one");
        let response = client.ask(asked.body(peers::Body::empty()).unwrap()).await;
        let line: JsonValue = lines(&log, 1)[0].parse().unwrap();
        let text = |value: &JsonValue| value.get::<String>().unwrap().clone();
        assert_eq!(text(&line["query"]), "token=REDACTED");
        assert_eq!(text(&line["user_agent"]), "two");
        let sent = &line["request_headers"];
        assert_eq!(text(&sent["cookie"]), "a=REDACTED; b=REDACTED");
        assert_eq!(text(&sent["x-tenant"]), "one");
        let answered = &line["response_headers"];
        assert_eq!(text(&answered["x-cache"]), "HIT, a, b");
        let id = response.field("x-request-id").unwrap();
        assert_eq!(text(&answered["x-request-id"]), id);
        assert_eq!(text(&line["id"]), id);
    });
}
