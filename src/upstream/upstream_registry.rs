//! What all cores count together: connections and requests by endpoint, and waiting requests by upstream. Also the board on
//! which control posts the health of endpoints.
//!
//! The shared counters change when a connection is opened or ends, and when a request has to wait. A request that
//! finds an idle connection changes none of them: it reads whether requests wait, and writes a cell that only its core
//! writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::breaker::BreakerState;
use super::endpoint_status::EndpointStatus;
use crate::shared::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::shared::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, OwnU32, OwnU64};

/// The counts of all upstreams, by name. Locked when a plan is applied or control writes a status, never by a request.
pub struct UpstreamRegistry {
    cores: usize,
    upstreams: Mutex<HashMap<Arc<str>, Weak<UpstreamCount>>>,
    /// The endpoints with a status, by upstream and name. They keep it, even if no core has them yet.
    judged: Mutex<HashMap<EndpointKey, Arc<EndpointCount>>>,
    /// How often control has written a status.
    status_epoch: AtomicU64,
    /// How many requests wait at all upstreams.
    waiting: Arc<AtomicU32>,
}

/// The names of an upstream and of an endpoint of it.
type EndpointKey = (Arc<str>, Arc<str>);

/// One upstream over all cores.
pub struct UpstreamCount {
    waiting: AtomicU32,
    waiting_anywhere: Arc<AtomicU32>,
    /// How many tickets were given out. The waiting request with the lowest ticket is served first.
    tickets: AtomicU64,
    /// How often control has written a status of one of its endpoints.
    status_epoch: AtomicU64,
    /// How many requests all endpoints together have, as the cores have published it.
    in_flight: AtomicI32,
    cores: Box<[CoreCell]>,
    endpoints: Mutex<HashMap<Arc<str>, Weak<EndpointCount>>>,
    /// The circuit breaker.
    pub(super) breaker: BreakerState,
}

/// The state that one core publishes for the others. Other cores write only `is_wanted`.
#[repr(align(64))]
struct CoreCell {
    /// The lowest ticket on the core; [`NO_TICKET`] if no request waits there.
    oldest: OwnU64,
    /// How many connections to the upstream's endpoints are idle.
    idle: OwnU32,
    /// A notice that asks the core to close idle connections is on its way.
    is_wanted: AtomicBool,
}

const NO_TICKET: u64 = u64::MAX;

/// One endpoint over all cores.
#[repr(align(64))]
pub(super) struct EndpointCount {
    open: AtomicU32,
    max: AtomicU32,
    /// Requests over shared connections, if they are limited.
    requests: AtomicU32,
    /// [`u32::MAX`] does not limit them.
    requests_max: AtomicU32,
    /// The endpoint has asked for authentication that holds for a connection.
    authenticates: AtomicBool,
    /// The packed [`EndpointStatus`], which control writes.
    status: AtomicU32,
    /// How many requests the endpoint has, as the cores have published it. Below zero for a moment at times, because
    /// cores publish differences.
    in_flight: AtomicI32,
    pub(super) upstream: Arc<UpstreamCount>,
}

