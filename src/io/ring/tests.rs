//! What the conformance programs cannot see: the loop, its bounds, and what it leaves behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::task::Poll;

use super::*;
use crate::io::os::reset;
use crate::io::{Chunk, Rx, SocketOrigin};
use crate::limits::{
    ACCEPTS_AT_ONCE_MAX, BLOCK_BYTES, LOOP_BYTES_MAX, RING_COMPLETIONS, SEND_BATCH_BYTES_MAX,
    SILENCE_MS,
};

type Halves = (RingRx, RingTx);

/// Both ends of a connection, each on the ring.
async fn pair(net: &Ring) -> (Halves, Halves) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Ip(socket.local_addr().unwrap());
    let listener = net
        .listen(ListenSocket::Tcp(socket, SocketOrigin::Bound))
        .unwrap();
    let near = net.connect(&to).await.unwrap();
    let far = net.accept(&listener).await.unwrap();
    ((near.rx, near.tx), (far.rx, far.tx))
}

/// The ring's end of a connection, and a plain socket as the other end.
async fn with_plain(net: &Ring) -> (Halves, TcpStream) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    (accept(net, socket).await, plain)
}

/// Accepts a connection that is in the socket's queue.
async fn accept(net: &Ring, socket: TcpListener) -> Halves {
    let listener = net
        .listen(ListenSocket::Tcp(socket, SocketOrigin::Bound))
        .unwrap();
    let Connection { rx, tx, .. } = net.accept(&listener).await.unwrap();
    (rx, tx)
}

async fn receive_some(rx: &mut RingRx) -> Option<Chunk> {
    poll_fn(|cx| rx.poll_recv(cx)).await.unwrap()
}

async fn has_nothing(rx: &mut RingRx) -> bool {
    poll_fn(|cx| Poll::Ready(rx.poll_recv(cx).is_pending())).await
}

#[test]
fn a_task_that_wakes_itself_starves_no_other() {
    run(|net| async move {
        let is_over = Rc::new(Cell::new(false));
        let (flag, polls) = (is_over.clone(), Rc::new(Cell::new(0_u64)));
        let counted = polls.clone();
        net.spawn(poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            if flag.get() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let ((_near, mut tx), (mut rx, _far)) = pair(&net).await;
        for _ in 0..10 {
            assert!(has_nothing(&mut rx).await);
            tx.push(net.pool().copy(b"news"));
            poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
            assert_eq!(&receive_some(&mut rx).await.unwrap()[..], b"news");
            net.sleep_until(net.now() + Duration::from_micros(100))
                .await;
        }
        assert!(polls.get() > 10);
        is_over.set(true);
    })
    .unwrap();
}

#[test]
fn a_turn_receives_a_bounded_amount_from_one_connection() {
    run(|net| async move {
        let ((mut rx, _tx), mut plain) = with_plain(&net).await;
        let bytes = vec![7; 16 * LOOP_BYTES_MAX as usize];
        let writer = std::thread::spawn(move || plain.write_all(&bytes).map(|()| bytes.len()));
        let (mut turn, mut got, mut most, mut all) = (0, 0, 0, 0);
        while let Some(chunk) = receive_some(&mut rx).await {
            if std::mem::replace(&mut turn, net.driver.turn.get()) != turn {
                got = 0;
            }
            got += chunk.len();
            all += chunk.len();
            most = most.max(got);
        }
        assert_eq!(all, writer.join().unwrap().unwrap());
        assert!(most < LOOP_BYTES_MAX as usize + BLOCK_BYTES[2], "{most}");
    })
    .unwrap();
}

#[test]
fn a_storm_of_connections_is_accepted_in_parts() {
    run(|net| async move {
        const STORM: usize = 5 * ACCEPTS_AT_ONCE_MAX as usize;
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let storm: Vec<_> = (0..STORM)
            .map(|_| TcpStream::connect(to).unwrap())
            .collect();
        let listener = Rc::new(
            net.listen(ListenSocket::Tcp(socket, SocketOrigin::Bound))
                .unwrap(),
        );
        // Counts connections by the turn that accepted them.
        let accepted: Rc<RefCell<BTreeMap<u32, usize>>> = Rc::default();
        let (acceptor, socket, by_turn) = (net.clone(), listener.clone(), accepted.clone());
        net.spawn(async move {
            while acceptor.accept(&socket).await.is_ok() {
                let turn = acceptor.driver.turn.get();
                *by_turn.borrow_mut().entry(turn).or_default() += 1;
            }
        });
        while accepted.borrow().values().sum::<usize>() < STORM {
            net.sleep_until(net.now() + Duration::from_micros(100))
                .await;
        }
        let most = accepted.borrow().values().copied().max();
        assert!(most <= Some(ACCEPTS_AT_ONCE_MAX as usize), "{accepted:?}");
        drop(storm);
        net.close_listener(&listener);
    })
    .unwrap();
}

#[test]
fn an_unpolled_half_receives_nothing() {
    run(|net| async move {
        let ((mut rx, _tx), mut plain) = with_plain(&net).await;
        assert!(has_nothing(&mut rx).await);
        plain.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(n) = plain.write(&[7; 100_000]) {
            sent += n;
            net.sleep_until(net.now() + Duration::from_micros(200))
                .await;
            assert_eq!(net.pool().live_bytes(), 0);
        }
        drop(plain);
        while let Some(chunk) = receive_some(&mut rx).await {
            sent -= chunk.len();
        }
        assert_eq!(sent, 0);
    })
    .unwrap();
}

/// A relay must send the bytes it has before it learns that no more will come.
#[test]
fn an_end_is_reported_in_a_later_turn_than_the_last_bytes() {
    run(|net| async move {
        for is_reset in [false, true] {
            let ((mut rx, mut tx), mut plain) = with_plain(&net).await;
            assert!(has_nothing(&mut rx).await);
            plain.write_all(b"the last").unwrap();
            if is_reset {
                // Closing with unread bytes resets the connection.
                tx.push(net.pool().copy(b"unread"));
                poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
            }
            drop(plain);
            // The ring reports both at once.
            net.sleep_until(net.now() + Duration::from_millis(2)).await;
            let mut got = Vec::new();
            let mut turns = Vec::new();
            let end = poll_fn(|cx| {
                loop {
                    match rx.poll_recv(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(Some(chunk))) => got.extend_from_slice(&chunk),
                        Poll::Ready(end) => {
                            turns.push(net.driver.turn.get());
                            return Poll::Ready(end);
                        }
                    }
                    turns.push(net.driver.turn.get());
                }
            });
            assert_eq!(end.await.is_err(), is_reset);
            assert!(b"the last".starts_with(&got[..]));
            assert!(turns.is_sorted_by(|a, b| a < b), "{turns:?}");
        }
    })
    .unwrap();
}

