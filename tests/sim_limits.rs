//! Slow, stuck and greedy peers cost bounded memory and time.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest};
use sim::endpoint::Behaviour;
use sim::message::{Framing, Head, body_of};
use sim::{Rig, check};
use weir::io::sim::{End, Faults, Peer, World, at};
use weir::io::{Instant, Net};
use weir::limits::{
    ACTIVE_CONNECTION_BYTES, BLOCK_BYTES, IDLE_CONNECTION_BYTES, QUEUED_BYTES_HIGH,
};

const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
connections = 40
connections_per_client = 10
[timeouts]
head = "10s"
idle = "20s"
first_byte = "15s"
body_stall = "5s"
[limits]
body_rate = "off"
[upstream]
app = "10.2.0.1:8080"
[[route]]
match = "/*"
to = "app"
"#;

const ENDPOINT: &str = "10.2.0.1:8080";

/// What one direction may hold. A piece sent by reference fills at least an eighth of its block. Besides the queue
/// there are a block being filled, one being sent, and the heads.
const HELD_MAX: usize = 8 * QUEUED_BYTES_HIGH + 2 * BLOCK_BYTES[2] + 4 * BLOCK_BYTES[0];

/// More than all buffers on the path hold.
const LARGE: usize = 2_000_000;

fn front() -> weir::io::Address {
    at("10.1.0.1:80")
}

fn request(method: &'static str, len: usize, answer_len: usize) -> ScriptedRequest {
    let mut request = ScriptedRequest::get(7, 0);
    (request.method, request.len, request.answer.len) = (method, len, answer_len);
    if len > 0 {
        request.framing = Framing::Length;
    }
    request
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_of_memory() {
    check(12, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        rig.ledger.endpoint(world, ENDPOINT);
        let mut rng = world.rng(1);
        let done = Rc::new(Cell::new(0));
        for _ in 0..8 {
            let (net, done, wire) = (
                world.client(),
                done.clone(),
                request("GET", 0, LARGE).encode(&mut rng),
            );
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &front()).await.unwrap();
                peer.send(&wire).await.unwrap();
                // Reads nothing for a while and resumes before `client_stall` ends.
                net.sleep_until(net.now() + Duration::from_secs(3)).await;
                let head = Head::read(&mut peer).await.unwrap();
                assert_eq!(head.get("content-length"), Some("2000000"));
                let body = peer.read_exact(LARGE).await.unwrap();
                assert!(
                    body == body_of(7, true, LARGE),
                    "the answer was changed on the way"
                );
                done.set(done.get() + 1);
            });
        }
        let (core, most) = (world.core(0), Cell::new(0));
        world.run_until(|| {
            most.set(most.get().max(core.pool().live_bytes()));
            done.get() == 8
        });
        let bound = 8 * HELD_MAX;
        assert!(most.get() <= bound, "{} of {bound} bytes", most.get());
        rig.drain(Duration::from_secs(30));
    });
}

/// More connections than the memory budget allows at full use: Weir ends the largest holders and serves clients that
/// read.
#[test]
fn many_slow_readers_stay_within_the_memory_budget() {
    const MEMORY: usize = 2 << 20;
    check(12, |world| {
        let config = CONFIG.replace("[limits]\n", "[limits]\nmemory_per_core = \"2MiB\"\n");
        let config = config.replace("connections_per_client = 10", "connections_per_client = 40");
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINT);
        let (done, ended, read) = (Cell::new(false), Cell::new(0), Cell::new(0));
        let shared = Rc::new((done, ended, read));
        for n in 0..30 {
            let (net, shared) = (world.client(), shared.clone());
            let mut rng = world.rng(n);
            world.spawn(async move {
                // The clients start one after the other, so that between two checks only a few connections grow.
                net.sleep_until(net.now() + Duration::from_millis(50 * n))
                    .await;
                let mut peer = Peer::connect(&net, &front()).await.unwrap();
                let mut ask = request("GET", 0, LARGE);
                // Framed, so that it does not pass unseen.
                ask.answer.framing = Framing::Chunked;
                peer.send(&ask.encode(&mut rng)).await.unwrap();
                while !shared.0.get() {
                    net.sleep_until(net.now() + Duration::from_millis(50)).await;
                }
                if peer.read_to_end().await.1 != End::Orderly {
                    shared.1.set(shared.1.get() + 1);
                }
            });
        }
        let (net, flag, mut rng) = (world.client(), shared.clone(), world.rng(99));
        world.spawn(async move {
            for _ in 0..40 {
                net.sleep_until(net.now() + Duration::from_millis(50)).await;
                let asks = [request("GET", 0, 10_000)];
                let outcomes = sim::client::ask_all(&net, &front(), &asks, &mut rng).await;
                assert!(matches!(outcomes[0], Outcome::Answered), "{outcomes:?}");
                flag.2.set(flag.2.get() + 1);
            }
            flag.0.set(true);
        });
        let (core, most) = (world.core(0), Cell::new(0));
        world.run_until(|| {
            most.set(most.get().max(core.pool().live_bytes()));
            shared.0.get()
        });
        assert!(most.get() > MEMORY / 2, "only {} bytes", most.get());
        assert!(most.get() <= 2 * MEMORY, "{} bytes", most.get());
        rig.drain(Duration::from_secs(30));
        world.run_for(Duration::from_secs(40));
        assert!(shared.1.get() > 0, "somebody was sent away");
        assert_eq!(shared.2.get(), 40);
    });
}

