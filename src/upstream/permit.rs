//! The right to hold a connection to an endpoint: counts them, for the endpoint's limit and for metrics.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Endpoint;
use crate::conn::Wire;
use crate::io::Net;
use crate::obs::CoreObs;
use crate::plan::UpstreamId;

/// An endpoint's connections on this core, and under which ids they are counted.
pub(super) struct Place {
    obs: Rc<RefCell<CoreObs>>,
    ids: Cell<(UpstreamId, u32)>,
    open: Cell<u32>,
}

impl Place {
    pub(super) fn new(obs: Rc<RefCell<CoreObs>>) -> Self {
        Self {
            obs,
            ids: Cell::new((UpstreamId(u32::MAX), u32::MAX)),
            open: Cell::new(0),
        }
    }

    /// The plan no longer has the endpoint: what ends from now on is counted for none.
    pub(super) fn forget(&self) {
        self.ids.set((UpstreamId(u32::MAX), u32::MAX));
    }

    pub(super) fn set(&self, upstream: UpstreamId, endpoint: u32) {
        self.ids.set((upstream, endpoint));
    }
}

/// The right to one connection. Dropping it gives it back.
pub struct Permit {
    place: Rc<Place>,
    connected: bool,
}

/// A connection with its permit.
pub struct Held<N: Net> {
    /// The connection.
    pub wire: Wire<N>,
    /// Its permit.
    pub permit: Permit,
}

impl<N: Net> Endpoint<N> {
    /// Asks for one more connection. `None`: this core has its share of what the endpoint may have, at least one.
    pub fn permit(&self, cores: usize) -> Option<Permit> {
        let share = (self.connections_max.get() as usize).div_ceil(cores.max(1));
        let open = self.place.open.get();
        if open as usize >= share {
            return None;
        }
        self.place.open.set(open + 1);
        Some(Permit {
            place: self.place.clone(),
            connected: false,
        })
    }
}

impl Permit {
    /// The connection was made.
    pub fn hold<N: Net>(mut self, wire: Wire<N>) -> Held<N> {
        self.connected = true;
        let (upstream, endpoint) = self.place.ids.get();
        self.place
            .obs
            .borrow()
            .upstream_connected(upstream, endpoint);
        Held { wire, permit: self }
    }

    /// The connection spoke HTTP/2 and has ended for an error.
    pub fn http2_failed(&self, error: weir_proto_h2::Error) {
        let (upstream, _) = self.place.ids.get();
        let obs = self.place.obs.borrow();
        obs.upstream_http2_failed(upstream, error);
    }

    /// The connection could not be made.
    pub fn failed(self) {
        let (upstream, endpoint) = self.place.ids.get();
        self.place.obs.borrow().upstream_failed(upstream, endpoint);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.place.open.set(self.place.open.get() - 1);
        if self.connected {
            let (upstream, endpoint) = self.place.ids.get();
            self.place.obs.borrow().upstream_closed(upstream, endpoint);
        }
    }
}
