//! Exchanges in which one side sends little or nothing for long: which continue and which Weir ends. In simulated time,
//! in every pairing of protocols.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.
mod sim;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use sim::exchange::{PAIRS, Protocol, ScriptedExchange, WireEvent};
use sim::{Rig, check};
use weir::io::sim::{Peer, World, at};
use weir::io::{Instant, Net};

/// The defaults: `first_byte` 60 s, `body_stall` 30 s, `body_rate` 240 B/s.
fn config(up: Protocol, more: &str) -> String {
    let scheme = match up {
        Protocol::Http1 => "http",
        Protocol::Http2 => "h2c",
    };
    format!(
        "retries = 0\n{more}\n[listen.\"10.1.0.1:80\"]\n[upstream]\napp = [\"{scheme}://10.2.0.1:8080\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    )
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What one side does with the exchange. It gets the time at which the exchange began.
type Script<T> = fn(ScriptedExchange, Instant) -> Step<T>;

type Step<T> = Pin<Box<dyn Future<Output = T>>>;

/// The bytes of the body, the last event, and the time from the beginning to that.
type Report = (usize, WireEvent, Duration);

/// Runs an exchange in every pairing and passes the results of both sides to `judge`.
fn run_in_all_pairings<C: 'static, E: Copy + 'static>(
    more: &str,
    client: Script<C>,
    endpoint: Script<E>,
    judge: impl Fn((Protocol, Protocol), C, Option<E>),
) {
    run_request_in_all_pairings(ScriptedExchange::ask, more, client, endpoint, judge);
}

fn run_request_in_all_pairings<C: 'static, E: Copy + 'static>(
    ask: fn(&mut ScriptedExchange),
    more: &str,
    client: Script<C>,
    endpoint: Script<E>,
    judge: impl Fn((Protocol, Protocol), C, Option<E>),
) {
    for (down, up) in PAIRS {
        check(4, |world: &World| {
            let rig = Rig::start(world, 1, &config(up, more));
            let found = Rc::new(Cell::new(None));
            let result = found.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                let (net, result) = (peer.net().clone(), result.clone());
                async move {
                    let mut wire = ScriptedExchange::new(peer, up, false);
                    if wire.hear(Instant::NEVER).await == WireEvent::Head(0) {
                        result.set(Some(endpoint(wire, net.now()).await));
                    }
                }
            });
            let net = world.client();
            let outcome = world.run(async move {
                let mut wire = ScriptedExchange::connect(&net, &at("10.1.0.1:80"), down).await;
                ask(&mut wire);
                let began = net.now();
                client(wire, began).await
            });
            world.run_for(seconds(5));
            judge((down, up), outcome, found.get());
            rig.drain(seconds(1));
        });
    }
}

/// Reads to the end. Returns the bytes of the body, the last event and the time that it took.
async fn listen(mut wire: ScriptedExchange, began: Instant) -> Report {
    let mut bytes = 0;
    loop {
        match wire.hear(Instant::NEVER).await {
            WireEvent::Data(data) => bytes += data.len(),
            WireEvent::Head(1 | 100..=200) => {}
            heard => return (bytes, heard, wire.peer.net().now().since(began)),
        }
    }
}

/// Like `listen`, while sending `part` at an interval.
async fn talk(
    mut wire: ScriptedExchange,
    began: Instant,
    part: &'static [u8],
    every: Duration,
) -> Report {
    let (mut bytes, mut next) = (0, began + every);
    loop {
        match wire.hear(next).await {
            WireEvent::Nothing => {
                wire.say(part);
                next = next + every;
            }
            WireEvent::Data(data) => bytes += data.len(),
            WireEvent::Head(1 | 100..=200) => {}
            heard => return (bytes, heard, wire.peer.net().now().since(began)),
        }
    }
}

/// Asserts that the client got an answer of Weir's own. Over HTTP/2 the scripts do not decode its status.
#[track_caller]
fn assert_local_answer(pairing: (Protocol, Protocol), last: WireEvent, status: u16) {
    let want = match pairing.0 {
        Protocol::Http1 => WireEvent::Head(status),
        Protocol::Http2 => WireEvent::End,
    };
    assert_eq!(last, want, "{pairing:?}");
}

/// A script that sends nothing more and reads to the end.
fn listen_only(wire: ScriptedExchange, began: Instant) -> Step<Report> {
    Box::pin(listen(wire, began))
}

/// A client's script that ends its request and reads to the end.
fn end_request(mut wire: ScriptedExchange, began: Instant) -> Step<Report> {
    wire.end();
    Box::pin(listen(wire, began))
}

/// A client's script that uploads 40 bytes a second, far below `body_rate`.
fn upload_slowly(wire: ScriptedExchange, began: Instant) -> Step<Report> {
    Box::pin(talk(wire, began, &[b'x'; 40], seconds(1)))
}

