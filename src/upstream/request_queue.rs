//! The queue for connections when every endpoint is at its limit.
//!
//! Each core has a queue; tickets order requests over all cores.
//!
//! Free connections are handed to the first request that can use them. Only if none waits can others take them, so no
//! request overtakes another. If a request leaves the queue with an offer that it does not use, dropping the offer
//! hands it to the next.

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

/// An offer of a connection or stream to an attempt.
pub enum ConnectionOffer<N: Net> {
    /// An open connection.
    Reuse(Box<LeasedConnection<N>>),
    /// The right to open one.
    Connect(ConnectionPermit<N>),
    /// A stream on a shared connection.
    Stream(StreamReservation<N>),
    /// Another exchange is opening a shared connection: wait for it.
    Await,
}

/// One core's queue for one upstream, over all plans, oldest first.
pub(super) struct RequestQueue<N: Net> {
    /// The upstream's count over all cores.
    pub(super) count: Arc<UpstreamCount>,
    core: usize,
    waiting: RefCell<VecDeque<Rc<QueueEntry<N>>>>,
    /// How many connections to all its endpoints are idle.
    idle: Cell<u32>,
    /// How many requests this core has at all its endpoints, and how many of them it has published.
    pub(super) in_flight: Cell<u32>,
    pub(super) published: Cell<u32>,
    /// The current plan's endpoints.
    endpoints: RefCell<Vec<Weak<Endpoint<N>>>>,
}

/// Identifies the plan that an upstream was made for: marks are the same if their addresses are.
#[derive(Default)]
pub(super) struct PlanMark;

/// One queued request.
struct QueueEntry<N: Net> {
    ticket: u64,
    /// The plan whose numbers `tried` uses.
    mark: Rc<PlanMark>,
    /// The endpoints that the request must not use.
    tried: TriedEndpoints,
    waker: Cell<Option<Waker>>,
    offer: Cell<Option<(u32, ConnectionOffer<N>)>>,
}

/// A request taken out of the queue, which gets an offer next.
pub(super) struct FirstInQueue<N: Net> {
    entry: Rc<QueueEntry<N>>,
    endpoint: u32,
}

impl<N: Net> FirstInQueue<N> {
    /// Gives the request its offer and wakes its task.
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
            in_flight: Cell::new(0),
            published: Cell::new(0),
            endpoints: RefCell::default(),
        }
    }

    /// Sets the current plan's endpoints.
    pub(super) fn set_endpoints(&self, endpoints: &[Rc<Endpoint<N>>]) {
        *self.endpoints.borrow_mut() = endpoints.iter().map(Rc::downgrade).collect();
    }

    /// The current plan's endpoints.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Rc<Endpoint<N>>> + use<N> {
        let endpoints = self.endpoints.borrow().clone();
        endpoints
            .into_iter()
            .filter_map(|endpoint| endpoint.upgrade())
    }

    /// Whether a request waits on this core.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether a request on this core waits for the endpoint.
    pub(super) fn has_waiter_for(&self, slot: &EndpointSlot<N>) -> bool {
        let waiting = self.waiting.borrow();
        waiting.iter().any(|entry| entry.number_of(slot).is_some())
    }

    /// Takes out the first request that can use the endpoint. `is_counted`: the request counts as one of the endpoint's
    /// already.
    pub(super) fn first_for(
        &self,
        slot: &EndpointSlot<N>,
        is_counted: bool,
    ) -> Option<FirstInQueue<N>> {
        if !is_counted && !slot.count.has_request_room() {
            return None;
        }
        let mut waiting = self.waiting.borrow_mut();
        let mut found = waiting.iter().enumerate();
        let (at, endpoint) = found.find_map(|(at, entry)| Some((at, entry.number_of(slot)?)))?;
        let entry = waiting.remove(at)?;
        self.announce_leaving(&waiting);
        Some(FirstInQueue { entry, endpoint })
    }

    fn leave(&self, entry: &Rc<QueueEntry<N>>) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|other| Rc::ptr_eq(other, entry)) {
            waiting.remove(at);
            self.announce_leaving(&waiting);
        }
    }

    /// Publishes that a request has left the queue.
    fn announce_leaving(&self, waiting: &VecDeque<Rc<QueueEntry<N>>>) {
        self.count
            .set_oldest(self.core, waiting.front().map(|entry| entry.ticket));
        self.count.leave();
    }

    /// Adds `by` to the number of idle connections.
    #[inline]
    pub(super) fn idle_changed(&self, by: i32) {
        self.idle.set(self.idle.get().saturating_add_signed(by));
        self.count.set_idle(self.core, self.idle.get());
    }

    /// Closes idle connections for requests on other cores: one for each of them, at endpoints that are at their
    /// limit.
    pub(super) fn close_oldest_idle(&self) {
        let mut left = self.count.waiting();
        for endpoint in self.endpoints() {
            while left > 0
                && self.idle.get() > 0
                && !endpoint.slot.has_room()
                && endpoint.close_oldest_idle()
            {
                left -= 1;
            }
        }
    }
}

impl<N: Net> QueueEntry<N> {
    /// The endpoint's number, if the request can use it.
    #[inline]
    fn number_of(&self, slot: &EndpointSlot<N>) -> Option<u32> {
        let number = slot.number(&self.mark)?;
        (slot.takes_requests.get() && !self.tried.has(number)).then_some(number)
    }
}

/// A request's place in the queue. Dropping it leaves the queue.
pub struct QueuedAttempt<'a, N: Net> {
    upstream: &'a Upstream<N>,
    entry: Rc<QueueEntry<N>>,
}

impl<N: Net> Upstream<N> {
    /// Enters the queue for an endpoint that was not tried, or for any if all were. `None`: the queue is full over all
    /// cores. Call this only after [`Upstream::take_offer`] has found nothing: other requests may take what is free
    /// now.
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
        // Other cores see the request from now on. Slots that were freed before were offered to no one.
        for endpoint in &self.endpoints {
            endpoint.slot.grant_free();
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
    /// Waits for the offer. Each place gets one offer.
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
