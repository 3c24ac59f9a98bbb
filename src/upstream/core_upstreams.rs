//! One core's part in the limits that all cores share: its endpoint slots, its queues, and its notices to other cores.
//!
//! A free slot goes to the request that has waited longest on any core. If that request is on another core, a
//! [`SlotNotice`] carries the slot there. A core closes idle connections when requests wait elsewhere. A notice can get
//! lost in a full mailbox, and another core can see a counter late; [`CoreUpstreams::check_waiting`] corrects both a
//! tick later.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::Upstream;
use super::endpoint::Endpoint;
use super::endpoint_slot::EndpointSlot;
use super::idle_pool::IdleReaper;
use super::request_queue::{ConnectionOffer, RequestQueue};
use super::upstream_registry::{SlotGrant, SlotNotice, UpstreamCount, UpstreamRegistry};
use crate::io::{Instant, Net};
use crate::limits::SLOT_KEPT_MS;
use crate::obs::CoreObs;

/// Sends a notice to another core. A full mailbox returns it.
type Post = Box<dyn Fn(usize, SlotNotice) -> Result<(), SlotNotice>>;

/// One core's endpoint slots, queues and idle connections.
pub struct CoreUpstreams<N: Net> {
    /// This core's number.
    pub(super) index: usize,
    registry: Arc<UpstreamRegistry>,
    post: Post,
    pub(super) obs: Rc<RefCell<CoreObs>>,
    /// By the address of their counts.
    slots: RefCell<HashMap<usize, Weak<EndpointSlot<N>>>>,
    queues: RefCell<HashMap<usize, Weak<RequestQueue<N>>>>,
    /// The upstreams of all plans that are in use, the oldest first.
    upstreams: RefCell<Vec<Weak<Upstream<N>>>>,
    /// The statuses that this core has read.
    status_epoch: Cell<u64>,
    /// When an upstream's usable endpoints change by time alone.
    refresh_at: Cell<Option<Instant>>,
    /// The time of the last tick.
    ticked_at: Cell<Instant>,
    /// Endpoints whose requests in flight have changed since the last tick.
    changed: RefCell<Vec<Weak<Endpoint<N>>>>,
    /// Closes idle connections that end or expire.
    pub(super) reaper: IdleReaper<N>,
}

/// The key of a count in the maps.
fn key<T>(count: &Arc<T>) -> usize {
    Arc::as_ptr(count).addr()
}

