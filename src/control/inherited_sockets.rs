//! Listening sockets that the process was started with (`LISTEN_FDS`): each is for the listener of its address.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use socket2::Socket;

use crate::io::{Address, ListenSocket, SocketOrigin, take_inherited};
use crate::obs::process;

/// What was inherited.
#[derive(Default)]
pub(super) struct InheritedSockets {
    /// For no listener yet.
    spare: Vec<InheritedSocket>,
    taken: Vec<Address>,
}

struct InheritedSocket {
    /// What messages call it.
    name: String,
    address: Address,
    socket: Socket,
}

impl InheritedSockets {
    /// Takes over what the environment says, if it is meant for this process. What is of no use is closed and said.
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
        // Nobody has more descriptors than that.
        for (fd, n) in take_inherited(usize::min(count, 65_536))
            .into_iter()
            .zip(3..)
        {
            let name = names.next().map_or_else(
                || format!("inherited socket {n}"),
                |name| format!("inherited socket {n} ({name})"),
            );
            let found = fd.ok_or_else(|| "it is not open".to_owned()).and_then(look);
            match found {
                Ok((address, socket)) => all.push(InheritedSocket {
                    name,
                    address,
                    socket,
                }),
                Err(why) => process::warn(format_args!("{name}: {why}; closed")),
            }
        }
        Self {
            spare: all,
            taken: Vec::new(),
        }
    }

    /// The sockets of a listener, if there are any: several share an address with `SO_REUSEPORT`.
    pub(super) fn take(&mut self, address: &Address) -> Vec<Socket> {
        let is_its = |found: &mut InheritedSocket| found.address == *address;
        let taken = self.spare.extract_if(.., is_its).map(|found| {
            process::info(format_args!("{} is for {address}", found.name));
            found.socket
        });
        let taken: Vec<_> = taken.collect();
        if !taken.is_empty() {
            self.taken.push(address.clone());
        }
        taken
    }

    /// Closes what no listener has taken; gives the addresses of what was.
    pub(super) fn taken(self) -> Vec<Address> {
        for InheritedSocket { name, address, .. } in self.spare {
            process::warn(format_args!(
                "{name}: no listener has the address {address}; closed"
            ));
        }
        self.taken
    }
}

/// One for every core: those of a listener in turn, shared when there are fewer than cores.
pub(super) fn spread(sockets: &[Socket], cores: usize) -> io::Result<Vec<(usize, ListenSocket)>> {
    let places = 0..sockets.len().max(cores);
    let each = places.map(|n| {
        let socket = sockets[n % sockets.len()].try_clone()?;
        let is_unix = socket.local_addr()?.is_unix();
        let socket = match is_unix {
            true => ListenSocket::Unix(socket.into(), SocketOrigin::Inherited),
            false => ListenSocket::Tcp(socket.into(), SocketOrigin::Inherited),
        };
        Ok((n % cores, socket))
    });
    each.collect()
}

/// Where a socket listens, if it does; makes it like those that we bind.
fn look(fd: OwnedFd) -> Result<(Address, Socket), String> {
    let no_stream = |_| "it is no listening stream socket".to_owned();
    let kind = rustix::net::sockopt::socket_type(fd.as_fd()).map_err(no_stream)?;
    let listens = rustix::net::sockopt::socket_acceptconn(fd.as_fd()).map_err(no_stream)?;
    if kind != rustix::net::SocketType::STREAM || !listens {
        return Err("it is no listening stream socket".to_owned());
    }
    let socket = Socket::from(fd);
    let prepare = || {
        socket.set_nonblocking(false)?;
        let address = socket.local_addr()?;
        if !address.is_unix() {
            socket.set_tcp_nodelay(true)?;
        }
        io::Result::Ok(address)
    };
    let address = prepare().map_err(|error| error.to_string())?;
    let path = || {
        address
            .as_pathname()
            .map(|path| Address::Unix(Arc::new(path.to_owned())))
    };
    let found = address.as_socket().map(Address::Ip).or_else(path);
    found
        .map(|address| (address, socket))
        .ok_or_else(|| "it has neither an IP address nor a path".to_owned())
}
