//! Ambiguous and oversized requests: answered, closed, never forwarded.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use e2e::*;

/// A request smuggled behind a malformed one. The endpoint must never receive it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: weir.test\r\n\r\n";

/// A Weir whose endpoint must not be reached.
struct Fortress {
    weir: Weir,
    endpoint: Endpoint,
}

impl Fortress {
    fn new() -> Self {
        Self::with("")
    }

    fn with(keys: &str) -> Self {
        let endpoint = Endpoint::answering(|_| ok("reached"));
        let weir = Weir::with(keys, &[&endpoint]);
        Self { weir, endpoint }
    }

    /// Sends the request and a smuggled one. Asserts one answer and then the end.
    #[track_caller]
    fn refuses(&self, request: impl AsRef<[u8]>, status: u16, reason: &str) {
        let mut client = self.weir.connect();
        client.send(&request);
        // Weir may have closed already.
        let _ = client.try_send(SMUGGLED);
        client.finish();
        let response = client.response();
        let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
        let shown: String = shown.chars().take(300).collect();
        assert_eq!(response.status(), status, "{shown:?}");
        let said = response.text();
        assert!(
            said.contains(&format!("\"reason\":\"{reason}\"")),
            "{shown:?}: {said}"
        );
        assert_eq!(response.field("Connection"), Some("close"), "{shown:?}");
        client.expect_end();
        assert_eq!(self.endpoint.connections(), 0, "{shown:?} was forwarded");
    }

    #[track_caller]
    fn passes(&self, request: impl AsRef<[u8]>) {
        let response = self.weir.ask(&request);
        let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
        assert_eq!(response.text(), "reached", "{shown:?}");
    }
}

/// A request with a ten-byte body and these field lines besides Host.
fn with_fields(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n\r\n0123456789")
}

#[test]
fn content_length_with_transfer_encoding_is_refused() {
    let fortress = Fortress::new();
    for lines in [
        "Content-Length: 10\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 10",
        "Transfer-Encoding: identity\r\nContent-Length: 10",
        "Content-Length: 0\r\ntransfer-encoding:chunked",
    ] {
        fortress.refuses(with_fields(lines), 400, "bad_framing");
    }
}

#[test]
fn content_lengths_that_differ_are_refused_and_equal_ones_are_one() {
    let fortress = Fortress::new();
    for lines in [
        "Content-Length: 10\r\nContent-Length: 11",
        "Content-Length: 10, 11",
        "Content-Length: 10\r\nContent-Length: 010x",
        "Content-Length: 010, 10",
        "Content-Length: 10, 010",
        "Content-Length: 010, 010",
        "Content-Length: 10, +10",
        "Content-Length: 10,",
        "Content-Length: 10\r\nContent-Length: 010",
    ] {
        fortress.refuses(with_fields(lines), 400, "bad_framing");
    }
    fortress.passes(with_fields("Content-Length: 10\r\nContent-Length: 10"));
    fortress.passes(with_fields("Content-Length: 10, 10"));
    fortress.passes(with_fields("Content-Length: 10 , 10"));
    fortress.passes(with_fields("Content-Length: 010"));
    for request in fortress.endpoint.requests() {
        assert_eq!(request.field("Content-Length"), Some("10"));
    }
}

#[test]
fn a_content_length_is_digits_below_two_to_the_63() {
    let fortress = Fortress::new();
    for value in [
        "+10",
        "-1",
        "0x0A",
        "1e1",
        "10 10",
        "",
        "10;",
        "9223372036854775808",
        "99999999999999999999",
        "١٠",
    ] {
        let lines = format!("Content-Length: {value}");
        fortress.refuses(with_fields(&lines), 400, "bad_framing");
    }
}

