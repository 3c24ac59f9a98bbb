//! Which endpoints get requests: statuses, weights and loads over whole cores.

mod sim;

use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::{Rig, check};
use weir::io::sim::{Rng, World, at};
use weir::upstream::{EndpointHealth, EndpointStatus};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 3] = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"];

const CONFIG: &str = r#"
    [listen."10.1.0.1:80"]
    [upstream]
    app = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"]
    [[route]]
    match = "/*"
    to = "app"
"#;

const DOWN: EndpointStatus = EndpointStatus {
    health: EndpointHealth::Down,
    is_ejected: false,
    is_on_trial: false,
};

/// Sends `count` requests, each over a connection of its own, so that all cores serve some. Returns how many each
/// endpoint got.
fn spread(rig: &Rig<'_>, world: &World, first: u64, count: u64, rng: &mut Rng) -> [usize; 3] {
    for id in first..first + count {
        let (net, mut rng) = (world.client(), rng.fork());
        let ask = [ScriptedRequest::get(id, 0)];
        let outcomes = world.run(async move { ask_all(&net, &at(FRONT), &ask, &mut rng).await });
        assert!(matches!(outcomes[..], [Outcome::Answered]), "{outcomes:?}");
    }
    let all = rig.ledger.all();
    let seen: Vec<_> = all.iter().filter(|seen| seen.id >= first).collect();
    ENDPOINTS.map(|address| seen.iter().filter(|seen| seen.endpoint == address).count())
}

#[test]
fn one_doorbell_takes_a_status_to_every_core() {
    check(20, |world| {
        let mut rng = world.rng(1);
        let rig = Rig::start(world, 8, CONFIG);
        for address in ENDPOINTS {
            rig.ledger.endpoint(world, address);
        }
        let before = spread(&rig, world, 0, 48, &mut rng);
        assert!(before.iter().all(|&count| count > 0), "{before:?}");
        for (round, is_full) in [(1u64, false), (2, true)] {
            if is_full {
                rig.fill_mailboxes();
            }
            rig.set_status("app", ENDPOINTS[1], DOWN);
            // Far less than a tick: only the doorbell has woken the cores.
            world.run_for(Duration::from_millis(1));
            let down = spread(&rig, world, 1_000 * round, 48, &mut rng);
            assert!(down[1] == 0 && down[0] > 0 && down[2] > 0, "{down:?}");
            rig.set_status("app", ENDPOINTS[1], EndpointStatus::default());
            world.run_for(Duration::from_millis(1));
            let up = spread(&rig, world, 1_000 * round + 500, 48, &mut rng);
            assert!(up[1] > 0, "{up:?}");
        }
        rig.drain(Duration::from_secs(5));
    });
}
