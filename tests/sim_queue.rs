//! Endpoints at their limits: who waits is served in order, or told in time; nothing is lost and nobody is overtaken.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Ask, Outcome, ask_all};
use sim::endpoint::{Answer, Twist};
use sim::message::{Framing, Head};
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Peer, Reach, World, at};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

/// One endpoint that may have one connection, which is busy for a second with each request.
fn config(pool: &str, timeouts: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[timeouts]\n{timeouts}\n[upstream.app]\nservers = [\"{}\"]\n\
         pool = {{ connections = 1, {pool} }}\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n",
        ENDPOINTS[0]
    )
}

fn ask(id: u64) -> Ask {
    Ask {
        id,
        method: "GET",
        path: "/",
        len: 0,
        framing: Framing::None,
        answer: Answer {
            status: 200,
            len: 5,
            framing: Framing::Length,
            delay_ms: 1_000,
            twist: Twist::None,
        },
    }
}

/// Clients that ask one after the other, a little apart, and what became of each: seconds after the first began.
#[derive(Clone, Default)]
struct Asked {
    begun: Rc<Cell<usize>>,
    outcomes: Rc<RefCell<Vec<(u64, u64, String)>>>,
}

impl Asked {
    fn ask(&self, world: &World, ask: Ask) {
        let (net, asked, mut rng) = (world.client(), self.clone(), world.rng(ask.id));
        let (apart, began) = (100 * self.begun.get() as u64, world.now());
        self.begun.set(self.begun.get() + 1);
        world.spawn(async move {
            net.sleep_until(net.now() + Duration::from_millis(apart))
                .await;
            let outcome = ask_all(&net, &at(FRONT), std::slice::from_ref(&ask), &mut rng).await;
            let text = match &outcome[0] {
                Outcome::Answered => "answered".to_owned(),
                Outcome::Refused(status, why) => format!("{status} {why}"),
                other => format!("{other:?}"),
            };
            let seconds = net.now().since(began).as_secs();
            asked.outcomes.borrow_mut().push((ask.id, seconds, text));
        });
    }

    /// Ids, seconds and outcomes, in the order in which they came.
    fn wait(&self, world: &World) -> Vec<(u64, u64, String)> {
        world.run_until(|| self.outcomes.borrow().len() == self.begun.get());
        self.outcomes.take()
    }
}

#[track_caller]
fn assert_outcomes(got: &[(u64, u64, String)], want: &[(u64, u64, &str)]) {
    let got: Vec<_> = got.iter().map(|(id, s, text)| (*id, *s, &**text)).collect();
    assert_eq!(got, want, "(id, seconds, outcome)");
}

