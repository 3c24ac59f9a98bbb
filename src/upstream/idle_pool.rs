//! Connections that wait for the next request.
//!
//! The newest is used first, so that the others can grow old and be closed. Every waiting connection keeps a receive
//! armed, heard by the core's one [`IdleReaper`]: when an endpoint closes it, or says something that nobody asked for,
//! it is dropped at once; and whoever takes one out looks again.

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

/// A connection on which a request can be sent at once.
pub(super) struct PooledConnection<N: Net> {
    pub(super) held: LeasedConnection<N>,
    pub(super) since: Instant,
}

/// An endpoint's idle connections, the one used last on top. Other cores are told how many there are.
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

    /// Takes out the newest of those that are `client`'s.
    #[inline]
    fn pop_of(&mut self, client: Option<SocketAddr>) -> Option<PooledConnection<N>> {
        if self.list.last()?.held.suits(client) {
            return self.pop();
        }
        let newest = self.list.iter().rposition(|idle| idle.held.suits(client))?;
        self.queue.idle_changed(-1);
        Some(self.list.remove(newest))
    }

    /// Takes out the one that has waited longest.
    fn pop_oldest(&mut self) -> Option<PooledConnection<N>> {
        if self.is_empty() {
            return None;
        }
        self.queue.idle_changed(-1);
        Some(self.list.remove(0))
    }

    /// Takes out all that are not to be kept.
    fn take_out(
        &mut self,
        mut keep: impl FnMut(&mut PooledConnection<N>) -> bool,
    ) -> Vec<PooledConnection<N>> {
        let gone: Vec<_> = self.list.extract_if(.., |idle| !keep(idle)).collect();
        self.queue.idle_changed(-(gone.len() as i32));
        gone
    }
}

/// What an attempt asks of a connection.
#[derive(Clone, Copy)]
pub struct ConnectionNeed {
    /// Whose connection it must be, where endpoints are told whose each is.
    pub owner: Option<SocketAddr>,
    /// One that has waited will not do: another was found dead.
    pub must_be_fresh: bool,
    /// The request cannot be repeated: ask once more whether the connection is open, its end may have come this very
    /// moment.
    pub must_recheck: bool,
    /// The request switches protocols, which takes a connection of its own: one of HTTP/1.1.
    pub switches_protocols: bool,
}

impl<N: Net> Endpoint<N> {
    /// Whether [`Endpoint::take`] has something to give.
    #[inline]
    pub(super) fn has_room(&self, need: ConnectionNeed) -> bool {
        if self.shares_connections(need) {
            return self.has_shared_room();
        }
        !self.idle.borrow().is_empty() || self.slot.has_room() || self.has_spare_bound()
    }

    /// Whether a request goes on a connection that others are on as well. Where the protocol is agreed on connection by
    /// connection, one that switches gets its own.
    #[inline]
    pub fn shares_connections(&self, need: ConnectionNeed) -> bool {
        self.protocol.get() == Protocol::Http2 && !(need.switches_protocols && self.is_secure())
    }

