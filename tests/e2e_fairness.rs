//! Clients whose next request is always ready leave other clients their turn, over either protocol.
#![allow(clippy::unwrap_used, clippy::duplicate_mod)] // A test fails by panicking; each file stands for itself.

mod e2e;

use std::io::{Read, Write};

use e2e::*;
use weir::limits::{EXCHANGE_STEPS, H2_REQUESTS_AT_ONCE_MAX, SHARE_STEPS};

/// The number of connections with many requests at once.
const GREEDY: usize = 8;

const ROUTES: &str = "[[route]]\nmatch = \"/good\"\nrespond = \"here\"\n";

/// Asserts that of all requests present when `/good` came, Weir served only a share or two of each connection before
/// it. A turn polls some tasks a second time.
#[track_caller]
fn assert_fair(weir: &Weir, share: usize) {
    weir.entry("/good");
    let log = weir.log.so_far();
    let greedy = log.iter().filter(|line| line.contains("/nowhere")).count();
    let before = log.iter().take_while(|line| !line.contains("\"/good\""));
    let before = before.filter(|line| line.contains("/nowhere")).count();
    let most = 2 * GREEDY * share;
    assert!(
        before <= most,
        "{before} of {greedy} requests of others came first"
    );
}

#[test]
fn pipelined_requests_of_many_take_turns() {
    const REQUESTS: usize = 500;
    let weir = Weir::start(ROUTES);
    let mut greedy: Vec<Conn> = (0..GREEDY).map(|_| weir.connect()).collect();
    let mut good = weir.connect();
    // Afterwards Weir knows all connections, and they wait.
    for client in greedy.iter_mut().chain([&mut good]) {
        client.send(get("/known"));
        assert_eq!(client.response().status(), 404);
    }
    weir.while_stopped(|| {
        for client in &greedy {
            client.send(get("/nowhere").repeat(REQUESTS));
        }
        good.send(get("/good"));
    });
    assert_eq!(good.response().status(), 200);
    assert_fair(&weir, (SHARE_STEPS / EXCHANGE_STEPS) as usize);
    for client in &mut greedy {
        (0..REQUESTS).for_each(|_| assert_eq!(client.response().status(), 404));
    }
}

#[test]
fn pipelined_requests_over_tls_take_turns() {
    const REQUESTS: usize = 500;
    let (dir, ca) = (Weir::dir(), Authority::new("test authority"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let listen = format!("[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n{ROUTES}");
    let weir = Weir::start_in(&dir, &listen);
    let client = tls_to(weir.address, &ca);
    let connect = || {
        let mut stream = client();
        stream.write_all(get("/known").as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 404");
        stream
    };
    let mut greedy: Vec<_> = (0..GREEDY).map(|_| connect()).collect();
    let mut good = connect();
    weir.while_stopped(|| {
        for client in &mut greedy {
            // Each request has its own record.
            for _ in 0..REQUESTS {
                client.write_all(get("/nowhere").as_bytes()).unwrap();
            }
        }
        good.write_all(get("/good").as_bytes()).unwrap();
    });
    assert_fair(&weir, (SHARE_STEPS / EXCHANGE_STEPS) as usize);
}

/// Encodes an HTTP/2 request for this path.
fn ask_http2(stream: u32, path: &str) -> Vec<u8> {
    // GET and http are in HPACK's static table. Path and authority are literals.
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x09weir.test");
    // HEADERS with END_STREAM and END_HEADERS.
    let mut frame = vec![0, 0, block.len() as u8, 1, 5];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

#[test]
fn requests_over_http2_take_turns() {
    // As many streams as may be open at once.
    const REQUESTS: u32 = 100;
    let weir = Weir::start(ROUTES);
    let connect = |known: &str| {
        let conn = weir.connect();
        conn.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        conn.send(b"\0\0\0\x04\x01\0\0\0\0");
        conn.send(ask_http2(1, known));
        weir.entry(known);
        conn
    };
    let names = (0..GREEDY).map(|n| format!("/known/{n}"));
    let greedy: Vec<Conn> = names.map(|known| connect(&known)).collect();
    let good = connect("/known/good");
    weir.while_stopped(|| {
        for conn in &greedy {
            let asks = (0..REQUESTS).map(|n| ask_http2(2 * n + 3, "/nowhere"));
            conn.send(asks.flatten().collect::<Vec<u8>>());
        }
        good.send(ask_http2(3, "/good"));
    });
    assert_fair(&weir, H2_REQUESTS_AT_ONCE_MAX);
}