/// A connection for one request ends before its client is watched, so it costs no operation of the ring.
#[test]
fn a_patient_receive_starts_its_watch_late() {
    run(|net| async move {
        let ((mut rx, _tx), mut plain) = with_plain(&net).await;
        let in_flight = net.driver.in_flight();
        let begun = net.now();
        rx.expect_silence();
        assert!(has_nothing(&mut rx).await);
        net.sleep_until(begun + Duration::from_micros(100)).await;
        assert_eq!(net.driver.in_flight(), in_flight);
        plain.write_all(b"unexpected").unwrap();
        // The loop wakes for the watch although no task sleeps.
        let news = poll_fn(|cx| {
            rx.expect_silence();
            rx.poll_recv(cx)
        });
        assert_eq!(&news.await.unwrap().unwrap()[..], b"unexpected");
        assert!(net.now().since(begun) >= Duration::from_millis(SILENCE_MS / 2));
        // A receive that expects bytes does not wait.
        rx.expect_silence();
        assert!(has_nothing(&mut rx).await && has_nothing(&mut rx).await);
        let begun = net.now();
        plain.write_all(b"expected").unwrap();
        assert_eq!(&receive_some(&mut rx).await.unwrap()[..], b"expected");
        assert!(net.now().since(begun) < Duration::from_millis(SILENCE_MS));
        rx.expect_silence();
        assert!(has_nothing(&mut rx).await);
    })
    .unwrap();
}

/// A close with unread bytes is a reset, which must not destroy an answer that the kernel has taken.
#[test]
fn bytes_held_for_the_end_survive_unread_ones() {
    run(|net| async move {
        let ((rx, mut tx), mut plain) = with_plain(&net).await;
        plain.write_all(b"unread").unwrap();
        tx.hold_for_end();
        tx.push(net.pool().copy(b"answer"));
        poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
        drop((rx, tx));
        let mut got = [0; 6];
        plain.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"answer");
    })
    .unwrap();
}

