//! Endpoints' answers: their framing, their completeness, and malformed ones.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::mpsc;

use e2e::*;

/// An endpoint that answers every request with these bytes and keeps the connection, and a Weir in front of it.
fn answering(answer: impl Into<Vec<u8>>) -> (Endpoint, Weir) {
    let answer = answer.into();
    let endpoint = Endpoint::answering(move |_| answer.clone());
    let weir = Weir::to(&[&endpoint]);
    (endpoint, weir)
}

/// An endpoint that answers the first request of every connection with these bytes and then ends it.
fn ending(answer: &str, how: End) -> (Endpoint, Weir) {
    let answer = answer.to_owned();
    let endpoint = Endpoint::script(move |conn| {
        let Some(_) = conn.next_request() else { return };
        conn.send(&answer);
        match how {
            End::Closed => conn.finish(),
            End::Reset => conn.reset_now(),
        }
    });
    let weir = Weir::to(&[&endpoint]);
    (endpoint, weir)
}

/// Sends one request and returns everything until the connection ends.
#[track_caller]
fn all_of(weir: &Weir, request: &str) -> (String, End) {
    let mut client = weir.connect();
    client.send(request);
    let (bytes, end) = client.rest();
    (String::from_utf8(bytes).unwrap(), end)
}

const GET_10: &str = "GET / HTTP/1.0\r\n\r\n";
const CLOSING: &str = "GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n";

#[test]
fn a_close_delimited_answer_becomes_chunked_for_1_1() {
    let (_endpoint, weir) = ending("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nuntil close", End::Closed);
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(get("/"));
        let response = client.response();
        assert!(response.is_chunked());
        assert_eq!(response.text(), "until close");
        assert_eq!(response.field("X-A"), Some("b"));
    }
}

#[test]
fn a_close_delimited_answer_stays_one_for_1_0() {
    let (_endpoint, weir) = ending("HTTP/1.1 200 OK\r\n\r\nuntil close", End::Closed);
    let (text, end) = all_of(&weir, GET_10);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!((body, end), ("until close", End::Closed));
    assert_eq!(Message::parse(head).field("Transfer-Encoding"), None);
}

#[test]
fn a_chunked_answer_loses_its_chunks_for_1_0() {
    let (_endpoint, weir) = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n5\r\n text\r\n0\r\nX-T: 1\r\n\r\n",
    );
    let (text, end) = all_of(&weir, GET_10);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!((body, end), ("some text", End::Closed));
    assert_eq!(Message::parse(head).field("Transfer-Encoding"), None);
    // Even if the client asks for keep-alive, because it cannot see where the answer ends.
    let (text, _) = all_of(&weir, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(Message::parse(head).field("Connection"), Some("close"));
    assert_eq!(body, "some text");
}

#[test]
fn a_1_0_client_may_keep_its_connection_for_an_answer_with_a_length() {
    let (endpoint, weir) = answering(ok("hello"));
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: old.test\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.text(), "hello");
        assert_eq!(response.field("Connection"), Some("keep-alive"));
    }
    client.send(GET_10);
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.field("Connection")),
        ("hello", Some("close"))
    );
    client.expect_closed();
    let seen = endpoint.requests();
    assert!(
        seen.iter().all(|request| request.start == "GET / HTTP/1.1"),
        "{seen:?}"
    );
    assert_eq!(seen[0].field("Host"), Some("old.test"));
    assert!(seen[2].field("Host").is_some(), "a 1.1 request has a Host");
    assert!(
        seen.iter()
            .all(|request| request.field("Connection").is_none())
    );
}

#[test]
fn an_answer_in_http_1_0_is_understood() {
    let (_endpoint, weir) = ending(
        "HTTP/1.0 200 Fine\r\nContent-Length: 3\r\n\r\nold",
        End::Closed,
    );
    let response = weir.ask(get("/"));
    assert_eq!(
        (response.start.as_str(), response.text().as_str()),
        ("HTTP/1.1 200 Fine", "old")
    );
}