/// The load of an endpoint over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointLoad {
    /// Open connections.
    pub connections: u32,
    /// Requests that have no whole answer yet, as of the cores' last ticks.
    pub in_flight: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every step leaves the maps complete, so a panic elsewhere cannot have broken them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UpstreamRegistry {
    /// Makes the registry of so many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self {
            cores,
            upstreams: Mutex::default(),
            judged: Mutex::default(),
            status_epoch: AtomicU64::new(0),
            waiting: Arc::default(),
        }
    }

    /// Posts the status of an endpoint, which stays until the next one. Cores read it at their next tick, or when
    /// `Cores::ring_all` wakes them. An endpoint that is in no plan yet has it from the beginning.
    ///
    /// Posting the same status again ends the ejections that cores have made on their own.
    pub fn set_status(&self, upstream: &Arc<str>, endpoint: &Arc<str>, status: EndpointStatus) {
        let count = self.upstream(upstream).endpoint(endpoint);
        let key = (upstream.clone(), endpoint.clone());
        let mut judged = lock(&self.judged);
        let old = count.status.load(Relaxed);
        count.status.store(status.pack(old), Release);
        count.upstream.status_epoch.fetch_add(1, Release);
        // Last: a core that sees this epoch finds all the rest.
        self.status_epoch.fetch_add(1, Release);
        match status == EndpointStatus::default() {
            true => judged.remove(&key),
            false => judged.insert(key, count),
        };
    }

    /// The status of an endpoint, as control has posted it last.
    #[must_use]
    pub fn status(&self, upstream: &str, endpoint: &str) -> EndpointStatus {
        self.find(upstream, endpoint)
            .map_or_else(EndpointStatus::default, |count| count.status())
    }

    /// The load of an endpoint over all cores.
    #[must_use]
    pub fn load(&self, upstream: &str, endpoint: &str) -> EndpointLoad {
        self.find(upstream, endpoint)
            .map_or_else(EndpointLoad::default, |count| EndpointLoad {
                connections: count.open.load(Relaxed),
                in_flight: u32::try_from(count.in_flight.load(Relaxed)).unwrap_or(0),
            })
    }

    fn find(&self, upstream: &str, endpoint: &str) -> Option<Arc<EndpointCount>> {
        let upstream = lock(&self.upstreams).get(upstream)?.upgrade()?;
        lock(&upstream.endpoints).get(endpoint)?.upgrade()
    }

    /// How often control has written a status. A core whose number is the same has read every status.
    #[inline]
    pub(super) fn status_epoch(&self) -> u64 {
        self.status_epoch.load(Acquire)
    }

    /// The count of an upstream, shared by all cores.
    pub(super) fn upstream(&self, name: &Arc<str>) -> Arc<UpstreamCount> {
        let mut upstreams = lock(&self.upstreams);
        if let Some(count) = upstreams.get(name).and_then(Weak::upgrade) {
            return count;
        }
        let cell = |_| CoreCell {
            oldest: OwnU64::new(NO_TICKET),
            idle: OwnU32::new(0),
            is_wanted: AtomicBool::new(false),
        };
        let count = Arc::new(UpstreamCount {
            waiting: AtomicU32::new(0),
            waiting_anywhere: self.waiting.clone(),
            tickets: AtomicU64::new(0),
            status_epoch: AtomicU64::new(0),
            in_flight: AtomicI32::new(0),
            cores: (0..self.cores).map(cell).collect(),
            endpoints: Mutex::default(),
            breaker: BreakerState::default(),
        });
        upstreams.insert(name.clone(), Arc::downgrade(&count));
        count
    }

    /// Whether the circuit of an upstream is open or half open.
    #[must_use]
    pub fn is_circuit_open(&self, upstream: &str) -> bool {
        let count = lock(&self.upstreams).get(upstream).and_then(Weak::upgrade);
        count.is_some_and(|count| count.breaker.is_open())
    }

    /// Whether a request waits at any upstream.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Forgets counts that no core uses.
    pub(super) fn forget_unused(&self) {
        lock(&self.upstreams).retain(|_, upstream| {
            let upstream = upstream.upgrade();
            if let Some(upstream) = &upstream {
                lock(&upstream.endpoints).retain(|_, endpoint| endpoint.strong_count() > 0);
            }
            upstream.is_some()
        });
    }
}

impl UpstreamCount {
    /// The count of an endpoint, shared by all cores.
    pub(super) fn endpoint(self: &Arc<Self>, name: &Arc<str>) -> Arc<EndpointCount> {
        let mut endpoints = lock(&self.endpoints);
        if let Some(count) = endpoints.get(name).and_then(Weak::upgrade) {
            return count;
        }
        let count = Arc::new(EndpointCount {
            open: AtomicU32::new(0),
            max: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            requests_max: AtomicU32::new(u32::MAX),
            authenticates: AtomicBool::new(false),
            status: AtomicU32::new(0),
            in_flight: AtomicI32::new(0),
            upstream: self.clone(),
        });
        endpoints.insert(name.clone(), Arc::downgrade(&count));
        count
    }

