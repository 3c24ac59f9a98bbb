//! Connections to endpoints that serve one client's connection and no other.
//!
//! NTLM and Negotiate (RFC 4559) authenticate a connection and not a request: whoever sends the next request on it has
//! the identity of who sent the last. So a connection on which an endpoint asks for that leaves the pool. It belongs to
//! the client's connection whose request was challenged until either ends, and counts against the endpoint's limit like
//! any other. Only the endpoint's answer binds: what a client sends does not, or clients could use the pool up. An endpoint
//! that has asked once may also take credentials that come unasked and say nothing: such a connection ends with its answer.

use std::rc::{Rc, Weak};
use std::task::Context;
use std::time::Duration;

use super::idle_pool::PooledConnection;
use super::{ConnectionOffer, Endpoint, LeasedConnection, Upstream};
use crate::conn::ClientBindings;
use crate::io::{Instant, Net};
use crate::limits::BOUND_KEPT_MS;

/// What a bound connection has in hand: it is there as long as the connection is.
pub struct BindingToken;

/// A connection to an endpoint that belongs to a client's connection; one of each upstream at most. Dropping it, as the
/// client's connection ends, closes the endpoint's.
struct ClientBinding<N: Net> {
    endpoint: Weak<Endpoint<N>>,
    bound: Weak<BindingToken>,
}

impl<N: Net> Drop for ClientBinding<N> {
    fn drop(&mut self) {
        if let (Some(endpoint), Some(bound)) = (self.endpoint.upgrade(), self.bound.upgrade()) {
            drop(endpoint.take_bound(&bound));
        }
    }
}

impl<N: Net> Upstream<N> {
    /// Binds a connection to an endpoint of this upstream to the client's that has these bindings. `None`: the client
    /// has another, and this one is to serve nobody.
    pub fn bind(
        &self,
        client: &ClientBindings,
        endpoint: &Rc<Endpoint<N>>,
    ) -> Option<Rc<BindingToken>> {
        endpoint.slot.has_authenticated();
        if self.find_bound(client).is_some() {
            return None;
        }
        let bound = Rc::new(BindingToken);
        client.add(ClientBinding {
            endpoint: Rc::downgrade(endpoint),
            bound: Rc::downgrade(&bound),
        });
        Some(bound)
    }

    /// Takes the client's own connection to an endpoint of this upstream. `None`: there is none, it has ended, or another
    /// request of the client is on it.
    pub fn take_bound(
        &self,
        cx: &mut Context<'_>,
        client: &ClientBindings,
        must_recheck: bool,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let (index, endpoint, bound) = self.find_bound(client)?;
        let mut held = endpoint.take_bound(&bound)?;
        if !held.is_open(cx, must_recheck) {
            return None;
        }
        endpoint.slot.reused();
        Some((index, ConnectionOffer::Reuse(held)))
    }

    /// The endpoint of this upstream that the client has a connection to, and its number.
    fn find_bound(
        &self,
        client: &ClientBindings,
    ) -> Option<(u32, Rc<Endpoint<N>>, Rc<BindingToken>)> {
        client.retain(|binding: &ClientBinding<N>| binding.bound.strong_count() > 0);
        client.find_map(|binding: &ClientBinding<N>| {
            let (endpoint, bound) = (binding.endpoint.upgrade()?, binding.bound.upgrade()?);
            let mut endpoints = (0..).zip(&self.endpoints);
            let (index, _) = endpoints.find(|(_, other)| Rc::ptr_eq(other, &endpoint))?;
            Some((index, endpoint, bound))
        })
    }
}

impl<N: Net> Endpoint<N> {
    /// Whether it has asked for authentication that holds for a connection.
    #[inline]
    pub fn authenticates(&self) -> bool {
        self.slot.authenticates()
    }

    /// Takes out a bound connection that waits for its client's next request.
    fn take_bound(&self, bound: &Rc<BindingToken>) -> Option<LeasedConnection<N>> {
        let mut waiting = self.bound.borrow_mut();
        let at = waiting
            .iter()
            .position(|idle| idle.held.is_bound_by(bound))?;
        Some(waiting.remove(at).held)
    }

    /// Whether a bound connection may be closed for a request that finds no other: not while others wait for that, who
    /// get it from [`Endpoint::give_up_bound`].
    pub(super) fn has_spare_bound(&self) -> bool {
        !self.bound.borrow().is_empty() && self.slot.waiting() == 0
    }

    /// Closes the bound connection that has waited longest and keeps the right to another.
    #[cold]
    pub(super) fn close_bound(&self) -> Option<super::ConnectionPermit<N>> {
        let mut waiting = self.bound.borrow_mut();
        let oldest = (!waiting.is_empty()).then(|| waiting.remove(0));
        drop(waiting);
        oldest.map(|idle| idle.held.close())
    }

    /// Closes bound connections for requests that wait for a connection. Those that were in use a moment ago are kept: a
    /// handshake takes several requests, and could otherwise never end while others wait.
    pub(super) fn give_up_bound(&self, now: Instant) {
        let kept = Duration::from_millis(BOUND_KEPT_MS);
        for _ in 0..self.slot.waiting() {
            let mut waiting = self.bound.borrow_mut();
            if waiting
                .first()
                .is_none_or(|idle: &PooledConnection<N>| now.since(idle.since) < kept)
            {
                return;
            }
            let oldest = waiting.remove(0);
            // Whoever hears of it may look at the list.
            drop(waiting);
            drop(oldest);
        }
    }
}
