//! Addresses of one file that cannot be listened on side by side. A start would fail. A reload would not notice: it
//! binds beside the sockets of the running process, which share their ports.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use crate::value::address::Address;

/// The addresses seen so far.
#[derive(Default)]
pub(crate) struct AddressClaims {
    /// By port and whether it is IPv6: sockets of IPv6 take no connections of IPv4.
    ports: HashMap<(u16, bool), PortClaims>,
    paths: HashMap<PathBuf, AddressClaim>,
}

#[derive(Default)]
struct PortClaims {
    /// Who listens on every address of the machine.
    every: Option<AddressClaim>,
    one: HashMap<(IpAddr, u32), AddressClaim>,
    first: Option<AddressClaim>,
}

/// An address and the line where it is.
#[derive(Clone, Debug)]
pub(crate) struct AddressClaim {
    pub(crate) address: Address,
    pub(crate) line: u32,
}

impl AddressClaims {
    /// Notes an address; gives the one that it overlaps with, if there is one.
    pub(crate) fn claim(&mut self, address: &Address, line: u32) -> Option<AddressClaim> {
        let holder = AddressClaim {
            address: address.clone(),
            line,
        };
        match address {
            Address::Unix(path) => {
                let path = without_detours(path);
                let clash = self.paths.get(&path).cloned();
                if clash.is_none() {
                    self.paths.insert(path, holder);
                }
                clash
            }
            // The kernel chooses a port that is free.
            Address::Tcp(address) if address.port() == 0 => None,
            Address::Tcp(address) => {
                let port = (address.port(), address.is_ipv6());
                self.ports.entry(port).or_default().claim(*address, holder)
            }
        }
    }
}

impl PortClaims {
    fn claim(&mut self, address: SocketAddr, holder: AddressClaim) -> Option<AddressClaim> {
        let is_every = address.ip().is_unspecified();
        let zone = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        let one = (address.ip(), zone);
        let clash = match (&self.every, self.one.get(&one)) {
            (_, Some(same)) => Some(same.clone()),
            (Some(every), None) => Some(every.clone()),
            (None, None) if is_every => self.first.clone(),
            (None, None) => None,
        };
        if clash.is_none() {
            self.first.get_or_insert_with(|| holder.clone());
            if is_every {
                self.every = Some(holder.clone());
            }
            self.one.insert(one, holder);
        }
        clash
    }
}

/// A path without `.`, `..` and doubled slashes. A symbolic link before `..` is not looked at.
pub(crate) fn without_detours(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(straight.pop()),
            part => straight.push(part),
        }
    }
    straight
}

pub(crate) fn same_place(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => without_detours(a) == without_detours(b),
        (a, b) => a == b,
    }
}

pub(crate) fn leave_one_out(a: &Address, b: &Address) -> String {
    let is_every = |address: &&Address| matches!(address, Address::Tcp(address) if address.ip().is_unspecified());
    let every = match [a, b].into_iter().find(is_every) {
        Some(Address::Tcp(SocketAddr::V4(_))) => "`0.0.0.0` is every IPv4 address of the machine: ",
        Some(_) => "`::` is every IPv6 address of the machine: ",
        None => "",
    };
    format!("{every}leave one of them out")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the second of two addresses overlaps with the first, and the other way round.
    fn overlap(a: &str, b: &str) -> bool {
        let claim = |a: &str, b: &str| {
            let mut taken = AddressClaims::default();
            assert!(taken.claim(&a.parse().expect("an address"), 1).is_none());
            taken.claim(&b.parse().expect("an address"), 2).is_some()
        };
        assert_eq!(claim(a, b), claim(b, a), "{a} {b}");
        claim(a, b)
    }

    #[test]
    fn addresses_overlap_as_the_kernel_sees_it() {
        for (a, b, expected) in [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[0:0::1]:80", "[::1]:80", true),
            ("[fe80::1%2]:80", "[fe80::1%3]:80", false),
            ("[fe80::1%2]:80", "[fe80::1%2]:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:0", "127.0.0.1:80", false),
            ("unix:/run/a", "unix:/run/a", true),
            ("unix:/run/a", "unix:/run//./a", true),
            ("unix:/run/a", "unix:/run/weir/../a", true),
            ("unix:/run/a", "unix:/run/b", false),
            ("unix:/run/a", "unix:/run/A", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_first_of_several_is_named() {
        let mut taken = AddressClaims::default();
        for line in 1..=3 {
            let address = format!("127.0.0.{line}:80").parse().expect("an address");
            assert!(taken.claim(&address, line).is_none());
        }
        let every = "0.0.0.0:80".parse().expect("an address");
        assert_eq!(taken.claim(&every, 4).map(|holder| holder.line), Some(1));
    }
}