    /// How often control has written a status of one of the endpoints.
    pub(super) fn status_epoch(&self) -> u64 {
        self.status_epoch.load(Acquire)
    }

    /// Adds what a core's requests in flight have changed by.
    pub(super) fn publish_in_flight(&self, by: i32) {
        self.in_flight.fetch_add(by, Relaxed);
    }

    /// How many requests all endpoints together have, as the cores have published it.
    #[inline]
    pub(super) fn in_flight(&self) -> i32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether a request waits for one of the endpoints, on any core.
    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting() > 0
    }

    /// How many requests wait.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Counts a request that starts to wait. Returns its ticket, or `None` if `max` wait already.
    pub(super) fn enter(&self, max: u32) -> Option<u64> {
        let one_more = |waiting: u32| (waiting < max).then(|| waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.waiting_anywhere.fetch_add(1, Relaxed);
        Some(self.tickets.fetch_add(1, SeqCst) + 1)
    }

    /// Counts a request that stops waiting.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, SeqCst);
        self.waiting_anywhere.fetch_sub(1, Relaxed);
    }

    /// Sets the lowest ticket on a core.
    pub(super) fn set_oldest(&self, core: usize, ticket: Option<u64>) {
        if let Some(cell) = self.cores.get(core) {
            cell.oldest.store(ticket.unwrap_or(NO_TICKET), SeqCst);
        }
    }

    /// The core and ticket of the request that has waited longest, among tickets above `after`.
    pub(super) fn oldest_after(&self, after: u64) -> Option<(usize, u64)> {
        let oldest = |(core, cell): (usize, &CoreCell)| (core, cell.oldest.load(SeqCst));
        let all = self.cores.iter().enumerate().map(oldest);
        all.filter(|(_, ticket)| *ticket != NO_TICKET && *ticket > after)
            .min_by_key(|(_, ticket)| *ticket)
    }

    /// Whether the request that has waited longest is on another core.
    pub(super) fn is_wanted_by_others(&self, core: usize) -> bool {
        self.oldest_after(0).is_some_and(|(first, _)| first != core)
    }

    /// Sets a core's number of idle connections. Relaxed, because every request does it; a reader that sees an old
    /// value checks again later.
    #[inline]
    pub(super) fn set_idle(&self, core: usize, idle: u32) {
        if let Some(cell) = self.cores.get(core) {
            cell.idle.store(idle, Relaxed);
        }
    }

    /// Other cores with idle connections that have not been asked for them yet, starting after `me`. Marks each as
    /// asked.
    pub(super) fn ask_for_idle(&self, me: usize) -> impl Iterator<Item = usize> {
        let cores = self.cores.len();
        let others = (1..cores).map(move |step| (me + step) % cores);
        others.filter(|&core| {
            let has_idle = |cell: &CoreCell| cell.idle.load(Relaxed) > 0;
            let cell = self.cores.get(core).filter(|cell| has_idle(cell));
            cell.is_some_and(|cell| !cell.is_wanted.swap(true, SeqCst))
        })
    }

    /// Records that a core has handled the request to close idle connections, or did not get it.
    pub(super) fn clear_wanted(&self, core: usize) {
        if let Some(cell) = self.cores.get(core) {
            cell.is_wanted.store(false, SeqCst);
        }
    }
}

impl EndpointCount {
    /// What control has decided about the endpoint.
    pub(super) fn status(&self) -> EndpointStatus {
        EndpointStatus::unpack(self.status_word())
    }

    /// The packed status. It changes with every status that control posts.
    pub(super) fn status_word(&self) -> u32 {
        self.status.load(Acquire)
    }

    /// Adds what a core's requests in flight have changed by.
    pub(super) fn publish_in_flight(&self, by: i32) {
        self.in_flight.fetch_add(by, Relaxed);
    }

    /// How many requests the endpoint has, as the cores have published it.
    #[inline]
    pub(super) fn in_flight(&self) -> i32 {
        self.in_flight.load(Relaxed)
    }

    /// Sets the current plan's limits.
    pub(super) fn set_max(&self, connections: u32, requests: Option<u32>) {
        self.max.store(connections, SeqCst);
        self.requests_max
            .store(requests.unwrap_or(u32::MAX), SeqCst);
    }

