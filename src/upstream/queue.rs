//! Who waits for a connection, when all endpoints have as many as they may have.
//!
//! What becomes free is handed to the first that waits for it, and only if nobody does is it there for others to take.
//! So nobody is overtaken, and a wake-up that comes to nothing passes on what it was about: whoever leaves the queue
//! with something in hand drops it, and dropping it gives it to the next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::permit::{Held, Permit};
use super::{Seat, Tried, Upstream};
use crate::io::Net;

/// What an attempt can begin with.
pub enum Turn<N: Net> {
    /// A connection that is open already.
    Reuse(Held<N>),
    /// The right to make one.
    Connect(Permit<N>),
    /// A place on one that others use too.
    Join(Seat<N>),
    /// Somebody makes one that others can use too: it is to be waited for.
    Await,
}

/// The exchanges that wait for an endpoint of one upstream, on one core and by one plan, the longest first.
pub(super) struct Queue<N: Net> {
    waiting: RefCell<VecDeque<Rc<Slot<N>>>>,
}

/// One who waits.
struct Slot<N: Net> {
    /// The endpoints that it does not wait for.
    tried: Tried,
    waker: Cell<Option<Waker>>,
    turn: Cell<Option<(u32, Turn<N>)>>,
}

/// One who has waited and now gets what it waited for.
pub(super) struct Waiter<N: Net> {
    slot: Rc<Slot<N>>,
    endpoint: u32,
}

impl<N: Net> Waiter<N> {
    pub(super) fn give(self, turn: Turn<N>) {
        self.slot.turn.set(Some((self.endpoint, turn)));
        if let Some(waker) = self.slot.waker.take() {
            waker.wake();
        }
    }
}

impl<N: Net> Default for Queue<N> {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
        }
    }
}

impl<N: Net> Queue<N> {
    /// Takes out the first that waits for this endpoint.
    #[inline]
    pub(super) fn first_for(&self, endpoint: u32) -> Option<Waiter<N>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        let at = waiting.iter().position(|slot| !slot.tried.has(endpoint))?;
        let slot = waiting.remove(at)?;
        Some(Waiter { slot, endpoint })
    }
}

/// A place in the queue. Dropping it leaves.
pub struct Wait<'a, N: Net> {
    upstream: &'a Upstream<N>,
    slot: Rc<Slot<N>>,
}

impl<N: Net> Upstream<N> {
    /// Begins to wait for an endpoint that was not tried (any, if all were). `None`: as many wait as may. Only for
    /// whoever was refused by [`Upstream::take`] a moment ago: what is free now is free for others too.
    pub fn wait(&self, tried: &Tried) -> Option<Wait<'_, N>> {
        let mut waiting = self.queue.waiting.borrow_mut();
        if waiting.len() >= self.pending_max {
            return None;
        }
        let slot = Rc::new(Slot {
            tried: if self.is_left(tried) {
                tried.clone()
            } else {
                Tried::default()
            },
            waker: Cell::new(None),
            turn: Cell::new(None),
        });
        waiting.push_back(slot.clone());
        self.obs.borrow().queue_entered(self.id());
        Some(Wait {
            upstream: self,
            slot,
        })
    }
}

impl<N: Net> Wait<'_, N> {
    /// Waits for a turn; it comes once.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<(u32, Turn<N>)> {
        if let Some(turn) = self.slot.turn.take() {
            return Poll::Ready(turn);
        }
        let waker = self.slot.waker.take();
        let same = waker.filter(|waker| waker.will_wake(cx.waker()));
        let waker = same.unwrap_or_else(|| cx.waker().clone());
        self.slot.waker.set(Some(waker));
        Poll::Pending
    }
}

impl<N: Net> Drop for Wait<'_, N> {
    fn drop(&mut self) {
        let upstream = self.upstream;
        upstream.obs.borrow().queue_left(upstream.id());
        let mut waiting = upstream.queue.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|slot| Rc::ptr_eq(slot, &self.slot)) {
            waiting.remove(at);
        }
    }
}
