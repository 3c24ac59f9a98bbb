//! How much one poll of a task may do.
//!
//! A core's loop polls every task that can run, then looks at its I/O. So a client waits for no longer than one poll of
//! everybody else, and that is bounded if each poll is: a task that finds its next input ready, and the next, stops
//! when its share is used up, has itself woken later ([`Rx::wake_later`](crate::io::Rx::wake_later)) and goes on behind
//! the others. A core polls one task at a time, so one counter serves them all.

use std::cell::Cell;

use crate::limits::SHARE_STEPS;

/// What the task that runs may still do.
#[derive(Default)]
pub struct Share {
    left: Cell<u32>,
}

impl Share {
    /// Begins a poll of a task with a whole share.
    #[inline]
    pub fn renew(&self) {
        self.left.set(SHARE_STEPS);
    }

    /// Counts what was done.
    #[inline]
    pub fn spend(&self, steps: u32) {
        self.left.set(self.left.get().saturating_sub(steps));
    }

    /// Whether others are to have their turn.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}
