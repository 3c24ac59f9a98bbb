//! Upstreams as one core sees them: endpoints, whose turn it is, and connections kept for the next request.
//!
//! Everything here belongs to one core and survives a reload by name: an endpoint that is in the old plan and in the
//! new one keeps its connections.

mod client_binding;
mod connect;
mod core_upstreams;
mod endpoint_side;
mod endpoint_slot;
mod idle_pool;
mod request_queue;
mod retry_budget;
mod round_robin;
mod shared_connection;
mod stream_reservation;
mod upstream_registry;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

pub use client_binding::BindingToken;
pub use connect::{Carrier, ConnectFailure, Connector, Waiter};
pub use core_upstreams::CoreUpstreams;
pub use endpoint_side::EndpointSide;
use endpoint_slot::EndpointSlot;
pub use endpoint_slot::{ConnectionOwner, ConnectionPermit, LeasedConnection};
pub use idle_pool::ConnectionNeed;
use idle_pool::{IdlePool, PooledConnection};
pub use request_queue::{ConnectionOffer, QueuedAttempt};
use request_queue::{PlanMark, RequestQueue};
use retry_budget::RetryBudget;
pub use round_robin::TriedEndpoints;
pub use stream_reservation::{ConnectingGuard, StreamReservation};
pub use upstream_registry::{SlotNotice, UpstreamRegistry};

use crate::conn::http2::Mux;
use crate::fault::Reason;
use crate::io::{Address, Net};
use crate::obs::CoreObs;
use crate::plan::{EndpointSet, Protocol, UpstreamId, UpstreamPlan};
use crate::tls::{TlsClient, TlsName};
use round_robin::RoundRobin;

/// One upstream on one core, by one plan.
pub struct Upstream<N: Net> {
    /// Its place in the plan of the day, for events.
    id: Rc<Cell<UpstreamId>>,
    /// Its name, under which it survives a reload.
    pub name: Arc<str>,
    /// The endpoints that its plan's endpoint set has.
    set: Arc<EndpointSet>,
    /// This core's side of TLS with them, if any of them speaks it.
    client: RefCell<Option<Rc<TlsClient>>>,
    /// The same on this core, in the same order.
    pub endpoints: Vec<Rc<Endpoint<N>>>,
    balancer: RefCell<RoundRobin>,
    /// What may be retried.
    pub budget: Rc<RetryBudget>,
    queue: Rc<RequestQueue<N>>,
    mark: Rc<PlanMark>,
    /// How many may wait, all cores together.
    pending_max: u32,
    core: Rc<CoreUpstreams<N>>,
    obs: Rc<RefCell<CoreObs>>,
}

/// One endpoint on one core.
pub struct Endpoint<N: Net> {
    /// Its name as in the file, under which it survives a reload.
    pub name: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// How it is spoken to over TLS, if it is.
    secure: RefCell<Option<EndpointTls>>,
    /// Connections that wait for the next request, the one used last on top.
    idle: RefCell<IdlePool<N>>,
    /// Connections that wait for the next request of the one client that they belong to, the one used last on top.
    bound: RefCell<Vec<PooledConnection<N>>>,
    /// What it speaks by the plan, and what it spoke when it was last asked.
    configured: Protocol,
    pub protocol: Cell<Protocol>,
    /// Connections that exchanges share.
    shared: RefCell<Vec<Rc<Mux<N>>>>,
    /// Exchanges that wait for the connection that one of them is making.
    awaiting_connection: RefCell<Vec<Waker>>,
    is_connecting: Cell<bool>,
    /// How often one was made, or could not be, wrapping.
    connections_tried: Cell<u32>,
    /// The last was given up by who made it, for a reason of its own.
    was_abandoned: Cell<bool>,
    /// Its place in the plan of the day, and how many connections it has.
    slot: Rc<EndpointSlot<N>>,
    /// How many connections may wait.
    idle_max: Cell<usize>,
    /// How long one may wait.
    idle_timeout: Cell<Duration>,
    /// How long its machine may acknowledge nothing before a connection is given up.
    dead_after: Cell<Duration>,
    /// Whether the reaper has it on its list.
    watched: Cell<bool>,
    /// Set when the plan no longer has the endpoint: connections are not kept any more.
    retired: Cell<bool>,
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
    /// Whether connections may be kept when the plan has these settings.
    fn fits(own: Option<&Self>, client: Option<&TlsClient>, name: Option<&TlsName>) -> bool {
        match (own, client, name) {
            (Some(own), Some(client), Some(name)) => {
                own.name == *name && own.client.has_same_settings(client)
            }
            (own, _, name) => own.is_none() && name.is_none(),
        }
    }
}

