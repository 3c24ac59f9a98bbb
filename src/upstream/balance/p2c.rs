//! `p2c`: of two endpoints drawn at random, the one where one more request costs less.
//!
//! The cost is (requests in flight / weight + 1) x latency. Endpoints are drawn in proportion to their weights, so that
//! weights hold while nothing waits, and then less loaded ones are preferred. All requests never run to one endpoint that
//! looks best for a moment, because each sees another pair (Mitzenmacher, "The Power of Two Choices").

use super::alias_table::AliasTable;
use super::random::DRAWS_MAX;
use super::{Load, Loads};
use crate::upstream::usable::UsableEndpoint;

/// Draws two endpoints and takes the better one.
pub(super) struct P2c {
    endpoints: Vec<Weighted>,
    table: AliasTable,
    rng: fastrand::Rng,
}

#[derive(Clone, Copy)]
struct Weighted {
    index: u32,
    /// In proportion to the mean.
    weight: f32,
}

impl P2c {
    pub(super) fn new(endpoints: &[UsableEndpoint], seed: u64) -> Self {
        let sum: f64 = endpoints.iter().map(|each| each.weight as f64).sum();
        let mean = sum / endpoints.len().max(1) as f64;
        let weighted = endpoints.iter().map(|each| Weighted {
            index: each.index,
            weight: (each.weight as f64 / mean.max(1.0)) as f32,
        });
        Self {
            table: AliasTable::new(endpoints.iter().map(|each| each.weight)),
            endpoints: weighted.collect(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    #[inline]
    pub(super) fn pick(&mut self, loads: &impl Loads) -> Option<u32> {
        let mut first: Option<(usize, Weighted)> = None;
        let mut at = 0;
        for _ in 0..DRAWS_MAX {
            at = self.table.draw(&mut self.rng)?;
            if first.is_some_and(|(other, _)| other == at) {
                continue;
            }
            let drawn = *self.endpoints.get(at)?;
            if !loads.may_use(drawn.index) {
                continue;
            }
            match first {
                Some((_, other)) => return Some(better(other, drawn, loads)),
                None => first = Some((at, drawn)),
            }
        }
        // Few may be used, or one has nearly all the weight: the other is the next one.
        let (before, after) = self.endpoints.split_at_checked(at)?;
        let not = first.map(|(_, drawn)| drawn.index);
        let mut in_turn = after.iter().chain(before);
        let next = in_turn.find(|each| Some(each.index) != not && loads.may_use(each.index));
        match (first, next) {
            (Some((_, one)), Some(&other)) => Some(better(one, other, loads)),
            (one, other) => one
                .map(|(_, one)| one.index)
                .or_else(|| other.map(|each| each.index)),
        }
    }
}

/// The one of two endpoints where one more request costs less; the first if it costs the same.
#[inline]
fn better(one: Weighted, other: Weighted, loads: &impl Loads) -> u32 {
    let cost = |each: Weighted| Load::cost(loads.load(each.index), each.weight);
    if cost(other) < cost(one) {
        other.index
    } else {
        one.index
    }
}
