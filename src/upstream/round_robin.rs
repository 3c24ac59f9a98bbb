//! Round robin, weighted smoothly: an endpoint of weight 3 gets three of four turns, spread out, not in a row.

/// Endpoints that an exchange has tried. Few: as many as its attempts.
#[derive(Clone, Default)]
pub struct TriedEndpoints {
    endpoints: [u32; 7],
    len: u8,
}

impl TriedEndpoints {
    /// Remembers an endpoint; more than fit are forgotten, which at worst tries one twice.
    pub fn add(&mut self, endpoint: u32) {
        if let Some(free) = self.endpoints.get_mut(self.len as usize) {
            *free = endpoint;
            self.len += 1;
        }
    }

    /// Whether the endpoint was tried.
    #[inline]
    pub(super) fn has(&self, endpoint: u32) -> bool {
        self.endpoints
            .iter()
            .take(self.len as usize)
            .any(|&tried| tried == endpoint)
    }
}

/// Whose robin it is.
pub(super) struct RoundRobin {
    endpoints: Vec<WeightedEndpoint>,
    /// All weights are equal: the robin simply goes round.
    even: bool,
    next: usize,
}

struct WeightedEndpoint {
    weight: i64,
    credit: i64,
}

impl RoundRobin {
    /// Begins at a place that differs per core, so that the cores of a fresh process do not all ask the same endpoint.
    pub(super) fn new(weights: impl Iterator<Item = u32>, seed: u64) -> Self {
        let endpoints: Vec<WeightedEndpoint> = weights
            .map(|w| WeightedEndpoint {
                weight: i64::from(w),
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
        let mut robin = Self {
            endpoints,
            even,
            next,
        };
        for _ in 0..if even { 0 } else { next } {
            robin.next(|_| true);
        }
        robin
    }

    /// The next endpoint that `may` have a robin.
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
            let chosen = self.next;
            self.next = (self.next + 1) % self.endpoints.len();
            if may(chosen as u32) {
                return Some(chosen as u32);
            }
        }
        None
    }

    /// Each seat earns its weight every robin; the richest is served and pays the sum (as nginx does it).
    fn smooth(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (i, seat) in self.endpoints.iter_mut().enumerate() {
            if !may(i as u32) {
                continue;
            }
            seat.credit += seat.weight;
            total += seat.weight;
            if best.is_none_or(|(_, credit)| seat.credit > credit) {
                best = Some((i, seat.credit));
            }
        }
        let (best, _) = best?;
        self.endpoints.get_mut(best)?.credit -= total;
        Some(best as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(weights: &[u32], n: usize) -> Vec<u32> {
        let mut robin = RoundRobin::new(weights.iter().copied(), 0);
        (0..n).filter_map(|_| robin.next(|_| true)).collect()
    }

    #[test]
    fn weights_are_met_exactly_and_spread_out() {
        assert_eq!(choices(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(choices(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        let many = choices(&[3, 7], 1000);
        assert_eq!(many.iter().filter(|&&e| e == 0).count(), 300);
        assert_eq!(choices(&[], 3), []);
    }

    #[test]
    fn who_may_not_is_passed_over() {
        for weights in [[1, 1, 1], [5, 1, 2]] {
            let mut robin = RoundRobin::new(weights.into_iter(), 1);
            let mut tried = TriedEndpoints::default();
            for _ in 0..3 {
                let next = robin.next(|each| !tried.has(each));
                tried.add(next.expect("one is left"));
            }
            assert_eq!(robin.next(|each| !tried.has(each)), None, "all were tried");
            assert!(robin.next(|_| true).is_some());
        }
    }
}
