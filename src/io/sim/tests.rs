//! Tests of the simulator's own promises. The conformance suite tests that it behaves like a real system.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::io::{Address, Bell, Net, Rx};

/// Lets two clients talk to an echo server. Returns the fingerprint and time of the world afterwards.
fn echo(seed: u64) -> (u64, u64) {
    let world = World::new(seed);
    let address = at("10.0.0.1:7");
    world.endpoint(&address, echo_back);
    let client = world.client();
    let mut rng = world.rng(1);
    world.run(async move {
        for _ in 0..4 {
            let bytes = {
                let len = rng.size(40_000);
                rng.bytes(len)
            };
            let mut peer = Peer::connect(&client, &address).await.unwrap();
            let net = client.clone();
            let sent = bytes.clone();
            let (done, got) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Vec::new())));
            let (flag, slot) = (done.clone(), got.clone());
            let Peer { rx, tx, .. } = &mut peer;
            for part in sent.chunks(5_000) {
                crate::io::Tx::push(tx, net.pool().copy(part));
            }
            poll_fn(|cx| {
                if crate::io::Tx::poll_send(tx, cx).is_ready() && !flag.replace(true) {
                    crate::io::Tx::finish(tx);
                }
                loop {
                    match std::task::ready!(rx.poll_recv(cx)).unwrap() {
                        Some(chunk) => slot.borrow_mut().extend_from_slice(&chunk),
                        None => return std::task::Poll::Ready(()),
                    }
                }
            })
            .await;
            assert!(done.get());
            assert!(*got.borrow() == bytes);
        }
    });
    world.finish();
    (world.fingerprint(), world.now().0)
}

async fn echo_back(mut peer: Peer<Sim>) {
    while let Ok(Some(bytes)) = peer.recv().await {
        if peer.send(&bytes).await.is_err() {
            return;
        }
    }
    peer.finish();
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_does_not() {
    for seed in seeds(50) {
        assert_eq!(echo(seed), echo(seed), "seed {seed}");
        assert_ne!(echo(seed), echo(seed + 1), "seed {seed}");
    }
}

#[test]
fn time_jumps_and_sleeps_end_in_order() {
    check(50, |world| {
        let (net, order) = (world.core(0), Rc::new(RefCell::new(Vec::new())));
        for seconds in [30, 10, 20_u64] {
            let (net, order) = (net.clone(), order.clone());
            net.clone().spawn(async move {
                let until = net.now() + Duration::from_secs(seconds);
                net.sleep_until(until).await;
                assert!(net.now() >= until && net.now().since(until) < Duration::from_millis(5));
                order.borrow_mut().push(seconds);
            });
        }
        world.run_for(Duration::from_secs(40));
        assert_eq!(*order.borrow(), [10, 20, 30]);
        assert!(net.wall_ms() > 1_767_225_600_000 + 39_000);
    });
}

#[test]
fn a_failure_names_its_seed_and_what_was_left_behind() {
    let failure = |test: fn(&World)| {
        let world = World::new(3);
        let run = || {
            test(&world);
            world.finish();
        };
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        panic
            .downcast::<String>()
            .map_or_else(|_| String::new(), |text| *text)
    };
    let lost_wake = failure(|world| world.run(std::future::pending::<()>()));
    assert!(lost_wake.contains("nothing can happen any more") && lost_wake.contains("seed 3"));

    let task = failure(|world| world.core(5).spawn(std::future::pending()));
    assert!(
        task.contains("core 5 left behind 1 tasks, 0 connections and 0 bytes"),
        "{task}"
    );

    let block = failure(|world| _ = Box::leak(Box::new(world.core(0).pool().copy(b"kept"))));
    assert!(
        block.contains("0 tasks, 0 connections and 4160 bytes"),
        "{block}"
    );

    let connection = failure(|world| {
        let address = at("10.0.0.1:7");
        world.endpoint(&address, echo_back);
        let core = world.core(0);
        let kept = world.run(async move { core.connect(&address).await });
        Box::leak(Box::new(kept));
    });
    assert!(
        connection.contains("0 tasks, 1 connections"),
        "{connection}"
    );
}

#[test]
fn a_task_that_wakes_itself_forever_is_an_error() {
    let world = World::new(1);
    world.core(0).spawn(poll_fn(|cx| {
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }));
    let run = catch_unwind(AssertUnwindSafe(|| world.run_for(Duration::from_secs(1))));
    let text = *run.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("keeps waking itself"), "{text}");
}

