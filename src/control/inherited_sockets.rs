//! Listening sockets that the process inherits, from a service manager (`LISTEN_FDS`) or from the process that it replaces.
//! Each belongs to the listener with its address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use socket2::{Socket, Type};

use super::handover::{HandedSocket, SocketPurpose};
use crate::io::{Address, ListenSocket, SocketOrigin, take_inherited};
use crate::obs::process;

/// The inherited sockets.
#[derive(Default)]
pub(super) struct InheritedSockets {
    /// Sockets that no listener has taken yet.
    spare: Vec<InheritedSocket>,
    /// Addresses whose sockets a listener has taken.
    taken: Vec<Address>,
    are_handed_over: bool,
}

struct InheritedSocket {
    /// Its name in messages.
    name: String,
    /// As the configuration writes it.
    address: String,
    /// What it is for. `None`: for any listener.
    purpose: Option<SocketPurpose>,
    origin: SocketOrigin,
    socket: Socket,
}

/// Sockets for one listener.
pub(super) type TakenSockets = Vec<(Socket, SocketOrigin)>;

impl InheritedSockets {
    /// Takes over the sockets of the process that this one replaces. They stay in the mode in which that process uses
    /// them, because both share it.
    ///
    /// # Errors
    /// A socket does not listen.
    pub(super) fn from_predecessor(handed: Vec<(HandedSocket, OwnedFd)>) -> Result<Self, String> {
        let each = handed.into_iter().map(|(handed, fd)| {
            let address = handed.address;
            let checked = match handed.purpose {
                SocketPurpose::Datagrams => check_datagrams(&fd),
                SocketPurpose::Listener | SocketPurpose::Admin => check(&fd),
            };
            checked.map_err(|why| format!("the socket of {address} was handed over: {why}"))?;
            Ok(InheritedSocket {
                name: format!("the socket of {address}"),
                address,
                purpose: Some(handed.purpose),
                origin: match handed.is_inherited {
                    true => SocketOrigin::Inherited,
                    false => SocketOrigin::Bound,
                },
                socket: fd.into(),
            })
        });
        Ok(Self {
            spare: each.collect::<Result<_, String>>()?,
            taken: Vec::new(),
            are_handed_over: true,
        })
    }

    /// Takes over the sockets that the environment passes to this process. Closes those that Weir cannot use, and logs
    /// them.
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let (pid, fds) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
        let is_meant = pid.and_then(|pid| pid.trim().parse().ok()) == Some(std::process::id());
        let count = fds.and_then(|count| count.trim().parse().ok());
        let (true, Some(count)) = (is_meant, count) else {
            return Self::default();
        };
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut all = Vec::new();
        // No process has more descriptors.
        for (fd, n) in take_inherited(usize::min(count, 65_536))
            .into_iter()
            .zip(3..)
        {
            let name = names.next().map_or_else(
                || format!("inherited socket {n}"),
                |name| format!("inherited socket {n} ({name})"),
            );
            let found = fd
                .ok_or_else(|| "it is not open".to_owned())
                .and_then(prepare);
            match found {
                Ok((address, purpose, socket)) => all.push(InheritedSocket {
                    name,
                    address: address.to_string(),
                    purpose,
                    origin: SocketOrigin::Inherited,
                    socket,
                }),
                Err(why) => process::warn(format_args!("{name}: {why}; closed")),
            }
        }
        Self {
            spare: all,
            taken: Vec::new(),
            are_handed_over: false,
        }
    }

    /// Takes the sockets of a listener. With `SO_REUSEPORT`, several sockets share an address.
    pub(super) fn take(&mut self, address: &Address, purpose: SocketPurpose) -> TakenSockets {
        let text = address.to_string();
        let is_its = |found: &mut InheritedSocket| {
            let fits = match found.purpose {
                Some(its) => its == purpose,
                None => purpose != SocketPurpose::Datagrams,
            };
            fits && found.address == text
        };
        let taken = self.spare.extract_if(.., is_its).map(|found| {
            if !self.are_handed_over {
                process::info(format_args!("{} is for {address}", found.name));
            }
            (found.socket, found.origin)
        });
        let taken: Vec<_> = taken.collect();
        if !taken.is_empty() {
            self.taken.push(address.clone());
        }
        taken
    }

    /// The TCP addresses that the process which this one replaces listens on.
    pub(super) fn handed_ports(&self) -> Vec<SocketAddr> {
        let is_tcp = |found: &&InheritedSocket| {
            matches!(
                found.purpose,
                Some(SocketPurpose::Listener | SocketPurpose::Admin)
            )
        };
        let handed = self.spare.iter().filter(is_tcp);
        let address = |found: &InheritedSocket| found.socket.local_addr().ok()?.as_socket();
        handed.filter_map(address).collect()
    }

    /// Closes the sockets that no listener has taken. Returns the addresses of the others.
    pub(super) fn taken(self) -> Vec<Address> {
        for InheritedSocket { name, address, .. } in self.spare {
            process::warn(format_args!(
                "{name}: no listener has the address {address}; closed"
            ));
        }
        self.taken
    }
}

