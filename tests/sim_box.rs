//! Limits of connections to endpoints hold for the whole box, whatever cores its requests are on: exactly so many, no
//! request fails while there is room, and whoever has waited longest is next.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sim::client::{Ask, Outcome, ask_all};
use sim::endpoint::{Answer, Twist};
use sim::message::Framing;
use sim::{Rig, check};
use weir::io::Net;
use weir::io::sim::{World, at};

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

/// A request that the endpoint takes so long for.
fn ask(id: u64, delay_ms: u64) -> Ask {
    Ask {
        id,
        method: "GET",
        path: "/",
        len: 0,
        framing: Framing::None,
        answer: Answer {
            status: 200,
            len: 5,
            framing: Framing::Length,
            delay_ms,
            twist: Twist::None,
        },
    }
}

/// Clients, each with a connection of its own.
#[derive(Clone, Default)]
struct Clients {
    begun: Rc<Cell<usize>>,
    /// Ids, milliseconds since the client began, and what became of its request, in the order in which they were done.
    done: Rc<RefCell<Vec<(u64, u64, String)>>>,
}

impl Clients {
    fn ask(&self, world: &World, asks: Vec<Ask>) {
        let (net, clients, mut rng) = (world.client(), self.clone(), world.rng(asks[0].id));
        self.begun.set(self.begun.get() + asks.len());
        world.spawn(async move {
            let began = net.now();
            let outcomes = ask_all(&net, &at(FRONT), &asks, &mut rng).await;
            let ms = net.now().since(began).as_millis() as u64;
            for (ask, outcome) in asks.iter().zip(outcomes) {
                let text = match &outcome {
                    Outcome::Answered => "answered".to_owned(),
                    Outcome::Refused(status, why) => format!("{status} {why}"),
                    other => format!("{other:?}"),
                };
                clients.done.borrow_mut().push((ask.id, ms, text));
            }
        });
    }

    /// Runs until all are done; there are never more connections to endpoints than `max`.
    fn wait(&self, world: &World, cores: u32, max: usize) -> Vec<(u64, u64, String)> {
        world.run_until(|| {
            let open = connections(world, cores);
            assert!(open <= max, "{open} connections, not {max}");
            self.done.borrow().len() == self.begun.get()
        });
        self.begun.set(0);
        self.done.take()
    }
}

/// Connections to endpoints that the cores hold.
fn connections(world: &World, cores: u32) -> usize {
    let open = |n| world.open_connections(n) - world.accepted_connections(n);
    (0..cores).map(open).sum()
}

fn count(done: &[(u64, u64, String)], text: &str) -> usize {
    done.iter().filter(|(_, _, got)| got == text).count()
}

/// Fewer connections than cores, as many, and more.
#[test]
fn a_limit_is_exactly_that_on_many_cores() {
    check(20, |world| {
        let cores = 8;
        let max = [1, 3, 8, 10][world.rng(3).below(4)];
        let rig = Rig::start(world, cores, &one_server(&format!("connections = {max}")));
        let endpoint = rig.ledger.endpoint(world, ENDPOINTS[0]);
        let (clients, most) = (Clients::default(), Rc::new(Cell::new(0)));
        (1..=20).for_each(|id| clients.ask(world, vec![ask(id, 500)]));
        world.run_until(|| {
            most.set(most.get().max(connections(world, cores)));
            clients.done.borrow().len() == 20
        });
        assert_eq!(most.get(), max, "connections at once");
        let done = clients.done.take();
        assert_eq!(count(&done, "answered"), 20, "{done:?}");
        // No place is empty while somebody waits: they are done in rounds of so many.
        let rounds = 20_u64.div_ceil(max as u64);
        let last = done.iter().map(|(_, ms, _)| *ms).max().unwrap();
        assert!(last <= (rounds + 2) * 500, "{last} ms for {rounds} rounds");
        assert!(endpoint.accepted() >= max);
        rig.drain(Duration::from_secs(30));
    });
}

/// As many requests at once as the box may have connections, on whatever cores they came: none waits or fails.
#[test]
fn no_request_fails_while_the_box_has_room() {
    check(30, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 24, pending = 0"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        (1..=24).for_each(|id| clients.ask(world, vec![ask(id, 5_000)]));
        world.run_until(|| rig.ledger.all().len() == 24);
        // One more is too many.
        clients.ask(world, vec![ask(25, 0)]);
        let done = clients.wait(world, 4, 24);
        assert_eq!(count(&done, "answered"), 24, "{done:?}");
        assert_eq!(done[0].0, 25);
        assert_eq!(done[0].2, "503 upstream_limit");
        rig.drain(Duration::from_secs(30));
    });
}