#[test]
fn a_core_wakes_another_only_by_its_bell() {
    let world = World::new(1);
    let (one, other) = (world.core(0), world.core(1));
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let slot = waker.clone();
    other.spawn(poll_fn(move |cx| {
        *slot.lock().unwrap() = Some(cx.waker().clone());
        std::task::Poll::Pending
    }));
    world.run_for(Duration::from_millis(1));
    one.spawn(async move { waker.lock().unwrap().take().unwrap().wake() });
    let run = catch_unwind(AssertUnwindSafe(|| world.run_for(Duration::from_millis(1))));
    let text = *run.unwrap_err().downcast::<String>().unwrap();
    assert!(
        text.contains("core 0 woke a task of core 1 without ringing its bell"),
        "{text}"
    );

    check(100, |world| {
        let (one, other) = (world.core(0), world.core(1));
        let (bell, mut rings) = other.bell().unwrap();
        let own = bell.clone();
        other.spawn(async move {
            for _ in 0..3 {
                poll_fn(|cx| rings.poll_recv(cx)).await.unwrap().unwrap();
                own.heard();
            }
        });
        one.clone().spawn(async move {
            for _ in 0..3 {
                bell.ring();
                one.sleep_until(one.now() + Duration::from_secs(1)).await;
            }
        });
    });
}

#[test]
fn connects_meet_what_the_test_has_arranged() {
    check(100, |world| {
        let (near, far) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
        world.endpoint(&near, echo_back);
        world.endpoint(&far, echo_back);
        let core = world.core(0);
        let outcome = |to: &Address| {
            let (core, to) = (core.clone(), to.clone());
            let start = core.now();
            world.run(async move {
                let error = core.connect(&to).await.err().map(|error| error.kind());
                (error, core.now().since(start))
            })
        };
        assert_eq!(outcome(&near).0, None);
        assert_eq!(
            outcome(&at("10.0.0.3:80")).0,
            Some(ErrorKind::ConnectionRefused)
        );
        assert_eq!(outcome(&at("unix:/nowhere")).0, Some(ErrorKind::NotFound));
        world.set_reach(&near, Reach::Refused);
        assert_eq!(outcome(&near).0, Some(ErrorKind::ConnectionRefused));
        world.set_reach(&near, Reach::BlackHole);
        let (error, time) = outcome(&near);
        assert!(error == Some(ErrorKind::TimedOut) && time > Duration::from_secs(120));
        world.set_reach(&far, Reach::Slow(Duration::from_secs(3)));
        let (error, time) = outcome(&far);
        assert!(
            error.is_none() && time >= Duration::from_secs(3),
            "{error:?} {time:?}"
        );
        world.set_faults_at(&far, |faults| faults.refuse_permille = 1000);
        assert_eq!(outcome(&far).0, Some(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_full_listener_queue_delays_connects() {
    check(50, |world| {
        world.set_backlog(2);
        let address = at("10.0.0.1:80");
        let core = world.core(0);
        let listener = core.listen(world.listen(&address)).unwrap();
        let connected = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (client, address) = (world.client(), address.clone());
            let connected = connected.clone();
            client.clone().spawn(async move {
                let _kept = client.connect(&address).await.unwrap();
                connected.set(connected.get() + 1);
                client
                    .sleep_until(client.now() + Duration::from_secs(60))
                    .await;
            });
        }
        world.run_for(Duration::from_millis(500));
        assert_eq!(connected.get(), 2);
        core.clone().spawn(async move {
            for _ in 0..5 {
                core.accept(&listener).await.unwrap();
            }
        });
        world.run_for(Duration::from_secs(30));
        assert_eq!(connected.get(), 5);
    });
}

#[test]
fn resets_come_as_often_as_asked() {
    let broken = Rc::new(Cell::new(0));
    check(100, |world| {
        let address = at("10.0.0.1:7");
        world.endpoint(&address, echo_back);
        world.set_faults_at(&address, |faults| faults.reset_permille = 200);
        let (client, broken) = (world.client(), broken.clone());
        world.run(async move {
            let mut peer = Peer::connect(&client, &address).await.unwrap();
            let talk = async {
                peer.send(b"hello").await?;
                peer.read_exact(5).await
            };
            if let Err(error) = talk.await {
                let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(reset.contains(&error.kind()), "{error}");
                broken.set(broken.get() + 1);
            }
        });
    });
    if std::env::var_os("WEIR_SEED").is_none() {
        assert!((30..90).contains(&broken.get()), "{} of 100", broken.get());
    }
}
