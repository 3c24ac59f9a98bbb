//! The promises of the seam, as programs that run in every world: in the simulator under hundreds of seeds, and on
//! io_uring over loopback with either driver. If only one world keeps a promise, the others have a bug.

#[path = "conformance/hints.rs"]
mod hints;
#[path = "conformance/passing.rs"]
mod passing;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::io::sim::{self, End, Peer, Rng, Sim};
use crate::io::{Address, Bell, Connection, Instant, ListenSocket, Net, Rx, SocketOrigin, Tx};
use crate::io::{ring, uring};

use hints::{bytes_held_for_the_end_arrive, unexpected_news_is_noticed};
use passing::{
    bytes_in_a_pipe_end_with_their_connection, bytes_that_pass_keep_their_place,
    passing_bytes_do_not_hide_a_reset,
};

/// Seeds that each program runs under in the simulator.
const SEEDS: u64 = 300;

/// A program on io_uring fails after this much real time.
const REAL_MAX: Duration = Duration::from_secs(30);

/// More bytes than the socket buffers between two ends hold.
const MORE_THAN_BUFFERS: usize = 24 * 1024 * 1024;

/// The world in which a program runs.
struct TestNetwork<N: Net> {
    net: N,
    /// Another core, in worlds that have one.
    other: N,
    bind: Box<dyn Fn(bool) -> (N::Socket, Address)>,
    rng: Rng,
    /// More bytes than the world's buffers hold.
    much: usize,
}

impl<N: Net> TestNetwork<N> {
    fn listen(&self) -> (N::Listener, Address) {
        let (socket, address) = (self.bind)(false);
        (self.net.listen(socket).unwrap(), address)
    }

    /// A new connection: the end that connected, and the end that accepted.
    async fn pair(&self) -> (Peer<N>, Peer<N>) {
        let (listener, address) = self.listen();
        let (near, far) = join(self.net.connect(&address), self.net.accept(&listener)).await;
        (
            Peer::new(&self.net, near.unwrap()),
            Peer::new(&self.net, far.unwrap()),
        )
    }
}

fn simulated<F: Future<Output = ()> + 'static>(program: impl Fn(TestNetwork<Sim>) -> F) {
    sim::check(SEEDS, |world| {
        let count = Cell::new(0);
        let shared = world.binder();
        let bind = move |unix| {
            count.set(count.get() + 1);
            let address = if unix {
                sim::at(&format!("unix:/run/{}", count.get()))
            } else {
                sim::at(&format!("10.0.0.1:{}", 1000 + count.get()))
            };
            (shared(&address), address)
        };
        let network = TestNetwork {
            net: world.core(0),
            other: world.core(1),
            bind: Box::new(bind),
            rng: world.rng(1),
            much: 600_000,
        };
        world.run(program(network));
    });
}

/// Runs a program on a real ring; `run` runs a future on one of the drivers.
fn real(run: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        run();
        done.send(()).unwrap();
    });
    match wait.recv_timeout(REAL_MAX) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {REAL_MAX:?}"),
        _ => thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn on_monoio<F: Future<Output = ()>>(
    program: impl FnOnce(TestNetwork<uring::Uring>) -> F + Send + 'static,
) {
    real(|| uring::run(|net, _| program(real_network(net))).unwrap());
}

fn on_ring<F: Future<Output = ()>>(
    program: impl Fn(TestNetwork<ring::Ring>) -> F + Clone + Send + 'static,
) {
    for flags in ring::RingFlags::ALL {
        let program = program.clone();
        real(move || {
            let mut pool = None;
            let run = ring::run_with(flags, |net| {
                pool = Some(net.pool().clone());
                program(real_network(net))
            });
            run.unwrap();
            assert_eq!(
                pool.map(|pool| pool.live_bytes()),
                Some(0),
                "every block is back in its pool"
            );
        });
    }
}

fn real_network<N: Net<Socket = ListenSocket>>(net: N) -> TestNetwork<N> {
    TestNetwork {
        net: net.clone(),
        other: net,
        bind: Box::new(bind_real),
        rng: Rng::new(7),
        much: MORE_THAN_BUFFERS,
    }
}