#[test]
fn chunked_that_is_not_last_or_not_alone_is_refused() {
    let fortress = Fortress::new();
    for value in [
        "chunked, identity",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        ",",
        "chunked\x0b",
    ] {
        let lines = format!("Transfer-Encoding: {value}");
        let reason = if value.contains('\x0b') {
            "bad_request"
        } else {
            "bad_framing"
        };
        fortress.refuses(with_fields(&lines), 400, reason);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    fortress.refuses(with_fields(twice), 400, "bad_framing");
}

#[test]
fn an_unknown_coding_is_not_supported() {
    let fortress = Fortress::new();
    for value in ["gzip, chunked", "foo, chunked"] {
        let lines = format!("Transfer-Encoding: {value}");
        fortress.refuses(with_fields(&lines), 501, "unsupported_coding");
    }
}

#[test]
fn transfer_encoding_in_http_1_0_is_refused() {
    let fortress = Fortress::new();
    let request = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    fortress.refuses(request, 400, "bad_framing");
}

#[test]
fn line_ends_other_than_crlf_are_refused_in_heads() {
    let fortress = Fortress::new();
    for request in [
        "GET / HTTP/1.1\nHost: weir.test\n\n",
        "GET / HTTP/1.1\r\nHost: weir.test\nX-A: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: weir.test\r\n\n",
        "GET / HTTP/1.1\r\nHost: weir.test\r\nX-A: b\rX-C: d\r\n\r\n",
        "GET / HTTP/1.1\rHost: weir.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: weir.test\r\nX-A: b\r\r\n\r\n",
    ] {
        fortress.refuses(request, 400, "bad_request");
    }
}

#[test]
fn malformed_fields_are_refused_and_never_dropped() {
    let fortress = Fortress::new();
    for line in [
        "X-Folded: one\r\n two",
        "X-Folded: one\r\n\ttwo",
        " X-Leading: space",
        "X-Space : before colon",
        "X-Tab\t: before colon",
        "no colon at all",
        ": no name",
        "X(Y): bad name",
        "X-\u{e9}: bad name",
        "X-Nul: a\0b",
        "X-Bell: a\x07b",
        "X-Del: a\x7fb",
    ] {
        fortress.refuses(
            with_fields(&format!("Content-Length: 10\r\n{line}")),
            400,
            "bad_request",
        );
        // The same on the first line of the head.
        let first = format!("GET / HTTP/1.1\r\n{line}\r\nHost: weir.test\r\n\r\n");
        fortress.refuses(first, 400, "bad_request");
    }
}

#[test]
fn odd_request_lines_are_refused() {
    let fortress = Fortress::new();
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.1.1",
        "GET / HTTP/11",
        "GET /a b HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET noslash HTTP/1.1",
        "GET * HTTP/1.1",
        "/ HTTP/1.1",
    ] {
        let request = format!("{line}\r\nHost: weir.test\r\n\r\n");
        fortress.refuses(request, 400, "bad_request");
    }
}

#[test]
fn http_0_9_is_refused_and_so_are_unknown_major_versions() {
    let fortress = Fortress::new();
    fortress.refuses("GET /\r\n", 400, "bad_request");
    fortress.refuses(
        "GET / HTTP/0.9\r\nHost: weir.test\r\n\r\n",
        505,
        "version_not_supported",
    );
    fortress.refuses(
        "GET / HTTP/2.0\r\nHost: weir.test\r\n\r\n",
        505,
        "version_not_supported",
    );
    fortress.refuses(
        "GET / HTTP/3.1\r\nHost: weir.test\r\n\r\n",
        505,
        "version_not_supported",
    );
}

#[test]
fn host_is_there_once_and_valid() {
    let fortress = Fortress::new();
    for lines in [
        "X-No: host",
        "Host: a\r\nHost: a",
        "Host: a\r\nHost: b",
        "Host: a, b",
        "Host: user@a",
        "Host: a:port",
        "Host: a:99999",
        "Host: a b",
        "Host: a/b",
        "Host: [::1",
        "Host: [zz]",
        "Host: a?b",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
        fortress.refuses(request, 400, "bad_host");
    }
    let twice = "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
    fortress.refuses(twice, 400, "bad_host");
}

#[test]
fn an_absolute_target_overrides_host() {
    let endpoint = Endpoint::answering(|_| ok("by target"));
    let name = &endpoint.name;
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{name:?}]\n[[route]]\nmatch = \"right.test/*\"\nto = \"up\"\n"
    ));
    let response = weir.ask("GET http://right.test:81/x?y HTTP/1.1\r\nHost: wrong.test\r\n\r\n");
    assert_eq!(response.text(), "by target");
    let request = endpoint.only_request();
    assert_eq!(request.field("Host"), Some("right.test:81"));
    assert_eq!(request.start, "GET /x?y HTTP/1.1");
    let wrong = weir.ask("GET http://wrong.test/x HTTP/1.1\r\nHost: right.test\r\n\r\n");
    assert_eq!(wrong.status(), 404);
}

