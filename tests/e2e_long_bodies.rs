//! Bodies long enough that Weir passes them from socket to socket without parsing them: complete, truncated and
//! cancelled.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::time::Duration;

use e2e::*;

/// Bodies of this length or more pass from socket to socket without being looked at (`SPLICE_BYTES_MIN`).
const PASSED: usize = weir::limits::SPLICE_BYTES_MIN as usize;

/// Lengths below, at and far above the threshold, and around the size of a block.
const LENGTHS: [usize; 9] = [
    1_000,
    PASSED - 1,
    PASSED,
    PASSED + 1,
    32_767,
    32_768,
    65_536,
    1_048_576,
    5_000_000,
];

/// A pattern that does not repeat nearby.
fn body(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i ^ ((i >> 8) * 7) ^ ((i >> 16) * 31)) as u8)
        .collect()
}

/// The length that the path asks for.
fn length_in(request: &Message) -> usize {
    request.target().trim_start_matches('/').parse().unwrap()
}

fn answer(len: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
    [head.into_bytes(), body(len)].concat()
}

fn upload(method: &str, len: usize) -> Vec<u8> {
    let head = format!("{method} / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: {len}\r\n\r\n");
    [head.into_bytes(), body(len)].concat()
}

#[test]
fn long_answers_are_whole_and_connections_go_on() {
    let endpoint = Endpoint::answering(|request| answer(length_in(request)));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for len in LENGTHS.into_iter().chain(LENGTHS) {
        client.send(get(&format!("/{len}")));
        assert!(client.response().body == body(len), "{len} bytes");
    }
    // The connection serves the next request at once.
    let all: String = LENGTHS.iter().map(|len| get(&format!("/{len}"))).collect();
    client.send(all);
    for len in LENGTHS {
        assert!(
            client.response().body == body(len),
            "{len} bytes, pipelined"
        );
    }
    assert_eq!(endpoint.connections(), 1);
}

#[test]
fn long_uploads_are_whole_and_connections_go_on() {
    let endpoint = Endpoint::answering(|request| {
        let is_whole = request.body == body(request.body.len());
        ok(&format!("{} {is_whole}", request.body.len()))
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for method in ["POST", "PUT"] {
        for len in LENGTHS {
            client.send(upload(method, len));
            assert_eq!(client.response().text(), format!("{len} true"), "{method}");
        }
    }
    assert_eq!(endpoint.connections(), 1);
}

#[test]
fn long_answers_reach_old_clients_and_unix_sockets_work() {
    let path = Weir::dir().join("long.sock");
    let endpoint = Endpoint::answering_unix(&path, |request| {
        let is_whole = request.body == body(request.body.len());
        match request.method() {
            "POST" => ok(&is_whole.to_string()).into_bytes(),
            _ => answer(1_000_000),
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(upload("POST", 1_000_000));
        assert_eq!(client.response().text(), "true");
        client.send(get("/"));
        assert!(client.response().body == body(1_000_000));
    }

    let endpoint = Endpoint::script(|conn| {
        let request = conn.request();
        conn.send("HTTP/1.1 200 OK\r\n\r\n");
        conn.send(body(1_000_000));
        match request.target() {
            "/broken" => conn.reset_now(),
            _ => conn.finish(),
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.head();
    let (got, end) = client.rest();
    assert!(got == body(1_000_000) && end == End::Closed, "{end:?}");
    let mut client = weir.connect();
    client.send("GET /broken HTTP/1.0\r\n\r\n");
    let (_, end) = client.rest();
    assert_eq!(end, End::Reset, "nobody may take that for the whole");
}

#[test]
fn a_long_answer_that_breaks_off_never_looks_complete() {
    for (sent, how) in [
        (500_000, End::Closed),
        (999_999, End::Closed),
        (500_000, End::Reset),
        (40_000, End::Closed),
    ] {
        let endpoint = Endpoint::script(move |conn| {
            conn.request();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            conn.send(&body(1_000_000)[..sent]);
            match how {
                End::Closed => conn.finish(),
                End::Reset => conn.reset_now(),
            }
        });
        let weir = Weir::to(&[&endpoint]);
        let mut client = weir.connect();
        client.send(get("/"));
        let (got, end) = client.rest();
        assert_eq!(end, End::Reset, "{sent} bytes, {how:?}");
        let at = got.windows(4).position(|part| part == b"\r\n\r\n");
        let got = &got[at.map_or(got.len(), |at| at + 4)..];
        assert!(got.len() <= sent && body(1_000_000).starts_with(got));
        assert_eq!(weir.entry("/").text("reason"), "response_truncated");
    }
}

#[test]
fn clients_that_go_in_a_long_body_are_noticed() {
    let endpoint = Endpoint::script(|conn| {
        let head = conn.message_head();
        if head.method() == "GET" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            conn.send(body(300_000));
        }
        let (got, _) = conn.rest();
        assert!(got.len() < 1_000_000, "not the whole body");
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/down"));
    client.head();
    client.take(100_000);
    client.reset_now();
    assert_eq!(weir.entry("/down").text("reason"), "client_closed");

    let client = weir.connect();
    client.send("POST /up HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 1000000\r\n\r\n");
    client.send(body(300_000));
    client.finish();
    assert_eq!(weir.entry("/up").text("reason"), "client_closed");
}

#[test]
fn a_long_upload_may_be_answered_before_its_end() {
    let endpoint = Endpoint::script(|conn| {
        conn.message_head();
        conn.take(200_000);
        conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        conn.rest();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 1000000000\r\n\r\n");
    client.send(body(300_000));
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
}

#[test]
fn a_reader_that_pauses_gets_the_whole_of_a_long_answer() {
    let endpoint = Endpoint::answering(|_| answer(5_000_000));
    let weir = Weir::to(&[&endpoint]);
    let mut client = Conn::narrow(weir.address);
    client.send(get("/"));
    client.head();
    let mut got = Vec::new();
    while got.len() < 5_000_000 {
        got.extend(client.take(500_000));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(got == body(5_000_000));
}
