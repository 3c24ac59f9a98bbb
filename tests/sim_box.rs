//! Limits on connections to endpoints hold exactly for all cores together. No request fails while there is room, and
//! the request that has waited longest is next.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Clients, Finished, ScriptedRequest, count_outcomes};
use sim::{Rig, check};
use weir::io::sim::World;

const FRONT: &str = "10.1.0.1:80";
const ENDPOINTS: [&str; 2] = ["10.2.0.1:8080", "10.2.0.2:8080"];

fn config(servers: &[String], pool: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[timeouts]\nqueue = \"10m\"\n[upstream.app]\nservers = {servers:?}\n\
         pool = {{ {pool} }}\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    )
}

fn one_server(pool: &str) -> String {
    config(&[ENDPOINTS[0].to_owned()], pool)
}

/// Starts a client that sends these requests.
fn start(clients: &Clients, world: &World, requests: Vec<ScriptedRequest>) {
    clients.start(world, FRONT, Duration::ZERO, requests);
}

/// Starts a client for each id. The endpoint answers after `delay_ms`.
fn start_each(clients: &Clients, world: &World, ids: impl IntoIterator<Item = u64>, delay_ms: u64) {
    for id in ids {
        start(clients, world, vec![ScriptedRequest::get(id, delay_ms)]);
    }
}

/// Runs until every request is done. Asserts that the cores never have more than `max` connections to endpoints.
fn wait(clients: &Clients, world: &World, cores: u32, max: usize) -> Vec<Finished> {
    world.run_until(|| {
        let open = connections(world, cores);
        assert!(open <= max, "{open} connections, not {max}");
        clients.are_done()
    });
    clients.wait(world)
}

/// Connections to endpoints that the cores hold.
fn connections(world: &World, cores: u32) -> usize {
    let open = |n| world.open_connections(n) - world.accepted_connections(n);
    (0..cores).map(open).sum()
}

/// Fewer connections than cores, as many, and more.
#[test]
fn a_connection_limit_is_exact_across_cores() {
    check(20, |world| {
        let cores = 8;
        let max = [1, 3, 8, 10][world.rng(3).below(4)];
        let rig = Rig::start(world, cores, &one_server(&format!("connections = {max}")));
        let endpoint = rig.ledger.endpoint(world, ENDPOINTS[0]);
        let (clients, most) = (Clients::default(), Rc::new(Cell::new(0)));
        start_each(&clients, world, 1..=20, 500);
        world.run_until(|| {
            most.set(most.get().max(connections(world, cores)));
            clients.are_done()
        });
        assert_eq!(most.get(), max, "connections at once");
        let done = clients.wait(world);
        assert_eq!(count_outcomes(&done, "answered"), 20, "{done:?}");
        // A freed place goes to a waiting request at once, so the requests finish in rounds of `max`.
        let rounds = 20_u64.div_ceil(max as u64);
        let last = done
            .iter()
            .map(|one| one.took.as_millis() as u64)
            .max()
            .unwrap();
        assert!(last <= (rounds + 2) * 500, "{last} ms for {rounds} rounds");
        assert!(endpoint.accepted() >= max);
        rig.drain(Duration::from_secs(30));
    });
}

/// As many concurrent requests as the limit allows, on random cores: none waits or fails.
#[test]
fn no_request_fails_while_the_limit_has_room() {
    check(30, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 24, pending = 0"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=24, 5_000);
        world.run_until(|| rig.ledger.all().len() == 24);
        // This request exceeds the limit.
        start_each(&clients, world, [25], 0);
        let done = wait(&clients, world, 4, 24);
        assert_eq!(count_outcomes(&done, "answered"), 24, "{done:?}");
        assert_eq!(done[0].id, 25);
        assert_eq!(done[0].outcome, "503 upstream_limit");
        rig.drain(Duration::from_secs(30));
    });
}

/// The queue's limit counts requests on all cores. An excess request fails at once.
#[test]
fn the_queue_limit_is_exact_across_cores() {
    check(30, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 1, pending = 9"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, [1], 1_000);
        world.run_until(|| rig.ledger.all().len() == 1);
        start_each(&clients, world, 2..=20, 1_000);
        let done = wait(&clients, world, 4, 1);
        assert_eq!(count_outcomes(&done, "503 upstream_limit"), 10, "{done:?}");
        assert_eq!(count_outcomes(&done, "answered"), 10, "{done:?}");
        rig.drain(Duration::from_secs(30));
    });
}

