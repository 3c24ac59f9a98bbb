//! The world on io_uring through monoio.
//!
//! monoio lends an operation to the future that waits for it, and dropping that future loses the bytes. So each half of
//! a connection owns a small long-lived future, its *pump*, which runs the operations. Polling the half only takes what
//! the pump has brought, so dropping a poll loses nothing.
//!
//! There are two kinds of receives. While few connections wait, a half posts a block together with the operation (an
//! armed receive). Past [`ARMED_RECEIVES_MAX`](crate::limits::ARMED_RECEIVES_MAX) it first waits for readiness, which
//! takes no memory, and then receives.

mod datagrams;
mod pump_signal;
mod rx;
mod tx;

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use monoio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::clock::Clock;
use super::datagram;
use super::datagram_batch::{DatagramBatch, FLOW_DATAGRAMS_AT_ONCE, LISTENER_DATAGRAMS_AT_ONCE};
use super::os::{
    self, Doorbell, ListenSocket, PackedConnection, SharedSocket, SocketOrigin, owned,
    set_nonblocking, shut,
};
use super::pipe::{Pipe, Pipes};
use super::{Address, Connection, Instant, Net, Pool};
use crate::limits::{ACCEPTS_POSTED, RING_ENTRIES};

pub use datagrams::UringDatagrams;
pub use rx::UringRx;
pub use tx::UringTx;

/// The ring features that the kernel granted. Each saves CPU; none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// The kernel may assume that one thread submits (Linux 6.0).
    pub single_issuer: bool,
    /// Completions do not interrupt the core (Linux 5.19).
    pub coop_taskrun: bool,
}

impl std::fmt::Display for RingFeatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.single_issuer, self.coop_taskrun) {
            (true, true) => "single_issuer coop_taskrun taskrun_flag",
            (_, true) => "coop_taskrun taskrun_flag",
            _ => "none",
        })
    }
}

/// Checks that the kernel grants a ring.
///
/// # Errors
/// The kernel lacks io_uring or forbids it.
pub fn probe() -> io::Result<()> {
    monoio_ring::IoUring::new(1).map(drop)
}