#[test]
fn chunks_keep_their_bytes_and_lose_their_extensions() {
    let (_endpoint, weir) = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n003;a=b;c=\"d\"\r\none\r\n4;e\r\n two\r\n0;f\r\n\r\n",
    );
    let mut client = weir.connect();
    client.send(get("/"));
    // This test's parser accepts no extensions.
    assert_eq!(client.response().text(), "one two");
}

#[test]
fn trailers_pass_both_ways_and_are_never_merged_into_the_head() {
    let endpoint = Endpoint::answering(|request| {
        let checksum = request.trailer("X-Checksum").unwrap_or("none");
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Seen\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Seen: {checksum}\r\nContent-Length: 7\r\nSet-Cookie: a=b\r\n\r\n"
        )
    });
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nab\r\n0\r\nX-Checksum: 42\r\nHost: evil.test\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(response.trailers, [("X-Seen".to_owned(), "42".to_owned())]);
    assert_eq!(response.field("X-Seen"), None);
    let request = endpoint.only_request();
    assert_eq!(
        request.trailers,
        [("X-Checksum".to_owned(), "42".to_owned())]
    );
    assert_eq!(
        (request.field("X-Checksum"), request.field("Host")),
        (None, Some("weir.test"))
    );
    assert_eq!(request.field("TE"), Some("trailers"));
}