impl<N: Net> CoreUpstreams<N> {
    /// Makes the part of core `index` of `cores`.
    pub fn new(
        index: usize,
        registry: Arc<UpstreamRegistry>,
        obs: Rc<RefCell<CoreObs>>,
        post: Post,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            status_epoch: Cell::new(registry.status_epoch()),
            registry,
            post,
            obs,
            slots: RefCell::default(),
            queues: RefCell::default(),
            upstreams: RefCell::default(),
            refresh_at: Cell::new(None),
            ticked_at: Cell::default(),
            changed: RefCell::default(),
            reaper: IdleReaper::default(),
        })
    }

    /// This core's queue for an upstream. All plans share it.
    pub(super) fn queue(&self, upstream: &Arc<str>) -> Rc<RequestQueue<N>> {
        let count = self.registry.upstream(upstream);
        let mut queues = self.queues.borrow_mut();
        if let Some(queue) = queues.get(&key(&count)).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Rc::new(RequestQueue::new(count.clone(), self.index));
        queues.insert(key(&count), Rc::downgrade(&queue));
        queue
    }

    /// This core's slot at an endpoint. All plans share it.
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

    /// Adds an upstream, whose usable endpoints follow the statuses from now on.
    pub(super) fn add(&self, upstream: &Rc<Upstream<N>>) {
        self.upstreams.borrow_mut().push(Rc::downgrade(upstream));
    }

    /// Records that an endpoint's requests in flight have changed.
    pub(super) fn note_change(&self, endpoint: &Rc<Endpoint<N>>) {
        self.changed.borrow_mut().push(Rc::downgrade(endpoint));
    }

    /// The time of the last tick.
    pub(super) fn ticked_at(&self) -> Instant {
        self.ticked_at.get()
    }

    /// Lets an upstream find its usable endpoints again at this time, or a tick later.
    pub(super) fn refresh_at(&self, at: Instant) {
        let first = self.refresh_at.get().map_or(at, |due| due.min(at));
        self.refresh_at.set(Some(first));
    }

    /// Reads the statuses of endpoints, if control has written any since. Runs when the doorbell rings and every tick.
    #[inline]
    pub fn read_statuses(&self, now: Instant) {
        let epoch = self.registry.status_epoch();
        if self.status_epoch.replace(epoch) != epoch {
            self.refresh_all(now, |upstream| upstream.has_new_status());
        }
    }

    /// Publishes this core's requests in flight, and refreshes upstreams whose usable endpoints change by time. Runs every
    /// tick.
    pub fn tick(&self, now: Instant) {
        self.ticked_at.set(now);
        self.read_statuses(now);
        let changed = std::mem::take(&mut *self.changed.borrow_mut());
        let changed = changed.iter().filter_map(Weak::upgrade);
        changed.for_each(|endpoint| endpoint.publish_in_flight());
        if self.refresh_at.get().is_some_and(|due| due <= now) {
            self.refresh_at.set(None);
            self.refresh_all(now, |upstream| upstream.is_due(now));
        }
    }

    /// Refreshes the upstreams for which `is_due` returns true.
    pub(super) fn refresh_all(&self, now: Instant, is_due: impl Fn(&Upstream<N>) -> bool) {
        let upstreams: Vec<_> = self.upstreams.borrow().clone();
        for upstream in upstreams.iter().filter_map(Weak::upgrade) {
            if is_due(&upstream) {
                upstream.refresh(now);
            }
        }
    }

    /// Forgets slots and queues that no current plan uses.
    pub fn forget_unused(&self) {
        self.upstreams
            .borrow_mut()
            .retain(|upstream| upstream.strong_count() > 0);
        self.slots
            .borrow_mut()
            .retain(|_, slot| slot.strong_count() > 0);
        self.queues
            .borrow_mut()
            .retain(|_, queue| queue.strong_count() > 0);
        self.registry.forget_unused();
    }

    /// Drops idle connections that their endpoint closes, for as long as the core lives. Connections are pooled from
    /// its first poll on.
    pub async fn watch_idle(self: Rc<Self>) {
        self.reaper.run().await;
    }

    /// Closes connections that have been idle longer than their endpoint allows, and bound connections that queued
    /// requests need.
    pub fn close_expired(&self, now: Instant) {
        self.reaper.close_expired(now);
    }

    /// Handles a notice from another core.
    pub fn receive_notice(&self, note: SlotNotice) {
        match note {
            SlotNotice::Grant(grant) => self.hand_over(grant),
            SlotNotice::Wanted(count) => {
                count.clear_wanted(self.index);
                let queue = self
                    .queues
                    .borrow()
                    .get(&key(&count))
                    .and_then(Weak::upgrade);
                if let Some(queue) = queue {
                    queue.close_oldest_idle();
                }
            }
        }
    }

    /// Gives a slot to the request that has waited longest, here or on another core.
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
                // The other core's mailbox is full, so its next `check_waiting` finds the slot.
                self.obs.borrow().mailbox_full();
                grant.pass(ticket);
            }
        }
    }

    /// Asks other cores to close idle connections: the first that has any, or `all` of them.
    pub(super) fn ask_for_idle(&self, count: &Arc<UpstreamCount>, all: bool) {
        for core in count.ask_for_idle(self.index) {
            if (self.post)(core, SlotNotice::Wanted(count.clone())).is_err() {
                self.obs.borrow().mailbox_full();
                count.clear_wanted(core);
            } else if !all {
                return;
            }
        }
    }

    /// Serves waiting requests that no notice reached. Runs every tick.
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
                for endpoint in queue.endpoints() {
                    endpoint.slot.grant_free();
                    // Streams that other cores have left free, within the endpoint's limit of requests.
                    endpoint.offer_streams(queue.count.waiting());
                }
            }
            if queue.has_waiters() {
                self.ask_for_idle(&queue.count, true);
            }
            queue.close_oldest_idle();
            self.end_shared_for_others(queue, now);
        }
    }

    /// Ends an old shared connection for a request that waits on another core: under load, a connection that many
    /// requests share is never idle.
    fn end_shared_for_others(&self, queue: &RequestQueue<N>, now: Instant) {
        let is_wanted = queue.count.is_wanted_by_others(self.index);
        let made_before = Instant(now.0.saturating_sub(SLOT_KEPT_MS * 1_000_000));
        for endpoint in queue.endpoints() {
            if !is_wanted {
                endpoint.reopen_shared();
            } else if !endpoint.slot.has_room() && endpoint.end_old_shared(made_before) {
                return;
            }
        }
    }
}
