//! Connections that wait for the next request.
//!
//! The pool hands out the newest connection first, so that the others expire. The core's [`IdleReaper`] keeps a receive
//! armed on each connection, and drops it as soon as the endpoint closes it or sends bytes that answer no request. The
//! pool checks a connection again before it hands it out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::request_queue::RequestQueue;
use super::{ConnectionOffer, ConnectionPermit, Endpoint, LeasedConnection};
use crate::io::{Instant, Net, Rx};
use crate::limits::IDLE_CLOSED_AT_ONCE;
use crate::plan::Protocol;

/// An idle connection.
pub(super) struct PooledConnection<N: Net> {
    pub(super) leased: Box<LeasedConnection<N>>,
    pub(super) since: Instant,
}

/// An endpoint's idle connections, the newest on top. Other cores see how many there are.
pub(super) struct IdlePool<N: Net> {
    list: Vec<PooledConnection<N>>,
    queue: Rc<RequestQueue<N>>,
}

impl<N: Net> IdlePool<N> {
    pub(super) fn new(queue: Rc<RequestQueue<N>>) -> Self {
        Self {
            list: Vec::new(),
            queue,
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[inline]
    fn push(&mut self, idle: PooledConnection<N>) {
        self.list.push(idle);
        self.queue.idle_changed(1);
    }

    #[inline]
    fn pop(&mut self) -> Option<PooledConnection<N>> {
        let popped = self.list.pop();
        self.queue.idle_changed(-i32::from(popped.is_some()));
        popped
    }

    /// Takes out `client`'s newest connection.
    #[inline]
    fn pop_of(&mut self, client: Option<SocketAddr>) -> Option<PooledConnection<N>> {
        if self.list.last()?.leased.suits(client) {
            return self.pop();
        }
        let newest = self
            .list
            .iter()
            .rposition(|idle| idle.leased.suits(client))?;
        self.queue.idle_changed(-1);
        Some(self.list.remove(newest))
    }

    /// Takes out the connection that has waited longest.
    fn pop_oldest(&mut self) -> Option<PooledConnection<N>> {
        if self.is_empty() {
            return None;
        }
        self.queue.idle_changed(-1);
        Some(self.list.remove(0))
    }

    /// Takes out all connections that `keep` rejects.
    fn take_out(
        &mut self,
        mut keep: impl FnMut(&mut PooledConnection<N>) -> bool,
    ) -> Vec<PooledConnection<N>> {
        let gone: Vec<_> = self.list.extract_if(.., |idle| !keep(idle)).collect();
        self.queue.idle_changed(-(gone.len() as i32));
        gone
    }
}

/// What an attempt needs of a connection.
#[derive(Clone, Copy)]
pub struct ConnectionNeed {
    /// The client that the connection must belong to, if the PROXY protocol names clients to endpoints.
    pub owner: Option<SocketAddr>,
    /// The attempt must open a new connection, because it has found an idle one dead.
    pub must_be_fresh: bool,
    /// The request cannot be repeated, so Weir checks once more that the endpoint has not just closed the connection.
    pub must_recheck: bool,
    /// The request switches protocols and needs an HTTP/1.1 connection of its own.
    pub switches_protocols: bool,
    /// The connection carries bytes that Weir only passes on, so it has no protocol. `switches_protocols` and
    /// `must_be_fresh` are set too.
    pub is_raw: bool,
}

impl<N: Net> Endpoint<N> {
    /// Whether [`Endpoint::take_offer`] would return an offer.
    #[inline]
    pub(super) fn has_room(&self, need: ConnectionNeed) -> bool {
        if self.shares_connections(need) {
            return self.has_shared_room();
        }
        !self.idle.borrow().is_empty() || self.slot.has_room() || self.has_spare_bound()
    }

    /// Whether the request uses a connection that others use too. If the handshake chooses the protocol, a request
    /// that switches protocols gets a connection of its own.
    #[inline]
    pub fn shares_connections(&self, need: ConnectionNeed) -> bool {
        self.protocol.get() == Protocol::Http2 && !(need.switches_protocols && self.uses_tls())
    }

    /// Takes the newest idle connection, or else the right to open one. `None`: the endpoint is at its limit.
    #[inline]
    pub fn take_offer(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        need: ConnectionNeed,
    ) -> Option<ConnectionOffer<N>> {
        if self.shares_connections(need) {
            return self.take_shared();
        }
        if need.must_be_fresh {
            return self.permit_or_closed().map(ConnectionOffer::Connect);
        }
        loop {
            let newest = self.idle.borrow_mut().pop_of(need.owner);
            let Some(PooledConnection { mut leased, .. }) = newest else {
                return self.permit_or_closed().map(ConnectionOffer::Connect);
            };
            if leased.is_open(cx, need.must_recheck) {
                self.slot.count_reuse();
                return Some(ConnectionOffer::Reuse(leased));
            }
            if self.idle.borrow().is_empty() {
                return Some(ConnectionOffer::Connect(leased.close()));
            }
        }
    }

    /// The right to open a connection. At the limit, closes an idle connection for it, even one that serves another
    /// client only.
    fn permit_or_closed(self: &Rc<Self>) -> Option<ConnectionPermit<N>> {
        let closed = || self.idle.borrow_mut().pop().map(|idle| idle.leased.close());
        let permit = self.slot.permit().or_else(closed);
        permit.or_else(|| self.has_spare_bound().then(|| self.close_bound())?)
    }

    /// Checks an offer that an exchange has waited for.
    pub fn accept_offer(
        &self,
        cx: &mut Context<'_>,
        offer: ConnectionOffer<N>,
        need: ConnectionNeed,
    ) -> ConnectionOffer<N> {
        let ConnectionOffer::Reuse(mut leased) = offer else {
            return offer;
        };
        if need.must_be_fresh || !leased.suits(need.owner) || !leased.is_open(cx, need.must_recheck)
        {
            return ConnectionOffer::Connect(leased.close());
        }
        self.slot.count_reuse();
        ConnectionOffer::Reuse(leased)
    }

    /// Pools a connection for the next request, unless enough are idle or it has ended.
    pub fn check_in(self: &Rc<Self>, mut leased: Box<LeasedConnection<N>>, now: Instant) {
        // Bytes after a response are no response to the next request.
        let rx = leased.connection.rx_mut();
        if !rx.is_quiet(false) {
            return;
        }
        rx.expect(0);
        let is_bound = leased.is_bound();
        if self.slot.is_in_demand() {
            let kept = match is_bound {
                // A bound connection is not spare. Queued requests get its slot when it has been unused for a while.
                true => (!self.slot.is_over()).then_some(leased),
                false => self.slot.offer(leased, now),
            };
            match kept {
                Some(back) => leased = back,
                None => return,
            }
        }
        let is_full = !is_bound && self.idle.borrow().list.len() >= self.idle_max.get();
        if self.is_retired.get() || is_full {
            return;
        }
        let reaper = self.slot.reaper();
        let Some(waker) = reaper.waker.take() else {
            return;
        };
        let open = leased
            .connection
            .rx_mut()
            .poll_recv(&mut Context::from_waker(&waker))
            .is_pending();
        reaper.waker.set(Some(waker));
        if !open {
            return;
        }
        if !self.is_watched.replace(true) {
            reaper.watched.borrow_mut().push(Rc::downgrade(self));
        }
        let idle = PooledConnection { leased, since: now };
        match is_bound {
            true => self.bound.borrow_mut().push(idle),
            false => self.idle.borrow_mut().push(idle),
        }
    }

    /// Closes some idle connections of this core, to any endpoint, because it has run out of descriptors. Returns how
    /// many.
    pub fn close_some_idle(&self) -> usize {
        self.slot.reaper().close_some()
    }

    /// Closes all idle connections and pools none any more, because the plan no longer has the endpoint.
    pub fn retire(&self) {
        self.is_retired.set(true);
        while self.close_oldest_idle() || self.close_bound().is_some() {}
        self.wake_shared();
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    pub(super) fn close_oldest_idle(&self) -> bool {
        // The borrow ends before the connection is dropped, which may make another task use the pool.
        let oldest = self.idle.borrow_mut().pop_oldest();
        oldest.is_some()
    }

    /// Closes idle connections while the limit is exceeded.
    pub(super) fn close_excess(&self) {
        while self.slot.is_over() && (self.close_oldest_idle() || self.close_bound().is_some()) {}
    }
}

impl<N: Net> LeasedConnection<N> {
    /// Whether the connection is still open. The caller waits on it next, so its `cx` is registered.
    #[inline]
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>, must_recheck: bool) -> bool {
        let rx = self.connection.rx_mut();
        rx.poll_recv(cx).is_pending() && rx.is_quiet(must_recheck)
    }
}

/// Closes idle connections that end or expire. Each core has one.
pub(super) struct IdleReaper<N: Net> {
    waker: Cell<Option<Waker>>,
    /// Endpoints that may have an idle connection.
    watched: RefCell<Vec<Weak<Endpoint<N>>>>,
}

impl<N: Net> Default for IdleReaper<N> {
    fn default() -> Self {
        Self {
            waker: Cell::new(None),
            watched: RefCell::default(),
        }
    }
}

impl<N: Net> IdleReaper<N> {
    /// Drops connections that their endpoint closes, for as long as the core lives. Connections are pooled from its
    /// first poll on.
    pub(super) async fn run(&self) {
        poll_fn::<(), _>(|cx| {
            self.waker.set(Some(cx.waker().clone()));
            self.retain(|_, idle| {
                let rx = idle.leased.connection.rx_mut();
                rx.poll_recv(cx).is_pending()
            });
            Poll::Pending
        })
        .await;
    }

    /// Closes expired connections, and bound ones that queued requests need.
    pub(super) fn close_expired(&self, now: Instant) {
        self.retain(|endpoint, idle| now.since(idle.since) < endpoint.idle_timeout.get());
        let watched = self.watched.borrow().clone();
        let watched = watched.iter().filter_map(Weak::upgrade);
        watched.for_each(|endpoint| endpoint.close_bound_for_queue(now));
    }

    /// Closes the longest idle connection of each endpoint, up to `IDLE_CLOSED_AT_ONCE`, to free descriptors. Returns
    /// how many.
    pub(super) fn close_some(&self) -> usize {
        let mut closed = 0;
        for endpoint in self.watched.borrow().iter().filter_map(Weak::upgrade) {
            if closed == IDLE_CLOSED_AT_ONCE {
                break;
            }
            let oldest = endpoint.idle.borrow_mut().pop_oldest();
            closed += usize::from(oldest.is_some());
        }
        closed
    }

    fn retain(&self, mut keep: impl FnMut(&Endpoint<N>, &mut PooledConnection<N>) -> bool) {
        self.watched.borrow_mut().retain(|endpoint| {
            let Some(endpoint) = endpoint.upgrade() else {
                return false;
            };
            let mut keep = |idle: &mut PooledConnection<N>| keep(&endpoint, idle);
            let gone = endpoint.idle.borrow_mut().take_out(&mut keep);
            let gone_bound = endpoint
                .bound
                .borrow_mut()
                .extract_if(.., |idle| !keep(idle))
                .collect::<Vec<_>>();
            // Dropping connections may make other tasks use the lists.
            drop((gone, gone_bound));
            let is_empty = endpoint.idle.borrow().is_empty() && endpoint.bound.borrow().is_empty();
            endpoint.is_watched.set(!is_empty);
            !is_empty
        });
    }
}
