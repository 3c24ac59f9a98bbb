//! Answers that come before the request they belong to is whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod e2e;

use std::sync::Mutex;
use std::sync::mpsc;

use e2e::{Endpoint, Weir, get};

#[test]
fn a_body_that_was_asked_about_and_not_wanted_never_reaches_the_endpoint() {
    let (go_on, wait) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let (wait, tell) = (Mutex::new(wait), Mutex::new(tell));
    let endpoint = Endpoint::numbered(move |conn, number| {
        if number > 0 {
            return;
        }
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        wait.lock().unwrap().recv().unwrap();
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
    // Whoever rejects a body may take what comes in its place for a request.
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
