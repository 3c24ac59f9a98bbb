//! Binds listening sockets for every core.
//!
//! For TCP, each core has a socket of its own on the same port (`SO_REUSEPORT`), and the kernel spreads connections. For
//! Unix sockets, cores share one. All sockets are blocking, because monoio would pass `EAGAIN` on otherwise.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, net};

use socket2::{Domain, Protocol, Socket, Type};

use super::handover::SocketPurpose;
use super::inherited_sockets::{self, InheritedSockets};
use crate::io::{Address, ListenSocket, SocketOrigin};
use crate::plan::{ListenerId, Plan, Transport};

/// Sockets that are bound and belong to no core yet.
#[derive(Default)]
pub(super) struct BoundSockets {
    /// By core.
    pub(super) sockets: Vec<Vec<(ListenerId, ListenSocket)>>,
    /// Their actual addresses, with ports that the kernel chose.
    pub(super) addresses: Vec<String>,
    /// The TCP addresses among them that this process has bound itself.
    pub(super) ports: Vec<SocketAddr>,
    /// Files of Unix sockets, removed when dropped.
    pub(super) files: Vec<OwnedFile>,
}

/// Binds `listeners` of `plan` for `cores` cores, or takes inherited sockets. This process already listens on the TCP
/// addresses in `taken`.
///
/// # Errors
/// An address cannot be bound. The message says what helps, and no address stays bound.
pub(super) fn bind(
    plan: &Plan,
    listeners: &[ListenerId],
    cores: usize,
    taken: &[SocketAddr],
    inherited: &mut InheritedSockets,
) -> Result<BoundSockets, String> {
    let mut bound = BoundSockets {
        sockets: (0..cores).map(|_| Vec::new()).collect(),
        ..BoundSockets::default()
    };
    for &id in listeners {
        let Some(listener) = plan.listener(id) else {
            continue;
        };
        let cannot = |error: io::Error| explain(&listener.address, &error);
        if listener.transport() == Transport::Datagram {
            let Address::Ip(address) = listener.address else {
                continue;
            };
            let given = inherited.take(&listener.address, SocketPurpose::Datagrams);
            if let Some((first, _)) = given.first() {
                let actual = first.local_addr().map_err(cannot)?.as_socket();
                let actual = actual.unwrap_or(address);
                for (core, socket) in inherited_sockets::spread(&given, cores).map_err(cannot)? {
                    bound.sockets[core].push((id, socket));
                }
                bound.ports.push(actual);
                bound.addresses.push(format!("{actual}/udp"));
                continue;
            }
            let address = bind_udp(address, taken, id, &mut bound).map_err(cannot)?;
            bound.ports.push(address);
            bound.addresses.push(format!("{address}/udp"));
            continue;
        }
        let given = inherited.take(&listener.address, SocketPurpose::Listener);
        if let Some((first, origin)) = given.first() {
            let actual = first.local_addr().map_err(cannot)?.as_socket();
            if let (Address::Unix(path), SocketOrigin::Bound) = (&listener.address, origin) {
                bound.files.push(OwnedFile::shared(path).map_err(cannot)?);
            }
            for (core, socket) in inherited_sockets::spread(&given, cores).map_err(cannot)? {
                bound.sockets[core].push((id, socket));
            }
            let shown = actual.map(|address| address.to_string());
            bound
                .addresses
                .push(shown.unwrap_or_else(|| listener.address.to_string()));
            continue;
        }
        match &listener.address {
            Address::Ip(address) => {
                probe(*address, taken).map_err(cannot)?;
                let mut address = *address;
                for sockets in &mut bound.sockets {
                    let socket = tcp(address, listener.backlog).map_err(cannot)?;
                    address = socket.local_addr().map_err(cannot)?;
                    sockets.push((id, ListenSocket::Tcp(socket, SocketOrigin::Bound)));
                }
                bound.ports.push(address);
                bound.addresses.push(address.to_string());
            }
            Address::Unix(path) => {
                let (socket, file) = unix(path, listener.backlog, listener.mode).map_err(cannot)?;
                bound.files.push(file);
                for sockets in &mut bound.sockets {
                    let socket = socket.try_clone().map_err(cannot)?;
                    sockets.push((id, ListenSocket::Unix(socket, SocketOrigin::Bound)));
                }
                bound.addresses.push(listener.address.to_string());
            }
        }
    }
    Ok(bound)
}

