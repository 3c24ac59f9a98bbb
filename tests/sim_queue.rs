//! Endpoints at their limits: queued requests are served in order or fail in time. None is lost or overtaken.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Clients, Finished, Outcome, ScriptedRequest, ask_all};
use sim::endpoint::Behaviour;
use sim::message::{Framing, Head, body_of};
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Peer, Reach, World, at};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

/// One endpoint with one connection, which each request occupies for a second.
fn config(pool: &str, timeouts: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[timeouts]\n{timeouts}\n[upstream.app]\nservers = [\"{}\"]\n\
         pool = {{ connections = 1, {pool} }}\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n",
        ENDPOINTS[0]
    )
}

/// A request that the endpoint answers after a second.
fn request(id: u64) -> ScriptedRequest {
    ScriptedRequest::get(id, 1_000)
}

/// Starts a client that sends one request, 100 ms after the client before it.
fn start(clients: &Clients, world: &World, request: ScriptedRequest) {
    let delay = Duration::from_millis(100 * clients.started() as u64);
    clients.start(world, FRONT, delay, vec![request]);
}

/// Starts a client for each of the ids.
fn start_each(clients: &Clients, world: &World, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        start(clients, world, request(id));
    }
}

/// Asserts ids, full seconds and outcomes of requests.
#[track_caller]
fn assert_outcomes(got: &[Finished], want: &[(u64, u64, &str)]) {
    let got: Vec<_> = got
        .iter()
        .map(|one| (one.id, one.took.as_secs(), &*one.outcome))
        .collect();
    assert_eq!(got, want, "(id, seconds, outcome)");
}

/// Waits for all requests and sorts them by id.
fn wait_sorted(clients: &Clients, world: &World) -> Vec<Finished> {
    let mut finished = clients.wait(world);
    finished.sort_by_key(|one| one.id);
    finished
}