fn bind_real(unix: bool) -> (ListenSocket, Address) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if unix {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-conformance-{}-{n}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        return (
            ListenSocket::Unix(socket, SocketOrigin::Bound),
            Address::Unix(Arc::new(path)),
        );
    }
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (
        ListenSocket::Tcp(socket, SocketOrigin::Bound),
        Address::Ip(address),
    )
}

/// Names programs. Each becomes a test in every world.
macro_rules! in_all_worlds {
    ($($program:ident)+) => { $(
        mod $program {
            #[test]
            fn simulated() {
                super::simulated(super::$program);
            }

            #[test]
            fn on_monoio() {
                super::on_monoio(super::$program);
            }

            #[test]
            fn on_ring() {
                super::on_ring(super::$program);
            }
        }
    )+ };
}

in_all_worlds! {
    relays_carry_every_byte
    dropped_polls_lose_nothing
    an_end_is_sticky_and_leaves_the_other_direction_open
    what_was_sent_before_the_end_arrives
    a_reset_is_an_error_and_never_an_end
    an_abort_is_seen_while_a_receive_is_in_flight
    an_abort_is_seen_while_a_send_is_in_flight
    a_close_with_unread_bytes_is_a_reset
    sending_stops_when_nobody_reads
    bytes_to_a_closed_end_break_the_connection
    accepts_end_when_the_listener_closes
    a_listener_that_stops_leaves_its_queue
    connects_without_a_listener_are_refused
    a_cancelled_connect_breaks_nothing
    fresh_connections_move_between_cores_and_used_ones_stay
    unix_sockets_carry_bytes_both_ways
    a_bell_is_heard_once_for_many_rings
    clocks_and_sleeps_agree
    bytes_that_pass_keep_their_place
    passing_bytes_do_not_hide_a_reset
    bytes_in_a_pipe_end_with_their_connection
    bytes_held_for_the_end_arrive
    unexpected_news_is_noticed
}

// monoio does not keep this promise yet.
mod a_reader_sees_a_reset_that_the_writer_met_first {
    use super::a_reader_sees_a_reset_that_the_writer_met_first as program;

    #[test]
    fn simulated() {
        super::simulated(program);
    }

    #[test]
    fn on_ring() {
        super::on_ring(program);
    }
}

/// Clients of random sizes talk to an echo server through a relay.
async fn relays_carry_every_byte<N: Net>(mut network: TestNetwork<N>) {
    let (echo, echo_at) = network.listen();
    let echo = Rc::new(echo);
    let (net, listener) = (network.net.clone(), echo.clone());
    net.clone().spawn(async move {
        while let Ok(connection) = net.accept(&listener).await {
            net.spawn(echo_back(Peer::new(&net, connection)));
        }
    });
    let (front, front_at) = network.listen();
    let front = Rc::new(front);
    let (net, listener) = (network.net.clone(), front.clone());
    net.clone().spawn(async move {
        while let Ok(connection) = net.accept(&listener).await {
            let (net, to) = (net.clone(), echo_at.clone());
            net.clone().spawn(async move {
                let far = net.connect(&to).await.unwrap();
                relay(connection, far).await;
            });
        }
    });
    let left = Rc::new(Cell::new(5));
    for _ in 0..left.get() {
        let most = network.rng.size(300_000);
        let bytes = network.rng.bytes(most);
        let (net, left, to) = (network.net.clone(), left.clone(), front_at.clone());
        net.clone().spawn(async move {
            let mut peer = Peer::connect(&net, &to).await.unwrap();
            let Peer { rx, tx, .. } = &mut peer;
            let got = join(send_all(&net, tx, &bytes), receive_all(rx)).await.1;
            assert!(got == (bytes, End::Orderly));
            left.set(left.get() - 1);
        });
    }
    until(&network.net, || left.get() == 0).await;
    network.net.close_listener(&front);
    network.net.close_listener(&echo);
}