    /// Lowers the limit of connections to that of requests, because each connection carries one request at a time.
    pub(super) fn limit_connections(&self) {
        let requests = self.requests_max.swap(u32::MAX, SeqCst);
        self.max.fetch_min(requests, SeqCst);
    }

    /// Whether another request over a shared connection is allowed.
    #[inline]
    pub(super) fn has_request_room(&self) -> bool {
        let max = self.requests_max.load(Relaxed);
        max == u32::MAX || self.requests.load(Relaxed) < max
    }

    /// Counts a request over a shared connection. `None`: the limit is reached. `Some(false)`: there is no limit, so it
    /// is not counted.
    #[inline]
    pub(super) fn begin_request(&self) -> Option<bool> {
        let max = self.requests_max.load(SeqCst);
        if max == u32::MAX {
            return Some(false);
        }
        let one_more = |requests: u32| (requests < max).then(|| requests + 1);
        let counted = self.requests.fetch_update(SeqCst, SeqCst, one_more);
        counted.ok().map(|_| true)
    }

    /// Counts the end of a request that was counted.
    pub(super) fn end_request(&self) {
        self.requests.fetch_sub(1, SeqCst);
    }

    /// Whether the endpoint has asked for authentication that holds for a connection.
    #[inline]
    pub(super) fn authenticates(&self) -> bool {
        self.authenticates.load(Relaxed)
    }

    /// Records that the endpoint uses authentication that holds for a connection.
    pub(super) fn record_authentication(&self) {
        // Every challenge comes here, so write the shared line only once.
        if !self.authenticates() {
            self.authenticates.store(true, Relaxed);
        }
    }

    /// Whether another connection is allowed.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.open.load(Relaxed) < self.max.load(Relaxed)
    }

    /// Whether the limit is exceeded, which a reload can cause.
    pub(super) fn is_over(&self) -> bool {
        self.open.load(SeqCst) > self.max.load(SeqCst)
    }

    /// Counts a new connection, if the limit allows it.
    #[inline]
    pub(super) fn open(&self) -> bool {
        let max = self.max.load(SeqCst);
        let one_more = |open: u32| (open < max).then(|| open + 1);
        self.open.fetch_update(SeqCst, SeqCst, one_more).is_ok()
    }

    /// Counts a connection that has ended.
    #[inline]
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

/// The right to one connection, on its way to the core whose request waits for it. Dropping it frees the slot.
pub struct SlotGrant {
    pub(super) endpoint: Arc<EndpointCount>,
    /// Requests with tickets up to this one were asked and did not need it.
    after: u64,
    /// The last ticket given out when the grant set out.
    seen: u64,
    is_held: bool,
}

impl SlotGrant {
    /// Takes over a slot that is already counted.
    pub(super) fn counted(endpoint: Arc<EndpointCount>) -> Self {
        let seen = endpoint.upstream.tickets.load(SeqCst);
        Self {
            endpoint,
            after: 0,
            seen,
            is_held: true,
        }
    }

    /// Counts a new slot, if the limit allows it.
    pub(super) fn new(endpoint: &Arc<EndpointCount>) -> Option<Self> {
        endpoint.open().then(|| Self::counted(endpoint.clone()))
    }

    /// The core and ticket to ask next.
    pub(super) fn next(&mut self) -> Option<(usize, u64)> {
        let upstream = &self.endpoint.upstream;
        upstream.oldest_after(self.after).or_else(|| {
            // Requests that have come since may need it.
            let now = upstream.tickets.load(SeqCst);
            if now == self.seen {
                return None;
            }
            (self.after, self.seen) = (0, now);
            upstream.oldest_after(0)
        })
    }

    /// No request on that ticket's core needs it.
    pub(super) fn pass(&mut self, ticket: u64) {
        self.after = self.after.max(ticket);
    }

    /// Frees the slot, because no request needs it. A request that started to wait just before could not see the slot,
    /// so this offers it a new grant.
    pub(super) fn give_back(self) -> Option<Self> {
        let (endpoint, seen) = (self.endpoint.clone(), self.seen);
        drop(self);
        (endpoint.upstream.tickets.load(SeqCst) != seen)
            .then(|| Self::new(&endpoint))
            .flatten()
    }

