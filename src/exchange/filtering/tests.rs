//! Whole cores under the simulator, with filters that only tests have.

#[path = "../../../tests/sim/mod.rs"]
mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sim::client::{ClientRun, Outcome, ScriptedRequest, ask_all};
use sim::endpoint::Behaviour;
use sim::exchange::{PAIRS, Protocol, ScriptedExchange, WireEvent};
use sim::message::{Framing, Head, read_body};
use sim::{Rig, check};

use crate::io::Instant;
use crate::io::sim::{Peer, World, at};
use crate::plan::Plan;
use crate::policy::filter::probe::{Action, ProbeStep};
use crate::policy::{PlannedStep, Step};

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

fn config(up: Protocol) -> String {
    let scheme = match up {
        Protocol::Http1 => "http",
        Protocol::Http2 => "h2c",
    };
    CONFIG.replace(
        r#"["10.2.0.1:8080", "10.2.0.2:8080"]"#,
        &format!("[\"{scheme}://10.2.0.1:8080\"]"),
    )
}

fn set(plan: &mut Plan, probe: ProbeStep) {
    let probe = Arc::new(probe);
    for route in &mut plan.routes {
        route.steps = Box::new([PlannedStep {
            step: Step::Probe(probe.clone()),
            state: None,
        }]);
    }
}

/// Filters that leave bodies as they are: some hold them back, all work slowly.
fn harmless(world: &World, plan: &mut Plan) {
    let mut rng = world.rng(77);
    let mut chain = || {
        let probes = (0..rng.between(0, 3)).map(|_| {
            let action = [Action::Pass, Action::Pass, Action::Hold][rng.below(3)];
            (action, rng.between(100, 70_000), rng.below(300) as u32)
        });
        probes.collect()
    };
    let (request, answer) = (chain(), chain());
    set(plan, ProbeStep { request, answer });
}

fn holds(world: &World) -> bool {
    let mut plan = Plan::compile(&weir_config::parse("x.toml", CONFIG).unwrap().0).unwrap();
    harmless(world, &mut plan);
    let Some(PlannedStep {
        step: Step::Probe(probe),
        ..
    }) = plan.routes[0].steps.first()
    else {
        return false;
    };
    probe.answer.iter().any(|probe| probe.0 == Action::Hold)
}

/// Runs clients with random requests and returns what became of each.
fn run_clients(
    rig: &Rig<'_>,
    change: impl Fn(&mut ScriptedRequest),
) -> Vec<(ScriptedRequest, Outcome)> {
    let run = ClientRun::default();
    run.start_random(rig.world, "10.1.0.1:80", &mut rig.world.rng(1), change);
    run.wait(rig.world)
}

fn start(world: &World) -> Rig<'_> {
    let cores = 1 + (world.seed() % 2) as u32;
    let rig = Rig::start_with(world, (0, cores), CONFIG, harmless);
    for address in ["10.2.0.1:8080", "10.2.0.2:8080"] {
        rig.ledger.endpoint(world, address);
    }
    rig
}

