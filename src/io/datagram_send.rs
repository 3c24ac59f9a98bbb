//! Sends datagrams, several with one system call.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::ptr;

use socket2::SockAddr;

use super::datagram::{CONTROL_WORDS, DatagramPath, SentDatagrams};
use super::datagram_batch::LISTENER_DATAGRAMS_AT_ONCE;
use super::datagram_train::DatagramTrain;

/// Sends datagrams without waiting: several in one call if the system takes them so.
pub(super) fn send(
    fd: i32,
    train: DatagramTrain<'_>,
    path: Option<&DatagramPath>,
) -> SentDatagrams {
    if train.count() > 1 {
        match send_train(fd, train, path) {
            Ok(()) => return SentDatagrams::all(train),
            Err(error) if !is_refusal_of_trains(&error) => {
                return SentDatagrams {
                    count: 0,
                    error: Some(error),
                };
            }
            // One by one.
            Err(_) => {}
        }
    }
    let mut sent = SentDatagrams {
        count: 0,
        error: None,
    };
    for datagram in train.datagrams() {
        match send_one(fd, datagram, path) {
            Ok(()) => sent.count += 1,
            Err(error) => sent.error = Some(error),
        }
    }
    sent
}

impl SentDatagrams {
    /// The system took all.
    pub(super) fn all(train: DatagramTrain<'_>) -> Self {
        Self {
            count: train.count(),
            error: None,
        }
    }
}

/// Whether the system sends these datagrams one by one only: they are larger than packets of the interface, or the
/// interface or the kernel cannot split them.
fn is_refusal_of_trains(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
    )
}

fn send_one(fd: i32, bytes: &[u8], path: Option<&DatagramPath>) -> io::Result<()> {
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
        Some(path) => {
            let parts = [IoSlice::new(bytes)];
            return send_message(fd, &parts, Some(path), None);
        }
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a train with one call; the system splits it (UDP GSO).
fn send_train(fd: i32, train: DatagramTrain<'_>, path: Option<&DatagramPath>) -> io::Result<()> {
    let mut parts = [IoSlice::new(&[]); LISTENER_DATAGRAMS_AT_ONCE];
    let mut count = 0;
    for (part, bytes) in parts.iter_mut().zip(train.parts()) {
        *part = IoSlice::new(bytes);
        count += 1;
    }
    let length =
        u16::try_from(train.length()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let parts = parts.get(..count).unwrap_or_default();
    send_message(fd, parts, path, Some(length))
}

/// Sends a message, from one of the addresses of this machine if the path has one. The system splits it into datagrams of
/// `length` bytes.
fn send_message(
    fd: i32,
    parts: &[IoSlice<'_>],
    path: Option<&DatagramPath>,
    length: Option<u16>,
) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let to = path.map(|path| SockAddr::from(path.peer));
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: all zeroes are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(to) = &to {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len();
    }
    // A slice of I/O is a part of a message (`IoSlice` promises that).
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    message.msg_control = control.as_mut_ptr().cast();
    let mut written = 0;
    // SAFETY: the buffer has room for an address and a length, and the message refers to memory that lives for the call.
    let sent = unsafe {
        match path.and_then(|path| path.local) {
            Some(IpAddr::V4(address)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(address).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                written += put_control(
                    &mut control,
                    written,
                    (libc::IPPROTO_IP, libc::IP_PKTINFO),
                    info,
                );
            }
            Some(IpAddr::V6(address)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: address.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                written += put_control(
                    &mut control,
                    written,
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                    info,
                );
            }
            None => {}
        }
        if let Some(length) = length {
            written += put_control(
                &mut control,
                written,
                (libc::SOL_UDP, libc::UDP_SEGMENT),
                length,
            );
        }
        message.msg_controllen = written as _;
        libc::sendmsg(fd, &raw const message, flags)
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a control message at `at`. Returns the bytes that it takes.
///
/// # Safety
/// The buffer has room for the message there, and `at` is the end of the former ones.
unsafe fn put_control<T>(
    buffer: &mut [u64; CONTROL_WORDS],
    at: usize,
    (level, kind): (i32, i32),
    data: T,
) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: the caller gives room; messages begin at multiples of a word.
    unsafe {
        let header = buffer
            .as_mut_ptr()
            .cast::<u8>()
            .add(at)
            .cast::<libc::cmsghdr>();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), data);
        libc::CMSG_SPACE(size) as usize
    }
}
