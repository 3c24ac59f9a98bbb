//! Connections to endpoints that serve one client's connection only.
//!
//! NTLM and Negotiate (RFC 4559) authenticate a connection, not a request: each request on it has the identity of the
//! one before. So a connection leaves the pool when its endpoint asks for such authentication. It then belongs to the
//! client's connection whose request was challenged until one of the two ends, and counts against the endpoint's limit
//! like any other. Only the endpoint's answer binds a connection. If a client's request could, clients could use up
//! the pool. An endpoint that has asked once may accept later credentials without a challenge, so a connection that
//! carried unasked credentials to that endpoint ends with its answer.

use std::rc::{Rc, Weak};
use std::task::Context;
use std::time::Duration;

use super::idle_pool::PooledConnection;
use super::{ConnectionOffer, Endpoint, LeasedConnection, Upstream};
use crate::conn::ClientBindings;
use crate::io::{Instant, Net};
use crate::limits::BOUND_KEPT_MS;
use crate::plan::EndpointState;

/// Lives as long as the bound connection, which owns it.
pub struct BindingToken;

/// One endpoint connection of a client's connection, at most one for each upstream. Dropping the binding closes it;
/// that happens when the client's connection ends.
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
    /// Binds a connection to the client's. `None`: the client already has one to this upstream, and this connection
    /// must serve no further request.
    pub fn bind(
        &self,
        client: &ClientBindings,
        endpoint: &Rc<Endpoint<N>>,
    ) -> Option<Rc<BindingToken>> {
        endpoint.slot.record_authentication();
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

    /// Takes the client's own connection to this upstream. `None`: there is none, it has ended, or it serves another
    /// request of the client.
    pub fn take_bound(
        &self,
        cx: &mut Context<'_>,
        client: &ClientBindings,
        must_recheck: bool,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let (index, endpoint, bound) = self.find_bound(client)?;
        // Under a drain, a client finishes on the connection that it has.
        let spec = self.set.endpoints.get(index as usize);
        if spec.is_some_and(|spec| spec.state == EndpointState::Maintenance) {
            return None;
        }
        let mut leased = endpoint.take_bound(&bound)?;
        if !leased.is_open(cx, must_recheck) {
            return None;
        }
        endpoint.slot.count_reuse();
        Some((index, ConnectionOffer::Reuse(leased)))
    }

    /// The endpoint that the client has a bound connection to, with its index.
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
    /// Whether the endpoint has asked for authentication that holds for a connection.
    #[inline]
    pub fn authenticates(&self) -> bool {
        self.slot.authenticates()
    }

    /// Takes out a bound connection that waits for its client's next request.
    fn take_bound(&self, bound: &Rc<BindingToken>) -> Option<Box<LeasedConnection<N>>> {
        let mut waiting = self.bound.borrow_mut();
        let at = waiting
            .iter()
            .position(|idle| idle.leased.is_bound_by(bound))?;
        Some(waiting.remove(at).leased)
    }

    /// Whether a bound connection may be closed for a request that finds no other. While requests are queued, they get
    /// bound connections from [`Endpoint::close_bound_for_queue`] instead.
    pub(super) fn has_spare_bound(&self) -> bool {
        !self.bound.borrow().is_empty() && self.slot.waiting() == 0
    }

    /// Closes the bound connection that has waited longest. Its permit serves for a new one.
    #[cold]
    pub(super) fn close_bound(&self) -> Option<super::ConnectionPermit<N>> {
        let mut waiting = self.bound.borrow_mut();
        let oldest = (!waiting.is_empty()).then(|| waiting.remove(0));
        drop(waiting);
        oldest.map(|idle| idle.leased.close())
    }

    /// Closes bound connections for queued requests. Keeps those used within `BOUND_KEPT_MS`: a handshake takes
    /// several requests, and must be able to finish while others wait.
    pub(super) fn close_bound_for_queue(&self, now: Instant) {
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
            // Dropping the connection may make another task use the list.
            drop(waiting);
            drop(oldest);
        }
    }
}
