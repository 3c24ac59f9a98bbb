//! Connections that exchanges share: HTTP/2.
//!
//! A core makes another only when those that it has take no more requests. Of the exchanges that find none, one makes
//! it and the others wait until the endpoint has said how many it takes: a burst of requests is neither a burst of
//! connections nor one of refusals.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{ConnectionOffer, Endpoint};
use crate::conn::http2::Mux;
use crate::io::{Instant, Net};
use crate::plan::Protocol;

impl<N: Net> Endpoint<N> {
    /// A connection that takes another request: of several the one that was made first, so that the others can empty
    /// and end.
    pub fn find_shared(&self) -> Option<Rc<Mux<N>>> {
        let shared = self.shared.borrow();
        shared.iter().find(|mux| mux.can_open()).cloned()
    }

    /// Whether there is a connection that exchanges share, be it full.
    pub fn has_shared_connection(&self) -> bool {
        !self.shared.borrow().is_empty()
    }

    /// Takes a fresh connection in, and reserves its first stream for the exchange that has made it.
    pub(super) fn share(self: &Rc<Self>, mux: Rc<Mux<N>>) -> StreamReservation<N> {
        self.shared.borrow_mut().push(mux.clone());
        self.reserve(mux)
    }

    /// Has a connection end for a request that waits on another core, if one was made before `made_before`; says whether
    /// there was one. It takes no more requests.
    pub(super) fn give_up_shared(&self, made_before: Instant) -> bool {
        let shared = self.shared.borrow();
        let may_end = |mux: &&Rc<Mux<N>>| !mux.is_leaving() && mux.opened_at() < made_before;
        let mux = shared.iter().find(may_end);
        mux.inspect(|mux| mux.set_leaving(true)).is_some()
    }

    /// Nobody waits elsewhere any more: connections that were to end and have not take requests again.
    pub(super) fn keep_shared(self: &Rc<Self>) {
        let was_leaving = |mux: &&Rc<Mux<N>>| mux.is_leaving();
        let leaving: Vec<_> = self
            .shared
            .borrow()
            .iter()
            .filter(was_leaving)
            .cloned()
            .collect();
        if !leaving.is_empty() {
            leaving.iter().for_each(|mux| mux.set_leaving(false));
            self.offer_streams(self.slot.queue.count.waiting());
        }
    }

    /// Forgets a connection that is over.
    pub fn unshare(&self, mux: &Rc<Mux<N>>) {
        self.shared
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, mux));
    }

    /// Says that a connection is being made for all that wait for one, until what is returned is dropped.
    pub fn begin_connecting(self: &Rc<Self>) -> ConnectingGuard<N> {
        self.is_connecting.set(true);
        self.was_abandoned.set(false);
        ConnectingGuard {
            endpoint: self.clone(),
        }
    }

    /// Whether the last shared connection could not be made, and the endpoint was the cause.
    pub(super) fn refused_shared(&self) -> bool {
        let is_http2 = self.protocol.get() == Protocol::Http2;
        is_http2 && !self.has_shared_connection() && !self.was_abandoned.get()
    }

    /// Takes a place on a connection that others share, else the right to make one, unless one is being made.
    pub(super) fn take_shared(self: &Rc<Self>) -> Option<ConnectionOffer<N>> {
        if let Some(mux) = self.find_shared() {
            return Some(ConnectionOffer::Stream(self.reserve(mux)));
        }
        if self.is_connecting.get() {
            return Some(ConnectionOffer::Await);
        }
        self.slot.permit().map(ConnectionOffer::Connect)
    }

    /// Whether [`Endpoint::take_shared`] has something to give.
    pub(super) fn has_shared_room(&self) -> bool {
        self.find_shared().is_some() || self.is_connecting.get() || self.slot.has_room()
    }

    /// Gives room on a connection to the first that waits for the endpoint; says whether there was both.
    pub(super) fn offer_stream(self: &Rc<Self>) -> bool {
        if let Some(mux) = self.find_shared()
            && let Some(waiter) = self.slot.first()
        {
            waiter.give(ConnectionOffer::Stream(self.reserve(mux)));
            return true;
        }
        false
    }

    /// Gives room for so many more.
    pub(super) fn offer_streams(self: &Rc<Self>, room: u32) {
        for _ in 0..room {
            if !self.offer_stream() {
                return;
            }
        }
    }

    fn reserve(self: &Rc<Self>, mux: Rc<Mux<N>>) -> StreamReservation<N> {
        StreamReservation {
            endpoint: self.clone(),
            mux,
        }
    }

    /// Waits until nobody makes a connection. `listed` is the wait's own, `None` at first: which connection it is known
    /// to wait for.
    pub fn poll_connected(&self, cx: &mut Context<'_>, listed: &mut Option<u32>) -> Poll<()> {
        if !self.is_connecting.get() {
            return Poll::Ready(());
        }
        let joined = self.connections_tried.get();
        if listed.replace(joined) != Some(joined) {
            self.awaiting_connection
                .borrow_mut()
                .push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether connections to the endpoint are still wanted when nothing is asked on them.
    pub fn keeps(&self) -> bool {
        !self.retired.get()
    }

    /// How long one may wait.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.get()
    }

    /// Has the tasks of shared connections look at what has changed.
    pub(super) fn tell_shared(&self) {
        self.shared.borrow().iter().for_each(|mux| mux.wake());
    }
}

/// One stream of a shared connection, reserved for a request. Dropping it offers the room to the next that waits.
pub struct StreamReservation<N: Net> {
    endpoint: Rc<Endpoint<N>>,
    mux: Rc<Mux<N>>,
}

impl<N: Net> StreamReservation<N> {
    /// Confirms the reservation. `None`: others have opened streams meanwhile, and none is left.
    pub fn confirm(self) -> Option<Self> {
        if !self.mux.can_open() {
            return None;
        }
        self.endpoint.slot.reused();
        Some(self)
    }

    /// The connection.
    pub(super) fn mux(&self) -> &Rc<Mux<N>> {
        &self.mux
    }
}

impl<N: Net> Drop for StreamReservation<N> {
    fn drop(&mut self) {
        self.endpoint.offer_stream();
    }
}

/// A connection that is being made, until others can use it. When it is dropped, those that wait look again.
pub struct ConnectingGuard<N: Net> {
    endpoint: Rc<Endpoint<N>>,
}

impl<N: Net> ConnectingGuard<N> {
    /// It is not made, but for no failure of the endpoint's.
    pub fn abandon(&self) {
        self.endpoint.was_abandoned.set(true);
    }
}

impl<N: Net> Drop for ConnectingGuard<N> {
    fn drop(&mut self) {
        self.endpoint.is_connecting.set(false);
        let joined = &self.endpoint.connections_tried;
        joined.set(joined.get().wrapping_add(1));
        let waiting = std::mem::take(&mut *self.endpoint.awaiting_connection.borrow_mut());
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}
