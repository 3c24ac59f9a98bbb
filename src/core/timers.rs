//! Deadlines as data: one sleeping task of a core serves the timers of all its connections and requests.
//!
//! Each task owns one [`Timer`] and moves its deadline with a plain store, several times a request. The queue changes
//! only when the new deadline is earlier than the queued one. When a queued time comes before its timer's deadline, the
//! queue takes the deadline instead. A timer that is dropped leaves its entry to the next timer with its number. Firing
//! early or late does no harm, because the task compares its deadline with the clock.
//!
//! When memory is short, tasks report at their timers how many bytes they hold, and the core asks those that hold most
//! to end.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::deadline_queue::DeadlineQueue;
use crate::io::Instant;
use crate::limits::TABLE_PLACES;

/// All timers of a core.
#[derive(Default)]
pub struct Timers {
    entries: RefCell<Entries>,
}

struct Entries {
    slots: Vec<Slot>,
    free: Vec<u32>,
    queue: DeadlineQueue,
    live: usize,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            slots: Vec::with_capacity(TABLE_PLACES),
            free: Vec::new(),
            queue: DeadlineQueue::default(),
            live: 0,
        }
    }
}

/// One timer.
struct Slot {
    waker: Option<Waker>,
    deadline: Instant,
    /// Tells the owner of the slot from earlier owners that parts still name.
    generation: u32,
    /// Bytes that the owner holds, as it last reported, up to 4 GiB.
    held: u32,
    /// The slot, and its generation, that pays for the bytes: this one, if the owner is not a part of another.
    payer: (u32, u32),
    is_live: bool,
    /// The deadline has passed, and its owner was woken.
    has_fired: bool,
    /// The core asks the owner to end, and the owner has not read the request yet.
    must_shed: bool,
    /// The core has asked the owner to end, so its bytes will soon be free.
    is_leaving: bool,
}

// Each connection has one: see "Idle connections by owner" in src/ARCHITECTURE.md.
const _: () = assert!(size_of::<Slot>() <= 48);

impl Slot {
    fn new(key: u32, generation: u32) -> Self {
        Self {
            waker: None,
            deadline: Instant::NEVER,
            generation,
            held: 0,
            payer: (key, generation),
            is_live: true,
            has_fired: false,
            must_shed: false,
            is_leaving: false,
        }
    }
}

impl Entries {
    /// The slots that pay for bytes, and for how many.
    fn holders(&self) -> Vec<(usize, usize)> {
        let mut held = vec![0; self.slots.len()];
        for (key, slot) in (self.slots.iter().enumerate()).filter(|(_, slot)| slot.is_live) {
            let (payer, generation) = slot.payer;
            let whole = &self.slots[payer as usize];
            let is_there = whole.is_live && whole.generation == generation;
            held[if is_there { payer as usize } else { key }] += slot.held as usize;
        }
        let holders = held.into_iter().zip(0..);
        holders.filter(|&(held, _)| held > 0).collect()
    }
}

impl Timers {
    /// Registers a timer without a deadline.
    pub fn timer(self: &Rc<Self>) -> Timer {
        let mut entries = self.entries.borrow_mut();
        entries.live += 1;
        let key = match entries.free.pop() {
            Some(key) => {
                let slot = &mut entries.slots[key as usize];
                *slot = Slot::new(key, slot.generation);
                key
            }
            None => {
                let key = entries.slots.len() as u32;
                entries.slots.push(Slot::new(key, 0));
                entries.queue.add_timer();
                key
            }
        };
        Timer {
            timers: self.clone(),
            key,
        }
    }

    /// Wakes the owner of every timer, after a change that concerns all of them.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .entries
            .borrow()
            .slots
            .iter()
            .filter_map(|slot| slot.waker.clone())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Forgets all reported bytes, and all requests to end that owners have not read yet.
    pub(super) fn forget_held(&self) {
        let mut entries = self.entries.borrow_mut();
        for slot in &mut entries.slots {
            (slot.held, slot.must_shed, slot.is_leaving) = (0, false, false);
        }
    }

