//! What both drivers ask of the system past their rings.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Bell;

/// A bound listening socket.
pub enum ListenSocket {
    /// TCP; shares its port with the other cores' by `SO_REUSEPORT`.
    Tcp(std::net::TcpListener),
    /// Unix; cores accept from clones of one socket.
    Unix(std::os::unix::net::UnixListener),
}

/// An accepted connection between two cores.
pub struct Parcel {
    pub(super) fd: OwnedFd,
    pub(super) peer: Option<SocketAddr>,
}

pub(super) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: callers pass what the system has just given them, so nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn shut(fd: i32, how: i32) {
    // SAFETY: shutdown takes a descriptor and touches no memory; one that is no socket gives an error, which means
    // the direction is closed already.
    unsafe { libc::shutdown(fd, how) };
}

/// Lets calls that do not go through a ring fail instead of waiting. Says whether they do.
pub(super) fn set_nonblocking(fd: i32) -> bool {
    // SAFETY: reads and sets flags of a descriptor; no memory is passed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    }
}

/// Resets a connection at once; a Unix socket, which cannot be reset, is closed both ways.
pub(super) fn reset(fd: i32) {
    // SAFETY: all zeroes are an address of the unspecified family, which takes a connection apart.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the address lives for the call and is as large as said.
    if unsafe { libc::connect(fd, &raw const nowhere, size) } != 0 {
        shut(fd, libc::SHUT_RDWR);
    }
}

/// Whether there is nothing to be received on a socket: no byte, no end, no error.
pub(super) fn is_quiet(fd: i32) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    loop {
        // SAFETY: one byte of ours is written at most, and it is alive for the call.
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

/// Tells how a connect has ended that was waited for.
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

/// Rings a core awake: a byte through a socket pair, unless one is on its way.
#[derive(Clone)]
pub struct Doorbell {
    state: Arc<BellState>,
}

/// What a bell's two ends share.
pub(super) struct BellState {
    rung: AtomicBool,
    far: UnixStream,
}

impl Doorbell {
    /// Makes a bell: the end that is to be received from, and what to tell of each receive.
    pub(super) fn new() -> io::Result<(Self, OwnedFd, Arc<BellState>)> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let state = Arc::new(BellState {
            rung: AtomicBool::new(false),
            far,
        });
        let bell = Self {
            state: state.clone(),
        };
        Ok((bell, near.into(), state))
    }
}

impl BellState {
    /// The ring was heard: the next one counts again.
    pub(super) fn heard(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        if !self.state.rung.swap(true, Ordering::AcqRel) {
            // A full socket buffer means that rings are waiting to be heard; a closed one, that the core has ended.
            let _ = io::Write::write(&mut &self.state.far, &[1]);
        }
    }
}
