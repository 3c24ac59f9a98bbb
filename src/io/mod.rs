//! The I/O seam: everything that the data path may ask of the outside world.
//!
//! [`Net`] has three implementations: [`ring`] on io_uring, [`uring`] on io_uring through monoio,
//! and [`sim`], a deterministic world for tests. The code above the seam is generic over `Net` and never names the
//! runtime, a socket or a file descriptor.
//!
//! Three rules make completion-based I/O safe to use from ordinary `async` code:
//! - An operation in flight belongs to its half of the socket ([`Rx`], [`Tx`]), not to the future that waits for it.
//!   Dropping that future loses nothing: the operation stays armed, and the next poll takes its result.
//! - The runtime provides the buffer, so no caller can free memory that the kernel still writes to.
//! - A [`Tx`] sends everything that was pushed, or tears the connection down.

mod chunk;
mod clock;
mod datagram;
mod datagram_batch;
mod datagram_send;
mod datagram_train;
mod inherited;
mod os;
mod pipe;
mod receive_size;
pub mod ring;
pub mod sim;
pub mod uring;
#[cfg(test)]
pub(crate) mod wake_counter;
mod zeroed;

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use chunk::{Charge, Chunk, OutBlock, Pool, ReceiveBlock};
pub use datagram::{DATAGRAM_BYTES_MAX, DatagramPath, Datagrams, SentDatagrams};
pub use datagram_train::DatagramTrain;
pub use inherited::take_inherited;
pub use os::{Doorbell, ListenSocket, PackedConnection, SharedSocket, SocketOrigin, bound_unsent};
pub use zeroed::zeroed_words;

#[cfg(doc)]
use crate::limits::SILENCE_MS;

/// A point in time, in nanoseconds on the monotonic clock. All cores count from the same time, but a core knows only the
/// time at which an event last woke it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than any deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time from `earlier` until this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The system's error number; 0 if the error has none.
#[must_use]
pub fn errno(error: &io::Error) -> u16 {
    let reset = rustix::io::Errno::CONNRESET.raw_os_error();
    let is_reset = error.kind() == io::ErrorKind::ConnectionReset;
    let number = error.raw_os_error().or_else(|| is_reset.then_some(reset));
    number
        .and_then(|number| number.try_into().ok())
        .unwrap_or(0)
}

/// The address of either end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<PathBuf>),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An accepted or opened connection, split into its two directions.
pub struct Connection<N: Net> {
    pub rx: N::Rx,
    pub tx: N::Tx,
    /// The peer's address; `None` for the client of a Unix socket, which has none.
    pub peer: Option<SocketAddr>,
}

/// The outside world of one core. Cloning is cheap; a clone never leaves its core.
pub trait Net: Clone + 'static {
    /// How many accepts should wait at each listener so that the core accepts a storm of connections in few turns of its
    /// loop.
    const ACCEPTS_POSTED: usize = 1;

    /// A listening socket, as control hands it to a core.
    type Socket: Send + 'static;
    /// A listening socket that its core has registered.
    type Listener: 'static;
    /// A socket for datagrams.
    type Datagrams: Datagrams;
    /// The receiving half of a connection.
    type Rx: Rx;
    /// The sending half of a connection.
    type Tx: Tx;
    /// An accepted connection on its way to another core.
    type PackedConnection: Send + 'static;
    /// The doorbell that other threads ring to wake this core.
    type Bell: Bell;

    /// The monotonic time, read when an event last woke a task of this core. Deadlines compare with this clock.
    fn now(&self) -> Instant;

    /// Milliseconds since the Unix epoch, for logs and the `Date` field.
    fn wall_ms(&self) -> u64;

    /// The pool of this core's blocks.
    fn pool(&self) -> &Pool;

    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Waits until `at`. Only a few tasks of a core use this; connections use the core's timers.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()>;

    /// Registers a listening socket that control has bound.
    ///
    /// # Errors
    /// The runtime refuses the socket.
    fn listen(&self, socket: Self::Socket) -> io::Result<Self::Listener>;

    /// Registers a socket for datagrams that control has bound.
    ///
    /// # Errors
    /// It is no socket for datagrams, or the runtime refuses it.
    fn bind_datagrams(&self, socket: Self::Socket) -> io::Result<Self::Datagrams>;

    /// Opens a socket that exchanges datagrams with `to` only.
    ///
    /// # Errors
    /// The process is out of descriptors or ports, or no route leads to `to`.
    fn connect_datagrams(&self, to: SocketAddr) -> io::Result<Self::Datagrams>;

    /// Waits for the next connection. Several tasks may wait at once. [`Net::close_listener`] fails all of them.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<Connection<Self>>>;

    /// Makes the system turn new clients away. Connections in the queue stay there, the kernel completes the TCP
    /// handshakes under way, and pending accepts continue. An inherited socket keeps listening because other processes
    /// may hold it too.
    fn stop_listening(&self, listener: &Self::Listener);

    /// Accepts a connection from the queue without waiting. Returns `None` if the queue is empty. Call it only after
    /// [`Net::stop_listening`].
    ///
    /// # Errors
    /// The process is out of descriptors or memory, or the client has left.
    fn accept_queued(&self, listener: &Self::Listener) -> io::Result<Option<Connection<Self>>>;

    /// Closes a listener. The system resets the connections in its queue, and pending accepts fail.
    fn close_listener(&self, listener: &Self::Listener);

    /// Another descriptor of a listener's socket, for a process that takes the socket over.
    ///
    /// # Errors
    /// The process is out of descriptors, or the driver has none.
    fn share_listener(&self, listener: &Self::Listener) -> io::Result<SharedSocket>;

    /// Stops accepting, because another process has taken the socket over. Pending accepts fail; the queue stays for that
    /// process.
    fn leave_listener(&self, listener: &Self::Listener);

    /// Opens a connection to `to`. Dropping the future gives up.
    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Connection<Self>>>;

    /// Moves up to `at_most` bytes from one connection to another without bringing them into user space. The bytes
    /// queue on `to` behind what is queued there, and [`Tx::queued`] counts them until they are sent. Returns how many
    /// bytes moved.
    ///
    /// Returns 0 if nothing can move this way now, for example while a receive is in flight on `from`. The caller then
    /// receives instead, which also reports an end or an error.
    ///
    /// Pending until bytes arrive and the kernel has taken what `to` is sending. The caller polls both halves:
    /// [`Tx::poll_send`] reports how sending goes. Dropping a poll loses nothing. Until bytes have arrived, `at_most`
    /// may grow from one poll to the next, but not shrink.
    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &mut Self::Rx,
        to: &mut Self::Tx,
        at_most: usize,
    ) -> Poll<usize>;

    /// Sets how many pipes this core may open. A pipe takes two descriptors.
    fn set_pipes_max(&self, pipes: usize) {
        let _ = pipes;
    }

    /// Packs a fresh connection for another core.
    ///
    /// # Errors
    /// The connection has been used; it comes back unchanged.
    fn pack(
        &self,
        connection: Connection<Self>,
    ) -> Result<Self::PackedConnection, Connection<Self>>;

    /// Unpacks a connection that another core has packed.
    ///
    /// # Errors
    /// The runtime refuses the socket.
    fn unpack(&self, parcel: Self::PackedConnection) -> io::Result<Connection<Self>>;

    /// Creates a doorbell and the half that receives its rings. Each ring arrives as one byte; a ring merges into the
    /// last one if the core has not heard that yet ([`Bell::heard`]).
    ///
    /// # Errors
    /// The process is out of descriptors.
    fn bell(&self) -> io::Result<(Self::Bell, Self::Rx)>;
}

