//! Counts one endpoint's connections, and gives the next free one to the request that has waited longest.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::core_upstreams::CoreUpstreams;
use super::idle_pool::IdleReaper;
use super::leased_connection::{ConnectionPermit, LeasedConnection};
use super::request_queue::{ConnectionOffer, FirstInQueue, PlanMark, RequestQueue};
use super::upstream_registry::{EndpointCount, SlotGrant};
use crate::fault::Reason;
use crate::io::{Instant, Net};
use crate::limits::SLOT_KEPT_MS;
use crate::plan::UpstreamId;

/// One core's view of an endpoint's connections: their count over all cores, the ids they are counted under, and this
/// core's queue for them.
pub(super) struct EndpointSlot<N: Net> {
    core: Rc<CoreUpstreams<N>>,
    pub(super) queue: Rc<RequestQueue<N>>,
    pub(super) count: Arc<EndpointCount>,
    ids: Cell<(UpstreamId, u32)>,
    /// The endpoint's numbers: in former plans that exchanges still use, and last in the current one.
    numbers: RefCell<Vec<(Weak<PlanMark>, u32)>>,
    /// Whether queued requests may get it.
    pub(super) takes_requests: Cell<bool>,
    /// A reload may have lowered the limit below the number of open connections.
    may_be_over: Cell<bool>,
}

impl<N: Net> EndpointSlot<N> {
    pub(super) fn new(
        core: Rc<CoreUpstreams<N>>,
        queue: Rc<RequestQueue<N>>,
        count: Arc<EndpointCount>,
    ) -> Self {
        Self {
            core,
            queue,
            count,
            ids: Cell::new(NOWHERE),
            numbers: RefCell::default(),
            takes_requests: Cell::new(true),
            may_be_over: Cell::new(false),
        }
    }

    /// The core's part.
    pub(super) fn core(&self) -> &CoreUpstreams<N> {
        &self.core
    }

    /// The core's reaper of idle connections.
    pub(super) fn reaper(&self) -> &IdleReaper<N> {
        &self.core.reaper
    }

    /// Counts later events under no endpoint: the plan no longer has it.
    pub(super) fn forget(&self) {
        self.ids.set(NOWHERE);
    }

    /// Sets the endpoint's number in a new plan and its limits. Of requests, only those over shared connections are limited.
    pub(super) fn configure(
        &self,
        (upstream, endpoint): (UpstreamId, u32),
        (connections_max, requests_max): (u32, Option<u32>),
        mark: &Rc<PlanMark>,
    ) {
        self.ids.set((upstream, endpoint));
        self.count.set_max(connections_max, requests_max);
        self.may_be_over.set(self.count.is_over());
        let mut numbers = self.numbers.borrow_mut();
        numbers.retain(|(mark, _)| mark.strong_count() > 0);
        numbers.push((Rc::downgrade(mark), endpoint));
    }

    /// The endpoint's number in the plan with this mark.
    pub(super) fn number(&self, mark: &Rc<PlanMark>) -> Option<u32> {
        let numbers = self.numbers.borrow();
        let mut newest_first = numbers.iter().rev();
        newest_first
            .find(|(own, _)| own.as_ptr() == Rc::as_ptr(mark))
            .map(|(_, number)| *number)
    }

    /// Whether the endpoint has asked, on any core, for authentication that holds for a connection.
    #[inline]
    pub(super) fn authenticates(&self) -> bool {
        self.count.authenticates()
    }

    /// Records that the endpoint uses authentication that holds for a connection.
    pub(super) fn record_authentication(&self) {
        self.count.record_authentication();
    }

