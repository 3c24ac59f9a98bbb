//! Connections that wait for the next request.
//!
//! The newest is used first, so that the others can grow old and be closed. Every waiting connection keeps a receive
//! armed, heard by the core's one [`Reaper`]: when an endpoint closes it, or says something that nobody asked for,
//! it is dropped at once; and whoever takes one out looks again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::queue::Queue;
use super::{Endpoint, Held, Permit, Turn};
use crate::io::{Instant, Net, Rx};
use crate::limits::IDLE_CLOSED_AT_ONCE;
use crate::plan::Protocol;

/// A connection on which a request can be sent at once.
pub(super) struct Idle<N: Net> {
    pub(super) held: Held<N>,
    pub(super) since: Instant,
}

/// An endpoint's idle connections, the one used last on top. Other cores are told how many there are.
pub(super) struct IdleList<N: Net> {
    list: Vec<Idle<N>>,
    queue: Rc<Queue<N>>,
}

impl<N: Net> IdleList<N> {
    pub(super) fn new(queue: Rc<Queue<N>>) -> Self {
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
    fn push(&mut self, idle: Idle<N>) {
        self.list.push(idle);
        self.queue.idle_changed(1);
    }

    #[inline]
    fn pop(&mut self) -> Option<Idle<N>> {
        let popped = self.list.pop();
        self.queue.idle_changed(-i32::from(popped.is_some()));
        popped
    }

    /// Takes out the newest of those that are `client`'s.
    #[inline]
    fn pop_of(&mut self, client: Option<SocketAddr>) -> Option<Idle<N>> {
        if self.list.last()?.held.suits(client) {
            return self.pop();
        }
        let newest = self.list.iter().rposition(|idle| idle.held.suits(client))?;
        self.queue.idle_changed(-1);
        Some(self.list.remove(newest))
    }

    /// Takes out the one that has waited longest.
    fn pop_oldest(&mut self) -> Option<Idle<N>> {
        if self.is_empty() {
            return None;
        }
        self.queue.idle_changed(-1);
        Some(self.list.remove(0))
    }

    /// Takes out all that are not to be kept.
    fn take_out(&mut self, mut keep: impl FnMut(&mut Idle<N>) -> bool) -> Vec<Idle<N>> {
        let gone: Vec<_> = self.list.extract_if(.., |idle| !keep(idle)).collect();
        self.queue.idle_changed(-(gone.len() as i32));
        gone
    }
}

/// What an attempt asks of a connection.
#[derive(Clone, Copy)]
pub struct Need {
    /// Whose connection it must be, where endpoints are told whose each is.
    pub owner: Option<SocketAddr>,
    /// One that has waited will not do: another was found dead.
    pub fresh: bool,
    /// The request cannot be repeated: ask once more whether the connection is open, its end may have come this very
    /// moment.
    pub sure: bool,
    /// The request switches protocols, which takes a connection of its own: one of HTTP/1.1.
    pub switches: bool,
}

impl<N: Net> Endpoint<N> {
    /// Whether [`Endpoint::take`] has something to give.
    #[inline]
    pub(super) fn has_room(&self, need: Need) -> bool {
        if self.shares(need) {
            return self.has_shared_room();
        }
        !self.idle.borrow().is_empty() || self.place.has_room() || self.has_spare_bound()
    }

    /// Whether a request goes on a connection that others are on as well. Where the protocol is agreed on connection by
    /// connection, one that switches gets its own.
    #[inline]
    pub fn shares(&self, need: Need) -> bool {
        self.protocol.get() == Protocol::Http2 && !(need.switches && self.is_secure())
    }

    /// Takes the newest connection that is still open, else the right to make one. `None`: this core has its share of
    /// what the endpoint may have.
    #[inline]
    pub fn take(self: &Rc<Self>, cx: &mut Context<'_>, need: Need) -> Option<Turn<N>> {
        if self.shares(need) {
            return self.take_shared();
        }
        if need.fresh {
            return self.permit_or_closed().map(Turn::Connect);
        }
        loop {
            let newest = self.idle.borrow_mut().pop_of(need.owner);
            let Some(Idle { mut held, .. }) = newest else {
                return self.permit_or_closed().map(Turn::Connect);
            };
            if held.is_open(cx, need.sure) {
                self.place.reused();
                return Some(Turn::Reuse(held));
            }
            if self.idle.borrow().is_empty() {
                return Some(Turn::Connect(held.close()));
            }
        }
    }

    /// The right to make a connection; if there is none left, one that waits is closed for it, somebody else's too.
    fn permit_or_closed(self: &Rc<Self>) -> Option<Permit<N>> {
        let closed = || self.idle.borrow_mut().pop().map(|idle| idle.held.close());
        let permit = self.place.permit().or_else(closed);
        permit.or_else(|| self.has_spare_bound().then(|| self.close_bound())?)
    }

    /// Takes what an exchange has waited for.
    pub fn accept(&self, cx: &mut Context<'_>, turn: Turn<N>, need: Need) -> Turn<N> {
        let Turn::Reuse(mut held) = turn else {
            return turn;
        };
        if need.fresh || !held.suits(need.owner) || !held.is_open(cx, need.sure) {
            return Turn::Connect(held.close());
        }
        self.place.reused();
        Turn::Reuse(held)
    }

    /// Keeps a connection for the next request, unless enough wait or it has ended meanwhile.
    pub fn checkin(self: &Rc<Self>, mut held: Held<N>, now: Instant) {
        // Bytes behind an answer are no answer to the next request.
        if !held.wire.rx.is_quiet(false) {
            return;
        }
        held.wire.rx.expect(0);
        let is_bound = held.is_bound();
        if self.place.is_in_demand() {
            let kept = match is_bound {
                // It is not spare: those that wait get it when it has not been used for a while.
                true => (!self.place.is_over()).then_some(held),
                false => self.place.offer(held, now),
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
        let reaper = self.place.reaper();
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
        let idle = Idle { held, since: now };
        match is_bound {
            true => self.bound.borrow_mut().push(idle),
            false => self.idle.borrow_mut().push(idle),
        }
    }

    /// Closes some idle connections, to whatever endpoints, because this core has run out of descriptors. Returns how
    /// many.
    pub fn close_some_idle(&self) -> usize {
        self.place.reaper().close_some()
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
        while self.place.is_over() && (self.give_up_idle() || self.close_bound().is_some()) {}
    }
}

impl<N: Net> Held<N> {
    /// Looks whether the connection is still open. `cx` is the caller's: it will wait on the connection next.
    #[inline]
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>, sure: bool) -> bool {
        let rx = &mut self.wire.rx;
        rx.poll_recv(cx).is_pending() && rx.is_quiet(sure)
    }
}

/// Closes idle connections that have ended or grown old. One a core.
pub(super) struct Reaper<N: Net> {
    waker: Cell<Option<Waker>>,
    /// Endpoints that have had an idle connection since the last look.
    watched: RefCell<Vec<Weak<Endpoint<N>>>>,
}

impl<N: Net> Default for Reaper<N> {
    fn default() -> Self {
        Self {
            waker: Cell::new(None),
            watched: RefCell::default(),
        }
    }
}

impl<N: Net> Reaper<N> {
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
    pub(super) fn close_old(&self, now: Instant) {
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

    fn retain(&self, mut keep: impl FnMut(&Endpoint<N>, &mut Idle<N>) -> bool) {
        self.watched.borrow_mut().retain(|endpoint| {
            let Some(endpoint) = endpoint.upgrade() else {
                return false;
            };
            let mut keep = |idle: &mut Idle<N>| keep(&endpoint, idle);
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
