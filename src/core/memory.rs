//! The memory that a core's connections may take, and what the core does when it runs short.
//!
//! Above half of the limit, connections report how many bytes they hold. At the limit, the core ends the connections
//! that hold most. Below a quarter, connections stop reporting.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use super::{Core, Timer};
use crate::io::Net;
use crate::limits::POOL_SHARE;

/// How much memory a core may take, and which tasks wait for memory.
#[derive(Default)]
pub(super) struct Memory {
    max: Cell<usize>,
    /// Connections have taken more than half of `max`, and have not been below a quarter since.
    is_memory_short: Cell<bool>,
    /// `is_memory_short` changes when the bytes taken pass this mark.
    mark: Cell<usize>,
    /// The bytes that policies keep, as far as they are counted.
    kept: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl<N: Net> Core<N> {
    /// Sets how many bytes connections may take.
    pub(super) fn bound_memory(&self, max: usize) {
        let memory = &self.memory;
        memory.max.set(max);
        memory.mark.set(if memory.is_memory_short.get() {
            max / 4
        } else {
            max / 2
        });
        self.net.pool().bound(max);
        self.net.pool().keep(max / POOL_SHARE);
    }

    /// Counts the bytes that policies keep now in place of those that they kept before.
    pub fn count_kept(&self, bytes: usize) {
        let before = self.memory.kept.replace(bytes);
        self.net.pool().add_charge(bytes);
        self.net.pool().drop_charge(before);
    }

    /// Whether tasks may receive more bytes. They may always send bytes, and receive bytes to drop them.
    #[inline]
    pub fn has_memory(&self) -> bool {
        self.net.pool().has_room()
    }

    /// Whether the task may receive more bytes; if not, the core wakes the task once it may.
    #[inline]
    pub fn may_take_memory(&self, cx: &Context<'_>) -> bool {
        self.has_memory() || {
            self.wait_for_memory(cx);
            false
        }
    }

    /// Wakes the task once it may receive more bytes.
    pub fn wait_for_memory(&self, cx: &Context<'_>) {
        let mut waiting = self.memory.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Whether memory is short enough that connections must report what they hold.
    #[inline]
    pub fn is_memory_short(&self) -> bool {
        self.memory.is_memory_short.get()
    }

    /// If memory is short, reports the bytes that a connection or request holds. Returns whether it must end because of
    /// them.
    #[inline]
    pub fn holds_too_much(&self, timer: &Timer, held: impl FnOnce() -> usize) -> bool {
        self.is_memory_short() && {
            timer.report_held(held());
            timer.take_shed_request()
        }
    }

    /// Checks whether memory has become short. Called after each poll of a task.
    #[inline]
    pub fn notice_memory_shortage(&self) {
        let memory = &self.memory;
        if !memory.is_memory_short.get() && self.net.pool().taken_bytes() > memory.mark.get() {
            memory.is_memory_short.set(true);
            memory.mark.set(memory.max.get() / 4);
            self.timers.wake_all();
        }
    }

    /// At the limit, ends the connections that hold most; below the limit, wakes the tasks that wait for memory. At the
    /// limit no task receives more, so a check every tick is often enough.
    pub fn shed_memory(&self) {
        self.notice_memory_shortage();
        let memory = &self.memory;
        let (max, taken) = (memory.max.get(), self.net.pool().taken_bytes());
        // With a single mark, a load around it would wake every task again and again.
        if memory.is_memory_short.get() && taken <= memory.mark.get() {
            memory.is_memory_short.set(false);
            memory.mark.set(max / 2);
            self.timers.forget_held();
        }
        if taken >= max && memory.is_memory_short.get() {
            let ended = self.timers.shed(taken, max / 4 * 3);
            self.obs.borrow().shed(ended);
        } else {
            let waiting = memory.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}
