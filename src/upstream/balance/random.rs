//! `random`: draws an endpoint in proportion to the weights.

use super::alias_table::AliasTable;
use crate::upstream::usable::UsableEndpoint;

/// How often a balancer draws until it looks at one endpoint after the other.
pub(super) const DRAWS_MAX: usize = 8;

/// Draws endpoints.
pub(super) struct Random {
    endpoints: Vec<u32>,
    table: AliasTable,
    rng: fastrand::Rng,
}

impl Random {
    pub(super) fn new(endpoints: &[UsableEndpoint], seed: u64) -> Self {
        Self {
            table: AliasTable::new(endpoints.iter().map(|each| each.weight)),
            endpoints: endpoints.iter().map(|each| each.index).collect(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    #[inline]
    pub(super) fn pick(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = 0;
        for _ in 0..DRAWS_MAX {
            at = self.table.draw(&mut self.rng)?;
            let index = *self.endpoints.get(at)?;
            if may(index) {
                return Some(index);
            }
        }
        // Few may be used: take the next one.
        let (before, after) = self.endpoints.split_at_checked(at)?;
        let mut in_turn = after.iter().chain(before).copied();
        in_turn.find(|&index| may(index))
    }
}
