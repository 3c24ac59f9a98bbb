//! HTTP/2 connections that exchanges share.
//!
//! A core opens another connection only when its existing ones allow no more streams. Of the exchanges that need one,
//! the first opens it. The others wait until the endpoint's SETTINGS say how many streams it allows, so a burst of
//! requests causes neither a burst of connections nor one of refused streams.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{ConnectionOffer, Endpoint};
use crate::conn::http2::Mux;
use crate::io::{Instant, Net};
use crate::plan::Protocol;

impl<N: Net> Endpoint<N> {
    /// The oldest connection that allows another stream. Choosing the oldest lets the others empty and close.
    pub fn find_shared(&self) -> Option<Rc<Mux<N>>> {
        let shared = self.shared.borrow();
        shared.iter().find(|mux| mux.can_open()).cloned()
    }

    /// Whether there is a shared connection, even a full one.
    pub fn has_shared_connection(&self) -> bool {
        !self.shared.borrow().is_empty()
    }

    /// Adds a fresh connection and reserves its first stream for the exchange that opened it.
    pub(super) fn share(self: &Rc<Self>, mux: Rc<Mux<N>>) -> Option<StreamReservation<N>> {
        self.shared.borrow_mut().push(mux.clone());
        self.reserve(mux)
    }

    /// Closes one connection that was opened before `made_before`, after its last stream, for a request on another
    /// core. Returns whether there was one.
    pub(super) fn end_old_shared(&self, made_before: Instant) -> bool {
        let shared = self.shared.borrow();
        let may_end = |mux: &&Rc<Mux<N>>| !mux.is_leaving() && mux.opened_at() < made_before;
        let mux = shared.iter().find(may_end);
        mux.inspect(|mux| mux.set_leaving(true)).is_some()
    }

    /// Cancels the close of connections that have not closed yet, because no request waits on another core any more.
    pub(super) fn reopen_shared(self: &Rc<Self>) {
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

    /// Removes a connection that has ended.
    pub fn remove_shared(&self, mux: &Rc<Mux<N>>) {
        self.shared
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, mux));
    }

    /// Announces that the caller opens a shared connection. Others wait for it until the guard is dropped.
    pub fn begin_connecting(self: &Rc<Self>) -> ConnectingGuard<N> {
        self.is_connecting.set(true);
        self.was_abandoned.set(false);
        ConnectingGuard {
            endpoint: self.clone(),
        }
    }

    /// Whether there is no shared connection and the endpoint caused the last one to fail.
    pub(super) fn refused_shared(&self) -> bool {
        let is_http2 = self.protocol.get() == Protocol::Http2;
        is_http2 && !self.has_shared_connection() && !self.was_abandoned.get()
    }

    /// Reserves a stream on a shared connection, or else returns the right to open one. If another exchange is opening
    /// one, returns the offer to wait for it.
    pub(super) fn take_shared(self: &Rc<Self>) -> Option<ConnectionOffer<N>> {
        if !self.slot.count.has_request_room() {
            return None;
        }
        if let Some(mux) = self.find_shared() {
            return self.reserve(mux).map(ConnectionOffer::Stream);
        }
        if self.is_connecting.get() {
            return Some(ConnectionOffer::Await);
        }
        self.slot.permit().map(ConnectionOffer::Connect)
    }

    /// Whether [`Endpoint::take_shared`] would return an offer.
    pub(super) fn has_shared_room(&self) -> bool {
        self.slot.count.has_request_room()
            && (self.find_shared().is_some() || self.is_connecting.get() || self.slot.has_room())
    }

    /// Offers a stream to the first request in the queue. Returns whether there were both.
    pub(super) fn offer_stream(self: &Rc<Self>) -> bool {
        if !self.slot.queue.has_waiters() {
            return false;
        }
        let (slot, Some(mux)) = (&self.slot, self.find_shared()) else {
            return false;
        };
        let Some(is_counted) = slot.count.begin_request() else {
            return false;
        };
        let Some(waiter) = slot.queue.first_for(slot, true) else {
            if is_counted {
                slot.count.end_request();
            }
            return false;
        };
        waiter.give(ConnectionOffer::Stream(StreamReservation {
            is_counted,
            endpoint: self.clone(),
            mux,
        }));
        true
    }

    /// Offers up to `room` streams.
    pub(super) fn offer_streams(self: &Rc<Self>, room: u32) {
        for _ in 0..room {
            if !self.offer_stream() {
                return;
            }
        }
    }

    /// Reserves a stream, if the endpoint may have another request.
    fn reserve(self: &Rc<Self>, mux: Rc<Mux<N>>) -> Option<StreamReservation<N>> {
        Some(StreamReservation {
            is_counted: self.slot.count.begin_request()?,
            endpoint: self.clone(),
            mux,
        })
    }

    /// Waits while another exchange opens a shared connection. `registered` is state of the caller, `None` at first: the
    /// opening for which the caller's waker is registered.
    pub fn poll_connected(&self, cx: &mut Context<'_>, registered: &mut Option<u32>) -> Poll<()> {
        if !self.is_connecting.get() {
            return Poll::Ready(());
        }
        let joined = self.connections_tried.get();
        if registered.replace(joined) != Some(joined) {
            self.awaiting_connection
                .borrow_mut()
                .push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether idle connections to the endpoint should stay open.
    pub fn keeps_idle(&self) -> bool {
        !self.is_retired.get()
    }

    /// How long a connection may be idle.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.get()
    }

    /// Wakes the tasks of shared connections, because the endpoint has left the plan.
    pub(super) fn wake_shared(&self) {
        self.shared.borrow().iter().for_each(|mux| mux.wake());
    }
}

/// A stream of a shared connection, reserved for a request. Dropping it offers the freed stream to the next request in
/// the queue.
pub struct StreamReservation<N: Net> {
    /// It counts as one of the endpoint's requests.
    is_counted: bool,
    endpoint: Rc<Endpoint<N>>,
    mux: Rc<Mux<N>>,
}

impl<N: Net> StreamReservation<N> {
    /// Confirms the reservation. `None`: other requests have opened streams since, and none is left.
    pub fn confirm(self) -> Option<Self> {
        if !self.mux.can_open() {
            return None;
        }
        self.endpoint.slot.count_reuse();
        Some(self)
    }

    /// The connection.
    pub(super) fn mux(&self) -> &Rc<Mux<N>> {
        &self.mux
    }
}

impl<N: Net> Drop for StreamReservation<N> {
    fn drop(&mut self) {
        if self.is_counted {
            self.endpoint.slot.count.end_request();
        }
        self.endpoint.offer_stream();
    }
}

/// Announces that an exchange is opening a shared connection. When the guard is dropped, the exchanges that wait for
/// the connection ask for an offer again.
pub struct ConnectingGuard<N: Net> {
    endpoint: Rc<Endpoint<N>>,
}

impl<N: Net> ConnectingGuard<N> {
    /// Records that the exchange gave up for a reason of its own, not because of the endpoint.
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
