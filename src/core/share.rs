//! How much one poll of a task may do.
//!
//! A core's loop polls every task that can run, then checks its I/O. So a client waits for at most one poll of every
//! other task, and each poll must be bounded. A task that always finds more input stops when it has spent its share,
//! asks for a later wake ([`Rx::wake_later`](crate::io::Rx::wake_later)) and goes on after the others. A core polls one
//! task at a time, so one counter serves all of them.

use std::cell::Cell;

use crate::limits::SHARE_STEPS;

/// How much the running task may still do in this poll.
#[derive(Default)]
pub struct Share {
    left: Cell<u32>,
}

impl Share {
    /// Begins a poll with a whole share.
    #[inline]
    pub fn renew(&self) {
        self.left.set(SHARE_STEPS);
    }

    /// Counts work.
    #[inline]
    pub fn spend(&self, steps: u32) {
        self.left.set(self.left.get().saturating_sub(steps));
    }

    /// Whether the task must let others run.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}
