//! Networks in CIDR notation.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::decode::kinds::TextKind;
use crate::text::problem::{Problem, ValueError};

/// A network in CIDR notation, with host bits of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The network's first address.
    pub network: IpAddr,
    /// The number of leading bits that addresses of the network share: up to 32 or 128.
    pub prefix_bits: u8,
}

impl Cidr {
    /// Whether `address` lies in this network. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        first_of(address.to_canonical(), self.prefix_bits) == self.network
    }

    /// Whether every address of `narrow` lies in this network.
    pub(crate) fn covers(&self, narrow: &Self) -> bool {
        self.network.is_ipv4() == narrow.network.is_ipv4()
            && self.prefix_bits <= narrow.prefix_bits
            && first_of(narrow.network, self.prefix_bits) == self.network
    }
}

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(CidrText::parse(text)?)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

/// ADDRESS or ADDRESS/BITS.
pub(crate) struct CidrText;

impl TextKind for CidrText {
    type Value = Cidr;
    const NOUN: &'static str = "a network";
    const PATTERN: Option<&'static str> = Some("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$");
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"];

    fn parse(text: &str) -> Result<Cidr, Problem> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(network) = address.parse::<IpAddr>() else {
            return Err(Problem::new(format!("`{text}` is not a network"))
                .help("write an address and a number of bits: \"10.0.0.0/8\""));
        };
        let bits_max: u8 = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) => bits
                .parse::<u8>()
                .ok()
                .filter(|number| *number <= bits_max && bits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| {
                    Problem::new(format!("`{bits}` is not a number of bits"))
                        .at(address.len() + 1, bits.len())
                        .help(format!("write a number from 0 to {bits_max}"))
                })?,
        };
        let first = first_of(network, prefix_bits);
        if first != network {
            return Err(Problem::new(format!(
                "`{text}` has bits set after its first {prefix_bits}"
            ))
            .help(format!("write \"{first}/{prefix_bits}\" or \"{network}\"")));
        }
        Ok(Cidr {
            network,
            prefix_bits,
        })
    }
}

/// The first address of the network that `address` is in.
fn first_of(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let host_bits = 32_u32.saturating_sub(prefix_bits.into());
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(prefix_bits.into());
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests;
