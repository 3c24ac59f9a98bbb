//! The right to one connection to an endpoint, and a connection that has it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::client_binding::BindingToken;
use super::endpoint_slot::EndpointSlot;
use crate::conn::Wire;
use crate::io::{Instant, Net};

/// The right to one connection. Dropping it gives it back, to the first that waits.
pub struct ConnectionPermit<N: Net> {
    slot: Rc<EndpointSlot<N>>,
    /// When the connection was made.
    opened: Option<Instant>,
}

/// A connection with its permit.
pub struct LeasedConnection<N: Net> {
    /// The connection.
    pub wire: Wire<N>,
    /// Its permit.
    pub permit: ConnectionPermit<N>,
    /// Whose it is; `None` for anybody's.
    pub owner: Option<ConnectionOwner>,
}

/// The one client whose requests go on a connection.
pub enum ConnectionOwner {
    /// The endpoint was told that it is this address.
    Told(SocketAddr),
    /// The endpoint has authenticated the connection, or is about to.
    Bound(Rc<BindingToken>),
}

impl<N: Net> LeasedConnection<N> {
    /// Whether a request may go on it that is of this client, where endpoints are told whose each connection is.
    #[inline]
    pub(super) fn suits(&self, client: Option<SocketAddr>) -> bool {
        match (&self.owner, client) {
            (None, None) => true,
            (Some(ConnectionOwner::Told(owner)), Some(client)) => *owner == client,
            _ => false,
        }
    }

    /// Whether it serves one client's connection alone.
    pub fn is_bound(&self) -> bool {
        matches!(self.owner, Some(ConnectionOwner::Bound(_)))
    }

    pub(super) fn is_bound_by(&self, bound: &Rc<BindingToken>) -> bool {
        matches!(&self.owner, Some(ConnectionOwner::Bound(own)) if Rc::ptr_eq(own, bound))
    }

    /// Closes the connection and keeps the right to another.
    pub(super) fn close(self) -> ConnectionPermit<N> {
        let mut permit = self.permit;
        permit.close();
        permit
    }
}

impl<N: Net> ConnectionPermit<N> {
    /// For one more connection, which the slot has counted.
    pub(super) fn new(slot: Rc<EndpointSlot<N>>) -> Self {
        Self { slot, opened: None }
    }

    /// The connection was made.
    pub fn lease(
        mut self,
        wire: Wire<N>,
        owner: Option<SocketAddr>,
        now: Instant,
    ) -> LeasedConnection<N> {
        self.opened = Some(now);
        self.slot.opened();
        LeasedConnection {
            wire,
            permit: self,
            owner: owner.map(ConnectionOwner::Told),
        }
    }

    /// How long the connection has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.since(self.opened.unwrap_or_default())
    }

    /// The connection spoke HTTP/2 and has ended for an error.
    pub fn http2_failed(&self, error: weir_proto_h2::Error) {
        self.slot.http2_failed(error);
    }

    /// The connection could not be made.
    pub fn report_failure(self) {
        self.slot.connect_failed();
    }

    fn close(&mut self) {
        if self.opened.take().is_some() {
            self.slot.closed();
        }
    }
}

impl<N: Net> Drop for ConnectionPermit<N> {
    fn drop(&mut self) {
        self.close();
        self.slot.release();
    }
}
