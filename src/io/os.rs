//! System calls that both drivers make outside their rings.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::TcpKeepalive;

use socket2::SockAddr;

use super::Bell;
use crate::limits::{TCP_PROBE_AFTER_MS, TCP_PROBE_INTERVAL_MS, UNSENT_BYTES_MAX};

/// A bound listening socket.
pub enum ListenSocket {
    /// TCP; the sockets of all cores share the port by `SO_REUSEPORT`.
    Tcp(std::net::TcpListener, SocketOrigin),
    /// Unix; cores accept from clones of one socket.
    Unix(std::os::unix::net::UnixListener, SocketOrigin),
    /// UDP; the sockets of all cores share the port by `SO_REUSEPORT`.
    Udp(std::net::UdpSocket),
}

/// Where a listening socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOrigin {
    /// This process has bound the socket, so no other process listens on it.
    Bound,
    /// The process has inherited the socket. Its starter may go on using it, so Weir closes it and never shuts it down.
    Inherited,
}

/// A descriptor of a core's listening socket, for another process that takes the socket over.
pub struct SharedSocket {
    /// The descriptor.
    pub fd: OwnedFd,
    /// Where the core has the socket from.
    pub origin: SocketOrigin,
}

/// An accepted connection between two cores.
pub struct PackedConnection {
    pub(super) fd: OwnedFd,
    pub(super) peer: Option<SocketAddr>,
}

pub(super) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: callers pass a descriptor that the system has just given them, so no other code closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Another descriptor of an open socket.
pub(super) fn duplicate(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: callers own the descriptor and keep it open for the call.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

pub(super) fn shut(fd: i32, how: i32) {
    // SAFETY: shutdown takes a descriptor and touches no memory. An error means that the direction is closed already.
    unsafe { libc::shutdown(fd, how) };
}

/// Makes the system turn new clients of a listening socket away. Its queue stays.
pub(super) fn stop_listening(fd: i32, is_tcp: bool) {
    if is_tcp {
        ignore_syns(fd);
    } else {
        // The queue of a Unix socket survives a shutdown.
        shut(fd, libc::SHUT_RDWR);
    }
}

/// Makes a listening TCP socket ignore new SYNs. A shutdown would reset the queue, and a close would reset the
/// handshakes under way. An ignored client tries again after a second, and is refused if no process listens by then.
fn ignore_syns(fd: i32) {
    // Offsets count from the TCP header, whose 14th byte holds the flags.
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, and, equal, done) = (
        (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16,
        (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16,
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        (libc::BPF_RET | libc::BPF_K) as u16,
    );
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let mut program = [
        op(load, 0, 0, 13),
        op(and, 0, 0, SYN | ACK),
        op(equal, 0, 1, SYN),
        op(done, 0, 0, 0),
        op(done, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option is a program description of the size given. The description and the program live for the call,
    // which copies them. If the system refuses the filter, closing the socket resets handshakes under way.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        );
    }
}

/// Accepts a connection; gives its peer's address if the peer has one. `flags` apply to the new socket.
pub(super) fn accept(fd: i32, flags: i32) -> io::Result<(i32, Option<SocketAddr>)> {
    // SAFETY: the system writes an address no longer than `size`, and its length.
    let accepted = unsafe {
        SockAddr::try_init(|address, size| {
            let accepted = libc::accept4(fd, address.cast(), size, flags | libc::SOCK_CLOEXEC);
            if accepted < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(accepted)
        })
    };
    let (accepted, address) = accepted?;
    Ok((accepted, address.as_socket()))
}

/// Accepts from the queue of a non-blocking socket that has stopped listening. Returns `None` if the queue is empty.
pub(super) fn accept_queued(fd: i32, flags: i32) -> io::Result<Option<(i32, Option<SocketAddr>)>> {
    loop {
        match accept(fd, flags) {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINVAL) => return Ok(None),
                Some(libc::EINTR | libc::ECONNABORTED) => {}
                _ => return Err(error),
            },
        }
    }
}

/// Sets a descriptor non-blocking, so that calls outside the ring fail instead of waiting. Returns whether that worked.
pub(super) fn set_nonblocking(fd: i32) -> bool {
    // SAFETY: reads and sets flags of a descriptor; no memory is passed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    }
}

/// Resets a connection at once. A Unix socket cannot be reset, so this closes both of its directions.
pub(super) fn reset(fd: i32) {
    // SAFETY: all zeroes are a valid address of the unspecified family; connecting to it dissolves the connection.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address lives for the call and has the size given.
    if unsafe { libc::connect(fd, &raw const nowhere, size) } != 0 {
        shut(fd, libc::SHUT_RDWR);
    }
}

/// Makes the system probe a silent peer and give the connection up after `dead_after` without an answer. Does nothing
/// on a socket without these options.
pub(super) fn probe(fd: i32, dead_after: Duration) {
    // SAFETY: callers own the descriptor and keep it open for the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    bound_unsent(fd);
    let socket = socket2::SockRef::from(&fd);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_millis(TCP_PROBE_AFTER_MS))
        .with_interval(Duration::from_millis(TCP_PROBE_INTERVAL_MS));
    // A Unix socket accepts the first of these options and refuses the others.
    let _ = socket
        .set_tcp_keepalive(&probes)
        .and_then(|()| socket.set_tcp_user_timeout(Some(dead_after)));
}