/// An endpoint's script that never answers. Its result is the time until the exchange ended.
fn time_to_end(wire: ScriptedExchange, began: Instant) -> Step<Duration> {
    Box::pin(async move { listen(wire, began).await.2 })
}

#[test]
fn a_silent_client_receives_a_slow_answer_to_its_end() {
    run_in_all_pairings(
        "",
        listen_only,
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                for n in 1..=30 {
                    wire.pass(began + n * seconds(20)).await;
                    wire.say(b"event");
                }
                wire.end();
                wire.pass(began + seconds(602)).await;
            })
        },
        |pairing, (bytes, heard, _), _| {
            assert_eq!((bytes, heard), (150, WireEvent::End), "{pairing:?}");
        },
    );
}

#[test]
fn a_slow_upload_continues_once_the_answer_has_begun() {
    run_in_all_pairings(
        "",
        upload_slowly,
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                let mut bytes = 0;
                while let WireEvent::Data(data) = wire.hear(began + seconds(600)).await {
                    bytes += data.len();
                }
                wire.end();
                wire.pass(began + seconds(602)).await;
                bytes
            })
        },
        |pairing, (_, heard, _), got| {
            assert_eq!(heard, WireEvent::End, "{pairing:?}");
            assert!(got.unwrap() >= 590 * 40, "{pairing:?} {got:?}");
        },
    );
}

#[test]
fn an_exchange_without_bytes_in_either_direction_ends() {
    run_in_all_pairings(
        "",
        listen_only,
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                wire.pass(began + seconds(10)).await;
                wire.say(b"last");
                listen(wire, began).await.2
            })
        },
        |pairing, (bytes, heard, took), _| {
            assert_eq!((bytes, heard), (4, WireEvent::Gone), "{pairing:?}");
            assert!(took >= seconds(40) && took < seconds(42), "{took:?}");
        },
    );
}

#[test]
fn a_slow_or_stalled_upload_before_an_answer_ends() {
    run_in_all_pairings(
        "",
        upload_slowly,
        time_to_end,
        |pairing, (_, heard, took), _| {
            assert_local_answer(pairing, heard, 408);
            assert!(took >= seconds(58) && took < seconds(64), "{took:?}");
        },
    );
    run_in_all_pairings("", listen_only, time_to_end, |pairing, (_, _, took), _| {
        assert!(
            took >= seconds(29) && took < seconds(32),
            "{pairing:?} {took:?}"
        );
    });
}

/// A client that does not read cannot delay its end by sending a byte now and then.
#[test]
fn a_client_that_does_not_read_is_cut_off_even_if_it_sends() {
    run_in_all_pairings(
        "",
        |mut wire, began| {
            Box::pin(async move {
                wire.opens_windows = false;
                for n in 1..=20 {
                    wire.say(b"x");
                    wire.wait(began + n * seconds(10)).await;
                }
            })
        },
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                (0..64).for_each(|_| wire.say(&[b'y'; 64 * 1024 - 1][..16 * 1024 - 1]));
                loop {
                    match wire.hear(began + seconds(300)).await {
                        WireEvent::Data(_) => {}
                        heard => {
                            assert_eq!(heard, WireEvent::Gone);
                            return wire.peer.net().now().since(began);
                        }
                    }
                }
            })
        },
        |pairing, (), ended| {
            let ended = ended.expect("the endpoint hears of the end");
            assert!(ended < seconds(75), "{pairing:?} {ended:?}");
        },
    );
}

#[test]
fn interim_answers_restart_the_wait_for_an_answer() {
    run_in_all_pairings(
        "",
        end_request,
        |mut wire, began| {
            Box::pin(async move {
                for n in 1..=20 {
                    wire.pass(began + n * seconds(50)).await;
                    wire.answer(102);
                }
                wire.pass(began + seconds(1_050)).await;
                wire.answer(200);
                wire.say(b"done");
                wire.end();
                wire.pass(began + seconds(1_052)).await;
            })
        },
        |pairing, (bytes, heard, _), _| {
            assert_eq!((bytes, heard), (4, WireEvent::End), "{pairing:?}");
        },
    );
}

#[test]
fn an_interim_answer_must_be_followed_in_time() {
    run_in_all_pairings(
        "",
        end_request,
        |mut wire, began| {
            Box::pin(async move {
                wire.pass(began + seconds(50)).await;
                wire.answer(103);
                wire.pass(began + seconds(150)).await;
            })
        },
        |pairing, (_, heard, took), _| {
            assert_local_answer(pairing, heard, 504);
            assert!(took >= seconds(109) && took < seconds(112), "{took:?}");
        },
    );
}

#[test]
fn total_bounds_interim_answers() {
    run_in_all_pairings(
        "timeouts = { total = \"2m\" }",
        end_request,
        |mut wire, began| {
            Box::pin(async move {
                for n in 1..=20 {
                    wire.pass(began + n * seconds(10)).await;
                    wire.answer(102);
                }
            })
        },
        |pairing, (_, heard, took), _| {
            assert_local_answer(pairing, heard, 504);
            assert!(took >= seconds(119) && took < seconds(122), "{took:?}");
        },
    );
}

