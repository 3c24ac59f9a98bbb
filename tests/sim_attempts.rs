//! Retries, hedges and breakers while an endpoint misbehaves at random: what a retry may save is saved, and nothing is
//! sent twice that must not be.
#![allow(clippy::expect_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::message::Head;
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Peer, Reach, Sim, World, at};

const GOOD: [&str; 2] = ["10.2.0.2:8080", "10.2.0.3:8080"];
const BAD: &str = "10.2.0.1:8080";

fn config(retries: &str, upstream: &str) -> String {
    format!(
        r#"
[listen."10.1.0.1:80"]
[timeouts]
first_byte = "1s"
[upstream.app]
servers = ["{BAD}", "{}", "{}"]
retries = {{ budget_min = 100000, {retries} }}
{upstream}
[[route]]
match = "/*"
to = "app"
"#,
        GOOD[0], GOOD[1]
    )
}

/// How the bad endpoint deals with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misbehaviour {
    Busy,
    BusyForSeconds,
    Garbage,
    TruncatedHead,
    Hanging,
    Closing,
    Resetting,
    Refusing,
    BlackHole,
}

const ALL: [Misbehaviour; 9] = [
    Misbehaviour::Busy,
    Misbehaviour::BusyForSeconds,
    Misbehaviour::Garbage,
    Misbehaviour::TruncatedHead,
    Misbehaviour::Hanging,
    Misbehaviour::Closing,
    Misbehaviour::Resetting,
    Misbehaviour::Refusing,
    Misbehaviour::BlackHole,
];

/// How often the bad endpoint has received each request.
type Seen = Rc<RefCell<HashMap<u64, usize>>>;

async fn misbehave(mut peer: Peer<Sim>, how: Misbehaviour, seen: Seen) {
    while let Some(head) = Head::read(&mut peer).await {
        let id = head.get("x-id").expect("an id").parse().expect("a number");
        *seen.borrow_mut().entry(id).or_default() += 1;
        // A POST gets no answer that its client would take for that of the good endpoint.
        let is_post = head.line.starts_with("POST");
        let answer = match how {
            Misbehaviour::Busy if !is_post => "HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nbusy",
            Misbehaviour::BusyForSeconds if !is_post => {
                "HTTP/1.1 503 x\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"
            }
            Misbehaviour::TruncatedHead => "HTTP/1.1 200 OK\r\nContent-Le",
            Misbehaviour::Hanging => {
                while let Ok(Some(_)) = peer.recv().await {}
                return;
            }
            Misbehaviour::Closing => return,
            Misbehaviour::Resetting => return peer.reset(),
            _ => "nothing like HTTP\r\n\r\n",
        };
        let _ = peer.send(answer.as_bytes()).await;
        let has_body = is_post || head.line.starts_with("PUT");
        if has_body || !answer.contains("503") {
            // The rest of the request is read, so that closing does not reset the answer away.
            peer.finish();
            while let Ok(Some(_)) = peer.recv().await {}
            return;
        }
    }
}

/// Starts a rig whose first endpoint misbehaves.
fn start<'w>(world: &'w World, config: &str, how: Misbehaviour) -> (Rig<'w>, Seen) {
    let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, config);
    for address in GOOD {
        rig.ledger.endpoint(world, address);
    }
    let seen = Seen::default();
    let shared = seen.clone();
    world.endpoint(&at(BAD), move |peer| misbehave(peer, how, shared.clone()));
    match how {
        Misbehaviour::Refusing => world.set_reach(&at(BAD), Reach::Refused),
        Misbehaviour::BlackHole => world.set_reach(&at(BAD), Reach::BlackHole),
        _ => {}
    }
    (rig, seen)
}

/// Sends random requests whose bodies are short enough to be repeated. Returns each with its outcome.
fn run_clients(rig: &Rig<'_>) -> Vec<(ScriptedRequest, Outcome, Duration)> {
    let world = rig.world;
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let results = Rc::new(RefCell::new(Vec::new()));
    for client in 0..rng.between(1, 4) as u64 {
        let ids = (client * 100..).take(rng.between(1, 6));
        let mut asks: Vec<_> = ids
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        for ask in &mut asks {
            ask.len %= 20_000;
        }
        let (net, left, results) = (world.client(), left.clone(), results.clone());
        let mut rng = rng.fork();
        left.set(left.get() + 1);
        world.spawn(async move {
            for ask in asks {
                let began = net.now();
                let outcomes = ask_all(
                    &net,
                    &at("10.1.0.1:80"),
                    std::slice::from_ref(&ask),
                    &mut rng,
                )
                .await;
                let took = net.now().since(began);
                let outcome = outcomes.into_iter().next().expect("one outcome");
                results.borrow_mut().push((ask, outcome, took));
            }
            left.set(left.get() - 1);
        });
    }
    rig.run_until_zero(&left);
    results.take()
}

/// Checks that no POST was sent twice and no request more than `max` times.
fn check_counts(rig: &Rig<'_>, seen: &Seen, ask: &ScriptedRequest, max: usize) {
    let bad = seen.borrow().get(&ask.id).copied().unwrap_or_default();
    let count = rig.ledger.count(ask.id) + bad;
    let max = if ask.is_idempotent() { max } else { 1 };
    assert!(count <= max, "sent {count} times: {ask:?}");
}