/// Waits for a receive for a short time only, again and again, and for a send as well.
async fn dropped_polls_lose_nothing<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let bytes = network.rng.bytes(200_000);
    let want = bytes.clone();
    let (net, mut rng) = (network.net.clone(), network.rng.fork());
    let sender = async {
        for part in bytes.chunks(7_001) {
            near.tx.push(net.pool().copy(part));
            let patience = Duration::from_micros(rng.between(1, 400) as u64);
            while near.tx.queued() > 0 {
                let _ = within(&net, patience, poll_fn(|cx| near.tx.poll_send(cx))).await;
            }
        }
        near.tx.finish();
    };
    let mut rng = network.rng.fork();
    let receiver = async {
        let mut got = Vec::new();
        loop {
            let patience = Duration::from_micros(rng.between(1, 400) as u64);
            match within(&net, patience, poll_fn(|cx| far.rx.poll_recv(cx))).await {
                None => {}
                Some(chunk) => match chunk.unwrap() {
                    Some(chunk) => got.extend_from_slice(&chunk),
                    None => return got,
                },
            }
        }
    };
    let ((), got) = join(sender, receiver).await;
    assert!(got == want, "{} of {} bytes", got.len(), want.len());
}

async fn an_end_is_sticky_and_leaves_the_other_direction_open<N: Net>(network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    near.send(b"question").await.unwrap();
    near.finish();
    assert_eq!(
        far.read_to_end().await,
        (b"question".to_vec(), End::Orderly)
    );
    assert_eq!(far.recv().await.unwrap(), None);
    far.send(b"answer").await.unwrap();
    far.finish();
    assert_eq!(near.read_to_end().await, (b"answer".to_vec(), End::Orderly));
    assert_eq!(near.recv().await.unwrap(), None);
}

async fn what_was_sent_before_the_end_arrives<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let bytes = network.rng.bytes(100_000);
    let want = bytes.clone();
    let send = async move {
        near.send(&bytes).await.unwrap();
        if !near.tx.has_sent_all() {
            end(&mut near.tx).await;
        }
        drop(near);
    };
    let ((), got) = join(send, far.read_to_end()).await;
    assert!(
        got == (want, End::Orderly),
        "{} bytes, {:?}",
        got.0.len(),
        got.1
    );
}

async fn a_reset_is_an_error_and_never_an_end<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let len = network.rng.below(3000);
    let bytes = network.rng.bytes(len);
    near.send(&bytes).await.unwrap();
    near.reset();
    let (got, end) = far.read_to_end().await;
    assert!(bytes.starts_with(&got));
    assert_eq!(end, End::Failed(ErrorKind::ConnectionReset));
    assert_eq!(
        far.recv().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset,
        "sticky"
    );
    // A driver may report the error of one send with the next.
    let sent = far.send(b"too late").await;
    assert!(sent.is_err() || far.send(b"too late").await.is_err());
}

/// The system reports a reset only once; the reader must not take what follows for an orderly end.
async fn a_reader_sees_a_reset_that_the_writer_met_first<N: Net>(network: TestNetwork<N>) {
    let (near, mut far) = network.pair().await;
    near.reset();
    until_async(&network.net, async || far.send(b"anyone?").await.is_err()).await;
    assert!(far.send(b"sticky").await.is_err());
    let (_, end) = far.read_to_end().await;
    assert!(matches!(end, End::Failed(_)), "{end:?}");
}

async fn an_abort_is_seen_while_a_receive_is_in_flight<N: Net>(network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    near.send(b"a part of").await.unwrap();
    assert!(once(|cx| near.rx.poll_recv(cx)).await.is_pending());
    assert_eq!(far.read_exact(9).await.unwrap(), b"a part of");
    assert!(once(|cx| far.rx.poll_recv(cx)).await.is_pending());
    near.reset();
    let (got, end) = far.read_to_end().await;
    assert!(got.is_empty() && matches!(end, End::Failed(_)), "{end:?}");
}

async fn an_abort_is_seen_while_a_send_is_in_flight<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let bytes = network.rng.bytes(network.much);
    for part in bytes.chunks(60_000) {
        near.tx.push(network.net.pool().copy(part));
    }
    // Sends until the buffers are full.
    let most = near.tx.queued();
    let patience = Duration::from_millis(20);
    assert!(
        within(&network.net, patience, poll_fn(|cx| near.tx.poll_send(cx)))
            .await
            .is_none()
    );
    assert!(near.tx.queued() > 0 && near.tx.queued() < most);
    let (got, end) = join(async move { near.reset() }, far.read_to_end()).await.1;
    assert!(got.len() < bytes.len() && bytes.starts_with(&got));
    assert!(matches!(end, End::Failed(_)), "{end:?}");
}

