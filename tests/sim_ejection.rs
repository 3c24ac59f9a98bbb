//! Ejection over whole cores: endpoints fail at random, a double of control decides, reports get lost.

mod sim;

use std::collections::HashSet;
use std::time::Duration;

use sim::client::{Clients, ScriptedRequest};
use sim::endpoint::{Answer, Behaviour};
use sim::{Rig, check};
use weir::control::health::{Ejections, Peers, Ruling};
use weir::io::sim::World;
use weir::obs::CoreReport;
use weir::upstream::EndpointStatus;
use weir_config::Eject;

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 4] = [
    "10.2.0.1:8080",
    "10.2.0.2:8080",
    "10.2.0.3:8080",
    "10.2.0.4:8080",
];

const CONFIG: &str = r#"
    [listen."10.1.0.1:80"]
    [upstream.app]
    servers = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080", "10.2.0.4:8080"]
    balance = "round_robin"
    eject = { failures = 3, duration = "2s", max = "50%" }
    retries = { budget_min = 100000 }
    [[route]]
    match = "/*"
    to = "app"
"#;

/// A GET whose answer closes the connection to the endpoint, so that each request needs a new one.
fn get(id: u64) -> ScriptedRequest {
    let plain = ScriptedRequest::get(id, 1);
    ScriptedRequest {
        answer: Answer {
            behaviour: Behaviour::Close,
            ..plain.answer
        },
        ..plain
    }
}

/// Decides about ejections as control does.
struct Judge {
    rule: Eject,
    ejections: Ejections,
    ejected: usize,
}

impl Judge {
    fn new() -> Self {
        let rule = Eject {
            duration: Duration::from_secs(2),
            ..Eject::default()
        };
        Self {
            rule,
            ejections: Ejections::default(),
            ejected: 0,
        }
    }

    fn post(&self, rig: &Rig<'_>, endpoint: &str) {
        let status = EndpointStatus {
            is_ejected: self.ejections.is_ejected(endpoint),
            is_on_trial: self.ejections.is_on_trial(endpoint),
            ..EndpointStatus::default()
        };
        rig.set_status("app", endpoint, status);
    }

    /// Handles what cores have reported, unless the reports got lost.
    fn hear(&mut self, rig: &Rig<'_>, world: &World, is_lost: bool) {
        let now = Duration::from_nanos(world.now().0);
        for report in rig.reports() {
            match report {
                _ if is_lost => {}
                CoreReport::EndpointFailing { endpoint, .. } => {
                    let healthy = ENDPOINTS.len() - self.ejections.ejected().count();
                    let all = ENDPOINTS.len();
                    let peers = Peers { all, healthy };
                    let ruling = self.ejections.fail(&endpoint, peers, &self.rule, now);
                    self.ejected += usize::from(matches!(ruling, Ruling::Ejected(_)));
                    self.post(rig, &endpoint);
                }
                CoreReport::EndpointAnswers { endpoint, .. } => {
                    if self.ejections.answer(&endpoint, now) {
                        self.post(rig, &endpoint);
                    }
                }
                other => panic!("{other}"),
            }
        }
        for endpoint in self.ejections.end_due(now) {
            self.post(rig, &endpoint);
        }
        assert!(self.ejections.ejected().count() <= 2, "more than half");
    }
}

#[test]
fn failing_endpoints_go_and_come_back_whatever_gets_lost() {
    check(20, |world| {
        let mut rng = world.rng(1);
        let cores = 1 + (world.seed() % 4) as u32;
        let rig = Rig::start(world, cores, CONFIG);
        let mut running: Vec<_> = ENDPOINTS
            .iter()
            .map(|address| Some(rig.ledger.endpoint(world, address)))
            .collect();
        let (mut judge, clients) = (Judge::new(), Clients::default());
        let mut id = 0;
        // In turn: all well, some endpoints refuse, all well again.
        for phase in 0..7u64 {
            let down: HashSet<usize> = match phase % 2 {
                0 => HashSet::new(),
                _ => (0..1 + rng.below(2)).map(|_| rng.below(4)).collect(),
            };
            for (at, address) in ENDPOINTS.iter().enumerate() {
                match (down.contains(&at), &mut running[at]) {
                    (true, endpoint) => {
                        if let Some(endpoint) = endpoint.take() {
                            endpoint.stop();
                        }
                    }
                    (false, endpoint @ None) => {
                        *endpoint = Some(rig.ledger.endpoint(world, address));
                    }
                    _ => {}
                }
            }
            for step in 0..40u64 {
                for _ in 0..5 {
                    id += 1;
                    clients.start(world, FRONT, Duration::ZERO, vec![get(id)]);
                }
                world.run_for(Duration::from_millis(100));
                // The queue is full for the first half of the failures.
                judge.hear(&rig, world, phase % 2 == 1 && step < 15);
            }
            if !down.is_empty() {
                for at in &down {
                    let address = ENDPOINTS[*at];
                    let known = &judge.ejections;
                    assert!(
                        known.is_ejected(address)
                            || known.is_on_trial(address)
                            || known.ejected().count() == 2,
                        "{address} is in use"
                    );
                }
            }
        }
        let finished = clients.wait(world);
        assert!(finished.iter().all(|each| each.outcome == "answered"));
        assert!(judge.ejected > 0);
        // Every endpoint is back, and gets its share.
        for _ in 0..200 {
            for _ in 0..4 {
                id += 1;
                clients.start(world, FRONT, Duration::ZERO, vec![get(id)]);
            }
            world.run_for(Duration::from_millis(100));
            judge.hear(&rig, world, false);
        }
        let before = id;
        for _ in 0..80 {
            id += 1;
            clients.start(world, FRONT, Duration::ZERO, vec![get(id)]);
        }
        clients.wait(world);
        let seen = rig.ledger.all();
        for address in ENDPOINTS {
            let is_own =
                |seen: &&sim::endpoint::SeenRequest| seen.id > before && seen.endpoint == address;
            let count = seen.iter().filter(is_own).count();
            assert!(count >= 10, "{address} got {count} of 80");
        }
        rig.drain(Duration::from_secs(5));
    });
}

#[test]
fn a_core_alone_leaves_a_failing_endpoint_after_a_row() {
    check(10, |world| {
        let rig = Rig::start(world, 1, CONFIG);
        let _running: Vec<_> = ENDPOINTS
            .iter()
            .map(|address| rig.ledger.endpoint(world, address))
            .collect();
        let clients = Clients::default();
        // Every answer is a failure, so each endpoint goes after three; control is deaf.
        for id in 0..40 {
            let request = ScriptedRequest {
                method: "POST",
                answer: Answer {
                    behaviour: Behaviour::CloseBefore,
                    ..ScriptedRequest::get(id, 0).answer
                },
                ..ScriptedRequest::get(id, 0)
            };
            clients.start(world, FRONT, Duration::ZERO, vec![request]);
            clients.wait(world);
        }
        let seen = rig.ledger.all();
        let counts = ENDPOINTS.map(|a| seen.iter().filter(|seen| seen.endpoint == a).count());
        assert_eq!(seen.len(), 40);
        assert!(counts.iter().all(|&count| count >= 3), "{counts:?}");
        // With three of four out, health is ignored, so the fourth is not the last.
        assert_eq!(rig.reports().len(), 4);
        rig.drain(Duration::from_secs(5));
    });
}
