//! Listening sockets that the process inherits (`LISTEN_FDS`). Each belongs to the listener with its address.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use socket2::Socket;

use crate::io::{Address, ListenSocket, SocketOrigin, take_inherited};
use crate::obs::process;

/// The inherited sockets.
#[derive(Default)]
pub(super) struct InheritedSockets {
    /// Sockets that no listener has taken yet.
    spare: Vec<InheritedSocket>,
    /// Addresses whose sockets a listener has taken.
    taken: Vec<Address>,
}

struct InheritedSocket {
    /// Its name in messages.
    name: String,
    address: Address,
    socket: Socket,
}

impl InheritedSockets {
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

    /// Takes the sockets of a listener. With `SO_REUSEPORT`, several sockets share an address.
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
pub(super) fn spread(sockets: &[Socket], cores: usize) -> io::Result<Vec<(usize, ListenSocket)>> {
    let numbers = 0..sockets.len().max(cores);
    let each = numbers.map(|n| {
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

/// The address that a socket listens on. Sets the socket up like those that Weir binds.
fn prepare(fd: OwnedFd) -> Result<(Address, Socket), String> {
    let not_listening = |_| "it is not a listening stream socket".to_owned();
    let kind = rustix::net::sockopt::socket_type(fd.as_fd()).map_err(not_listening)?;
    let listens = rustix::net::sockopt::socket_acceptconn(fd.as_fd()).map_err(not_listening)?;
    if kind != rustix::net::SocketType::STREAM || !listens {
        return Err("it is not a listening stream socket".to_owned());
    }
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
        .map(|address| (address, socket))
        .ok_or_else(|| "it has neither an IP address nor a path".to_owned())
}
