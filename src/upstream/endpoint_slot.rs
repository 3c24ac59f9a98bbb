//! The right to hold a connection to an endpoint: counts them, for the endpoint's limit and for metrics, and gives
//! those that become free to whoever waits.

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

/// An endpoint's connections as this core has them: the count over all cores, under which ids they are counted, and who
/// waits here for one.
pub(super) struct EndpointSlot<N: Net> {
    core: Rc<CoreUpstreams<N>>,
    pub(super) queue: Rc<RequestQueue<N>>,
    count: Arc<EndpointCount>,
    ids: Cell<(UpstreamId, u32)>,
    /// Its number in the plan of the day, last, and in former plans that some exchange still runs by.
    numbers: RefCell<Vec<(Weak<PlanMark>, u32)>>,
    /// A reload has lowered the limit below what is open.
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
            may_be_over: Cell::new(false),
        }
    }

    /// What closes this core's idle connections.
    pub(super) fn reaper(&self) -> &IdleReaper<N> {
        &self.core.reaper
    }

    /// The plan no longer has the endpoint: what ends from now on is counted for none.
    pub(super) fn forget(&self) {
        self.ids.set(NOWHERE);
    }

    /// The endpoint's number in a new plan, and how many connections the box may have by that.
    pub(super) fn set(
        &self,
        (upstream, endpoint): (UpstreamId, u32),
        max: u32,
        mark: &Rc<PlanMark>,
    ) {
        self.ids.set((upstream, endpoint));
        self.count.set_max(max);
        self.may_be_over.set(self.count.is_over());
        let mut numbers = self.numbers.borrow_mut();
        numbers.retain(|(mark, _)| mark.strong_count() > 0);
        numbers.push((Rc::downgrade(mark), endpoint));
    }

    /// Its number in the plan of this mark.
    pub(super) fn number(&self, mark: &Rc<PlanMark>) -> Option<u32> {
        let numbers = self.numbers.borrow();
        let mut newest_first = numbers.iter().rev();
        newest_first
            .find(|(own, _)| own.as_ptr() == Rc::as_ptr(mark))
            .map(|(_, number)| *number)
    }

    /// Whether the endpoint has asked for authentication that holds for a connection, on whatever core.
    #[inline]
    pub(super) fn authenticates(&self) -> bool {
        self.count.authenticates()
    }

    /// The endpoint asks for authentication that holds for a connection.
    pub(super) fn has_authenticated(&self) {
        self.count.has_authenticated();
    }

    /// Whether one more connection may be made.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.count.has_room()
    }

    /// Whether there are more connections than there may be.
    pub(super) fn is_over(&self) -> bool {
        self.count.is_over()
    }

    /// The right to one more connection, if there is one.
    #[inline]
    pub(super) fn permit(self: &Rc<Self>) -> Option<ConnectionPermit<N>> {
        self.count.open().then(|| self.counted())
    }

    /// The right to a connection that was granted to a request that waits here.
    pub(super) fn granted(self: &Rc<Self>, grant: SlotGrant) -> ConnectionPermit<N> {
        grant.keep();
        self.counted()
    }

    fn counted(self: &Rc<Self>) -> ConnectionPermit<N> {
        ConnectionPermit::new(self.clone())
    }

    /// An exchange takes a connection that was open already.
    pub(super) fn reused(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_reused(upstream, endpoint);
    }

    /// Counts a connection that was made.
    pub(super) fn opened(&self) {
        let (upstream, endpoint) = self.ids.get();
        let obs = self.core.obs.borrow();
        obs.upstream_connected(upstream, endpoint);
    }

    /// Counts a connection that has ended.
    pub(super) fn closed(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_closed(upstream, endpoint);
    }

    /// Counts a connection that could not be made.
    pub(super) fn connect_failed(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.core.obs.borrow().upstream_failed(upstream, endpoint);
    }

    /// Counts a connection of HTTP/2 that has ended for an error.
    pub(super) fn http2_failed(&self, error: weir_proto_h2::Error) {
        let (upstream, _) = self.ids.get();
        self.core
            .obs
            .borrow()
            .upstream_http2_failed(upstream, error);
    }

    /// An attempt has failed at the endpoint.
    pub(super) fn attempt_failed(&self, reason: Reason, errno: u16) {
        let (upstream, endpoint) = self.ids.get();
        let obs = self.core.obs.borrow();
        obs.attempt_failed(upstream, endpoint, reason, errno);
    }

    /// Gives what room there is to those who wait, as long as one of them is here.
    pub(super) fn serve(&self) {
        for _ in 0..self.count.upstream.waiting() {
            if !self.queue.has_waiter_for(self) {
                return;
            }
            let Some(grant) = SlotGrant::new(&self.count) else {
                return;
            };
            self.core.hand_over(grant);
        }
    }

    /// How many requests wait for an endpoint of the upstream, on all cores.
    pub(super) fn waiting(&self) -> u32 {
        self.count.upstream.waiting()
    }

    /// Takes out the first of those who wait here for this endpoint.
    #[inline]
    pub(super) fn first(&self) -> Option<FirstInQueue<N>> {
        self.queue.first_for(self)
    }

    /// Whether a connection that an exchange has left open may have to go: somebody waits, here or on another core, or
    /// there are too many.
    #[inline]
    pub(super) fn is_in_demand(&self) -> bool {
        self.count.upstream.has_waiters() || self.may_be_over.get()
    }

    /// What becomes of such a connection: it is given to a request that waits here, or closed for one that waits
    /// elsewhere. What is returned nobody waits for.
    ///
    /// Requests of the core that has the connection go before older ones of other cores until it has been open for
    /// [`SLOT_KEPT_MS`]: a place that changed cores with every request would cost a new connection each time.
    #[cold]
    pub(super) fn offer(
        &self,
        held: LeasedConnection<N>,
        now: Instant,
    ) -> Option<LeasedConnection<N>> {
        if self.is_over() {
            return None;
        }
        self.may_be_over.set(false);
        // Where there is room, whoever waits has been offered that.
        let is_wanted =
            !self.has_room() && self.count.upstream.is_wanted_by_others(self.core.index);
        let age = held.permit.age(now);
        if (!is_wanted || age < Duration::from_millis(SLOT_KEPT_MS))
            && let Some(waiter) = self.first()
        {
            waiter.give(ConnectionOffer::Reuse(held));
            return None;
        }
        (!is_wanted).then_some(held)
    }

    /// A connection has ended, or was not made: its place is for whoever waits.
    pub(super) fn release(&self) {
        let upstream = &self.count.upstream;
        if upstream.has_waiters() && !self.count.is_over() {
            return self.core.hand_over(SlotGrant::counted(self.count.clone()));
        }
        self.count.close();
        // Whoever has begun to wait in between has found no room.
        if upstream.has_waiters()
            && let Some(grant) = SlotGrant::new(&self.count)
        {
            self.core.hand_over(grant);
        }
    }
}

/// The ids of what no plan has.
const NOWHERE: (UpstreamId, u32) = (UpstreamId(u32::MAX), u32::MAX);
