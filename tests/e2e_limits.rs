//! Limits on what one peer may use.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use e2e::*;

const HELLO: &str = "[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n";

/// Sends a request on this connection and returns the status.
#[track_caller]
fn status(mut client: Conn) -> u16 {
    // Weir may close an excess connection before its request arrives.
    let _ = client.try_send(get("/"));
    client.response().status()
}

#[test]
fn a_listener_takes_so_many_connections() {
    let weir = Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\nconnections = 2\n{HELLO}"
    ));
    let mut here: Vec<_> = (0..2).map(|_| weir.connect()).collect();
    for client in &mut here {
        client.send(get("/"));
        client.response();
    }
    let mut refused = weir.connect();
    let response = refused.response();
    assert_eq!(
        (response.status(), response.field("Connection")),
        (503, Some("close"))
    );
    assert!(
        response
            .field("Proxy-Status")
            .unwrap()
            .contains("connection_limit"),
        "{response:?}"
    );
    assert!(response.field("Retry-After").is_some() && response.field("Date").is_some());
    assert_eq!(
        response.field("Content-Type"),
        Some("application/problem+json")
    );
    refused.expect_end();
    // One log line names the connection id that the client was given.
    let entry = weir.entry("");
    assert_eq!(
        (entry.number("status"), entry.text("reason").as_str()),
        (503.0, "connection_limit")
    );
    assert_eq!(entry.text("client"), "127.0.0.1");
    assert_eq!(entry.text("listener"), "127.0.0.1:0");
    let body = response.text();
    assert!(
        body.contains(&format!("\"request_id\":\"{}\"", entry.text("id"))),
        "{body}"
    );
    let exchanges = "weir_exchanges_total{listener=\"127.0.0.1:0\",class=\"5xx\"}";
    assert_eq!(weir.metric(exchanges), 0.0, "it was none");
    let name = "weir_reasons_total{listener=\"127.0.0.1:0\",reason=\"connection_limit\"}";
    assert_eq!(weir.metric(name), 1.0);
    // Existing connections go on, and one that closes makes room.
    here[0].send(get("/"));
    assert_eq!(here[0].response().status(), 200);
    here.pop();
    eventually("room", || (status(weir.connect()) == 200).then_some(()));
}

#[test]
fn a_client_address_has_so_many_connections() {
    let weir = Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\nconnections_per_client = 1\n{HELLO}"
    ));
    let mut first = weir.connect();
    first.send(get("/"));
    first.response();
    let mut second = weir.connect();
    let response = second.response();
    assert_eq!(
        (response.status(), response.field("Connection")),
        (429, Some("close"))
    );
    assert!(
        response
            .field("Proxy-Status")
            .unwrap()
            .contains("client_limit"),
        "{response:?}"
    );
    // The limit counts each client address separately.
    let elsewhere = SocketAddr::from(([127, 0, 0, 3], 0));
    assert_eq!(status(Conn::from_to(elsewhere, weir.address)), 200);
    drop(first);
    eventually("room", || (status(weir.connect()) == 200).then_some(()));
}

#[test]
fn a_request_body_has_a_limit_by_route() {
    let endpoint = Endpoint::answering(|request| ok(&request.text()));
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\n\
         [[route]]\nmatch = \"/small\"\nto = \"up\"\nlimits = {{ body = \"10B\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    assert_eq!(weir.ask(post("/small", "0123456789")).text(), "0123456789");
    assert_eq!(
        weir.ask(post("/large", &"x".repeat(100_000))).body.len(),
        100_000
    );
    let chunked = "POST /small HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n";
    for request in [post("/small", "0123456789x"), chunked.to_owned()] {
        let response = weir.ask(&request);
        assert_eq!(response.status(), 413, "{request}");
        assert!(
            response.text().contains("\"body_too_large\""),
            "{}",
            response.text()
        );
    }
    assert!(
        endpoint
            .requests()
            .iter()
            .all(|request| request.target() == "/large" || request.body.len() <= 10)
    );
}

