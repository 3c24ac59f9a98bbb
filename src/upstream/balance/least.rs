//! `least_conn` and `least_time`: the best of all endpoints.

use super::{Load, Loads};
use crate::upstream::usable::UsableEndpoint;

/// The measure by which endpoints are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Requests in flight in proportion to the weight.
    Requests,
    /// The expected time of one more request.
    Time,
}

/// Chooses the endpoint that is best by a measure. Equal ones take turns.
pub(super) struct Least {
    endpoints: Vec<(u32, f32)>,
    measure: Measure,
    /// Where the next search begins.
    next: usize,
}

impl Least {
    pub(super) fn new(endpoints: &[UsableEndpoint], measure: Measure, seed: u64) -> Self {
        let count = endpoints.len().max(1);
        let sum: f64 = endpoints.iter().map(|each| each.weight as f64).sum();
        let mean = (sum / count as f64).max(1.0);
        let weighted = |each: &UsableEndpoint| (each.index, (each.weight as f64 / mean) as f32);
        Self {
            endpoints: endpoints.iter().map(weighted).collect(),
            measure,
            next: (seed % count as u64) as usize,
        }
    }

    pub(super) fn pick(&mut self, loads: &impl Loads) -> Option<u32> {
        let (before, after) = self.endpoints.split_at_checked(self.next)?;
        let in_turn = after.iter().chain(before).zip(0..);
        let mut best: Option<(f32, u32, usize)> = None;
        for (&(index, weight), step) in in_turn {
            let cost = self.cost(loads.load(index), weight);
            if best.is_none_or(|(least, ..)| cost < least) && loads.may_use(index) {
                best = Some((cost, index, step));
            }
        }
        let (_, index, step) = best?;
        self.next = (self.next + step + 1) % self.endpoints.len();
        Some(index)
    }

    fn cost(&self, load: Load, weight: f32) -> f32 {
        match self.measure {
            // With the request itself, so that a larger weight comes first while all are idle.
            Measure::Requests => (load.in_flight as f32 + 1.0) / weight,
            Measure::Time => load.cost(weight),
        }
    }
}
