//! Smooth weighted round robin: an endpoint of weight 3 gets three of four requests, spread out rather than in a row.

use crate::upstream::usable::UsableEndpoint;

/// Chooses the next endpoint.
pub(in crate::upstream) struct RoundRobin {
    endpoints: Vec<WeightedEndpoint>,
    /// All weights are equal, so endpoints simply take turns.
    even: bool,
    next: usize,
}

struct WeightedEndpoint {
    index: u32,
    weight: i64,
    credit: i64,
}

impl RoundRobin {
    /// Starts at a position that depends on the core, so that the cores of a fresh process do not all choose the same
    /// endpoint.
    pub(super) fn new(endpoints: &[UsableEndpoint], seed: u64) -> Self {
        let endpoints: Vec<WeightedEndpoint> = endpoints
            .iter()
            .map(|each| WeightedEndpoint {
                index: each.index,
                weight: each.weight as i64,
                credit: 0,
            })
            .collect();
        let first = endpoints.first().map(|endpoint| endpoint.weight);
        let even = endpoints
            .iter()
            .all(|endpoint| Some(endpoint.weight) == first);
        let next = if endpoints.is_empty() {
            0
        } else {
            (seed % endpoints.len() as u64) as usize
        };
        let mut balancer = Self {
            endpoints,
            even,
            next,
        };
        for _ in 0..if even { 0 } else { next } {
            balancer.next(|_| true);
        }
        balancer
    }

    /// Chooses the next endpoint that `may` be used.
    #[inline]
    pub(super) fn next(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        if self.even {
            self.rotate(may)
        } else {
            self.smooth(may)
        }
    }

    fn rotate(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        for _ in 0..self.endpoints.len() {
            let chosen = self.endpoints.get(self.next)?.index;
            self.next = (self.next + 1) % self.endpoints.len();
            if may(chosen) {
                return Some(chosen);
            }
        }
        None
    }

    /// In each round every usable endpoint earns its weight as credit. The endpoint with the most credit is chosen, and
    /// pays the sum of the weights. nginx does the same.
    fn smooth(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (i, endpoint) in self.endpoints.iter_mut().enumerate() {
            if !may(endpoint.index) {
                continue;
            }
            endpoint.credit += endpoint.weight;
            total += endpoint.weight;
            if best.is_none_or(|(_, credit)| endpoint.credit > credit) {
                best = Some((i, endpoint.credit));
            }
        }
        let (best, _) = best?;
        let best = self.endpoints.get_mut(best)?;
        best.credit -= total;
        Some(best.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::TriedEndpoints;

    fn balancer(weights: &[u64], seed: u64) -> RoundRobin {
        let endpoints: Vec<_> = weights
            .iter()
            .zip(0..)
            .map(|(&weight, index)| UsableEndpoint { index, weight })
            .collect();
        RoundRobin::new(&endpoints, seed)
    }

    fn choices(weights: &[u64], n: usize) -> Vec<u32> {
        let mut balancer = balancer(weights, 0);
        (0..n).filter_map(|_| balancer.next(|_| true)).collect()
    }

    #[test]
    fn weights_are_met_exactly_and_spread_out() {
        assert_eq!(choices(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(choices(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        let many = choices(&[3, 7], 1000);
        assert_eq!(many.iter().filter(|&&e| e == 0).count(), 300);
        assert!(choices(&[], 3).is_empty());
    }

    #[test]
    fn endpoints_that_may_not_be_used_are_skipped() {
        for weights in [[1, 1, 1], [5, 1, 2]] {
            let mut balancer = balancer(&weights, 1);
            let mut tried = TriedEndpoints::default();
            for _ in 0..3 {
                let next = balancer.next(|each| !tried.has(each));
                tried.add(next.expect("one is left"));
            }
            assert_eq!(
                balancer.next(|each| !tried.has(each)),
                None,
                "all were tried"
            );
            assert!(balancer.next(|_| true).is_some());
        }
    }
}