#[test]
fn queued_requests_are_served_in_order_over_one_connection() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 10", "queue = \"1m\""));
        let endpoint = rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=8);
        let want: Vec<_> = (1..=8).map(|id| (id, id, "answered")).collect();
        assert_outcomes(&clients.wait(world), &want);
        let order: Vec<_> = rig.ledger.all().iter().map(|seen| seen.id).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(endpoint.accepted(), 1, "connections");
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_queued_request_opens_a_connection_when_the_previous_one_ends() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 10", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        for (id, behaviour) in [
            Behaviour::Close,
            Behaviour::CloseSilently,
            Behaviour::CloseBefore,
            Behaviour::None,
        ]
        .into_iter()
        .enumerate()
        {
            let mut ask = request(id as u64);
            (ask.method, ask.answer.behaviour) = ("POST", behaviour);
            start(&clients, world, ask);
        }
        let outcomes = clients.wait(world);
        let refused = outcomes.iter().filter(|one| one.outcome != "answered");
        // A POST may be sent just as the connection closes without notice, as it may without a queue.
        for one in refused {
            assert!(
                one.id == 2 || one.outcome == "502 upstream_closed",
                "{outcomes:?}"
            );
        }
        assert_eq!(outcomes.len(), 4);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_full_queue_and_a_queue_timeout_are_503() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 2", "queue = \"1500ms\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=4);
        let want = [
            (4, 0, "503 upstream_limit"),
            (1, 1, "answered"),
            (3, 1, "503 queue_timeout"),
            (2, 2, "answered"),
        ];
        assert_outcomes(&clients.wait(world), &want);
        assert_eq!(rig.ledger.count(3) + rig.ledger.count(4), 0);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn without_a_queue_an_excess_request_fails_at_once() {
    check(20, |world| {
        let rig = Rig::start(world, 1, &config("pending = 0", ""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=2);
        let want = [(2, 0, "503 upstream_limit"), (1, 1, "answered")];
        assert_outcomes(&clients.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn time_in_the_queue_counts_towards_total() {
    check(20, |world| {
        let timeouts = "queue = \"10s\"\ntotal = \"1500ms\"";
        let rig = Rig::start(world, 1, &config("pending = 9", timeouts));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=3);
        let want = [
            (1, 1, "answered"),
            (2, 1, "504 total_timeout"),
            (3, 1, "504 total_timeout"),
        ];
        let outcomes = wait_sorted(&clients, world);
        assert_outcomes(&outcomes, &want);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_client_that_leaves_frees_its_place_in_the_queue() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 1", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start(&clients, world, request(1));
        // A queued client leaves, by a reset or in the middle of its body.
        let (net, by_reset) = (world.client(), world.seed() % 2 == 0);
        let mut leaver = request(2);
        (leaver.method, leaver.len, leaver.framing) = ("POST", 100, Framing::Length);
        let mut wire = leaver.encode(&mut world.rng(1));
        world.run(async move {
            net.sleep_until(net.now() + Duration::from_millis(100))
                .await;
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            wire.truncate(wire.len() - 100);
            peer.send(&wire).await.unwrap();
            net.sleep_until(net.now() + Duration::from_millis(100))
                .await;
            if by_reset {
                peer.reset();
            } else {
                peer.finish();
                peer.read_to_end().await;
            }
        });
        world.run_for(Duration::from_millis(50));
        start(&clients, world, request(3));
        let want = [(1, 1, "answered"), (3, 1, "answered")];
        assert_outcomes(&clients.wait(world), &want);
        assert_eq!(rig.ledger.count(2), 0);
        rig.drain(Duration::from_secs(30));
    });
}

/// The client half-closes while Weir connects or waits for a retry. A second request in the same segment is served too.
#[test]
fn a_half_closed_client_is_served() {
    check(40, |world| {
        let config = config("pending = 9", "queue = \"1m\"");
        let config = format!("retries = {{ count = 1, backoff = \"500ms\" }}\n{config}");
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        world.set_reach(&at(ENDPOINTS[0]), Reach::Refused);
        let (net, mut rng) = (world.client(), world.rng(7));
        let mut upload = request(2);
        (upload.method, upload.len, upload.framing) = ("PUT", 5_000, Framing::Chunked);
        let wire: Vec<u8> = [upload, request(3)]
            .iter()
            .flat_map(|ask| ask.encode(&mut rng))
            .collect();
        let served = Rc::new(Cell::new(0));
        let count = served.clone();
        world.spawn(async move {
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            peer.send(&wire).await.unwrap();
            peer.finish();
            for id in ["2", "3"] {
                let head = Head::read(&mut peer).await.unwrap();
                assert_eq!(head.get("x-id"), Some(id), "{head:?}");
                peer.read_exact(5).await.unwrap();
                count.set(count.get() + 1);
            }
            assert!(peer.read_to_end().await.0.is_empty());
        });
        world.run_for(Duration::from_millis(200));
        world.set_reach(&at(ENDPOINTS[0]), Reach::Slow(Duration::from_secs(1)));
        world.run_until(|| served.get() == 2);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_drain_serves_queued_requests_and_fails_the_rest_at_its_end() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=5);
        world.run_for(Duration::from_millis(500));
        rig.drain(Duration::from_millis(2_000));
        let outcomes = wait_sorted(&clients, world);
        let want = [
            (1, 1, "answered"),
            (2, 2, "answered"),
            (3, 2, "503 shutting_down"),
            (4, 2, "503 shutting_down"),
            (5, 2, "503 shutting_down"),
        ];
        assert_outcomes(&outcomes, &want);
    });
}

#[test]
fn a_reload_that_raises_the_limit_serves_queued_requests() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=4);
        world.run_for(Duration::from_millis(500));
        rig.reload(&config("pending = 9", "").replace("connections = 1", "connections = 3"));
        let outcomes = wait_sorted(&clients, world);
        let want = [
            (1, 1, "answered"),
            (2, 1, "answered"),
            (3, 1, "answered"),
            (4, 2, "answered"),
        ];
        assert_outcomes(&outcomes, &want);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_failed_request_waits_for_an_untried_endpoint() {
    check(40, |world| {
        let servers = format!("{ENDPOINTS:?}");
        let config = config("pending = 9", "queue = \"1m\"")
            .replace(&format!("[\"{}\"]", ENDPOINTS[0]), &servers);
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        world.set_reach(&at(ENDPOINTS[1]), Reach::Refused);
        let clients = Clients::default();
        start_each(&clients, world, 1..=4);
        let want: Vec<_> = (1..=4).map(|id| (id, id, "answered")).collect();
        assert_outcomes(&clients.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}

/// Connections end, endpoints misbehave and the plan changes: every queued request is still served.
#[test]
fn no_wake_up_is_lost_and_no_limit_exceeded() {
    check(400, |world| {
        let mut rng = world.rng(1);
        let cores = rng.between(1, 4) as u32;
        let drawn = |rng: &mut weir::io::sim::Rng| {
            // The limit counts all cores, and is often below their number.
            let (room, idle) = (rng.between(1, 5), rng.below(3));
            let servers = &ENDPOINTS[..rng.between(1, 2)];
            let config = format!(
                "[listen.\"{FRONT}\"]\n[timeouts]\nqueue = \"30m\"\n[upstream.app]\nservers = {servers:?}\n\
                 pool = {{ connections = {room}, idle_per_core = {idle} }}\n\
                 [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
            );
            (config, room * servers.len())
        };
        let (first, room) = drawn(&mut rng);
        let rig = Rig::start(world, cores, &first);
        for address in ENDPOINTS {
            rig.ledger.endpoint(world, address);
        }
        let (left, unserved) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        for client in 0..rng.between(4, 16) as u64 {
            let ids = (client * 100..).take(rng.between(1, 4));
            let asks: Vec<_> = ids
                .map(|id| {
                    let mut ask = ScriptedRequest::random(id, &mut rng);
                    if ask.method == "POST" {
                        ask.method = "PUT";
                    }
                    // Weir cannot send a longer body again when a connection ends early.
                    ask.len = ask.len.min(50_000);
                    ask.answer.delay_ms = rng.below(200) as u64;
                    if rng.chance(200) {
                        ask.answer.behaviour = Behaviour::CloseSilently;
                    }
                    ask
                })
                .collect();
            let leaves = rng.chance(200);
            let (net, left, unserved) = (world.client(), left.clone(), unserved.clone());
            let mut rng = rng.fork();
            left.set(left.get() + 1);
            world.spawn(async move {
                if leaves {
                    let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                    peer.send(&asks[0].encode(&mut rng)).await.unwrap();
                    let pause = Duration::from_millis(rng.below(300) as u64);
                    net.sleep_until(net.now() + pause).await;
                    peer.reset();
                } else {
                    let outcomes = ask_all(&net, &at(FRONT), &asks, &mut rng).await;
                    let lost = |outcome: &Outcome| !matches!(outcome, Outcome::Answered);
                    unserved
                        .borrow_mut()
                        .extend(outcomes.into_iter().filter(lost));
                }
                left.set(left.get() - 1);
            });
        }
        let reloads = world.seed() % 2 == 0;
        let open = || (0..cores).map(|n| world.open_connections(n) - world.accepted_connections(n));
        world.run_until(|| {
            // A reload may lower the limit below the number of open connections.
            let open: usize = open().sum();
            assert!(reloads || open <= room, "{open} connections, not {room}");
            left.get() == 0 || (reloads && rng.chance(2))
        });
        if left.get() > 0 {
            rig.reload(&drawn(&mut rng).0);
            rig.run_until_zero(&left);
        }
        assert!(unserved.borrow().is_empty(), "{:?}", unserved.borrow());
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn queued_uploads_and_pipelined_requests_keep_their_bytes() {
    check(20, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start(&clients, world, request(1));
        let mut upload = request(2);
        (upload.method, upload.len, upload.framing) = ("POST", 300_000, Framing::Chunked);
        start(&clients, world, upload);
        let (net, mut rng) = (world.client(), world.rng(7));
        let wire: Vec<u8> = [request(3), request(4)]
            .iter()
            .flat_map(|ask| ask.encode(&mut rng))
            .collect();
        world.run(async move {
            net.sleep_until(net.now() + Duration::from_millis(200))
                .await;
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            peer.write(&wire);
            for id in [3, 4] {
                let head = Head::read(&mut peer).await.unwrap();
                assert_eq!(head.get("x-id"), Some(&*id.to_string()));
                assert_eq!(peer.read_exact(5).await.unwrap(), body_of(id, true, 5));
            }
        });
        let want = [(1, 1, "answered"), (2, 2, "answered")];
        assert_outcomes(&clients.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}