/// All clients start at once, faster than periodic checks notice. Each receive itself is bounded.
#[test]
fn a_burst_of_slow_readers_stays_within_the_memory_budget() {
    const MEMORY: usize = 2 << 20;
    const READERS: usize = 30;
    check(12, |world| {
        let config = CONFIG.replace("[limits]\n", "[limits]\nmemory_per_core = \"2MiB\"\n");
        let config = config.replace("connections_per_client = 10", "connections_per_client = 40");
        world.set_faults(|faults| {
            // All bytes are ready at once and exceed the memory budget.
            *faults = Faults {
                send_buffer_bytes: 256 * 1024,
                receive_buffer_bytes: 256 * 1024,
                ..Faults::none()
            };
        });
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINT);
        let (ended, left) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(READERS)));
        for n in 0..READERS {
            let (net, ended, left) = (world.client(), ended.clone(), left.clone());
            let mut rng = world.rng(n as u64);
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &front()).await.unwrap();
                let mut ask = request("GET", 0, LARGE);
                // Framed, so that it does not pass unseen.
                ask.answer.framing = Framing::Chunked;
                let _ = peer.send(&ask.encode(&mut rng)).await;
                net.sleep_until(net.now() + Duration::from_secs(2)).await;
                if peer.read_to_end().await.1 != End::Orderly {
                    ended.set(ended.get() + 1);
                }
                left.set(left.get() - 1);
            });
        }
        let (core, most) = (world.core(0), Cell::new(0));
        world.run_until(|| {
            most.set(most.get().max(core.pool().taken_bytes()));
            left.get() == 0
        });
        // Every connection gets the minimum that it needs to receive a request and to be closed.
        let each = IDLE_CONNECTION_BYTES + ACTIVE_CONNECTION_BYTES + 6 * BLOCK_BYTES[0];
        let bound = MEMORY + BLOCK_BYTES[2] + READERS * each;
        assert!(most.get() > MEMORY, "only {} bytes", most.get());
        assert!(most.get() <= bound, "{} of {bound} bytes", most.get());
        assert!(ended.get() > 0, "somebody was sent away");
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn an_endpoint_that_does_not_read_costs_a_bounded_amount_of_memory() {
    check(12, |world| {
        let rig = Rig::start(
            world,
            1,
            &CONFIG.replace("body_stall = \"5s\"", "body_stall = \"60s\""),
        );
        let rested = Rc::new(Cell::new(false));
        let flag = rested.clone();
        world.endpoint(&at(ENDPOINT), move |mut peer| {
            let flag = flag.clone();
            async move {
                let net = peer.net().clone();
                net.sleep_until(net.now() + Duration::from_secs(3)).await;
                flag.set(true);
                let head = Head::read(&mut peer).await.unwrap();
                assert_eq!(head.get("content-length"), Some("2000000"));
                let body = peer.read_exact(LARGE).await.unwrap();
                assert!(
                    body == body_of(7, false, LARGE),
                    "the body was changed on the way"
                );
                peer.send(b"HTTP/1.1 204 Fine\r\nX-Id: 7\r\n\r\n")
                    .await
                    .unwrap();
                let _ = peer.read_to_end().await;
            }
        });
        let mut rng = world.rng(1);
        let (core, most, done) = (world.core(0), Cell::new(0), Rc::new(Cell::new(false)));
        let (net, flag, ask) = (world.client(), done.clone(), request("POST", LARGE, 0));
        let wire = ask.encode(&mut rng);
        world.spawn(async move {
            let mut peer = Peer::connect(&net, &front()).await.unwrap();
            peer.write(&wire);
            let head = Head::read(&mut peer).await.unwrap();
            assert!(head.line.starts_with("HTTP/1.1 204 "), "{}", head.line);
            flag.set(true);
        });
        world.run_until(|| {
            most.set(most.get().max(core.pool().live_bytes()));
            done.get()
        });
        assert!(rested.get());
        let bound = HELD_MAX;
        assert!(most.get() <= bound, "{} of {bound} bytes", most.get());
        rig.drain(Duration::from_secs(30));
    });
}

/// What a client receives that sends `bytes` and then nothing, and when its connection ends.
fn silent_after(world: &World, bytes: Vec<u8>) -> (Vec<u8>, Duration) {
    let net = world.client();
    world.run(async move {
        let mut peer = Peer::connect(&net, &front()).await.unwrap();
        peer.write(&bytes);
        let start: Instant = net.now();
        let (got, _) = peer.read_to_end().await;
        (got, net.now().since(start))
    })
}