#[test]
fn requests_wait_for_an_endpoint_at_its_limit() {
    let (order, orders) = channel::<()>();
    let orders = std::sync::Mutex::new(orders);
    let endpoint = Endpoint::answering(move |_| {
        orders.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        ok("hello")
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\npool = {{ connections = 1, pending = 2 }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let metric = |name: &str| weir.metric(&format!("weir_upstream_{name}"));
    let waiting = || metric("queue_waiting{upstream=\"up\"}");
    let mut clients: Vec<_> = (0..3).map(|_| weir.connect()).collect();
    for (n, client) in clients.iter().enumerate() {
        client.send(get(&format!("/{n}")));
        eventually("it waits", || {
            (endpoint.requests().len() == 1 && waiting() == n as f64).then_some(())
        });
    }
    // One more request than the queue allows.
    weir.ask(get("/refused"))
        .expect_refusal(503, "upstream_limit", "connection_limit_reached");
    assert_eq!(weir.entry("/refused").number("attempts"), 0.0);
    for (n, client) in clients.iter_mut().enumerate() {
        order.send(()).unwrap();
        assert_eq!(client.response().text(), "hello");
        assert_eq!(endpoint.requests()[n].target(), format!("/{n}"));
        let entry = weir.entry(&format!("/{n}"));
        assert_eq!(entry.number("queue_ms") > 0.0, n > 0, "{entry:?}");
        assert_eq!(entry.number("attempts"), 1.0);
    }
    assert_eq!(endpoint.connections(), 1);
    assert_eq!(waiting(), 0.0);
    assert_eq!(metric("queued_total{upstream=\"up\"}"), 2.0);
    assert!(metric("queue_seconds_total{upstream=\"up\"}") > 0.0);
    let refused = "reasons_total{upstream=\"up\",reason=\"upstream_limit\"}";
    assert_eq!(metric(refused), 1.0);
}

#[test]
fn slow_readers_cost_bounded_memory() {
    const READERS: usize = 64;
    const BODY: usize = 1 << 30;
    let (stuck, is_stuck) = channel();
    let endpoint = Endpoint::script(move |conn| {
        let Some(_) = conn.next_request() else { return };
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"));
        stuck
            .send(conn.send_until_stuck(BODY, Duration::from_millis(500)))
            .unwrap();
        conn.rest();
    });
    let weir = Weir::to(&[&endpoint]);
    let idle = weir.resident_bytes();
    let mut readers: Vec<_> = (0..READERS).map(|_| Conn::narrow(weir.address)).collect();
    for reader in &mut readers {
        reader.send(get("/large"));
        assert_eq!(reader.message_head().status(), 200);
    }
    let sent: Vec<usize> = (0..READERS)
        .map(|_| is_stuck.recv_timeout(4 * DEADLINE).unwrap())
        .collect();
    assert!(
        sent.iter().all(|&sent| sent < BODY / 8),
        "endpoints are held back: {sent:?}"
    );
    let grown = weir.resident_bytes().saturating_sub(idle);
    assert!(grown < 32 << 20, "{grown} bytes for {READERS} slow readers");
    // The clients are slow but still served.
    for reader in &mut readers {
        reader.take(100_000);
    }
}

#[test]
fn stuck_heads_cost_bounded_memory() {
    const CLIENTS: usize = 200;
    let weir = Weir::start(HELLO);
    let idle = weir.resident_bytes();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| weir.connect()).collect();
    for client in &mut clients {
        // As large as a head may be, in small pieces.
        client.send_split(
            format!(
                "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Large: {}",
                "x".repeat(8_000)
            ),
            500,
        );
    }
    // Weir serves the last client only after it has received all heads before.
    let mut last = weir.connect();
    last.send(get("/"));
    last.response();
    let grown = weir.resident_bytes().saturating_sub(idle);
    assert!(
        grown < (CLIENTS as u64 * 64) << 10,
        "{grown} bytes for {CLIENTS} stuck connections"
    );
    for client in &mut clients {
        client.send("\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn a_trickled_body_costs_bounded_memory() {
    let (all, is_all) = channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.head();
        conn.take(20_000);
        all.send(()).unwrap();
        conn.expect_end();
    });
    let weir = Weir::to(&[&endpoint]);
    let idle = weir.resident_bytes();
    let client = weir.connect();
    client.send("PUT / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 60000\r\n\r\n");
    // The replay buffer is limited by the memory that it occupies and not by its bytes.
    client.send_split("x".repeat(20_000), 1);
    is_all.recv_timeout(DEADLINE).unwrap();
    let grown = weir.resident_bytes().saturating_sub(idle);
    assert!(grown < 2 << 20, "{grown} bytes for 20,000 in crumbs");
}

#[test]
fn crumbs_in_a_tunnel_cost_bounded_memory() {
    const CRUMBS: usize = 4_000;
    let (order, orders) = channel::<usize>();
    let orders = std::sync::Mutex::new(orders);
    let (done, is_done) = channel();
    let endpoint = Endpoint::script(move |conn| {
        let Some(_) = conn.next_request() else { return };
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        while let Ok(size) = orders.lock().unwrap().recv_timeout(DEADLINE) {
            conn.send(vec![b'x'; size]);
            done.send(()).unwrap();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let in_use = || weir.metric("weir_core_pool_used_bytes{core=\"0\"}");
    let mut client = Conn::narrow(weir.address);
    client.send(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    client.head();
    let send = |size| {
        order.send(size).unwrap();
        is_done.recv_timeout(DEADLINE).unwrap();
    };
    // Fills all kernel buffers until Weir holds a little itself.
    let idle = in_use();
    let stuck = |()| {
        send(16 * 1024);
        (0..50).all(|_| {
            std::thread::sleep(Duration::from_millis(2));
            in_use() > idle
        })
    };
    eventually("the client to be stuck", || stuck(()).then_some(()));
    for _ in 0..CRUMBS {
        send(1);
    }
    let grown = in_use() - idle;
    assert!(
        grown < 600_000.0,
        "{grown} bytes of blocks for {CRUMBS} bytes of data"
    );
    drop(order);
}