/// Connections end while events for them are under way, and new connections take their slots at once.
#[test]
fn late_events_do_not_reach_the_next_owner_of_a_slot() {
    let left = run(|net| async move {
        for round in 0..500_u32 {
            let (near, far) = pair(&net).await;
            let ((mut near_rx, mut near_tx), (mut far_rx, far_tx)) = (near, far);
            // A half's second watch is a lasting one.
            for _ in 0..2 {
                assert!(has_nothing(&mut far_rx).await && has_nothing(&mut near_rx).await);
                near_tx.push(net.pool().copy(&round.to_le_bytes()));
                poll_fn(|cx| near_tx.poll_send(cx)).await.unwrap();
                assert_eq!(
                    receive_some(&mut far_rx).await.unwrap()[..],
                    round.to_le_bytes()
                );
            }
            assert!(has_nothing(&mut far_rx).await);
            near_tx.push(net.pool().copy(b"for nobody"));
            if round % 2 == 0 {
                poll_fn(|cx| near_tx.poll_send(cx)).await.unwrap();
            }
            if round % 3 == 0 {
                drop((far_rx, far_tx));
            }
        }
        net
    });
    let driver = left.unwrap().driver;
    let slots = driver.sockets.slot_count();
    assert!(slots < 40, "{slots} slots");
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn overfull_ring_queues_lose_nothing() {
    run(|net| async move {
        let ((_near, mut tx), (mut rx, _far)) = pair(&net).await;
        for _ in 0..5 {
            assert!(has_nothing(&mut rx).await);
            net.driver.flood(3 * RING_COMPLETIONS as usize);
            tx.push(net.pool().copy(b"news"));
            poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
            assert_eq!(&receive_some(&mut rx).await.unwrap()[..], b"news");
            net.driver.flood(3 * RING_COMPLETIONS as usize);
            net.sleep_until(net.now() + Duration::from_micros(100))
                .await;
        }
    })
    .unwrap();
}

#[test]
fn nothing_outlives_the_loop() {
    let mut plain = None;
    let driver = run(|net| {
        let kept = net.driver.clone();
        let plain = &mut plain;
        async move {
            let ((mut rx, tx), peer) = with_plain(&net).await;
            *plain = Some(peer);
            // A task that would wait forever.
            net.spawn(async move {
                let _tx = tx;
                while receive_some(&mut rx).await.is_some() {}
            });
            net.sleep_until(net.now() + Duration::from_millis(1)).await;
            kept
        }
    });
    let driver = driver.unwrap();
    assert_eq!(driver.in_flight(), 0);
    assert_eq!(
        Rc::strong_count(&driver),
        1,
        "no handle to the driver remains"
    );
    let mut rest = Vec::new();
    let ended = plain.unwrap().read_to_end(&mut rest);
    assert_eq!(ended.unwrap(), 0, "the connection has ended");
}

#[test]
fn a_panic_ends_the_loop_and_its_connections() {
    let mut plain = None;
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        run(|net| {
            let plain = &mut plain;
            async move {
                let (halves, peer) = with_plain(&net).await;
                *plain = Some(peer);
                net.spawn(async move {
                    let _halves = halves;
                    panic!("wanted by the test");
                });
                std::future::pending::<()>().await;
            }
        })
    }));
    assert!(ended.is_err());
    assert_eq!(plain.unwrap().read(&mut [0]).unwrap(), 0);
    run(|net| async move {
        pair(&net).await;
    })
    .unwrap();
}

