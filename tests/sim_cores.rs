//! What cores share: a plain exchange on a kept connection writes no memory that other cores write, and connections
//! spread over many cores.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "sim/certificate.rs"]
mod certificate;
mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certificate::certificate;
use sim::client::{Outcome, ScriptedRequest, ask_all};
use sim::{Rig, check, http2};
use weir::io::Net;
use weir::io::sim::{Faults, Peer, Rng, Sim, World, at};
use weir::shared::{Accesses, accesses};

const FRONT: &str = "10.1.0.1:80";
const INNER: &str = "10.3.0.1:443";
const ENDPOINT: &str = "10.2.0.1:8080";

/// Requests before the count begins, in which connections open and pools fill, and requests that count.
const WARM_UP: usize = 50;
const COUNTED: usize = 200;

/// All threads of the process count together, so the tests run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Accesses {
    accesses().expect("tests are built with debug assertions")
}

/// Accesses since an earlier time.
fn since(before: Accesses) -> Accesses {
    let now = now();
    Accesses {
        shared_writes: now.shared_writes - before.shared_writes,
        shared_reads: now.shared_reads - before.shared_reads,
        own_writes: now.own_writes - before.own_writes,
    }
}

/// The accesses of the requests that count.
#[derive(Clone, Default)]
struct Count {
    first: Rc<Cell<Accesses>>,
    all: Rc<Cell<Accesses>>,
}

impl Count {
    /// Call this before each request.
    fn before(&self, request: usize) {
        if request == WARM_UP {
            self.first.set(now());
        }
        self.all.set(since(self.first.get()));
    }
}

fn config(route: &str, endpoint: &str) -> String {
    format!(
        "[listen.\"{FRONT}\"]\n[upstream]\napp = [\"{endpoint}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n{route}\n"
    )
}

fn requests() -> Vec<ScriptedRequest> {
    let ids = 0..(WARM_UP + COUNTED + 1) as u64;
    ids.map(|id| ScriptedRequest::get(id, 0)).collect()
}

/// Sends requests one after the other over a connection of HTTP/1.1.
async fn ask_in_turn(net: &Sim, rng: &mut Rng, count: &Count) -> Vec<Outcome> {
    let mut peer = Peer::connect(net, &at(FRONT)).await.unwrap();
    let mut outcomes = Vec::new();
    for (n, ask) in requests().iter().enumerate() {
        count.before(n);
        peer.write(&ask.encode(rng));
        let (outcome, goes_on) = ask.read(&mut peer).await;
        assert!(goes_on, "{ask:?}");
        outcomes.push(outcome);
    }
    outcomes
}

/// Runs one client of HTTP/1.1 or HTTP/2. Returns the accesses of the requests that count; all were answered.
fn run_client(world: &World, speaks_http2: bool) -> Accesses {
    let (net, count, mut rng) = (world.client(), Count::default(), world.rng(1));
    let counting = count.clone();
    let outcomes = world.run(async move {
        match speaks_http2 {
            true => {
                let before = |n| counting.before(n);
                http2::ask_in_turn(&net, &at(FRONT), &requests(), &mut rng, before).await
            }
            false => ask_in_turn(&net, &mut rng, &counting).await,
        }
    });
    assert_eq!(outcomes.len(), WARM_UP + COUNTED + 1);
    let is_answered = |outcome: &Outcome| matches!(outcome, Outcome::Answered);
    assert!(outcomes.iter().all(is_answered), "{outcomes:?}");
    count.all.get()
}

/// Asserts that requests through so many Weirs wrote nothing that other cores write.
fn assert_plain(all: Accesses, weirs: u64) {
    assert_eq!(all.shared_writes, 0, "{all:?} by {COUNTED} requests");
    // Counters of the metrics, mostly. More are no mistake, but each is a store.
    let own = all.own_writes / COUNTED as u64;
    assert!((1..=24 * weirs).contains(&own), "{own} a request");
}

