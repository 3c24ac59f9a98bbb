//! How many connections each client address holds, over all cores.
//!
//! The table has two rows of counters with different hashes, and the count of an address is the smaller of its two
//! counters. So memory is bounded whatever addresses connect, and no core takes a lock. If two addresses share a
//! counter in both rows, their counts are too high, never too low.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::shared::{AtomicU32, Ordering};

/// Counters a row: 64 KiB of memory.
const ROW: usize = 1 << 14;

/// The counters of one client: their indexes in both rows. It is what a connection keeps, because it is smaller than an
/// address.
#[derive(Clone, Copy)]
pub struct ClientCounters([u16; 2]);

/// The connections of one listener by client address.
pub struct Clients {
    rows: [Box<[AtomicU32]>; 2],
    hash: RandomState,
}

impl Default for Clients {
    fn default() -> Self {
        let row = || (0..ROW).map(|_| AtomicU32::new(0)).collect();
        Self {
            rows: [row(), row()],
            hash: RandomState::new(),
        }
    }
}

impl Clients {
    /// Counts a connection of `client` in. `None`: it has `max` already.
    pub fn enter(&self, client: IpAddr, max: u32) -> Option<ClientCounters> {
        let hash = self.hash.hash_one(network(client));
        let index = |hash: u64| (hash as usize % ROW) as u16;
        let counters = ClientCounters([index(hash), index(hash >> 32)]);
        let counts = self
            .cells(counters)
            .map(|cell| cell.fetch_add(1, Ordering::Relaxed));
        if counts.iter().all(|&count| count >= max) {
            self.leave(counters);
            return None;
        }
        Some(counters)
    }

    /// Counts a connection out that [`Clients::enter`] has counted in.
    pub fn leave(&self, counters: ClientCounters) {
        for cell in self.cells(counters) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn cells(&self, ClientCounters([a, b]): ClientCounters) -> [&AtomicU32; 2] {
        [&self.rows[0][a as usize], &self.rows[1][b as usize]]
    }
}

/// What a limit counts as one client: an IPv4 address, or a /64 of IPv6, within which a client can choose its address.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_at_most_its_limit_and_other_clients_do_not_count() {
        let clients = Clients::default();
        let one: IpAddr = "192.0.2.1".parse().expect("an address");
        let same: IpAddr = "::ffff:192.0.2.1".parse().expect("an address");
        let first = clients.enter(one, 2).expect("room");
        assert!(clients.enter(same, 2).is_some());
        assert!(clients.enter(one, 2).is_none());
        clients.leave(first);
        assert!(clients.enter(one, 2).is_some());
        // Hashes differ from run to run, so a few of them may share both counters with others.
        let mut met = 0;
        for i in 0..1000_u32 {
            let other = IpAddr::V4((0x0a00_0000 + i).into());
            met += u32::from(clients.enter(other, 1).is_none());
        }
        assert!(met < 10, "{met} of 1000 other clients were refused");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let clients = Clients::default();
        let enter = |client: &str| clients.enter(client.parse().expect("an address"), 1);
        assert!(enter("2001:db8::1").is_some());
        assert!(enter("2001:db8::2").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
    }
}
