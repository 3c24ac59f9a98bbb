//! Exchanges in which somebody says little or nothing for long: which of them go on, and which are given up. In simulated
//! time, in every pairing of protocols.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.
mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sim::wire::{Heard, Speaks, Wire};
use sim::{Rig, check};
use weir::io::sim::{Peer, World, at};
use weir::io::{Instant, Net};

/// The defaults: `first_byte` 60 s, `body_stall` 30 s, `body_rate` 240 B/s.
fn config(up: Speaks, more: &str) -> String {
    let scheme = match up {
        Speaks::Http1 => "http",
        Speaks::Http2 => "h2c",
    };
    format!(
        "retries = 0\n{more}\n[listen.\"10.1.0.1:80\"]\n[upstream]\napp = [\"{scheme}://10.2.0.1:8080\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    )
}

const PAIRINGS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What one side does with its end of the exchange, from its beginning on.
type Script<T> = fn(Wire, Instant) -> std::pin::Pin<Box<dyn Future<Output = T>>>;

/// Runs an exchange in all pairings, and has both sides' findings judged.
fn in_all_pairings<C: 'static, E: Copy + 'static>(
    more: &str,
    client: Script<C>,
    endpoint: Script<E>,
    judge: impl Fn((Speaks, Speaks), C, Option<E>),
) {
    asking_in_all_pairings(Wire::ask, more, client, endpoint, judge);
}

fn asking_in_all_pairings<C: 'static, E: Copy + 'static>(
    ask: fn(&mut Wire),
    more: &str,
    client: Script<C>,
    endpoint: Script<E>,
    judge: impl Fn((Speaks, Speaks), C, Option<E>),
) {
    for (down, up) in PAIRINGS {
        check(4, |world: &World| {
            let rig = Rig::start(world, 1, &config(up, more));
            let found = Rc::new(Cell::new(None));
            let finds = found.clone();
            world.endpoint(&at("10.2.0.1:8080"), move |peer| {
                let (net, finds) = (peer.net().clone(), finds.clone());
                async move {
                    let mut wire = Wire::new(peer, up, false);
                    if wire.hear(Instant::NEVER).await == Heard::Head(0) {
                        finds.set(Some(endpoint(wire, net.now()).await));
                    }
                }
            });
            let net = world.client();
            let outcome = world.run(async move {
                let mut wire = Wire::connect(&net, &at("10.1.0.1:80"), down).await;
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

/// Hears everything to the end: the bytes of the body, how it ended, and after how long.
async fn listen(mut wire: Wire, began: Instant) -> (usize, Heard, Duration) {
    let mut bytes = 0;
    loop {
        match wire.hear(Instant::NEVER).await {
            Heard::Data(data) => bytes += data.len(),
            Heard::Head(1 | 100..=200) => {}
            heard => return (bytes, heard, wire.peer.net().now().since(began)),
        }
    }
}

/// The same, while a part of the request is sent so often.
async fn talk(
    mut wire: Wire,
    began: Instant,
    part: &'static [u8],
    every: Duration,
) -> (usize, Heard, Duration) {
    let (mut bytes, mut next) = (0, began + every);
    loop {
        match wire.hear(next).await {
            Heard::Nothing => {
                wire.say(part);
                next = next + every;
            }
            Heard::Data(data) => bytes += data.len(),
            Heard::Head(1 | 100..=200) => {}
            heard => return (bytes, heard, wire.peer.net().now().since(began)),
        }
    }
}

#[test]
fn a_quiet_client_hears_all_that_the_endpoint_says() {
    in_all_pairings(
        "",
        |wire, began| Box::pin(listen(wire, began)),
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
            assert_eq!((bytes, heard), (150, Heard::End), "{pairing:?}");
        },
    );
}

#[test]
fn an_endpoint_that_has_answered_hears_whatever_little_the_client_says() {
    in_all_pairings(
        "",
        |wire, began| Box::pin(talk(wire, began, &[b'x'; 40], seconds(1))),
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                let mut bytes = 0;
                while let Heard::Data(data) = wire.hear(began + seconds(600)).await {
                    bytes += data.len();
                }
                wire.end();
                wire.pass(began + seconds(602)).await;
                bytes
            })
        },
        |pairing, (_, heard, _), got| {
            assert_eq!(heard, Heard::End, "{pairing:?}");
            assert!(got.unwrap() >= 590 * 40, "{pairing:?} {got:?}");
        },
    );
}

#[test]
fn an_exchange_in_which_nobody_says_anything_ends() {
    in_all_pairings(
        "",
        |wire, began| Box::pin(listen(wire, began)),
        |mut wire, began| {
            Box::pin(async move {
                wire.answer(200);
                wire.pass(began + seconds(10)).await;
                wire.say(b"last");
                listen(wire, began).await.2
            })
        },
        |pairing, (bytes, heard, took), _| {
            assert_eq!((bytes, heard), (4, Heard::Gone), "{pairing:?}");
            assert!(took >= seconds(40) && took < seconds(42), "{took:?}");
        },
    );
}

#[test]
fn an_upload_that_crawls_or_stands_still_before_an_answer_ends() {
    in_all_pairings(
        "",
        |wire, began| Box::pin(talk(wire, began, &[b'x'; 40], seconds(1))),
        |wire, began| Box::pin(async move { listen(wire, began).await.2 }),
        |pairing, (_, heard, took), _| {
            let is_told = matches!(heard, Heard::Head(408 | 0) | Heard::End | Heard::Gone);
            assert!(is_told, "{pairing:?} {heard:?}");
            assert!(took >= seconds(58) && took < seconds(64), "{took:?}");
        },
    );
    in_all_pairings(
        "",
        |wire, began| Box::pin(listen(wire, began)),
        |wire, began| Box::pin(async move { listen(wire, began).await.2 }),
        |pairing, (_, _, took), _| {
            assert!(
                took >= seconds(29) && took < seconds(32),
                "{pairing:?} {took:?}"
            );
        },
    );
}

/// A slow reader gains nothing by a byte of its request now and then.
#[test]
fn a_client_that_does_not_read_is_given_up_whatever_it_says() {
    in_all_pairings(
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
                        Heard::Data(_) => {}
                        heard => {
                            assert_eq!(heard, Heard::Gone);
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
fn interim_answers_begin_the_wait_for_an_answer_anew() {
    in_all_pairings(
        "",
        |mut wire, began| {
            wire.end();
            Box::pin(listen(wire, began))
        },
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
            assert_eq!((bytes, heard), (4, Heard::End), "{pairing:?}");
        },
    );
}

#[test]
fn after_an_interim_answer_there_has_to_be_another_in_time() {
    in_all_pairings(
        "",
        |mut wire, began| {
            wire.end();
            Box::pin(listen(wire, began))
        },
        |mut wire, began| {
            Box::pin(async move {
                wire.pass(began + seconds(50)).await;
                wire.answer(103);
                wire.pass(began + seconds(150)).await;
            })
        },
        |pairing, (_, heard, took), _| {
            assert!(heard != Heard::Gone, "{pairing:?} has a local answer");
            assert!(took >= seconds(109) && took < seconds(112), "{took:?}");
        },
    );
}

#[test]
fn total_bounds_interim_answers() {
    in_all_pairings(
        "timeouts = { total = \"2m\" }",
        |mut wire, began| {
            wire.end();
            Box::pin(listen(wire, began))
        },
        |mut wire, began| {
            Box::pin(async move {
                for n in 1..=20 {
                    wire.pass(began + n * seconds(10)).await;
                    wire.answer(102);
                }
            })
        },
        |pairing, (_, heard, took), _| {
            assert!(heard != Heard::Gone, "{pairing:?} has a local answer");
            assert!(took >= seconds(119) && took < seconds(122), "{took:?}");
        },
    );
}

#[test]
fn interim_answers_without_end_are_cut_off() {
    in_all_pairings(
        "",
        |mut wire, began| {
            wire.end();
            Box::pin(listen(wire, began))
        },
        |mut wire, began| {
            Box::pin(async move {
                for n in 0..10_000 {
                    wire.answer(102);
                    if n % 100 == 0 && wire.hear(wire.peer.net().now()).await == Heard::Gone {
                        return;
                    }
                }
                wire.pass(began + seconds(5)).await;
            })
        },
        |pairing, (_, heard, took), _| {
            assert!(heard != Heard::Gone, "{pairing:?} has a local answer");
            assert!(took < seconds(5), "{pairing:?} {took:?}");
        },
    );
}

/// A call whose client has more to say, and waits for an answer first.
#[test]
fn a_call_may_pause_for_as_long_as_an_answer_may_take() {
    asking_in_all_pairings(
        Wire::ask_call,
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
            assert_eq!((bytes, heard), (7, Heard::End), "{pairing:?}");
        },
    );
    asking_in_all_pairings(
        Wire::ask_call,
        "",
        |wire, began| Box::pin(listen(wire, began)),
        |wire, began| Box::pin(async move { listen(wire, began).await.2 }),
        |pairing, (_, _, took), _| {
            assert!(
                took >= seconds(59) && took < seconds(62),
                "{pairing:?} {took:?}"
            );
        },
    );
}

/// Who has asked whether its body is wanted waits for the endpoint, and then has its own time.
#[test]
fn a_client_that_waits_for_100_continue_is_not_late() {
    asking_in_all_pairings(
        Wire::ask_first,
        "",
        |mut wire, began| {
            Box::pin(async move {
                // The endpoint takes its time, and then the client does.
                assert!(matches!(
                    wire.hear(Instant::NEVER).await,
                    Heard::Head(100 | 1)
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
                while wire.hear(Instant::NEVER).await != Heard::End {}
                wire.answer(200);
                wire.say(b"done");
                wire.end();
                wire.pass(began + seconds(80)).await;
            })
        },
        |pairing, (bytes, heard, _), _| {
            assert_eq!((bytes, heard), (4, Heard::End), "{pairing:?}");
        },
    );
    asking_in_all_pairings(
        Wire::ask_first,
        "",
        |wire, began| Box::pin(listen(wire, began)),
        |wire, began| Box::pin(async move { listen(wire, began).await.2 }),
        |pairing, (_, heard, took), _| {
            assert!(heard != Heard::Gone, "{pairing:?} has a local answer");
            assert!(
                took >= seconds(59) && took < seconds(62),
                "{pairing:?} {took:?}"
            );
        },
    );
}

/// The same slow reader, once protocols were switched.
#[test]
fn a_client_that_does_not_read_a_tunnel_is_given_up_whatever_it_says() {
    check(10, |world| {
        let rig = Rig::start(world, 1, &config(Speaks::Http1, ""));
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
