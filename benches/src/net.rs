//! Non-blocking stream sockets and an edge-triggered epoll set, without `unsafe`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit};

pub use rustix::event::epoll::{Event, EventFlags};

/// The accept backlog: more connections than any case opens at once.
const BACKLOG: i32 = 16_384;

/// Events in one batch.
const EVENTS_MAX: usize = 512;

/// A TCP address or the path of a Unix socket (`unix:/path`).
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(rustix::net::SocketAddrUnix, String),
}

impl Address {
    /// Parses `unix:/path`, `ip:port` or `name:port`. Resolves a name once, here.
    ///
    /// # Errors
    /// Why `text` is not an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return rustix::net::SocketAddrUnix::new(path)
                .map(|address| Self::Unix(address, path.to_owned()))
                .map_err(|error| format!("{path}: {error}"));
        }
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| format!("{text}: {error}"))?;
        found
            .next()
            .map(Self::Tcp)
            .ok_or_else(|| format!("{text}: no address"))
    }

    /// Opens a listening socket. Replaces a stale Unix socket. Sockets that share a port share its connections.
    ///
    /// # Errors
    /// The kernel's error. Unix sockets share no address.
    pub fn listen(&self, shares_port: bool) -> Result<OwnedFd, Errno> {
        let fd = self.socket()?;
        match self {
            Self::Unix(..) if shares_port => return Err(Errno::OPNOTSUPP),
            Self::Tcp(address) => {
                sockopt::set_socket_reuseaddr(&fd, true)?;
                sockopt::set_socket_reuseport(&fd, shares_port)?;
                rustix::net::bind(&fd, address)?;
            }
            Self::Unix(address, path) => {
                let _ = std::fs::remove_file(path);
                rustix::net::bind(&fd, address)?;
            }
        }
        rustix::net::listen(&fd, BACKLOG)?;
        Ok(fd)
    }

    /// Starts to connect. The socket becomes writable when that has finished.
    ///
    /// # Errors
    /// The kernel's error, except "in progress".
    pub fn connect(&self) -> Result<OwnedFd, Errno> {
        let fd = self.socket()?;
        let started = match self {
            Self::Tcp(address) => {
                sockopt::set_tcp_nodelay(&fd, true)?;
                rustix::net::connect(&fd, address)
            }
            Self::Unix(address, _) => rustix::net::connect(&fd, address),
        };
        match started {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
            Err(error) => Err(error),
        }
    }

    fn socket(&self) -> Result<OwnedFd, Errno> {
        let family = match self {
            Self::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
            Self::Unix(..) => AddressFamily::UNIX,
        };
        rustix::net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(_, path) => write!(f, "unix:{path}"),
        }
    }
}

/// An epoll set. Every socket is registered once, edge-triggered, in both directions.
pub struct Poll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// # Errors
    /// The kernel's error.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            fd: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::new(),
        })
    }

    /// Registers a connection under `key`. Closing the connection removes it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add(&self, fd: impl AsFd, key: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), flags)
    }

    /// Registers a listening socket under `key`, level-triggered.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn add_listener(&self, fd: impl AsFd, key: u64) -> Result<(), Errno> {
        epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), EventFlags::IN)
    }

    /// Waits for events and returns them. Without a limit, waits forever.
    ///
    /// # Errors
    /// The kernel's error. An interruption is not an error.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<&mut Vec<Event>, Errno> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        self.events.clear();
        self.events.reserve(EVENTS_MAX);
        match epoll::wait(
            &self.fd,
            rustix::buffer::spare_capacity(&mut self.events),
            limit.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(&mut self.events),
            Err(error) => Err(error),
        }
    }

    /// Takes back a vector of events, so that the next `wait` does not allocate.
    pub fn reuse(&mut self, events: Vec<Event>) {
        self.events = events;
    }
}

/// The result of a non-blocking call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Bytes(usize),
    /// Nothing can be transferred now.
    WouldBlock,
    /// The peer has closed its side.
    Closed,
}

/// Receives into `buffer`.
///
/// # Errors
/// The kernel's error.
/// What the kernel said.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> Result<Transfer, Errno> {
    receive_with(fd, buffer, RecvFlags::empty())
}

/// Receives and discards at most as many bytes as `scratch` has. TCP does this without a copy.
///
/// # Errors
/// The kernel's error.
pub fn discard(fd: impl AsFd, scratch: &mut [u8]) -> Result<Transfer, Errno> {
    receive_with(fd, scratch, RecvFlags::TRUNC)
}

/// Sends what fits.
///
/// # Errors
/// The kernel's error.
pub fn send(fd: impl AsFd, bytes: &[u8]) -> Result<Transfer, Errno> {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => Ok(Transfer::Bytes(sent)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Transfer::WouldBlock),
        Err(error) => Err(error),
    }
}

/// Accepts a connection, if one is waiting.
///
/// # Errors
/// The kernel's error.
pub fn accept(listener: impl AsFd) -> Result<Option<OwnedFd>, Errno> {
    match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(fd) => {
            // Fails on Unix sockets, which have no such delay.
            let _ = sockopt::set_tcp_nodelay(&fd, true);
            Ok(Some(fd))
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The address of a listening socket. It differs from the requested one if that had port 0.
///
/// # Errors
/// The kernel's error.
pub fn local_address(listener: impl AsFd) -> Result<String, Errno> {
    let address = rustix::net::getsockname(listener)?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Ok(address.to_string());
    }
    let path = rustix::net::SocketAddrUnix::try_from(address)?;
    Ok(format!(
        "unix:{}",
        path.path()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    ))
}

/// Raises the limit of open files to its maximum and returns it.
#[must_use]
pub fn raise_open_files() -> u64 {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

fn receive_with(fd: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Transfer, Errno> {
    match rustix::net::recv(fd, buffer, flags) {
        Ok((_, 0)) => Ok(Transfer::Closed),
        Ok((_, bytes)) => Ok(Transfer::Bytes(bytes)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Transfer::WouldBlock),
        Err(error) => Err(error),
    }
}
