//! Endpoints misbehave and the network breaks. Weir reports every failure, invents nothing, repeats nothing that must
//! not be repeated, and fails no request that it can serve.

mod sim;

use std::cell::RefCell;
use std::time::Duration;

use sim::client::{ClientRun, Outcome, ScriptedRequest};
use sim::endpoint::Behaviour;
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

/// How often an endpoint may receive a repeatable request: over a dead idle connection, over a fresh one, and once more
/// because `retries` defaults to one.
const SEEN_MAX: usize = 3;

/// Runs clients with random requests, changed by `change`, and returns the outcome of each.
fn run_clients(
    rig: &Rig<'_>,
    change: impl Fn(&mut ScriptedRequest),
) -> Vec<(ScriptedRequest, Outcome)> {
    let run = ClientRun::default();
    run.start_random(rig.world, "10.1.0.1:80", &mut rig.world.rng(1), change);
    let results = run.wait(rig.world);
    for id in rig.ledger.all() {
        let twice = id.method == "POST" && rig.ledger.count(id.id) > 1;
        assert!(!twice, "a POST was sent twice: {id:?}");
    }
    results
}

fn start(world: &World) -> Rig<'_> {
    let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, CONFIG);
    for address in ENDPOINTS {
        rig.ledger.endpoint(world, address);
    }
    rig
}

#[test]
fn clients_get_the_whole_answer_or_see_that_it_is_incomplete() {
    check(400, |world| {
        let rig = start(world);
        let mut rng = world.rng(2);
        let rng = RefCell::new(rng.fork());
        let results = run_clients(&rig, |ask| {
            ask.answer.behaviour = Behaviour::ALL[rng.borrow_mut().below(Behaviour::ALL.len())];
            // An answer without a length ends with its connection, so an orderly close makes it complete.
            if ask.answer.behaviour == Behaviour::CloseWithin
                && ask.answer.framing == Framing::Close
            {
                ask.answer.behaviour = Behaviour::ResetWithin;
            }
        });
        let after_early = |ask: &ScriptedRequest| {
            let mut asks = results.iter().map(|(ask, _)| ask);
            asks.any(|before| {
                before.id + 1 == ask.id && before.answer.behaviour == Behaviour::Early
            })
        };
        for (ask, outcome) in &results {
            let seen = rig.ledger.count(ask.id);
            assert!(seen <= SEEN_MAX, "{seen} times: {ask:?}");
            let right = match outcome {
                Outcome::Answered => !matches!(
                    ask.answer.behaviour,
                    Behaviour::CloseBefore | Behaviour::ResetBefore | Behaviour::Silent
                ),
                Outcome::Truncated => matches!(
                    ask.answer.behaviour,
                    Behaviour::CloseWithin | Behaviour::ResetWithin | Behaviour::Stall
                ),
                Outcome::Refused(504, why) => {
                    ask.answer.behaviour == Behaviour::Silent && why == "first_byte_timeout"
                }
                Outcome::Refused(502, why) => match ask.answer.behaviour {
                    Behaviour::CloseBefore | Behaviour::ResetBefore => why == "upstream_closed",
                    // The reset overtook the head of the answer.
                    Behaviour::ResetWithin => true,
                    // The request was sent just as an idle connection closed. Weir cannot know whether the endpoint
                    // read it.
                    _ => !ask.is_idempotent() && seen == 0 && why == "upstream_closed",
                },
                // The connection closed because its last request was answered before it was read in full.
                Outcome::Lost(_) if seen == 0 && after_early(ask) => true,
                Outcome::Lost(end) => {
                    let within = [Behaviour::CloseWithin, Behaviour::ResetWithin];
                    *end != End::Orderly && within.contains(&ask.answer.behaviour)
                }
                _ => false,
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
fn an_unreachable_upstream_is_reported() {
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
fn an_idle_connection_that_its_endpoint_closes_costs_no_request() {
    check(300, |world| {
        let rig = start(world);
        let rng = RefCell::new(world.rng(2));
        let results = run_clients(&rig, |ask| {
            if rng.borrow_mut().chance(500) {
                ask.answer.behaviour = Behaviour::CloseSilently;
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
fn broken_upstream_connections_are_reported() {
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
                // The answer had begun, though the client had not yet received any of it.
                Outcome::Lost(end) => *end != End::Orderly,
                _ => false,
            };
            assert!(right, "{outcome:?}, seen {seen} times: {ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn broken_client_connections_leave_nothing_behind() {
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
