//! Receives datagrams, several with one system call.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

use super::datagram::{CONTROL_WORDS, DATAGRAM_BYTES_MAX, DatagramPath};
use super::datagram_train::DatagramTrain;
use crate::limits::DATAGRAM_TRAIN_BYTES_MAX;

/// Room for datagrams that one system call receives. The system gives its pages only when datagrams need them.
pub(super) struct DatagramBatch {
    bytes: Box<[u8]>,
    places: Box<[Place]>,
    parts: Box<[libc::iovec]>,
    /// One for each place. They point into the other boxes, which never move.
    messages: Box<[libc::mmsghdr]>,
    /// How many messages the last call has filled.
    used: usize,
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

const NAME_BYTES: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

impl Default for DatagramBatch {
    fn default() -> Self {
        const COUNT: usize = LISTENER_DATAGRAMS_AT_ONCE;
        // SAFETY: all zeroes are a valid, unspecified address, an empty part and an empty message.
        let (name, part, message): (libc::sockaddr_storage, libc::iovec, libc::mmsghdr) =
            unsafe { std::mem::zeroed() };
        let control = [0; CONTROL_WORDS];
        let mut batch = Self {
            bytes: vec![0; COUNT * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            places: vec![Place { name, control }; COUNT].into_boxed_slice(),
            parts: vec![part; COUNT].into_boxed_slice(),
            messages: vec![message; COUNT].into_boxed_slice(),
            used: 0,
        };
        let rooms = batch.bytes.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let rooms = rooms.zip(&mut batch.places).zip(&mut batch.parts);
        for (message, ((room, place), part)) in batch.messages.iter_mut().zip(rooms) {
            part.iov_base = room.as_mut_ptr().cast();
            part.iov_len = room.len();
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut place.name).cast();
            header.msg_namelen = NAME_BYTES;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = place.control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&place.control) as _;
        }
        batch
    }
}

impl DatagramBatch {
    /// Receives up to `at_most` datagrams or trains without waiting, and hands them to `each` in trains. Returns how many
    /// the system has given, and their bytes.
    pub(super) fn receive(
        &mut self,
        fd: i32,
        at_most: usize,
        each: &mut dyn FnMut(DatagramTrain<'_>, DatagramPath),
    ) -> io::Result<(usize, usize)> {
        for message in self.messages.iter_mut().take(self.used) {
            message.msg_hdr.msg_namelen = NAME_BYTES;
            message.msg_hdr.msg_controllen = (CONTROL_WORDS * size_of::<u64>()) as _;
        }
        self.used = 0;
        let count = at_most.min(self.messages.len()) as u32;
        // SAFETY: each message names memory of `self`, which lives for the call and nothing else uses meanwhile, with its
        // size.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                self.messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.used = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let mut arrived = [const { Arrived::NONE }; LISTENER_DATAGRAMS_AT_ONCE];
        let mut slices = [IoSlice::new(&[]); LISTENER_DATAGRAMS_AT_ONCE];
        let mut total = 0;
        let messages = self.messages.iter().take(self.used);
        let rooms = self.bytes.chunks_exact(DATAGRAM_BYTES_MAX);
        let rooms = rooms.zip(&self.places);
        let slots = arrived.iter_mut().zip(&mut slices);
        for ((message, (room, place)), (slot, slice)) in messages.zip(rooms).zip(slots) {
            let bytes = room.get(..message.msg_len as usize).unwrap_or(room);
            total += bytes.len();
            *slice = IoSlice::new(bytes);
            *slot = Arrived::read(&message.msg_hdr, &place.name, bytes.len());
        }
        let (mut arrived, mut slices) = (
            arrived.get(..self.used).unwrap_or_default(),
            slices.get(..self.used).unwrap_or_default(),
        );
        while let Some(first) = arrived.first() {
            let count = length_of_train(arrived);
            let (parts, rest) = slices.split_at(count);
            each(DatagramTrain::new(parts, first.length), first.path);
            arrived = arrived.get(count..).unwrap_or_default();
            slices = rest;
        }
        Ok((self.used, total))
    }
}

/// A message that has arrived: a datagram, or several that the system has joined.
#[derive(Clone, Copy)]
struct Arrived {
    path: DatagramPath,
    /// Bytes of each datagram but the last.
    length: usize,
    bytes: usize,
}

impl Arrived {
    const NONE: Self = Self {
        path: DatagramPath {
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            local: None,
        },
        length: 0,
        bytes: 0,
    };

    fn read(header: &libc::msghdr, name: &libc::sockaddr_storage, bytes: usize) -> Self {
        let peer = socket_address(name);
        let mut read = Self {
            path: DatagramPath { peer, local: None },
            length: bytes,
            bytes,
        };
        read.read_control(header);
        read
    }

    /// Reads the control messages: the address of this machine, and the length of joined datagrams.
    fn read_control(&mut self, header: &libc::msghdr) {
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
                        self.path.local = Some(IpAddr::V4(address));
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                        let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                        // No answer can leave from the address of a group.
                        self.path.local = (!address.is_multicast()).then_some(IpAddr::V6(address));
                    }
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let length = ptr::read_unaligned(data.cast::<i32>());
                        let length = usize::try_from(length).unwrap_or(0);
                        self.length = length.clamp(1, self.bytes.max(1));
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(header, found);
            }
        }
    }

    /// Whether the system has joined several datagrams.
    fn is_joined(&self) -> bool {
        self.bytes > self.length
    }
}

/// How many of these messages make a train: those of the first one's path and length, and a shorter one at the end.
fn length_of_train(arrived: &[Arrived]) -> usize {
    let Some(first) = arrived.first().filter(|first| !first.is_joined()) else {
        return 1;
    };
    let (mut count, mut bytes) = (1, first.bytes);
    for next in arrived.iter().skip(1) {
        bytes += next.bytes;
        let fits = next.path == first.path
            && !next.is_joined()
            && (1..=first.length).contains(&next.bytes)
            && bytes <= DATAGRAM_TRAIN_BYTES_MAX;
        if !fits {
            break;
        }
        count += 1;
        if next.bytes < first.length {
            break;
        }
    }
    count
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(port: u16, bytes: usize, length: usize) -> Arrived {
        let mut one = Arrived::NONE;
        one.path.peer.set_port(port);
        Arrived {
            length,
            bytes,
            ..one
        }
    }

    #[test]
    fn a_train_has_one_path_and_one_length() {
        let one = |bytes| arrived(1, bytes, bytes);
        assert_eq!(length_of_train(&[one(9), one(9), one(9)]), 3);
        assert_eq!(length_of_train(&[one(9), one(9), one(5), one(5)]), 3);
        assert_eq!(length_of_train(&[one(9), one(10)]), 1);
        assert_eq!(length_of_train(&[one(9), one(0), one(9)]), 1);
        assert_eq!(length_of_train(&[one(0), one(0)]), 1);
        assert_eq!(length_of_train(&[one(9), arrived(2, 9, 9), one(9)]), 1);
        assert_eq!(length_of_train(&[arrived(1, 18, 9), one(9)]), 1);
        assert_eq!(length_of_train(&[one(9), arrived(1, 18, 9)]), 1);
        assert_eq!(length_of_train(&[one(30_000); 9]), 2);
    }
}
