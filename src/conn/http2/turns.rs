//! Whose turn it is among the streams of a connection that have something to frame.

use std::collections::VecDeque;

use weir_proto_h2::Priority;

use crate::limits::H2_FAIR_TURN;

/// StreamTable in the order of their turns, by slot.
//= rfc9218#10
// By urgency. Of one urgency, answers that are of use only as a whole come first, one after the other in the order in
// which they were asked for; those of use in parts take turns. Now and then another has its turn, each of them some
// time, so that every answer comes to its end.
#[derive(Default)]
pub(super) struct Turns {
    order: VecDeque<(Turn, u32)>,
    /// Turns that were given to those who share, and turns that were taken.
    given: u64,
    taken: usize,
}

/// A stream's place in the order. No two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    urgency: u8,
    shares: bool,
    /// The number of the stream, or when it was added if it shares.
    number: u64,
}

impl Turns {
    /// Adds a stream, by its slot and number, that is not there.
    pub(super) fn add(&mut self, slot: u32, id: u32, priority: Priority) -> Turn {
        self.given += 1;
        let turn = Turn {
            urgency: priority.urgency,
            shares: priority.is_incremental,
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

    /// Takes out the stream whose turn it is.
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

    /// The slots of all, in their order.
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
    fn whole_answers_in_the_order_of_requests_and_others_in_turns() {
        let mut turns = turns(&[
            (7, 3, true),
            (5, 3, false),
            (1, 3, true),
            (3, 3, false),
            (9, 0, true),
        ]);
        let order: Vec<_> = turns.slots().collect();
        assert_eq!(order, [9, 3, 5, 7, 1]);
        // Who has had a piece framed and has more goes behind those that share with it, or goes on.
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
    fn everyone_has_a_turn_some_time() {
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
    fn who_leaves_has_no_turn() {
        let mut turns = turns(&[(1, 3, false), (5, 3, false)]);
        let turn = turns.add(3, 3, priority(3, false));
        turns.remove(turn);
        let order: Vec<_> = turns.slots().collect();
        assert_eq!(order, [1, 5]);
    }
}