async fn a_close_with_unread_bytes_is_a_reset<N: Net>(network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    far.send(b"unwanted, and more of it").await.unwrap();
    // One byte has certainly arrived; the rest came with it or is under way.
    network
        .net
        .sleep_until(network.net.now() + Duration::from_millis(100))
        .await;
    near.send(b"answer").await.unwrap();
    drop(near);
    let (got, end) = far.read_to_end().await;
    assert!(b"answer".starts_with(&got[..]));
    assert!(matches!(end, End::Failed(_)), "{end:?}");
}

async fn sending_stops_when_nobody_reads<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let bytes = network.rng.bytes(network.much);
    let want = bytes.clone();
    let mut pushed = 0;
    let stalled = loop {
        let part = &bytes[pushed..bytes.len().min(pushed + 30_000)];
        near.tx.push(network.net.pool().copy(part));
        assert_eq!(near.tx.queued(), part.len());
        pushed += part.len();
        let sent = poll_fn(|cx| near.tx.poll_send(cx));
        match within(&network.net, Duration::from_millis(30), sent).await {
            Some(sent) => sent.unwrap(),
            None => break near.tx.queued(),
        }
        assert_eq!(near.tx.queued(), 0);
        assert!(
            pushed < bytes.len(),
            "the buffers took {pushed} bytes although nothing reads"
        );
    };
    assert!(stalled > 0 && stalled <= 30_000);
    let (net, rest) = (network.net.clone(), pushed);
    let send = async {
        poll_fn(|cx| near.tx.poll_send(cx)).await.unwrap();
        send_all(&net, &mut near.tx, &bytes[rest..]).await;
    };
    let ((), got) = join(send, far.read_to_end()).await;
    assert!(got == (want, End::Orderly));
}

async fn bytes_to_a_closed_end_break_the_connection<N: Net>(network: TestNetwork<N>) {
    let (near, mut far) = network.pair().await;
    drop(near);
    until_async(&network.net, async || far.send(b"hello?").await.is_err()).await;
}

async fn accepts_end_when_the_listener_closes<N: Net>(network: TestNetwork<N>) {
    let (listener, address) = network.listen();
    let listener = Rc::new(listener);
    let ended = Rc::new(Cell::new(0));
    for _ in 0..8 {
        let (net, listener, ended) = (network.net.clone(), listener.clone(), ended.clone());
        net.clone().spawn(async move {
            while net.accept(&listener).await.is_ok() {}
            ended.set(ended.get() + 1);
        });
    }
    let mut peer = Peer::connect(&network.net, &address).await.unwrap();
    let _ = peer.read_to_end().await;
    network.net.close_listener(&listener);
    until(&network.net, || ended.get() == 8).await;
    assert!(network.net.accept(&listener).await.is_err());
    let error = network.net.connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn a_listener_that_stops_leaves_its_queue<N: Net>(network: TestNetwork<N>) {
    let (listener, address) = network.listen();
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(Peer::connect(&network.net, &address).await.unwrap());
    }
    network.net.stop_listening(&listener);
    let late = Rc::new(RefCell::new(None));
    let (net, to, told) = (network.net.clone(), address.clone(), late.clone());
    network.net.spawn(async move {
        let error = net.connect(&to).await.err().map(|error| error.kind());
        *told.borrow_mut() = Some(error);
    });
    for peer in &mut peers {
        let accepted = network.net.accept_queued(&listener).unwrap();
        let mut served = Peer::new(&network.net, accepted.expect("it is in the queue"));
        served.send(b"hello").await.unwrap();
        served.finish();
        let (got, end) = peer.read_to_end().await;
        assert_eq!((&got[..], end), (&b"hello"[..], End::Orderly));
    }
    assert!(network.net.accept_queued(&listener).unwrap().is_none());
    network.net.close_listener(&listener);
    until(&network.net, || late.borrow().is_some()).await;
    assert_eq!(*late.borrow(), Some(Some(ErrorKind::ConnectionRefused)));
}

