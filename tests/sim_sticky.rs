//! Sticky sessions over whole cores: a cookie leads to its endpoint from every core, while statuses change.
#![allow(clippy::expect_used)] // What fails here fails the test.

mod sim;

use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::{Rig, check};
use weir::io::sim::{Rng, World, at};
use weir::tls::Marker;
use weir::upstream::{EndpointHealth, EndpointStatus};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 3] = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"];

const CONFIG: &str = r#"
    [listen."10.1.0.1:80"]
    [upstream.app]
    servers = SERVERS
    sticky = STICKY
    panic = "0%"
    [[route]]
    match = "/*"
    to = "app"
"#;

/// The cookie of each endpoint.
fn cookies() -> [String; 3] {
    let marker = Marker::new(b"weir sticky app");
    ENDPOINTS.map(|name| format!("home={}", String::from_utf8_lossy(&marker.mark(name))))
}

/// Sends a request with this field over a connection of its own, and returns the endpoint that got it.
fn ask(rig: &Rig<'_>, world: &World, id: u64, field: (&'static str, String)) -> usize {
    let (net, mut rng) = (world.client(), world.rng(id + 100));
    let mut request = ScriptedRequest::get(id, 0);
    request.fields.push(field);
    let requests = [request];
    let outcomes = world.run(async move { ask_all(&net, &at(FRONT), &requests, &mut rng).await });
    assert!(matches!(outcomes[..], [Outcome::Answered]), "{outcomes:?}");
    let all = rig.ledger.all();
    let seen = all.iter().rfind(|seen| seen.id == id).expect("an endpoint");
    let found = ENDPOINTS.iter().position(|name| seen.endpoint == *name);
    found.expect("a known endpoint")
}

/// Whether each endpoint is drained and whether it is healthy.
#[derive(Clone, Copy, Debug)]
struct State {
    is_drained: [bool; 3],
    is_up: [bool; 3],
}

impl State {
    /// A random one, in which some endpoint takes new clients.
    fn random(rng: &mut Rng) -> Self {
        loop {
            let state = Self {
                is_drained: [0; 3].map(|_| rng.chance(300)),
                is_up: [0; 3].map(|_| rng.chance(700)),
            };
            if (0..3).any(|at| state.takes_new(at)) {
                return state;
            }
        }
    }

    fn takes_new(self, at: usize) -> bool {
        self.is_up[at] && !self.is_drained[at]
    }

    fn config(self, sticky: &str) -> String {
        let server = |at: usize| {
            let weight = u8::from(!self.is_drained[at]);
            format!("{{ address = \"{}\", weight = {weight} }}", ENDPOINTS[at])
        };
        let servers = [0, 1, 2].map(server).join(", ");
        CONFIG
            .replace("SERVERS", &format!("[{servers}]"))
            .replace("STICKY", sticky)
    }

    fn post(self, rig: &Rig<'_>) {
        for (name, is_up) in ENDPOINTS.iter().zip(self.is_up) {
            let health = match is_up {
                true => EndpointHealth::Up,
                false => EndpointHealth::Down,
            };
            let status = EndpointStatus {
                health,
                ..EndpointStatus::default()
            };
            rig.set_status("app", name, status);
        }
    }
}

#[test]
fn a_cookie_leads_to_its_endpoint_while_it_is_up() {
    check(20, |world| {
        let mut rng = world.rng(1);
        let sticky = "{ cookie = \"home\" }";
        let mut state = State {
            is_drained: [false; 3],
            is_up: [true; 3],
        };
        let rig = Rig::start(world, 1 + rng.below(4) as u32, &state.config(sticky));
        for address in ENDPOINTS {
            rig.ledger.endpoint(world, address);
        }
        for round in 0..12 {
            for id in 8 * round..8 * round + 8 {
                let home = rng.below(3);
                let got = ask(&rig, world, id, ("cookie", cookies()[home].clone()));
                match state.is_up[home] {
                    // Also a drained one.
                    true => assert_eq!(got, home, "{state:?}"),
                    false => assert!(state.takes_new(got), "{state:?}: {got}"),
                }
            }
            state = State::random(&mut rng);
            rig.reload(&state.config(sticky));
            state.post(&rig);
            world.run_for(Duration::from_millis(1));
        }
        rig.drain(Duration::from_secs(5));
    });
}

#[test]
fn a_field_leads_every_core_to_the_same_endpoint() {
    check(20, |world| {
        let mut rng = world.rng(1);
        let sticky = "\"header:x-user\"";
        let all = State {
            is_drained: [false; 3],
            is_up: [true; 3],
        };
        let rig = Rig::start(world, 1 + rng.below(4) as u32, &all.config(sticky));
        for address in ENDPOINTS {
            rig.ledger.endpoint(world, address);
        }
        let mut id = 0;
        let mut homes = |rig: &Rig<'_>| -> Vec<usize> {
            let users = (0..12).map(|user| {
                id += 1;
                ask(rig, world, id, ("x-user", user.to_string()))
            });
            users.collect()
        };
        let before = homes(&rig);
        assert_eq!(before, homes(&rig));
        let is_up = [true, false, true];
        State { is_up, ..all }.post(&rig);
        world.run_for(Duration::from_millis(1));
        for (before, after) in before.iter().zip(homes(&rig)) {
            assert!(after != 1 && (*before == 1 || *before == after));
        }
        all.post(&rig);
        world.run_for(Duration::from_millis(1));
        assert_eq!(before, homes(&rig));
        rig.drain(Duration::from_secs(5));
    });
}
