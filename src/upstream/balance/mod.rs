//! Balancers: which endpoint gets a request. Each is pure and has its own file; one core owns it.
//!
//! A balancer knows the usable endpoints and their weights. It is made again when they change.

mod round_robin;

use super::usable::UsableEndpoint;
use round_robin::RoundRobin;

/// Chooses an endpoint for each attempt.
pub(super) enum Balancer {
    /// In turn, in proportion to the weights.
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// Makes the balancer of a configuration for these endpoints. `seed` differs by core.
    pub(super) fn new(
        _balance: &weir_config::Balance,
        endpoints: &[UsableEndpoint],
        seed: u64,
    ) -> Self {
        Self::RoundRobin(RoundRobin::new(endpoints, seed))
    }

    /// Chooses one of the endpoints that `may` be used.
    #[inline]
    pub(super) fn pick(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::RoundRobin(balancer) => balancer.next(may),
        }
    }
}
