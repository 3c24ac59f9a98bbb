//! Who waits for a connection, when all endpoints have as many as they may have.
//!
//! Each core has a queue; a ticket says who has waited longest over all of them.
//!
//! What becomes free is handed to the first that waits for it, and only if nobody does is it there for others to take.
//! So nobody is overtaken, and a wake-up that comes to nothing passes on what it was about: whoever leaves the queue
//! with something in hand drops it, and dropping it gives it to the next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::permit::{Held, Permit, Place};
use super::registry::UpstreamCount;
use super::{Endpoint, StreamReservation, Tried, Upstream};
use crate::io::Net;

/// What an attempt can begin with.
pub enum Turn<N: Net> {
    /// A connection that is open already.
    Reuse(Held<N>),
    /// The right to make one.
    Connect(Permit<N>),
    /// A place on one that others use too.
    Join(StreamReservation<N>),
    /// Somebody makes one that others can use too: it is to be waited for.
    Await,
}

/// The exchanges that wait on one core for an endpoint of one upstream, by whatever plan, the longest first.
pub(super) struct Queue<N: Net> {
    /// The upstream over all cores.
    pub(super) count: Arc<UpstreamCount>,
    core: usize,
    waiting: RefCell<VecDeque<Rc<Slot<N>>>>,
    /// Idle connections of all endpoints.
    idle: Cell<u32>,
    /// The endpoints of the plan of the day.
    endpoints: RefCell<Vec<Weak<Endpoint<N>>>>,
}

/// Tells one plan's upstream from another's.
#[derive(Default)]
pub(super) struct Mark;

/// One who waits.
struct Slot<N: Net> {
    ticket: u64,
    /// The plan that `tried` counts by.
    mark: Rc<Mark>,
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

impl<N: Net> Queue<N> {
    pub(super) fn new(count: Arc<UpstreamCount>, core: usize) -> Self {
        Self {
            count,
            core,
            waiting: RefCell::default(),
            idle: Cell::new(0),
            endpoints: RefCell::default(),
        }
    }

    /// Notes the endpoints of a new plan.
    pub(super) fn set_endpoints(&self, endpoints: &[Rc<Endpoint<N>>]) {
        *self.endpoints.borrow_mut() = endpoints.iter().map(Rc::downgrade).collect();
    }

    /// The endpoints of the plan of the day.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Rc<Endpoint<N>>> + use<N> {
        let endpoints = self.endpoints.borrow().clone();
        endpoints
            .into_iter()
            .filter_map(|endpoint| endpoint.upgrade())
    }

    /// Whether somebody waits here.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether somebody waits here for this endpoint.
    pub(super) fn has_waiter_for(&self, place: &Place<N>) -> bool {
        let waiting = self.waiting.borrow();
        waiting.iter().any(|slot| slot.wants(place).is_some())
    }

    /// Takes out the first that waits here for this endpoint.
    pub(super) fn first_for(&self, place: &Place<N>) -> Option<Waiter<N>> {
        let mut waiting = self.waiting.borrow_mut();
        let mut found = waiting.iter().enumerate();
        let (at, endpoint) = found.find_map(|(at, slot)| Some((at, slot.wants(place)?)))?;
        let slot = waiting.remove(at)?;
        self.left(&waiting);
        Some(Waiter { slot, endpoint })
    }

    fn leave(&self, slot: &Rc<Slot<N>>) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|other| Rc::ptr_eq(other, slot)) {
            waiting.remove(at);
            self.left(&waiting);
        }
    }

    /// Says to the other cores that one waits no more.
    fn left(&self, waiting: &VecDeque<Rc<Slot<N>>>) {
        self.count
            .set_oldest(self.core, waiting.front().map(|slot| slot.ticket));
        self.count.leave();
    }

    /// So many idle connections have come, or gone.
    #[inline]
    pub(super) fn idle_changed(&self, by: i32) {
        self.idle.set(self.idle.get().saturating_add_signed(by));
        self.count.set_idle(self.core, self.idle.get());
    }

    /// Closes idle connections for those that wait on other cores: one for each that waits, of endpoints at their limit.
    pub(super) fn give_up_idle(&self) {
        let mut left = self.count.waiting();
        for endpoint in self.endpoints() {
            while left > 0
                && self.idle.get() > 0
                && !endpoint.place.has_room()
                && endpoint.give_up_idle()
            {
                left -= 1;
            }
        }
    }
}

impl<N: Net> Slot<N> {
    /// Whether it waits for this endpoint, and under which number.
    #[inline]
    fn wants(&self, place: &Place<N>) -> Option<u32> {
        let number = place.number(&self.mark)?;
        (!self.tried.has(number)).then_some(number)
    }
}

/// A place in the queue. Dropping it leaves.
pub struct Wait<'a, N: Net> {
    upstream: &'a Upstream<N>,
    slot: Rc<Slot<N>>,
}

impl<N: Net> Upstream<N> {
    /// Begins to wait for an endpoint that was not tried (any, if all were). `None`: as many wait as may, over all
    /// cores. Only for whoever was refused by [`Upstream::take`] a moment ago: what is free now is free for others too.
    pub fn wait(&self, tried: &Tried) -> Option<Wait<'_, N>> {
        let queue = &self.queue;
        let ticket = queue.count.enter(self.pending_max)?;
        let slot = Rc::new(Slot {
            ticket,
            mark: self.mark.clone(),
            tried: if self.is_left(tried) {
                tried.clone()
            } else {
                Tried::default()
            },
            waker: Cell::new(None),
            turn: Cell::new(None),
        });
        let mut waiting = queue.waiting.borrow_mut();
        if waiting.is_empty() {
            queue.count.set_oldest(queue.core, Some(ticket));
        }
        waiting.push_back(slot.clone());
        drop(waiting);
        self.obs.borrow().queue_entered(self.id());
        // Other cores know now that somebody waits. What has become free before has been told to nobody.
        for endpoint in &self.endpoints {
            endpoint.place.serve();
        }
        if queue.has_waiters() {
            self.places.ask_for_idle(&queue.count, false);
        }
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
        upstream.queue.leave(&self.slot);
    }
}
