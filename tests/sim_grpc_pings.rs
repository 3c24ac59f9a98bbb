//! PINGs to endpoints that count them, as servers of gRPC do, in simulated time.
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

use sim::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Speaks, Wire, frame,
    status_block,
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

/// Whose rules an endpoint has.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    Go,
    Core,
    Java,
}

const DIALECTS: [Dialect; 3] = [Dialect::Go, Dialect::Core, Dialect::Java];

/// What a server of gRPC remembers of the PINGs on a connection.
struct Enforcer {
    dialect: Dialect,
    last: Option<Instant>,
    strikes: u32,
    /// It has sent HEADERS or DATA since the last PING.
    has_spoken: bool,
}

impl Enforcer {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            last: None,
            strikes: 0,
            has_spoken: false,
        }
    }

    fn speaks(&mut self) {
        self.has_spoken = true;
        if !matches!(self.dialect, Dialect::Go) {
            (self.last, self.strikes) = (None, 0);
        }
    }

    /// Takes a PING; false: it is one too many.
    fn allows(&mut self, now: Instant, has_streams: bool) -> bool {
        let before = self.last;
        if std::mem::take(&mut self.has_spoken) && matches!(self.dialect, Dialect::Go) {
            (self.last, self.strikes) = (Some(now), 0);
            return true;
        }
        let least = match has_streams {
            true => Duration::from_secs(5 * 60),
            false => 2 * HOUR,
        };
        let is_early = before.is_some_and(|before| before + least > now);
        self.strikes += u32::from(is_early);
        if !is_early || !matches!(self.dialect, Dialect::Java) {
            self.last = Some(now);
        }
        self.strikes <= 2
    }
}

/// What an endpoint does with a call.
#[derive(Clone, Copy, Debug)]
enum Says {
    Nothing,
    /// Everything, after a while.
    After(Duration),
    /// A head at once, and a byte so often.
    Every(Duration),
}

/// What endpoints have seen.
#[derive(Default)]
struct Seen {
    connections: Cell<u32>,
    pings: Cell<u32>,
    calls: Cell<u32>,
}

/// Serves a connection until it ends; one PING too many fails the test.
async fn serve(peer: Peer<Sim>, dialect: Dialect, seen: Rc<Seen>, draw: impl Fn() -> Says) {
    let net = peer.net().clone();
    seen.connections.set(seen.connections.get() + 1);
    let mut wire = Wire::new(peer, Speaks::Http2, false);
    let mut enforcer = Enforcer::new(dialect);
    let mut calls: BTreeMap<u32, (Says, Instant)> = BTreeMap::new();
    loop {
        let next = calls.values().map(|(_, at)| *at).min();
        let Ok(got) = wire.hear_frame(next.unwrap_or(Instant::NEVER)).await else {
            return;
        };
        let now = net.now();
        if let Some(got) = got {
            match got.kind {
                HEADERS => {
                    seen.calls.set(seen.calls.get() + 1);
                    let says = draw();
                    let first = match says {
                        Says::Nothing => Instant::NEVER,
                        Says::After(wait) => now + wait,
                        Says::Every(wait) => {
                            let head = frame(HEADERS, END_HEADERS, got.stream, &status_block(200));
                            wire.peer.write(&head);
                            enforcer.speaks();
                            now + wait
                        }
                    };
                    calls.insert(got.stream, (says, first));
                }
                RST_STREAM => drop(calls.remove(&got.stream)),
                PING if got.flags & ACK == 0 => {
                    seen.pings.set(seen.pings.get() + 1);
                    let is_fine = enforcer.allows(now, !calls.is_empty());
                    assert!(is_fine, "{dialect:?}: too_many_pings");
                    wire.peer.write(&frame(PING, ACK, 0, &got.payload));
                }
                GOAWAY => {}
                _ => {}
            }
        }
        for (&stream, (says, at)) in calls.iter_mut().filter(|(_, (_, at))| *at <= now) {
            enforcer.speaks();
            match says {
                Says::Every(wait) => {
                    wire.peer.write(&frame(DATA, 0, stream, b"."));
                    *at = now + *wait;
                }
                _ => {
                    let flags = END_HEADERS | END_STREAM;
                    let whole = frame(HEADERS, flags, stream, &status_block(204));
                    wire.peer.write(&whole);
                    *at = Instant::NEVER;
                    *says = Says::After(Duration::ZERO);
                }
            }
        }
        calls.retain(|_, (says, _)| !matches!(says, Says::After(Duration::ZERO)));
    }
}