    /// A permit owns the slot now.
    pub(super) fn keep(mut self) {
        self.is_held = false;
    }
}

impl Drop for SlotGrant {
    fn drop(&mut self) {
        if self.is_held {
            self.endpoint.close();
        }
    }
}

/// A message from one core to another about connections to endpoints.
pub enum SlotNotice {
    /// The other core may open a connection: its request has waited longest.
    Grant(SlotGrant),
    /// The other core should close idle connections, because requests wait elsewhere.
    Wanted(Arc<UpstreamCount>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::EndpointHealth;

    fn endpoint(registry: &UpstreamRegistry, max: u32) -> Arc<EndpointCount> {
        let upstream = registry.upstream(&"app".into());
        let endpoint = upstream.endpoint(&"a:80".into());
        endpoint.set_max(max, None);
        endpoint
    }

    #[test]
    fn one_name_has_one_count_until_no_core_uses_it() {
        let registry = UpstreamRegistry::new(4);
        let (one, other) = (endpoint(&registry, 1), endpoint(&registry, 1));
        assert!(one.open() && !other.open());
        drop((one, other));
        registry.forget_unused();
        assert!(lock(&registry.upstreams).is_empty());
        assert!(endpoint(&registry, 1).has_room());
    }

    #[test]
    fn a_grant_asks_each_core_once_and_again_after_a_new_request() {
        let registry = UpstreamRegistry::new(4);
        let endpoint = endpoint(&registry, 1);
        let upstream = &endpoint.upstream;
        let mut grant = SlotGrant::new(&endpoint).expect("there is room");
        for core in [2, 0] {
            let ticket = upstream.enter(10);
            upstream.set_oldest(core, ticket);
        }
        assert_eq!(grant.next(), Some((2, 1)));
        grant.pass(1);
        assert_eq!(grant.next(), Some((0, 2)));
        grant.pass(2);
        // Both have arrived since the grant was made.
        assert_eq!(grant.next(), Some((2, 1)));
        grant.pass(1);
        grant.pass(2);
        assert_eq!(grant.next(), None);
        // Another request starts to wait before the slot is free.
        assert_eq!(upstream.enter(10), Some(3));
        assert!(!endpoint.has_room());
        let mut again = grant.give_back().expect("somebody has come");
        assert_eq!(again.next(), Some((2, 1)));
        again.pass(2);
        assert!(again.give_back().is_none() && endpoint.has_room());
    }

    #[test]
    fn a_status_is_there_before_its_endpoint_and_after() {
        let registry = UpstreamRegistry::new(4);
        let down = EndpointStatus {
            health: EndpointHealth::Down,
            ..EndpointStatus::default()
        };
        let (app, a) = ("app".into(), "a:80".into());
        registry.set_status(&app, &a, down);
        registry.forget_unused();
        let epoch = registry.status_epoch();
        let count = endpoint(&registry, 1);
        assert_eq!(
            (count.status(), registry.status("app", "a:80")),
            (down, down)
        );
        let word = count.status_word();
        registry.set_status(&app, &a, down);
        assert!(count.status_word() != word && registry.status_epoch() > epoch);
        registry.set_status(&app, &a, EndpointStatus::default());
        drop(count);
        registry.forget_unused();
        assert!(lock(&registry.upstreams).is_empty());
    }

    /// With real threads: limits hold whatever the timing.
    #[test]
    fn threads_never_exceed_a_limit() {
        let registry = UpstreamRegistry::new(4);
        let endpoint = endpoint(&registry, 3);
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(grant) = SlotGrant::new(&endpoint) {
                            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                            now.fetch_sub(1, SeqCst);
                            drop(grant);
                        }
                        if endpoint.upstream.enter(2).is_some() {
                            assert!(endpoint.upstream.waiting() <= 2);
                            endpoint.upstream.leave();
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(SeqCst)));
        assert!(endpoint.open.load(SeqCst) == 0 && !endpoint.upstream.has_waiters());
    }
}