/// So many may wait over all cores, and one more is told at once.
#[test]
fn as_many_wait_as_the_box_may_have_waiting() {
    check(30, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 1, pending = 9"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        clients.ask(world, vec![ask(1, 1_000)]);
        world.run_until(|| rig.ledger.all().len() == 1);
        (2..=20).for_each(|id| clients.ask(world, vec![ask(id, 1_000)]));
        let done = clients.wait(world, 4, 1);
        assert_eq!(count(&done, "503 upstream_limit"), 10, "{done:?}");
        assert_eq!(count(&done, "answered"), 10, "{done:?}");
        rig.drain(Duration::from_secs(30));
    });
}

/// The one place is held by an idle connection of whatever core asked last: another core's request does not wait for
/// that to grow old.
#[test]
fn an_idle_connection_is_given_up_for_a_request_on_another_core() {
    check(30, |world| {
        let rig = Rig::start(world, 6, &one_server("connections = 2"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        for id in 1..=30 {
            let clients = Clients::default();
            clients.ask(world, vec![ask(id, 0)]);
            let done = clients.wait(world, 6, 2);
            assert_eq!(done[0].2, "answered");
            assert!(done[0].1 < 1_500, "request {id} took {} ms", done[0].1);
        }
        rig.drain(Duration::from_secs(30));
    });
}

/// Clients that ask again and again on the core that has the connection do not keep it from those of other cores.
#[test]
fn a_busy_core_does_not_starve_the_others() {
    check(20, |world| {
        let rig = Rig::start(world, 3, &one_server("connections = 1"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        for client in 0..9 {
            let ids = (1 + client * 100..).take(40);
            clients.ask(world, ids.map(|id| ask(id, 20)).collect());
        }
        world.run_for(Duration::from_secs(1));
        let late = Clients::default();
        (2_000..2_006).for_each(|id| late.ask(world, vec![ask(id, 20)]));
        let done = late.wait(world, 3, 1);
        // At most 15 wait at any time, and a place may stay with a core for 50 ms.
        let longest = done.iter().map(|(_, ms, _)| *ms).max().unwrap();
        assert!(longest < 5_000, "{longest} ms");
        assert_eq!(count(&clients.wait(world, 3, 1), "answered"), 360);
        rig.drain(Duration::from_secs(30));
    });
}

/// Connections of HTTP/2 are never idle while requests come: cores that have none take turns with those that do.
#[test]
fn cores_take_turns_where_connections_are_shared_by_requests() {
    check(20, |world| {
        let servers = [format!("h2c://{}", ENDPOINTS[0])];
        let rig = Rig::start(world, 3, &config(&servers, "connections = 1"));
        rig.ledger.endpoint_http2(world, ENDPOINTS[0]);
        let clients = Clients::default();
        for client in 0..9 {
            let ids = (1 + client * 100..).take(20);
            clients.ask(world, ids.map(|id| ask(id, 10)).collect());
        }
        let done = clients.wait(world, 3, 1);
        assert_eq!(count(&done, "answered"), 180, "{done:?}");
        let longest = done.iter().map(|(_, ms, _)| *ms).max().unwrap();
        assert!(longest < 60_000, "{longest} ms");
        rig.drain(Duration::from_secs(30));
    });
}

/// Whoever has failed at one endpoint waits for the other, on whatever core that becomes free.
#[test]
fn who_was_refused_by_one_endpoint_hears_of_the_other_from_any_core() {
    check(20, |world| {
        let servers = ENDPOINTS.map(str::to_owned);
        let rig = Rig::start(world, 4, &config(&servers, "connections = 1"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        // Nobody listens at the second.
        let clients = Clients::default();
        (1..=16).for_each(|id| clients.ask(world, vec![ask(id, 100)]));
        let done = clients.wait(world, 4, 2);
        assert_eq!(count(&done, "answered"), 16, "{done:?}");
        rig.drain(Duration::from_secs(30));
    });
}

/// A reload lowers the limit: what is idle closes at once, what is busy when it is done.
#[test]
fn a_lower_limit_holds_as_soon_as_requests_are_done() {
    check(20, |world| {
        let rig = Rig::start(world, 4, &one_server("connections = 12"));
        rig.ledger.endpoint(world, ENDPOINTS[0]);
        let clients = Clients::default();
        (1..=12).for_each(|id| clients.ask(world, vec![ask(id, 3_000)]));
        world.run_until(|| rig.ledger.all().len() == 12);
        assert_eq!(connections(world, 4), 12);
        rig.reload(&one_server("connections = 2"));
        assert_eq!(count(&clients.wait(world, 4, 12), "answered"), 12);
        world.run_for(Duration::from_secs(1));
        assert!(connections(world, 4) <= 2);
        (20..=30).for_each(|id| clients.ask(world, vec![ask(id, 100)]));
        assert_eq!(count(&clients.wait(world, 4, 2), "answered"), 11);
        rig.drain(Duration::from_secs(30));
    });
}
