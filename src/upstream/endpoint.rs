//! One endpoint as one core sees it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::core_upstreams::CoreUpstreams;
use super::endpoint_slot::EndpointSlot;
use super::idle_pool::{IdlePool, PooledConnection};
use super::outcomes::Outcomes;
use super::peak_latency::PeakLatency;
use super::request_queue::RequestQueue;
use super::tried_endpoints::TriedEndpoints;
use crate::conn::http2::Mux;
use crate::fault::Reason;
use crate::io::{Address, Instant, Net};
use crate::plan::{EndpointSpec, Protocol, UpstreamPlan};
use crate::tls::{TlsClient, TlsName};

/// One endpoint on one core.
pub struct Endpoint<N: Net> {
    /// Its address as in the file. State survives a reload under this name.
    pub name: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// How to speak TLS with it; `None` for an endpoint in the clear.
    pub(super) tls: RefCell<Option<EndpointTls>>,
    /// Idle connections, the newest on top.
    pub(super) idle: RefCell<IdlePool<N>>,
    /// Idle connections that belong to one client each, the newest on top.
    pub(super) bound: RefCell<Vec<PooledConnection<N>>>,
    /// The protocol by the plan, and the one that the last handshake chose.
    pub(super) configured: Protocol,
    pub protocol: Cell<Protocol>,
    /// Connections that exchanges share.
    pub(super) shared: RefCell<Vec<Rc<Mux<N>>>>,
    /// Exchanges that wait while another one opens a shared connection.
    pub(super) awaiting_connection: RefCell<Vec<Waker>>,
    pub(super) is_connecting: Cell<bool>,
    /// How many shared connections were opened or failed, wrapping.
    pub(super) connections_tried: Cell<u32>,
    /// The exchange that opened the last one gave up for a reason of its own.
    pub(super) was_abandoned: Cell<bool>,
    /// Counts the endpoint's connections.
    pub(super) slot: Rc<EndpointSlot<N>>,
    /// How long it takes to begin an answer.
    pub(super) latency: PeakLatency,
    /// How many requests this core has at the endpoint.
    pub(super) in_flight: Cell<u32>,
    /// How many of them this core has published.
    pub(super) published: Cell<u32>,
    /// The core publishes the number at its next tick.
    pub(super) has_changed: Cell<bool>,
    /// Whether it was healthy at this core's last refresh.
    pub(super) is_healthy: Cell<bool>,
    /// Whether clients whose session it has may still use it: it is healthy and not under maintenance.
    pub(super) keeps_sessions: Cell<bool>,
    /// Since when it has been healthy; `None`: since it or the core began.
    pub(super) healthy_since: Cell<Option<Instant>>,
    /// Until when this core uses it no more, because of failures that control has not judged yet.
    pub(super) local_ejection: Cell<Option<Instant>>,
    /// The outcomes of the last attempts on this core.
    pub(super) outcomes: Outcomes,
    /// The packed status that this core has read last.
    pub(super) status_word: Cell<u32>,
    /// How many connections may be idle on this core.
    pub(super) idle_max: Cell<usize>,
    /// How long a connection may be idle.
    pub(super) idle_timeout: Cell<Duration>,
    /// After how long without an acknowledgement from its machine a connection is closed.
    pub(super) dead_after: Cell<Duration>,
    /// Until when retries leave the endpoint alone, because it has asked for that.
    pub(super) left_alone_until: Cell<Instant>,
    /// Whether the reaper has the endpoint on its list.
    pub(super) is_watched: Cell<bool>,
    /// The plan no longer has the endpoint: connections are not pooled any more.
    pub(super) is_retired: Cell<bool>,
}

/// How to speak TLS with an endpoint.
#[derive(Clone)]
pub struct EndpointTls {
    /// This core's TLS client.
    pub client: Rc<TlsClient>,
    /// The name that the endpoint's certificate must have.
    pub name: TlsName,
}

impl EndpointTls {
    /// The settings of an endpoint whose upstream has a TLS client and that has a name; `None` for any other.
    pub(super) fn of(client: Option<&Rc<TlsClient>>, name: Option<&TlsName>) -> Option<Self> {
        let (client, name) = (client?.clone(), name?.clone());
        Some(Self { client, name })
    }

    /// Whether connections made with these settings may stay under `new` ones.
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
            tls: RefCell::default(),
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
            latency: PeakLatency::default(),
            in_flight: Cell::new(0),
            published: Cell::new(0),
            has_changed: Cell::new(false),
            is_healthy: Cell::new(true),
            keeps_sessions: Cell::new(true),
            healthy_since: Cell::new(None),
            local_ejection: Cell::new(None),
            outcomes: Outcomes::default(),
            status_word: Cell::new(0),
            idle_max: Cell::new(0),
            idle_timeout: Cell::new(Duration::ZERO),
            dead_after: Cell::new(Duration::ZERO),
            left_alone_until: Cell::default(),
            is_watched: Cell::new(false),
            is_retired: Cell::new(false),
        }
    }

    /// Whether a new plan's endpoint is this one, so that its connections stay.
    pub(super) fn fits(&self, plan: &EndpointSpec, tls: Option<&EndpointTls>) -> bool {
        let fits_tls = match (&*self.tls.borrow(), tls) {
            (Some(own), Some(new)) => own.fits(new),
            (own, new) => own.is_none() && new.is_none(),
        };
        self.name == plan.name
            && self.address == plan.address
            && self.configured == plan.protocol
            && fits_tls
    }

    /// Applies a plan's settings.
    pub(super) fn configure(&self, plan: &UpstreamPlan, tls: Option<EndpointTls>) {
        *self.tls.borrow_mut() = tls;
        self.idle_max.set(plan.idle_per_core_max as usize);
        self.idle_timeout.set(plan.timeouts.upstream_idle);
        self.dead_after.set(plan.dead_after);
        self.is_retired.set(false);
    }

    /// Whether connections use TLS, whose handshake chooses the protocol of each connection.
    pub fn uses_tls(&self) -> bool {
        self.tls.borrow().is_some()
    }

    /// After how long without an acknowledgement from its machine a connection is closed.
    pub fn dead_after(&self) -> Duration {
        self.dead_after.get()
    }

    /// How to speak TLS with the endpoint; `None` in the clear.
    pub fn tls(&self) -> Option<EndpointTls> {
        self.tls.borrow().clone()
    }

    /// Makes retries of this core leave the endpoint alone until then.
    pub fn leave_alone_until(&self, until: Instant) {
        self.left_alone_until.set(until);
    }

    /// Whether a retry of a request that has tried those endpoints has to leave this one alone.
    #[inline]
    pub(super) fn is_left_alone(&self, tried: &TriedEndpoints) -> bool {
        tried.must_leave(self.left_alone_until.get())
    }

    /// Counts a failed attempt. `errno` is the system's error, 0 without one.
    pub fn count_failure(&self, reason: Reason, errno: u16) {
        self.slot.count_attempt_failure(reason, errno);
    }
}
