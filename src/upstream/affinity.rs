//! Chooses an endpoint by a key alone, so that every core, and Weir after a restart, chooses the same.

use std::rc::Rc;

use super::balance::mix;
use super::{Endpoint, Upstream};
use crate::io::Net;

impl<N: Net> Upstream<N> {
    /// The usable endpoint of a key, in proportion to the weights (weighted rendezvous hashing). When an endpoint comes
    /// or goes, only the keys of that endpoint move. Costs a few nanoseconds for each usable endpoint.
    pub fn pick_for_key(&self, key: u64) -> Option<(u32, &Rc<Endpoint<N>>)> {
        self.pick_for_key_among(key, |_, _| true)
    }

    /// The same among those endpoints that may be used now.
    pub(super) fn pick_for_key_among(
        &self,
        key: u64,
        may_use: impl Fn(u32, &Endpoint<N>) -> bool,
    ) -> Option<(u32, &Rc<Endpoint<N>>)> {
        let usable = self.usable.borrow();
        let scored = usable.endpoints.iter().filter_map(|each| {
            let endpoint = self.endpoints.get(each.index as usize)?;
            let takes = endpoint.slot.takes_requests.get() && may_use(each.index, endpoint);
            takes.then(|| (score(key, each.hash, each.weight), each.index, endpoint))
        });
        let best = scored.max_by(|(a, ..), (b, ..)| a.total_cmp(b));
        best.map(|(_, index, endpoint)| (index, endpoint))
    }
}

/// The score of an endpoint, whose name has this hash, for a key: -w / ln(u) with u uniform in (0, 1). Each endpoint then
/// has the highest score in proportion to its weight w.
fn score(key: u64, name: u64, weight: u64) -> f64 {
    let mixed = mix(mix(key) ^ name);
    let uniform = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -(weight as f64) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::stable_hash;

    fn pick(key: u64, endpoints: &[(&str, u64)]) -> usize {
        let scores = endpoints
            .iter()
            .map(|(name, weight)| score(key, stable_hash(name.as_bytes()), *weight));
        let best = scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map_or(0, |(at, _)| at)
    }

    #[test]
    fn weights_hold_and_only_keys_of_a_lost_endpoint_move() {
        let all = [
            ("10.0.0.1:53", 1_000),
            ("10.0.0.2:53", 3_000),
            ("10.0.0.3:53", 1_000),
        ];
        let mut counts = [0; 3];
        for key in 0..100_000 {
            let chosen = pick(key, &all);
            counts[chosen] += 1;
            let without = pick(key, &all[..2]);
            assert!(chosen == 2 || chosen == without, "key {key} moved");
        }
        for (count, share) in counts.into_iter().zip([20_000, 60_000, 20_000]) {
            assert!(i32::abs(count - share) < 1_000, "{counts:?}");
        }
    }
}
