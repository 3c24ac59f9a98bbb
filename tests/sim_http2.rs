//! HTTP/2 on one or both sides while endpoints misbehave and the network breaks: many streams on few connections, each
//! answered once and unchanged, or visibly not.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest};
use sim::endpoint::Behaviour;
use sim::message::Framing;
use sim::{Rig, check, client, http2};
use weir::io::Net;
use weir::io::sim::{Peer, World, at};
use weir::limits::H2_TINY_WINDOW_MS;

const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

/// How often an endpoint may receive a repeatable request: over a dead connection, and as often as the configuration
/// allows.
const SEEN_MAX: usize = 1 + 1 + RETRIES;
const RETRIES: usize = 3;

/// The protocols of both sides; at least one is HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sides {
    down: bool,
    up: bool,
}

fn sides(world: &World) -> Sides {
    let (down, up) = [(true, true), (true, false), (false, true)][world.rng(7).below(3)];
    Sides { down, up }
}

fn start(world: &World, sides: Sides) -> Rig<'_> {
    let scheme = if sides.up { "h2c://" } else { "" };
    let servers = ENDPOINTS.map(|address| format!("{scheme}{address}"));
    let config = format!(
        "retries = {{ count = {RETRIES}, budget = \"100%\", budget_min = 1000 }}\n\
         [listen.\"10.1.0.1:80\"]\n[timeouts]\nfirst_byte = \"5s\"\nbody_stall = \"5s\"\n\
         [upstream]\napp = {servers:?}\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    );
    let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, &config);
    for address in ENDPOINTS {
        match sides.up {
            true => rig.ledger.endpoint_http2(world, address),
            false => rig.ledger.endpoint(world, address),
        };
    }
    rig
}

/// Runs clients with random requests, changed by `change`, and returns the outcome of each.
fn run_clients(
    rig: &Rig<'_>,
    sides: Sides,
    change: impl Fn(&mut ScriptedRequest),
    wanted: impl Fn(&ScriptedRequest) -> bool + Copy + 'static,
) -> Vec<(ScriptedRequest, Outcome)> {
    let world = rig.world;
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let results = Rc::new(RefCell::new(Vec::new()));
    for one in 0..rng.between(1, 3) as u64 {
        let ids = (one * 100..).take(rng.between(1, 25));
        let mut asks: Vec<_> = ids
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        asks.iter_mut().for_each(&change);
        if sides.up {
            // HTTP/2 has no such framing.
            let closes = |ask: &&mut ScriptedRequest| ask.answer.framing == Framing::Close;
            let asks = asks.iter_mut().filter(closes);
            asks.for_each(|ask| ask.answer.framing = Framing::Chunked);
        }
        let (net, left, results) = (world.client(), left.clone(), results.clone());
        let mut rng = rng.fork();
        left.set(left.get() + 1);
        world.spawn(async move {
            let to = at("10.1.0.1:80");
            let outcomes = match sides.down {
                true => http2::ask_all(&net, &to, &asks, &mut rng, wanted).await,
                false => client::ask_all(&net, &to, &asks, &mut rng).await,
            };
            assert_eq!(outcomes.len(), asks.len());
            results.borrow_mut().extend(asks.into_iter().zip(outcomes));
            left.set(left.get() - 1);
        });
    }
    rig.run_until_zero(&left);
    for seen in rig.ledger.all() {
        let twice = seen.method == "POST" && rig.ledger.count(seen.id) > 1;
        assert!(!twice, "a POST was sent twice: {seen:?}");
    }
    results.take()
}