#[test]
fn interim_answers_without_end_are_cut_off() {
    run_in_all_pairings(
        "",
        end_request,
        |mut wire, began| {
            Box::pin(async move {
                for n in 0..10_000 {
                    wire.answer(102);
                    if n % 100 == 0 && wire.hear(wire.peer.net().now()).await == WireEvent::Gone {
                        return;
                    }
                }
                wire.pass(began + seconds(5)).await;
            })
        },
        |pairing, (_, heard, took), _| {
            assert_local_answer(pairing, heard, 502);
            assert!(took < seconds(5), "{pairing:?} {took:?}");
        },
    );
}

/// The client has more to send and first waits for an answer.
#[test]
fn a_grpc_call_may_pause_as_long_as_first_byte_allows() {
    run_request_in_all_pairings(
        ScriptedExchange::ask_call,
        "",
        |mut wire, began| {
            wire.say(b"\0\0\0\0\x02hi");
            Box::pin(listen(wire, began))
        },
        |mut wire, began| {
            Box::pin(async move {
                wire.pass(began + seconds(45)).await;
                wire.answer(200);
                wire.say(b"\0\0\0\0\x02ho");
                wire.end();
                wire.pass(began + seconds(50)).await;
            })
        },
        |pairing, (bytes, heard, _), _| {
            assert_eq!((bytes, heard), (7, WireEvent::End), "{pairing:?}");
        },
    );
    run_request_in_all_pairings(
        ScriptedExchange::ask_call,
        "",
        listen_only,
        time_to_end,
        |pairing, (_, _, took), _| {
            assert!(
                took >= seconds(59) && took < seconds(62),
                "{pairing:?} {took:?}"
            );
        },
    );
}

/// The client waits for the endpoint's 100 Continue, and only then do the limits for its body start.
#[test]
fn the_wait_for_100_continue_is_not_a_stall() {
    run_request_in_all_pairings(
        ScriptedExchange::ask_with_expect,
        "",
        |mut wire, began| {
            Box::pin(async move {
                // First the endpoint is slow, then the client.
                assert!(matches!(
                    wire.hear(Instant::NEVER).await,
                    WireEvent::Head(100 | 1)
                ));
                wire.wait(began + seconds(70)).await;
                wire.say(b"body");
                wire.end();
                listen(wire, began).await
            })
        },
        |mut wire, began| {
            Box::pin(async move {
                wire.pass(began + seconds(45)).await;
                wire.answer(100);
                while wire.hear(Instant::NEVER).await != WireEvent::End {}
                wire.answer(200);
                wire.say(b"done");
                wire.end();
                wire.pass(began + seconds(80)).await;
            })
        },
        |pairing, (bytes, heard, _), _| {
            assert_eq!((bytes, heard), (4, WireEvent::End), "{pairing:?}");
        },
    );
    run_request_in_all_pairings(
        ScriptedExchange::ask_with_expect,
        "",
        listen_only,
        time_to_end,
        |pairing, (_, heard, took), _| {
            assert_local_answer(pairing, heard, 504);
            assert!(
                took >= seconds(59) && took < seconds(62),
                "{pairing:?} {took:?}"
            );
        },
    );
}

/// The same client after a protocol switch.
#[test]
fn a_tunnel_client_that_does_not_read_is_cut_off_even_if_it_sends() {
    check(10, |world| {
        let rig = Rig::start(world, 1, &config(Protocol::Http1, ""));
        let ended = Rc::new(Cell::new(None));
        let told = ended.clone();
        world.endpoint(&at("10.2.0.1:8080"), move |mut peer| {
            let told = told.clone();
            async move {
                let net = peer.net().clone();
                if peer.read_until(b"\r\n\r\n").await.is_err() {
                    return;
                }
                let began = net.now();
                peer.write(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
                peer.write(&vec![b'y'; 4 << 20]);
                while let Ok(Some(_)) = peer.recv().await {}
                told.set(Some(net.now().since(began)));
            }
        });
        let net = world.client();
        world.run(async move {
            let mut peer = Peer::connect(&net, &at("10.1.0.1:80")).await.unwrap();
            let ask =
                b"GET / HTTP/1.1\r\nHost: sim\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            peer.send(ask).await.unwrap();
            for n in 1..=20 {
                net.sleep_until(Instant(n * 10_000_000_000)).await;
                if peer.send(b"x").await.is_err() {
                    return;
                }
            }
        });
        let ended = ended.get().expect("the endpoint hears of the end");
        // `idle` is 75 s.
        assert!(ended >= seconds(74) && ended < seconds(90), "{ended:?}");
        rig.drain(seconds(1));
    });
}
