//! Round robin, weighted smoothly: an endpoint of weight 3 gets three of four turns, spread out, not in a row.

/// Endpoints that an exchange has tried. Few: as many as its attempts.
#[derive(Clone, Default)]
pub struct Tried {
    endpoints: [u32; 7],
    len: u8,
}

impl Tried {
    /// Remembers an endpoint; more than fit are forgotten, which at worst tries one twice.
    pub fn add(&mut self, endpoint: u32) {
        if let Some(place) = self.endpoints.get_mut(self.len as usize) {
            *place = endpoint;
            self.len += 1;
        }
    }

    /// Whether the endpoint was tried.
    #[inline]
    pub(super) fn has(&self, endpoint: u32) -> bool {
        self.endpoints[..self.len as usize].contains(&endpoint)
    }
}

/// Whose turn it is.
pub(super) struct RoundRobin {
    seats: Vec<Seat>,
    /// All weights are equal: the turn simply goes round.
    even: bool,
    next: usize,
}

struct Seat {
    weight: i64,
    credit: i64,
}

impl RoundRobin {
    /// Begins at a place that differs per core, so that the cores of a fresh process do not all ask the same endpoint.
    pub(super) fn new(weights: impl Iterator<Item = u32>, seed: u64) -> Self {
        let seats: Vec<Seat> = weights
            .map(|w| Seat {
                weight: i64::from(w),
                credit: 0,
            })
            .collect();
        let even = seats
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
        let next = if seats.is_empty() {
            0
        } else {
            (seed % seats.len() as u64) as usize
        };
        let mut turn = Self { seats, even, next };
        for _ in 0..if even { 0 } else { next } {
            turn.next(|_| true);
        }
        turn
    }

    /// The next endpoint that `may` have a turn.
    #[inline]
    pub(super) fn next(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        if self.even {
            self.rotate(may)
        } else {
            self.smooth(may)
        }
    }

    fn rotate(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        for _ in 0..self.seats.len() {
            let chosen = self.next;
            self.next = (self.next + 1) % self.seats.len();
            if may(chosen as u32) {
                return Some(chosen as u32);
            }
        }
        None
    }

    /// Each seat earns its weight every turn; the richest is served and pays the sum (as nginx does it).
    fn smooth(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (i, seat) in self.seats.iter_mut().enumerate() {
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
        self.seats[best].credit -= total;
        Some(best as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], n: usize) -> Vec<u32> {
        let mut turn = RoundRobin::new(weights.iter().copied(), 0);
        (0..n).filter_map(|_| turn.next(|_| true)).collect()
    }

    #[test]
    fn weights_are_met_exactly_and_spread_out() {
        assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        let many = turns(&[3, 7], 1000);
        assert_eq!(many.iter().filter(|&&e| e == 0).count(), 300);
        assert_eq!(turns(&[], 3), []);
    }

    #[test]
    fn who_may_not_is_passed_over() {
        for weights in [[1, 1, 1], [5, 1, 2]] {
            let mut turn = RoundRobin::new(weights.into_iter(), 1);
            let mut tried = Tried::default();
            for _ in 0..3 {
                let next = turn.next(|each| !tried.has(each));
                tried.add(next.expect("one is left"));
            }
            assert_eq!(turn.next(|each| !tried.has(each)), None, "all were tried");
            assert!(turn.next(|_| true).is_some());
        }
    }
}
