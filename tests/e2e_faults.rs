//! Peers that reset, stop half way or answer too early.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::*;

/// Lets a script wait for the test.
#[derive(Clone)]
struct Gate(Arc<Mutex<Receiver<()>>>);

impl Gate {
    fn new() -> (std::sync::mpsc::Sender<()>, Self) {
        let (open, wait) = channel();
        (open, Self(Arc::new(Mutex::new(wait))))
    }

    /// Waits until the test sends or ends.
    fn wait(&self) {
        let _ = self.0.lock().unwrap().recv_timeout(DEADLINE);
    }
}

#[test]
fn a_client_that_resets_in_its_body_ends_the_request_unfinished() {
    for (framing, part) in [
        ("Content-Length: 100", "only this"),
        ("Transfer-Encoding: chunked", "9\r\nonly this\r\n"),
    ] {
        let (tell, told) = channel();
        let (begun, has_begun) = channel();
        let endpoint = Endpoint::script(move |conn| {
            conn.head();
            let part = conn.take(part.len());
            begun.send(()).unwrap();
            let (rest, _) = conn.rest();
            tell.send([part, rest].concat()).unwrap();
        });
        let weir = Weir::to(&[&endpoint]);
        let mut client = weir.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: weir.test\r\n{framing}\r\n\r\n{part}"
        ));
        has_begun.recv_timeout(DEADLINE).unwrap();
        client.reset_now();
        assert_eq!(
            String::from_utf8(told.recv_timeout(DEADLINE).unwrap()).unwrap(),
            part,
            "{framing}"
        );
        let entry = weir.entry("/");
        assert_eq!(
            (entry.text("reason").as_str(), entry.number("status")),
            ("client_closed", 499.0)
        );
    }
}

