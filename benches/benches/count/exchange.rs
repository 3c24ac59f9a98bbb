//! Whole exchanges: a simulated core between a client and an endpoint, all over persistent
//! connections.
//!
//! The figures include the simulator's own work. So each exchange has a base: a bare relay in place
//! of the core, which forwards the same messages over the same connections without reading them.
//! The difference is the cost of Weir.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use weir::io::sim::{Faults, Peer, Sim, World, at};
use weir::io::{Net, Rx, Tx};
use weir::obs::CoreObs;
use weir::plan::{EndpointSets, ListenerId, Plan};
use weir::policy::Registry;
use weir::serving::{self, CoreStart, Mailbox, SharedState};

use crate::Case;
use crate::http1::BROWSER;
use crate::routing::{SERVER, compile, endpoints};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "exchange-small",
        run: |times| exchange(SMALL, proxy, times),
        base: Some("relay-small"),
    },
    Case {
        name: "relay-small",
        run: |times| exchange(SMALL, relay, times),
        base: None,
    },
    Case {
        name: "exchange-browser",
        run: |times| exchange(BROWSER, proxy, times),
        base: Some("relay-browser"),
    },
    Case {
        name: "relay-browser",
        run: |times| exchange(BROWSER, relay, times),
        base: None,
    },
    Case {
        name: "exchange-limit",
        run: |times| exchange(SMALL, |world| proxy_with(world, with_keys(LIMIT)), times),
        base: Some("exchange-small"),
    },
    Case {
        name: "exchange-limit-batch",
        run: |times| {
            exchange(
                SMALL,
                |world| proxy_with(world, with_keys(LIMIT_BATCH)),
                times,
            )
        },
        base: Some("exchange-small"),
    },
    Case {
        name: "exchange-concurrency",
        run: |times| {
            exchange(
                SMALL,
                |world| proxy_with(world, with_keys(CONCURRENCY)),
                times,
            )
        },
        base: Some("exchange-small"),
    },
    Case {
        name: "exchange-not-found",
        run: |times| exchange(UNROUTED, proxy, times),
        base: None,
    },
];

pub(crate) const SMALL: &[u8] =
    b"GET /b/1024 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: pace\r\nAccept: */*\r\n\r\n";

/// No route matches it.
const UNROUTED: &[u8] =
    b"GET /b/1024 HTTP/1.1\r\nHost: example.org\r\nUser-Agent: pace\r\nAccept: */*\r\n\r\n";

pub(crate) const ROUTES: &str = "[[route]]\nmatch = \"shop.example.com/*\"\nto = \"app\"\n";
/// Admits all, one token at a time.
const LIMIT: &str = "limit = \"10000000/s per ip, burst 7\"\n";
/// Admits all, in batches.
const LIMIT_BATCH: &str = "limit = \"10000000/s per ip\"\n";
const CONCURRENCY: &str = "concurrency = \"100 per ip\"\n";
pub(crate) const LISTENER: &str = "10.1.0.1:80";
pub(crate) const ENDPOINT: &str = SERVER;

/// Bytes of a response body.
const BODY_BYTES: usize = 1024;

/// Sends `times` requests over one connection, to the core that `start` starts.
fn exchange(request: &'static [u8], start: fn(&World), times: u64) {
    exchange_in_turn(vec![request.to_vec()], start, times);
}

/// Sends `times` requests, these in turn.
pub(crate) fn exchange_in_turn(requests: Vec<Vec<u8>>, start: impl FnOnce(&World), times: u64) {
    over_one_connection(start, serve, async move |mut peer| {
        for request in requests.iter().cycle().take(times as usize) {
            peer.send(request).await.expect("the connection stays open");
            while !is_end(&recv(&mut peer).await.expect("a response")) {}
        }
    });
}

/// Runs a client on one connection to the core that `start` starts. The core's endpoint does what `serve` does.
pub(crate) fn over_one_connection<F: Future<Output = ()> + 'static>(
    start: impl FnOnce(&World),
    serve: fn(Peer<Sim>) -> F,
    client: impl AsyncFnOnce(Peer<Sim>) + 'static,
) {
    with_client(start, serve, async move |net| {
        let connected = Peer::connect(&net, &at(LISTENER)).await;
        client(connected.expect("the core listens")).await;
    });
}