/// Limits how many bytes the kernel accepts ahead of sending them. Accepted connections inherit the limit from their
/// listening socket. Does nothing on a socket without this option.
pub fn bound_unsent(socket: BorrowedFd<'_>) {
    let bytes = UNSENT_BYTES_MAX;
    // SAFETY: the option is an integer of the size given, alive for the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of::<u32>() as libc::socklen_t,
        );
    }
}

/// Whether a socket has nothing to receive: no byte, no end, no error.
pub(super) fn is_quiet(fd: i32) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    loop {
        // SAFETY: the system writes at most one byte, into `byte`, which lives for the call.
        let n = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) };
        if n >= 0 {
            return false;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => {}
            kind => return kind == io::ErrorKind::WouldBlock,
        }
    }
}

/// The outcome of a connect that has become ready.
pub(super) fn take_error(fd: i32) -> io::Result<()> {
    let mut error = 0_i32;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option is an integer of the size given, alive for the call.
    let got = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut size,
        )
    };
    match (got, error) {
        (0, 0) => Ok(()),
        (0, error) => Err(io::Error::from_raw_os_error(error)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wakes a core with a byte through a socket pair, unless one is already under way.
#[derive(Clone)]
pub struct Doorbell {
    state: Arc<DoorbellState>,
}

/// What the copies of a doorbell share.
struct DoorbellState {
    rung: AtomicBool,
    far: UnixStream,
}

impl Doorbell {
    /// Creates a doorbell, and the descriptor that its core receives from.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let state = Arc::new(DoorbellState {
            rung: AtomicBool::new(false),
            far,
        });
        Ok((Self { state }, near.into()))
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        if !self.state.rung.swap(true, Ordering::AcqRel) {
            // A full socket buffer means that the core has rings to receive. A closed one means that the core has
            // ended.
            let _ = io::Write::write(&mut &self.state.far, &[1]);
        }
    }

    fn heard(&self) {
        self.state.rung.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_peer_is_probed_and_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        probe(stream.as_raw_fd(), Duration::from_secs(75));
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(30)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(10)
        );
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(75))
        );
        // A socket without such options keeps working.
        let (near, far) = UnixStream::pair().unwrap();
        probe(near.as_raw_fd(), Duration::from_secs(75));
        io::Write::write_all(&mut &near, b"x").unwrap();
        io::Read::read_exact(&mut &far, &mut [0]).unwrap();
    }
}