/// Makes a call and waits until there is an end of it, or until then. Says whether it had an end.
async fn call(net: &Sim, until: Instant) -> bool {
    let mut wire = Wire::connect(net, &at("10.1.0.1:80"), Speaks::Http1).await;
    wire.ask();
    wire.end();
    loop {
        match wire.hear(until).await {
            sim::wire::Heard::Nothing => {
                wire.peer.reset();
                return false;
            }
            sim::wire::Heard::Head(status) if status >= 400 => panic!("{status}"),
            sim::wire::Heard::Head(204) | sim::wire::Heard::End => return true,
            sim::wire::Heard::Gone => panic!("the call was broken off"),
            _ => {}
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_call_may_say_nothing_or_little_for_an_hour() {
    let all = [
        Says::Nothing,
        Says::Every(seconds(3)),
        Says::Every(seconds(12)),
        Says::Every(seconds(70)),
        Says::Every(seconds(400)),
    ];
    for (says, dialect) in all
        .into_iter()
        .flat_map(|says| DIALECTS.map(|it| (says, it)))
    {
        check(1, |world| {
            let rig = Rig::start(world, 1, CONFIG);
            let seen = Rc::new(Seen::default());
            let shared = seen.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                serve(peer, dialect, shared.clone(), move || says)
            });
            let net = world.client();
            let had_end = Rc::new(Cell::new(None));
            let told = had_end.clone();
            world.spawn(async move { told.set(Some(call(&net, net.now() + HOUR).await)) });
            // One run may not take longer than an hour.
            (0..2).for_each(|_| world.run_for(HOUR / 2 + seconds(1)));
            assert_eq!(had_end.get(), Some(false), "{says:?}");
            assert_eq!(seen.connections.get(), 1);
            let pings = seen.pings.get();
            match says {
                // Two soon, then one in five minutes: who is silent for long is still looked after.
                Says::Nothing => assert!((13..=14).contains(&pings), "{pings}"),
                Says::Every(wait) if wait < seconds(10) => assert_eq!(pings, 0),
                _ => assert!(pings > 0),
            }
            rig.drain(seconds(1));
        });
    }
}

#[test]
fn calls_of_all_kinds_come_and_go_for_hours() {
    for dialect in DIALECTS {
        check(2, |world| {
            let rig = Rig::start(world, 1, CONFIG);
            let seen = Rc::new(Seen::default());
            let shared = seen.clone();
            let rng = Rc::new(RefCell::new(world.rng(7)));
            let draws = rng.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                let draws = draws.clone();
                serve(peer, dialect, shared.clone(), move || {
                    drawn(&mut draws.borrow_mut())
                })
            });
            let left = Rc::new(Cell::new(3));
            for _ in 0..3 {
                let (net, left, mut rng) = (world.client(), left.clone(), rng.borrow_mut().fork());
                world.spawn(async move {
                    for _ in 0..12 {
                        // Whoever has waited for long enough gives up: the endpoint hears of that, and says nothing.
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
            assert_eq!(seen.calls.get(), 36);
            rig.drain(seconds(1));
        });
    }
}

fn drawn(rng: &mut Rng) -> Says {
    let wait = seconds([1, 5, 11, 30, 100, 301, 700][rng.below(7)]);
    match rng.below(3) {
        0 => Says::Nothing,
        1 => Says::After(wait),
        _ => Says::Every(wait),
    }
}

/// An endpoint that has answered all PINGs that it gets soon is still found dead, at gRPC's pace.
#[test]
fn an_endpoint_that_dies_within_a_long_call_is_found() {
    check(20, |world: &World| {
        let rig = Rig::start(world, 1, CONFIG);
        world.endpoint(&at("10.2.0.1:8080"), |peer| async move {
            let mut wire = Wire::new(peer, Speaks::Http2, false);
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
            let mut wire = Wire::connect(&net, &at("10.1.0.1:80"), Speaks::Http1).await;
            wire.ask();
            wire.end();
            (wire.hear(Instant::NEVER).await, net.now().since(began))
        });
        assert_eq!(heard, sim::wire::Heard::Head(502));
        // Ten seconds twice, five minutes and ten seconds, fifteen for the last.
        assert!(took > seconds(340) && took < seconds(350), "{took:?}");
        rig.drain(seconds(1));
    });
}