#[test]
fn who_waits_is_served_in_order_over_the_one_connection() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 10", "queue = \"1m\""));
        let endpoint = rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=8).for_each(|id| asked.ask(world, ask(id)));
        let want: Vec<_> = (1..=8).map(|id| (id, id, "answered")).collect();
        assert_outcomes(&asked.wait(world), &want);
        let order: Vec<_> = rig.ledger.all().iter().map(|seen| seen.id).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(endpoint.accepted(), 1, "connections");
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_waiter_makes_its_own_connection_when_the_one_before_ends() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 10", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        for (id, twist) in [
            Twist::Close,
            Twist::CloseSilently,
            Twist::CloseBefore,
            Twist::None,
        ]
        .into_iter()
        .enumerate()
        {
            let mut ask = ask(id as u64);
            (ask.method, ask.answer.twist) = ("POST", twist);
            asked.ask(world, ask);
        }
        let outcomes = asked.wait(world);
        let refused = outcomes.iter().filter(|(_, _, text)| text != "answered");
        // A POST may meet the end of a connection that closed without a word, as it may without a queue.
        for (id, _, text) in refused {
            assert!(*id == 2 || text == "502 upstream_closed", "{outcomes:?}");
        }
        assert_eq!(outcomes.len(), 4);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn who_finds_the_queue_full_or_waits_for_too_long_is_told() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 2", "queue = \"1500ms\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=4).for_each(|id| asked.ask(world, ask(id)));
        let want = [
            (4, 0, "503 upstream_limit"),
            (1, 1, "answered"),
            (3, 1, "503 queue_timeout"),
            (2, 2, "answered"),
        ];
        assert_outcomes(&asked.wait(world), &want);
        assert_eq!(rig.ledger.count(3) + rig.ledger.count(4), 0);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn without_a_queue_one_too_many_is_refused_at_once() {
    check(20, |world| {
        let rig = Rig::start(world, 1, &config("pending = 0", ""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=2).for_each(|id| asked.ask(world, ask(id)));
        let want = [(2, 0, "503 upstream_limit"), (1, 1, "answered")];
        assert_outcomes(&asked.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn waiting_is_a_part_of_the_total() {
    check(20, |world| {
        let timeouts = "queue = \"10s\"\ntotal = \"1500ms\"";
        let rig = Rig::start(world, 1, &config("pending = 9", timeouts));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=3).for_each(|id| asked.ask(world, ask(id)));
        let want = [
            (1, 1, "answered"),
            (2, 1, "504 total_timeout"),
            (3, 1, "504 total_timeout"),
        ];
        let mut outcomes = asked.wait(world);
        outcomes.sort();
        assert_outcomes(&outcomes, &want);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn who_goes_away_leaves_the_queue() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 1", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        asked.ask(world, ask(1));
        // One waits and leaves, by a reset or in the middle of its body.
        let (net, by_reset) = (world.client(), world.seed() % 2 == 0);
        let mut leaver = ask(2);
        (leaver.method, leaver.len, leaver.framing) = ("POST", 100, Framing::Length);
        let mut wire = leaver.wire(&mut world.rng(1));
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
        asked.ask(world, ask(3));
        let want = [(1, 1, "answered"), (3, 1, "answered")];
        assert_outcomes(&asked.wait(world), &want);
        assert_eq!(rig.ledger.count(2), 0);
        rig.drain(Duration::from_secs(30));
    });
}

/// While it connects, and before it tries again; and what stands behind in the same segment is served, too.
#[test]
fn who_has_only_closed_its_half_is_served() {
    check(40, |world| {
        let config = config("pending = 9", "queue = \"1m\"");
        let config = format!("retries = {{ count = 1, backoff = \"500ms\" }}\n{config}");
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        world.set_reach(&at(ENDPOINTS[0]), Reach::Refused);
        let (net, mut rng) = (world.client(), world.rng(7));
        let mut upload = ask(2);
        (upload.method, upload.len, upload.framing) = ("PUT", 5_000, Framing::Chunked);
        let wire: Vec<u8> = [upload, ask(3)]
            .iter()
            .flat_map(|ask| ask.wire(&mut rng))
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
fn a_drain_serves_who_waits_and_its_end_tells_the_rest() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=5).for_each(|id| asked.ask(world, ask(id)));
        world.run_for(Duration::from_millis(500));
        rig.drain(Duration::from_millis(2_000));
        let mut outcomes = asked.wait(world);
        outcomes.sort();
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
fn a_reload_that_gives_more_room_serves_who_waits() {
    check(40, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        (1..=4).for_each(|id| asked.ask(world, ask(id)));
        world.run_for(Duration::from_millis(500));
        rig.reload(&config("pending = 9", "").replace("connections = 1", "connections = 3"));
        let mut outcomes = asked.wait(world);
        outcomes.sort();
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
fn a_request_that_failed_elsewhere_waits_for_the_endpoint_that_it_has_not_tried() {
    check(40, |world| {
        let servers = format!("{ENDPOINTS:?}");
        let config = config("pending = 9", "queue = \"1m\"")
            .replace(&format!("[\"{}\"]", ENDPOINTS[0]), &servers);
        let rig = Rig::start(world, 1, &config);
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        world.set_reach(&at(ENDPOINTS[1]), Reach::Refused);
        let asked = Asked::default();
        (1..=4).for_each(|id| asked.ask(world, ask(id)));
        let want: Vec<_> = (1..=4).map(|id| (id, id, "answered")).collect();
        assert_outcomes(&asked.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}

/// Whatever happens to connections, endpoints and the plan: everybody who waits is served in the end.
#[test]
fn no_wake_up_is_lost_and_no_limit_exceeded() {
    check(400, |world| {
        let mut rng = world.rng(1);
        let cores = rng.between(1, 4) as u32;
        let drawn = |rng: &mut weir::io::sim::Rng| {
            // For the whole box: often there are fewer than cores.
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
                    let mut ask = Ask::drawn(id, &mut rng);
                    if ask.method == "POST" {
                        ask.method = "PUT";
                    }
                    // A longer body cannot be sent again when it meets the end of a connection.
                    ask.len = ask.len.min(50_000);
                    ask.answer.delay_ms = rng.below(200) as u64;
                    if rng.chance(200) {
                        ask.answer.twist = Twist::CloseSilently;
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
                    peer.send(&asks[0].wire(&mut rng)).await.unwrap();
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
            // A reload may lower the limit below what is open.
            let open: usize = open().sum();
            assert!(reloads || open <= room, "{open} connections, not {room}");
            left.get() == 0 || (reloads && rng.chance(2))
        });
        if left.get() > 0 {
            rig.reload(&drawn(&mut rng).0);
            rig.run_down(&left);
        }
        assert!(unserved.borrow().is_empty(), "{:?}", unserved.borrow());
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn uploads_and_pipelined_requests_wait_with_what_they_have_sent() {
    check(20, |world| {
        let rig = Rig::start(world, 1, &config("pending = 9", "queue = \"1m\""));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let asked = Asked::default();
        asked.ask(world, ask(1));
        let mut upload = ask(2);
        (upload.method, upload.len, upload.framing) = ("POST", 300_000, Framing::Chunked);
        asked.ask(world, upload);
        let (net, mut rng) = (world.client(), world.rng(7));
        let wire: Vec<u8> = [ask(3), ask(4)]
            .iter()
            .flat_map(|ask| ask.wire(&mut rng))
            .collect();
        world.run(async move {
            net.sleep_until(net.now() + Duration::from_millis(200))
                .await;
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            peer.write(&wire);
            for id in ["3", "4"] {
                let head = Head::read(&mut peer).await.unwrap();
                assert_eq!(head.get("x-id"), Some(id));
                peer.read_exact(5).await.unwrap();
            }
        });
        let want = [(1, 1, "answered"), (2, 2, "answered")];
        assert_outcomes(&asked.wait(world), &want);
        rig.drain(Duration::from_secs(30));
    });
}
