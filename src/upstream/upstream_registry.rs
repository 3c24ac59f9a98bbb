//! What all cores count together: connections by endpoint, and requests that wait by upstream.
//!
//! The shared counters change when a connection is made or ends, and when a request has to wait. A request that finds
//! an idle connection changes none of them: it reads whether anybody waits, and writes a cell that its core alone
//! writes.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The counts of all upstreams, by name. Locked when a plan begins, never by a request.
#[derive(Default)]
pub struct UpstreamRegistry {
    upstreams: Mutex<HashMap<Arc<str>, Weak<UpstreamCount>>>,
    /// Requests that wait, at whatever upstream.
    waiting: Arc<AtomicU32>,
}

/// One upstream over all cores: who waits where.
pub struct UpstreamCount {
    waiting: AtomicU32,
    waiting_anywhere: Arc<AtomicU32>,
    /// Tickets given out: whoever waits has one, and the lowest is served first.
    tickets: AtomicU64,
    cores: Box<[CoreCell]>,
    endpoints: Mutex<HashMap<Arc<str>, Weak<EndpointCount>>>,
}

/// What one core says to the others. Only `is_wanted` is written by them.
#[repr(align(64))]
struct CoreCell {
    /// The lowest ticket of those that wait on the core; [`NO_TICKET`] if nobody does.
    oldest: AtomicU64,
    /// PooledConnection connections to the upstream's endpoints.
    idle: AtomicU32,
    /// A note is on its way that asks the core to give some of them up.
    is_wanted: AtomicBool,
}

const NO_TICKET: u64 = u64::MAX;

