//! One endpoint as one core sees it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::core_upstreams::CoreUpstreams;
use super::endpoint_slot::EndpointSlot;
use super::idle_pool::{IdlePool, PooledConnection};
use super::request_queue::RequestQueue;
use crate::conn::http2::Mux;
use crate::fault::Reason;
use crate::io::{Address, Net};
use crate::plan::{EndpointSpec, Protocol, UpstreamPlan};
use crate::tls::{TlsClient, TlsName};

/// One endpoint on one core.
pub struct Endpoint<N: Net> {
    /// Its name as in the file, under which it survives a reload.
    pub name: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// How it is spoken to over TLS, if it is.
    pub(super) secure: RefCell<Option<EndpointTls>>,
    /// Connections that wait for the next request, the one used last on top.
    pub(super) idle: RefCell<IdlePool<N>>,
    /// Connections that wait for the next request of the one client that they belong to, the one used last on top.
    pub(super) bound: RefCell<Vec<PooledConnection<N>>>,
    /// What it speaks by the plan, and what it spoke when it was last asked.
    pub(super) configured: Protocol,
    pub protocol: Cell<Protocol>,
    /// Connections that exchanges share.
    pub(super) shared: RefCell<Vec<Rc<Mux<N>>>>,
    /// Exchanges that wait for the connection that one of them is making.
    pub(super) awaiting_connection: RefCell<Vec<Waker>>,
    pub(super) is_connecting: Cell<bool>,
    /// How often one was made, or could not be, wrapping.
    pub(super) connections_tried: Cell<u32>,
    /// The last was given up by who made it, for a reason of its own.
    pub(super) was_abandoned: Cell<bool>,
    /// Its place in the plan of the day, and how many connections it has.
    pub(super) slot: Rc<EndpointSlot<N>>,
    /// How many connections may wait.
    pub(super) idle_max: Cell<usize>,
    /// How long one may wait.
    pub(super) idle_timeout: Cell<Duration>,
    /// How long its machine may acknowledge nothing before a connection is given up.
    pub(super) dead_after: Cell<Duration>,
    /// Whether the reaper has it on its list.
    pub(super) watched: Cell<bool>,
    /// Set when the plan no longer has the endpoint: connections are not kept any more.
    pub(super) retired: Cell<bool>,
}

/// How an endpoint is spoken to over TLS.
#[derive(Clone)]
pub struct EndpointTls {
    /// This core's side of it.
    pub client: Rc<TlsClient>,
    /// The name that it must have.
    pub name: TlsName,
}

impl EndpointTls {
    /// An endpoint has TLS if its upstream has a client side and the endpoint a name.
    pub(super) fn of(client: Option<&Rc<TlsClient>>, name: Option<&TlsName>) -> Option<Self> {
        let (client, name) = (client?.clone(), name?.clone());
        Some(Self { client, name })
    }

    /// Whether connections made with these settings may be kept under `new` ones.
    fn fits(&self, new: &Self) -> bool {
        self.name == new.name && self.client.has_same_settings(&new.client)
    }
}

impl<N: Net> Endpoint<N> {
    /// Makes an endpoint without connections.
    pub(super) fn new(
        plan: &EndpointSpec,
        core: &Rc<CoreUpstreams<N>>,
        queue: &Rc<RequestQueue<N>>,
    ) -> Self {
        Self {
            name: plan.name.clone(),
            address: plan.address.clone(),
            secure: RefCell::default(),
            idle: RefCell::new(IdlePool::new(queue.clone())),
            bound: RefCell::default(),
            configured: plan.protocol,
            protocol: Cell::new(plan.protocol),
            shared: RefCell::default(),
            awaiting_connection: RefCell::default(),
            is_connecting: Cell::new(false),
            connections_tried: Cell::new(0),
            was_abandoned: Cell::new(false),
            slot: core.slot(queue, &plan.name),
            idle_max: Cell::new(0),
            idle_timeout: Cell::new(Duration::ZERO),
            dead_after: Cell::new(Duration::ZERO),
            watched: Cell::new(false),
            retired: Cell::new(false),
        }
    }

    /// Whether a new plan's endpoint is this one, so that its connections are kept.
    pub(super) fn fits(&self, plan: &EndpointSpec, tls: Option<&EndpointTls>) -> bool {
        let fits_tls = match (&*self.secure.borrow(), tls) {
            (Some(own), Some(new)) => own.fits(new),
            (own, new) => own.is_none() && new.is_none(),
        };
        self.name == plan.name
            && self.address == plan.address
            && self.configured == plan.protocol
            && fits_tls
    }

    /// Takes over the settings of a plan.
    pub(super) fn configure(&self, plan: &UpstreamPlan, tls: Option<EndpointTls>) {
        *self.secure.borrow_mut() = tls;
        self.idle_max.set(plan.idle_per_core_max as usize);
        self.idle_timeout.set(plan.timeouts.upstream_idle);
        self.dead_after.set(plan.dead_after);
        self.retired.set(false);
    }

    /// Whether it is spoken to over TLS, where what is spoken is agreed on connection by connection.
    pub fn is_secure(&self) -> bool {
        self.secure.borrow().is_some()
    }

    /// How long its machine may acknowledge nothing before a connection is given up.
    pub fn dead_after(&self) -> Duration {
        self.dead_after.get()
    }

    /// How it is spoken to over TLS, if it is.
    pub fn secure(&self) -> Option<EndpointTls> {
        self.secure.borrow().clone()
    }

    /// Counts an attempt that has failed here; `errno` is what the system said, 0 if it said nothing.
    pub fn count_failure(&self, reason: Reason, errno: u16) {
        self.slot.attempt_failed(reason, errno);
    }
}
