//! Timers by the time at which the core looks at them next.

use crate::io::Instant;
use crate::limits::TABLE_PLACES;

/// The place of a timer that is not queued.
const NOT_QUEUED: u32 = u32::MAX;

/// A binary heap of timers, the earliest first. Each timer has one entry at most, which moves when its time changes.
/// So the queue is never longer than the table of timers, however often they are set.
pub(super) struct DeadlineQueue {
    heap: Vec<(Instant, u32)>,
    /// By timer, where the heap has its entry.
    places: Vec<u32>,
}

impl Default for DeadlineQueue {
    fn default() -> Self {
        Self {
            heap: Vec::with_capacity(TABLE_PLACES),
            places: Vec::with_capacity(TABLE_PLACES),
        }
    }
}

impl DeadlineQueue {
    /// Makes room for the timer with the next number.
    pub(super) fn add_timer(&mut self) {
        self.places.push(NOT_QUEUED);
    }

    /// The earliest entry.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// Queues a timer for `at`, unless the queue has it for an earlier time.
    #[inline]
    pub(super) fn queue_by(&mut self, timer: u32, at: Instant) {
        let place = self.places[timer as usize] as usize;
        if self.heap.get(place).is_none_or(|entry| entry.0 > at) {
            self.hasten(timer, place, at);
        }
    }

    fn hasten(&mut self, timer: u32, place: usize, at: Instant) {
        match self.heap.get_mut(place) {
            Some(entry) => {
                entry.0 = at;
                self.lift(place);
            }
            None => {
                self.heap.push((at, timer));
                self.lift(self.heap.len() - 1);
            }
        }
    }

    /// Moves the earliest entry to the later time `at`.
    pub(super) fn postpone_first(&mut self, at: Instant) {
        if let Some(first) = self.heap.first_mut() {
            first.0 = at;
            self.sink(0);
        }
    }

    /// Removes the earliest entry.
    pub(super) fn remove_first(&mut self) {
        let Some(&(_, timer)) = self.heap.first() else {
            return;
        };
        self.places[timer as usize] = NOT_QUEUED;
        self.heap.swap_remove(0);
        self.sink(0);
    }

    /// Moves the entry at `place` forward to where it belongs.
    fn lift(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    /// Moves the entry at `place`, if there is one, back to where it belongs.
    fn sink(&mut self, mut place: usize) {
        let Some(&entry) = self.heap.get(place) else {
            return;
        };
        loop {
            let children = self.heap.get(2 * place + 1..).unwrap_or_default();
            let earlier = match children {
                [left, right, ..] if right.0 < left.0 => 2 * place + 2,
                [_, ..] => 2 * place + 1,
                [] => break,
            };
            if self.heap[earlier].0 >= entry.0 {
                break;
            }
            self.put(place, self.heap[earlier]);
            place = earlier;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Instant, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_queue_agrees_with_an_ordered_set() {
        let (mut queue, mut model) = (DeadlineQueue::default(), BTreeSet::new());
        let mut random = fastrand::Rng::with_seed(1);
        let mut times = [None; 50];
        times.iter().for_each(|_| queue.add_timer());
        for _ in 0..20_000 {
            let (timer, at) = (random.u32(..50), Instant(random.u64(..1000)));
            match random.u8(..4) {
                0 | 1 => {
                    queue.queue_by(timer, at);
                    let time = &mut times[timer as usize];
                    if time.is_none_or(|time| at < time) {
                        model.remove(&(time.unwrap_or(at), timer));
                        model.insert((at, timer));
                        *time = Some(at);
                    }
                }
                step => {
                    let Some((first, timer)) = queue.first() else {
                        continue;
                    };
                    assert!(model.remove(&(first, timer)));
                    times[timer as usize] = None;
                    if step == 2 {
                        queue.remove_first();
                    } else {
                        let later = first.max(at);
                        queue.postpone_first(later);
                        model.insert((later, timer));
                        times[timer as usize] = Some(later);
                    }
                }
            }
            let first = model.first().map(|&(first, _)| first);
            assert_eq!(queue.first().map(|(first, _)| first), first);
            assert_eq!(queue.heap.len(), model.len());
        }
    }
}