/// Wakes a core from another thread.
pub trait Bell: Clone + Send + Sync + 'static {
    /// Rings. Costs only one atomic operation while the core has not heard the last ring.
    fn ring(&self);

    /// Lets the next ring through. The core calls this when it has received a ring, before it looks what there is to do.
    fn heard(&self);
}

/// The receiving half of a connection.
pub trait Rx: 'static {
    /// Waits for bytes. `None` is the orderly end of the stream. An error repeats on every later call. Dropping a poll
    /// loses nothing.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>;

    /// Whether nothing can be received now: no bytes and no end. Unless `ask` is set, the answer may come from the last
    /// receive. A caller whose receive was only just armed sets `ask`, because that receive has no result yet.
    fn is_quiet(&mut self, ask: bool) -> bool {
        let _ = ask;
        true
    }

    /// Hints how many bytes the caller expects, so that bulk bodies land in large blocks.
    fn expect(&mut self, bytes: usize);

    /// Hints that the next poll expects neither bytes nor an end. If it finds none, it may learn up to [`SILENCE_MS`]
    /// too late of those that come.
    fn expect_silence(&mut self) {}

    /// Wakes the task once the core has checked its I/O and run every ready task. A task that could go on but has used
    /// up its share calls this and returns `Pending`. If the task woke itself instead, it would starve all I/O.
    fn wake_later(&mut self, cx: &Context<'_>);

    /// Lets every other ready task run first, as [`Rx::wake_later`] does.
    fn let_others_run(&mut self) -> impl Future<Output = ()> {
        let mut has_waited = false;
        poll_fn(move |cx| {
            if mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            self.wake_later(cx);
            Poll::Pending
        })
    }
}

/// The sending half of a connection.
pub trait Tx: 'static {
    /// Queues a chunk. Only [`Tx::poll_send`] sends it.
    fn push(&mut self, chunk: Chunk);

    /// Bytes that were pushed and that the system has not taken.
    fn queued(&self) -> usize;

    /// Sends the queued bytes. Ready once the system has taken all of them. An error repeats on every later call.
    /// Sending makes progress only while the caller polls; dropping a poll loses nothing.
    ///
    /// The system is the kernel, or a driver that hands short queues to the kernel before the core waits next. If the
    /// kernel then takes only a part, [`Tx::queued`] counts the rest, and the driver goes on with it until the half is
    /// dropped. If sending fails, later calls and receives report it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Lets the system hold the last queued bytes back until the end follows them, so that both leave in one segment.
    /// The caller drops the half, or finishes it, as soon as [`Tx::poll_send`] is ready.
    fn hold_for_end(&mut self) {}

    /// Whether the kernel has taken all that [`Tx::poll_send`] was given. If not, dropping the half resets the
    /// connection. Sends at once what waits for a driver.
    fn has_sent_all(&mut self) -> bool {
        self.queued() == 0
    }

    /// Frees what only a busy connection needs. Call it when nothing will be sent for a while.
    fn rest(&mut self) {}

    /// Makes the system probe a silent peer. The system gives the connection up if, for `dead_after`, the peer's
    /// machine answers no probe or acknowledges nothing. Does nothing on a Unix socket.
    fn probe(&mut self, dead_after: Duration) {
        let _ = dead_after;
    }

    /// Ends the sending direction in an orderly way (FIN). Call it only after [`Tx::poll_send`] was ready. From then on,
    /// that is ready once the kernel has taken everything.
    fn finish(&mut self);

    /// Makes the connection end in a reset (RST) when both halves are dropped, so that an incomplete body never looks
    /// complete.
    fn abort(&mut self);
}