/// Runs one core's world on the calling thread until the future that `body` makes completes.
///
/// # Errors
/// The kernel lacks io_uring or forbids it.
pub fn run<F, B>(body: B) -> io::Result<F::Output>
where
    F: Future,
    B: FnOnce(Uring, RingFeatures) -> F,
{
    let mut denied = None;
    for (single_issuer, coop_taskrun) in [(true, true), (false, true), (false, false)] {
        let mut ring = monoio_ring::IoUring::builder();
        if single_issuer {
            ring.setup_single_issuer();
        }
        if coop_taskrun {
            ring.setup_coop_taskrun().setup_taskrun_flag();
        }
        let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(ring)
            .enable_timer()
            .build();
        match runtime {
            Ok(mut runtime) => {
                let net = Uring::new();
                return Ok(runtime.block_on(body(
                    net,
                    RingFeatures {
                        single_issuer,
                        coop_taskrun,
                    },
                )));
            }
            Err(error) => denied = Some(error),
        }
    }
    Err(denied.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

/// The shortest sleep of monoio's timer.
const LATER: Duration = Duration::from_millis(1);

/// A core's handle to its ring.
#[derive(Clone)]
pub struct Uring {
    state: Rc<UringState>,
}

struct UringState {
    clock: Clock,
    pool: Pool,
    armed: Cell<usize>,
    pipes: Rc<Pipes>,
    /// Room for received datagrams, once a socket has needed it.
    datagrams: Cell<Option<Box<DatagramBatch>>>,
    /// Tasks that have used up their share and continue after the next look at I/O.
    later: RefCell<Vec<Waker>>,
}

impl UringState {
    /// Wakes the task once the runtime has looked at its I/O. The runtime looks at I/O only when no task can run, and
    /// at its timers after that. So one short sleep, shared by all waiting tasks, ends after both.
    fn wake_later(state: &Rc<Self>, cx: &Context<'_>) {
        let mut later = state.later.borrow_mut();
        later.push(cx.waker().clone());
        if later.len() > 1 {
            return;
        }
        let state = state.clone();
        monoio::spawn(async move {
            monoio::time::sleep(LATER).await;
            state.clock.tick_wall();
            state.later.take().into_iter().for_each(Waker::wake);
        });
    }
}

impl Uring {
    fn new() -> Self {
        let state = UringState {
            clock: Clock::start(),
            pool: Pool::new(),
            armed: Cell::new(0),
            pipes: Rc::default(),
            datagrams: Cell::new(None),
            later: RefCell::default(),
        };
        Self {
            state: Rc::new(state),
        }
    }

    fn connection(&self, tcp: TcpStream, peer: Option<SocketAddr>) -> Connection<Self> {
        let socket = Rc::new(UringSocket {
            tcp: UnsafeCell::new(tcp),
            aborting: Cell::new(false),
            nonblocking: Cell::new(false),
            broken: Cell::new(false),
            sending: Cell::new(0),
        });
        Connection {
            rx: UringRx::new(socket.clone(), self.state.clone()),
            tx: UringTx::new(socket),
            peer,
        }
    }

    /// Wraps a connected socket of any stream family: monoio's TCP type issues operations by descriptor alone.
    fn adopt(&self, fd: OwnedFd, peer: Option<SocketAddr>) -> io::Result<Connection<Self>> {
        Ok(self.connection(TcpStream::from_std(StdTcpStream::from(fd))?, peer))
    }
}

/// A listening socket that the core's runtime has registered.
pub struct UringListener {
    socket: ListenerSocket,
    origin: SocketOrigin,
    is_closed: Cell<bool>,
    accepting: RefCell<Vec<Waker>>,
}

enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl UringListener {
    fn fd(&self) -> i32 {
        match &self.socket {
            ListenerSocket::Tcp(socket) => socket.as_raw_fd(),
            ListenerSocket::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl Net for Uring {
    const ACCEPTS_POSTED: usize = ACCEPTS_POSTED;

    type Socket = ListenSocket;
    type Listener = UringListener;
    type Datagrams = UringDatagrams;
    type Rx = UringRx;
    type Tx = UringTx;
    type PackedConnection = PackedConnection;
    type Bell = Doorbell;

    #[inline]
    fn now(&self) -> Instant {
        self.state.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.state.clock.wall_ms()
    }

    #[inline]
    fn pool(&self) -> &Pool {
        &self.state.pool
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }

    async fn sleep_until(&self, at: Instant) {
        self.state.clock.tick();
        monoio::time::sleep(at.since(self.now())).await;
        self.state.clock.tick_wall();
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<UringListener> {
        let (socket, origin) = match socket {
            ListenSocket::Tcp(socket, origin) => {
                (ListenerSocket::Tcp(TcpListener::from_std(socket)?), origin)
            }
            ListenSocket::Unix(socket, origin) => (
                ListenerSocket::Unix(UnixListener::from_std(socket)?),
                origin,
            ),
            ListenSocket::Udp(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(UringListener {
            socket,
            origin,
            is_closed: Cell::new(false),
            accepting: RefCell::default(),
        })
    }

    fn bind_datagrams(&self, socket: ListenSocket) -> io::Result<UringDatagrams> {
        let ListenSocket::Udp(socket) = socket else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        datagram::prepare_listener(&socket)?;
        UringDatagrams::new(&self.state, socket.into(), LISTENER_DATAGRAMS_AT_ONCE)
    }

    fn connect_datagrams(&self, to: SocketAddr) -> io::Result<UringDatagrams> {
        UringDatagrams::new(&self.state, datagram::connect(to)?, FLOW_DATAGRAMS_AT_ONCE)
    }

    async fn accept(&self, listener: &UringListener) -> io::Result<Connection<Self>> {
        let mut accepting = pin!(async {
            match &listener.socket {
                ListenerSocket::Tcp(socket) => {
                    let (tcp, peer) = socket.accept().await?;
                    self.state.clock.tick();
                    Ok(self.connection(tcp, Some(peer)))
                }
                ListenerSocket::Unix(socket) => {
                    let (unix, _) = socket.accept().await?;
                    self.adopt(owned(unix.into_raw_fd()), None)
                }
            }
        });
        // A shutdown ends pending accepts, but Weir does not shut inherited sockets down.
        poll_fn(|cx| {
            if let Poll::Ready(accepted) = accepting.as_mut().poll(cx) {
                return Poll::Ready(accepted);
            }
            if listener.is_closed.get() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let mut wakers = listener.accepting.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn stop_listening(&self, listener: &UringListener) {
        // Calls outside the ring must not wait.
        set_nonblocking(listener.fd());
        if listener.origin == SocketOrigin::Bound {
            let is_tcp = matches!(listener.socket, ListenerSocket::Tcp(_));
            os::stop_listening(listener.fd(), is_tcp);
        }
    }

    fn accept_queued(&self, listener: &UringListener) -> io::Result<Option<Connection<Self>>> {
        match os::accept_queued(listener.fd(), 0)? {
            Some((fd, peer)) => self.adopt(owned(fd), peer).map(Some),
            None => Ok(None),
        }
    }

    fn close_listener(&self, listener: &UringListener) {
        listener.is_closed.set(true);
        if listener.origin == SocketOrigin::Bound {
            shut(listener.fd(), libc::SHUT_RDWR);
        }
        let wakers = listener.accepting.take();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn share_listener(&self, listener: &UringListener) -> io::Result<SharedSocket> {
        Ok(SharedSocket {
            fd: os::duplicate(listener.fd())?,
            origin: listener.origin,
        })
    }

    fn leave_listener(&self, listener: &UringListener) {
        listener.is_closed.set(true);
        let wakers = listener.accepting.take();
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn connect(&self, to: &Address) -> io::Result<Connection<Self>> {
        match to {
            Address::Ip(address) => {
                let tcp = TcpStream::connect_addr(*address).await;
                self.state.clock.tick();
                let tcp = tcp?;
                tcp.set_nodelay(true)?;
                Ok(self.connection(tcp, Some(*address)))
            }
            Address::Unix(path) => {
                let unix = UnixStream::connect(path.as_path()).await;
                self.state.clock.tick();
                let unix = unix?;
                self.adopt(owned(unix.into_raw_fd()), None)
            }
        }
    }

    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &mut UringRx,
        to: &mut UringTx,
        at_most: usize,
    ) -> Poll<usize> {
        if !from.may_pass() {
            return Poll::Ready(0);
        }
        ready!(to.poll_idle(cx));
        let pipe = to
            .may_pass()
            .then(|| Pipe::take(&self.state.pipes))
            .flatten();
        let Some(mut pipe) = pipe else {
            return Poll::Ready(0);
        };
        let passed = ready!(from.poll_fill(cx, &mut pipe, at_most));
        if passed > 0 {
            to.pass(pipe);
        }
        Poll::Ready(passed)
    }

    fn set_pipes_max(&self, pipes: usize) {
        self.state.pipes.set_max(pipes);
    }

    fn pack(&self, connection: Connection<Self>) -> Result<PackedConnection, Connection<Self>> {
        let Connection { rx, tx, peer } = connection;
        if rx.pump.is_some() || tx.pump.is_some() || super::Tx::queued(&tx) > 0 {
            return Err(Connection { rx, tx, peer });
        }
        let socket = rx.socket.clone();
        drop((rx, tx));
        match Rc::try_unwrap(socket) {
            Ok(socket) => {
                let fd = owned(socket.tcp.into_inner().into_raw_fd());
                Ok(PackedConnection { fd, peer })
            }
            Err(socket) => Err(Connection {
                rx: UringRx::new(socket.clone(), self.state.clone()),
                tx: UringTx::new(socket),
                peer,
            }),
        }
    }

    fn unpack(&self, parcel: PackedConnection) -> io::Result<Connection<Self>> {
        self.adopt(parcel.fd, parcel.peer)
    }

    fn bell(&self) -> io::Result<(Doorbell, UringRx)> {
        let (bell, near) = Doorbell::new()?;
        Ok((bell, self.adopt(near, None)?.rx))
    }
}

/// A connected socket, shared by its halves and their pumps.
struct UringSocket {
    tcp: UnsafeCell<TcpStream>,
    /// The connection must end in a reset, so nothing may end it in an orderly way first.
    aborting: Cell<bool>,
    /// Calls outside the ring do not wait.
    nonblocking: Cell<bool>,
    /// A send has failed. The system reports a reset only once, so a later receive may see a plain end.
    broken: Cell<bool>,
    /// Bytes left of the batch under way; 0 between batches.
    sending: Cell<usize>,
}

impl UringSocket {
    /// Sets the socket non-blocking, so that calls outside the ring fail instead of waiting. Returns whether that
    /// worked.
    fn set_nonblocking(&self) -> bool {
        if !self.nonblocking.get() {
            self.nonblocking.set(set_nonblocking(self.fd()));
        }
        self.nonblocking.get()
    }

    fn tcp(&self) -> &TcpStream {
        // SAFETY: see `tcp_mut`.
        unsafe { &*self.tcp.get() }
    }

    /// monoio asks for `&mut` to read and to write, though both only clone the descriptor's counted handle during the
    /// call. monoio's own split halves share the stream in the same way.
    #[allow(clippy::mut_from_ref)]
    fn tcp_mut(&self) -> &mut TcpStream {
        // SAFETY: one thread uses the socket. The reference lives only for the call that starts an operation, so two of
        // them are never used alternately.
        unsafe { &mut *self.tcp.get() }
    }

    fn fd(&self) -> i32 {
        self.tcp().as_raw_fd()
    }

    /// Whether an end that was read is really a reset that a send has reported, or is about to report. The connection
    /// is then gone in both directions, although we have not ended ours.
    fn is_broken(&self) -> bool {
        self.broken.get() || self.sending.get() > 0 && self.is_gone()
    }

    fn is_gone(&self) -> bool {
        let mut state = 0_u8;
        let mut size = size_of::<u8>() as libc::socklen_t;
        // SAFETY: the system cuts its answer to the size given, and `state`, its first byte, lives for the call.
        let got = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut state).cast(),
                &raw mut size,
            )
        };
        // A Unix socket lacks this option, and its resets never look like an end.
        got == 0 && state == TCP_CLOSE
    }
}

/// The state of a TCP connection that is gone, as `TCP_INFO` reports it.
const TCP_CLOSE: u8 = 7;

type Pump = Pin<Box<dyn Future<Output = ()>>>;