async fn connects_without_a_listener_are_refused<N: Net>(network: TestNetwork<N>) {
    let (socket, address) = (network.bind)(false);
    drop(socket);
    let error = network.net.connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn a_cancelled_connect_breaks_nothing<N: Net>(mut network: TestNetwork<N>) {
    let (listener, address) = network.listen();
    for _ in 0..10 {
        let patience = Duration::from_micros(network.rng.below(300) as u64);
        let _ = within(&network.net, patience, network.net.connect(&address)).await;
    }
    let accepted = async {
        loop {
            let peer = Peer::new(&network.net, network.net.accept(&listener).await.unwrap());
            let (got, end) = { peer }.read_to_end().await;
            if end == End::Orderly && got == b"last" {
                return;
            }
            assert!(got.is_empty());
        }
    };
    let last = async {
        let mut peer = Peer::connect(&network.net, &address).await.unwrap();
        peer.send(b"last").await.unwrap();
        peer.finish();
        peer.read_to_end().await
    };
    join(accepted, last).await;
}

async fn fresh_connections_move_between_cores_and_used_ones_stay<N: Net>(network: TestNetwork<N>) {
    let (listener, address) = network.listen();
    let (near, far) = join(network.net.connect(&address), network.net.accept(&listener)).await;
    let (mut near, far) = (Peer::new(&network.net, near.unwrap()), far.unwrap());
    let from = far.peer;
    assert!(from.is_some());
    near.send(b"to whom it concerns").await.unwrap();
    let parcel = network.net.pack(far).map_err(|_| ()).unwrap();
    let done = Rc::new(Cell::new(false));
    let (other, flag) = (network.other.clone(), done.clone());
    // As if another core had sent it through its mailbox.
    other.clone().spawn(async move {
        let far = other.unpack(parcel).unwrap();
        assert_eq!(far.peer, from);
        let mut far = Peer::new(&other, far);
        assert_eq!(far.read_exact(19).await.unwrap(), b"to whom it concerns");
        let Peer {
            rx, tx, address, ..
        } = far;
        let connection = Connection {
            rx,
            tx,
            peer: address,
        };
        let back = other.pack(connection).err();
        let mut far = Peer::new(&other, back.unwrap());
        far.send(b"thanks").await.unwrap();
        far.finish();
        assert_eq!(far.read_to_end().await, (Vec::new(), End::Orderly));
        flag.set(true);
    });
    near.finish();
    assert_eq!(near.read_to_end().await, (b"thanks".to_vec(), End::Orderly));
    until(&network.net, || done.get()).await;
}

async fn unix_sockets_carry_bytes_both_ways<N: Net>(mut network: TestNetwork<N>) {
    let (socket, address) = (network.bind)(true);
    let listener = network.net.listen(socket).unwrap();
    let (near, far) = join(network.net.connect(&address), network.net.accept(&listener)).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(far.peer, None);
    network.net.spawn(echo_back(Peer::new(&network.net, far)));
    let bytes = network.rng.bytes(300_000);
    let mut near = Peer::new(&network.net, near);
    let Peer { rx, tx, .. } = &mut near;
    let got = join(send_all(&network.net, tx, &bytes), receive_all(rx))
        .await
        .1;
    assert!(got == (bytes, End::Orderly));
    if let Address::Unix(path) = address {
        let _ = std::fs::remove_file(&*path);
    }
}

async fn a_bell_is_heard_once_for_many_rings<N: Net>(network: TestNetwork<N>) {
    let (bell, mut rings) = network.net.bell().unwrap();
    for _ in 0..1000 {
        bell.ring();
    }
    assert_eq!(
        poll_fn(|cx| rings.poll_recv(cx))
            .await
            .unwrap()
            .unwrap()
            .len(),
        1
    );
    bell.heard();
    assert!(once(|cx| rings.poll_recv(cx)).await.is_pending());
    let other = bell.clone();
    drop(bell);
    let net = network.net.clone();
    network.other.spawn(async move {
        net.sleep_until(net.now() + Duration::from_millis(5)).await;
        other.ring();
    });
    assert_eq!(
        poll_fn(|cx| rings.poll_recv(cx))
            .await
            .unwrap()
            .unwrap()
            .len(),
        1
    );
}

async fn clocks_and_sleeps_agree<N: Net>(network: TestNetwork<N>) {
    let net = &network.net;
    let (start, wall) = (net.now(), net.wall_ms());
    net.sleep_until(start + Duration::from_millis(40)).await;
    assert!(net.now().since(start) >= Duration::from_millis(40));
    assert!(net.wall_ms() >= wall + 39);
    net.sleep_until(start).await;
    let never = net.sleep_until(Instant::NEVER);
    assert!(within(net, Duration::from_millis(5), never).await.is_none());
}

/// A minimal relay: both directions in one task, each with a bounded queue.
async fn relay<N: Net>(near: Connection<N>, far: Connection<N>) {
    let Connection {
        rx: mut near_rx,
        tx: mut near_tx,
        ..
    } = near;
    let Connection {
        rx: mut far_rx,
        tx: mut far_tx,
        ..
    } = far;
    let up = RefCell::new(RelayDirection::default());
    let down = RefCell::new(RelayDirection::default());
    poll_fn(|cx| {
        let up = up.borrow_mut().poll(cx, &mut near_rx, &mut far_tx);
        let down = down.borrow_mut().poll(cx, &mut far_rx, &mut near_tx);
        if up && down {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[derive(Default)]
struct RelayDirection {
    ended: bool,
    done: bool,
}

impl RelayDirection {
    const QUEUED_MAX: usize = 40_000;

    fn poll(&mut self, cx: &mut Context<'_>, rx: &mut impl Rx, tx: &mut impl Tx) -> bool {
        while !self.done {
            let sent = tx.poll_send(cx).is_ready();
            if sent && self.ended {
                tx.finish();
                self.done = tx.poll_send(cx).is_ready();
                break;
            } else if self.ended || tx.queued() >= Self::QUEUED_MAX {
                break;
            } else {
                match rx.poll_recv(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(Some(chunk))) => tx.push(chunk),
                    Poll::Ready(_) => self.ended = true,
                }
            }
        }
        self.done
    }
}

async fn echo_back<N: Net>(mut peer: Peer<N>) {
    while let Ok(Some(bytes)) = peer.recv().await {
        if peer.send(&bytes).await.is_err() {
            return;
        }
    }
    end(&mut peer.tx).await;
}

/// Ends the sending direction, and waits until a drop loses nothing.
async fn end(tx: &mut impl Tx) {
    tx.finish();
    // If the connection is broken, the peer knows.
    let _ = poll_fn(|cx| tx.poll_send(cx)).await;
}

async fn send_all<N: Net>(net: &N, tx: &mut N::Tx, bytes: &[u8]) {
    for part in bytes.chunks(10_000) {
        tx.push(net.pool().copy(part));
        poll_fn(|cx| tx.poll_send(cx)).await.unwrap();
    }
    end(tx).await;
}

async fn receive_all(rx: &mut impl Rx) -> (Vec<u8>, End) {
    let mut got = Vec::new();
    loop {
        match poll_fn(|cx| rx.poll_recv(cx)).await {
            Ok(Some(chunk)) => got.extend_from_slice(&chunk),
            Ok(None) => return (got, End::Orderly),
            Err(error) => return (got, End::Failed(error.kind())),
        }
    }
}

/// Polls once.
async fn once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll_fn(|cx| Poll::Ready(poll(cx))).await
}

/// Waits for both futures in one task.
async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Waits for `what`, at most for `patience`.
async fn within<N: Net, F: Future>(net: &N, patience: Duration, what: F) -> Option<F::Output> {
    let (mut what, mut late) = (
        std::pin::pin!(what),
        std::pin::pin!(net.sleep_until(net.now() + patience)),
    );
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => late.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Waits until a condition holds, and checks it every millisecond.
async fn until<N: Net>(net: &N, mut met: impl FnMut() -> bool) {
    until_async(net, async || met()).await;
}

async fn until_async<N: Net>(net: &N, mut met: impl AsyncFnMut() -> bool) {
    while !met().await {
        net.sleep_until(net.now() + Duration::from_millis(1)).await;
    }
}
