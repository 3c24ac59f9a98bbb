//! Connections for one request each: accept, request, answer, end. The connection to the endpoint persists.
//!
//! The base is a bare relay in place of the core, which forwards the same messages over as many connections.

use std::future::poll_fn;
use std::task::{Poll, ready};

use weir::io::sim::{Peer, World, at};
use weir::io::{Net, Rx, Tx};

use crate::Case;
use crate::exchange::{ENDPOINT, LISTENER, is_end, proxy, recv, serve, with_client};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "connect",
        run: |times| connect(proxy, times),
        base: Some("connect-relay"),
    },
    Case {
        name: "connect-relay",
        run: |times| connect(relay, times),
        base: None,
    },
];

const REQUEST: &[u8] = b"GET /b/1024 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: pace\r\nAccept: */*\r\nConnection: close\r\n\r\n";

/// Sends `times` requests to the core that `start` starts, each over a connection of its own.
fn connect(start: fn(&World), times: u64) {
    with_client(start, serve, async move |net| {
        for _ in 0..times {
            let connected = Peer::connect(&net, &at(LISTENER)).await;
            let mut peer = connected.expect("the core listens");
            peer.send(REQUEST).await.expect("the connection stays open");
            while recv(&mut peer).await.is_some() {}
        }
    });
}

/// Starts a core that relays one request and its answer for each connection.
fn relay(world: &World) {
    let (net, socket) = (world.core(0), world.listen(&at(LISTENER)));
    world.start(0, async move {
        let listener = net.listen(socket).expect("a listener");
        let mut up = net.connect(&at(ENDPOINT)).await.expect("an endpoint");
        while let Ok(mut down) = net.accept(&listener).await {
            forward(&mut down.rx, &mut up.tx, |read| read.ends_with(b"\r\n\r\n")).await;
            forward(&mut up.rx, &mut down.tx, is_end).await;
        }
    });
}

/// Forwards a message, which ends where `is_end` says.
async fn forward(rx: &mut impl Rx, tx: &mut impl Tx, is_end: fn(&[u8]) -> bool) {
    let mut has_end = false;
    poll_fn(|cx| {
        loop {
            if tx.queued() > 0 && ready!(tx.poll_send(cx)).is_err() {
                return Poll::Ready(());
            }
            if has_end {
                return Poll::Ready(());
            }
            match ready!(rx.poll_recv(cx)) {
                Ok(Some(chunk)) => {
                    has_end = is_end(&chunk);
                    tx.push(chunk);
                }
                Ok(None) | Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
}
