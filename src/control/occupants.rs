//! Finds the program that listens on an address in use. If it is another program than Weir, a start would fail. A running
//! Weir may be the process that the checked file is for.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The sockets of all processes, read when they are first needed.
#[derive(Default)]
pub(super) struct Occupants {
    /// The kernel's tables of TCP sockets. With many connections they are long.
    tcp: Option<String>,
    own: Option<HashSet<u64>>,
    others: Option<HashMap<u64, Vec<u32>>>,
}

impl Occupants {
    /// The program other than Weir that listens on `address`, as far as this user may see.
    pub(super) fn of_tcp(&mut self, address: SocketAddr) -> Option<String> {
        let table = self.tcp.get_or_insert_with(|| {
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
            let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
            // The first line of each is a heading.
            texts.concat()
        });
        let inodes = listening_tcp(table, address);
        self.foreign(&inodes)
    }

    /// The same for a Unix socket.
    pub(super) fn of_unix(&mut self, path: &Path) -> Option<String> {
        let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let inodes = listening_unix(&text, path);
        self.foreign(&inodes)
    }

    fn foreign(&mut self, inodes: &[u64]) -> Option<String> {
        let own = self.own.get_or_insert_with(|| sockets_of("self").collect());
        if inodes.iter().any(|inode| own.contains(inode)) {
            return None;
        }
        let others = self.others.get_or_insert_with(all_sockets);
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        let weir = name("self")?;
        let mut foreign = None;
        for (inode, pid) in inodes.iter().flat_map(|inode| {
            let pids = others.get(inode).into_iter().flatten();
            pids.map(move |pid| (inode, pid))
        }) {
            let pid = pid.to_string();
            let Some(program) = name(&pid) else { continue };
            if program != weir {
                foreign = Some(format!("{} (process {pid})", program.trim_end()));
            } else if sockets_of(&pid).any(|held| held == *inode) {
                // It still has the socket, so it is not a process that has just become Weir.
                return None;
            }
        }
        foreign
    }
}

/// Inodes of the sockets in a table of the kernel (proc(5)) that listen on `address` or on an address that covers it.
fn listening_tcp(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let found = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        let local = socket_address(local)?;
        let is_every = |ip: IpAddr| ip.is_unspecified();
        let (ours, theirs) = (address.ip(), local.ip().to_canonical());
        // A socket on the IPv6 wildcard may accept IPv4 too.
        let overlaps = ours == theirs
            || is_every(theirs) && (ours.is_ipv6() == theirs.is_ipv6() || theirs.is_ipv6())
            || is_every(ours) && ours.is_ipv6() == theirs.is_ipv6();
        let listens = *state == LISTEN && local.port() == address.port() && overlaps;
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().filter_map(found).collect()
}

/// Parses `0100007F:1F90`: the address in words of the machine's byte order, the port as people write it.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Inodes of the sockets that listen on a path.
fn listening_unix(table: &str, path: &Path) -> Vec<u64> {
    // __SO_ACCEPTCON of the kernel's unix_seq_show.
    const LISTENS: &str = "00010000";
    let found = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let is_there = fields.get(3) == Some(&LISTENS) && Path::new(fields.get(7)?) == path;
        is_there.then(|| fields.get(6)?.parse().ok()).flatten()
    };
    table.lines().filter_map(found).collect()
}

/// The processes that have each socket, as far as this user may see.
fn all_sockets() -> HashMap<u64, Vec<u32>> {
    let mut found: HashMap<u64, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((name, pid)) = name
            .to_str()
            .and_then(|name| Some((name, name.parse().ok()?)))
        else {
            continue;
        };
        for inode in sockets_of(name) {
            found.entry(inode).or_default().push(pid);
        }
    }
    found
}

fn sockets_of(process: &str) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(format!("/proc/{process}/fd"));
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    };
    files.into_iter().flatten().flatten().filter_map(inode)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_are_found_in_the_tables_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100\n   \
             1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 100\n   \
             2: 0100007F:1F92 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 13 1 0 100\n";
        let six = "  sl\n   0: 00000000000000000000000000000000:1F93 00000000000000000000000000000000:0000 0A \
             00000000:00000000 00:00000000 00000000     0        0 14 1 0 100\n   1: \
             00000000000000000000000001000000:1F94 00000000000000000000000000000000:0000 0A 00000000:00000000 \
             00:00000000 00000000     0        0 15 1 0 100\n";
        for (table, address, expected) in [
            (table, "127.0.0.1:8080", vec![11]),
            (table, "0.0.0.0:8080", vec![11]),
            (table, "127.0.0.2:8080", vec![]),
            (table, "127.0.0.2:8081", vec![12]),
            (table, "127.0.0.1:8082", vec![]),
            (table, "[::]:8080", vec![]),
            (six, "[::1]:8083", vec![14]),
            (six, "127.0.0.1:8083", vec![14]),
            (six, "[::1]:8084", vec![15]),
            (six, "[::]:8084", vec![15]),
            (six, "0.0.0.0:8084", vec![]),
        ] {
            let found = listening_tcp(table, address.parse().unwrap());
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn own_sockets_are_in_the_tables_and_do_not_count() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let path = std::env::temp_dir().join(format!("weir-occupant-{}", std::process::id()));
        let _unix = UnixListener::bind(&path).unwrap();
        let text = fs::read_to_string("/proc/net/tcp").unwrap();
        let inodes = listening_tcp(&text, address);
        let own: HashSet<_> = sockets_of("self").collect();
        assert!(inodes.len() == 1 && own.contains(&inodes[0]));
        let text = fs::read_to_string("/proc/net/unix").unwrap();
        assert!(own.contains(&listening_unix(&text, &path)[0]));
        assert_eq!(Occupants::default().of_tcp(address), None);
        assert_eq!(Occupants::default().of_unix(&path), None);
        fs::remove_file(path).unwrap();
    }
}