#[test]
fn a_plain_exchange_writes_no_shared_memory() {
    let _alone = alone();
    check(2, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let rig = Rig::start(world, 4, &config("", ENDPOINT));
        rig.ledger.endpoint(world, ENDPOINT);
        assert_plain(run_client(world, false), 1);
        rig.drain(Duration::from_secs(30));
    });
}

#[test]
fn a_plain_exchange_over_http2_writes_no_shared_memory() {
    let _alone = alone();
    check(2, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let rig = Rig::start(world, 4, &config("", &format!("h2c://{ENDPOINT}")));
        rig.ledger.endpoint_http2(world, ENDPOINT);
        assert_plain(run_client(world, true), 1);
        rig.drain(Duration::from_secs(30));
    });
}

/// One Weir speaks TLS to the other, over HTTP/2.
#[test]
fn a_plain_exchange_over_tls_writes_no_shared_memory() {
    let _alone = alone();
    check(1, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let (cert, name) = (&certificate().cert, certificate::NAME);
        let outer = format!(
            "[listen.\"{FRONT}\"]\n[upstream.inner]\nservers = [\"https://{INNER}\"]\n\
             tls = {{ ca = \"{cert}\", server_name = \"{name}\" }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"inner\"\n"
        );
        let inner = format!(
            "[listen.\"{INNER}\"]\ntls = {{ {} }}\n[upstream]\napp = [\"{ENDPOINT}\"]\n\
             [[route]]\nmatch = \"/*\"\nto = \"app\"\n",
            certificate().settings()
        );
        let inner = Rig::start_from(world, 4, 4, &inner);
        let outer = Rig::start(world, 4, &outer);
        inner.ledger.endpoint(world, ENDPOINT);
        assert_plain(run_client(world, false), 2);
        outer.drain(Duration::from_secs(30));
        inner.drain(Duration::from_secs(30));
    });
}

/// What the count shows where cores count together.
#[test]
fn a_cap_over_all_cores_writes_shared_memory() {
    let _alone = alone();
    check(1, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let rig = Rig::start(world, 4, &config("concurrency = \"100 per ip\"", ENDPOINT));
        rig.ledger.endpoint(world, ENDPOINT);
        let writes = run_client(world, false).shared_writes / COUNTED as u64;
        assert!((2..=4).contains(&writes), "{writes} a request");
        rig.drain(Duration::from_secs(30));
    });
}

/// A core publishes its requests in flight when their number has changed since its last tick, and nothing else.
#[test]
fn a_core_publishes_at_its_ticks_only_what_has_changed() {
    let _alone = alone();
    check(2, |world| {
        let rig = Rig::start(world, 4, &config("", ENDPOINT));
        rig.ledger.endpoint(world, ENDPOINT);
        run_client(world, false);
        world.run_for(Duration::from_secs(1));
        let before = now();
        world.run_for(Duration::from_secs(10));
        assert_eq!(since(before).shared_writes, 0, "by idle cores");
        let (net, mut rng, counting) = (world.client(), world.rng(2), Rc::new(Cell::default()));
        let count = counting.clone();
        world.run(async move {
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            let asks = [(1, 0), (2, 5_000)].map(|(id, delay)| ScriptedRequest::get(id, delay));
            for ask in asks {
                count.set(now());
                peer.write(&ask.encode(&mut rng));
                assert!(matches!(ask.read(&mut peer).await, (Outcome::Answered, _)));
            }
        });
        let writes = since(counting.get()).shared_writes;
        assert!(writes <= 4, "{writes} by a request of five seconds");
        rig.drain(Duration::from_secs(30));
    });
}

type Peers = Rc<RefCell<Vec<Peer<Sim>>>>;

/// Connections of each core.
fn connections(world: &World, cores: u32) -> Vec<usize> {
    let each = (0..cores).map(|core| world.accepted_connections(core));
    each.collect()
}