#[test]
fn a_target_that_is_too_long_is_414() {
    let fortress = Fortress::new();
    let request = format!(
        "GET /{} HTTP/1.1\r\nHost: weir.test\r\n\r\n",
        "a".repeat(9_000)
    );
    fortress.refuses(request, 414, "target_too_long");
    // The same for a target that never ends.
    fortress.refuses(
        format!("GET /{}", "a".repeat(40_000)),
        414,
        "target_too_long",
    );
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let fortress = Fortress::new();
    let large = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Large: {}\r\n\r\n",
        "a".repeat(17_000)
    );
    fortress.refuses(large, 431, "head_too_large");
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Large: {}",
        "a".repeat(40_000)
    );
    fortress.refuses(endless, 431, "head_too_large");
    let many = "X-Many: 1\r\n".repeat(100);
    fortress.refuses(
        format!("GET / HTTP/1.1\r\nHost: weir.test\r\n{many}\r\n"),
        431,
        "head_too_large",
    );
}

#[test]
fn common_requests_pass_the_default_limits() {
    let fortress = Fortress::new();
    fortress.passes(get(&format!("/{}", "a".repeat(7_999))));
    let fields = "X-Field: value\r\n".repeat(88);
    let large = "b".repeat(7 * 1024);
    fortress.passes(format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\n{fields}X-Large: {large}\r\n\r\n"
    ));
    let request = &fortress.endpoint.requests()[1];
    assert_eq!(request.all("X-Field").len(), 88);
    assert_eq!(request.field("X-Large"), Some(large.as_str()));
}

#[test]
fn limits_of_the_head_are_settings() {
    let fortress = Fortress::with("limits = { head = \"32KiB\", target = \"1KiB\", fields = 10 }");
    fortress.refuses(
        get(&format!("/{}", "a".repeat(1_025))),
        414,
        "target_too_long",
    );
    let many = "X-Many: 1\r\n".repeat(10);
    fortress.refuses(
        format!("GET / HTTP/1.1\r\nHost: weir.test\r\n{many}\r\n"),
        431,
        "head_too_large",
    );
    let large = "b".repeat(30_000);
    fortress.passes(format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Large: {large}\r\n\r\n"
    ));
}

#[test]
fn an_expectation_other_than_100_continue_is_417() {
    let fortress = Fortress::new();
    for value in ["200-ok", "100-continue, other", "100-continue=1"] {
        let lines = format!("Content-Length: 10\r\nExpect: {value}");
        fortress.refuses(with_fields(&lines), 417, "expectation_failed");
    }
}

#[test]
fn connect_and_trace_are_not_enabled() {
    let fortress = Fortress::new();
    for request in [
        "CONNECT weir.test:443 HTTP/1.1\r\nHost: weir.test:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: weir.test\r\n\r\n",
    ] {
        let response = fortress.weir.ask(request);
        assert_eq!(response.status(), 405, "{request:?}");
        assert!(response.text().contains("\"method_not_allowed\""));
    }
    assert_eq!(fortress.endpoint.connections(), 0);
}

#[test]
fn bytes_after_a_refused_connect_are_not_a_request() {
    let fortress = Fortress::new();
    for fields in ["", "Connection: keep-alive\r\n", "Content-Length: 0\r\n"] {
        let mut client = fortress.weir.connect();
        client.send(format!(
            "CONNECT weir.test:443 HTTP/1.1\r\nHost: weir.test:443\r\n{fields}\r\nGET / HTTP/1.1\r\nHost: weir.test\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(
            (response.status(), response.field("Connection")),
            (405, Some("close"))
        );
        client.finish();
        client.expect_end();
    }
    assert_eq!(fortress.endpoint.connections(), 0);
}

#[test]
fn a_host_with_an_empty_port_is_the_host() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::start(&format!(
        "[upstream]\nup = {:?}\n[[route]]\nmatch = \"weir.test/*\"\nto = \"up\"\n[[route]]\nmatch = \"/*\"\nrespond = 404\n",
        endpoint.name
    ));
    for request in [
        "GET / HTTP/1.1\r\nHost: weir.test:\r\n\r\n",
        "GET http://weir.test:/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
    ] {
        assert_eq!(weir.ask(request).text(), "hello", "{request}");
    }
    assert_eq!(weir.entry("/").text("host"), "weir.test");
}

