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

use super::endpoint_slot::EndpointSlot;
use super::upstream_registry::UpstreamCount;
use super::{
    ConnectionPermit, Endpoint, LeasedConnection, StreamReservation, TriedEndpoints, Upstream,
};
use crate::io::Net;

/// What an attempt can begin with.
pub enum ConnectionOffer<N: Net> {
    /// A connection that is open already.
    Reuse(LeasedConnection<N>),
    /// The right to make one.
    Connect(ConnectionPermit<N>),
    /// A place on one that others use too.
    Stream(StreamReservation<N>),
    /// Somebody makes one that others can use too: it is to be waited for.
    Await,
}

/// The exchanges that wait on one core for an endpoint of one upstream, by whatever plan, the longest first.
pub(super) struct RequestQueue<N: Net> {
    /// The upstream over all cores.
    pub(super) count: Arc<UpstreamCount>,
    core: usize,
    waiting: RefCell<VecDeque<Rc<QueueEntry<N>>>>,
    /// PooledConnection connections of all endpoints.
    idle: Cell<u32>,
    /// The endpoints of the plan of the day.
    endpoints: RefCell<Vec<Weak<Endpoint<N>>>>,
}

/// Tells one plan's upstream from another's.
#[derive(Default)]
pub(super) struct PlanMark;

/// One who waits.
struct QueueEntry<N: Net> {
    ticket: u64,
    /// The plan that `tried` counts by.
    mark: Rc<PlanMark>,
    /// The endpoints that it does not wait for.
    tried: TriedEndpoints,
    waker: Cell<Option<Waker>>,
    offer: Cell<Option<(u32, ConnectionOffer<N>)>>,
}

/// One who has waited and now gets what it waited for.
pub(super) struct FirstInQueue<N: Net> {
    entry: Rc<QueueEntry<N>>,
    endpoint: u32,
}

impl<N: Net> FirstInQueue<N> {
    pub(super) fn give(self, offer: ConnectionOffer<N>) {
        self.entry.offer.set(Some((self.endpoint, offer)));
        if let Some(waker) = self.entry.waker.take() {
            waker.wake();
        }
    }
}

impl<N: Net> RequestQueue<N> {
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
    pub(super) fn has_waiter_for(&self, slot: &EndpointSlot<N>) -> bool {
        let waiting = self.waiting.borrow();
        waiting.iter().any(|entry| entry.wants(slot).is_some())
    }

    /// Takes out the first that waits here for this endpoint.
    pub(super) fn first_for(&self, slot: &EndpointSlot<N>) -> Option<FirstInQueue<N>> {
        let mut waiting = self.waiting.borrow_mut();
        let mut found = waiting.iter().enumerate();
        let (at, endpoint) = found.find_map(|(at, entry)| Some((at, entry.wants(slot)?)))?;
        let entry = waiting.remove(at)?;
        self.left(&waiting);
        Some(FirstInQueue { entry, endpoint })
    }

    fn leave(&self, entry: &Rc<QueueEntry<N>>) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|other| Rc::ptr_eq(other, entry)) {
            waiting.remove(at);
            self.left(&waiting);
        }
    }

    /// Says to the other cores that one waits no more.
    fn left(&self, waiting: &VecDeque<Rc<QueueEntry<N>>>) {
        self.count
            .set_oldest(self.core, waiting.front().map(|entry| entry.ticket));
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
                && !endpoint.slot.has_room()
                && endpoint.give_up_idle()
            {
                left -= 1;
            }
        }
    }
}

impl<N: Net> QueueEntry<N> {
    /// Whether it waits for this endpoint, and under which number.
    #[inline]
    fn wants(&self, slot: &EndpointSlot<N>) -> Option<u32> {
        let number = slot.number(&self.mark)?;
        (!self.tried.has(number)).then_some(number)
    }
}

/// A place in the queue. Dropping it leaves.
pub struct QueuedAttempt<'a, N: Net> {
    upstream: &'a Upstream<N>,
    entry: Rc<QueueEntry<N>>,
}

impl<N: Net> Upstream<N> {
    /// Begins to wait for an endpoint that was not tried (any, if all were). `None`: as many wait as may, over all
    /// cores. Only for whoever was refused by [`Upstream::take`] a moment ago: what is free now is free for others too.
    pub fn enqueue(&self, tried: &TriedEndpoints) -> Option<QueuedAttempt<'_, N>> {
        let queue = &self.queue;
        let ticket = queue.count.enter(self.pending_max)?;
        let entry = Rc::new(QueueEntry {
            ticket,
            mark: self.mark.clone(),
            tried: if self.has_untried(tried) {
                tried.clone()
            } else {
                TriedEndpoints::default()
            },
            waker: Cell::new(None),
            offer: Cell::new(None),
        });
        let mut waiting = queue.waiting.borrow_mut();
        if waiting.is_empty() {
            queue.count.set_oldest(queue.core, Some(ticket));
        }
        waiting.push_back(entry.clone());
        drop(waiting);
        self.obs.borrow().queue_entered(self.id());
        // Other cores know now that somebody waits. What has become free before has been told to nobody.
        for endpoint in &self.endpoints {
            endpoint.slot.serve();
        }
        if queue.has_waiters() {
            self.core.ask_for_idle(&queue.count, false);
        }
        Some(QueuedAttempt {
            upstream: self,
            entry,
        })
    }
}

impl<N: Net> QueuedAttempt<'_, N> {
    /// Waits for a offer; it comes once.
    pub fn poll_offer(&mut self, cx: &Context<'_>) -> Poll<(u32, ConnectionOffer<N>)> {
        if let Some(offer) = self.entry.offer.take() {
            return Poll::Ready(offer);
        }
        let waker = self.entry.waker.take();
        let same = waker.filter(|waker| waker.will_wake(cx.waker()));
        let waker = same.unwrap_or_else(|| cx.waker().clone());
        self.entry.waker.set(Some(waker));
        Poll::Pending
    }
}

impl<N: Net> Drop for QueuedAttempt<'_, N> {
    fn drop(&mut self) {
        let upstream = self.upstream;
        upstream.obs.borrow().queue_left(upstream.id());
        upstream.queue.leave(&self.entry);
    }
}