/// Gives every core a socket of a listener, in turn. If there are fewer sockets than cores, cores share them.
pub(super) fn spread(
    sockets: &[(Socket, SocketOrigin)],
    cores: usize,
) -> io::Result<Vec<(usize, ListenSocket)>> {
    let numbers = 0..sockets.len().max(cores);
    let each = numbers.map(|n| {
        let (socket, origin) = &sockets[n % sockets.len()];
        let socket = socket.try_clone()?;
        let is_unix = socket.local_addr()?.is_unix();
        let is_udp = socket.r#type()? == Type::DGRAM;
        let socket = match (is_udp, is_unix) {
            (true, _) => ListenSocket::Udp(socket.into()),
            (false, true) => ListenSocket::Unix(socket.into(), *origin),
            (false, false) => ListenSocket::Tcp(socket.into(), *origin),
        };
        Ok((n % cores, socket))
    });
    each.collect()
}

/// Checks that a socket is one of UDP.
fn check_datagrams(fd: &OwnedFd) -> Result<(), String> {
    let is_udp = is_datagram(fd)
        && rustix::net::sockopt::socket_protocol(fd.as_fd())
            .is_ok_and(|protocol| protocol == Some(rustix::net::ipproto::UDP));
    match is_udp {
        true => Ok(()),
        false => Err("it is no UDP socket".to_owned()),
    }
}

fn is_datagram(fd: &OwnedFd) -> bool {
    let kind = rustix::net::sockopt::socket_type(fd.as_fd());
    kind.is_ok_and(|kind| kind == rustix::net::SocketType::DGRAM)
}

/// Checks that a socket listens.
fn check(fd: &OwnedFd) -> Result<(), String> {
    let not_listening = |_| "it is not a listening stream socket".to_owned();
    let kind = rustix::net::sockopt::socket_type(fd.as_fd()).map_err(not_listening)?;
    let listens = rustix::net::sockopt::socket_acceptconn(fd.as_fd()).map_err(not_listening)?;
    match kind == rustix::net::SocketType::STREAM && listens {
        true => Ok(()),
        false => Err("it is not a listening stream socket".to_owned()),
    }
}

/// The address that a socket listens on, and what the socket is for, if its kind says that. Sets it up like those that
/// Weir binds.
fn prepare(fd: OwnedFd) -> Result<(Address, Option<SocketPurpose>, Socket), String> {
    if is_datagram(&fd) {
        check_datagrams(&fd)?;
        let socket = Socket::from(fd);
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let address = address.as_socket().map(Address::Ip);
        let address = address.ok_or_else(|| "it has no IP address".to_owned())?;
        return Ok((address, Some(SocketPurpose::Datagrams), socket));
    }
    check(&fd)?;
    let socket = Socket::from(fd);
    let set_up = || {
        socket.set_nonblocking(false)?;
        let address = socket.local_addr()?;
        if !address.is_unix() {
            socket.set_tcp_nodelay(true)?;
        }
        io::Result::Ok(address)
    };
    let address = set_up().map_err(|error| error.to_string())?;
    let path = || {
        address
            .as_pathname()
            .map(|path| Address::Unix(Arc::new(path.to_owned())))
    };
    let found = address.as_socket().map(Address::Ip).or_else(path);
    found
        .map(|address| (address, None, socket))
        .ok_or_else(|| "it has neither an IP address nor a path".to_owned())
}