#[test]
fn a_stalled_client_is_answered_or_closed_in_time() {
    check(60, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        rig.ledger.endpoint(world, ENDPOINT);
        let head = |id: u64, more: &str, behaviour| {
            let mut stuck = request("GET", 0, 5);
            (stuck.id, stuck.answer.behaviour) = (id, behaviour);
            let mut wire = stuck.encode(&mut world.rng(1));
            wire.truncate(wire.len() - 2);
            wire.extend_from_slice(more.as_bytes());
            wire
        };
        let mut half = head(1, "Content-Length: 9\r\n\r\n", Behaviour::None);
        half.extend_from_slice(&body_of(1, false, 9)[..4]);
        let cases = [
            // No bytes at all: `client_head` ends the connection.
            (Vec::new(), "", 10),
            (head(2, "", Behaviour::None), "HTTP/1.1 408 ", 10),
            (half, "HTTP/1.1 408 ", 5),
            // The endpoint never answers.
            (
                head(3, "Connection: close\r\n\r\n", Behaviour::Silent),
                "HTTP/1.1 504 ",
                15,
            ),
        ];
        for (bytes, start, seconds) in cases {
            let (got, time) = silent_after(world, bytes.clone());
            let (asked, got) = (
                String::from_utf8_lossy(&bytes),
                String::from_utf8_lossy(&got).into_owned(),
            );
            assert!(
                got.starts_with(start) && got.is_empty() == start.is_empty(),
                "{got:?} to {asked:?}"
            );
            let (least, most) = (
                Duration::from_secs(seconds),
                Duration::from_millis(seconds * 1000 + 2_600),
            );
            assert!(
                time + Duration::from_millis(50) >= least && time <= most,
                "{time:?} for {asked:?}"
            );
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_client_that_stops_reading_is_dropped_in_time() {
    check(60, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        rig.ledger.endpoint(world, ENDPOINT);
        let mut rng = world.rng(1);
        let wire = request("GET", 0, LARGE).encode(&mut rng);
        let net = world.client();
        let core = world.core(0);
        let (got, end) = world.run(async move {
            let mut peer = Peer::connect(&net, &front()).await.unwrap();
            peer.send(&wire).await.unwrap();
            net.sleep_until(net.now() + Duration::from_secs(15)).await;
            assert_eq!(core.pool().live_bytes(), 0, "nothing is kept for it");
            peer.read_to_end().await
        });
        assert!(
            got.len() < LARGE && matches!(end, End::Failed(_)),
            "{} bytes, {end:?}",
            got.len()
        );
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn connections_beyond_the_limits_are_refused_and_no_longer_counted() {
    check(60, |world| {
        let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, CONFIG);
        let open: Rc<RefCell<Vec<_>>> = Rc::default();
        let connect = |ip: [u8; 4]| {
            let (net, open) = (world.client_at(ip.into()), open.clone());
            world.run(async move {
                let mut peer = Peer::connect(&net, &front()).await.unwrap();
                let wait = net.now() + Duration::from_millis(200);
                // Weir closes a refused connection at once and sends an accepted one nothing.
                let mut late = std::pin::pin!(net.sleep_until(wait));
                let answer = {
                    let mut head = std::pin::pin!(Head::read(&mut peer));
                    std::future::poll_fn(|cx| match head.as_mut().poll(cx) {
                        std::task::Poll::Ready(head) => std::task::Poll::Ready(head),
                        std::task::Poll::Pending => late.as_mut().poll(cx).map(|()| None),
                    })
                    .await
                };
                if answer.is_none() {
                    open.borrow_mut().push(peer);
                }
                answer.map(|head| head.line)
            })
        };
        for _ in 0..3 {
            for _ in 0..10 {
                assert_eq!(connect([192, 0, 2, 1]), None);
            }
            let refused = connect([192, 0, 2, 1]).unwrap();
            assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
            open.borrow_mut().clear();
            world.run_for(Duration::from_millis(200));
        }
        // Forty connections in ten seconds; more would let the first exceed the time for a head.
        for i in 0..8 {
            assert_eq!(connect([192, 0, 2, i]), None);
        }
        rig.drain(Duration::from_secs(1));
        open.borrow_mut().clear();
    });
}

#[test]
fn an_answer_slower_than_body_stall_is_relayed() {
    check(60, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        rig.ledger.endpoint(world, ENDPOINT);
        let mut rng = world.rng(1);
        for (status, len) in [(204, 0), (200, 40_000)] {
            let mut slow = request("GET", 0, len);
            (slow.answer.status, slow.answer.delay_ms) = (status, 8_000);
            let (net, wire) = (world.client(), slow.encode(&mut rng));
            let outcome = world.run(async move {
                let mut peer = Peer::connect(&net, &front()).await.unwrap();
                peer.write(&wire);
                slow.read(&mut peer).await.0
            });
            assert!(matches!(outcome, Outcome::Answered), "{outcome:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}
