//! Answers that come before the end of their request, or before any request.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod e2e;

use std::sync::Mutex;
use std::sync::mpsc;

use e2e::{Endpoint, Weir, get};

#[test]
fn a_body_refused_after_expect_never_reaches_the_endpoint() {
    let (go_on, wait) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let (wait, tell) = (Mutex::new(wait), Mutex::new(tell));
    let endpoint = Endpoint::numbered(move |conn, number| {
        if number > 0 {
            return;
        }
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        wait.lock().unwrap().recv_timeout(e2e::DEADLINE).unwrap();
        conn.send("later");
        tell.lock().unwrap().send(conn.rest().0).unwrap();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nExpect: 100-continue\r\nContent-Length: 39\r\n\r\n",
    );
    let head = client.message_head();
    assert_eq!(head.status(), 200);
    assert_eq!(head.field("Connection"), Some("close"));
    client.expect("first");
    // An endpoint that rejects the body may read what follows as a request.
    client.send("GET /SMUGGLED HTTP/1.1\r\nHost: evil\r\n\r\n\r\n");
    go_on.send(()).unwrap();
    client.expect("later");
    let seen = told.recv_timeout(e2e::DEADLINE).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), "");
    let next = weir.connect();
    next.send(get("/next"));
    e2e::eventually("a connection of its own", || {
        (endpoint.connections() > 1).then_some(())
    });
}

#[test]
fn an_unsolicited_answer_never_answers_the_next_request() {
    for length in [2, 4_000, 20_000, 100_000, 1_000_000] {
        let endpoint = Endpoint::numbered(move |conn, number| {
            conn.head();
            let body = "x".repeat(length);
            let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
            let surplus = if number == 0 { surplus } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            // Bytes that reach a closed connection are lost, which is the point.
            let _ = conn.try_send(format!("{head}{body}{surplus}"));
            conn.rest();
        });
        let weir = Weir::to(&[&endpoint]);
        let mut client = weir.connect();
        client.send(format!("{}{}", get("/one"), get("/two")));
        assert_eq!(client.response().text().len(), length);
        assert_eq!(
            client.response().text().len(),
            length,
            "the second answer after {length} bytes"
        );
    }
}