#[test]
fn every_stream_is_answered_once_and_unchanged() {
    check(300, |world| {
        let sides = sides(world);
        let rig = start(world, sides);
        for (ask, outcome) in run_clients(&rig, sides, |_| {}, |_| true) {
            assert!(
                matches!(outcome, Outcome::Answered),
                "{outcome:?} to {ask:?}"
            );
            assert_eq!(rig.ledger.count(ask.id), 1, "{ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn whatever_endpoints_do_each_stream_gets_the_answer_or_sees_that_it_is_missing() {
    check(300, |world| {
        let sides = Sides {
            up: true,
            ..sides(world)
        };
        let rig = start(world, sides);
        let rng = RefCell::new(world.rng(2));
        let behaviour = |ask: &mut ScriptedRequest| {
            ask.answer.behaviour = Behaviour::ALL[rng.borrow_mut().below(Behaviour::ALL.len())];
        };
        let results = run_clients(&rig, sides, behaviour, |_| true);
        let after_early = |ask: &ScriptedRequest| {
            let mut asks = results.iter().map(|(ask, _)| ask);
            let behaviours = [Behaviour::Early, Behaviour::Stall];
            asks.any(|before| {
                before.id + 1 == ask.id && behaviours.contains(&before.answer.behaviour)
            })
        };
        for (ask, outcome) in &results {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let is_bodiless = ask.method == "HEAD"
                || ask.answer.len == 0
                || matches!(ask.answer.status, 204 | 304);
            let right = match (outcome, ask.answer.behaviour) {
                // An HTTP/1.1 connection closed because its last request was answered before it was read in full, or
                // its last answer lacked only its end.
                (Outcome::Lost(_), _) if seen == 0 && after_early(ask) => !sides.down,
                (Outcome::Refused(502, why), Behaviour::CloseBefore | Behaviour::ResetBefore) => {
                    why == "upstream_closed"
                }
                // Which of the two depends on whether the windows had room for the request.
                (Outcome::Refused(504, why), Behaviour::Silent) => {
                    ["first_byte_timeout", "upstream_not_reading"].contains(&&**why)
                }
                (_, Behaviour::CloseBefore | Behaviour::ResetBefore | Behaviour::Silent) => false,
                (
                    Outcome::Answered,
                    Behaviour::CloseWithin | Behaviour::ResetWithin | Behaviour::Stall,
                ) => is_bodiless,
                (Outcome::Answered, _) => true,
                (outcome, Behaviour::CloseWithin | Behaviour::ResetWithin) => match outcome {
                    // The reset overtook the head of the answer.
                    Outcome::Refused(502, why) => {
                        why == "upstream_closed" || why == "response_truncated"
                    }
                    Outcome::Truncated | Outcome::Lost(_) => true,
                    _ => false,
                },
                (Outcome::Truncated | Outcome::Lost(_), Behaviour::Stall) => true,
                _ => false,
            };
            assert!(right, "{outcome:?}, seen {seen} times: {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_network_that_breaks_shared_connections_is_not_hidden_and_not_made_worse() {
    check(300, |world| {
        let sides = Sides {
            up: true,
            ..sides(world)
        };
        let rig = start(world, sides);
        for address in ENDPOINTS {
            world.set_faults_at(&at(address), |faults| faults.reset_permille = 10);
        }
        for (ask, outcome) in run_clients(&rig, sides, |_| {}, |_| true) {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let right = match &outcome {
                Outcome::Answered | Outcome::Truncated | Outcome::Lost(_) => true,
                Outcome::Refused(status, why) => {
                    let known = ["upstream_closed", "response_truncated", "connect_failed"];
                    *status == 502 && known.contains(&&**why)
                }
                Outcome::Unauthorized | Outcome::Preflight => false,
            };
            assert!(right, "{outcome:?}, seen {seen} times: {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_network_that_breaks_connections_of_clients_takes_their_streams_and_no_others() {
    check(300, |world| {
        world.set_faults_at(&at("10.1.0.1:80"), |faults| faults.reset_permille = 10);
        let sides = Sides {
            down: true,
            ..sides(world)
        };
        let rig = start(world, sides);
        for (ask, outcome) in run_clients(&rig, sides, |_| {}, |_| true) {
            assert!(
                !matches!(outcome, Outcome::Refused(..)),
                "{outcome:?} to {ask:?}"
            );
            assert!(rig.ledger.count(ask.id) <= 1, "{ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn streams_that_their_client_resets_take_nothing_from_the_others() {
    check(300, |world| {
        let sides = Sides {
            down: true,
            ..sides(world)
        };
        let rig = start(world, sides);
        let wanted = |ask: &ScriptedRequest| !ask.id.is_multiple_of(3);
        for (ask, outcome) in run_clients(&rig, sides, |_| {}, wanted) {
            let right = match outcome {
                Outcome::Answered => true,
                Outcome::Truncated => !wanted(&ask),
                _ => false,
            };
            assert!(right, "{outcome:?} to {ask:?}");
            assert!(rig.ledger.count(ask.id) <= 1, "{ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn streams_that_have_begun_are_finished_while_a_core_drains() {
    check(200, |world| {
        let sides = Sides {
            down: true,
            ..sides(world)
        };
        let rig = start(world, sides);
        let results = Rc::new(RefCell::new(Vec::new()));
        let mut rng = world.rng(1);
        let asks: Vec<_> = (0..20)
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        let (net, seen) = (world.client(), results.clone());
        world.spawn(async move {
            let outcomes =
                http2::ask_all(&net, &at("10.1.0.1:80"), &asks, &mut rng, |_| true).await;
            seen.borrow_mut().extend(asks.into_iter().zip(outcomes));
        });
        world.run_for(Duration::from_millis(world.rng(5).below(60) as u64));
        rig.drain(Duration::from_secs(30));
        world.run_until(|| results.borrow().len() == 20);
        for (ask, outcome) in results.take() {
            // Some requests were never sent.
            let was_sent = rig.ledger.count(ask.id) > 0;
            let right = match outcome {
                Outcome::Answered => was_sent,
                Outcome::Lost(_) => !was_sent,
                _ => false,
            };
            assert!(right, "{outcome:?} to {ask:?}");
        }
    });
}

/// The window opens one byte at a time. All bytes arrive, most of them in frames with other bytes.
#[test]
fn windows_that_open_by_a_byte_are_waited_for() {
    const BYTES: usize = 300;
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head, payload].concat()
    };
    check(20, |world| {
        let config = format!(
            "[listen.\"10.1.0.1:80\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"{}\"\n",
            "x".repeat(BYTES)
        );
        let rig = Rig::start(world, 1, &config);
        let (net, left) = (world.client(), Rc::new(Cell::new(1)));
        let done = left.clone();
        world.spawn(async move {
            let mut peer = Peer::connect(&net, &at("10.1.0.1:80")).await.unwrap();
            // GET http://a/ with a window of one byte.
            let begins = [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]),
                frame(4, 1, 0, &[]),
                frame(1, 5, 1, b"\x82\x86\x84\x01\x01a"),
            ];
            peer.send(&begins.concat()).await.unwrap();
            let began = net.now();
            for _ in 1..BYTES {
                net.sleep_until(net.now() + Duration::from_millis(1)).await;
                peer.send(&frame(8, 0, 1, &[0, 0, 0, 1])).await.unwrap();
            }
            let (mut frames, mut bytes, mut ended) = (0, 0, false);
            while !ended {
                let head = peer.read_exact(9).await.unwrap();
                let payload = peer.read_exact(usize::from(head[2])).await.unwrap();
                if head[3] == 0 {
                    (frames, bytes) = (frames + 1, bytes + payload.len());
                    ended = head[4] & 1 != 0;
                }
            }
            assert_eq!(bytes, BYTES);
            let took = net.now().since(began).as_millis() as u64;
            assert!(
                frames <= took / H2_TINY_WINDOW_MS + 2,
                "{frames} in {took} ms"
            );
            done.set(0);
        });
        rig.run_until_zero(&left);
        rig.drain(Duration::from_secs(30));
    });
}
