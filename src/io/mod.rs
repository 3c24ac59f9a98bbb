//! The seam: all that the data path may ask of the world.
//!
//! [`Net`] is implemented three times: [`ring`] on io_uring, [`uring`] on io_uring through monoio for older kernels, and
//! [`sim`], a deterministic world for tests. Everything above is generic over it and never names the runtime, a socket
//! or a file descriptor.
//!
//! Three rules make completion-based I/O safe to use from ordinary `async` code:
//! - An operation in flight belongs to its socket half ([`Rx`], [`Tx`]), not to the future that waits for it. A poll
//!   that is given up loses nothing: the operation stays armed and the next poll picks its result up.
//! - The runtime gives the buffer. Nobody lends memory to the kernel that could be freed too early.
//! - What was pushed to a [`Tx`] is sent to the end, or the connection is torn down.

mod chunk;
mod inherited;
mod os;
mod pipe;
pub mod ring;
pub mod sim;
pub mod uring;

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use chunk::{Charge, Chunk, OutBlock, Pool, ReceiveBlock};
pub use inherited::take_inherited;
pub use os::{Doorbell, ListenSocket, PackedConnection, SocketOrigin, bound_unsent};

/// A point in time: nanoseconds on the clock of one [`Net`], which never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Further away than any deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time from `earlier` to this, zero if that is later.
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

/// The system's number of an error; 0 if it has none.
#[must_use]
pub fn errno(error: &io::Error) -> u16 {
    let reset = rustix::io::Errno::CONNRESET.raw_os_error();
    let is_reset = error.kind() == io::ErrorKind::ConnectionReset;
    let number = error.raw_os_error().or_else(|| is_reset.then_some(reset));
    number
        .and_then(|number| number.try_into().ok())
        .unwrap_or(0)
}

/// Where a connection leads to or came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket's path.
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

/// A connection that was accepted or made, split into its directions.
pub struct Connection<N: Net> {
    /// The receiving half.
    pub rx: N::Rx,
    /// The sending half.
    pub tx: N::Tx,
    /// The other side; `None` for a Unix socket's nameless client.
    pub peer: Option<SocketAddr>,
}

/// One core's world. Cheap to clone; never leaves its core.
pub trait Net: Clone + 'static {
    /// A listening socket as control hands it to a core.
    type Socket: Send + 'static;
    /// A listening socket on its core.
    type Listener: 'static;
    /// Receiving half of a connection.
    type Rx: Rx;
    /// Sending half of a connection.
    type Tx: Tx;
    /// An accepted connection on its way to another core.
    type PackedConnection: Send + 'static;
    /// What other threads ring to wake this core.
    type Bell: Bell;

    /// The time as of the last event that woke a task of this core. Monotonic; also the clock of deadlines.
    fn now(&self) -> Instant;

    /// Milliseconds since the Unix epoch, for logs and the `Date` field.
    fn wall_ms(&self) -> u64;

    /// The core's blocks.
    fn pool(&self) -> &Pool;

    /// Starts a task on this core.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Waits until `at`. For a handful of tasks a core: connections use the core's timers.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()>;

    /// Takes over a listening socket that control has bound.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    fn listen(&self, socket: Self::Socket) -> io::Result<Self::Listener>;

    /// Waits for the next connection. Several accepts may wait at once. After [`Net::close_listener`] all end with an
    /// error.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<Connection<Self>>>;

    /// Has the system turn new clients away. Connections in the queue stay there, handshakes that have begun come to
    /// their end, and waiting accepts go on. A socket that was inherited is left as it is: others may hold it too.
    fn stop_listening(&self, listener: &Self::Listener);

    /// Accepts a connection from the queue, without waiting. `None`: the queue is empty. Only after
    /// [`Net::stop_listening`].
    ///
    /// # Errors
    /// Out of descriptors or memory, or the client has left already.
    fn accept_queued(&self, listener: &Self::Listener) -> io::Result<Option<Connection<Self>>>;

    /// Closes a listener: connections still in its queue are reset, waiting accepts end.
    fn close_listener(&self, listener: &Self::Listener);

    /// Connects to `to`. Dropping the future gives the attempt up.
    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Connection<Self>>>;

    /// Lets up to `at_most` bytes pass from one connection to another without looking at them: what has come on `from`
    /// is queued on `to`, behind what is queued there. Returns how many; they count as queued until they are sent.
    ///
    /// 0 says that nothing passes this way now: receive instead, which also tells of an end or an error. That is so
    /// while a receive is in flight on `from`.
    ///
    /// Pending until bytes come and what is being sent on `to` has been sent, so that both halves are to be polled:
    /// [`Tx::poll_send`] tells how sending goes. A poll that is given up loses nothing; its `at_most` may grow until
    /// bytes have come, but not shrink.
    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &mut Self::Rx,
        to: &mut Self::Tx,
        at_most: usize,
    ) -> Poll<usize>;

    /// Sets how many pipes this core may have: each is two descriptors.
    fn set_pipes_max(&self, pipes: usize) {
        let _ = pipes;
    }

    /// Packs a fresh connection for another core.
    ///
    /// # Errors
    /// Something has been received or sent on it already: it comes back and stays here.
    fn pack(
        &self,
        connection: Connection<Self>,
    ) -> Result<Self::PackedConnection, Connection<Self>>;

    /// Unpacks a connection that another core has packed.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    fn unpack(&self, parcel: Self::PackedConnection) -> io::Result<Connection<Self>>;

    /// Makes a doorbell and the half that hears it: a ring is a byte that arrives there. Rings that come before the
    /// last one was heard are one ring.
    ///
    /// # Errors
    /// Out of file descriptors.
    fn bell(&self) -> io::Result<(Self::Bell, Self::Rx)>;
}