    /// Asks the owners that hold most to end: of `taken` bytes, `kept` may stay. Reports differ from the bytes taken,
    /// because blocks are not full. So the core asks owners until they free the same share of all reported bytes.
    /// Returns how many it has asked.
    pub(super) fn shed(&self, taken: usize, kept: usize) -> u64 {
        let mut entries = self.entries.borrow_mut();
        let holders = entries.holders();
        let all: usize = holders.iter().map(|&(held, _)| held).sum();
        let share = taken.saturating_sub(kept) as u128 * all as u128 / taken.max(1) as u128;
        let (leaving, mut holders): (Vec<_>, Vec<_>) =
            (holders.into_iter()).partition(|&(_, key)| entries.slots[key].is_leaving);
        let leaving: usize = leaving.into_iter().map(|(held, _)| held).sum();
        holders.sort_unstable_by_key(|&(held, _)| Reverse(held));
        let (mut left, mut told) = ((share as usize).saturating_sub(leaving), Vec::new());
        for (held, key) in holders {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(held);
            let slot = &mut entries.slots[key];
            (slot.must_shed, slot.is_leaving) = (true, true);
            told.extend(slot.waker.clone());
        }
        drop(entries);
        let count = told.len() as u64;
        told.into_iter().for_each(Waker::wake);
        count
    }

    /// Registered timers: one for each connection, and over HTTP/2 one more for each worker.
    pub fn live(&self) -> usize {
        self.entries.borrow().live
    }

