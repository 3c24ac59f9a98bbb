//! `forward_auth` while authorization servers misbehave, clients leave, and cores reload and drain: no request passes
//! without a verdict, a refusal arrives as the server sent it, and nothing is left behind.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::endpoint::Behaviour;
use sim::message::{Framing, Head, announce, body_of, frame};
use sim::{Rig, check};
use weir::io::sim::{Peer, Rng, Sim, World, at};
use weir::io::{Net, Tx};

const FRONT: &str = "10.1.0.1:80";
const AUTHS: [&str; 2] = ["10.3.0.1:9091", "10.3.0.2:9091"];
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

/// Whether the server lets a request pass.
fn passes(id: u64) -> bool {
    id.is_multiple_of(2)
}

/// Starts authorization servers that misbehave as `behave` says.
fn start_auths(world: &World, behave: fn(&mut Rng) -> Behaviour) {
    for address in AUTHS {
        let rng = Rc::new(RefCell::new(world.rng(7)));
        world.endpoint(&at(address), move |peer| serve(peer, rng.clone(), behave));
    }
}

async fn serve(mut peer: Peer<Sim>, rng: Rc<RefCell<Rng>>, behave: fn(&mut Rng) -> Behaviour) {
    let net = peer.net().clone();
    while let Some(head) = Head::read(&mut peer).await {
        assert_eq!(head.framing(Framing::None), Framing::None, "the body stays");
        let id = head.get("x-id").unwrap().parse::<u64>().unwrap();
        let mut rng = rng.borrow_mut().fork();
        let behaviour = behave(&mut rng);
        let pause = Duration::from_millis(rng.below(40) as u64);
        net.sleep_until(net.now() + pause).await;
        match behaviour {
            Behaviour::CloseBefore => return,
            Behaviour::ResetBefore => return peer.reset(),
            Behaviour::Silent => {
                peer.read_to_end().await;
                return;
            }
            _ => {}
        }
        let (status, len) = match passes(id) {
            true => (200, rng.below(2) * rng.size(400_000)),
            // The client expects the answer that its request scripts.
            false => (403, answer_len(&head)),
        };
        let framing = [Framing::Length, Framing::Chunked, Framing::Close][rng.below(3)];
        let mut wire = format!(
            "HTTP/1.1 {status} Whatever\r\nX-Id: {id}\r\nRemote-User: {id}\r\n{}",
            announce(framing, len)
        );
        if framing == Framing::Close {
            wire += "Connection: close\r\n";
        }
        let mut wire = (wire + "\r\n").into_bytes();
        let mut body = frame(framing, &body_of(id, true, len), &mut rng);
        if matches!(behaviour, Behaviour::ResetWithin | Behaviour::Stall) {
            body.truncate(rng.below(body.len().max(1)));
        }
        wire.extend_from_slice(&body);
        if peer.send(&wire).await.is_err() {
            return;
        }
        match behaviour {
            Behaviour::ResetWithin => return peer.tx.abort(),
            Behaviour::Stall => {
                peer.read_to_end().await;
                return;
            }
            _ if framing == Framing::Close => return,
            _ => {}
        }
    }
}

/// The length of the answer that the client expects.
fn answer_len(head: &Head) -> usize {
    let mut words = head.get("x-answer").unwrap().split(' ');
    words.nth(1).unwrap().parse().unwrap()
}

/// Random requests. The client expects the server's own answer where the server refuses.
fn draw(ids: impl Iterator<Item = u64>, rng: &mut Rng) -> Vec<ScriptedRequest> {
    let mut requests: Vec<_> = ids.map(|id| ScriptedRequest::random(id, rng)).collect();
    for request in &mut requests {
        if !passes(request.id) {
            request.answer.status = 403;
        }
    }
    requests
}

type Results = Rc<RefCell<Vec<(ScriptedRequest, Outcome)>>>;

/// Starts clients with random requests. The counter reaches zero once all are done.
fn start_clients(rig: &Rig<'_>, rng: &mut Rng) -> (Rc<Cell<usize>>, Results) {
    let (left, results) = (Rc::new(Cell::new(0)), Results::default());
    for client in 0..rng.between(1, 5) as u64 {
        let requests = draw((client * 100..).take(rng.between(1, 6)), rng);
        let (net, left, results) = (rig.world.client(), left.clone(), results.clone());
        let mut rng = rng.fork();
        left.set(left.get() + 1);
        rig.world.spawn(async move {
            let outcomes = ask_all(&net, &at(FRONT), &requests, &mut rng).await;
            results
                .borrow_mut()
                .extend(requests.into_iter().zip(outcomes));
            left.set(left.get() - 1);
        });
    }
    (left, results)
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
        let (left, results) = start_clients(&rig, &mut rng);
        rig.run_until_zero(&left);
        for (request, outcome) in results.take() {
            assert!(
                matches!(outcome, Outcome::Answered),
                "{outcome:?} to {request:?}"
            );
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
        let (left, results) = start_clients(&rig, &mut rng);
        rig.run_until_zero(&left);
        for (request, outcome) in results.take() {
            let seen = rig.ledger.count(request.id);
            let is_right = match &outcome {
                Outcome::Answered => true,
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
        let (left, results) = start_clients(&rig, &mut rng);
        for round in 0..rng.between(1, 6) {
            world.run_for(Duration::from_millis(rng.below(80) as u64));
            let keys = [", cache = \"1s\"", ", cache = \"2s\"", ""][round % 3];
            world.run(rig.reload(&config(keys)).all());
        }
        rig.run_until_zero(&left);
        for (request, outcome) in results.take() {
            assert!(
                matches!(outcome, Outcome::Answered),
                "{outcome:?} to {request:?}"
            );
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
            let mut requests = draw(id..=id, &mut rng);
            requests[0].method = "GET";
            (requests[0].framing, requests[0].len) = (Framing::None, 0);
            let (net, outcomes, mut rng) = (world.client(), outcomes.clone(), rng.fork());
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                peer.write(&requests[0].encode(&mut rng));
                let (outcome, _) = requests[0].read(&mut peer).await;
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
                Outcome::Answered | Outcome::Truncated | Outcome::Lost(_) => true,
                Outcome::Refused(..) => false,
            };
            assert!(is_right, "{outcome:?}");
        }
        assert_no_refused_request_passed(&rig);
    });
}
