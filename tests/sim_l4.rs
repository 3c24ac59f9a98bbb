//! Connections that Weir passes on, under the simulator: half-close, resets, slow peers, failover, silence and drain.

mod sim;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sim::{Rig, check};
use weir::io::sim::{End, Peer, Rng, Sim, at};
use weir::io::{Net, Rx, Tx};

const FRONT: &str = "10.1.0.1:5432";
const FIRST: &str = "10.2.0.1:5432";
const SECOND: &str = "10.2.0.2:5432";
const GRACE: Duration = Duration::from_secs(30);

fn config(servers: &[&str], keys: &str) -> String {
    format!("[listen.\"{FRONT}\"]\ntcp = \"pg\"\n{keys}\n[upstream.pg]\nservers = {servers:?}\n")
}

/// Random bytes that differ at every place.
fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let (length, key) = (rng.size(most), rng.below(251));
    (0..length)
        .map(|at| ((at * 7 + at / 251 + key) % 256) as u8)
        .collect()
}

/// Sends `out` in pieces and ends the direction, while receiving to the end of the other direction.
async fn exchange(peer: &mut Peer<Sim>, out: &[u8], rng: &mut Rng) -> (Vec<u8>, End) {
    let (mut sent, mut finished, mut read) = (0, false, Vec::new());
    let end = poll_fn(|cx| {
        loop {
            if sent < out.len() && peer.tx.queued() == 0 {
                let end = out.len().min(sent + rng.size(20_000));
                let chunk = peer.net().pool().copy(&out[sent..end]);
                peer.tx.push(chunk);
                sent = end;
            }
            match peer.tx.poll_send(cx) {
                Poll::Ready(Ok(())) if sent < out.len() => continue,
                Poll::Ready(Ok(())) if !finished => {
                    finished = true;
                    peer.tx.finish();
                }
                _ => {}
            }
            break;
        }
        loop {
            match peer.rx.poll_recv(cx) {
                Poll::Ready(Ok(Some(chunk))) => read.extend_from_slice(&chunk),
                Poll::Ready(Ok(None)) if finished => return Poll::Ready(End::Orderly),
                Poll::Ready(Ok(None)) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error.kind())),
            }
        }
    })
    .await;
    (read, end)
}

#[test]
fn every_byte_arrives_and_each_direction_ends_by_itself() {
    check(200, |world| {
        let rig = Rig::start(world, 1, &config(&[FIRST], ""));
        let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let (copy, rng) = (seen.clone(), Rc::new(RefCell::new(world.rng(1))));
        let speaks_first = rng.borrow_mut().chance(500);
        let answer = bytes(&mut rng.borrow_mut(), 300_000);
        let reply = answer.clone();
        let _endpoint = world.endpoint(&at(FIRST), move |mut peer| {
            let (seen, reply, mut rng) = (copy.clone(), reply.clone(), rng.borrow_mut().fork());
            async move {
                let got = if speaks_first {
                    exchange(&mut peer, &reply, &mut rng).await.0
                } else {
                    // Half-close: the answer begins only after the end of the question.
                    let (got, end) = peer.read_to_end().await;
                    assert_eq!(end, End::Orderly);
                    peer.send(&reply).await.unwrap();
                    peer.finish();
                    got
                };
                seen.borrow_mut().push(got);
            }
        });
        let mut rng = world.rng(2);
        let clients = rng.between(1, 4);
        let left = Rc::new(Cell::new(clients));
        let sent: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        for _ in 0..clients {
            let (net, question, answer) =
                (world.client(), bytes(&mut rng, 300_000), answer.clone());
            let (left, mut rng) = (left.clone(), rng.fork());
            sent.borrow_mut().push(question.clone());
            world.spawn(async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                let (got, _) = exchange(&mut peer, &question, &mut rng).await;
                assert!(got == answer, "{} of {} bytes", got.len(), answer.len());
                left.set(left.get() - 1);
            });
        }
        let all = seen.clone();
        world.run_until(|| left.get() == 0 && all.borrow().len() == clients);
        let sorted = |list: &Rc<RefCell<Vec<Vec<u8>>>>| {
            let mut list = list.borrow().clone();
            list.sort();
            list
        };
        assert!(
            sorted(&seen) == sorted(&sent),
            "the endpoint got every byte"
        );
        rig.drain(GRACE);
    });
}

