//! Datagrams: what the data path needs of UDP.
//!
//! A socket of a listener receives from every client and says where each datagram came from. A socket of a flow is
//! connected to one endpoint. Nothing queues: a datagram that the system does not take at once is dropped, as the
//! network would.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The most bytes of a datagram: those of an IP packet.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Where a datagram came from, and where its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPath {
    /// The address of the other side.
    pub peer: SocketAddr,
    /// The address of this machine that the datagram was sent to. An answer leaves from it. `None`: the socket has only
    /// one.
    pub local: Option<IpAddr>,
}

/// A socket for datagrams. Dropping a poll loses nothing.
pub trait Datagrams: 'static {
    /// Waits for datagrams, and hands each that has arrived to `each`, up to a number that bounds the work of one poll.
    ///
    /// # Errors
    /// On a connected socket, the peer refuses datagrams (ICMP). The socket stays usable.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        each: &mut dyn FnMut(&[u8], DatagramPath),
    ) -> Poll<io::Result<()>>;

    /// Sends a datagram along a path; without one, to the peer of a connected socket.
    ///
    /// # Errors
    /// The system did not take it.
    fn send(&self, bytes: &[u8], path: Option<&DatagramPath>) -> io::Result<()>;

    /// Wakes the task once the core has checked its I/O and run every ready task.
    fn wake_later(&self, cx: &Context<'_>);
}

/// Room for datagrams that one system call receives. The system gives its pages only when datagrams need them.
pub(super) struct DatagramBatch {
    bytes: Box<[u8]>,
    places: Box<[Place]>,
}

/// Where the system writes what belongs to one datagram.
#[derive(Clone, Copy)]
struct Place {
    name: libc::sockaddr_storage,
    control: [u64; CONTROL_WORDS],
}

/// The most datagrams that one call receives on a listener's socket: enough to spread the cost of the call.
pub(super) const LISTENER_DATAGRAMS_AT_ONCE: usize = 32;
/// The most that one call receives on the socket of a flow.
pub(super) const FLOW_DATAGRAMS_AT_ONCE: usize = 8;
/// Room for one control message with an address, 40 bytes for IPv6.
const CONTROL_WORDS: usize = 8;

impl Default for DatagramBatch {
    fn default() -> Self {
        // SAFETY: all zeroes are a valid, unspecified address.
        let name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = Place {
            name,
            control: [0; CONTROL_WORDS],
        };
        Self {
            bytes: vec![0; LISTENER_DATAGRAMS_AT_ONCE * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            places: vec![place; LISTENER_DATAGRAMS_AT_ONCE].into_boxed_slice(),
        }
    }
}

impl DatagramBatch {
    /// Receives up to `at_most` datagrams without waiting, and hands each to `each`. Returns how many there were, and
    /// their bytes.
    pub(super) fn receive(
        &mut self,
        fd: i32,
        at_most: usize,
        each: &mut dyn FnMut(&[u8], DatagramPath),
    ) -> io::Result<(usize, usize)> {
        // SAFETY: all zeroes are empty messages and parts.
        let (mut messages, mut parts): (
            [libc::mmsghdr; LISTENER_DATAGRAMS_AT_ONCE],
            [libc::iovec; LISTENER_DATAGRAMS_AT_ONCE],
        ) = unsafe { std::mem::zeroed() };
        let rooms = self.bytes.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let rooms = rooms.zip(&mut self.places).take(at_most);
        let mut count = 0;
        for ((message, part), (room, place)) in messages.iter_mut().zip(&mut parts).zip(rooms) {
            part.iov_base = room.as_mut_ptr().cast();
            part.iov_len = room.len();
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut place.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = place.control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&place.control) as _;
            count += 1;
        }
        // SAFETY: each message names memory of `self` and of this frame, which lives for the call, with its size.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let mut total = 0;
        let rooms = self
            .bytes
            .chunks_exact(DATAGRAM_BYTES_MAX)
            .zip(&self.places);
        for (message, (room, place)) in messages.iter().zip(rooms).take(received) {
            let bytes = room.get(..message.msg_len as usize).unwrap_or(room);
            total += bytes.len();
            let peer = socket_address(&place.name);
            let local = local_address(&message.msg_hdr);
            each(bytes, DatagramPath { peer, local });
        }
        Ok((received, total))
    }
}

/// The address that the system has written.
fn socket_address(name: &libc::sockaddr_storage) -> SocketAddr {
    let name = ptr::from_ref(name);
    // SAFETY: the storage has room and alignment for every kind of address, and its family says which one it is.
    unsafe {
        if i32::from((*name).ss_family) == libc::AF_INET6 {
            let v6 = *name.cast::<libc::sockaddr_in6>();
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            return SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into();
        }
        let v4 = *name.cast::<libc::sockaddr_in>();
        let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        SocketAddr::from((ip, u16::from_be(v4.sin_port)))
    }
}

/// The address of this machine in the control messages of a datagram.
fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the system has written whole control messages into the buffer of the header, which is alive, and the
    // macros stay within its length.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = control.as_ref() {
            let data = libc::CMSG_DATA(found);
            match (found.cmsg_level, found.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    let address = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    return Some(IpAddr::V4(address));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    // No answer can leave from the address of a group.
                    return (!address.is_multicast()).then_some(IpAddr::V6(address));
                }
                _ => control = libc::CMSG_NXTHDR(header, found),
            }
        }
    }
    None
}

/// Sends a datagram without waiting.
pub(super) fn send(fd: i32, bytes: &[u8], path: Option<&DatagramPath>) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = match path {
        // SAFETY: the system reads the bytes, which live for the call.
        None => unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) },
        Some(DatagramPath { peer, local: None }) => {
            let to = SockAddr::from(*peer);
            // SAFETY: as above; the address lives for the call and has the length given.
            unsafe {
                libc::sendto(
                    fd,
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    flags,
                    to.as_ptr().cast(),
                    to.len(),
                )
            }
        }
        Some(DatagramPath {
            peer,
            local: Some(local),
        }) => send_from(fd, bytes, *peer, *local, flags),
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a datagram from one of the addresses of this machine.
fn send_from(fd: i32, bytes: &[u8], peer: SocketAddr, local: IpAddr, flags: i32) -> isize {
    let to = SockAddr::from(peer);
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeroes are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the buffer has room for either control message, and the message refers to memory that lives for the call.
    unsafe {
        match local {
            IpAddr::V4(address) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(address).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put_control(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(address) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: address.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                put_control(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
        libc::sendmsg(fd, &raw const message, flags)
    }
}

/// Writes the only control message.
///
/// # Safety
/// The message's control buffer is aligned for a header and has room for it and for `data`.
unsafe fn put_control<T>(message: &mut libc::msghdr, level: i32, kind: i32, data: T) {
    let size = size_of::<T>() as u32;
    // SAFETY: the caller gives a buffer with room.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        if let Some(header) = libc::CMSG_FIRSTHDR(message).as_mut() {
            header.cmsg_level = level;
            header.cmsg_type = kind;
            header.cmsg_len = libc::CMSG_LEN(size) as _;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), data);
        }
    }
}

/// Prepares a listener's socket. If it is bound to every address of the machine, each datagram says which one it came
/// to, so that the answer leaves from the same.
pub(super) fn prepare_listener(socket: &std::net::UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    if !local.ip().is_unspecified() {
        return Ok(());
    }
    let (level, option) = match local {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on = 1_i32;
    // SAFETY: the option is an integer of the size given, alive for the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
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

/// A socket that exchanges datagrams with `to` only.
pub(super) fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(to);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}
