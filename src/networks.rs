//! Which network an address is in: the one table behind trusted proxies, PROXY headers and the `ip` policy.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv6Addr};

use weir_config::Cidr;

/// A value for each of many networks. Of networks within each other, the most specific one counts.
///
/// The networks cut the addresses into ranges, each with the network that counts there. A lookup bisects the first
/// addresses of the ranges, so it compares at most 18 times among 100,000 networks. A network costs at most two ranges,
/// of 6 bytes each for IPv4 and 18 for IPv6 if the value has one byte.
///
/// IPv4-mapped IPv6 addresses and networks count as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMap<V> {
    v4: RangeMap<u32, V>,
    v6: RangeMap<u128, V>,
}

/// Networks without values.
pub type NetworkSet = NetworkMap<()>;

impl<V> Default for NetworkMap<V> {
    fn default() -> Self {
        Self {
            v4: RangeMap::default(),
            v6: RangeMap::default(),
        }
    }
}

impl NetworkSet {
    /// The set of these networks.
    #[must_use]
    pub fn of(networks: &[Cidr]) -> Self {
        Self::new(networks.iter().map(|network| (*network, ())), |(), ()| ())
    }

    /// Whether `address` is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }
}

impl<V: Copy> NetworkMap<V> {
    /// The map of these networks. `merge` makes one value of two for the same network.
    #[must_use]
    pub fn new(
        networks: impl IntoIterator<Item = (Cidr, V)>,
        merge: impl Fn(V, V) -> V + Copy,
    ) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in networks {
            let Cidr {
                network,
                prefix_bits,
            } = canonical(network);
            match network {
                IpAddr::V4(first) => v4.push(Block::new(first.to_bits(), prefix_bits, value)),
                IpAddr::V6(first) => v6.push(Block::new(first.to_bits(), prefix_bits, value)),
            }
        }
        Self {
            v4: RangeMap::new(v4, merge),
            v6: RangeMap::new(v6, merge),
        }
    }

    /// Whether the map has no networks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.firsts.is_empty() && self.v6.firsts.is_empty()
    }

    /// The value of the most specific network that has `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<V> {
        let found = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        };
        found.map(|(_, value)| value)
    }

    /// The same with the network.
    #[must_use]
    pub fn find_network(&self, address: IpAddr) -> Option<(Cidr, V)> {
        let (prefix_bits, value, network) = match address.to_canonical() {
            IpAddr::V4(address) => {
                let (bits, value) = self.v4.find(address.to_bits())?;
                let first = address.to_bits() & !u32::host_mask(bits);
                (bits, value, IpAddr::V4(first.into()))
            }
            IpAddr::V6(address) => {
                let (bits, value) = self.v6.find(address.to_bits())?;
                let first = address.to_bits() & !u128::host_mask(bits);
                (bits, value, IpAddr::V6(first.into()))
            }
        };
        let network = Cidr {
            network,
            prefix_bits,
        };
        Some((network, value))
    }
}

/// An IPv4-mapped network as IPv4.
fn canonical(network: Cidr) -> Cidr {
    const MAPPED_BITS: u8 = 96;
    let mapped = match network.network {
        IpAddr::V6(first) if network.prefix_bits >= MAPPED_BITS => Ipv6Addr::to_ipv4_mapped(&first),
        _ => None,
    };
    mapped.map_or(network, |first| Cidr {
        network: first.into(),
        prefix_bits: network.prefix_bits - MAPPED_BITS,
    })
}

/// The addresses of one family as a number.
trait Bits: Copy + Ord {
    /// The bits behind the first `prefix_bits`.
    fn host_mask(prefix_bits: u8) -> Self;

    /// The address after the last one of a block that begins at `self`; `None` after the last of all.
    fn after_block(self, prefix_bits: u8) -> Option<Self>;
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            fn host_mask(prefix_bits: u8) -> Self {
                Self::MAX.checked_shr(prefix_bits.into()).unwrap_or(0)
            }

            fn after_block(self, prefix_bits: u8) -> Option<Self> {
                (self | Self::host_mask(prefix_bits)).checked_add(1)
            }
        }
    };
}

bits!(u32);
bits!(u128);

/// A network as a block of addresses.
struct Block<A, V> {
    first: A,
    prefix_bits: u8,
    value: V,
}

impl<A, V> Block<A, V> {
    fn new(first: A, prefix_bits: u8, value: V) -> Self {
        Self {
            first,
            prefix_bits,
            value,
        }
    }
}