    /// Takes the newest connection that is still open, else the right to make one. `None`: this core has its share of
    /// what the endpoint may have.
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
            let Some(PooledConnection { mut held, .. }) = newest else {
                return self.permit_or_closed().map(ConnectionOffer::Connect);
            };
            if held.is_open(cx, need.must_recheck) {
                self.slot.reused();
                return Some(ConnectionOffer::Reuse(held));
            }
            if self.idle.borrow().is_empty() {
                return Some(ConnectionOffer::Connect(held.close()));
            }
        }
    }

    /// The right to make a connection; if there is none left, one that waits is closed for it, somebody else's too.
    fn permit_or_closed(self: &Rc<Self>) -> Option<ConnectionPermit<N>> {
        let closed = || self.idle.borrow_mut().pop().map(|idle| idle.held.close());
        let permit = self.slot.permit().or_else(closed);
        permit.or_else(|| self.has_spare_bound().then(|| self.close_bound())?)
    }

    /// Takes what an exchange has waited for.
    pub fn accept_offer(
        &self,
        cx: &mut Context<'_>,
        offer: ConnectionOffer<N>,
        need: ConnectionNeed,
    ) -> ConnectionOffer<N> {
        let ConnectionOffer::Reuse(mut held) = offer else {
            return offer;
        };
        if need.must_be_fresh || !held.suits(need.owner) || !held.is_open(cx, need.must_recheck) {
            return ConnectionOffer::Connect(held.close());
        }
        self.slot.reused();
        ConnectionOffer::Reuse(held)
    }

    /// Keeps a connection for the next request, unless enough wait or it has ended meanwhile.
    pub fn check_in(self: &Rc<Self>, mut held: LeasedConnection<N>, now: Instant) {
        // Bytes behind an answer are no answer to the next request.
        if !held.wire.rx.is_quiet(false) {
            return;
        }
        held.wire.rx.expect(0);
        let is_bound = held.is_bound();
        if self.slot.is_in_demand() {
            let kept = match is_bound {
                // It is not spare: those that wait get it when it has not been used for a while.
                true => (!self.slot.is_over()).then_some(held),
                false => self.slot.offer(held, now),
            };
            match kept {
                Some(back) => held = back,
                None => return,
            }
        }
        let is_full = !is_bound && self.idle.borrow().list.len() >= self.idle_max.get();
        if self.retired.get() || is_full {
            return;
        }
        let reaper = self.slot.reaper();
        let Some(waker) = reaper.waker.take() else {
            return;
        };
        let open = held
            .wire
            .rx
            .poll_recv(&mut Context::from_waker(&waker))
            .is_pending();
        reaper.waker.set(Some(waker));
        if !open {
            return;
        }
        if !self.watched.replace(true) {
            reaper.watched.borrow_mut().push(Rc::downgrade(self));
        }
        let idle = PooledConnection { held, since: now };
        match is_bound {
            true => self.bound.borrow_mut().push(idle),
            false => self.idle.borrow_mut().push(idle),
        }
    }

    /// Closes some idle connections, to whatever endpoints, because this core has run out of descriptors. Returns how
    /// many.
    pub fn close_some_idle(&self) -> usize {
        self.slot.reaper().close_some()
    }

    /// The plan no longer has this endpoint: closes what waits, keeps nothing any more.
    pub fn retire(&self) {
        self.retired.set(true);
        while self.give_up_idle() || self.close_bound().is_some() {}
        self.tell_shared();
    }

    /// Closes the idle connection that has waited longest; says whether there was one.
    pub(super) fn give_up_idle(&self) -> bool {
        // Whoever hears of it may look at the list.
        let oldest = self.idle.borrow_mut().pop_oldest();
        oldest.is_some()
    }

    /// Closes idle connections while there are more than there may be.
    pub(super) fn close_excess(&self) {
        while self.slot.is_over() && (self.give_up_idle() || self.close_bound().is_some()) {}
    }
}

impl<N: Net> LeasedConnection<N> {
    /// Looks whether the connection is still open. `cx` is the caller's: it will wait on the connection next.
    #[inline]
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>, must_recheck: bool) -> bool {
        let rx = &mut self.wire.rx;
        rx.poll_recv(cx).is_pending() && rx.is_quiet(must_recheck)
    }
}

/// Closes idle connections that have ended or grown old. One a core.
pub(super) struct IdleReaper<N: Net> {
    waker: Cell<Option<Waker>>,
    /// Endpoints that have had an idle connection since the last look.
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
    /// Looks after idle connections for as long as the core lives. Connections are kept from its first poll on.
    pub(super) async fn run(&self) {
        poll_fn::<(), _>(|cx| {
            self.waker.set(Some(cx.waker().clone()));
            self.retain(|_, idle| idle.held.wire.rx.poll_recv(cx).is_pending());
            Poll::Pending
        })
        .await;
    }

    /// Closes connections that have waited for longer than their endpoint's limit, and those of clients that others need
    /// more.
    pub(super) fn close_expired(&self, now: Instant) {
        self.retain(|endpoint, idle| now.since(idle.since) < endpoint.idle_timeout.get());
        let watched = self.watched.borrow().clone();
        let watched = watched.iter().filter_map(Weak::upgrade);
        watched.for_each(|endpoint| endpoint.give_up_bound(now));
    }

    /// Closes some of the connections that wait, of each endpoint the one that has waited longest: their descriptors are
    /// needed. Says how many.
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
            let unbound = endpoint
                .bound
                .borrow_mut()
                .extract_if(.., |idle| !keep(idle))
                .collect::<Vec<_>>();
            // Whoever hears of it may look at the lists.
            drop((gone, unbound));
            let is_empty = endpoint.idle.borrow().is_empty() && endpoint.bound.borrow().is_empty();
            endpoint.watched.set(!is_empty);
            !is_empty
        });
    }
}
