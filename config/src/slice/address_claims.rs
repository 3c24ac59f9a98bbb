//! Addresses of one file that overlap. With them a start would fail, but a reload would not notice: it binds its
//! sockets beside those of the running process, which share their ports.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use crate::value::address::Address;

/// The addresses of the file that the check has met so far.
#[derive(Default)]
pub(crate) struct AddressClaims {
    /// By port and whether it is IPv6: Weir's IPv6 sockets accept no IPv4 connections.
    ports: HashMap<(u16, bool), PortClaims>,
    paths: HashMap<PathBuf, AddressClaim>,
}

/// The claims on one port.
#[derive(Default)]
struct PortClaims {
    /// The claim on every address of the machine.
    every: Option<AddressClaim>,
    /// Claims on one address, by address and zone.
    one: HashMap<(IpAddr, u32), AddressClaim>,
    first: Option<AddressClaim>,
}

/// An address of the file, and its line.
#[derive(Clone, Debug)]
pub(crate) struct AddressClaim {
    pub(crate) address: Address,
    pub(crate) line: u32,
}

impl AddressClaims {
    /// Adds `address`. If it overlaps with an earlier one, returns that instead.
    pub(crate) fn claim(&mut self, address: &Address, line: u32) -> Option<AddressClaim> {
        let claim = AddressClaim {
            address: address.clone(),
            line,
        };
        match address {
            Address::Unix(path) => {
                let path = simplify_path(path);
                let clash = self.paths.get(&path).cloned();
                if clash.is_none() {
                    self.paths.insert(path, claim);
                }
                clash
            }
            // The kernel chooses a free port.
            Address::Tcp(address) if address.port() == 0 => None,
            Address::Tcp(address) => {
                let port = (address.port(), address.is_ipv6());
                self.ports.entry(port).or_default().claim(*address, claim)
            }
        }
    }
}

impl PortClaims {
    fn claim(&mut self, address: SocketAddr, claim: AddressClaim) -> Option<AddressClaim> {
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
            self.first.get_or_insert_with(|| claim.clone());
            if is_every {
                self.every = Some(claim.clone());
            }
            self.one.insert(one, claim);
        }
        clash
    }
}

/// `path` without `.`, `..` and doubled slashes, as if there were no symbolic links.
fn simplify_path(path: &Path) -> PathBuf {
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

/// Whether `a` and `b` are one address, however it is written.
pub(crate) fn is_same_address(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => simplify_path(a) == simplify_path(b),
        (a, b) => a == b,
    }
}

/// Advice for two addresses that overlap.
pub(crate) fn advise_leaving_out(a: &Address, b: &Address) -> String {
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
    fn the_first_of_several_claims_is_returned() {
        let mut taken = AddressClaims::default();
        for line in 1..=3 {
            let address = format!("127.0.0.{line}:80").parse().expect("an address");
            assert!(taken.claim(&address, line).is_none());
        }
        let every = "0.0.0.0:80".parse().expect("an address");
        assert_eq!(taken.claim(&every, 4).map(|claim| claim.line), Some(1));
    }
}