/// Ranges of addresses in order. Each ends before the next one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RangeMap<A, V> {
    firsts: Box<[A]>,
    /// The length of the prefix and the value of the network that counts in each range; `None` for no network.
    networks: Box<[Option<(u8, V)>]>,
}

impl<A, V> Default for RangeMap<A, V> {
    fn default() -> Self {
        Self {
            firsts: Box::default(),
            networks: Box::default(),
        }
    }
}

impl<A: Bits, V: Copy> RangeMap<A, V> {
    fn new(mut blocks: Vec<Block<A, V>>, merge: impl Fn(V, V) -> V) -> Self {
        // A network comes before the networks within it.
        blocks.sort_by_key(|block| (block.first, block.prefix_bits));
        blocks.dedup_by(|next, kept| {
            let is_same = next.first == kept.first && next.prefix_bits == kept.prefix_bits;
            if is_same {
                kept.value = merge(kept.value, next.value);
            }
            is_same
        });
        let mut ranges = RangesInOrder::default();
        // The networks that the next one may be within, each with the address after its last one.
        let mut around: Vec<(Option<A>, (u8, V))> = Vec::new();
        for block in blocks {
            while let Some((after, _)) = around.last().copied()
                && after.is_some_and(|after| after <= block.first)
            {
                around.pop();
                ranges.begin(after, around.last().map(|(_, network)| *network));
            }
            let network = (block.prefix_bits, block.value);
            ranges.begin(Some(block.first), Some(network));
            around.push((block.first.after_block(block.prefix_bits), network));
        }
        while let Some((after, _)) = around.pop() {
            ranges.begin(after, around.last().map(|(_, network)| *network));
        }
        Self {
            firsts: ranges.firsts.into(),
            networks: ranges.networks.into(),
        }
    }

    fn find(&self, address: A) -> Option<(u8, V)> {
        let after = self.firsts.partition_point(|first| *first <= address);
        *self.networks.get(after.checked_sub(1)?)?
    }
}

struct RangesInOrder<A, V> {
    firsts: Vec<A>,
    networks: Vec<Option<(u8, V)>>,
}

impl<A, V> Default for RangesInOrder<A, V> {
    fn default() -> Self {
        Self {
            firsts: Vec::new(),
            networks: Vec::new(),
        }
    }
}

