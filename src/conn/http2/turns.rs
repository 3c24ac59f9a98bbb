//! The order in which streams send.

use std::collections::VecDeque;

use weir_proto_h2::Priority;

use crate::limits::H2_FAIR_TURN;

/// The queue of streams that have something to frame, by slot.
//= rfc9218#10
// Urgent streams send first. Among streams of one urgency, those that are only useful as a whole send one after the
// other in the order of their requests; incremental ones alternate. Every `H2_FAIR_TURN`th turn goes to another
// stream, so none starves.
#[derive(Default)]
pub(super) struct Turns {
    order: VecDeque<(Turn, u32)>,
    /// How many turns were given to incremental streams, and how many turns were taken.
    given: u64,
    taken: usize,
}

/// A stream's position in the order. No two streams have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    urgency: u8,
    is_incremental: bool,
    /// The stream's number; for an incremental stream, a counter that puts it behind the others.
    number: u64,
}

impl Turns {
    /// Adds a stream that is not in the queue.
    pub(super) fn add(&mut self, slot: u32, id: u32, priority: Priority) -> Turn {
        self.given += 1;
        let turn = Turn {
            urgency: priority.urgency,
            is_incremental: priority.is_incremental,
            number: match priority.is_incremental {
                true => self.given,
                false => u64::from(id),
            },
        };
        let at = self.order.partition_point(|&(other, _)| other < turn);
        self.order.insert(at, (turn, slot));
        turn
    }

    pub(super) fn remove(&mut self, turn: Turn) {
        if let Ok(at) = self.order.binary_search_by_key(&turn, |entry| entry.0) {
            self.order.remove(at);
        }
    }

    /// Takes out the next stream.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.taken = self.taken.wrapping_add(1);
        if !self.taken.is_multiple_of(H2_FAIR_TURN) || self.order.len() <= 1 {
            return self.order.pop_front().map(|(_, slot)| slot);
        }
        let others = self.order.len() - 1;
        self.order
            .remove(1 + self.taken / H2_FAIR_TURN % others)
            .map(|(_, slot)| slot)
    }

    /// All slots in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|&(_, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(streams: &[(u32, u8, bool)]) -> Turns {
        let mut turns = Turns::default();
        for &(id, urgency, is_incremental) in streams {
            turns.add(id, id, priority(urgency, is_incremental));
        }
        turns
    }

    fn priority(urgency: u8, is_incremental: bool) -> Priority {
        Priority {
            urgency,
            is_incremental,
        }
    }

    #[test]
    fn whole_answers_go_in_order_and_incremental_ones_alternate() {
        let mut turns = turns(&[
            (7, 3, true),
            (5, 3, false),
            (1, 3, true),
            (3, 3, false),
            (9, 0, true),
        ]);
        let order: Vec<_> = turns.slots().collect();
        assert_eq!(order, [9, 3, 5, 7, 1]);
        // A whole answer that has more to send keeps its turn; an incremental one goes behind its peers.
        for expected in [9, 3, 3, 5, 7, 1, 7] {
            assert_eq!(turns.take(), Some(expected));
            match expected {
                7 | 1 => drop(turns.add(expected, expected, priority(3, true))),
                3 if turns.taken == 2 => drop(turns.add(3, 3, priority(3, false))),
                _ => {}
            }
        }
    }

    #[test]
    fn no_stream_starves() {
        let streams: Vec<_> = (1..8).map(|id| (id, id as u8 % 8, false)).collect();
        let mut turns = turns(&streams);
        let mut had = [false; 8];
        for _ in 0..H2_FAIR_TURN * 8 {
            let slot = turns.take().unwrap();
            had[slot as usize] = true;
            turns.add(slot, slot, priority(slot as u8 % 8, false));
        }
        assert_eq!(had[1..], [true; 7]);
    }

    #[test]
    fn a_removed_stream_gets_no_turn() {
        let mut turns = turns(&[(1, 3, false), (5, 3, false)]);
        let turn = turns.add(3, 3, priority(3, false));
        turns.remove(turn);
        let order: Vec<_> = turns.slots().collect();
        assert_eq!(order, [1, 5]);
    }
}