#[test]
fn a_client_that_half_closes_in_its_body_ends_the_request_unfinished() {
    for (framing, part) in [
        ("Content-Length: 100", "only this"),
        ("Transfer-Encoding: chunked", "9\r\nonly this\r\n"),
    ] {
        let (tell, told) = channel();
        let endpoint = Endpoint::script(move |conn| {
            // Weir may learn of the end before it has sent anything.
            tell.send(conn.rest().0).unwrap();
        });
        let weir = Weir::to(&[&endpoint]);
        let mut client = weir.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: weir.test\r\n{framing}\r\n\r\n{part}"
        ));
        client.finish();
        client.expect_end();
        assert_eq!(weir.entry("/").text("reason"), "client_closed");
        drop(weir);
        drop(endpoint);
        for received in told.iter() {
            assert!(!received.ends_with(b"\r\n0\r\n\r\n"), "{framing}");
            let text = String::from_utf8(received).unwrap();
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(body.len() <= part.len(), "{framing}: {body}");
        }
    }
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_the_whole_answer() {
    let (open, gate) = Gate::new();
    let endpoint = Endpoint::script(move |conn| {
        while conn.next_request().is_some() {
            gate.wait();
            conn.send(ok(&"late ".repeat(100_000)));
        }
    });
    let weir = Weir::to(&[&endpoint]);
    for request in [get("/"), post("/", "body")] {
        let mut client = weir.connect();
        client.send(request);
        client.finish();
        open.send(()).unwrap();
        assert_eq!(client.response().body.len(), 500_000);
        client.expect_closed();
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_cancels_its_request() {
    let (begun, has_begun) = channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.request();
        begun.send(()).unwrap();
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/waits"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    client.reset_now();
    let entry = weir.entry("/waits");
    assert_eq!(
        (entry.text("reason").as_str(), entry.number("status")),
        ("client_closed", 499.0)
    );
}

#[test]
fn a_client_that_resets_in_an_answer_stops_the_endpoint() {
    let (stopped, has_stopped) = channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while conn.try_send("5\r\nagain\r\n".repeat(1_000)).is_ok() {}
        stopped.send(()).unwrap();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    client.head();
    client.take(100_000);
    client.reset_now();
    has_stopped.recv_timeout(DEADLINE).unwrap();
    assert_eq!(weir.entry("/").text("reason"), "client_closed");
}

#[test]
fn an_endpoint_that_resets_in_a_request_body_is_502() {
    let endpoint = Endpoint::script(|conn| {
        conn.head();
        conn.take(4);
        conn.reset_now();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 100\r\n\r\npart");
    let response = client.response();
    assert_eq!(
        (response.status(), response.field("Connection")),
        (502, Some("close"))
    );
    assert!(
        response.text().contains("\"upstream_closed\""),
        "{}",
        response.text()
    );
    assert_eq!(endpoint.connections(), 1, "sent once");
}

#[test]
fn an_early_answer_reaches_a_client_that_still_uploads() {
    for reads_on in [true, false] {
        let endpoint = Endpoint::numbered(move |conn, number| {
            if number > 0 {
                return;
            }
            conn.head();
            conn.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nenough");
            if reads_on {
                conn.rest();
            }
            // Otherwise it closes with unread bytes, which is a reset.
        });
        let weir = Weir::to(&[&endpoint]);
        let mut client = weir.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 100000000\r\n\r\n{}",
            "x".repeat(100_000)
        ));
        let response = client.response();
        assert_eq!(
            (response.status(), response.text().as_str()),
            (403, "enough"),
            "reads on: {reads_on}"
        );
        assert_eq!(response.field("Connection"), Some("close"));
        client.send_until_stuck(10_000_000, Duration::from_millis(50));
        client.expect_end();
        assert_eq!(weir.entry("/").number("status"), 403.0);
        // An unknown part of the body is still on its way, so no other request may use that connection.
        let next = weir.connect();
        next.send(get("/next"));
        eventually("a connection of its own", || {
            (endpoint.connections() > 1).then_some(())
        });
    }
}

#[test]
fn an_early_answer_that_streams_runs_along_with_the_upload() {
    let endpoint = Endpoint::script(|conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Echoes for as long as the request lasts.
        loop {
            let size = conn.line();
            let data = conn.take(usize::from_str_radix(&size, 16).unwrap());
            conn.expect("\r\n");
            conn.send(format!("{size}\r\n"));
            conn.send(data);
            conn.send("\r\n");
            if size == "0" {
                break;
            }
        }
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.message_head().status(), 200);
    for _ in 0..50 {
        client.send("5\r\nhello\r\n");
        client.expect("5\r\nhello\r\n");
    }
    client.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    client.send(get("/"));
}

#[test]
fn a_silent_connection_is_closed_without_an_answer() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with(
        "timeouts = { head = \"300ms\", idle = \"300ms\" }",
        &[&endpoint],
    );
    weir.connect().expect_closed();
    // The same for a connection that has already served a request.
    let mut client = weir.connect();
    client.send(get("/"));
    client.response();
    client.expect_closed();
}

#[test]
fn a_request_body_that_stalls_is_408() {
    let endpoint = Endpoint::script(|conn| drop(conn.rest()));
    let weir = Weir::with("timeouts = { body_stall = \"300ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 100\r\n\r\npart");
    let response = client.response();
    assert_eq!(
        (response.status(), response.field("Connection")),
        (408, Some("close"))
    );
    assert!(
        response.text().contains("\"body_timeout\""),
        "{}",
        response.text()
    );
}

#[test]
fn an_endpoint_that_does_not_answer_is_504() {
    let endpoint = Endpoint::script(|conn| drop(conn.rest()));
    let weir = Weir::with("timeouts = { first_byte = \"300ms\" }", &[&endpoint]);
    for request in [get("/"), post("/", "body")] {
        let response = weir.ask(request);
        assert_eq!(response.status(), 504);
        assert!(
            response.text().contains("\"first_byte_timeout\""),
            "{}",
            response.text()
        );
    }
    assert_eq!(endpoint.connections(), 2, "it was not asked again");
}

#[test]
fn the_wait_for_an_answer_begins_when_the_request_is_sent() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with(
        "timeouts = { first_byte = \"1s\", body_stall = \"10s\" }",
        &[&endpoint],
    );
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 30\r\n\r\n");
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        client.send("x");
    }
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn an_answer_that_stalls_is_broken_off() {
    let endpoint = Endpoint::script(|conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        conn.expect_end();
    });
    let weir = Weir::with("timeouts = { body_stall = \"300ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    client.head();
    assert_eq!(client.rest().0, b"part");
    assert_eq!(weir.entry("/").text("reason"), "upstream_stalled");
}

#[test]
fn an_endpoint_that_does_not_read_is_504() {
    let (open, gate) = Gate::new();
    let endpoint = Endpoint::script(move |_| gate.wait());
    let weir = Weir::with("timeouts = { body_stall = \"1s\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 1000000000\r\n\r\n");
    let sent = client.send_until_stuck(1_000_000_000, Duration::from_millis(200));
    assert!(sent < 100_000_000, "the upload is held back: {sent}");
    let response = client.response();
    assert_eq!(response.status(), 504);
    assert!(
        response.text().contains("\"upstream_not_reading\""),
        "{}",
        response.text()
    );
    open.send(()).unwrap();
}

#[test]
fn a_client_that_does_not_read_is_broken_off() {
    let endpoint = Endpoint::script(|conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        conn.send_until_stuck(1_000_000_000, DEADLINE);
    });
    let weir = Weir::with("timeouts = { body_stall = \"1s\" }", &[&endpoint]);
    let mut client = Conn::narrow(weir.address);
    client.send(get("/"));
    assert_eq!(weir.entry("/").text("reason"), "client_stalled");
    let (bytes, _) = client.rest();
    assert!(bytes.len() < 100_000_000);
}