/// Wakes a core from another thread.
pub trait Bell: Clone + Send + Sync + 'static {
    /// Rings. Cheap when the core has not answered the last ring yet.
    fn ring(&self);
}

/// The receiving half of a connection.
pub trait Rx: 'static {
    /// Waits for bytes. `None` is the orderly end of the stream; an error is sticky. A poll that is given up loses
    /// nothing.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>;

    /// Says whether nothing is there to be received, neither bytes nor an end. A world may answer from what the last
    /// receive left, unless it is to `ask`: a receive that was only just armed has not looked yet.
    fn is_quiet(&mut self, ask: bool) -> bool {
        let _ = ask;
        true
    }

    /// Says how much is expected: bulk bodies are received into large blocks. Only a hint.
    fn expect(&mut self, bytes: usize);

    /// Wakes the task again once the core has looked at its I/O and at every task that can run now. For a task that
    /// could go on but has used up its share: it returns `Pending` after this call. A task that woke itself instead
    /// would keep all I/O waiting.
    fn wake_later(&mut self, cx: &Context<'_>);

    /// Waits until the others have had their turn: see [`Rx::wake_later`].
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
    /// Queues a chunk behind what is queued already. Nothing is sent before [`Tx::poll_send`].
    fn push(&mut self, chunk: Chunk);

    /// Bytes pushed that the kernel has not taken yet.
    fn queued(&self) -> usize;

    /// Sends what is queued. Ready when all of it is taken by the kernel; an error is sticky. Must be polled again
    /// to make progress; a poll that is given up loses nothing.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Gives back what only a busy connection needs: nothing is sent for a while.
    fn rest(&mut self) {}

    /// Has the system probe a peer that is silent, and give the connection up once the peer's machine has answered no
    /// probe, or acknowledged nothing of what was sent, for so long. Does nothing on a Unix socket.
    fn probe(&mut self, dead_after: Duration) {
        let _ = dead_after;
    }

    /// Ends the sending direction in an orderly way (FIN). What is queued must have been sent.
    fn finish(&mut self);

    /// Makes the end visible as a failure (RST) when both halves are dropped: for a body that stays incomplete.
    fn abort(&mut self);
}