/// One endpoint over all cores: its connections.
#[repr(align(64))]
pub(super) struct EndpointCount {
    open: AtomicU32,
    max: AtomicU32,
    /// It has asked for authentication that holds for a connection.
    authenticates: AtomicBool,
    pub(super) upstream: Arc<UpstreamCount>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole after every step, so a panic elsewhere cannot have left one broken.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UpstreamRegistry {
    /// The count of an upstream, the same for every core.
    pub(super) fn upstream(&self, name: &Arc<str>, cores: usize) -> Arc<UpstreamCount> {
        let mut upstreams = lock(&self.upstreams);
        if let Some(count) = upstreams.get(name).and_then(Weak::upgrade) {
            return count;
        }
        let cell = |_| CoreCell {
            oldest: AtomicU64::new(NO_TICKET),
            idle: AtomicU32::new(0),
            is_wanted: AtomicBool::new(false),
        };
        let count = Arc::new(UpstreamCount {
            waiting: AtomicU32::new(0),
            waiting_anywhere: self.waiting.clone(),
            tickets: AtomicU64::new(0),
            cores: (0..cores).map(cell).collect(),
            endpoints: Mutex::default(),
        });
        upstreams.insert(name.clone(), Arc::downgrade(&count));
        count
    }

    /// Whether a request waits anywhere.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Forgets what no core has any more.
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
    /// The count of an endpoint, the same for every core.
    pub(super) fn endpoint(self: &Arc<Self>, name: &Arc<str>) -> Arc<EndpointCount> {
        let mut endpoints = lock(&self.endpoints);
        if let Some(count) = endpoints.get(name).and_then(Weak::upgrade) {
            return count;
        }
        let count = Arc::new(EndpointCount {
            open: AtomicU32::new(0),
            max: AtomicU32::new(0),
            authenticates: AtomicBool::new(false),
            upstream: self.clone(),
        });
        endpoints.insert(name.clone(), Arc::downgrade(&count));
        count
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

    /// Counts a request in that begins to wait, and gives it a ticket. `None`: `max` wait already.
    pub(super) fn enter(&self, max: u32) -> Option<u64> {
        let one_more = |waiting: u32| (waiting < max).then(|| waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.waiting_anywhere.fetch_add(1, Relaxed);
        Some(self.tickets.fetch_add(1, SeqCst) + 1)
    }

    /// Counts a request out that waits no more.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, SeqCst);
        self.waiting_anywhere.fetch_sub(1, Relaxed);
    }

    /// Says who has waited longest on a core.
    pub(super) fn set_oldest(&self, core: usize, ticket: Option<u64>) {
        if let Some(cell) = self.cores.get(core) {
            cell.oldest.store(ticket.unwrap_or(NO_TICKET), SeqCst);
        }
    }

    /// The core where the request waits that has waited longest, of those whose tickets are above `after`, and its
    /// ticket.
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

    /// Says how many idle connections a core has. Relaxed, as it is said with every request: what a reader misses for
    /// a moment, it finds when it looks again.
    #[inline]
    pub(super) fn set_idle(&self, core: usize, idle: u32) {
        if let Some(cell) = self.cores.get(core) {
            cell.idle.store(idle, Relaxed);
        }
    }

    /// Cores other than `me` that have idle connections and are not being asked for them, the next one first. They
    /// count as being asked from now on.
    pub(super) fn ask_for_idle(&self, me: usize) -> impl Iterator<Item = usize> {
        let cores = self.cores.len();
        let others = (1..cores).map(move |step| (me + step) % cores);
        others.filter(|&core| {
            let has_idle = |cell: &CoreCell| cell.idle.load(Relaxed) > 0;
            let cell = self.cores.get(core).filter(|cell| has_idle(cell));
            cell.is_some_and(|cell| !cell.is_wanted.swap(true, SeqCst))
        })
    }

    /// A core has been asked, or could not be.
    pub(super) fn was_asked(&self, core: usize) {
        if let Some(cell) = self.cores.get(core) {
            cell.is_wanted.store(false, SeqCst);
        }
    }
}

impl EndpointCount {
    /// How many connections there may be, by the plan of the day.
    pub(super) fn set_max(&self, max: u32) {
        self.max.store(max, SeqCst);
    }

    /// Whether the endpoint has asked for authentication that holds for a connection.
    #[inline]
    pub(super) fn authenticates(&self) -> bool {
        self.authenticates.load(Relaxed)
    }

    /// The endpoint asks for authentication that holds for a connection.
    pub(super) fn has_authenticated(&self) {
        // Every challenge says it, and the line is shared.
        if !self.authenticates() {
            self.authenticates.store(true, Relaxed);
        }
    }

    /// Whether one more may be made.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.open.load(Relaxed) < self.max.load(Relaxed)
    }

    /// Whether there are more than there may be, which a reload can bring about.
    pub(super) fn is_over(&self) -> bool {
        self.open.load(SeqCst) > self.max.load(SeqCst)
    }

    /// Counts one more, if there may be.
    #[inline]
    pub(super) fn open(&self) -> bool {
        let max = self.max.load(SeqCst);
        let one_more = |open: u32| (open < max).then(|| open + 1);
        self.open.fetch_update(SeqCst, SeqCst, one_more).is_ok()
    }

    /// Counts one less.
    #[inline]
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

/// The right to one connection, on its way to the core where somebody waits for it. Dropping it gives it back.
pub struct SlotGrant {
    pub(super) endpoint: Arc<EndpointCount>,
    /// Tickets up to this one were asked, and did not want it.
    after: u64,
    /// The last ticket there was when it set out.
    seen: u64,
    is_held: bool,
}

impl SlotGrant {
    /// Takes over the right to a connection that was counted.
    pub(super) fn counted(endpoint: Arc<EndpointCount>) -> Self {
        let seen = endpoint.upstream.tickets.load(SeqCst);
        Self {
            endpoint,
            after: 0,
            seen,
            is_held: true,
        }
    }

    /// One for a connection more, if there may be one.
    pub(super) fn new(endpoint: &Arc<EndpointCount>) -> Option<Self> {
        endpoint.open().then(|| Self::counted(endpoint.clone()))
    }

    /// Who is to be asked next: core and ticket.
    pub(super) fn next(&mut self) -> Option<(usize, u64)> {
        let upstream = &self.endpoint.upstream;
        upstream.oldest_after(self.after).or_else(|| {
            // Whoever has come meanwhile may want it.
            let now = upstream.tickets.load(SeqCst);
            if now == self.seen {
                return None;
            }
            (self.after, self.seen) = (0, now);
            upstream.oldest_after(0)
        })
    }

    /// Nobody on the core of this ticket wants it.
    pub(super) fn pass(&mut self, ticket: u64) {
        self.after = self.after.max(ticket);
    }

    /// Nobody wants it: gives it back. Somebody who has begun to wait before it was back has not seen it, and is to be
    /// asked with another.
    pub(super) fn give_back(self) -> Option<Self> {
        let (endpoint, seen) = (self.endpoint.clone(), self.seen);
        drop(self);
        (endpoint.upstream.tickets.load(SeqCst) != seen)
            .then(|| Self::new(&endpoint))
            .flatten()
    }

    /// Somebody has it now, who counts it out.
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

/// What a core says to another about connections to endpoints.
pub enum SlotNotice {
    /// It may make one: the request that has waited longest is there.
    Grant(SlotGrant),
    /// Somebody waits: it is to give up idle ones.
    Wanted(Arc<UpstreamCount>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(registry: &UpstreamRegistry, max: u32) -> Arc<EndpointCount> {
        let upstream = registry.upstream(&"app".into(), 4);
        let endpoint = upstream.endpoint(&"a:80".into());
        endpoint.set_max(max);
        endpoint
    }

    #[test]
    fn the_same_name_is_the_same_count_until_nobody_has_it() {
        let registry = UpstreamRegistry::default();
        let (one, other) = (endpoint(&registry, 1), endpoint(&registry, 1));
        assert!(one.open() && !other.open());
        drop((one, other));
        registry.forget_unused();
        assert!(lock(&registry.upstreams).is_empty());
        assert!(endpoint(&registry, 1).has_room());
    }

    #[test]
    fn a_grant_asks_each_core_once_and_again_when_somebody_comes() {
        let registry = UpstreamRegistry::default();
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
        // Both have come since the grant was made.
        assert_eq!(grant.next(), Some((2, 1)));
        grant.pass(1);
        grant.pass(2);
        assert_eq!(grant.next(), None);
        // One more begins to wait before it is back.
        assert_eq!(upstream.enter(10), Some(3));
        assert!(!endpoint.has_room());
        let mut again = grant.give_back().expect("somebody has come");
        assert_eq!(again.next(), Some((2, 1)));
        again.pass(2);
        assert!(again.give_back().is_none() && endpoint.has_room());
    }

    /// Real threads: limits hold whatever the timing.
    #[test]
    fn no_limit_is_exceeded_by_threads() {
        let registry = UpstreamRegistry::default();
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
