//! The right to hold a connection to an endpoint: counts them, for the endpoint's limit and for metrics, and gives
//! those that become free to whoever waits.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::queue::{Queue, Turn, Waiter};
use crate::conn::Wire;
use crate::fault::Reason;
use crate::io::Net;
use crate::obs::CoreObs;
use crate::plan::UpstreamId;

/// An endpoint's connections on this core, under which ids they are counted, and who waits for one.
pub(super) struct Place<N: Net> {
    obs: Rc<RefCell<CoreObs>>,
    ids: Cell<(UpstreamId, u32)>,
    open: Cell<u32>,
    /// How many may be open.
    share: Cell<u32>,
    /// The queues that it serves, and its number there: that of the plan of the day last, before it those of former
    /// plans that some exchange still runs by.
    queues: RefCell<Vec<(Weak<Queue<N>>, u32)>>,
}

impl<N: Net> Place<N> {
    pub(super) fn new(obs: Rc<RefCell<CoreObs>>) -> Self {
        Self {
            obs,
            ids: Cell::new(NOWHERE),
            open: Cell::new(0),
            share: Cell::new(0),
            queues: RefCell::default(),
        }
    }

    /// The plan no longer has the endpoint: what ends from now on is counted for none.
    pub(super) fn forget(&self) {
        self.ids.set(NOWHERE);
    }

    /// The endpoint's place in a new plan, and how many connections it may have by that.
    pub(super) fn set(
        self: &Rc<Self>,
        (upstream, endpoint): (UpstreamId, u32),
        share: u32,
        queue: &Rc<Queue<N>>,
    ) {
        self.ids.set((upstream, endpoint));
        self.share.set(share);
        let mut queues = self.queues.borrow_mut();
        queues.retain(|(queue, _)| queue.strong_count() > 0);
        queues.push((Rc::downgrade(queue), endpoint));
        drop(queues);
        self.serve();
    }

    /// Whether one more connection may be made.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.open.get() < self.share.get()
    }

    /// The right to one more connection, if there is one.
    #[inline]
    pub(super) fn permit(self: &Rc<Self>) -> Option<Permit<N>> {
        self.has_room().then(|| self.grant())
    }

    fn grant(self: &Rc<Self>) -> Permit<N> {
        self.open.set(self.open.get() + 1);
        Permit {
            place: self.clone(),
            connected: false,
        }
    }

    /// An exchange takes a connection that was open already.
    pub(super) fn reused(&self) {
        let (upstream, endpoint) = self.ids.get();
        self.obs.borrow().upstream_reused(upstream, endpoint);
    }

    /// An attempt has failed here.
    pub(super) fn attempt_failed(&self, reason: Reason) {
        let (upstream, endpoint) = self.ids.get();
        self.obs.borrow().attempt_failed(upstream, endpoint, reason);
    }

    /// Gives what room there is to those who wait.
    #[inline]
    fn serve(self: &Rc<Self>) {
        while self.has_room()
            && let Some(waiter) = self.first()
        {
            waiter.give(Turn::Connect(self.grant()));
        }
    }

    /// Takes out the first of those who wait for this endpoint.
    #[inline]
    pub(super) fn first(&self) -> Option<Waiter<N>> {
        let queues = self.queues.borrow();
        queues
            .iter()
            .find_map(|(queue, endpoint)| queue.upgrade()?.first_for(*endpoint))
    }
}

/// The ids of what no plan has.
const NOWHERE: (UpstreamId, u32) = (UpstreamId(u32::MAX), u32::MAX);

/// The right to one connection. Dropping it gives it back, to the first that waits.
pub struct Permit<N: Net> {
    place: Rc<Place<N>>,
    connected: bool,
}

/// A connection with its permit.
pub struct Held<N: Net> {
    /// The connection.
    pub wire: Wire<N>,
    /// Its permit.
    pub permit: Permit<N>,
    /// Whose it is, where the endpoint was told: nobody else's requests go there.
    pub owner: Option<SocketAddr>,
}

impl<N: Net> Held<N> {
    /// Closes the connection and keeps the right to another.
    pub(super) fn close(self) -> Permit<N> {
        let mut permit = self.permit;
        permit.closed();
        permit
    }
}

impl<N: Net> Permit<N> {
    /// The connection was made.
    pub fn hold(mut self, wire: Wire<N>, owner: Option<SocketAddr>) -> Held<N> {
        self.connected = true;
        let (upstream, endpoint) = self.place.ids.get();
        self.place
            .obs
            .borrow()
            .upstream_connected(upstream, endpoint);
        Held {
            wire,
            permit: self,
            owner,
        }
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

    fn closed(&mut self) {
        if std::mem::take(&mut self.connected) {
            let (upstream, endpoint) = self.place.ids.get();
            self.place.obs.borrow().upstream_closed(upstream, endpoint);
        }
    }
}

impl<N: Net> Drop for Permit<N> {
    fn drop(&mut self) {
        self.closed();
        self.place.open.set(self.place.open.get() - 1);
        self.place.serve();
    }
}