#[test]
fn a_reset_of_either_side_is_a_reset_for_the_other() {
    check(150, |world| {
        let rig = Rig::start(world, 1, &config(&[FIRST], ""));
        let by_client = world.rng(1).chance(500);
        let ended: Rc<Cell<Option<End>>> = Rc::default();
        let seen = ended.clone();
        let _endpoint = world.endpoint(&at(FIRST), move |mut peer| {
            let seen = seen.clone();
            async move {
                let _ = peer.read_exact(4).await;
                peer.send(b"pong").await.unwrap();
                if by_client {
                    seen.set(Some(peer.read_to_end().await.1));
                } else {
                    let _ = peer.read_exact(4).await;
                    peer.reset();
                }
            }
        });
        let (net, mine) = (world.client(), ended.clone());
        world.run(async move {
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            peer.send(b"ping").await.unwrap();
            assert_eq!(peer.read_exact(4).await.unwrap(), b"pong");
            if by_client {
                peer.reset();
            } else {
                peer.send(b"more").await.unwrap();
                mine.set(Some(peer.read_to_end().await.1));
            }
        });
        world.run_until(|| ended.get().is_some());
        assert!(
            matches!(ended.get(), Some(End::Failed(_))),
            "by_client: {by_client}, {:?}",
            ended.get()
        );
        rig.drain(GRACE);
    });
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    check(100, |world| {
        let rig = Rig::start(world, 1, &config(&[FIRST, SECOND], ""));
        let _endpoint = world.endpoint(&at(SECOND), |mut peer| async move {
            let (question, _) = peer.read_to_end().await;
            peer.send(&question).await.unwrap();
            peer.finish();
        });
        let net = world.client();
        world.run(async move {
            for _ in 0..4 {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                peer.send(b"hello").await.unwrap();
                peer.finish();
                assert_eq!(peer.read_to_end().await, (b"hello".to_vec(), End::Orderly));
            }
        });
        rig.drain(GRACE);
    });
}

#[test]
fn silence_ends_in_resets_and_a_slow_reader_costs_little() {
    check(60, |world| {
        let rig = Rig::start(world, 1, &config(&[FIRST], "timeouts = { idle = \"5m\" }"));
        let flood = world.rng(1).chance(500);
        let ended: Rc<Cell<Option<End>>> = Rc::default();
        let seen = ended.clone();
        let _endpoint = world.endpoint(&at(FIRST), move |mut peer| {
            let seen = seen.clone();
            async move {
                if flood {
                    // The client reads none of it.
                    let sent = peer.send(&vec![7; 4 << 20]).await;
                    seen.set(sent.err().map(|error| End::Failed(error.kind())));
                } else {
                    seen.set(Some(peer.read_to_end().await.1));
                }
            }
        });
        let (net, began) = (world.client(), world.now());
        let core = world.core(0);
        let mine = ended.clone();
        world.run(async move {
            let peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            net.sleep_until(net.now() + Duration::from_secs(60)).await;
            let held = core.pool().live_bytes();
            assert!(held < 1 << 20, "{held} bytes are held for one connection");
            assert_eq!(mine.get(), None);
            net.sleep_until(net.now() + Duration::from_secs(250)).await;
            drop(peer);
        });
        world.run_until(|| ended.get().is_some());
        let lasted = world.now().since(began);
        assert!(lasted >= Duration::from_secs(300), "{lasted:?}");
        assert!(
            matches!(ended.get(), Some(End::Failed(_))),
            "{:?}",
            ended.get()
        );
        rig.drain(GRACE);
    });
}

#[test]
fn a_drain_lets_connections_go_on_and_cuts_the_rest() {
    check(80, |world| {
        let rig = Rig::start(world, 1, &config(&[FIRST], ""));
        let _endpoint = world.endpoint(&at(FIRST), |mut peer| async move {
            while let Ok(line) = peer.read_until(b"\n").await {
                if peer.send(&line).await.is_err() {
                    return;
                }
            }
        });
        let (net, ready) = (world.client(), Rc::new(Cell::new(false)));
        let (is_ready, done) = (ready.clone(), Rc::new(Cell::new(false)));
        let is_done = done.clone();
        world.spawn(async move {
            let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
            for round in 0..25 {
                peer.send(b"hello\n").await.unwrap();
                assert_eq!(peer.read_until(b"\n").await.unwrap(), b"hello\n");
                is_ready.set(true);
                if round > 0 {
                    net.sleep_until(net.now() + Duration::from_secs(1)).await;
                }
            }
            let (_, end) = peer.read_to_end().await;
            assert_ne!(end, End::Orderly, "the grace period cuts it off");
            is_done.set(true);
        });
        world.run_until(|| ready.get());
        rig.drain(GRACE);
        world.run_until(|| done.get());
        assert!(!world.is_listening(&at(FRONT)));
    });
}