#[test]
fn tls_on_a_plain_listener_is_named() {
    let fortress = Fortress::new();
    let hello = [0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3];
    fortress.refuses([&hello[..], &[7; 160]].concat(), 400, "not_http");
}

/// Sends this body after a chunked head and asserts how Weir ends the exchange.
#[track_caller]
fn broken_chunks(body: &str, reason: &str) {
    let (tell, told) = std::sync::mpsc::channel();
    let endpoint = Endpoint::script(move |conn| {
        tell.send(conn.rest()).unwrap();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
    ));
    let response = client.response();
    let said = response.text();
    assert!(
        said.contains(&format!("\"reason\":\"{reason}\"")),
        "{body:?}: {said}"
    );
    client.finish();
    client.expect_end();
    drop(weir);
    drop(endpoint);
    // If the endpoint was reached, it received an incomplete body.
    for (received, _) in told.iter() {
        let received = String::from_utf8_lossy(&received).into_owned();
        assert!(
            !received.contains("\r\n0\r\n") && !received.starts_with("0\r\n"),
            "{body:?} ended well: {received:?}"
        );
        assert!(!received.contains("smuggled"), "{body:?}: {received:?}");
    }
}

#[test]
fn a_bare_line_feed_in_chunked_framing_breaks_off() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a=b\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
    ] {
        broken_chunks(body, "bad_request");
    }
    broken_chunks("5\r\nhello\r\n0\r\nX-T: a\nX-U: b\r\n\r\n", "bad_request");
}

#[test]
fn a_malformed_chunk_breaks_off() {
    for body in [
        "g\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "11111111111111111\r\n",
        "ffffffffffffffff\r\n",
    ] {
        broken_chunks(body, "bad_framing");
    }
}

#[test]
fn chunk_extensions_and_trailers_have_a_budget() {
    broken_chunks(&format!("5;{}\r\n", "x".repeat(300)), "bad_framing");
    let extension = "x".repeat(200);
    broken_chunks(
        &format!("1;{extension}\r\na\r\n").repeat(100),
        "bad_framing",
    );
    let trailers = format!("X-T: {}\r\n", "y".repeat(1_000)).repeat(20);
    broken_chunks(&format!("0\r\n{trailers}"), "head_too_large");
    let trailers = "X-T: y\r\n".repeat(101);
    broken_chunks(&format!("0\r\n{trailers}"), "head_too_large");
}

#[test]
fn segmentation_never_matters() {
    let endpoint = Endpoint::answering(|request| ok(&request.text()));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    let chunked = "PUT /c HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;ext=\"1\"\r\nhello\r\n006\r\n world\r\n0\r\nX-Trailer: end\r\n\r\n";
    for size in [1, 2, 3, 7, 1_000] {
        client.send_split(format!("\r\n{}", post("/l", "0123456789")), size);
        assert_eq!(client.response().text(), "0123456789");
        client.send_split(chunked, size);
        assert_eq!(client.response().text(), "hello world");
    }
    let seen = endpoint.requests();
    assert_eq!(seen.len(), 10);
    for pair in seen.chunks(2) {
        assert_eq!(pair[1].trailer("X-Trailer"), Some("end"));
    }
}

#[test]
fn a_later_minor_version_is_served_as_1_1() {
    let endpoint = Endpoint::answering(|_| ok("reached"));
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask("GET / HTTP/1.2\r\nHost: weir.test\r\n\r\n");
    assert_eq!(response.text(), "reached");
    assert_eq!(endpoint.only_request().start, "GET / HTTP/1.1");
}

#[test]
fn user_information_in_a_target_is_refused() {
    let fortress = Fortress::new();
    for target in ["http://user@weir.test/", "http://user:secret@weir.test/"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        fortress.refuses(request, 400, "bad_host");
    }
}

#[test]
fn a_bad_request_behind_a_good_one_is_answered_in_its_turn() {
    let endpoint = Endpoint::answering(|_| ok("good"));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(format!(
        "{}GET / HTTP/1.1\r\nno colon\r\n\r\n{SMUGGLED}",
        get("/")
    ));
    assert_eq!(client.response().text(), "good");
    assert_eq!(client.response().status(), 400);
    client.finish();
    client.expect_end();
    assert_eq!(endpoint.requests().len(), 1);
}
