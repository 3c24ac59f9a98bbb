//! One core's part in limits that hold for the whole box: which endpoints it has slots for, who waits here, and the
//! way to the other cores.
//!
//! A place that becomes free goes to the request that has waited longest, on whatever core that is: as a note, if it is
//! another. An idle connection is given up when somebody waits elsewhere. What a note misses (a mailbox that is full, a
//! store that another core sees late), [`CoreUpstreams::look`] finds a tick later.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::endpoint_slot::EndpointSlot;
use super::idle_pool::IdleReaper;
use super::request_queue::{ConnectionOffer, RequestQueue};
use super::upstream_registry::{SlotGrant, SlotNotice, UpstreamCount, UpstreamRegistry};
use crate::io::{Instant, Net};
use crate::limits::SLOT_KEPT_MS;
use crate::obs::CoreObs;

/// Sends a note to another core; a full mailbox gives it back.
type Post = Box<dyn Fn(usize, SlotNotice) -> Result<(), SlotNotice>>;

/// A core's slots at endpoints and its queues.
pub struct CoreUpstreams<N: Net> {
    /// The core.
    pub(super) index: usize,
    cores: usize,
    registry: Arc<UpstreamRegistry>,
    post: Post,
    pub(super) obs: Rc<RefCell<CoreObs>>,
    /// By the address of their counts.
    slots: RefCell<HashMap<usize, Weak<EndpointSlot<N>>>>,
    queues: RefCell<HashMap<usize, Weak<RequestQueue<N>>>>,
    /// Closes idle connections.
    pub(super) reaper: IdleReaper<N>,
}

/// What a count is known by among those that live.
fn key<T>(count: &Arc<T>) -> usize {
    Arc::as_ptr(count).addr()
}

impl<N: Net> CoreUpstreams<N> {
    /// Those of core `index` of so many.
    pub fn new(
        (index, cores): (usize, usize),
        registry: Arc<UpstreamRegistry>,
        obs: Rc<RefCell<CoreObs>>,
        post: Post,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            cores,
            registry,
            post,
            obs,
            slots: RefCell::default(),
            queues: RefCell::default(),
            reaper: IdleReaper::default(),
        })
    }

    /// Who waits here for an upstream's endpoints: one queue, whatever plans they wait by.
    pub(super) fn queue(&self, upstream: &Arc<str>) -> Rc<RequestQueue<N>> {
        let count = self.registry.upstream(upstream, self.cores);
        let mut queues = self.queues.borrow_mut();
        if let Some(queue) = queues.get(&key(&count)).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Rc::new(RequestQueue::new(count.clone(), self.index));
        queues.insert(key(&count), Rc::downgrade(&queue));
        queue
    }

    /// This core's place at an endpoint: one, whatever plans have the endpoint.
    pub(super) fn slot(
        self: &Rc<Self>,
        queue: &Rc<RequestQueue<N>>,
        endpoint: &Arc<str>,
    ) -> Rc<EndpointSlot<N>> {
        let count = queue.count.endpoint(endpoint);
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(&key(&count)).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Rc::new(EndpointSlot::new(
            self.clone(),
            queue.clone(),
            count.clone(),
        ));
        slots.insert(key(&count), Rc::downgrade(&slot));
        slot
    }

    /// Forgets what no plan has any more that an exchange runs by.
    pub fn forget_unused(&self) {
        self.slots
            .borrow_mut()
            .retain(|_, slot| slot.strong_count() > 0);
        self.queues
            .borrow_mut()
            .retain(|_, queue| queue.strong_count() > 0);
        self.registry.forget_unused();
    }

    /// Looks after idle connections for as long as the core lives. Connections are kept from its first poll on.
    pub async fn watch_idle(self: Rc<Self>) {
        self.reaper.run().await;
    }

    /// Closes idle connections that have waited for longer than their endpoint's limit, and those of clients that others
    /// need more.
    pub fn close_expired(&self, now: Instant) {
        self.reaper.close_expired(now);
    }

    /// Takes a note from another core.
    pub fn receive_notice(&self, note: SlotNotice) {
        match note {
            SlotNotice::Grant(grant) => self.hand_over(grant),
            SlotNotice::Wanted(count) => {
                count.was_asked(self.index);
                let queue = self
                    .queues
                    .borrow()
                    .get(&key(&count))
                    .and_then(Weak::upgrade);
                if let Some(queue) = queue {
                    queue.give_up_idle();
                }
            }
        }
    }

    /// Gives the right to a connection to whoever has waited longest for it, here or on another core.
    pub(super) fn hand_over(&self, mut grant: SlotGrant) {
        loop {
            let Some((core, ticket)) = grant.next() else {
                match grant.give_back() {
                    Some(again) => grant = again,
                    None => return,
                }
                continue;
            };
            if core == self.index {
                let slot = self
                    .slots
                    .borrow()
                    .get(&key(&grant.endpoint))
                    .and_then(Weak::upgrade);
                if let Some(slot) = slot
                    && let Some(waiter) = slot.first()
                {
                    return waiter.give(ConnectionOffer::Connect(slot.granted(grant)));
                }
                grant.pass(ticket);
            } else {
                match (self.post)(core, SlotNotice::Grant(grant)) {
                    Err(SlotNotice::Grant(back)) => grant = back,
                    _ => return,
                }
                // Its mailbox is full: it looks by itself.
                self.obs.borrow().mailbox_full();
                grant.pass(ticket);
            }
        }
    }

    /// Asks a core that has idle connections to give some up; all of those, if `all`.
    pub(super) fn ask_for_idle(&self, count: &Arc<UpstreamCount>, all: bool) {
        for core in count.ask_for_idle(self.index) {
            if (self.post)(core, SlotNotice::Wanted(count.clone())).is_err() {
                self.obs.borrow().mailbox_full();
                count.was_asked(core);
            } else if !all {
                return;
            }
        }
    }

    /// Looks after those that wait, wherever; every tick.
    pub fn check_waiting(&self, now: Instant) {
        if !self.registry.has_waiters() {
            return;
        }
        let queues: Vec<_> = self
            .queues
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for queue in queues.iter().filter(|queue| queue.count.has_waiters()) {
            if queue.has_waiters() {
                queue.endpoints().for_each(|endpoint| endpoint.slot.serve());
            }
            if queue.has_waiters() {
                self.ask_for_idle(&queue.count, true);
            }
            queue.give_up_idle();
            self.share_connections(queue, now);
        }
    }

    /// A connection that requests share is never idle for long where there are many of them: one that has been here for
    /// a while ends for a request that waits on another core.
    fn share_connections(&self, queue: &RequestQueue<N>, now: Instant) {
        let is_wanted = queue.count.is_wanted_by_others(self.index);
        let made_before = Instant(now.0.saturating_sub(SLOT_KEPT_MS * 1_000_000));
        for endpoint in queue.endpoints() {
            if !is_wanted {
                endpoint.keep_shared();
            } else if !endpoint.slot.has_room() && endpoint.give_up_shared(made_before) {
                return;
            }
        }
    }
}
