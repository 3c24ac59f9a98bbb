//! The right to a connection to an endpoint, and a connection with that right.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::client_binding::BindingToken;
use super::endpoint_slot::EndpointSlot;
use crate::conn::{Wire, http1};
use crate::io::{Instant, Net, Pool};

/// The right to one connection. Dropping the permit gives the right to the next queued request.
pub struct ConnectionPermit<N: Net> {
    slot: Rc<EndpointSlot<N>>,
    /// When the connection was opened.
    opened: Option<Instant>,
}

/// A connection and its permit. It lives in a box from its first request to its end, because it moves several times
/// with each request.
pub struct LeasedConnection<N: Net> {
    /// The connection.
    pub connection: http1::UpstreamConnection<N>,
    /// The permit, which is dropped after the connection is closed.
    pub permit: ConnectionPermit<N>,
    /// The only client that may use it; `None` if any may.
    pub owner: Option<ConnectionOwner>,
}

/// The only client that may use a connection.
pub enum ConnectionOwner {
    /// The PROXY protocol header named this address to the endpoint.
    Named(SocketAddr),
    /// The endpoint has authenticated the connection, or is doing so.
    Bound(Rc<BindingToken>),
}

impl<N: Net> LeasedConnection<N> {
    /// Whether a request of this client may use it. `client` is `None` if the PROXY protocol is not used.
    #[inline]
    pub(super) fn suits(&self, client: Option<SocketAddr>) -> bool {
        match (&self.owner, client) {
            (None, None) => true,
            (Some(ConnectionOwner::Named(owner)), Some(client)) => *owner == client,
            _ => false,
        }
    }

    /// Whether it is bound to one client's connection.
    pub(super) fn is_bound(&self) -> bool {
        matches!(self.owner, Some(ConnectionOwner::Bound(_)))
    }

    /// Whether it is bound to the client's connection that holds this token.
    pub(super) fn is_bound_by(&self, bound: &Rc<BindingToken>) -> bool {
        matches!(&self.owner, Some(ConnectionOwner::Bound(own)) if Rc::ptr_eq(own, bound))
    }

    /// Closes the connection and returns its permit, which allows another.
    pub fn close(self) -> ConnectionPermit<N> {
        let mut permit = self.permit;
        permit.close();
        permit
    }
}

impl<N: Net> ConnectionPermit<N> {
    /// Makes a permit for a connection that the slot has counted.
    pub(super) fn new(slot: Rc<EndpointSlot<N>>) -> Self {
        Self { slot, opened: None }
    }

    /// Records that the connection was opened.
    pub fn lease(
        mut self,
        wire: Wire<N>,
        pool: &Pool,
        owner: Option<SocketAddr>,
        now: Instant,
    ) -> Box<LeasedConnection<N>> {
        self.opened = Some(now);
        self.slot.count_opened();
        Box::new(LeasedConnection {
            connection: http1::UpstreamConnection::new(wire, pool),
            permit: self,
            owner: owner.map(ConnectionOwner::Named),
        })
    }

    /// How long the connection has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.since(self.opened.unwrap_or_default())
    }

    /// Counts an HTTP/2 connection that ended with an error.
    pub fn count_http2_failure(&self, error: weir_proto_h2::Error) {
        self.slot.count_http2_failure(error);
    }

    /// Counts a connection that could not be opened.
    pub fn report_failure(self) {
        self.slot.count_connect_failure();
    }

    fn close(&mut self) {
        if self.opened.take().is_some() {
            self.slot.count_closed();
        }
    }
}

impl<N: Net> Drop for ConnectionPermit<N> {
    fn drop(&mut self) {
        self.close();
        self.slot.release();
    }
}