impl<A: Bits, V> RangesInOrder<A, V> {
    /// Begins a range at `first`, in place of one that begins there already. `None` is behind the last address.
    fn begin(&mut self, first: Option<A>, network: Option<(u8, V)>) {
        let Some(first) = first else {
            return;
        };
        if self.firsts.last() == Some(&first) {
            self.firsts.pop();
            self.networks.pop();
        }
        self.firsts.push(first);
        self.networks.push(network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn map(networks: &[(&str, char)]) -> NetworkMap<char> {
        let networks = networks.iter().map(|(text, value)| (cidr(text), *value));
        NetworkMap::new(networks, char::max)
    }

    fn found(map: &NetworkMap<char>, address: &str) -> String {
        match map.find_network(ip(address)) {
            Some((network, value)) => {
                assert_eq!(map.find(ip(address)), Some(value));
                format!("{network} {value}")
            }
            None => {
                assert_eq!(map.find(ip(address)), None);
                String::new()
            }
        }
    }

    #[test]
    fn the_most_specific_network_counts() {
        let map = map(&[
            ("10.0.0.0/8", 'a'),
            ("10.1.0.0/16", 'b'),
            ("10.1.2.0/24", 'c'),
            ("10.1.2.255", 'd'),
            ("10.255.255.255", 'e'),
            ("11.0.0.0/8", 'f'),
            ("255.255.255.255", 'g'),
            ("2001:db8::/32", 'h'),
            ("2001:db8::/128", 'i'),
        ]);
        for (address, expected) in [
            ("9.255.255.255", ""),
            ("10.0.0.0", "10.0.0.0/8 a"),
            ("10.1.0.0", "10.1.0.0/16 b"),
            ("10.1.2.0", "10.1.2.0/24 c"),
            ("10.1.2.254", "10.1.2.0/24 c"),
            ("10.1.2.255", "10.1.2.255/32 d"),
            ("10.1.3.0", "10.1.0.0/16 b"),
            ("10.2.0.0", "10.0.0.0/8 a"),
            ("10.255.255.255", "10.255.255.255/32 e"),
            ("11.0.0.0", "11.0.0.0/8 f"),
            ("12.0.0.0", ""),
            ("255.255.255.254", ""),
            ("255.255.255.255", "255.255.255.255/32 g"),
            ("2001:db8::", "2001:db8::/128 i"),
            ("2001:db8::1", "2001:db8::/32 h"),
            ("2001:db9::", ""),
            ("::ffff:10.1.2.3", "10.1.2.0/24 c"),
            ("::", ""),
        ] {
            assert_eq!(found(&map, address), expected, "{address}");
        }
        assert_eq!(found(&NetworkMap::default(), "10.0.0.1"), "");
    }

    #[test]
    fn one_network_may_be_all_addresses() {
        let map = map(&[("0.0.0.0/0", 'a'), ("0.0.0.0/1", 'b'), ("::/0", 'c')]);
        assert_eq!(found(&map, "255.255.255.255"), "0.0.0.0/0 a");
        assert_eq!(found(&map, "127.0.0.1"), "0.0.0.0/1 b");
        assert_eq!(found(&map, "::1"), "::/0 c");
        assert_eq!(found(&map, "::ffff:1.2.3.4"), "0.0.0.0/1 b");
        assert!(!map.is_empty() && NetworkSet::default().is_empty());
    }

    #[test]
    fn values_of_one_network_merge() {
        let map = map(&[
            ("10.0.0.0/8", 'b'),
            ("10.0.0.0/8", 'a'),
            ("::ffff:10.0.0.0/104", 'c'),
            ("10.0.0.0/16", 'a'),
        ]);
        assert_eq!(found(&map, "10.1.0.0"), "10.0.0.0/8 c");
        assert_eq!(found(&map, "10.0.1.0"), "10.0.0.0/16 a");
    }

    /// xorshift64*, so that a failure repeats.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        /// An address in one of few networks, so that networks are often within each other.
        fn address(&mut self, is_v4: bool) -> IpAddr {
            let bytes: [u8; 16] = std::array::from_fn(|_| match self.next() % 8 {
                0 => 0,
                1..4 => 0xff,
                4 => 1,
                _ => 0x80,
            });
            match is_v4 {
                true => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                false => IpAddr::from(bytes),
            }
        }

        fn network(&mut self, is_v4: bool) -> Cidr {
            let bits_max = if is_v4 { 32 } else { 128 };
            let prefix_bits = (self.next() % (bits_max + 1)) as u8;
            let network = match self.address(is_v4) {
                IpAddr::V4(address) => {
                    IpAddr::V4((address.to_bits() & !u32::host_mask(prefix_bits)).into())
                }
                IpAddr::V6(address) => {
                    IpAddr::V6((address.to_bits() & !u128::host_mask(prefix_bits)).into())
                }
            };
            Cidr {
                network,
                prefix_bits,
            }
        }
    }

    #[test]
    fn a_lookup_finds_what_a_search_of_all_networks_finds() {
        let mut random = Random(1);
        for round in 0..400 {
            let is_v4 = round % 2 == 0;
            let count = random.next() % 40;
            let networks: Vec<_> = (0..count)
                .map(|value| (random.network(is_v4), value))
                .collect();
            let map = NetworkMap::new(networks.iter().copied(), u64::max);
            for _ in 0..200 {
                let address = random.address(is_v4);
                let holding = networks
                    .iter()
                    .filter(|(network, _)| network.contains(address));
                let expected = holding.max_by_key(|(network, value)| (network.prefix_bits, *value));
                assert_eq!(
                    map.find_network(address),
                    expected.copied(),
                    "{address} in {networks:?}"
                );
            }
        }
    }

    #[test]
    fn a_hundred_thousand_networks_cost_eighteen_comparisons() {
        let mut random = Random(7);
        let networks = (0..100_000).map(|_| {
            let address = (random.next() as u32) & !0xff;
            let prefix_bits = 24;
            let network = IpAddr::V4(address.into());
            let network = Cidr {
                network,
                prefix_bits,
            };
            (network, true)
        });
        let map = NetworkMap::new(networks, |one, other| one & other);
        let ranges = map.v4.firsts.len();
        assert!(ranges <= 200_000, "{ranges}");
        assert!(ranges.ilog2() < 18, "{ranges}");
        assert_eq!(size_of::<Option<(u8, bool)>>(), 2);
    }
}