#[test]
fn an_exchange_may_be_bounded_in_total() {
    let endpoint = Endpoint::script(|conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while conn.try_send("1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let weir = Weir::with("timeouts = { total = \"500ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    client.head();
    let (body, _) = client.rest();
    assert!(!body.ends_with(b"0\r\n\r\n"));
    assert_eq!(weir.entry("/").text("reason"), "total_timeout");
}

#[test]
fn an_endpoint_that_cannot_be_reached_in_time_is_504() {
    // A listener with a full queue neither accepts nor refuses a connection.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let queued: Vec<_> = (0..4)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    let name = address.as_socket().unwrap();
    let weir = Weir::start(&format!(
        "timeouts = {{ connect = \"300ms\" }}\nretries = 0\n[upstream.up]\nservers = [\"{name}\"]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ));
    let response = weir.ask(get("/"));
    assert_eq!(response.status(), 504);
    assert!(
        response.text().contains("\"connect_timeout\""),
        "{}",
        response.text()
    );
    drop(queued);
}

#[test]
fn a_slow_reader_gets_all_of_it() {
    let body: String = (0..4_000_000u32)
        .map(|n| char::from(b'a' + (n % 1_009 % 26) as u8))
        .collect();
    let answer = ok(&body);
    let endpoint = Endpoint::answering(move |_| answer.clone());
    let weir = Weir::to(&[&endpoint]);
    let mut client = Conn::narrow(weir.address);
    client.send(get("/"));
    client.head();
    let mut got = Vec::new();
    while got.len() < body.len() {
        got.extend(client.take(5_000.min(body.len() - got.len())));
    }
    assert!(got == body.as_bytes());
}

#[test]
fn no_endpoint_is_asked_before_the_head_is_whole() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with("timeouts = { head = \"300ms\" }", &[&endpoint]);
    for part in ["G", "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Slow"] {
        let mut client = weir.connect();
        client.send(part);
        let response = client.response();
        assert_eq!(
            (response.status(), response.field("Connection")),
            (408, Some("close")),
            "{part:?}"
        );
        assert!(
            response.text().contains("\"head_timeout\""),
            "{}",
            response.text()
        );
        client.finish();
        client.expect_end();
    }
    assert_eq!(endpoint.connections(), 0);
}

#[test]
fn a_head_that_trickles_is_timed_as_a_whole() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with("timeouts = { head = \"300ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n");
    // Each line comes in time, but the whole head is too late.
    client.trickle("X-Slow: 1\r\n", Duration::from_millis(50));
    assert_eq!(client.response().status(), 408);
}

#[test]
fn a_head_has_its_own_deadline_on_a_used_connection() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with("timeouts = { head = \"300ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    client.response();
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.response().status(), 408);
}

#[test]
fn a_request_body_that_crawls_is_408() {
    let endpoint = Endpoint::script(|conn| drop(conn.rest()));
    let weir = Weir::with(
        "timeouts = { body_stall = \"1s\" }\nlimits = { body_rate = \"1KiB/s\" }",
        &[&endpoint],
    );
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 1000000\r\n\r\n");
    client.trickle("x", Duration::from_millis(20));
    let response = client.response();
    assert!(
        response.text().contains("\"body_timeout\""),
        "{}",
        response.text()
    );
}

#[test]
fn the_nearest_time_limit_counts() {
    let endpoint = Endpoint::script(|conn| drop(conn.rest()));
    let weir = Weir::start(&format!(
        "timeouts = {{ first_byte = \"1h\" }}\n[upstream.up]\nservers = [{:?}]\ntimeouts = {{ first_byte = \"300ms\" }}\n\
         [[route]]\nmatch = \"/slow\"\nto = \"up\"\ntimeouts = {{ first_byte = \"1h\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let slow = weir.connect();
    slow.send(get("/slow"));
    assert_eq!(weir.ask(get("/quick")).status(), 504);
    assert!(!slow.is_readable(), "the route's own limit is an hour");
}

#[test]
fn an_endpoint_that_reads_slowly_gets_all_of_it() {
    let body: String = (0..3_000_000u32)
        .map(|n| char::from(b'a' + (n % 1_009 % 26) as u8))
        .collect();
    let expected = body.clone();
    let endpoint = Endpoint::script(move |conn| {
        conn.head();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend(conn.take(10_000));
        }
        conn.send(ok(&(got == expected.as_bytes()).to_string()));
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    assert_eq!(weir.ask(post("/", &body)).text(), "true");
}

/// A machine that has vanished sends nothing, on an idle connection or within a long silence.
#[test]
fn connections_to_endpoints_are_probed() {
    for driver in ["ring", "monoio"] {
        let endpoint = Endpoint::answering(|_| ok("here"));
        let weir = Weir::start(&format!("driver = {driver:?}\n{}", route_to(&[&endpoint])));
        assert_eq!(weir.ask(get("/")).text(), "here");
        let port: u16 = endpoint.name.rsplit(':').next().unwrap().parse().unwrap();
        let to = format!("0100007F:{port:04X}");
        // `/proc/net/tcp`: the timer's column is `02` if it is a keepalive timer.
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let timers: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields[2] == to && fields[3] == "01")
            .map(|fields| fields[5][..2].to_owned())
            .collect();
        assert_eq!(timers, ["02"], "{driver}");
    }
}