#[test]
fn filters_that_change_nothing_change_nothing() {
    check(300, |world| {
        let rig = start(world);
        for (ask, outcome) in run_clients(&rig, |_| {}) {
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
fn a_broken_message_stays_broken_behind_filters() {
    check(300, |world| {
        let rig = start(world);
        let holds = holds(world);
        let rng = RefCell::new(world.rng(2));
        let results = run_clients(&rig, |ask| {
            ask.answer.behaviour = Behaviour::ALL[rng.borrow_mut().below(Behaviour::ALL.len())];
            // An answer without a length ends with its connection, so an orderly close makes it complete.
            if ask.answer.behaviour == Behaviour::CloseWithin
                && ask.answer.framing == Framing::Close
            {
                ask.answer.behaviour = Behaviour::ResetWithin;
            }
        });
        for (ask, outcome) in &results {
            let behaviour = ask.answer.behaviour;
            let is_cut = matches!(
                behaviour,
                Behaviour::CloseWithin | Behaviour::ResetWithin | Behaviour::Stall
            );
            let right = match outcome {
                Outcome::Answered => !matches!(
                    behaviour,
                    Behaviour::CloseBefore | Behaviour::ResetBefore | Behaviour::Silent
                ),
                // With filters that hold the head back, the client gets an answer of Weir's own instead.
                Outcome::Truncated => is_cut && !holds,
                Outcome::Refused(504, _) => {
                    behaviour == Behaviour::Silent || holds && behaviour == Behaviour::Stall
                }
                Outcome::Refused(502, _) => behaviour != Behaviour::None || !ask.is_idempotent(),
                Outcome::Refused(..) | Outcome::Unauthorized | Outcome::Preflight => false,
                // The connection closed after an answer that came before the whole request.
                Outcome::Lost(_) => true,
            };
            assert!(right, "{outcome:?} to {ask:?}, holds: {holds}");
        }
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn exchanges_keep_their_filters_over_a_reload() {
    check(100, |world| {
        let rig = start(world);
        let left = Rc::new(Cell::new(1));
        let (net, done, mut rng) = (world.client(), left.clone(), world.rng(3));
        let asks: Vec<_> = (0..8)
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        world.spawn(async move {
            for outcome in ask_all(&net, &at("10.1.0.1:80"), &asks, &mut rng).await {
                assert!(matches!(outcome, Outcome::Answered), "{outcome:?}");
            }
            done.set(0);
        });
        while left.get() > 0 {
            world.run_for(Duration::from_millis(3));
            let receipts = rig.reload(CONFIG);
            world.run_for(Duration::from_millis(3));
            drop(receipts);
        }
        rig.drain(Duration::from_secs(30));
    });
}

fn doubled(body: &[u8]) -> Vec<u8> {
    body.iter().flat_map(|&byte| [byte, byte]).collect()
}

/// Reads to the end of a message. Returns the body and the last event.
async fn listen(wire: &mut ScriptedExchange) -> (Vec<u8>, WireEvent) {
    let mut body = Vec::new();
    loop {
        match wire.hear(Instant::NEVER).await {
            WireEvent::Data(data) => body.extend(data),
            WireEvent::Head(0 | 1 | 100..=200) => {}
            last => return (body, last),
        }
    }
}

/// Runs one exchange in each pairing of protocols. The endpoint echoes what it gets. Returns what the endpoint and the
/// client got.
fn echo(change: fn(&World, &mut Plan), check_echo: fn(&[u8], Vec<u8>, Vec<u8>)) {
    for (down, up) in PAIRS {
        check(20, |world| {
            let rig = Rig::start_with(world, (0, 1), &config(up), change);
            let heard = Rc::new(RefCell::new(Vec::new()));
            let got = heard.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                let got = got.clone();
                async move {
                    let mut wire = ScriptedExchange::new(peer, up, false);
                    let (body, end) = listen(&mut wire).await;
                    if end != WireEvent::End {
                        return;
                    }
                    wire.answer(200);
                    for piece in body.chunks(16_000) {
                        wire.say(piece);
                    }
                    wire.end();
                    *got.borrow_mut() = body;
                    wire.pass(Instant::NEVER).await;
                }
            });
            let mut rng = world.rng(5);
            // Short enough for the first windows, which the scripts do not watch.
            let len = rng.size(8_000);
            let sent = rng.bytes(len);
            let (net, body) = (world.client(), sent.clone());
            let answer = world.run(async move {
                let mut wire = ScriptedExchange::connect(&net, &at("10.1.0.1:80"), down).await;
                wire.ask();
                for piece in body.chunks(9_000) {
                    wire.say(piece);
                }
                wire.end();
                let (body, end) = listen(&mut wire).await;
                assert_eq!(end, WireEvent::End, "{down:?} {up:?}");
                body
            });
            check_echo(&sent, heard.take(), answer);
            rig.drain(Duration::from_secs(1));
        });
    }
}

#[test]
fn both_directions_are_filtered_in_every_pairing_of_protocols() {
    let change = |_: &World, plan: &mut Plan| {
        let double = vec![(Action::Double, 700, 20)];
        set(
            plan,
            ProbeStep {
                request: double.clone(),
                answer: double,
            },
        );
    };
    echo(change, |sent, heard, answer| {
        assert!(heard == doubled(sent));
        assert!(answer == doubled(&heard));
    });
}

#[test]
fn several_filters_work_one_behind_the_other() {
    let change = |_: &World, plan: &mut Plan| {
        // The last one makes the framing chunked, which the script reads.
        let chain = vec![
            (Action::Double, 5_000, 60),
            (Action::Hold, 1_000, 3),
            (Action::Double, 300, 5),
            (Action::AppendTrailers, 10_000, 1),
        ];
        set(
            plan,
            ProbeStep {
                request: chain.clone(),
                answer: chain,
            },
        );
    };
    echo(change, |sent, heard, answer| {
        assert!(heard == doubled(&doubled(sent)));
        assert!(answer == doubled(&doubled(&heard)));
    });
}

/// Asks once, in each pairing, for what the endpoint says in two pieces before it does what `then` says.
fn ask(
    change: fn(&World, &mut Plan),
    then: fn(&mut ScriptedExchange),
    judge: fn(Protocol, Vec<u8>, WireEvent),
) {
    for (down, up) in PAIRS {
        check(10, |world| {
            let rig = Rig::start_with(world, (0, 1), &config(up), change);
            world.endpoint(&at("10.2.0.1:8080"), move |peer| async move {
                let mut wire = ScriptedExchange::new(peer, up, false);
                listen(&mut wire).await;
                wire.answer(200);
                wire.say(b"first");
                wire.say(b"second");
                then(&mut wire);
                wire.pass(Instant::NEVER).await;
            });
            let net = world.client();
            let (body, end) = world.run(async move {
                let mut wire = ScriptedExchange::connect(&net, &at("10.1.0.1:80"), down).await;
                wire.ask();
                wire.end();
                listen(&mut wire).await
            });
            judge(down, body, end);
            rig.drain(Duration::from_secs(1));
        });
    }
}

#[test]
fn a_filter_that_fails_breaks_the_answer_off() {
    let change = |_: &World, plan: &mut Plan| {
        set(
            plan,
            ProbeStep {
                request: Vec::new(),
                answer: vec![(Action::Pass, 5, 1), (Action::Fail(11), 5, 1)],
            },
        );
    };
    ask(change, ScriptedExchange::end, |down, body, end| {
        assert!(b"firstsecond".starts_with(&body[..]));
        assert_eq!(end, WireEvent::Gone, "{down:?}");
    });
}

#[test]
fn a_head_that_waits_gives_way_to_the_answer_for_a_fault() {
    let change = |_: &World, plan: &mut Plan| {
        set(
            plan,
            ProbeStep {
                request: Vec::new(),
                answer: vec![(Action::Hold, 5, 1)],
            },
        );
    };
    // The endpoint stalls within the body.
    ask(
        change,
        |_| {},
        |down, _, end| match down {
            Protocol::Http1 => assert_eq!(end, WireEvent::Head(504)),
            Protocol::Http2 => assert_eq!(end, WireEvent::End),
        },
    );
}

#[test]
fn events_do_not_wait_in_filters() {
    let change = |_: &World, plan: &mut Plan| {
        set(
            plan,
            ProbeStep {
                request: Vec::new(),
                answer: vec![(Action::Double, 3, 70), (Action::Pass, 2, 70)],
            },
        );
    };
    // The stalled body arrives as far as it goes.
    ask(
        change,
        |_| {},
        |down, body, end| {
            assert_eq!(body, doubled(b"firstsecond"));
            assert_eq!(end, WireEvent::Gone, "{down:?}");
        },
    );
}

#[test]
fn a_client_that_expects_100_is_invited_although_its_head_waits() {
    let change = |_: &World, plan: &mut Plan| {
        set(
            plan,
            ProbeStep {
                request: vec![(Action::Hold, 50, 1), (Action::AppendTrailers, 50, 1)],
                answer: Vec::new(),
            },
        );
    };
    for (down, up) in PAIRS {
        check(10, |world| {
            let rig = Rig::start_with(world, (0, 1), &config(up), change);
            world.endpoint(&at("10.2.0.1:8080"), move |peer| async move {
                let mut wire = ScriptedExchange::new(peer, up, false);
                let (body, _) = listen(&mut wire).await;
                assert_eq!(body, b"body");
                wire.answer(200);
                wire.end();
                wire.pass(Instant::NEVER).await;
            });
            let net = world.client();
            world.run(async move {
                let mut wire = ScriptedExchange::connect(&net, &at("10.1.0.1:80"), down).await;
                wire.ask_with_expect();
                let invited = wire.hear(Instant::NEVER).await;
                assert!(matches!(invited, WireEvent::Head(1 | 100)), "{invited:?}");
                wire.say(b"body");
                wire.end();
                assert_eq!(wire.hear(Instant::NEVER).await, WireEvent::Head(200));
                assert_eq!(wire.hear(Instant::NEVER).await, WireEvent::End);
            });
            rig.drain(Duration::from_secs(1));
        });
    }
}

#[test]
fn answers_of_weirs_own_go_through_the_same_filters() {
    let config = r#"
        [listen."10.1.0.1:80"]
        [[route]]
        match = "/*"
        respond = { status = 200, body = "hello" }
    "#;
    let probes: [&[(Action, usize, u32)]; 3] = [
        &[(Action::Double, 2, 80)],
        &[(Action::Hold, 2, 80), (Action::Double, 1, 80)],
        &[(Action::Hold, 2, 80), (Action::AppendTrailers, 3, 1)],
    ];
    fn change(world: &World, plan: &mut Plan) {
        let probes = [
            vec![(Action::Double, 2, 80)],
            vec![(Action::Hold, 2, 80), (Action::Double, 1, 80)],
            vec![(Action::Hold, 2, 80), (Action::AppendTrailers, 3, 1)],
        ];
        set(
            plan,
            ProbeStep {
                request: Vec::new(),
                answer: probes[world.seed() as usize % 3].clone(),
            },
        );
    }
    check(30, |world| {
        let rig = Rig::start_with(world, (0, 1), config, change);
        let doubles = probes[world.seed() as usize % 3]
            .iter()
            .any(|probe| probe.0 == Action::Double);
        let net = world.client();
        world.run(async move {
            let mut peer = Peer::connect(&net, &at("10.1.0.1:80")).await.unwrap();
            for method in ["GET", "HEAD", "GET"] {
                peer.write(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
                let head = Head::read(&mut peer).await.unwrap();
                assert!(head.line.contains(" 200 "), "{head:?}");
                if method == "HEAD" {
                    assert_eq!(head.get("content-length"), None);
                    continue;
                }
                let (body, is_complete) =
                    read_body(&mut peer, &head, head.framing(Framing::None)).await;
                assert!(is_complete);
                let want = if doubles {
                    b"hheelllloo".to_vec()
                } else {
                    b"hello".to_vec()
                };
                assert_eq!(body, want);
            }
        });
        rig.drain(Duration::from_secs(1));
    });
}