impl<N: Net> Endpoint<N> {
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

impl<N: Net> Upstream<N> {
    /// Makes the core's side of `plan` with the endpoints of `set`, taking over from `old` what has the same name.
    pub fn new(
        id: UpstreamId,
        (plan, set): (&UpstreamPlan, &Arc<EndpointSet>),
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Self {
        let client = plan.tls.as_ref().map(|client| Rc::new(client.for_core()));
        Self::make((id, plan, set), client, old, seed, core)
    }

    /// The same upstream of `plan` with the endpoints of `set`. Certificates and keys stay those that it uses now, which
    /// may be newer than the plan's.
    pub fn with_endpoints(&self, plan: &UpstreamPlan, set: &Arc<EndpointSet>, seed: u64) -> Self {
        let client = self.client.borrow().clone();
        Self::make((self.id(), plan, set), client, Some(self), seed, &self.core)
    }

    fn make(
        (id, plan, set): (UpstreamId, &UpstreamPlan, &Arc<EndpointSet>),
        client: Option<Rc<TlsClient>>,
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Self {
        let (queue, mark) = (core.queue(&plan.name), Rc::default());
        let endpoints = set.endpoints.iter().enumerate().map(|(i, endpoint)| {
            let name = endpoint.tls_name.as_ref();
            let kept = old.and_then(|old| {
                let same = |e: &&Rc<Endpoint<N>>| {
                    e.name == endpoint.name
                        && e.address == endpoint.address
                        && e.configured == endpoint.protocol
                        && EndpointTls::fits(e.secure.borrow().as_ref(), client.as_deref(), name)
                };
                old.endpoints.iter().find(same)
            });
            let kept = kept.cloned().unwrap_or_else(|| {
                Rc::new(Endpoint {
                    name: endpoint.name.clone(),
                    address: endpoint.address.clone(),
                    secure: RefCell::default(),
                    idle: RefCell::new(IdlePool::new(queue.clone())),
                    bound: RefCell::default(),
                    configured: endpoint.protocol,
                    protocol: Cell::new(endpoint.protocol),
                    shared: RefCell::default(),
                    awaiting_connection: RefCell::default(),
                    is_connecting: Cell::new(false),
                    connections_tried: Cell::new(0),
                    was_abandoned: Cell::new(false),
                    slot: core.slot(&queue, &endpoint.name),
                    idle_max: Cell::new(0),
                    idle_timeout: Cell::new(Duration::ZERO),
                    dead_after: Cell::new(Duration::ZERO),
                    watched: Cell::new(false),
                    retired: Cell::new(false),
                })
            });
            *kept.secure.borrow_mut() = client
                .clone()
                .zip(name.cloned())
                .map(|(client, name)| EndpointTls { client, name });
            kept.idle_max.set(plan.idle_per_core_max as usize);
            kept.idle_timeout.set(plan.timeouts.upstream_idle);
            kept.dead_after.set(plan.dead_after);
            kept.retired.set(false);
            kept.slot.set((id, i as u32), plan.connections_max, &mark);
            kept
        });
        let endpoints: Vec<_> = endpoints.collect();
        queue.set_endpoints(&endpoints);
        for endpoint in &endpoints {
            endpoint.close_excess();
            endpoint.slot.serve();
        }
        let counted = old.map_or_else(|| Rc::new(Cell::new(id)), |old| old.id.clone());
        counted.set(id);
        Self {
            id: counted,
            name: plan.name.clone(),
            set: set.clone(),
            client: RefCell::new(client),
            endpoints,
            balancer: RefCell::new(RoundRobin::new(
                set.endpoints.iter().map(|e| e.weight),
                seed,
            )),
            budget: old.map_or_else(Rc::default, |old| old.budget.clone()),
            queue,
            mark,
            pending_max: plan.pending_max,
            obs: core.obs.clone(),
            core: core.clone(),
        }
    }

    /// Its place in the plan of the day, for events.
    pub fn id(&self) -> UpstreamId {
        self.id.get()
    }

    /// Whether it has these endpoints, and not only ones that are equal.
    pub fn has_set(&self, set: &Arc<EndpointSet>) -> bool {
        Arc::ptr_eq(&self.set, set)
    }

    /// Whether it has endpoints whose names were not found.
    pub fn has_unresolved(&self) -> bool {
        !self.set.unresolved.is_empty()
    }

    /// Has connections that are made from now on use these certificates and keys.
    pub fn set_client_tls(&self, client: Option<&TlsClient>) {
        let client = client.map(|client| Rc::new(client.for_core()));
        for endpoint in &self.endpoints {
            if let (Some(secure), Some(client)) = (&mut *endpoint.secure.borrow_mut(), &client) {
                secure.client = client.clone();
            }
        }
        *self.client.borrow_mut() = client;
    }

    /// Closes the idle connections of every endpoint that `new` does not have.
    pub fn retire_missing(&self, new: Option<&Self>) {
        let stays = |old: &Rc<Endpoint<N>>| {
            new.is_some_and(|new| new.endpoints.iter().any(|e| Rc::ptr_eq(e, old)))
        };
        self.endpoints
            .iter()
            .filter(|endpoint| !stays(endpoint))
            .for_each(|endpoint| {
                endpoint.retire();
                // Another of that name has taken its place, if it is spoken to in another way now.
                let has_slot = |new: &Self| {
                    let mut slots = new.endpoints.iter().map(|e| &e.slot);
                    slots.any(|slot| Rc::ptr_eq(slot, &endpoint.slot))
                };
                if !new.is_some_and(has_slot) {
                    endpoint.slot.forget();
                }
            });
        if new.is_none() {
            self.id.set(UpstreamId(u32::MAX));
        }
    }

    /// Gives an attempt what it can begin with, from the next endpoint in turn that has it and was not tried by this
    /// exchange (any, if all were). `None`: all of them have as many connections as they may have.
    pub fn take_offer(
        &self,
        cx: &mut Context<'_>,
        tried: &TriedEndpoints,
        need: ConnectionNeed,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let all = !self.has_untried(tried);
        let has_room = |index: u32| {
            let endpoint = self.endpoints.get(index as usize);
            (all || !tried.has(index)) && endpoint.is_some_and(|endpoint| endpoint.has_room(need))
        };
        loop {
            let index = self.balancer.borrow_mut().next(has_room)?;
            let endpoint = self.endpoints.get(index as usize)?;
            if let Some(offer) = endpoint.take_offer(cx, need) {
                return Some((index, offer));
            }
        }
    }

    /// Whether there is an endpoint that was not tried.
    pub fn has_untried(&self, tried: &TriedEndpoints) -> bool {
        (0..self.endpoints.len() as u32).any(|index| !tried.has(index))
    }
}
