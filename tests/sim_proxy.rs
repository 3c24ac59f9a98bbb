//! Proxying without failures, under random timing, order and sizes: every request is answered once, byte for byte.

mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all, pipeline};
use sim::endpoint::Behaviour;
use sim::{Rig, check};
use weir::io::sim::{World, at};

const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
[upstream]
app = ["10.2.0.1:8080", "10.2.0.2:8080"]
[[route]]
match = "/*"
to = "app"
"#;

#[test]
fn every_request_is_answered_once_and_unchanged() {
    check(300, |world| {
        let cores = 1 + (world.seed() % 3) as u32;
        let rig = Rig::start(world, cores, CONFIG);
        let endpoints = ["10.2.0.1:8080", "10.2.0.2:8080"].map(|a| rig.ledger.endpoint(world, a));
        let asks = run_clients(world, &rig, false);
        for ask in &asks {
            assert_eq!(rig.ledger.count(ask.id), 1, "{ask:?}");
        }
        let accepted: usize = endpoints.iter().map(|endpoint| endpoint.accepted()).sum();
        assert!(accepted <= asks.len());
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    check(300, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        for address in ["10.2.0.1:8080", "10.2.0.2:8080"] {
            rig.ledger.endpoint(world, address);
        }
        for ask in run_clients(world, &rig, true) {
            assert_eq!(rig.ledger.count(ask.id), 1, "{ask:?}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

/// A few clients with a few requests each, all of which must be answered.
fn run_clients(world: &World, rig: &Rig<'_>, pipelined: bool) -> Vec<ScriptedRequest> {
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let mut all = Vec::new();
    for client in 0..rng.between(1, 4) as u64 {
        let mut ids = (client * 100..).take(rng.between(1, 6));
        let asks: Vec<_> = ids
            .by_ref()
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        all.extend(asks.iter().cloned());
        let (net, left, mut rng) = (world.client(), left.clone(), rng.fork());
        left.set(left.get() + 1);
        world.spawn(async move {
            let to = at("10.1.0.1:80");
            let outcomes = match pipelined {
                true => pipeline(&net, &to, &asks, &mut rng).await,
                false => ask_all(&net, &to, &asks, &mut rng).await,
            };
            assert_eq!(outcomes.len(), asks.len());
            for (outcome, ask) in outcomes.iter().zip(&asks) {
                assert!(
                    matches!(outcome, Outcome::Answered),
                    "{outcome:?} to {ask:?}"
                );
            }
            left.set(left.get() - 1);
        });
    }
    rig.run_until_zero(&left);
    all
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    check(200, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        for address in ["10.2.0.1:8080", "10.2.0.2:8080"] {
            rig.ledger.endpoint(world, address);
        }
        let mut rng = world.rng(1);
        let mut ask = ScriptedRequest::random(1, &mut rng);
        ask.method = "POST";
        ask.framing = sim::message::Framing::Length;
        ask.len = rng.between(1, 2_000_000);
        ask.answer.behaviour = Behaviour::Early;
        let net = world.client();
        let asks = vec![ask];
        world.run(async move {
            let outcomes = ask_all(&net, &at("10.1.0.1:80"), &asks, &mut rng).await;
            assert!(matches!(outcomes[..], [Outcome::Answered]), "{outcomes:?}");
        });
        assert_eq!(rig.ledger.count(1), 1);
        rig.drain(Duration::from_secs(30));
    });
}