/// Checks that the request was answered, or that a retry could not save it.
fn check_outcome(how: Misbehaviour, ask: &ScriptedRequest, outcome: &Outcome) {
    let is_right = match outcome {
        Outcome::Answered => true,
        Outcome::Refused(..) => !ask.is_idempotent(),
        _ => false,
    };
    assert!(is_right, "{how:?}: {outcome:?} to {ask:?}");
}

#[test]
fn one_bad_endpoint_fails_no_request_that_a_retry_may_save() {
    check(400, |world| {
        let how = ALL[world.rng(5).below(ALL.len())];
        let rules = "count = 2, on = \"connect,reset,timeout,invalid,503\"";
        let (rig, seen) = start(world, &config(rules, ""), how);
        for (ask, outcome, _) in run_clients(&rig) {
            // Over a dead idle connection, and then once at each endpoint.
            check_counts(&rig, &seen, &ask, 4);
            check_outcome(how, &ask, &outcome);
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_hedge_hides_an_endpoint_that_hangs_and_sends_no_post_twice() {
    check(400, |world| {
        let how = match world.rng(5).below(3) {
            0 => ALL[world.rng(6).below(ALL.len())],
            _ => Misbehaviour::Hanging,
        };
        let rules = "count = 2, hedge = \"50ms\", on = \"connect,reset,invalid,503\"";
        let (rig, seen) = start(world, &config(rules, ""), how);
        for (ask, outcome, took) in run_clients(&rig) {
            check_counts(&rig, &seen, &ask, 4);
            check_outcome(how, &ask, &outcome);
            if how == Misbehaviour::Hanging && ask.is_idempotent() {
                assert!(took < Duration::from_millis(900), "{took:?}: {ask:?}");
            }
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn retries_stay_within_their_budget() {
    check(100, |world| {
        let text = config("count = 2, budget = \"20%\", backoff = \"1ms\"", "")
            .replace("budget_min = 100000", "budget_min = 2");
        // All three endpoints close each connection.
        let rig = Rig::start(world, 1, &text);
        let sent = Rc::new(Cell::new(0));
        for address in [BAD, GOOD[0], GOOD[1]] {
            let sent = sent.clone();
            world.endpoint(&at(address), move |mut peer| {
                let sent = sent.clone();
                async move {
                    if Head::read(&mut peer).await.is_some() {
                        sent.set(sent.get() + 1);
                    }
                }
            });
        }
        let asks: Vec<_> = (0..40).map(|id| ScriptedRequest::get(id, 0)).collect();
        let (net, mut rng) = (world.client(), world.rng(3));
        let done = Rc::new(Cell::new(1));
        let left = done.clone();
        world.spawn(async move {
            ask_all(&net, &at("10.1.0.1:80"), &asks, &mut rng).await;
            left.set(0);
        });
        rig.run_until_zero(&done);
        let sent = sent.get();
        assert!(
            (42..=48).contains(&sent),
            "{sent} requests were sent for 40"
        );
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_breaker_opens_on_all_cores_and_closes_again() {
    check(100, |world| {
        let text = config(
            "count = 0",
            "breaker = { min_requests = 10, open_for = \"2s\" }",
        );
        let rig = Rig::start(world, 2, &text);
        let is_failing = Rc::new(Cell::new(true));
        for address in [BAD, GOOD[0], GOOD[1]] {
            let is_failing = is_failing.clone();
            world.endpoint(&at(address), move |mut peer| {
                let is_failing = is_failing.clone();
                async move {
                    while let Some(head) = Head::read(&mut peer).await {
                        if is_failing.get() {
                            return;
                        }
                        let id = head.get("x-id").expect("an id");
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Length: 0\r\nContent-Length: 0\r\n\r\n"
                        );
                        let _ = peer.send(answer.as_bytes()).await;
                    }
                }
            });
        }
        let done = Rc::new(Cell::new(1));
        let (net, mut rng, left) = (world.client(), world.rng(3), done.clone());
        world.spawn(async move {
            let mut ask = async |id| {
                let mut ask = ScriptedRequest::get(id, 0);
                ask.answer.len = 0;
                let outcomes = ask_all(&net, &at("10.1.0.1:80"), &[ask], &mut rng).await;
                outcomes.into_iter().next().expect("one outcome")
            };
            let is_open = |outcome: &Outcome| {
                matches!(outcome, Outcome::Refused(503, why) if why == "circuit_open")
            };
            for id in 0..10 {
                assert!(!is_open(&ask(id).await), "request {id}");
            }
            // Each is on a connection of its own, so the cores take turns.
            for id in 10..30 {
                assert!(is_open(&ask(id).await), "request {id}");
            }
            is_failing.set(false);
            net.sleep_until(net.now() + Duration::from_secs(2)).await;
            for id in 30..50 {
                let outcome = ask(id).await;
                assert!(matches!(outcome, Outcome::Answered), "{id}: {outcome:?}");
            }
            left.set(0);
        });
        rig.run_until_zero(&done);
        rig.drain(Duration::from_secs(30));
    });
}
