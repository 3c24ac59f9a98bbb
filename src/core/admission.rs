//! The right of a connection to be served.

use std::net::IpAddr;
use std::rc::Rc;

use super::{ClientCounters, Core, CoreListener};
use crate::fault::Reason;
use crate::io::Net;
use crate::limits::IDLE_CONNECTION_BYTES;
use crate::shared::Ordering;

/// The right of one connection to be served. Dropping it counts the connection out.
pub struct Admission<N: Net> {
    core: Rc<Core<N>>,
    /// The listener that accepted the connection.
    pub listener: Rc<CoreListener>,
    /// `None` while the client's address is not known.
    client: Option<ClientCounters>,
}

impl<N: Net> Admission<N> {
    /// Counts a connection in. `client` is `None` while the client's address is not known.
    ///
    /// # Errors
    /// The listener or the client has as many connections as it may have.
    pub fn new(
        core: &Rc<Core<N>>,
        listener: &Rc<CoreListener>,
        client: Option<IpAddr>,
    ) -> Result<Self, Reason> {
        let (max, per_client_max) = {
            let plan = listener.plan.borrow();
            (plan.connections_max, plan.connections_per_client_max)
        };
        let counts = &listener.counts;
        if counts.connections.fetch_add(1, Ordering::Relaxed) >= max {
            counts.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::ConnectionLimit);
        }
        let entered = client.map(|client| counts.clients.enter(client, per_client_max));
        if let Some(None) = entered {
            counts.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::ClientLimit);
        }
        core.obs.borrow().connection_opened(listener.id.get());
        core.set_connections(core.connections() + 1);
        core.net.pool().add_charge(IDLE_CONNECTION_BYTES);
        Ok(Self {
            core: core.clone(),
            listener: listener.clone(),
            client: entered.flatten(),
        })
    }

    /// Counts the connection for its client, whose address has become known.
    ///
    /// # Errors
    /// The client has as many connections as it may have.
    pub fn name_client(&mut self, client: IpAddr) -> Result<(), Reason> {
        let max = self.listener.plan.borrow().connections_per_client_max;
        if self.client.is_none() {
            let entered = self.listener.counts.clients.enter(client, max);
            self.client = Some(entered.ok_or(Reason::ClientLimit)?);
        }
        Ok(())
    }

    /// Whether the connection must end after its current exchange.
    pub fn is_unwanted(&self) -> bool {
        self.core.is_draining() || self.listener.is_leaving()
    }

    /// Whether the current answer should be the connection's last, if the protocol lets an answer say so.
    pub fn must_announce_end(&self) -> bool {
        self.core.is_ending() || self.is_unwanted()
    }
}

impl<N: Net> Drop for Admission<N> {
    fn drop(&mut self) {
        let core = &self.core;
        core.net.pool().drop_charge(IDLE_CONNECTION_BYTES);
        if let Some(client) = self.client {
            self.listener.counts.clients.leave(client);
        }
        let listener = &self.listener;
        listener.counts.connections.fetch_sub(1, Ordering::Relaxed);
        core.obs.borrow().connection_closed(listener.id.get());
        core.set_connections(core.connections() - 1);
        core.offer_room();
        if core.connections() == 0 {
            core.wake_end();
        }
    }
}