#[test]
fn connects_to_a_full_unix_socket_wait_for_room() {
    let name = format!("weir-ring-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let to = Address::Unix(std::sync::Arc::new(path.clone()));
    run(|net| async move {
        let connected = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (net, to, connected) = (net.clone(), to.clone(), connected.clone());
            net.clone().spawn(async move {
                net.connect(&to).await.unwrap();
                connected.set(connected.get() + 1);
            });
        }
        net.sleep_until(net.now() + Duration::from_millis(5)).await;
        assert!(connected.get() < 5, "the queue should be full");
        let listener = net
            .listen(ListenSocket::Unix(socket.into(), SocketOrigin::Bound))
            .unwrap();
        while connected.get() < 5 {
            net.accept(&listener).await.unwrap();
            net.sleep_until(net.now() + Duration::from_millis(2)).await;
        }
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

/// More than a socket takes at once, and little enough for a batch.
const BATCHED: usize = SEND_BATCH_BYTES_MAX;

/// A connection whose both ends have room for a few kilobytes.
async fn narrow(net: &Ring) -> (Halves, TcpStream) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before the handshake, which announces the room.
    plain.set_recv_buffer_size(2048).unwrap();
    plain.connect(&socket.local_addr().unwrap().into()).unwrap();
    let (rx, tx) = accept(net, socket).await;
    // SAFETY: the socket is open as long as its half.
    let fd = unsafe { BorrowedFd::borrow_raw(tx.socket.fd()) };
    let near = socket2::SockRef::from(&fd);
    near.set_send_buffer_size(4096).unwrap();
    ((rx, tx), plain.into())
}

/// Queues bytes and sends them while another task is ready, as in a batch.
async fn send_batched(net: &Ring, tx: &mut RingTx, bytes: usize) {
    net.spawn(async {});
    tx.push(net.pool().copy(&vec![7; bytes]));
    let sent = poll_fn(|cx| Poll::Ready(tx.poll_send(cx))).await;
    assert!(matches!(sent, Poll::Ready(Ok(()))), "{sent:?}");
    assert_eq!(tx.queued(), 0);
}

/// Reads what a batch has sent in a thread, and says so to the other end.
fn read_batch(mut plain: TcpStream) -> std::thread::JoinHandle<TcpStream> {
    std::thread::spawn(move || {
        plain.read_exact(&mut vec![0; BATCHED]).unwrap();
        plain.write_all(b"got all").unwrap();
        plain
    })
}

/// Reads to the end in a thread.
fn read_all(mut plain: TcpStream) -> std::thread::JoinHandle<io::Result<usize>> {
    std::thread::spawn(move || plain.read_to_end(&mut Vec::new()))
}

#[test]
fn a_batch_sends_what_several_tasks_have_queued_in_a_turn() {
    run(|net| async move {
        let ((mut rx, mut tx), mut plain) = with_plain(&net).await;
        let ((_rx2, mut tx2), mut plain2) = with_plain(&net).await;
        send_batched(&net, &mut tx, 5).await;
        send_batched(&net, &mut tx2, 6).await;
        send_batched(&net, &mut tx, 7).await;
        plain.set_nonblocking(true).unwrap();
        let early = plain.read(&mut [0; 99]).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        plain.set_nonblocking(false).unwrap();
        rx.let_others_run().await;
        // Both arrive in one piece.
        assert_eq!(plain.read(&mut [0; 99]).unwrap(), 12);
        assert_eq!(plain2.read(&mut [0; 99]).unwrap(), 6);
    })
    .unwrap();
}

#[test]
fn the_driver_goes_on_with_what_a_batch_has_left() {
    run(|net| async move {
        let ((mut rx, mut tx), plain) = narrow(&net).await;
        send_batched(&net, &mut tx, BATCHED).await;
        rx.let_others_run().await;
        assert!(tx.queued() > 0, "the socket took all at once");
        let reader = read_batch(plain);
        // The task waits for the answer and does not send.
        assert_eq!(&receive_some(&mut rx).await.unwrap()[..], b"got all");
        assert_eq!(tx.queued(), 0);
        reader.join().unwrap();
    })
    .unwrap();
}

#[test]
fn an_end_comes_behind_a_batch_and_what_it_has_left() {
    run(|net| async move {
        for turns in 0..2 {
            let ((mut rx, mut tx), plain) = narrow(&net).await;
            let reader = read_all(plain);
            send_batched(&net, &mut tx, BATCHED).await;
            for _ in 0..turns {
                rx.let_others_run().await;
            }
            tx.finish();
            // The other end closes when it has read the end.
            assert!(receive_some(&mut rx).await.is_none());
            assert_eq!(reader.join().unwrap().unwrap(), BATCHED);
        }
    })
    .unwrap();
}

#[test]
fn a_connection_dropped_with_a_batch_left_is_reset() {
    run(|net| async move {
        for (bytes, is_whole) in [(BATCHED, false), (100, true)] {
            let ((rx, mut tx), plain) = narrow(&net).await;
            send_batched(&net, &mut tx, bytes).await;
            drop((rx, tx));
            let read = read_all(plain).join().unwrap();
            assert_eq!(read.ok(), is_whole.then_some(bytes));
        }
    })
    .unwrap();
}

/// A caller that announces its end, or has ended its direction, can wait until a drop loses nothing. That includes what an
/// earlier call has left to a batch.
#[test]
fn an_end_waits_for_what_a_batch_has_left() {
    run(|net| async move {
        for end in [RingTx::hold_for_end, RingTx::finish] {
            let ((rx, mut tx), plain) = narrow(&net).await;
            send_batched(&net, &mut tx, BATCHED).await;
            end(&mut tx);
            let reader = read_all(plain);
            poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
            drop((rx, tx));
            assert_eq!(reader.join().unwrap().unwrap(), BATCHED);
        }
    })
    .unwrap();
}

/// A full socket counts as memory until the kernel has the rest, even if the driver and not the task sends it.
#[test]
fn the_charge_of_a_full_socket_ends_when_the_driver_has_sent_the_rest() {
    run(|net| async move {
        let ((mut rx, mut tx), plain) = narrow(&net).await;
        send_batched(&net, &mut tx, BATCHED).await;
        rx.let_others_run().await;
        let is_full = poll_fn(|cx| Poll::Ready(tx.poll_send(cx).is_pending())).await;
        assert!(is_full && net.pool().taken_bytes() > BATCHED);
        let reader = read_batch(plain);
        poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
        assert_eq!(net.pool().taken_bytes(), 0);
        reader.join().unwrap();
    })
    .unwrap();
}

#[test]
fn a_panic_leaves_no_batch_behind() {
    let mut left = None;
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        run(|net| {
            left = Some(Rc::downgrade(&net.driver));
            async move {
                let ((_rx, mut tx), _plain) = with_plain(&net).await;
                send_batched(&net, &mut tx, 5).await;
                panic!("wanted by the test");
            }
        })
    }));
    assert!(ended.is_err());
    assert_eq!(left.unwrap().strong_count(), 0);
}

