//! PINGs to gRPC servers, which limit them, in simulated time.
//!
//! The models are those of grpc-go (`http2Server.handlePing` with the default `EnforcementPolicy`: `MinTime` 5 min, no
//! PING without a stream), of gRPC core (`Chttp2PingAbusePolicy`; grpcio is built on it) and of grpc-java
//! (`KeepAliveEnforcer`).
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.
mod sim;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sim::exchange::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Protocol, RST_STREAM,
    ScriptedExchange, frame, status_block,
};
use sim::{Rig, check};
use weir::io::sim::{Peer, Rng, Sim, World, at};
use weir::io::{Instant, Net};

const CONFIG: &str = r#"
retries = 0
timeouts = { first_byte = "3h", body_stall = "3h" }
[listen."10.1.0.1:80"]
[upstream]
app = ["h2c://10.2.0.1:8080"]
[[route]]
match = "/*"
to = "app"
"#;

const HOUR: Duration = Duration::from_secs(3_600);

/// The gRPC implementation whose rules an endpoint follows.
#[derive(Clone, Copy, Debug)]
enum Server {
    Go,
    Core,
    Java,
}

const SERVERS: [Server; 3] = [Server::Go, Server::Core, Server::Java];

/// A gRPC server's record of the PINGs on a connection.
struct Enforcer {
    server: Server,
    last: Option<Instant>,
    strikes: u32,
    /// The server has sent HEADERS or DATA since the last PING.
    has_spoken: bool,
}

impl Enforcer {
    fn new(server: Server) -> Self {
        Self {
            server,
            last: None,
            strikes: 0,
            has_spoken: false,
        }
    }

    fn note_frame(&mut self) {
        self.has_spoken = true;
        if !matches!(self.server, Server::Go) {
            (self.last, self.strikes) = (None, 0);
        }
    }

    /// Counts a PING. Returns false if the server would close the connection.
    fn allows(&mut self, now: Instant, has_streams: bool) -> bool {
        let before = self.last;
        if std::mem::take(&mut self.has_spoken) && matches!(self.server, Server::Go) {
            (self.last, self.strikes) = (Some(now), 0);
            return true;
        }
        let least = match has_streams {
            true => Duration::from_secs(5 * 60),
            false => 2 * HOUR,
        };
        let is_early = before.is_some_and(|before| before + least > now);
        self.strikes += u32::from(is_early);
        if !is_early || !matches!(self.server, Server::Java) {
            self.last = Some(now);
        }
        self.strikes <= 2
    }
}

/// How an endpoint answers a call.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Nothing,
    /// A complete answer after this time.
    After(Duration),
    /// A head at once, then a byte at this interval.
    Every(Duration),
}

/// What the endpoint has received.
#[derive(Default)]
struct Counts {
    connections: Cell<u32>,
    pings: Cell<u32>,
    calls: Cell<u32>,
}

/// Serves a connection until it ends. Fails the test on too many PINGs.
async fn serve(peer: Peer<Sim>, server: Server, counts: Rc<Counts>, draw: impl Fn() -> Answer) {
    let net = peer.net().clone();
    counts.connections.set(counts.connections.get() + 1);
    let mut wire = ScriptedExchange::new(peer, Protocol::Http2, false);
    let mut enforcer = Enforcer::new(server);
    let mut calls: BTreeMap<u32, (Answer, Instant)> = BTreeMap::new();
    loop {
        let next = calls.values().map(|(_, at)| *at).min();
        let Ok(got) = wire.hear_frame(next.unwrap_or(Instant::NEVER)).await else {
            return;
        };
        let now = net.now();
        if let Some(got) = got {
            match got.kind {
                HEADERS => {
                    counts.calls.set(counts.calls.get() + 1);
                    let answer = draw();
                    let first = match answer {
                        Answer::Nothing => Instant::NEVER,
                        Answer::After(wait) => now + wait,
                        Answer::Every(wait) => {
                            let head = frame(HEADERS, END_HEADERS, got.stream, &status_block(200));
                            wire.peer.write(&head);
                            enforcer.note_frame();
                            now + wait
                        }
                    };
                    calls.insert(got.stream, (answer, first));
                }
                RST_STREAM => drop(calls.remove(&got.stream)),
                PING if got.flags & ACK == 0 => {
                    counts.pings.set(counts.pings.get() + 1);
                    let is_fine = enforcer.allows(now, !calls.is_empty());
                    assert!(is_fine, "{server:?}: too_many_pings");
                    wire.peer.write(&frame(PING, ACK, 0, &got.payload));
                }
                GOAWAY => {}
                _ => {}
            }
        }
        for (&stream, (answer, at)) in calls.iter_mut().filter(|(_, (_, at))| *at <= now) {
            enforcer.note_frame();
            match answer {
                Answer::Every(wait) => {
                    wire.peer.write(&frame(DATA, 0, stream, b"."));
                    *at = now + *wait;
                }
                _ => {
                    let flags = END_HEADERS | END_STREAM;
                    let whole = frame(HEADERS, flags, stream, &status_block(204));
                    wire.peer.write(&whole);
                    *at = Instant::NEVER;
                    *answer = Answer::After(Duration::ZERO);
                }
            }
        }
        calls.retain(|_, (answer, _)| !matches!(answer, Answer::After(Duration::ZERO)));
    }
}

