//! The world on io_uring, through monoio.
//!
//! monoio lends an operation to the future that waits for it: drop that future and the bytes are lost. Here each half
//! of a connection owns a small long-lived future, its *pump*, that runs the operations; polls of the half only look
//! at what the pump has brought. So a poll may be given up at any time.
//!
//! Receives come in two kinds. While few connections wait, a block is posted together with the operation (armed).
//! Past [`ARMED_RECEIVES_MAX`] a half first waits for readiness, which takes no memory, and then receives.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use monoio::buf::IoVecBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::signal::Slot;
use super::{Address, Chunk, Connection, Instant, Net, Pool};
use crate::limits::{ARMED_RECEIVES_MAX, BLOCK_BYTES, RING_ENTRIES, SEND_CHUNKS_MAX};

/// What the kernel granted a core's ring, best first: each is worth CPU, none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// The kernel may assume that one thread submits (6.0).
    pub single_issuer: bool,
    /// Completions do not interrupt the core (5.19).
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

/// Runs one core's world on the calling thread until the future that `body` makes is done.
///
/// # Errors
/// The kernel has no io_uring, or forbids it.
pub fn run<F, B>(body: B) -> io::Result<F::Output>
where
    F: Future,
    B: FnOnce(Uring, RingFeatures) -> F,
{
    let mut denied = None;
    for (single_issuer, coop_taskrun) in [(true, true), (false, true), (false, false)] {
        let mut ring = io_uring::IoUring::builder();
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

/// A core's handle to its ring.
#[derive(Clone)]
pub struct Uring {
    core: Rc<Shared>,
}

struct Shared {
    start: std::time::Instant,
    /// The time as of the last event: reading the clock for every look at it would cost more than the looks.
    now: Cell<Instant>,
    /// Milliseconds from the Unix epoch to `start`, set anew with every sleep that ends.
    epoch_ms: Cell<u64>,
    pool: Pool,
    armed: Cell<usize>,
}

impl Shared {
    /// Reads the clock: something has happened.
    fn tick(&self) {
        self.now
            .set(Instant(self.start.elapsed().as_nanos() as u64));
    }

    /// Follows the wall clock, which may be set.
    fn tick_wall(&self) {
        self.tick();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| wall.as_millis() as u64);
        self.epoch_ms
            .set(wall_ms.saturating_sub(self.now.get().0 / 1_000_000));
    }
}

impl Uring {
    fn new() -> Self {
        let core = Shared {
            start: std::time::Instant::now(),
            now: Cell::new(Instant::default()),
            epoch_ms: Cell::new(0),
            pool: Pool::new(),
            armed: Cell::new(0),
        };
        core.tick_wall();
        Self {
            core: Rc::new(core),
        }
    }

    fn connection(&self, tcp: TcpStream, peer: Option<SocketAddr>) -> Connection<Self> {
        let socket = Rc::new(Socket {
            tcp: UnsafeCell::new(tcp),
        });
        Connection {
            rx: UringRx::new(socket.clone(), self.core.clone()),
            tx: UringTx::new(socket),
            peer,
        }
    }

    /// Takes a connected socket of any stream family over: monoio's TCP type issues operations by descriptor alone.
    fn adopt(&self, fd: OwnedFd, peer: Option<SocketAddr>) -> io::Result<Connection<Self>> {
        Ok(self.connection(TcpStream::from_std(StdTcpStream::from(fd))?, peer))
    }
}

/// A bound listening socket.
pub enum ListenSocket {
    /// TCP; shares its port with the other cores' by `SO_REUSEPORT`.
    Tcp(std::net::TcpListener),
    /// Unix; cores accept from clones of one socket.
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket registered with the core's runtime.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// An accepted connection between two cores.
pub struct Parcel {
    fd: OwnedFd,
    peer: Option<SocketAddr>,
}

impl Net for Uring {
    type Socket = ListenSocket;
    type Listener = Listener;
    type Rx = UringRx;
    type Tx = UringTx;
    type Parcel = Parcel;
    type Bell = Doorbell;

    #[inline]
    fn now(&self) -> Instant {
        self.core.now.get()
    }

    fn wall_ms(&self) -> u64 {
        self.core.epoch_ms.get() + self.core.now.get().0 / 1_000_000
    }

    #[inline]
    fn pool(&self) -> &Pool {
        &self.core.pool
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }

    async fn sleep_until(&self, at: Instant) {
        self.core.tick();
        monoio::time::sleep(at.since(self.now())).await;
        self.core.tick_wall();
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<Listener> {
        Ok(match socket {
            ListenSocket::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self, listener: &Listener) -> io::Result<Connection<Self>> {
        match listener {
            Listener::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                self.core.tick();
                Ok(self.connection(tcp, Some(peer)))
            }
            Listener::Unix(listener) => {
                let (unix, _) = listener.accept().await?;
                self.adopt(owned(unix.into_raw_fd()), None)
            }
        }
    }

    fn close_listener(&self, listener: &Listener) {
        let fd = match listener {
            Listener::Tcp(listener) => listener.as_raw_fd(),
            Listener::Unix(listener) => listener.as_raw_fd(),
        };
        shut(fd, libc::SHUT_RDWR);
    }

    async fn connect(&self, to: &Address) -> io::Result<Connection<Self>> {
        match to {
            Address::Ip(address) => {
                let tcp = TcpStream::connect_addr(*address).await?;
                self.core.tick();
                tcp.set_nodelay(true)?;
                Ok(self.connection(tcp, Some(*address)))
            }
            Address::Unix(path) => {
                let unix = UnixStream::connect(path.as_path()).await?;
                self.core.tick();
                self.adopt(owned(unix.into_raw_fd()), None)
            }
        }
    }

    fn pack(&self, connection: Connection<Self>) -> Result<Parcel, Connection<Self>> {
        let Connection { rx, tx, peer } = connection;
        if rx.pump.is_some() || tx.pump.is_some() {
            return Err(Connection { rx, tx, peer });
        }
        let socket = rx.socket.clone();
        drop((rx, tx));
        match Rc::try_unwrap(socket) {
            Ok(socket) => {
                let fd = owned(socket.tcp.into_inner().into_raw_fd());
                Ok(Parcel { fd, peer })
            }
            Err(socket) => Err(Connection {
                rx: UringRx::new(socket.clone(), self.core.clone()),
                tx: UringTx::new(socket),
                peer,
            }),
        }
    }

    fn unpack(&self, parcel: Parcel) -> io::Result<Connection<Self>> {
        self.adopt(parcel.fd, parcel.peer)
    }

    fn bell(&self) -> io::Result<(Doorbell, UringRx)> {
        let (near, far) = StdUnixStream::pair()?;
        far.set_nonblocking(true)?;
        let near = self.adopt(near.into(), None)?;
        let bell = Arc::new(BellState {
            rung: AtomicBool::new(false),
            far,
        });
        let mut rx = near.rx;
        rx.bell = Some(bell.clone());
        Ok((Doorbell { bell }, rx))
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: callers pass what `into_raw_fd` has just given away, so nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn shut(fd: i32, how: i32) {
    // SAFETY: shutdown takes a descriptor and touches no memory; one that is no socket gives an error, which means
    // the direction is closed already.
    unsafe { libc::shutdown(fd, how) };
}

/// Rings a core awake: a byte through a socket pair, unless one is on its way.
#[derive(Clone)]
pub struct Doorbell {
    bell: Arc<BellState>,
}

struct BellState {
    rung: AtomicBool,
    far: StdUnixStream,
}

impl super::Bell for Doorbell {
    fn ring(&self) {
        if !self.bell.rung.swap(true, Ordering::AcqRel) {
            // A full socket buffer means that rings are waiting to be heard; a closed one, that the core has ended.
            let _ = io::Write::write(&mut &self.bell.far, &[1]);
        }
    }
}

/// One connected socket, shared by its halves and their pumps.
struct Socket {
    tcp: UnsafeCell<TcpStream>,
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        // SAFETY: see `tcp_mut`.
        unsafe { &*self.tcp.get() }
    }

    /// monoio asks for `&mut` to read and to write, though both only clone the descriptor's counted handle while the
    /// call lasts: its own split halves share the stream the same way.
    #[allow(clippy::mut_from_ref)]
    fn tcp_mut(&self) -> &mut TcpStream {
        // SAFETY: one thread; the reference is used for the call that starts an operation and by nobody after it,
        // so two of them are never used in turn.
        unsafe { &mut *self.tcp.get() }
    }

    fn fd(&self) -> i32 {
        self.tcp().as_raw_fd()
    }
}

type Pump = Pin<Box<dyn Future<Output = ()>>>;

/// Receiving half of a socket.
pub struct UringRx {
    socket: Rc<Socket>,
    core: Rc<Shared>,
    pump: Option<Pump>,
    slot: Rc<Slot<RxState>>,
    waiting: bool,
    class: u8,
    ended: Option<io::ErrorKind>,
    bell: Option<Arc<BellState>>,
}

#[derive(Default)]
struct RxState {
    /// Bytes to make room for in the next receive; 0 when none is asked for.
    wanted: Cell<usize>,
    done: Cell<Option<io::Result<Chunk>>>,
}

impl UringRx {
    fn new(socket: Rc<Socket>, core: Rc<Shared>) -> Self {
        let slot = Slot::new(RxState::default());
        Self {
            socket,
            core,
            pump: None,
            slot,
            waiting: false,
            class: 0,
            ended: None,
            bell: None,
        }
    }

    /// A full block says that more is there: take a larger one next. A nearly empty one says the opposite.
    fn adapt(&mut self, got: usize) {
        let size = BLOCK_BYTES[self.class as usize];
        if got >= size && (self.class as usize) < BLOCK_BYTES.len() - 1 {
            self.class += 1;
        } else if got < size / 8 && self.class > 0 {
            self.class -= 1;
        }
    }
}

impl super::Rx for UringRx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if let Some(kind) = self.ended {
            return Poll::Ready(if kind == io::ErrorKind::UnexpectedEof {
                Ok(None)
            } else {
                Err(kind.into())
            });
        }
        if !self.slot.is_due(cx) && self.waiting {
            return Poll::Pending;
        }
        if !self.waiting {
            self.slot.wanted.set(BLOCK_BYTES[self.class as usize]);
            self.waiting = true;
        }
        let pump = self.pump.get_or_insert_with(|| {
            Box::pin(receive(
                self.socket.clone(),
                self.core.clone(),
                self.slot.clone(),
            ))
        });
        let news = self.slot.listen();
        let _ = pump.as_mut().poll(&mut Context::from_waker(&news));
        let Some(done) = self.slot.done.take() else {
            return Poll::Pending;
        };
        self.waiting = false;
        if let Some(bell) = &self.bell {
            bell.rung.store(false, Ordering::Release);
        }
        Poll::Ready(match done {
            Ok(chunk) if chunk.is_empty() => {
                self.ended = Some(io::ErrorKind::UnexpectedEof);
                Ok(None)
            }
            Ok(chunk) => {
                self.adapt(chunk.len());
                Ok(Some(chunk))
            }
            Err(error) => {
                self.ended = Some(error.kind());
                Err(error)
            }
        })
    }

    fn expect(&mut self, bytes: usize) {
        let class = BLOCK_BYTES.iter().position(|&size| size >= bytes);
        self.class = class.unwrap_or(BLOCK_BYTES.len() - 1) as u8;
    }
}

impl Drop for UringRx {
    fn drop(&mut self) {
        if self.waiting && self.ended.is_none() {
            // Ends the operation in flight, whatever becomes of its cancellation; the descriptor closes after it. The
            // sending direction is left alone: it may be about to end in a reset.
            shut(self.socket.fd(), libc::SHUT_RD);
        }
    }
}

/// The receiving pump: one receive whenever one is wanted.
async fn receive(socket: Rc<Socket>, core: Rc<Shared>, slot: Rc<Slot<RxState>>) {
    loop {
        let bytes = poll_fn(|_| match slot.wanted.take() {
            0 => Poll::Pending,
            bytes => Poll::Ready(bytes),
        });
        let bytes = bytes.await;
        let armed = Armed::take(&core);
        if armed.is_none() {
            // Its error, if any, is the receive's as well.
            let _ = socket.tcp().readable(true).await;
        }
        let (n, filling) = socket.tcp_mut().read(core.pool.filling(bytes)).await;
        drop(armed);
        core.tick();
        slot.done.set(Some(n.map(|_| filling.freeze())));
    }
}

/// A place among the receives that may hold a block while they wait.
struct Armed {
    core: Rc<Shared>,
}

impl Armed {
    fn take(core: &Rc<Shared>) -> Option<Self> {
        let armed = core.armed.get();
        (armed < ARMED_RECEIVES_MAX).then(|| {
            core.armed.set(armed + 1);
            Self { core: core.clone() }
        })
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.core.armed.set(self.core.armed.get() - 1);
    }
}

/// Sending half of a socket.
pub struct UringTx {
    socket: Rc<Socket>,
    pump: Option<Pump>,
    slot: Rc<Slot<TxState>>,
    queue: VecDeque<Chunk>,
    queued: usize,
    ended: Option<io::ErrorKind>,
}

#[derive(Default)]
struct TxState {
    next: Cell<Option<Batch>>,
    /// Bytes of the batch that is being sent; 0 between batches.
    sending: Cell<usize>,
    failed: Cell<Option<io::Error>>,
}

enum Batch {
    One(Chunk),
    Many(Vectored),
}

impl UringTx {
    fn new(socket: Rc<Socket>) -> Self {
        let slot = Slot::new(TxState::default());
        Self {
            socket,
            pump: None,
            slot,
            queue: VecDeque::new(),
            queued: 0,
            ended: None,
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if self.queue.len() <= 1 {
            return self.queue.pop_front().map(Batch::One);
        }
        let n = self.queue.len().min(SEND_CHUNKS_MAX);
        Some(Batch::Many(Vectored::new(self.queue.drain(..n))))
    }
}

impl super::Tx for UringTx {
    fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.queue.push_back(chunk);
        }
    }

    fn queued(&self) -> usize {
        self.queued + self.slot.sending.get()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_due = self.slot.is_due(cx);
        if self.slot.sending.get() > 0 && !is_due {
            return Poll::Pending;
        }
        loop {
            if let Some(kind) = self.ended {
                return Poll::Ready(Err(kind.into()));
            }
            if self.slot.sending.get() == 0 {
                let Some(batch) = self.next_batch() else {
                    return Poll::Ready(Ok(()));
                };
                let bytes = batch.len();
                self.queued -= bytes;
                self.slot.sending.set(bytes);
                self.slot.next.set(Some(batch));
            }
            let pump = self
                .pump
                .get_or_insert_with(|| Box::pin(send(self.socket.clone(), self.slot.clone())));
            let news = self.slot.listen();
            let _ = pump.as_mut().poll(&mut Context::from_waker(&news));
            if let Some(error) = self.slot.failed.take() {
                self.ended = Some(error.kind());
                self.queue.clear();
                self.queued = 0;
                return Poll::Ready(Err(error));
            }
            if self.slot.sending.get() > 0 {
                return Poll::Pending;
            }
        }
    }

    fn finish(&mut self) {
        shut(self.socket.fd(), libc::SHUT_WR);
    }

    fn abort(&mut self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the option's value is a `linger` of the size given, alive for the call.
        unsafe {
            libc::setsockopt(
                self.socket.fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            );
        }
        self.ended = Some(io::ErrorKind::ConnectionAborted);
    }
}

impl Drop for UringTx {
    fn drop(&mut self) {
        if self.slot.sending.get() > 0 && self.ended.is_none() {
            shut(self.socket.fd(), libc::SHUT_RDWR);
        }
    }
}

/// The sending pump: takes a batch, sends all of it, waits for the next.
async fn send(socket: Rc<Socket>, slot: Rc<Slot<TxState>>) {
    loop {
        let mut batch = poll_fn(|_| slot.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        while batch.len() > 0 {
            let sent;
            (sent, batch) = match batch {
                Batch::One(chunk) => {
                    let (sent, chunk) = socket.tcp_mut().write(chunk).await;
                    (sent, Batch::One(chunk))
                }
                Batch::Many(chunks) => {
                    let (sent, chunks) = socket.tcp_mut().writev(chunks).await;
                    (sent, Batch::Many(chunks))
                }
            };
            match sent {
                Ok(0) => slot.failed.set(Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    batch.advance(n);
                    slot.sending.set(batch.len());
                    continue;
                }
                Err(error) => slot.failed.set(Some(error)),
            }
            slot.sending.set(0);
            break;
        }
    }
}

impl Batch {
    fn len(&self) -> usize {
        match self {
            Self::One(chunk) => chunk.len(),
            Self::Many(chunks) => chunks.bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::One(chunk) => chunk.advance(n),
            Self::Many(chunks) => chunks.advance(n),
        }
    }
}

/// Several chunks for one vectored send.
struct Vectored {
    chunks: VecDeque<Chunk>,
    iovecs: Vec<libc::iovec>,
    bytes: usize,
}

impl Vectored {
    fn new(chunks: impl Iterator<Item = Chunk>) -> Self {
        let mut batch = Self {
            chunks: chunks.collect(),
            iovecs: Vec::new(),
            bytes: 0,
        };
        batch.point();
        batch
    }

    fn point(&mut self) {
        self.iovecs.clear();
        self.iovecs
            .extend(self.chunks.iter().map(|chunk| libc::iovec {
                iov_base: chunk.as_ptr().cast_mut().cast(),
                iov_len: chunk.len(),
            }));
        self.bytes = self.chunks.iter().map(|chunk| chunk.len()).sum();
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(first) = self.chunks.front_mut() {
            if first.len() > n {
                first.advance(n);
                break;
            }
            n -= first.len();
            self.chunks.pop_front();
        }
        self.point();
    }
}

// SAFETY: the iovecs stand on the heap and point into blocks that `chunks` holds; both stay put when the batch moves
// and are only rewritten between operations.
unsafe impl IoVecBuf for Vectored {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.iovecs.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.iovecs.len()
    }
}