#[test]
fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let endpoint = Endpoint::answering(|request| match request.target() {
        "/204" => "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("HEAD /200 HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    let head = client.message_head();
    assert_eq!(
        (head.status(), head.field("Content-Length")),
        (200, Some("500"))
    );
    client.send(get("/204"));
    let response = client.response();
    assert_eq!((response.status(), response.field("X-A")), (204, Some("b")));
    assert_eq!(
        (
            response.field("Content-Length"),
            response.field("Transfer-Encoding")
        ),
        (None, None)
    );
    client.send(get("/304"));
    let response = client.response();
    assert_eq!(
        (response.status(), response.field("ETag")),
        (304, Some("\"x\""))
    );
    client.send("HEAD /200 HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.message_head().status(), 200);
    client.expect_closed();
    assert_eq!(
        endpoint.connections(),
        1,
        "the upstream connection goes on, too"
    );
}

#[test]
fn expect_100_continue_is_relayed() {
    let (tell, told) = mpsc::channel();
    let endpoint = Endpoint::script(move |conn| {
        let mut request = conn.message_head();
        tell.send(request.clone()).unwrap();
        conn.send("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n");
        request.read_body(conn, false);
        conn.send(ok(&request.text()));
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    // The client sends the body only after the 100.
    let interim = client.message_head();
    assert_eq!(
        (interim.status(), interim.field("X-Interim")),
        (100, Some("1"))
    );
    assert_eq!(
        told.recv_timeout(DEADLINE).unwrap().field("Expect"),
        Some("100-continue")
    );
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn an_expectation_may_be_answered_at_once() {
    let endpoint = Endpoint::script(|conn| {
        conn.message_head();
        conn.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!");
        conn.rest();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (413, "no!"));
    // Weir cannot know whether the body follows, so it closes.
    assert_eq!(response.field("Connection"), Some("close"));
    client.finish();
    client.expect_end();
}

#[test]
fn early_hints_are_relayed_to_1_1_and_nothing_interim_to_1_0() {
    let (_endpoint, weir) = answering(format!(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n{}",
        ok("late")
    ));
    let mut client = weir.connect();
    client.send(get("/"));
    assert_eq!(client.message_head().status(), 102);
    let hints = client.message_head();
    assert_eq!(
        (hints.status(), hints.field("Link")),
        (103, Some("</a.css>; rel=preload"))
    );
    assert_eq!(client.response().text(), "late");
    let (text, _) = all_of(&weir, GET_10);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
}

#[test]
fn interim_answers_without_end_are_cut_off() {
    let (_endpoint, weir) = answering("HTTP/1.1 102 Processing\r\n\r\n".repeat(2_000));
    let mut client = weir.connect();
    client.send(get("/"));
    let last = loop {
        let head = client.message_head();
        if head.status() != 102 {
            break head;
        }
    };
    assert_eq!(last.status(), 502);
}

#[test]
fn a_truncated_answer_never_looks_complete() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n";
    let in_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly";
    let before_trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n";
    let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\nx\r\n";
    for answer in [length, chunked, in_chunk, before_trailers, bad_chunk] {
        for how in [End::Closed, End::Reset] {
            let (_endpoint, weir) = ending(answer, how);
            let (text, _) = all_of(&weir, CLOSING);
            assert!(!text.contains("0\r\n\r\n"), "{answer:?}, {how:?}: {text:?}");
            // Weir passes a truncated chunk on as a shorter chunk with its own framing.
            let body = |message: &str| {
                message
                    .split_once("\r\n\r\n")
                    .map_or(0, |(_, body)| body.len())
            };
            assert!(
                body(&text) <= body(answer) + 2,
                "{answer:?}, {how:?}: {text:?}"
            );
        }
    }
}

#[test]
fn a_truncated_answer_is_logged_as_such() {
    let (_endpoint, weir) = ending(
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        End::Closed,
    );
    all_of(&weir, CLOSING);
    let entry = weir.entry("/");
    assert_eq!(entry.text("reason"), "response_truncated");
    assert_eq!(
        (entry.number("status"), entry.number("bytes_out")),
        (200.0, 9.0)
    );
}

#[test]
fn an_endpoint_that_ends_before_its_head_is_whole_is_502() {
    for how in [End::Closed, End::Reset] {
        let (_endpoint, weir) = ending("HTTP/1.1 200 OK\r\nContent-Le", how);
        let response = weir.ask(get("/"));
        assert_eq!(response.status(), 502, "{how:?}");
        assert!(
            response.text().contains("\"upstream_closed\""),
            "{}",
            response.text()
        );
    }
}

#[test]
fn a_malformed_answer_is_502_and_its_connection_is_dropped() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Space : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Bare: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "<html>not HTTP at all</html>\r\n\r\n",
    ] {
        let (endpoint, weir) = answering(answer);
        let mut client = weir.connect();
        for number in 1..3 {
            // A POST, because Weir sends a GET again.
            client.send(post("/", ""));
            let response = client.response();
            assert_eq!(response.status(), 502, "{answer:?}");
            assert!(
                response.text().contains("\"bad_response\""),
                "{answer:?}: {}",
                response.text()
            );
            assert_eq!(
                endpoint.connections(),
                number,
                "{answer:?}: the connection was used again"
            );
        }
    }
}

#[test]
fn an_upstream_head_has_limits_too() {
    for answer in [
        format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "a".repeat(17_000)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: 1\r\n".repeat(101)),
        format!("HTTP/1.1 200 OK\r\nX-Endless: {}", "a".repeat(200_000)),
    ] {
        let (_endpoint, weir) = answering(answer);
        let response = weir.ask(get("/"));
        assert_eq!(response.status(), 502);
        assert!(
            response.text().contains("\"response_head_too_large\""),
            "{}",
            response.text()
        );
    }
}

#[test]
fn bytes_beyond_an_answer_are_never_the_next_answer() {
    let endpoint = Endpoint::answering(|request| {
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        match request.target() {
            "/length" => format!("{}{poison}", ok("own")),
            "/chunked" => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nown\r\n0\r\n\r\n{poison}"
            ),
            "/204" => format!("HTTP/1.1 204 No Content\r\n\r\n{poison}"),
            _ => ok("clean"),
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for target in ["/length", "/chunked", "/204"] {
        client.send(get(target));
        assert!(matches!(client.response().text().as_str(), "own" | ""));
        client.send(get("/next"));
        assert_eq!(client.response().text(), "clean", "after {target}");
    }
    // An endpoint that answers HEAD with a body.
    client.send("HEAD /length HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(client.message_head().status(), 200);
    client.send(get("/next"));
    assert_eq!(
        client.response().text(),
        "clean",
        "after a HEAD with a body"
    );
}

#[test]
fn a_head_goes_out_without_waiting_for_its_body() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let endpoint = Endpoint::script(move |conn| {
        conn.request();
        let wait = wait.lock().unwrap();
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for event in ["one", "two"] {
            wait.recv_timeout(DEADLINE).unwrap();
            conn.send(event);
        }
        wait.recv_timeout(DEADLINE).unwrap();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/events"));
    assert_eq!(client.message_head().status(), 200);
    for event in ["3\r\none\r\n", "3\r\ntwo\r\n"] {
        go.send(()).unwrap();
        client.expect(event);
    }
    go.send(()).unwrap();
    client.expect("0\r\n\r\n");
}

#[test]
fn large_bodies_arrive_whole() {
    let body: String = (0..2_000_000u32)
        .map(|n| char::from(b'a' + (n % 1_009 % 26) as u8))
        .collect();
    let expected = body.clone();
    let endpoint = Endpoint::answering(move |request| {
        if request.target() == "/chunked" {
            let mut answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            for (n, piece) in request.text().as_bytes().chunks(7_777).enumerate() {
                answer += &format!(
                    "{:x}\r\n{}\r\n",
                    piece.len(),
                    std::str::from_utf8(piece).unwrap()
                );
                assert!(n < 1_000);
            }
            answer + "0\r\n\r\n"
        } else {
            ok(&request.text())
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for target in ["/length", "/chunked", "/length"] {
        let sender = client.sender();
        let request = post(target, &body);
        let sending = std::thread::spawn(move || sender.send(request));
        assert_eq!(client.response().text(), expected, "{target}");
        sending.join().unwrap();
    }
}

#[test]
fn hop_by_hop_fields_of_answers_are_removed() {
    let (_endpoint, weir) = answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Private: secret\r\n\
         Proxy-Authenticate: Basic\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX-Public: yes\r\nContent-Length: 2\r\n\r\nhi",
    );
    let response = weir.ask(get("/"));
    for name in [
        "X-Private",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Connection",
        "Upgrade",
    ] {
        assert_eq!(response.field(name), None, "{name}");
    }
    assert_eq!(
        (response.field("X-Public"), response.text().as_str()),
        (Some("yes"), "hi")
    );
}

#[test]
fn connection_of_an_answer_cannot_name_what_others_rely_on() {
    let (_endpoint, weir) = answering(
        "HTTP/1.1 200 OK\r\nConnection: Content-Length, Set-Cookie, Content-Type, Date\r\nSet-Cookie: a=b\r\n\
         Content-Type: text/plain\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nhi",
    );
    let response = weir.ask(get("/"));
    for name in ["Set-Cookie", "Content-Type", "Date", "Content-Length"] {
        assert!(response.field(name).is_some(), "{name}");
    }
}

#[test]
fn a_close_delimited_answer_that_ends_by_a_reset_is_truncated() {
    // The reset must not overtake the bytes, so the client reports when it has them.
    let (seen, has_seen) = mpsc::channel::<()>();
    let has_seen = std::sync::Mutex::new(has_seen);
    let endpoint = Endpoint::script(move |conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\n\r\nmore to come");
        has_seen.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        conn.reset_now();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    assert!(client.message_head().is_chunked());
    assert_eq!(client.line(), "c");
    client.expect("more to come\r\n");
    seen.send(()).unwrap();
    client.expect_end();
    let mut client = weir.connect();
    client.send(GET_10);
    client.head();
    client.expect("more to come");
    seen.send(()).unwrap();
    assert_eq!(client.rest(), (Vec::new(), End::Reset));
}

#[test]
fn a_truncated_answer_without_a_length_is_a_reset_to_1_0() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\nx\r\n",
    ] {
        for how in [End::Closed, End::Reset] {
            let (_endpoint, weir) = ending(answer, how);
            let mut client = weir.connect();
            client.send(GET_10);
            let (bytes, end) = client.rest();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(end, End::Reset, "{answer:?}, {how:?}: {text:?}");
        }
    }
}

#[test]
fn an_answer_that_comes_before_the_end_of_a_short_body_keeps_the_connection() {
    let endpoint = Endpoint::script(|conn| {
        if conn.message_head().target() == "/early" {
            conn.send(ok("early"));
            conn.rest();
        } else {
            conn.send(ok("next"));
            conn.expect_end();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("POST /early HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 10\r\n\r\n0123");
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.field("Connection")),
        ("early", None)
    );
    client.send(format!("456789{}", get("/next")));
    assert_eq!(client.response().text(), "next");
}

#[test]
fn a_1_0_client_with_an_expectation_gets_the_answer_alone() {
    let endpoint = Endpoint::script(|conn| {
        let request = conn.message_head();
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = conn.take(request.field("Content-Length").unwrap().parse().unwrap());
        conn.send(ok(&String::from_utf8(body).unwrap()));
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    let (text, end) = all_of(
        &weir,
        "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nbody"),
        "{text}"
    );
    assert_eq!(end, End::Closed);
}

#[test]
fn bytes_beyond_an_answer_that_wait_in_the_kernel_are_never_the_next_answer() {
    let endpoint = Endpoint::answering(|request| {
        let Some(size) = request.target().strip_prefix("/long/") else {
            return ok("own");
        };
        let body = "x".repeat(size.parse().unwrap());
        format!(
            "{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
            ok(&body)
        )
    });
    let weir = Weir::to(&[&endpoint]);
    for size in [1_000, 4_055, 16_384, 20_000, 65_536, 100_000, 1_000_000] {
        let mut client = weir.connect();
        client.send(get(&format!("/long/{size}")) + &get("/next"));
        assert_eq!(client.response().body.len(), size);
        assert_eq!(client.response().text(), "own", "after {size} bytes");
    }
}

#[test]
fn received_parts_of_a_broken_answer_are_passed_on() {
    let (_endpoint, weir) =
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno size\r\n");
    let (text, end) = all_of(&weir, &get("/"));
    assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n"), "{text:?}");
    assert_eq!(end, End::Reset);
}

#[test]
fn an_answer_without_a_date_gets_one_and_others_keep_theirs() {
    for (answer, theirs) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (
            "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", None),
        (
            "HTTP/1.1 200 OK\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
            Some("Sun, 06 Nov 1994 08:49:37 GMT"),
        ),
        // Weir does not change a Date that exists.
        (
            "HTTP/1.1 200 OK\r\nDate: yesterday\r\nContent-Length: 0\r\n\r\n",
            Some("yesterday"),
        ),
    ] {
        let (_endpoint, weir) = answering(answer);
        let mut client = weir.connect();
        for _ in 0..2 {
            client.send(get("/"));
            let response = client.response();
            let dates = response.all("Date");
            match theirs {
                Some(date) => assert_eq!(dates, [date]),
                None => {
                    assert_eq!(dates.len(), 1, "{response:?}");
                    assert_is_now(dates[0]);
                }
            }
        }
    }
    let (_endpoint, weir) = answering(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let mut client = weir.connect();
    client.send(get("/"));
    let interim = client.message_head();
    assert_eq!((interim.status(), interim.field("Date")), (103, None));
    assert_is_now(client.response().field("Date").unwrap());
}

/// Asserts that a date is within a minute of now.
#[track_caller]
fn assert_is_now(date: &str) {
    let date = httpdate::parse_http_date(date).unwrap();
    let now = std::time::SystemTime::now();
    let apart = now
        .duration_since(date)
        .or_else(|_| date.duration_since(now));
    assert!(apart.unwrap().as_secs() < 60, "{date:?}");
}

#[test]
fn sizes_of_chunks_may_be_padded_in_answers() {
    let (_endpoint, weir) = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5    \r\nhello\r\n1 \t;a=b\r\n!\r\n0 \r\n\r\n",
    );
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(get("/"));
        assert_eq!(client.response().text(), "hello!");
    }
}
