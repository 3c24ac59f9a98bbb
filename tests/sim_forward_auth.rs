//! `forward_auth` while authorization servers misbehave, clients leave, and cores reload and drain: no request passes
//! without a verdict, a refusal arrives as the server sent it, and nothing is left behind.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::auth::{AUTHS, passes, start_auths};
use sim::client::{ClientRun, Outcome, ScriptedRequest};
use sim::endpoint::Behaviour;
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{Peer, Rng, World, at};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINT: &str = "10.2.0.1:8080";

fn config(keys: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[timeouts]\nfirst_byte = \"5s\"\nbody_stall = \"5s\"\n\
         [upstream]\napp = [\"{ENDPOINT}\"]\nauth = [\"{}\", \"{}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n\
         forward_auth = {{ to = \"auth\", copy_to_request = \"Remote-User\", timeout = \"3s\"{keys} }}\n",
        AUTHS[0], AUTHS[1]
    )
}

/// Starts clients with random requests.
fn start_clients(rig: &Rig<'_>, rng: &mut Rng) -> ClientRun {
    let run = ClientRun::default();
    run.start_random(rig.world, FRONT, rng, |_| {});
    run
}

/// Whether the request got the verdict of a server, and no other.
fn is_verdict(request: &ScriptedRequest, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered => passes(request.id),
        Outcome::Unauthorized => !passes(request.id),
        _ => false,
    }
}

fn start<'a>(world: &'a World, keys: &str) -> Rig<'a> {
    let rig = Rig::start(world, 1 + (world.seed() % 2) as u32, &config(keys));
    rig.ledger.endpoint(world, ENDPOINT);
    rig
}

#[track_caller]
fn assert_no_refused_request_passed(rig: &Rig<'_>) {
    let all = rig.ledger.all();
    let slipped = all.iter().find(|seen| !passes(seen.id));
    assert!(slipped.is_none(), "a refused request passed: {slipped:?}");
}

#[test]
fn each_request_gets_its_own_verdict() {
    check(200, |world| {
        start_auths(world, |_| Behaviour::None);
        let rig = start(world, "");
        let mut rng = world.rng(1);
        let clients = start_clients(&rig, &mut rng);
        for (request, outcome) in clients.wait(world) {
            assert!(is_verdict(&request, &outcome), "{outcome:?} to {request:?}");
        }
        assert_no_refused_request_passed(&rig);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_server_that_misbehaves_lets_nobody_pass_that_it_refuses() {
    check(400, |world| {
        start_auths(world, |rng| {
            [
                Behaviour::None,
                Behaviour::CloseBefore,
                Behaviour::ResetBefore,
                Behaviour::Silent,
                Behaviour::ResetWithin,
                Behaviour::Stall,
            ][rng.below(6)]
        });
        let keys = [", on_error = \"deny\"", ", on_error = \"allow\""][world.rng(3).below(2)];
        let fails_open = keys.contains("allow");
        let rig = start(world, keys);
        let mut rng = world.rng(1);
        let clients = start_clients(&rig, &mut rng);
        for (request, outcome) in clients.wait(world) {
            let seen = rig.ledger.count(request.id);
            let is_right = match &outcome {
                outcome if is_verdict(&request, outcome) => true,
                Outcome::Refused(503, why) => why == "auth_unavailable" && seen == 0,
                // The server gave no verdict, and the endpoint answered.
                _ => fails_open && seen > 0,
            };
            assert!(is_right, "{outcome:?}, seen {seen} times: {request:?}");
        }
        if !fails_open {
            assert_no_refused_request_passed(&rig);
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_client_that_leaves_takes_its_question_along() {
    check(100, |world| {
        start_auths(world, |_| Behaviour::Silent);
        let rig = start(world, "");
        let mut rng = world.rng(1);
        let left = Rc::new(Cell::new(0));
        for id in 0..rng.between(1, 8) as u64 {
            let request = ScriptedRequest::get(id, 0);
            let (net, left, mut rng) = (world.client(), left.clone(), rng.fork());
            left.set(left.get() + 1);
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                peer.write(&request.encode(&mut rng));
                let until = net.now() + Duration::from_millis(rng.below(500) as u64);
                net.sleep_until(until).await;
                peer.reset();
                left.set(left.get() - 1);
            });
        }
        rig.run_until_zero(&left);
        world.run_for(Duration::from_secs(1));
        let open: usize = (0..2).map(|core| world.open_connections(core)).sum();
        assert_eq!(open, 0, "questions of clients that have left");
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn reloads_do_not_disturb_questions() {
    check(100, |world| {
        start_auths(world, |_| Behaviour::None);
        let rig = start(world, ", cache = \"1s\"");
        let mut rng = world.rng(1);
        let clients = start_clients(&rig, &mut rng);
        for round in 0..rng.between(1, 6) {
            world.run_for(Duration::from_millis(rng.below(80) as u64));
            let keys = [", cache = \"1s\"", ", cache = \"2s\"", ""][round % 3];
            world.run(rig.reload(&config(keys)).all());
        }
        for (request, outcome) in clients.wait(world) {
            assert!(is_verdict(&request, &outcome), "{outcome:?} to {request:?}");
        }
        assert_no_refused_request_passed(&rig);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_drain_ends_questions_within_its_grace() {
    check(150, |world| {
        start_auths(world, |rng| {
            [Behaviour::None, Behaviour::Silent][rng.below(2)]
        });
        let rig = start(world, "");
        let mut rng = world.rng(1);
        let outcomes = Rc::new(RefCell::new(Vec::new()));
        for id in 0..rng.between(1, 8) as u64 {
            let request = ScriptedRequest::get(id, 0);
            let (net, outcomes, mut rng) = (world.client(), outcomes.clone(), rng.fork());
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                peer.write(&request.encode(&mut rng));
                let (outcome, _) = request.read(&mut peer).await;
                outcomes.borrow_mut().push(outcome);
            });
        }
        // Every request has arrived.
        world.run_for(Duration::from_millis(20));
        let grace = Duration::from_millis(rng.below(1_000) as u64);
        rig.drain(grace);
        world.run_for(grace + Duration::from_secs(3));
        for outcome in outcomes.take() {
            let is_right = match &outcome {
                Outcome::Refused(503, why) => why == "shutting_down",
                Outcome::Refused(..) | Outcome::Preflight => false,
                _ => true,
            };
            assert!(is_right, "{outcome:?}");
        }
        assert_no_refused_request_passed(&rig);
    });
}