/// Runs a client of the core that `start` starts. The core's endpoint does what `serve` does.
pub(crate) fn with_client<F: Future<Output = ()> + 'static>(
    start: impl FnOnce(&World),
    serve: fn(Peer<Sim>) -> F,
    client: impl AsyncFnOnce(Sim) + 'static,
) {
    let world = World::new(1);
    world.set_faults(|faults| *faults = Faults::none());
    world.set_steps_max(u64::MAX);
    let _endpoint = world.endpoint(&at(ENDPOINT), serve);
    start(&world);
    let net = world.client();
    world.run(client(net));
}

/// Returns whether a response ends here: bodies end with a brace and perhaps a newline.
pub(crate) fn is_end(read: &[u8]) -> bool {
    read.trim_ascii_end().ends_with(b"}")
}

/// Responds to every request. Requests have no bodies.
pub(crate) async fn serve(mut peer: Peer<Sim>) {
    let response = response();
    while let Some(read) = recv(&mut peer).await {
        if read.ends_with(b"\r\n\r\n") && peer.send(&response).await.is_err() {
            return;
        }
    }
}

/// A response with a body of [`BODY_BYTES`].
pub(crate) fn response() -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    )
    .into_bytes();
    response.resize(response.len() + BODY_BYTES - 1, b'x');
    response.push(b'}');
    response
}

/// The next bytes, or `None` when the connection has ended for any reason.
pub(crate) async fn recv(peer: &mut Peer<Sim>) -> Option<Vec<u8>> {
    peer.recv().await.ok().flatten()
}

/// Starts a core of Weir.
pub(crate) fn proxy(world: &World) {
    proxy_with(world, compile(ROUTES));
}

/// The plan with these keys in its route.
fn with_keys(keys: &str) -> Plan {
    let mut plan = compile(&format!("{ROUTES}{keys}"));
    plan.states.equip(&mut Registry::default());
    plan
}

/// Starts a core of Weir with this plan, whose upstreams are the usual ones.
pub(crate) fn proxy_with(world: &World, plan: Plan) {
    start_core(world, plan, endpoints(SERVER, ROUTES));
}

/// Starts a core of Weir with this plan and these endpoints.
pub(crate) fn start_core(world: &World, plan: Plan, endpoints: EndpointSets) {
    let (plan, endpoints) = (Arc::new(plan), Arc::new(endpoints));
    let net = world.core(0);
    let (sender, mailbox) = Mailbox::new(&net).expect("a doorbell");
    let start = CoreStart {
        index: 0,
        obs: CoreObs::detached(&plan, &endpoints),
        plan,
        endpoints,
        shared: SharedState::new(vec![sender]),
        seed: 1,
        sockets: vec![(ListenerId(0), world.listen(&at(LISTENER)))],
        mailbox,
    };
    world.start(0, serving::run(net, start));
}

/// Starts a core that relays one connection.
pub(crate) fn relay(world: &World) {
    let (net, socket) = (world.core(0), world.listen(&at(LISTENER)));
    world.start(0, async move {
        let listener = net.listen(socket).expect("a listener");
        let mut down = net.accept(&listener).await.expect("a client");
        let mut up = net.connect(&at(ENDPOINT)).await.expect("an endpoint");
        poll_fn(|cx| {
            let to_endpoint = forward(&mut down.rx, &mut up.tx, cx);
            let to_client = forward(&mut up.rx, &mut down.tx, cx);
            if to_endpoint.is_ready() || to_client.is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    });
}

/// Forwards bytes until no more are available. Ready when the connection has ended.
fn forward(rx: &mut impl Rx, tx: &mut impl Tx, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if tx.queued() > 0 && ready!(tx.poll_send(cx)).is_err() {
            return Poll::Ready(());
        }
        match ready!(rx.poll_recv(cx)) {
            Ok(Some(chunk)) => tx.push(chunk),
            Ok(None) | Err(_) => return Poll::Ready(()),
        }
    }
}
