//! Endpoints that change while cores run, by a command of their own.

mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::{Rig, check};
use weir::io::sim::{Rng, World, at};
use weir::limits::HOUSEKEEPING_MS;

const FRONT: &str = "10.1.0.1:80";
const FIRST: &str = "10.2.0.1:8080";
const SECOND: &str = "10.2.0.2:8080";
const OTHER: &str = "10.2.0.9:8080";

const CONFIG: &str = r#"
    [listen."10.1.0.1:80"]
    [upstream]
    app = "app.test:8080"
    other = "10.2.0.9:8080"
    [[route]]
    match = "/*"
    to = "app"
    [[route]]
    match = "/other"
    to = "other"
"#;

fn request(id: u64, path: &'static str, delay_ms: u64) -> ScriptedRequest {
    ScriptedRequest {
        path,
        ..ScriptedRequest::get(id, delay_ms)
    }
}

/// Sends requests one after the other over one connection.
fn run(world: &World, asks: &[ScriptedRequest], rng: &mut Rng) -> Vec<Outcome> {
    let (net, asks, mut rng) = (world.client(), asks.to_vec(), rng.fork());
    world.run(async move { ask_all(&net, &at(FRONT), &asks, &mut rng).await })
}

fn are_answered(outcomes: &[Outcome]) -> bool {
    let mut outcomes = outcomes.iter();
    outcomes.all(|outcome| matches!(outcome, Outcome::Answered))
}

/// The endpoint that received a request exactly once.
fn endpoint_of(rig: &Rig<'_>, id: u64) -> Option<String> {
    assert!(rig.ledger.count(id) <= 1);
    let all = rig.ledger.all();
    let seen = all.into_iter().find(|seen| seen.id == id);
    seen.map(|seen| seen.endpoint)
}

#[test]
fn new_endpoints_move_traffic_under_the_same_plan() {
    check(60, |world| {
        let mut rng = world.rng(1);
        let rig = Rig::start(world, 1 + (world.seed() % 3) as u32, CONFIG);
        for address in [FIRST, SECOND, OTHER] {
            rig.ledger.endpoint(world, address);
        }
        let outcomes = run(
            world,
            &[request(1, "/", 0), request(2, "/other", 0)],
            &mut rng,
        );
        assert!(
            matches!(&outcomes[0], Outcome::Refused(503, why) if why == "unresolved"),
            "{outcomes:?}"
        );
        assert!(are_answered(&outcomes[1..]), "{outcomes:?}");
        world.run(
            rig.resolve(CONFIG, rig.epoch(), &[("app.test", [10, 2, 0, 1])])
                .all(),
        );
        assert!(are_answered(&run(world, &[request(3, "/", 0)], &mut rng)));
        assert_eq!(endpoint_of(&rig, 3).as_deref(), Some(FIRST));

        // One exchange is running while the address changes.
        let left = Rc::new(Cell::new(1));
        let (net, count, mut slow_rng) = (world.client(), left.clone(), rng.fork());
        world.spawn(async move {
            let slow = [request(4, "/", 500)];
            let outcomes = ask_all(&net, &at(FRONT), &slow, &mut slow_rng).await;
            assert!(are_answered(&outcomes), "{outcomes:?}");
            count.set(0);
        });
        world.run_until(|| rig.ledger.count(4) == 1);
        world.run(
            rig.resolve(CONFIG, rig.epoch(), &[("app.test", [10, 2, 0, 2])])
                .all(),
        );
        let later = [
            request(5, "/", 0),
            request(6, "/", 0),
            request(7, "/other", 0),
        ];
        assert!(are_answered(&run(world, &later, &mut rng)));
        assert_eq!(left.get(), 1, "the slow exchange is still under way");
        rig.run_until_zero(&left);
        let seen: Vec<_> = (4..8).map(|id| endpoint_of(&rig, id)).collect();
        let seen: Vec<_> = seen.iter().map(Option::as_deref).collect();
        assert_eq!(seen, [Some(FIRST), Some(SECOND), Some(SECOND), Some(OTHER)]);
        rig.drain(Duration::from_secs(5));
    });
}

#[test]
fn a_core_that_misses_the_command_reads_the_board() {
    check(10, |world| {
        let mut rng = world.rng(1);
        let rig = Rig::start(world, 2, CONFIG);
        rig.ledger.endpoint(world, FIRST);
        rig.post(CONFIG, &[("app.test", [10, 2, 0, 1])]);
        world.run_for(Duration::from_millis(2 * HOUSEKEEPING_MS));
        let asks: Vec<_> = (0..4).map(|id| request(id, "/", 0)).collect();
        for ask in asks {
            // Each request has its own connection, so that both cores serve some.
            assert!(are_answered(&run(world, &[ask], &mut rng)));
        }
        rig.drain(Duration::from_secs(5));
    });
}

#[test]
fn endpoints_of_another_plan_are_ignored() {
    check(10, |world| {
        let mut rng = world.rng(1);
        let rig = Rig::start(world, 2, CONFIG);
        for address in [FIRST, OTHER] {
            rig.ledger.endpoint(world, address);
        }
        let former = rig.epoch();
        world.run(rig.reload(CONFIG).all());
        world.run(
            rig.resolve(CONFIG, former, &[("app.test", [10, 2, 0, 1])])
                .all(),
        );
        let outcomes = run(world, &[request(1, "/", 0)], &mut rng);
        assert!(
            matches!(&outcomes[0], Outcome::Refused(503, why) if why == "unresolved"),
            "{outcomes:?}"
        );
        world.run(
            rig.resolve(CONFIG, rig.epoch(), &[("app.test", [10, 2, 0, 1])])
                .all(),
        );
        assert!(are_answered(&run(world, &[request(2, "/", 0)], &mut rng)));
        rig.drain(Duration::from_secs(5));
    });
}
