//! HTTP/2 on both sides and on either, in a world where endpoints misbehave and the network breaks: many streams on
//! few connections, each answered once, unchanged, or visibly not.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Ask, Outcome};
use sim::endpoint::Twist;
use sim::message::Framing;
use sim::{Rig, check, client, http2};
use weir::io::Net;
use weir::io::sim::{Peer, World, at};
use weir::limits::H2_TINY_WINDOW_MS;

const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

/// How often an endpoint may see a request that may be repeated: over a connection that was dead, and as often as the
/// configuration says.
const SEEN_MAX: usize = 1 + 1 + RETRIES;
const RETRIES: usize = 3;

/// What is spoken on the two sides; at least one of them has HTTP/2.
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

/// Runs some clients with drawn requests, changed by `twist`, and returns what became of each.
fn run_clients(
    rig: &Rig<'_>,
    sides: Sides,
    twist: impl Fn(&mut Ask),
    wanted: impl Fn(&Ask) -> bool + Copy + 'static,
) -> Vec<(Ask, Outcome)> {
    let world = rig.world;
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let results = Rc::new(RefCell::new(Vec::new()));
    for one in 0..rng.between(1, 3) as u64 {
        let ids = (one * 100..).take(rng.between(1, 25));
        let mut asks: Vec<_> = ids.map(|id| Ask::drawn(id, &mut rng)).collect();
        asks.iter_mut().for_each(&twist);
        if sides.up {
            // There it is no framing of its own.
            let closes = |ask: &&mut Ask| ask.answer.framing == Framing::Close;
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
    rig.run_down(&left);
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
        let twist = |ask: &mut Ask| {
            ask.answer.twist = Twist::ALL[rng.borrow_mut().below(Twist::ALL.len())];
        };
        let results = run_clients(&rig, sides, twist, |_| true);
        let after_early = |ask: &Ask| {
            let mut asks = results.iter().map(|(ask, _)| ask);
            let twists = [Twist::Early, Twist::Stall];
            asks.any(|before| before.id + 1 == ask.id && twists.contains(&before.answer.twist))
        };
        for (ask, outcome) in &results {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let is_bodiless = ask.method == "HEAD"
                || ask.answer.len == 0
                || matches!(ask.answer.status, 204 | 304);
            let right = match (outcome, ask.answer.twist) {
                // It met the end of a connection of HTTP/1.1 whose last request was answered before it was read in full,
                // or whose last answer was all there but for its end.
                (Outcome::Lost(_), _) if seen == 0 && after_early(ask) => !sides.down,
                (Outcome::Refused(502, why), Twist::CloseBefore | Twist::ResetBefore) => {
                    why == "upstream_closed"
                }
                // Which of them depends on whether its windows had room for the request.
                (Outcome::Refused(504, why), Twist::Silent) => {
                    ["first_byte_timeout", "upstream_not_reading"].contains(&&**why)
                }
                (_, Twist::CloseBefore | Twist::ResetBefore | Twist::Silent) => false,
                (Outcome::Answered, Twist::CloseWithin | Twist::ResetWithin | Twist::Stall) => {
                    is_bodiless
                }
                (Outcome::Answered, _) => true,
                (outcome, Twist::CloseWithin | Twist::ResetWithin) => match outcome {
                    // The reset overtook the answer's head.
                    Outcome::Refused(502, why) => {
                        why == "upstream_closed" || why == "response_truncated"
                    }
                    Outcome::Truncated | Outcome::Lost(_) => true,
                    _ => false,
                },
                (Outcome::Truncated | Outcome::Lost(_), Twist::Stall) => true,
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
        let wanted = |ask: &Ask| !ask.id.is_multiple_of(3);
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
        let asks: Vec<_> = (0..20).map(|id| Ask::drawn(id, &mut rng)).collect();
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
            // Some were not sent any more.
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

/// One byte after the other is let through. All arrive, and few are a frame of their own.
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
        rig.run_down(&left);
        rig.drain(Duration::from_secs(30));
    });
}