/// Binds a socket for datagrams for each core. Returns the address, with the port that the kernel has chosen.
fn bind_udp(
    mut address: SocketAddr,
    taken: &[SocketAddr],
    id: ListenerId,
    bound: &mut BoundSockets,
) -> io::Result<SocketAddr> {
    probe_udp(address, taken)?;
    for sockets in &mut bound.sockets {
        let socket = udp_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let socket = net::UdpSocket::from(socket);
        address = socket.local_addr()?;
        sockets.push((id, ListenSocket::Udp(socket)));
    }
    Ok(address)
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// As [`probe`], for datagrams.
pub(super) fn probe_udp(address: SocketAddr, taken: &[SocketAddr]) -> io::Result<()> {
    if address.port() == 0 || taken.iter().any(|other| other.port() == address.port()) {
        return Ok(());
    }
    udp_socket(address)?.bind(&address.into())
}

/// A blocking TCP socket that listens. Accepted sockets inherit its `TCP_NODELAY`. An IPv6 wildcard accepts IPv6 only, as
/// in nginx, so that an IPv4 wildcard can use the same port.
pub(super) fn tcp(address: SocketAddr, backlog: u32) -> io::Result<net::TcpListener> {
    let socket = bind_shared(address)?;
    socket.set_tcp_nodelay(true)?;
    crate::io::bound_unsent(socket.as_fd());
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A bound socket that shares its address with other sockets of this user.
pub(super) fn bind_shared(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Fails if another process listens on this address. Otherwise a second Weir of the same user would silently take half of
/// the connections, because both would share the port. This process already listens on the addresses in `taken`.
pub(super) fn probe(address: SocketAddr, taken: &[SocketAddr]) -> io::Result<()> {
    if address.port() == 0 || taken.iter().any(|other| other.port() == address.port()) {
        return Ok(());
    }
    tcp_socket(address)?.bind(&address.into())
}

/// A blocking Unix socket that listens. Replaces the socket file of a process that has ended, and no other file. `mode`
/// sets its permissions, which otherwise follow the umask.
pub(super) fn unix(
    path: &Path,
    backlog: u32,
    mode: Option<u32>,
) -> io::Result<(UnixListener, OwnedFile)> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(no_socket());
        }
        // Without waiting, because a process that runs and does not accept has a full queue.
        let trial = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        trial.set_nonblocking(true)?;
        match trial.connect(&socket2::SockAddr::unix(path)?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = OwnedFile::new(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((socket.into(), file))
}

/// The error for a file that Weir does not replace by a socket.
pub(super) fn no_socket() -> io::Error {
    let message = "the file exists and is not a socket";
    io::Error::new(io::ErrorKind::AlreadyExists, message)
}

/// A file that this process has created, such as a Unix socket. Dropping it removes the file, unless another file has
/// replaced it, or another process owns it.
#[derive(Debug)]
pub(super) struct OwnedFile {
    pub(super) path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
    is_ours: Cell<bool>,
}

impl OwnedFile {
    /// The file that this process has just created at this path.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let created = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            id: (created.dev(), created.ino()),
            is_ours: Cell::new(true),
        })
    }

    /// The file of the process that this one replaces, until [`OwnedFile::own`].
    pub(super) fn shared(path: &Path) -> io::Result<Self> {
        let file = Self::new(path)?;
        file.leave();
        Ok(file)
    }

    /// From now on the file is this process's.
    pub(super) fn own(&self) {
        self.is_ours.set(true);
    }

    /// From now on the file is another process's.
    pub(super) fn leave(&self) {
        self.is_ours.set(false);
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if !self.is_ours.get() {
            return;
        }
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            // If removing fails, the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Explains an error of an address, with a remedy.
pub(super) fn explain(address: &Address, error: &io::Error) -> String {
    let help = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, Address::Ip(ip)) => {
            format!("the address is in use; `ss -ltnp 'sport = :{}'` shows by whom", ip.port())
        }
        (io::ErrorKind::AddrInUse, Address::Unix(_)) => "another process listens there".to_owned(),
        (io::ErrorKind::PermissionDenied, Address::Ip(ip)) if ip.port() < 1024 => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=); with `user`, Weir \
             keeps it only if it starts with such a port"
                .to_owned()
        }
        (io::ErrorKind::NotFound, Address::Unix(path)) => {
            let folder = path.parent().map_or_else(|| path.display(), |folder| folder.display());
            format!("the folder {folder} is missing")
        }
        (io::ErrorKind::AddrNotAvailable, _) => "no interface of this machine has the address".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {help}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn none() -> InheritedSockets {
        InheritedSockets::default()
    }

    fn plan(listeners: &str) -> Plan {
        let text = format!("{listeners}[[route]]\nmatch = \"/*\"\nrespond = {{ status = 204 }}\n");
        let config = weir_config::parse("test.toml", &text).unwrap().0;
        Plan::compile(&config).unwrap()
    }

    #[test]
    fn cores_share_a_port_and_accepted_sockets_do_not_wait_to_send() {
        let plan = plan("[listen.\"127.0.0.1:0\"]\n[listen.\"[::1]:0\"]\n");
        let bound = bind(&plan, &[ListenerId(0), ListenerId(1)], 3, &[], &mut none()).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert_eq!(bound.addresses.len(), 2);
        for sockets in &bound.sockets {
            for ((id, socket), address) in sockets.iter().zip(&bound.addresses) {
                let ListenSocket::Tcp(socket, _) = socket else {
                    panic!("{id:?} is no TCP socket");
                };
                assert_eq!(socket.local_addr().unwrap().to_string(), *address);
                let flags = rustix::fs::fcntl_getfl(socket).unwrap();
                assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
            }
        }
        let one = tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let _client = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        assert!(one.accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn a_failed_bind_leaves_nothing_bound() {
        // An address of loopback that no other test uses, so that the free port stays free.
        let taken = tcp("127.0.0.7:0".parse().unwrap(), 1).unwrap();
        let free = tcp("127.0.0.7:0".parse().unwrap(), 1).unwrap();
        let (taken_at, free_at) = (taken.local_addr().unwrap(), free.local_addr().unwrap());
        drop(free);
        let plan = plan(&format!(
            "[listen.\"{free_at}\"]\n[listen.\"{taken_at}\"]\n"
        ));
        let all = [ListenerId(0), ListenerId(1)];
        let error = bind(&plan, &all, 2, &[], &mut none()).err().unwrap();
        assert!(
            error.contains(&format!("cannot listen on {taken_at}")),
            "{error}"
        );
        assert!(TcpStream::connect(free_at).is_err());
        // Beside sockets of our own it may share.
        assert!(bind(&plan, &all, 2, &[taken_at], &mut none()).is_ok());
    }
}
