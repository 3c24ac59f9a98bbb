//! The world on io_uring, with a driver of our own.
//!
//! Weir asks the ring only when something is ready: sockets and times, in one system call a turn of the loop, and
//! without interrupting the core. Plain non-blocking calls then receive, send and accept. Receiving through the ring
//! into buffers that the kernel picks measured no faster. In return Weir never lends memory to the kernel, idle
//! connections hold no buffer, nothing has to be cancelled before bytes pass through a pipe, and a half that no task
//! polls receives nothing.
//!
//! The kernel reports the moment when a socket becomes ready, and `RingSocket` remembers it until a call finds the
//! socket not ready. One watch lasts for the life of a connection, so a request costs no operation.
//!
//! A turn of the loop:
//! - Every ready task runs once, and so do the tasks that they wake.
//! - The driver submits new watches, and waits if no task is ready.
//! - Completions wake tasks, and so do sleeps that have ended.

mod datagrams;
mod driver;
mod listener;
mod owner_table;
mod rx;
mod send_queue;
mod sleep_queue;
mod socket;
mod tasks;
#[cfg(test)]
mod tests;
mod tx;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};

use super::datagram;
use super::datagram_batch::{FLOW_DATAGRAMS_AT_ONCE, LISTENER_DATAGRAMS_AT_ONCE};
use super::os::{
    Doorbell, ListenSocket, PackedConnection, SharedSocket, owned, set_nonblocking, take_error,
};
use super::pipe::Pipe;
use super::{Address, Connection, Instant, Net, Pool, Tx};
use crate::limits::CONNECT_RETRY_MS;

use driver::Driver;
pub use driver::RingFlags;
use sleep_queue::Sleep;
use socket::{Flags, RingSocket};

pub use datagrams::RingDatagrams;
pub use listener::RingListener;
pub use rx::RingRx;
pub use tx::RingTx;

/// The best flags that the kernel grants.
///
/// # Errors
/// The kernel is older than 5.19, lacks io_uring or forbids it.
pub fn probe() -> io::Result<RingFlags> {
    let [best, others @ ..] = RingFlags::ALL;
    let granted = |flags| driver::set_up(flags, 1).map(|_| flags);
    others.iter().fold(granted(best), |found, &flags| {
        found.or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => granted(flags),
            _ => Err(error),
        })
    })
}

/// Runs one core's world on the calling thread until the future that `body` makes completes.
///
/// # Errors
/// Those of [`probe`], or the kernel fails the ring.
pub fn run<F, B>(body: B) -> io::Result<F::Output>
where
    F: Future,
    B: FnOnce(Ring) -> F,
{
    run_with(probe()?, body)
}

/// As [`run`], with these flags.
///
/// # Errors
/// The kernel does not grant the flags, or fails the ring.
pub fn run_with<F, B>(flags: RingFlags, body: B) -> io::Result<F::Output>
where
    F: Future,
    B: FnOnce(Ring) -> F,
{
    let driver = Driver::new(flags)?;
    let _entered = driver.tasks.enter();
    // Runs also when a task panics.
    let ending = EndOnDrop { driver };
    let root = body(Ring {
        driver: ending.driver.clone(),
    });
    ending.driver.run(Box::pin(root))
}

struct EndOnDrop {
    driver: Rc<Driver>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.driver.end();
    }
}

/// A core's handle to its ring.
#[derive(Clone)]
pub struct Ring {
    driver: Rc<Driver>,
}

impl Ring {
    /// Wraps a connected, non-blocking socket.
    fn connection(&self, fd: i32, peer: Option<SocketAddr>, readable: bool) -> Connection<Self> {
        let socket = RingSocket::new(&self.driver, fd, readable);
        Connection {
            rx: RingRx::new(socket.clone()),
            tx: RingTx::new(socket),
            peer,
        }
    }

    /// Connects a socket. The system does not report when the queue of a full Unix socket has room, so this tries again
    /// after a pause.
    async fn connect_socket(&self, socket: &RingSocket, to: &SockAddr) -> io::Result<()> {
        loop {
            // SAFETY: the address lives for the call and has the length given.
            let connected = unsafe { libc::connect(socket.fd(), to.as_ptr().cast(), to.len()) };
            if connected == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EINTR) => break,
                Some(libc::EAGAIN) => {
                    let then = self.now() + Duration::from_millis(CONNECT_RETRY_MS);
                    self.sleep_until(then).await;
                }
                _ => return Err(error),
            }
        }
        socket.flags.remove(Flags::WRITABLE);
        std::future::poll_fn(|cx| match socket.may_send(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        take_error(socket.fd())
    }
}

