//! Datagrams: what the data path needs of UDP.
//!
//! A socket of a listener receives from every client and says where each datagram came from. A socket of a flow is
//! connected to one endpoint. Nothing queues: a datagram that the system does not take at once is dropped, as the
//! network would.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};

use super::datagram_train::DatagramTrain;
use super::os::{SharedSocket, SocketOrigin, duplicate};

/// The most bytes of a datagram: those of an IP packet.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Room for the control messages of a train: an address (40 bytes for IPv6) and a length (24 bytes).
pub(super) const CONTROL_WORDS: usize = 8;

/// Where a datagram came from, and where its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPath {
    /// The address of the other side.
    pub peer: SocketAddr,
    /// The address of this machine that the datagram was sent to. An answer leaves from it. `None`: the socket has only
    /// one.
    pub local: Option<IpAddr>,
}

/// What became of datagrams that were sent.
#[derive(Debug)]
pub struct SentDatagrams {
    /// How many the system took.
    pub count: usize,
    /// Why it did not take the others. On a connected socket it may be what the peer said of former datagrams (ICMP).
    pub error: Option<io::Error>,
}

/// A socket for datagrams. Dropping a poll loses nothing.
pub trait Datagrams: 'static {
    /// Waits for datagrams, and hands those that have arrived to `each`, train by train, up to a number that bounds the
    /// work of one poll.
    ///
    /// # Errors
    /// On a connected socket, the peer refuses datagrams (ICMP). The socket stays usable.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(DatagramTrain<'_>, DatagramPath),
    ) -> Poll<io::Result<()>>;

    /// Sends datagrams along a path; without one, to the peer of a connected socket.
    fn send(&self, train: DatagramTrain<'_>, path: Option<&DatagramPath>) -> SentDatagrams;

    /// Another descriptor of the socket, for a process that takes it over.
    ///
    /// # Errors
    /// The process is out of descriptors.
    fn share(&self) -> io::Result<SharedSocket>;

    /// Wakes the task once the core has checked its I/O and run every ready task.
    fn wake_later(&self, cx: &Context<'_>);
}

/// Another descriptor of a socket for datagrams.
pub(super) fn share(fd: i32) -> io::Result<SharedSocket> {
    Ok(SharedSocket {
        fd: duplicate(fd)?,
        origin: SocketOrigin::Bound,
    })
}

/// Prepares a listener's socket: datagrams arrive in trains. If it is bound to every address of the machine, each
/// datagram says which one it came to, so that the answer leaves from the same.
pub(super) fn prepare_listener(socket: &std::net::UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    receive_trains(socket.as_raw_fd());
    let local = socket.local_addr()?;
    if !local.ip().is_unspecified() {
        return Ok(());
    }
    let (level, option) = match local {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    set_option(socket.as_raw_fd(), level, option)
}

/// A socket that exchanges datagrams with `to` only.
pub(super) fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(to);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    receive_trains(socket.as_raw_fd());
    Ok(socket.into())
}

/// Lets the system join datagrams of one sender that arrive together (UDP GRO).
fn receive_trains(fd: i32) {
    // Without it, as before Linux 5.0, they arrive one by one.
    let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO);
}

/// Switches an option of a socket on.
fn set_option(fd: i32, level: i32, option: i32) -> io::Result<()> {
    let on = 1_i32;
    // SAFETY: the option is an integer of the size given, alive for the call.
    let set = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