/// Makes a call and waits for its end until `until`. Returns whether it ended.
async fn call(net: &Sim, until: Instant) -> bool {
    let mut wire = ScriptedExchange::connect(net, &at("10.1.0.1:80"), Protocol::Http1).await;
    wire.ask();
    wire.end();
    loop {
        match wire.hear(until).await {
            sim::exchange::WireEvent::Nothing => {
                wire.peer.reset();
                return false;
            }
            sim::exchange::WireEvent::Head(status) if status >= 400 => panic!("{status}"),
            sim::exchange::WireEvent::Head(204) | sim::exchange::WireEvent::End => return true,
            sim::exchange::WireEvent::Gone => panic!("the call was broken off"),
            _ => {}
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_call_may_be_silent_or_slow_for_an_hour() {
    let all = [
        Answer::Nothing,
        Answer::Every(seconds(3)),
        Answer::Every(seconds(12)),
        Answer::Every(seconds(70)),
        Answer::Every(seconds(400)),
    ];
    for (answer, server) in all
        .into_iter()
        .flat_map(|answer| SERVERS.map(|it| (answer, it)))
    {
        check(1, |world| {
            let rig = Rig::start(world, 1, CONFIG);
            let counts = Rc::new(Counts::default());
            let shared = counts.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                serve(peer, server, shared.clone(), move || answer)
            });
            let net = world.client();
            let had_end = Rc::new(Cell::new(None));
            let told = had_end.clone();
            world.spawn(async move { told.set(Some(call(&net, net.now() + HOUR).await)) });
            // The simulator limits one run to an hour.
            (0..2).for_each(|_| world.run_for(HOUR / 2 + seconds(1)));
            assert_eq!(had_end.get(), Some(false), "{answer:?}");
            assert_eq!(counts.connections.get(), 1);
            let pings = counts.pings.get();
            match answer {
                // Two PINGs early, then one every five minutes: Weir still probes a silent endpoint.
                Answer::Nothing => assert!((13..=14).contains(&pings), "{pings}"),
                Answer::Every(wait) if wait < seconds(10) => assert_eq!(pings, 0),
                _ => assert!(pings > 0),
            }
            rig.drain(seconds(1));
        });
    }
}

#[test]
fn calls_of_all_kinds_come_and_go_for_hours() {
    for server in SERVERS {
        check(2, |world| {
            let rig = Rig::start(world, 1, CONFIG);
            let counts = Rc::new(Counts::default());
            let shared = counts.clone();
            let rng = Rc::new(RefCell::new(world.rng(7)));
            let draws = rng.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                let draws = draws.clone();
                serve(peer, server, shared.clone(), move || {
                    random_answer(&mut draws.borrow_mut())
                })
            });
            let left = Rc::new(Cell::new(3));
            for _ in 0..3 {
                let (net, left, mut rng) = (world.client(), left.clone(), rng.borrow_mut().fork());
                world.spawn(async move {
                    for _ in 0..12 {
                        // A client that has waited long enough resets its call, and Weir resets the stream at the
                        // endpoint.
                        let patience = seconds(rng.between(1, 900) as u64);
                        call(&net, net.now() + patience).await;
                        let pause = seconds([0, 0, 1, 15, 50][rng.below(5)]);
                        net.sleep_until(net.now() + pause).await;
                    }
                    left.set(left.get() - 1);
                });
            }
            while left.get() > 0 {
                world.run_for(seconds(600));
            }
            assert_eq!(counts.calls.get(), 36);
            rig.drain(seconds(1));
        });
    }
}

fn random_answer(rng: &mut Rng) -> Answer {
    let wait = seconds([1, 5, 11, 30, 100, 301, 700][rng.below(7)]);
    match rng.below(3) {
        0 => Answer::Nothing,
        1 => Answer::After(wait),
        _ => Answer::Every(wait),
    }
}

/// Weir finds a dead endpoint at gRPC's pace even if the endpoint answered its first PINGs.
#[test]
fn an_endpoint_that_dies_within_a_long_call_is_found() {
    check(20, |world: &World| {
        let rig = Rig::start(world, 1, CONFIG);
        world.endpoint(&at("10.2.0.1:8080"), |peer| async move {
            let mut wire = ScriptedExchange::new(peer, Protocol::Http2, false);
            let mut pings = 2;
            while let Ok(Some(got)) = wire.hear_frame(Instant::NEVER).await {
                if got.kind == PING && got.flags & ACK == 0 && pings > 0 {
                    pings -= 1;
                    wire.peer.write(&frame(PING, ACK, 0, &got.payload));
                }
            }
        });
        let net = world.client();
        let (heard, took) = world.run(async move {
            let began = net.now();
            let mut wire =
                ScriptedExchange::connect(&net, &at("10.1.0.1:80"), Protocol::Http1).await;
            wire.ask();
            wire.end();
            (wire.hear(Instant::NEVER).await, net.now().since(began))
        });
        assert_eq!(heard, sim::exchange::WireEvent::Head(502));
        // The PINGs come after 10 s, 10 s, 5 min and 10 s; the last has 15 s to be answered.
        assert!(took > seconds(340) && took < seconds(350), "{took:?}");
        rig.drain(seconds(1));
    });
}
