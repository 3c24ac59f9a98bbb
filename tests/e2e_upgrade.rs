//! Protocol upgrades: WebSockets, and those that Weir refuses.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use e2e::*;
use tungstenite::Message as Frame;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// An endpoint that switches protocols and then follows the script.
fn switching_endpoint(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Endpoint {
    Endpoint::script(move |conn| {
        let Some(request) = conn.next_request() else {
            return;
        };
        assert_eq!(
            (request.field("Upgrade"), request.field("Connection")),
            (Some("websocket"), Some("upgrade"))
        );
        conn.send(SWITCH);
        script(conn);
    })
}

/// A client that has switched protocols.
#[track_caller]
fn open_tunnel(weir: &Weir) -> Conn {
    let mut client = weir.connect();
    client.send(UPGRADE);
    let response = client.message_head();
    assert_eq!(
        (response.status(), response.field("Upgrade")),
        (101, Some("websocket"))
    );
    assert!(
        response
            .field("Connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(response.field("Sec-WebSocket-Accept"), Some("x"));
    client
}

#[test]
fn websockets_echo_through_an_independent_library() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        loop {
            match socket.read().unwrap() {
                Frame::Close(_) => break,
                frame @ (Frame::Text(_) | Frame::Binary(_)) => socket.send(frame).unwrap(),
                _ => {}
            }
        }
        // The closing handshake continues until the connection ends.
        while socket.read().is_ok() {}
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [\"{address}\"]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ));
    let stream = TcpStream::connect(weir.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, response) = tungstenite::client("ws://weir.test/chat", stream).unwrap();
    assert_eq!(response.status(), 101);
    for n in 0..100 {
        let text = format!("message {n}");
        socket.send(Frame::text(text.clone())).unwrap();
        assert_eq!(socket.read().unwrap(), Frame::text(text));
    }
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    socket.send(Frame::binary(large.clone())).unwrap();
    assert!(socket.read().unwrap() == Frame::binary(large));
    socket.send(Frame::Ping("still there?".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Frame::Pong("still there?".into()));
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    server.join().unwrap();
    let entry = weir.entry("/chat");
    assert_eq!(
        (entry.number("status"), entry.text("reason").as_str()),
        (101.0, "")
    );
    assert!(
        entry.number("bytes_in") > 3e6 && entry.number("bytes_out") > 3e6,
        "{entry:?}"
    );
}

#[test]
fn a_tunnel_counts_as_a_connection_to_its_endpoint() {
    let endpoint = switching_endpoint(|conn| conn.expect_end());
    let name = &endpoint.name;
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{name:?}]\npool = {{ connections = 1, pending = 0 }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ));
    let open = format!("weir_endpoint_connections_open{{upstream=\"up\",endpoint=\"{name}\"}}");
    let client = open_tunnel(&weir);
    assert_eq!(weir.metric(&open), 1.0);
    assert_eq!(weir.ask(get("/")).status(), 503);
    drop(client);
    eventually("the end of the tunnel", || {
        (weir.metric(&open) == 0.0).then_some(())
    });
    open_tunnel(&weir);
}

#[test]
fn bytes_behind_the_heads_belong_to_the_new_protocol() {
    let endpoint = Endpoint::script(|conn| {
        let Some(_) = conn.next_request() else { return };
        conn.send(format!("{SWITCH}server first"));
        conn.expect("client first");
        conn.expect_closed();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(format!("{UPGRADE}client first"));
    assert_eq!(client.message_head().status(), 101);
    client.expect("server first");
    client.finish();
    client.expect_closed();
}

#[test]
fn each_direction_of_a_tunnel_ends_by_itself() {
    let endpoint = switching_endpoint(|conn| {
        conn.expect("question");
        conn.expect_closed();
        conn.send("late answer");
        conn.finish();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = open_tunnel(&weir);
    client.send("question");
    client.finish();
    client.expect("late answer");
    client.expect_closed();
}

#[test]
fn a_reset_in_a_tunnel_ends_both_sides() {
    let (ended, has_ended) = channel();
    let endpoint = switching_endpoint(move |conn| {
        conn.take(5);
        conn.expect_end();
        ended.send(()).unwrap();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = open_tunnel(&weir);
    client.send("hello");
    client.reset_now();
    has_ended.recv_timeout(DEADLINE).unwrap();
    drop(weir);
    let endpoint = switching_endpoint(|conn| {
        conn.take(5);
        conn.reset_now();
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = open_tunnel(&weir);
    client.send("hello");
    client.expect_end();
}

#[test]
fn a_tunnel_applies_backpressure() {
    let (open, gate) = channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let endpoint = switching_endpoint(move |conn| {
        gate.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        let received = conn.rest().0.len();
        conn.send(received.to_string());
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = open_tunnel(&weir);
    let before = weir.resident_bytes();
    let sent = client.send_until_stuck(200_000_000, Duration::from_millis(300));
    assert!(sent < 100_000_000, "{sent} bytes were taken");
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 4_000_000, "{grown} bytes of memory for one tunnel");
    open.send(()).unwrap();
    client.finish();
    client.expect(sent.to_string());
}

#[test]
fn a_silent_tunnel_ends_after_the_idle_time() {
    let endpoint = switching_endpoint(|conn| {
        // Traffic keeps the tunnel open beyond the limit.
        for _ in 0..10 {
            conn.expect("ping");
            conn.send("pong");
        }
        conn.expect_end();
    });
    let weir = Weir::with("timeouts = { idle = \"1s\" }", &[&endpoint]);
    let mut client = open_tunnel(&weir);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(150));
        client.send("ping");
        client.expect("pong");
    }
    let silent_since = Instant::now();
    client.expect_end();
    let silence = silent_since.elapsed();
    // The core counts from its own receive, a moment before the client's.
    assert!(
        silence > Duration::from_millis(800) && silence < Duration::from_secs(8),
        "{silence:?}"
    );
}

#[test]
fn a_refused_upgrade_stays_http() {
    let endpoint = Endpoint::answering(|request| {
        if request.field("Upgrade").is_some() {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned()
        } else {
            ok("plain")
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(UPGRADE);
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (403, "no"));
        client.send(get("/"));
        assert_eq!(client.response().text(), "plain");
    }
    assert_eq!(endpoint.connections(), 1);
}

#[test]
fn only_a_websocket_asked_for_in_1_1_is_passed_on() {
    let endpoint = Endpoint::answering(|request| ok(request.field("Upgrade").unwrap_or("nothing")));
    let weir = Weir::to(&[&endpoint]);
    for request in [
        UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: TLS/1.2"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: IRC/6.9, h2c"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c"),
        // As curl offers h2c with `--http2`.
        UPGRADE
            .replace("Connection: Upgrade", "Connection: Upgrade, HTTP2-Settings")
            .replace(
                "Upgrade: websocket",
                "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            ),
        UPGRADE.replace("Connection: Upgrade\r\n", ""),
        UPGRADE.replace("Connection: Upgrade", "Connection: keep-alive"),
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("GET", "POST"),
    ] {
        assert_eq!(weir.ask(&request).text(), "nothing", "{request}");
    }
    assert_eq!(
        weir.ask(UPGRADE.replace("Connection: Upgrade", "Connection: keep-alive, upgrade"))
            .text(),
        "websocket"
    );
}

#[test]
fn unsupported_upgrades_are_refused() {
    let endpoint = Endpoint::answering(|_| ok("plain"));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for request in [
        UPGRADE.replace("Upgrade: websocket", "Upgrade: foo"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: IRC/6.9, RTA/x11"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: foo\r\nUpgrade: SPDY/3.1"),
        UPGRADE
            .replace("GET", "POST")
            .replace("Upgrade: websocket", "Upgrade: tcp"),
    ] {
        client.send(&request);
        let response = client.response();
        assert_eq!(response.status(), 501, "{request}");
        assert!(response.text().contains("\"unsupported_protocol\""));
    }
    // The connection stays open, and an Upgrade that Connection does not list is ignored.
    client.send(
        UPGRADE
            .replace("Connection: Upgrade", "Connection: keep-alive")
            .replace("Upgrade: websocket", "Upgrade: foo"),
    );
    assert_eq!(client.response().text(), "plain");
}

#[test]
fn a_switch_that_was_not_asked_for_is_502() {
    for (request, answer) in [
        (get("/chat"), SWITCH.to_owned()),
        (
            UPGRADE.to_owned(),
            SWITCH.replace("Upgrade: websocket", "Upgrade: other"),
        ),
        (
            UPGRADE.to_owned(),
            SWITCH.replace("Upgrade: websocket\r\n", ""),
        ),
    ] {
        let endpoint = Endpoint::answering(move |_| answer.clone());
        let weir = Weir::to(&[&endpoint]);
        let response = weir.ask(&request);
        assert_eq!(response.status(), 502, "{request}");
        assert!(
            response.text().contains("\"bad_upgrade\""),
            "{}",
            response.text()
        );
    }
}

#[test]
fn a_tunnel_outlives_a_reload_and_ends_with_the_grace_period() {
    let endpoint = switching_endpoint(|conn| {
        for _ in 0..3 {
            conn.expect("ping");
            conn.send("pong");
        }
        conn.expect_end();
    });
    let config = format!(
        "timeouts = {{ grace = \"3s\" }}\n{}",
        route_to(&[&endpoint])
    );
    let mut weir = Weir::start(&config);
    let mut client = open_tunnel(&weir);
    client.send("ping");
    client.expect("pong");
    weir.reload("timeouts = { grace = \"3s\" }\n[[route]]\nmatch = \"/*\"\nrespond = 404\n");
    weir.wait_for("reloaded in");
    client.send("ping");
    client.expect("pong");
    weir.signal(rustix::process::Signal::TERM);
    weir.wait_for("draining");
    client.send("ping");
    client.expect("pong");
    client.expect_end();
    assert_eq!(weir.wait().code(), Some(0));
}