#[test]
fn an_abort_comes_behind_a_batch() {
    run(|net| async move {
        let ((rx, mut tx), mut plain) = with_plain(&net).await;
        send_batched(&net, &mut tx, 5).await;
        tx.abort();
        drop((rx, tx));
        assert_eq!(plain.read(&mut [0; 99]).unwrap(), 5);
        let end = plain.read(&mut [0; 99]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    })
    .unwrap();
}

#[test]
fn a_batch_that_fails_is_reported_by_the_next_call() {
    run(|net| async move {
        let ((mut rx, mut tx), plain) = with_plain(&net).await;
        reset(plain.as_raw_fd());
        drop(plain);
        send_batched(&net, &mut tx, 5).await;
        rx.let_others_run().await;
        assert!(poll_fn(|cx| tx.poll_send(cx)).await.is_err());
        let error = poll_fn(|cx| rx.poll_recv(cx)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .unwrap();
}

#[test]
fn a_peer_that_sends_nothing_gets_a_bounded_amount_in_batches() {
    run(|net| async move {
        let ((mut rx, mut tx), _plain) = with_plain(&net).await;
        send_batched(&net, &mut tx, BATCHED).await;
        rx.let_others_run().await;
        net.spawn(async {});
        tx.push(net.pool().copy(b"more"));
        poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
        assert!(!tx.socket.flags.has(Flags::IS_IN_BATCH));
    })
    .unwrap();
}

/// Whether the socket holds no memory for sending.
fn has_no_queue(tx: &RingTx) -> bool {
    let queue = tx.socket.queue.take();
    let is_none = queue.is_none();
    tx.socket.queue.set(queue);
    is_none
}

#[test]
fn a_half_that_rests_before_its_batch_is_sent_keeps_no_queue() {
    run(|net| async move {
        let ((mut rx, mut tx), mut plain) = with_plain(&net).await;
        send_batched(&net, &mut tx, 5).await;
        tx.rest();
        rx.let_others_run().await;
        plain.read_exact(&mut [0; 5]).unwrap();
        assert!(has_no_queue(&tx));
        // Busy again, it keeps its queue from one batch to the next.
        plain.write_all(b"x").unwrap();
        send_batched(&net, &mut tx, 5).await;
        rx.let_others_run().await;
        assert!(!has_no_queue(&tx));
    })
    .unwrap();
}

#[test]
fn a_half_that_rests_keeps_no_queue_once_the_driver_has_sent_the_rest() {
    run(|net| async move {
        let ((mut rx, mut tx), plain) = narrow(&net).await;
        send_batched(&net, &mut tx, BATCHED).await;
        tx.rest();
        rx.let_others_run().await;
        assert!(tx.queued() > 0, "the socket took all at once");
        let reader = read_batch(plain);
        assert_eq!(&receive_some(&mut rx).await.unwrap()[..], b"got all");
        assert!(has_no_queue(&tx));
        reader.join().unwrap();
    })
    .unwrap();
}
