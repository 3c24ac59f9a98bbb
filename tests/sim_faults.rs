//! Proxying in a world where endpoints misbehave and the network breaks. What cannot be had is said; nothing is made
//! up, nothing is asked twice that must not be, and nothing that can be had is lost.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Ask, Outcome, ask_all};
use sim::endpoint::Twist;
use sim::message::Framing;
use sim::{Rig, check};
use weir::io::sim::{End, Reach, World, at};

const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
[timeouts]
first_byte = "5s"
body_stall = "5s"
[upstream]
app = ["10.2.0.1:8080", "10.2.0.2:8080"]
[[route]]
match = "/*"
to = "app"
"#;

const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

/// How often an endpoint may see a request that may be repeated: over a connection that had waited and was dead, then
/// over a fresh one, and once more because one retry is the default.
const SEEN_MAX: usize = 3;

/// Runs some clients with drawn requests, changed by `twist`, and returns what became of each.
fn run_clients(rig: &Rig<'_>, twist: impl Fn(&mut Ask)) -> Vec<(Ask, Outcome)> {
    let world = rig.world;
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let results = Rc::new(RefCell::new(Vec::new()));
    for client in 0..rng.between(1, 4) as u64 {
        let ids = (client * 100..).take(rng.between(1, 6));
        let mut asks: Vec<_> = ids.map(|id| Ask::drawn(id, &mut rng)).collect();
        asks.iter_mut().for_each(&twist);
        let (net, left, results) = (world.client(), left.clone(), results.clone());
        let mut rng = rng.fork();
        left.set(left.get() + 1);
        world.spawn(async move {
            let outcomes = ask_all(&net, &at("10.1.0.1:80"), &asks, &mut rng).await;
            results.borrow_mut().extend(asks.into_iter().zip(outcomes));
            left.set(left.get() - 1);
        });
    }
    rig.run_down(&left);
    for id in rig.ledger.all() {
        let twice = id.method == "POST" && rig.ledger.count(id.id) > 1;
        assert!(!twice, "a POST was sent twice: {id:?}");
    }
    results.take()
}

fn start(world: &World) -> Rig<'_> {
    let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, CONFIG);
    for address in ENDPOINTS {
        rig.ledger.endpoint(world, address);
    }
    rig
}

#[test]
fn whatever_endpoints_do_clients_get_the_answer_or_see_that_it_is_missing() {
    check(400, |world| {
        let rig = start(world);
        let mut rng = world.rng(2);
        let rng = RefCell::new(rng.fork());
        let results = run_clients(&rig, |ask| {
            ask.answer.twist = Twist::ALL[rng.borrow_mut().below(Twist::ALL.len())];
            // An answer that ends with the connection has no other end: cut in an orderly way, it is whole.
            if ask.answer.twist == Twist::CloseWithin && ask.answer.framing == Framing::Close {
                ask.answer.twist = Twist::ResetWithin;
            }
        });
        let after_early = |ask: &Ask| {
            let mut asks = results.iter().map(|(ask, _)| ask);
            asks.any(|before| before.id + 1 == ask.id && before.answer.twist == Twist::Early)
        };
        for (ask, outcome) in &results {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let right = match outcome {
                Outcome::Answered => !matches!(
                    ask.answer.twist,
                    Twist::CloseBefore | Twist::ResetBefore | Twist::Silent
                ),
                Outcome::Truncated => matches!(
                    ask.answer.twist,
                    Twist::CloseWithin | Twist::ResetWithin | Twist::Stall
                ),
                Outcome::Refused(504, why) => {
                    ask.answer.twist == Twist::Silent && why == "first_byte_timeout"
                }
                Outcome::Refused(502, why) => match ask.answer.twist {
                    Twist::CloseBefore | Twist::ResetBefore => why == "upstream_closed",
                    // The reset overtook the answer's head.
                    Twist::ResetWithin => true,
                    // It met the end of a connection that was kept from the request before. Whether it was read
                    // there nobody knows.
                    _ => !ask.is_idempotent() && seen == 0 && why == "upstream_closed",
                },
                // It met the end of a connection whose last request was answered before it was read in full.
                Outcome::Lost(_) if seen == 0 && after_early(ask) => true,
                Outcome::Lost(end) => {
                    let within = [Twist::CloseWithin, Twist::ResetWithin];
                    *end != End::Orderly && within.contains(&ask.answer.twist)
                }
                Outcome::Refused(..) => false,
            };
            assert!(right, "{outcome:?}, seen {seen} times: {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn requests_go_to_the_next_endpoint_when_one_cannot_be_reached() {
    check(300, |world| {
        let rig = start(world);
        let down = at(ENDPOINTS[world.rng(3).below(2)]);
        match world.rng(4).below(3) {
            0 => world.set_reach(&down, Reach::Refused),
            1 => world.set_reach(&down, Reach::BlackHole),
            _ => world.set_reach(&down, Reach::Slow(Duration::from_secs(10))),
        }
        for (ask, outcome) in run_clients(&rig, |_| {}) {
            assert!(
                matches!(outcome, Outcome::Answered),
                "{outcome:?} to {ask:?}"
            );
            assert_eq!(rig.ledger.count(ask.id), 1);
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn an_upstream_that_is_down_is_said_to_be() {
    check(100, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        for (ask, outcome) in run_clients(&rig, |_| {}) {
            let said = matches!(&outcome, Outcome::Refused(502, why) if why == "connect_failed");
            assert!(said, "{outcome:?} to {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn connections_that_their_endpoint_closes_while_they_wait_cost_no_request() {
    check(300, |world| {
        let rig = start(world);
        let rng = RefCell::new(world.rng(2));
        let results = run_clients(&rig, |ask| {
            if rng.borrow_mut().chance(500) {
                ask.answer.twist = Twist::CloseSilently;
            }
            if ask.method == "POST" {
                ask.method = "PUT";
            }
        });
        for (ask, outcome) in results {
            assert!(
                matches!(outcome, Outcome::Answered),
                "{outcome:?} to {ask:?}"
            );
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_network_that_breaks_connections_upstream_is_not_hidden_and_not_made_worse() {
    check(400, |world| {
        let rig = start(world);
        for address in ENDPOINTS {
            world.set_faults_at(&at(address), |faults| faults.reset_permille = 15);
        }
        for (ask, outcome) in run_clients(&rig, |_| {}) {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let right = match &outcome {
                Outcome::Answered | Outcome::Truncated => true,
                Outcome::Refused(status, why) => {
                    *status == 502 && matches!(&**why, "upstream_closed" | "response_truncated")
                }
                // The answer had begun, though nothing of it was sent yet.
                Outcome::Lost(end) => *end != End::Orderly,
            };
            assert!(right, "{outcome:?}, seen {seen} times: {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_network_that_breaks_connections_of_clients_leaves_nothing_behind() {
    check(400, |world| {
        world.set_faults_at(&at("10.1.0.1:80"), |faults| faults.reset_permille = 15);
        let rig = start(world);
        for (ask, outcome) in run_clients(&rig, |_| {}) {
            assert!(
                !matches!(outcome, Outcome::Refused(..)),
                "{outcome:?} to {ask:?}"
            );
            assert!(rig.ledger.count(ask.id) <= 1, "{ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}