    /// Whether another connection is allowed.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.count.has_room()
    }

    /// Whether more connections are open than the limit allows.
    pub(super) fn is_over(&self) -> bool {
        self.count.is_over()
    }

    /// The right to open another connection, if the limit allows it.
    #[inline]
    pub(super) fn permit(self: &Rc<Self>) -> Option<ConnectionPermit<N>> {
        self.count.open().then(|| self.make_permit())
    }

    /// Turns a grant from another core into a permit.
    pub(super) fn granted(self: &Rc<Self>, grant: SlotGrant) -> ConnectionPermit<N> {
        grant.keep();
        self.make_permit()
    }

    fn make_permit(self: &Rc<Self>) -> ConnectionPermit<N> {
        ConnectionPermit::new(self.clone())
    }

    /// Counts an exchange that uses an open connection.
    pub(super) fn count_reuse(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_reused(upstream, endpoint);
    }

    /// Counts a connection that was opened.
    pub(super) fn count_opened(&self) {
        let (upstream, endpoint) = self.ids.get();
        let obs = self.core.obs.borrow();
        obs.upstream_connected(upstream, endpoint);
    }

    /// Counts a connection that has ended.
    pub(super) fn count_closed(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_closed(upstream, endpoint);
    }

    /// Counts a connection that could not be opened.
    pub(super) fn count_connect_failure(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_failed(upstream, endpoint);
    }

    /// Counts an HTTP/2 connection that ended with an error.
    pub(super) fn count_http2_failure(&self, error: weir_proto_h2::Error) {
        let (upstream, _) = self.ids.get();
        self.core
            .obs
            .borrow()
            .upstream_http2_failed(upstream, error);
    }

    /// Counts a failed attempt.
    pub(super) fn count_attempt_failure(&self, reason: Reason, errno: u16) {
        let (upstream, endpoint) = self.ids.get();
        let obs = self.core.obs.borrow();
        obs.attempt_failed(upstream, endpoint, reason, errno);
    }

    /// Counts the outcome of an attempt.
    pub(super) fn count_outcome(&self, is_good: bool) {
        let (upstream, endpoint) = self.ids.get();
        let obs = self.core.obs.borrow();
        obs.attempt_judged(upstream, endpoint, is_good);
    }

    /// Grants free slots to queued requests, for as long as one of them is on this core.
    pub(super) fn grant_free(&self) {
        for _ in 0..self.count.upstream.waiting() {
            if !self.count.has_request_room() || !self.queue.has_waiter_for(self) {
                return;
            }
            let Some(grant) = SlotGrant::new(&self.count) else {
                return;
            };
            self.core.hand_over(grant);
        }
    }

    /// How many requests wait for the upstream on all cores.
    pub(super) fn waiting(&self) -> u32 {
        self.count.upstream.waiting()
    }

    /// Takes the first request in this core's queue that can use the endpoint.
    #[inline]
    pub(super) fn first(&self) -> Option<FirstInQueue<N>> {
        self.queue.first_for(self, false)
    }

    /// Whether a returned connection may not simply be pooled: requests wait on some core, or too many connections are
    /// open.
    #[inline]
    pub(super) fn is_in_demand(&self) -> bool {
        self.count.upstream.has_waiters() || self.may_be_over.get()
    }

    /// Gives a returned connection to a queued request of this core, or closes it for one of another core. Returns it
    /// if no request waits for it.
    ///
    /// For [`SLOT_KEPT_MS`] after it was opened, this core's requests have priority over older ones elsewhere. A slot
    /// that changed cores with every request would cost a new connection each time.
    #[cold]
    pub(super) fn offer(
        &self,
        leased: Box<LeasedConnection<N>>,
        now: Instant,
    ) -> Option<Box<LeasedConnection<N>>> {
        if self.is_over() {
            return None;
        }
        self.may_be_over.set(false);
        // If the endpoint has room, every queued request has had an offer of it.
        let is_wanted =
            !self.has_room() && self.count.upstream.is_wanted_by_others(self.core.index);
        let age = leased.permit.age(now);
        if (!is_wanted || age < Duration::from_millis(SLOT_KEPT_MS))
            && let Some(waiter) = self.first()
        {
            waiter.give(ConnectionOffer::Reuse(leased));
            return None;
        }
        (!is_wanted).then_some(leased)
    }

    /// Frees the slot of a connection that has ended or was not opened, and grants it to the next request.
    pub(super) fn release(&self) {
        let upstream = &self.count.upstream;
        if upstream.has_waiters() && !self.count.is_over() {
            return self.core.hand_over(SlotGrant::counted(self.count.clone()));
        }
        self.count.close();
        // A request that was queued in between has found no room, so grant the slot now.
        if upstream.has_waiters()
            && let Some(grant) = SlotGrant::new(&self.count)
        {
            self.core.hand_over(grant);
        }
    }
}

/// The ids of an endpoint that is in no plan.
const NOWHERE: (UpstreamId, u32) = (UpstreamId(u32::MAX), u32::MAX);