/// An idle connection on another core holds the only place. A request does not wait until the connection times out.
#[test]
fn a_core_closes_an_idle_connection_for_a_request_on_another_core() {
    check(30, |world| {
        let rig = Rig::start(world, 6, &one_server("connections = 2"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        for id in 1..=30 {
            let clients = Clients::default();
            start_each(&clients, world, [id], 0);
            let done = wait(&clients, world, 6, 2);
            assert_eq!(done[0].outcome, "answered");
            let took = done[0].took;
            assert!(
                took < Duration::from_millis(1_500),
                "request {id}: {took:?}"
            );
        }
        rig.drain(Duration::from_secs(30));
    });
}

/// A steady load on the core that has the connection does not starve requests on other cores.
#[test]
fn a_busy_core_does_not_starve_the_others() {
    check(20, |world| {
        let rig = Rig::start(world, 3, &one_server("connections = 1"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        for client in 0..9 {
            let ids = (1 + client * 100..).take(40);
            let requests = ids.map(|id| ScriptedRequest::get(id, 20)).collect();
            start(&clients, world, requests);
        }
        world.run_for(Duration::from_secs(1));
        let late = Clients::default();
        start_each(&late, world, 2_000..2_006, 20);
        let done = wait(&late, world, 3, 1);
        // At most 15 requests wait at a time, and a place may stay with a core for 50 ms.
        let longest = done
            .iter()
            .map(|one| one.took.as_millis() as u64)
            .max()
            .unwrap();
        assert!(longest < 5_000, "{longest} ms");
        assert_eq!(
            count_outcomes(&wait(&clients, world, 3, 1), "answered"),
            360
        );
        rig.drain(Duration::from_secs(30));
    });
}

/// An HTTP/2 connection is never idle while requests come, so cores without one take turns with the core that has it.
#[test]
fn cores_take_turns_with_one_http2_connection() {
    check(20, |world| {
        let servers = [format!("h2c://{}", ENDPOINTS[0])];
        let rig = Rig::start(world, 3, &config(&servers, "connections = 1"));
        rig.ledger.endpoint_http2(world, ENDPOINTS[0]);
        let clients = Clients::default();
        for client in 0..9 {
            let ids = (1 + client * 100..).take(20);
            let requests = ids.map(|id| ScriptedRequest::get(id, 10)).collect();
            start(&clients, world, requests);
        }
        let done = wait(&clients, world, 3, 1);
        assert_eq!(count_outcomes(&done, "answered"), 180, "{done:?}");
        let longest = done
            .iter()
            .map(|one| one.took.as_millis() as u64)
            .max()
            .unwrap();
        assert!(longest < 60_000, "{longest} ms");
        rig.drain(Duration::from_secs(30));
    });
}

/// A request that failed at one endpoint waits for the other, whichever core frees a place.
#[test]
fn a_request_refused_by_one_endpoint_takes_a_place_freed_on_any_core() {
    check(20, |world| {
        let servers = ENDPOINTS.map(str::to_owned);
        let rig = Rig::start(world, 4, &config(&servers, "connections = 1"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        // Nothing listens at the second endpoint.
        let clients = Clients::default();
        start_each(&clients, world, 1..=16, 100);
        let done = wait(&clients, world, 4, 2);
        assert_eq!(count_outcomes(&done, "answered"), 16, "{done:?}");
        rig.drain(Duration::from_secs(30));
    });
}

/// After a reload lowers the limit, idle connections close at once and busy ones when their request is done.
#[test]
fn a_lowered_limit_holds_once_running_requests_finish() {
    check(20, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 12"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        start_each(&clients, world, 1..=12, 3_000);
        world.run_until(|| rig.ledger.all().len() == 12);
        assert_eq!(connections(world, 4), 12);
        rig.reload(&one_server("connections = 2"));
        assert_eq!(
            count_outcomes(&wait(&clients, world, 4, 12), "answered"),
            12
        );
        world.run_for(Duration::from_secs(1));
        assert!(connections(world, 4) <= 2);
        start_each(&clients, world, 20..=30, 100);
        assert_eq!(count_outcomes(&wait(&clients, world, 4, 2), "answered"), 11);
        rig.drain(Duration::from_secs(30));
    });
}