/// Opens connections, one each `every`, and waits until cores serve all that are open.
fn open(world: &World, cores: u32, open: &Peers, count: usize, every: Duration) {
    let all = open.borrow().len() + count;
    for n in 0..count {
        let (net, open) = (world.client(), open.clone());
        world.spawn(async move {
            net.sleep_until(net.now() + every * n as u32).await;
            let peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            open.borrow_mut().push(peer);
        });
    }
    let is_served = || connections(world, cores).iter().sum::<usize>() == all;
    let until = world.now() + Duration::from_secs(60);
    while !is_served() {
        assert!(world.now() < until, "{:?}", connections(world, cores));
        world.run_for(Duration::from_millis(20));
    }
    // The last transfers arrive.
    world.run_for(Duration::from_millis(100));
}

/// Asserts that no core has more than a quarter above the mean, and the one that comes on top.
fn assert_even(connections: &[usize]) {
    let mean = connections
        .iter()
        .sum::<usize>()
        .div_ceil(connections.len());
    let most = connections.iter().max().unwrap();
    assert!(*most <= mean * 5 / 4 + 1, "{connections:?}");
}

/// The kernel chooses at random, or gives half or all connections to one core, at once or one after the other.
#[test]
fn connections_spread_over_16_cores_and_all_are_served() {
    let _alone = alone();
    for (favoured, every) in [(0, 0), (500, 0), (500, 1), (1000, 1)] {
        check(1, |world| {
            world.favour_first_socket(favoured);
            let rig = Rig::start(world, 16, &config("", ENDPOINT));
            rig.ledger.endpoint(world, ENDPOINT);
            let peers = Peers::default();
            open(world, 16, &peers, 320, Duration::from_millis(every));
            assert_even(&connections(world, 16));
            let answered = Rc::new(Cell::new(0));
            let mut rng = world.rng(1);
            for (mut peer, id) in peers.take().into_iter().zip(0..) {
                let (answered, mut rng) = (answered.clone(), rng.fork());
                world.spawn(async move {
                    let ask = ScriptedRequest::get(id, 0);
                    peer.write(&ask.encode(&mut rng));
                    assert!(matches!(
                        ask.read(&mut peer).await,
                        (Outcome::Answered, true)
                    ));
                    answered.set(answered.get() + 1);
                });
            }
            world.run_until(|| answered.get() == 320);
            rig.drain(Duration::from_secs(30));
        });
    }
}

/// Two thirds of the connections end, and new ones come: the cores become even again.
#[test]
fn connections_even_out_over_64_cores_after_some_have_ended() {
    let _alone = alone();
    check(1, |world| {
        world.favour_first_socket(300);
        let rig = Rig::start(world, 64, &config("", ENDPOINT));
        let peers = Peers::default();
        let before = now();
        open(world, 64, &peers, 640, Duration::ZERO);
        assert_even(&connections(world, 64));
        // Each accept reads the counts of all cores three times, in four cache lines.
        let reads = since(before).shared_reads / 640;
        assert!(reads < 4 * 64, "{reads} reads an accept");
        let mut n = 0;
        peers.borrow_mut().retain(|_| {
            n += 1;
            n % 3 == 0
        });
        world.run_for(Duration::from_secs(1));
        open(world, 64, &peers, 640, Duration::from_millis(1));
        assert_even(&connections(world, 64));
        peers.borrow_mut().clear();
        rig.drain(Duration::from_secs(30));
    });
}

/// A connection writes shared memory when it begins and when it ends, by counts over all cores.
#[test]
fn a_connection_makes_few_shared_writes() {
    let _alone = alone();
    check(1, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let rig = Rig::start(world, 64, &config("", ENDPOINT));
        rig.ledger.endpoint(world, ENDPOINT);
        let (net, mut rng) = (world.client(), world.rng(1));
        let mut before = Accesses::default();
        for id in 0..300 {
            if id == 100 {
                before = now();
            }
            let (net, mut rng) = (net.clone(), rng.fork());
            world.run(async move {
                let ask = [ScriptedRequest::get(id, 0)];
                ask_all(&net, &at(FRONT), &ask, &mut rng).await
            });
        }
        let writes = since(before).shared_writes / 200;
        assert!(writes <= 12, "{writes} a connection");
        rig.drain(Duration::from_secs(30));
    });
}
