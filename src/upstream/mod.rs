//! Upstreams as one core sees them: their endpoints, the balancer, and the connections to them.
//!
//! All of this belongs to one core. An endpoint that is in both the old and the new plan keeps its connections through
//! a reload.

#![warn(clippy::indexing_slicing)]

mod adaptive_concurrency;
mod affinity;
mod balance;
mod breaker;
mod client_binding;
mod connector;
mod core_upstreams;
mod endpoint;
mod endpoint_side;
mod endpoint_slot;
mod endpoint_status;
mod idle_pool;
mod in_flight;
mod latency;
mod leased_connection;
mod outcomes;
mod overload_guard;
mod peak_latency;
mod refresh;
mod request_queue;
mod retry_budget;
mod shared_connection;
mod sticky;
mod stream_reservation;
mod survey;
mod tried_endpoints;
mod upstream_registry;
mod usable;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use weir_config::{Balance, HashKey};

pub use balance::{Balancer, Load, Loads, StableHash, hash_of_address, stable_hash};
pub use client_binding::BindingToken;
pub use connector::{ConnectFailure, Connector, EndpointLease, Waiter};
pub use core_upstreams::CoreUpstreams;
pub use endpoint::{Endpoint, EndpointTls};
pub use endpoint_side::EndpointSide;
pub use endpoint_status::{EndpointHealth, EndpointStatus};
pub use idle_pool::ConnectionNeed;
pub use in_flight::RequestInFlight;
use latency::LatencyHistogram;
pub use leased_connection::{ConnectionOwner, ConnectionPermit, LeasedConnection};
use overload_guard::OverloadGuard;
pub use overload_guard::{GuardedConnection, GuardedOutcome, GuardedRequest};
pub use request_queue::{ConnectionOffer, QueuedAttempt};
use request_queue::{PlanMark, RequestQueue};
use retry_budget::RetryBudget;
pub use sticky::{StickyEndpoints, StickySession};
pub use stream_reservation::{ConnectingGuard, StreamReservation};
pub use survey::{SurveyedEndpoint, survey};
pub use tried_endpoints::TriedEndpoints;
pub use upstream_registry::{EndpointLoad, SlotNotice, UpstreamRegistry};
pub use usable::{Candidate, Unusable, UsableEndpoint, UsableEndpoints};

use crate::io::{Instant, Net};
use crate::obs::CoreObs;
use crate::plan::{EndpointSet, Protocol, UpstreamId, UpstreamPlan};
use crate::tls::TlsClient;

/// One upstream on one core, as one plan configures it.
pub struct Upstream<N: Net> {
    /// Its id in the current plan, which counters use.
    id: Rc<Cell<UpstreamId>>,
    /// Its name. A reload keeps the state of an upstream that keeps its name.
    pub name: Arc<str>,
    /// The planned endpoints.
    set: Arc<EndpointSet>,
    /// This core's TLS client, if any endpoint speaks TLS.
    client: RefCell<Option<Rc<TlsClient>>>,
    /// This core's endpoints, in the order of `set`.
    pub endpoints: Vec<Rc<Endpoint<N>>>,
    /// What keeps clients at their endpoints.
    pub sticky: Option<Rc<StickyEndpoints>>,
    /// How it chooses an endpoint.
    balance: Balance,
    balancer: RefCell<Balancer>,
    /// The endpoints that the balancer chooses from.
    usable: RefCell<UsableEndpoints>,
    slow_start: Option<Duration>,
    panic_percent: u32,
    /// Control checks the endpoints.
    is_checked: bool,
    seed: u64,
    /// The statuses that it has read, as the registry counts them.
    status_epoch: Cell<u64>,
    /// When the usable endpoints change by time alone.
    refresh_at: Cell<Option<Instant>>,
    /// Limits retries.
    pub budget: Rc<RetryBudget>,
    /// Refuses requests that the upstream would not serve; `None` without such rules.
    guard: Option<Rc<OverloadGuard>>,
    /// How long answers to requests that may be hedged take to begin.
    pub latency: Rc<RefCell<LatencyHistogram>>,
    queue: Rc<RequestQueue<N>>,
    mark: Rc<PlanMark>,
    /// How many requests may wait, on all cores together.
    pending_max: u32,
    core: Rc<CoreUpstreams<N>>,
    obs: Rc<RefCell<CoreObs>>,
}