impl Net for Ring {
    type Socket = ListenSocket;
    type Listener = RingListener;
    type Datagrams = RingDatagrams;
    type Rx = RingRx;
    type Tx = RingTx;
    type PackedConnection = PackedConnection;
    type Bell = Doorbell;

    #[inline]
    fn now(&self) -> Instant {
        self.driver.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.driver.clock.wall_ms()
    }

    #[inline]
    fn pool(&self) -> &Pool {
        &self.driver.pool
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.driver.tasks.spawn(Box::pin(task));
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> {
        Sleep::new(self.driver.clone(), at)
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<RingListener> {
        let (fd, is_tcp, origin): (OwnedFd, _, _) = match socket {
            ListenSocket::Tcp(socket, origin) => (socket.into(), true, origin),
            ListenSocket::Unix(socket, origin) => (socket.into(), false, origin),
            ListenSocket::Udp(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        if !set_nonblocking(fd.as_raw_fd()) {
            return Err(io::Error::last_os_error());
        }
        Ok(RingListener::new(&self.driver, fd, is_tcp, origin))
    }

    fn bind_datagrams(&self, socket: ListenSocket) -> io::Result<RingDatagrams> {
        let ListenSocket::Udp(socket) = socket else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        datagram::prepare_listener(&socket)?;
        let at_once = LISTENER_DATAGRAMS_AT_ONCE;
        Ok(RingDatagrams::new(&self.driver, socket.into(), at_once))
    }

    fn connect_datagrams(&self, to: SocketAddr) -> io::Result<RingDatagrams> {
        let socket = datagram::connect(to)?;
        Ok(RingDatagrams::new(
            &self.driver,
            socket,
            FLOW_DATAGRAMS_AT_ONCE,
        ))
    }

    async fn accept(&self, listener: &RingListener) -> io::Result<Connection<Self>> {
        let (fd, peer) = listener.accept().await?;
        Ok(self.connection(fd, peer, true))
    }

    fn stop_listening(&self, listener: &RingListener) {
        listener.stop();
    }

    fn accept_queued(&self, listener: &RingListener) -> io::Result<Option<Connection<Self>>> {
        let accepted = listener.accept_queued()?;
        Ok(accepted.map(|(fd, peer)| self.connection(fd, peer, true)))
    }

    fn close_listener(&self, listener: &RingListener) {
        listener.close();
    }

    fn share_listener(&self, listener: &RingListener) -> io::Result<SharedSocket> {
        listener.share()
    }

    fn leave_listener(&self, listener: &RingListener) {
        listener.leave();
    }

    async fn connect(&self, to: &Address) -> io::Result<Connection<Self>> {
        let (domain, address, peer) = match to {
            Address::Ip(ip) => (Domain::for_address(*ip), SockAddr::from(*ip), Some(*ip)),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path.as_path())?, None),
        };
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let connection = self.connection(socket.into_raw_fd(), peer, false);
        self.connect_socket(&connection.rx.socket, &address).await?;
        Ok(connection)
    }

    fn poll_pass(
        &self,
        cx: &mut Context<'_>,
        from: &mut RingRx,
        to: &mut RingTx,
        at_most: usize,
    ) -> Poll<usize> {
        if !ready!(to.poll_idle(cx)) {
            return Poll::Ready(0);
        }
        let Some(mut pipe) = Pipe::take(&self.driver.pipes) else {
            return Poll::Ready(0);
        };
        let passed = ready!(from.poll_fill(cx, &mut pipe, at_most));
        if passed > 0 {
            to.socket.pass(pipe);
        }
        Poll::Ready(passed)
    }

    fn set_pipes_max(&self, pipes: usize) {
        self.driver.pipes.set_max(pipes);
    }

    fn pack(&self, connection: Connection<Self>) -> Result<PackedConnection, Connection<Self>> {
        if connection.rx.socket.flags.has(Flags::USED) || connection.tx.queued() > 0 {
            return Err(connection);
        }
        let fd = owned(connection.rx.socket.leave());
        Ok(PackedConnection {
            fd,
            peer: connection.peer,
        })
    }

    fn unpack(&self, parcel: PackedConnection) -> io::Result<Connection<Self>> {
        Ok(self.connection(parcel.fd.into_raw_fd(), parcel.peer, true))
    }

    fn bell(&self) -> io::Result<(Doorbell, RingRx)> {
        let (bell, near) = Doorbell::new()?;
        if !set_nonblocking(near.as_raw_fd()) {
            return Err(io::Error::last_os_error());
        }
        Ok((bell, self.connection(near.into_raw_fd(), None, false).rx))
    }
}
