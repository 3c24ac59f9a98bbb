//! The address of a connection's peer, as a connection keeps it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The address of a connection's peer, if it is known. It takes 24 bytes, where an optional [`SocketAddr`] takes 32,
/// because there are very many connections.
#[derive(Clone, Copy)]
pub struct PeerAddress(Packed);

#[derive(Clone, Copy)]
enum Packed {
    Unknown,
    V4(Ipv4Addr, u16),
    /// With its scope, which a link-local address needs. The flow label is no part of the address.
    V6(Ipv6Addr, u16, u32),
}

const _: () = assert!(size_of::<PeerAddress>() <= 24);

impl PeerAddress {
    /// The address; `None` if it is not known.
    pub fn get(self) -> Option<SocketAddr> {
        match self.0 {
            Packed::Unknown => None,
            Packed::V4(ip, port) => Some(SocketAddr::from((ip, port))),
            Packed::V6(ip, port, scope) => Some(SocketAddrV6::new(ip, port, 0, scope).into()),
        }
    }
}

impl From<Option<SocketAddr>> for PeerAddress {
    fn from(address: Option<SocketAddr>) -> Self {
        Self(match address {
            None => Packed::Unknown,
            Some(SocketAddr::V4(v4)) => Packed::V4(*v4.ip(), v4.port()),
            Some(SocketAddr::V6(v6)) => Packed::V6(*v6.ip(), v6.port(), v6.scope_id()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        let texts = ["192.0.2.1:80", "[2001:db8::1]:443", "[fe80::1%3]:65535"];
        let known = texts.map(|text| Some(text.parse::<SocketAddr>().unwrap()));
        for address in known.into_iter().chain([None]) {
            assert_eq!(PeerAddress::from(address).get(), address);
        }
    }
}
