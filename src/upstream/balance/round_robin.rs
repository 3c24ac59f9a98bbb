//! `round_robin`: endpoints take turns in proportion to their weights, spread out rather than in a row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::upstream::usable::UsableEndpoint;

/// Chooses the next endpoint.
pub(super) enum RoundRobin {
    /// All weights are equal, so endpoints simply take turns.
    Even { endpoints: Vec<u32>, next: usize },
    /// The endpoint whose turn is due first is chosen, and is due again after a time that its weight gives (earliest
    /// deadline first, as in Envoy): O(log n), where nginx looks at every endpoint.
    Weighted {
        turns: BinaryHeap<Reverse<Turn>>,
        skipped: Vec<Reverse<Turn>>,
    },
}

/// When an endpoint is due next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    due: u64,
    index: u32,
    /// The time between two turns, in units of which the heaviest endpoint has [`UNIT`].
    period: u64,
}

const UNIT: u64 = 1 << 16;

impl RoundRobin {
    /// Starts at a position that depends on the core, so that the cores of a fresh process do not all choose the same
    /// endpoint.
    pub(super) fn new(endpoints: &[UsableEndpoint], seed: u64) -> Self {
        let start = (seed % endpoints.len().max(1) as u64) as usize;
        let first = endpoints.first().map(|each| each.weight);
        if endpoints.iter().all(|each| Some(each.weight) == first) {
            return Self::Even {
                endpoints: endpoints.iter().map(|each| each.index).collect(),
                next: start,
            };
        }
        let heaviest = endpoints.iter().map(|each| each.weight).max().unwrap_or(1);
        let turns = endpoints.iter().enumerate().map(|(at, each)| {
            let period = u128::from(heaviest) * u128::from(UNIT) / u128::from(each.weight.max(1));
            let period = u64::try_from(period).unwrap_or(u64::MAX / 4);
            // Multiples of the golden ratio keep the first turns of equal weights apart.
            let offset = (0.5 + at as f64 * 0.618_033_988_749_895).fract();
            Reverse(Turn {
                due: (period as f64 * offset) as u64,
                index: each.index,
                period,
            })
        });
        let mut balancer = Self::Weighted {
            turns: turns.collect(),
            skipped: Vec::with_capacity(endpoints.len()),
        };
        for _ in 0..start {
            balancer.pick(|_| true);
        }
        balancer
    }

    /// Chooses the next endpoint that `may` be used. Those that may not lose their turn.
    #[inline]
    pub(super) fn pick(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Self::Even { endpoints, next } => {
                for _ in 0..endpoints.len() {
                    let index = *endpoints.get(*next)?;
                    *next = (*next + 1) % endpoints.len();
                    if may(index) {
                        return Some(index);
                    }
                }
                None
            }
            Self::Weighted { turns, skipped } => {
                let mut found = None;
                while let Some(Reverse(mut turn)) = turns.pop() {
                    turn.due = turn.due.saturating_add(turn.period);
                    skipped.push(Reverse(turn));
                    if may(turn.index) {
                        found = Some(turn.index);
                        break;
                    }
                }
                turns.extend(skipped.drain(..));
                found
            }
        }
    }
}