    /// Wakes the owners of timers that are due.
    pub fn fire(&self, now: Instant) {
        loop {
            let mut entries = self.entries.borrow_mut();
            let entries = &mut *entries;
            let Some((at, key)) = entries.queue.first() else {
                return;
            };
            if at > now {
                return;
            }
            let slot = &mut entries.slots[key as usize];
            if slot.is_live && slot.deadline > now && slot.deadline != Instant::NEVER {
                // The owner has moved the deadline to a later time.
                entries.queue.postpone_first(slot.deadline);
                continue;
            }
            entries.queue.remove_first();
            if slot.is_live && slot.deadline <= now {
                slot.has_fired = true;
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// The timer of one task. Dropping it unregisters it.
pub struct Timer {
    timers: Rc<Timers>,
    key: u32,
}

impl Timer {
    /// Moves the deadline. The task that last called [`Timer::watch`] is woken soon after it has passed.
    #[inline]
    pub fn set(&self, deadline: Instant) {
        let mut entries = self.timers.entries.borrow_mut();
        let entries = &mut *entries;
        let slot = &mut entries.slots[self.key as usize];
        let before = mem::replace(&mut slot.deadline, deadline);
        if deadline < before || (slot.has_fired && deadline != before) {
            slot.has_fired = false;
            entries.queue.queue_by(self.key, deadline);
        }
    }

    /// The time that was last set.
    pub fn deadline(&self) -> Instant {
        self.timers.entries.borrow().slots[self.key as usize].deadline
    }

    /// Reports how many bytes of messages the timer's owner holds. When memory runs out, the core asks the owners that
    /// hold most to end.
    pub fn report_held(&self, bytes: usize) {
        let mut entries = self.timers.entries.borrow_mut();
        entries.slots[self.key as usize].held = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Reports that the timer's owner holds no more bytes, and withdraws a request to end.
    pub fn release_held(&self) {
        let mut entries = self.timers.entries.borrow_mut();
        let slot = &mut entries.slots[self.key as usize];
        (slot.held, slot.must_shed, slot.is_leaving) = (0, false, false);
    }

    /// Charges the bytes of this timer's owner to the owner of another timer, or to the one that pays for that owner, for
    /// as long as it exists.
    pub fn charge_to(&self, whole: &Self) {
        let mut entries = self.timers.entries.borrow_mut();
        let payer = entries.slots[whole.key as usize].payer;
        entries.slots[self.key as usize].payer = payer;
    }

    /// Whether the core asks the owner to end because the owner holds too many bytes. True once for each request.
    pub fn take_shed_request(&self) -> bool {
        let mut entries = self.timers.entries.borrow_mut();
        mem::take(&mut entries.slots[self.key as usize].must_shed)
    }

    /// Makes this task the one that the timer wakes.
    #[inline]
    pub fn watch(&self, cx: &Context<'_>) {
        let mut entries = self.timers.entries.borrow_mut();
        let waker = &mut entries.slots[self.key as usize].waker;
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut entries = self.timers.entries.borrow_mut();
        let slot = &mut entries.slots[self.key as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.is_live = false;
        let waker = slot.waker.take();
        entries.free.push(self.key);
        entries.live -= 1;
        drop(entries);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::wake_counter::WakeCounter;

    #[test]
    fn a_timer_fires_at_its_last_deadline_and_not_after_it_is_dropped() {
        let timers = Rc::new(Timers::default());
        let (wakes, waker) = WakeCounter::new();
        let cx = Context::from_waker(&waker);
        let woken = || wakes.count();

        let timer = timers.timer();
        timer.watch(&cx);
        timer.set(Instant(100));
        timer.set(Instant(300));
        timers.fire(Instant(150));
        assert_eq!(woken(), 0, "moved to later");
        timer.set(Instant(200));
        timers.fire(Instant(210));
        assert_eq!(woken(), 1, "moved to earlier");
        timers.fire(Instant(310));
        assert_eq!(woken(), 1, "fires once a deadline");
        timer.set(Instant(400));
        drop(timer);
        let other = timers.timer();
        other.watch(&cx);
        timers.fire(Instant(500));
        assert_eq!(
            woken(),
            1,
            "the slot's next owner is not woken by the former one's deadline"
        );
        assert_eq!(timers.live(), 1);
        timers.wake_all();
        assert_eq!(woken(), 2);
    }

    #[test]
    fn the_owner_that_holds_most_is_asked_to_end_with_all_its_parts() {
        let timers = Rc::new(Timers::default());
        let all: Vec<_> = (0..5).map(|_| timers.timer()).collect();
        all.iter()
            .for_each(|timer| timer.watch(&Context::from_waker(Waker::noop())));
        let told = || -> Vec<_> { (0..5).filter(|&n| all[n].take_shed_request()).collect() };
        let hold = |held: [usize; 5]| {
            let each = all.iter().zip(held);
            each.for_each(|(timer, held)| timer.report_held(held));
        };

        hold([10, 40, 30, 20, 0]);
        assert_eq!((timers.shed(100, 70), told()), (1, vec![1]));
        assert_eq!(
            (timers.shed(100, 70), told()),
            (0, vec![]),
            "the one that leaves frees enough"
        );
        assert_eq!((timers.shed(100, 40), told()), (1, vec![2]), "and one more");
        timers.forget_held();
        hold([10, 40, 30, 20, 0]);
        assert_eq!((timers.shed(200, 140), told()), (1, vec![1]), "a share");

        timers.forget_held();
        all[2].charge_to(&all[0]);
        all[3].charge_to(&all[0]);
        hold([0, 40, 30, 20, 10]);
        assert_eq!(timers.shed(100, 70), 1);
        assert_eq!(told(), [0], "the parts are one");

        timers.forget_held();
        all[4].charge_to(&all[3]);
        hold([0, 40, 0, 10, 50]);
        timers.shed(100, 70);
        assert_eq!(told(), [0], "a part of a part belongs to the whole");

        timers.forget_held();
        hold([10, 90, 0, 0, 0]);
        timers.shed(100, 70);
        all[1].release_held();
        assert!(told().is_empty(), "it holds nothing any more");
        hold([10, 90, 0, 0, 0]);
        timers.shed(100, 70);
        timers.forget_held();
        assert!(told().is_empty(), "there is room again");

        let whole = timers.timer();
        all[4].charge_to(&whole);
        drop(whole);
        let other = timers.timer();
        hold([0, 0, 0, 0, 50]);
        timers.shed(100, 70);
        assert!(
            !other.take_shed_request(),
            "a former owner's part is not the next one's"
        );
        assert_eq!(told(), [4]);
    }
}