impl<N: Net> Upstream<N> {
    /// Makes this core's upstream for `plan` with the endpoints of `set`. Takes over the endpoints and the budget of
    /// `old`, the upstream of the same name in the former plan.
    pub fn new(
        id: UpstreamId,
        (plan, set): (&UpstreamPlan, &Arc<EndpointSet>),
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Rc<Self> {
        let client = plan.tls.as_ref().map(|client| Rc::new(client.for_core()));
        Self::make((id, plan, set), client, old, seed, core)
    }

    /// Returns the upstream with the endpoints of `set`. It keeps its current certificates and keys, which may be
    /// newer than the plan's.
    pub fn with_endpoints(
        &self,
        plan: &UpstreamPlan,
        set: &Arc<EndpointSet>,
        seed: u64,
    ) -> Rc<Self> {
        let client = self.client.borrow().clone();
        Self::make((self.id(), plan, set), client, Some(self), seed, &self.core)
    }

    fn make(
        (id, plan, set): (UpstreamId, &UpstreamPlan, &Arc<EndpointSet>),
        client: Option<Rc<TlsClient>>,
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Rc<Self> {
        let (queue, mark) = (core.queue(&plan.name), Rc::default());
        let endpoints = set.endpoints.iter().zip(0..).map(|(planned, number)| {
            let tls = EndpointTls::of(client.as_ref(), planned.tls_name.as_ref());
            let kept = old.and_then(|old| {
                let mut endpoints = old.endpoints.iter();
                endpoints.find(|endpoint| endpoint.fits(planned, tls.as_ref()))
            });
            let endpoint = kept.cloned().unwrap_or_else(|| {
                let new = Rc::new(Endpoint::new(planned, core, &queue));
                // One that joins others starts slowly; those of a fresh core have all the load to share.
                new.is_healthy
                    .set(old.is_none_or(|old| old.endpoints.is_empty()));
                new
            });
            endpoint.configure(plan, tls);
            let connections_max = planned.connections_max(plan.connections_max);
            let shares = endpoint.protocol.get() == Protocol::Http2;
            let requests_max = planned.requests_max.filter(|_| shares);
            endpoint
                .slot
                .configure((id, number), (connections_max, requests_max), &mark);
            endpoint
        });
        let endpoints: Vec<_> = endpoints.collect();
        queue.set_endpoints(&endpoints);
        for endpoint in &endpoints {
            endpoint.close_excess();
            endpoint.slot.grant_free();
        }
        let counted = old.map_or_else(|| Rc::new(Cell::new(id)), |old| old.id.clone());
        counted.set(id);
        let upstream = Rc::new(Self {
            id: counted,
            name: plan.name.clone(),
            set: set.clone(),
            client: RefCell::new(client),
            endpoints,
            sticky: (plan.sticky.as_ref()).map(|sticky| StickyEndpoints::new(sticky, set)),
            balance: plan.balance.clone(),
            balancer: RefCell::new(Balancer::new(&plan.balance, &[], seed)),
            usable: RefCell::default(),
            slow_start: plan.slow_start,
            panic_percent: plan.panic_percent,
            is_checked: plan.health.is_some(),
            seed,
            status_epoch: Cell::new(0),
            refresh_at: Cell::new(None),
            budget: old.map_or_else(Rc::default, |old| old.budget.clone()),
            latency: old.map_or_else(Rc::default, |old| old.latency.clone()),
            guard: OverloadGuard::new(
                plan,
                &queue.count,
                old.and_then(|old| old.guard.as_deref()),
                core.ticked_at(),
            ),
            queue,
            mark,
            pending_max: plan.pending_max,
            obs: core.obs.clone(),
            core: core.clone(),
        });
        upstream.refresh(core.ticked_at());
        core.add(&upstream);
        upstream
    }

    /// Its id in the current plan.
    pub fn id(&self) -> UpstreamId {
        self.id.get()
    }

    /// Whether the upstream was made from this same `Arc`.
    pub fn has_set(&self, set: &Arc<EndpointSet>) -> bool {
        Arc::ptr_eq(&self.set, set)
    }

    /// Whether the names of some endpoints did not resolve.
    pub fn has_unresolved(&self) -> bool {
        !self.set.unresolved.is_empty()
    }

    /// Uses these certificates and keys for new connections.
    pub fn set_client_tls(&self, client: Option<&TlsClient>) {
        let client = client.map(|client| Rc::new(client.for_core()));
        for endpoint in &self.endpoints {
            if let (Some(secure), Some(client)) = (&mut *endpoint.tls.borrow_mut(), &client) {
                secure.client = client.clone();
            }
        }
        *self.client.borrow_mut() = client;
    }

    /// Closes idle connections of endpoints that `new` does not have.
    pub fn retire_missing(&self, new: Option<&Self>) {
        let stays = |old: &Rc<Endpoint<N>>| {
            new.is_some_and(|new| new.endpoints.iter().any(|e| Rc::ptr_eq(e, old)))
        };
        self.endpoints
            .iter()
            .filter(|endpoint| !stays(endpoint))
            .for_each(|endpoint| {
                endpoint.retire();
                // An endpoint of the same name with other settings may use the slot now.
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

    /// Returns an offer of the endpoint that the balancer chooses among those that have room and were not tried; if all
    /// were tried, among those that have room. `key` is the hash of the request's key, if the balancer reads one. `None`:
    /// every endpoint is at its limit, or none is usable.
    pub fn take_offer(
        &self,
        cx: &mut Context<'_>,
        tried: &TriedEndpoints,
        key: Option<u64>,
        need: ConnectionNeed,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let view = PickView {
            upstream: self,
            tried,
            includes_tried: !tried.is_empty() && !self.has_untried(tried),
            need,
        };
        loop {
            let index = self.balancer.borrow_mut().pick(key, &view)?;
            let endpoint = self.endpoints.get(index as usize)?;
            if let Some(offer) = endpoint.take_offer(cx, need) {
                return Some((index, offer));
            }
        }
    }

    /// The hash of the client's address, if the balancer hashes addresses. For clients without a request.
    pub fn key_of_client(&self, client: Option<IpAddr>) -> Option<u64> {
        match self.balance {
            Balance::IpHash | Balance::Hash(HashKey::Ip) => client.map(hash_of_address),
            _ => None,
        }
    }

    /// Whether some usable endpoint was not tried.
    pub fn has_untried(&self, tried: &TriedEndpoints) -> bool {
        let usable = self.usable.borrow();
        usable.endpoints.iter().any(|each| {
            let endpoint = self.endpoints.get(each.index as usize);
            let takes = endpoint.is_some_and(|endpoint| {
                endpoint.slot.takes_requests.get() && !endpoint.is_left_alone(tried)
            });
            takes && !tried.has(each.index)
        })
    }

    /// Whether a usable endpoint, tried or not, has not asked retries to stay away (`Retry-After`).
    pub fn may_retry(&self, tried: &TriedEndpoints) -> bool {
        let usable = self.usable.borrow();
        usable.endpoints.iter().any(|each| {
            let endpoint = self.endpoints.get(each.index as usize);
            endpoint.is_some_and(|endpoint| !endpoint.is_left_alone(tried))
        })
    }

    /// Whether some endpoint may get requests.
    pub fn has_usable(&self) -> bool {
        self.has_untried(&TriedEndpoints::default())
    }
}

/// An upstream as its balancer sees it for one pick.
struct PickView<'a, N: Net> {
    upstream: &'a Upstream<N>,
    tried: &'a TriedEndpoints,
    /// All were tried, so each may be used again.
    includes_tried: bool,
    need: ConnectionNeed,
}

impl<N: Net> PickView<'_, N> {
    #[inline]
    fn endpoint(&self, index: u32) -> Option<&Rc<Endpoint<N>>> {
        self.upstream.endpoints.get(index as usize)
    }
}

impl<N: Net> Loads for PickView<'_, N> {
    #[inline]
    fn may_use(&self, index: u32) -> bool {
        let is_usable = |endpoint: &Rc<Endpoint<N>>| {
            !endpoint.is_left_alone(self.tried)
                && endpoint.slot.takes_requests.get()
                && endpoint.has_room(self.need)
        };
        (self.includes_tried || !self.tried.has(index))
            && self.endpoint(index).is_some_and(is_usable)
    }

    #[inline]
    fn load(&self, index: u32) -> Load {
        let now = self.upstream.core.ticked_at();
        self.endpoint(index)
            .map_or_else(Load::default, |endpoint| endpoint.load(now))
    }

    fn in_flight(&self) -> u32 {
        self.upstream.queue.in_flight()
    }
}
