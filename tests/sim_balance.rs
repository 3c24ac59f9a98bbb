//! Which endpoints get requests: statuses, weights and loads over whole cores.

mod sim;

use std::time::Duration;

use sim::client::{Clients, Outcome, ScriptedRequest, ask_all};
use sim::{Rig, check};
use weir::io::sim::{Rng, World, at};
use weir::upstream::{EndpointHealth, EndpointStatus};

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 3] = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"];

const CONFIG: &str = r#"
    [listen."10.1.0.1:80"]
    [upstream.app]
    servers = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"]
    balance = "random"
    panic = "0%"
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

/// The time within which 99 % of 1,500 requests are answered, one every 15 ms. The first endpoint needs a second, the
/// others a tenth.
fn p99_with_a_slow_endpoint(world: &World, balance: &str) -> Duration {
    let rig = Rig::start(world, 2, &CONFIG.replace("random", balance));
    for (address, delay) in ENDPOINTS.into_iter().zip([1_000, 100, 100]) {
        rig.ledger.endpoint(world, address);
        rig.ledger.slow_down(address, delay);
    }
    let clients = Clients::default();
    let delay = |id: u64| Duration::from_millis(15 * id);
    for id in 0..1_500 {
        clients.start(world, FRONT, delay(id), vec![ScriptedRequest::get(id, 0)]);
    }
    let finished = clients.wait(world);
    assert!(finished.iter().all(|one| one.outcome == "answered"));
    let mut times: Vec<_> = finished
        .iter()
        .map(|one| one.took - delay(one.id))
        .collect();
    times.sort_unstable();
    rig.drain(Duration::from_secs(5));
    times[times.len() * 99 / 100]
}

#[test]
fn p2c_avoids_an_endpoint_that_is_ten_times_slower() {
    check(3, |world| {
        let p2c = p99_with_a_slow_endpoint(world, "p2c");
        assert!(p2c < Duration::from_millis(333), "{p2c:?}");
    });
    check(3, |world| {
        let in_turn = p99_with_a_slow_endpoint(world, "round_robin");
        assert!(in_turn >= Duration::from_secs(1), "{in_turn:?}");
    });
}

/// Random statuses, weights and priorities while requests run.
#[test]
fn no_request_goes_to_an_endpoint_that_is_out_of_use() {
    let balancers = [
        "p2c",
        "round_robin",
        "least_conn",
        "least_time",
        "random",
        "ip_hash",
        "hash(query:id)",
        "first",
    ];
    check(40, |world| {
        let mut rng = world.rng(1);
        let config = |rng: &mut Rng| {
            let balance = balancers[rng.below(balancers.len())];
            let weights = [0; 3].map(|_| [0, 1, 1, 3][rng.below(4)]);
            let priority = rng.below(2);
            let servers = format!(
                "[{{ address = \"10.2.0.1:8080\", weight = {} }}, \
                 {{ address = \"10.2.0.2:8080\", weight = {}, priority = {priority} }}, \
                 {{ address = \"10.2.0.3:8080\", weight = {}, backup = {} }}]",
                weights[0],
                weights[1],
                weights[2],
                rng.chance(300),
            );
            let text = CONFIG.replace("random", balance).replace(
                r#"["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"]"#,
                &servers,
            );
            (text, weights)
        };
        let (text, mut weights) = config(&mut rng);
        let rig = Rig::start(world, 1 + rng.below(4) as u32, &text);
        for address in ENDPOINTS {
            rig.ledger.endpoint(world, address);
        }
        let clients = Clients::default();
        let mut statuses = [EndpointStatus::default(); 3];
        for round in 0..8u64 {
            if rng.chance(300) {
                let (text, new) = config(&mut rng);
                weights = new;
                world.run(rig.reload(&text).all());
            }
            for (status, address) in statuses.iter_mut().zip(ENDPOINTS) {
                if rng.chance(500) {
                    status.health = [
                        EndpointHealth::Unknown,
                        EndpointHealth::Up,
                        EndpointHealth::Down,
                    ][rng.below(3)];
                    status.is_ejected = rng.chance(200);
                    rig.set_status("app", address, *status);
                }
            }
            if rng.chance(300) {
                rig.fill_mailboxes();
            }
            world.run_for(Duration::from_millis(1));
            let is_usable = |at: usize| weights[at] > 0 && statuses[at].is_healthy();
            let usable = (0..3).filter(|&at| is_usable(at)).count();
            let first = 1_000 * round;
            for id in first..first + 12 {
                let delay = Duration::from_millis(rng.below(30) as u64);
                let asks = vec![ScriptedRequest::get(id, rng.below(40) as u64)];
                clients.start(world, FRONT, delay, asks);
            }
            // Some are still running in the next round.
            world.run_for(Duration::from_millis(20));
            let is_over = rng.chance(500);
            let finished = if is_over {
                clients.wait(world)
            } else {
                Vec::new()
            };
            for one in finished.iter().filter(|one| one.id >= first) {
                let wanted = match usable {
                    0 => "503 no_endpoint",
                    _ => "answered",
                };
                assert_eq!(
                    one.outcome, wanted,
                    "round {round}: {statuses:?} {weights:?}"
                );
            }
            for seen in rig.ledger.all().iter().filter(|seen| seen.id >= first) {
                let at = ENDPOINTS.iter().position(|&each| each == seen.endpoint);
                let is_fine = at.is_some_and(is_usable);
                assert!(
                    is_fine,
                    "{seen:?} of round {round}: {statuses:?} {weights:?}"
                );
            }
        }
        clients.wait(world);
        rig.drain(Duration::from_secs(5));
    });
}
