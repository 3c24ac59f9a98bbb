//! Sets of networks.

use std::net::IpAddr;

use weir_config::Cidr;

/// A set of networks, searched by bisection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl CidrSet {
    /// The union of networks.
    #[must_use]
    pub fn new(networks: &[Cidr]) -> Self {
        let mut set = Self::default();
        for network in networks {
            let bits = u32::from(network.prefix_bits);
            match network.network {
                IpAddr::V4(first) => {
                    let host = u32::MAX.checked_shr(bits).unwrap_or(0);
                    set.v4
                        .push((first.to_bits() & !host, first.to_bits() | host));
                }
                IpAddr::V6(first) => {
                    let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                    set.v6
                        .push((first.to_bits() & !host, first.to_bits() | host));
                }
            }
        }
        merge(&mut set.v4);
        merge(&mut set.v6);
        set
    }

    /// Whether the set has no networks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in one of the networks. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    let before = after.checked_sub(1).and_then(|index| ranges.get(index));
    before.is_some_and(|(_, last)| address <= *last)
}

/// Sorts ranges and joins those that overlap.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlap = next.0 <= kept.1;
        if overlap {
            kept.1 = kept.1.max(next.1);
        }
        overlap
    });
}
