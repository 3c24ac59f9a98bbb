//! Balancers: which endpoint gets a request. Each is pure and has its own file; one core owns it.
//!
//! A balancer holds the usable endpoints and their weights; an upstream makes a new one when they change. The balancer asks
//! the upstream for loads, and whether an endpoint may be used: it has room, and the exchange has not tried it. A pick never
//! allocates.
//! `round_robin` takes O(log n), `p2c`, `random` and `hash` O(1) while most endpoints have room; the others look at all
//! endpoints.

mod alias_table;
mod first;
mod least;
mod maglev;
mod p2c;
mod random;
mod round_robin;
mod stable_hash;
#[cfg(test)]
mod tests;

use weir_config::Balance;

use super::usable::UsableEndpoint;
use first::First;
use least::{Least, Measure};
use maglev::Maglev;
use p2c::P2c;
use random::Random;
use round_robin::RoundRobin;
pub(super) use stable_hash::mix;
pub use stable_hash::{StableHash, hash_of_address, stable_hash};

/// The load of an endpoint as a core sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that it has, on all cores.
    pub in_flight: u32,
    /// How long it takes to begin an answer, in microseconds: a moving average that rises at once and falls slowly. 0:
    /// not known yet.
    pub latency_us: f32,
}

/// The latency, in microseconds, that an endpoint without an answer so far counts as, for each request that it has.
const UNKNOWN_LATENCY_US: f32 = 1_000_000.0;

impl Load {
    /// What one more request costs here. An endpoint without any request whose latency is not known costs nothing, so it
    /// is tried; while its first answers are awaited, it counts as slow.
    #[inline]
    fn cost(self, weight: f32) -> f32 {
        let waiting = self.in_flight as f32 / weight;
        if self.latency_us > 0.0 {
            (waiting + 1.0) * self.latency_us
        } else {
            waiting * UNKNOWN_LATENCY_US
        }
    }
}

/// What a balancer asks an upstream.
pub trait Loads {
    /// Whether the endpoint of this number may be used.
    fn may_use(&self, index: u32) -> bool;

    /// Its load.
    fn load(&self, index: u32) -> Load;

    /// How many requests all endpoints together have, on all cores.
    fn in_flight(&self) -> u32;
}

/// Chooses an endpoint for each attempt.
pub struct Balancer(Kind);

enum Kind {
    P2c(P2c),
    RoundRobin(RoundRobin),
    Least(Least),
    Random(Random),
    Hash(Maglev),
    First(First),
}

impl Balancer {
    /// Makes the balancer of a configuration for these endpoints. `seed` differs by core.
    #[must_use]
    pub fn new(balance: &Balance, endpoints: &[UsableEndpoint], seed: u64) -> Self {
        Self(match balance {
            // With one endpoint there is no choice.
            _ if endpoints.len() == 1 => Kind::First(First::new(endpoints)),
            Balance::P2c => Kind::P2c(P2c::new(endpoints, seed)),
            Balance::RoundRobin => Kind::RoundRobin(RoundRobin::new(endpoints, seed)),
            Balance::LeastConn => Kind::Least(Least::new(endpoints, Measure::Requests, seed)),
            Balance::LeastTime => Kind::Least(Least::new(endpoints, Measure::Time, seed)),
            Balance::Random => Kind::Random(Random::new(endpoints, seed)),
            Balance::IpHash | Balance::Hash(_) => Kind::Hash(Maglev::new(endpoints, seed)),
            Balance::First => Kind::First(First::new(endpoints)),
        })
    }

    /// Chooses an endpoint that may be used. `None`: none may. `key` is the hash of the request's key, if it has one.
    #[inline]
    pub fn pick(&mut self, key: Option<u64>, loads: &impl Loads) -> Option<u32> {
        match &mut self.0 {
            Kind::P2c(balancer) => balancer.pick(loads),
            Kind::RoundRobin(balancer) => balancer.pick(|index| loads.may_use(index)),
            Kind::Least(balancer) => balancer.pick(loads),
            Kind::Random(balancer) => balancer.pick(|index| loads.may_use(index)),
            Kind::Hash(balancer) => balancer.pick(key, loads),
            Kind::First(balancer) => balancer.pick(|index| loads.may_use(index)),
        }
    }
}
