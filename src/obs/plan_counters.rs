//! Which counters belong to which part of a plan and to which endpoint.
//!
//! A [`PlanCounters`] is one core's view: counters in arrays indexed by the ids of the plan and of its endpoint sets. A reload,
//! and other endpoints, make a new sheet that takes over the counters of everything whose name is still there. Parts of
//! one name share their counters.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{EndpointCounts, ListenerCounts, RouteCounts, UpstreamCounts};
use crate::plan::{EndpointSet, EndpointSets, ListenerId, LogFields, Plan, RouteId, UpstreamId};

/// The names of a plan's parts and endpoints, by id; the same for all cores.
#[derive(Debug, Default)]
pub(super) struct PlanNames {
    /// The epoch of the endpoint sets. It tells plans apart too, because no two plans have the same sets.
    pub(super) epoch: u64,
    /// The plan's epoch.
    pub(super) plan_epoch: u64,
    /// Listeners.
    pub(super) listeners: Arc<NameTable>,
    /// Routes.
    pub(super) routes: Arc<NameTable>,
    /// Upstreams.
    pub(super) upstreams: Arc<NameTable>,
    /// Endpoints, by upstream.
    pub(super) endpoints: Vec<NameTable>,
    /// Fields that lines of the access log have.
    pub(super) fields: Arc<LogFields>,
}

/// PlanNames by id, and back.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    names: Vec<Arc<str>>,
    first: HashMap<Arc<str>, u32>,
}

impl PlanNames {
    /// The names of `plan` and `endpoints`. Shares the plan's part with `old`, if those are names of the same plan.
    pub(super) fn of(plan: &Plan, endpoints: &EndpointSets, old: Option<&Self>) -> Self {
        let set =
            |set: &Arc<EndpointSet>| NameTable::new(set.endpoints.iter().map(|each| &each.name));
        let endpoints_named = endpoints.iter().map(set).collect();
        if let Some(old) = old.filter(|old| old.plan_epoch == plan.epoch) {
            return Self {
                epoch: endpoints.epoch,
                plan_epoch: plan.epoch,
                listeners: old.listeners.clone(),
                routes: old.routes.clone(),
                upstreams: old.upstreams.clone(),
                endpoints: endpoints_named,
                fields: old.fields.clone(),
            };
        }
        Self {
            epoch: endpoints.epoch,
            plan_epoch: plan.epoch,
            listeners: Arc::new(NameTable::new(plan.listeners.iter().map(|each| &each.name))),
            routes: Arc::new(NameTable::new(plan.routes.iter().map(|each| &each.name))),
            upstreams: Arc::new(NameTable::new(plan.upstreams.iter().map(|each| &each.name))),
            endpoints: endpoints_named,
            fields: plan.log_fields.clone(),
        }
    }
}

impl NameTable {
    fn new<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let mut named = Self::default();
        for (id, name) in (0_u32..).zip(names) {
            named.names.push(name.clone());
            named.first.entry(name.clone()).or_insert(id);
        }
        named
    }

    /// The name of `id`.
    pub(super) fn get(&self, id: u32) -> Option<&Arc<str>> {
        self.names.get(id as usize)
    }

    /// The first part of that name.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.first.get(name).copied()
    }

    /// Every name once, with the first id that has it, in order of ids.
    pub(super) fn unique(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        (0_u32..)
            .zip(&self.names)
            .filter(|(id, name)| self.find(name) == Some(*id))
    }

    /// Counters for every id: those of `old` where the name was there before.
    fn counters<C: Default>(&self, old: Option<(&Self, &[Arc<C>])>) -> Arc<[Arc<C>]> {
        let mut made: Vec<Arc<C>> = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let twin = self.find(name).and_then(|id| made.get(id as usize));
            let kept =
                || old.and_then(|(named, counters)| counters.get(named.find(name)? as usize));
            let counters = twin.or_else(kept).cloned();
            made.push(counters.unwrap_or_default());
        }
        made.into()
    }
}

/// One core's counters for one plan and its endpoint sets.
#[derive(Debug)]
pub(super) struct PlanCounters {
    /// What they belong to.
    pub(super) names: Arc<PlanNames>,
    listeners: Arc<[Arc<ListenerCounts>]>,
    routes: Arc<[Arc<RouteCounts>]>,
    upstreams: Arc<[Arc<UpstreamCounts>]>,
    endpoints: Vec<Arc<[Arc<EndpointCounts>]>>,
}

impl PlanCounters {
    /// Counters for a plan's parts, those of `old` carried over by name.
    pub(super) fn new(names: Arc<PlanNames>, old: Option<&Self>) -> Self {
        let same = old.filter(|old| Arc::ptr_eq(&names.routes, &old.names.routes));
        let (listeners, routes, upstreams) = match same {
            Some(old) => (
                old.listeners.clone(),
                old.routes.clone(),
                old.upstreams.clone(),
            ),
            None => (
                names
                    .listeners
                    .counters(old.map(|s| (&*s.names.listeners, &*s.listeners))),
                names
                    .routes
                    .counters(old.map(|s| (&*s.names.routes, &*s.routes))),
                names
                    .upstreams
                    .counters(old.map(|s| (&*s.names.upstreams, &*s.upstreams))),
            ),
        };
        let endpoints = (0_u32..).zip(&names.endpoints).map(|(id, named)| {
            let before = old.and_then(|s| {
                let name = names.upstreams.get(id)?;
                let id = s.names.upstreams.find(name)? as usize;
                Some((s.names.endpoints.get(id)?, &**s.endpoints.get(id)?))
            });
            named.counters(before)
        });
        let endpoints = endpoints.collect();
        Self {
            names,
            listeners,
            routes,
            upstreams,
            endpoints,
        }
    }

    /// The epoch of the endpoint sets that the ids belong to, and with them to a plan.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.names.epoch
    }

    /// A listener's counters.
    #[inline]
    pub(super) fn listener(&self, id: ListenerId) -> Option<&ListenerCounts> {
        self.listeners.get(id.0 as usize).map(Arc::as_ref)
    }

    /// A route's counters.
    #[inline]
    pub(super) fn route(&self, id: RouteId) -> Option<&RouteCounts> {
        self.routes.get(id.0 as usize).map(Arc::as_ref)
    }

    /// An upstream's counters.
    #[inline]
    pub(super) fn upstream(&self, id: UpstreamId) -> Option<&UpstreamCounts> {
        self.upstreams.get(id.0 as usize).map(Arc::as_ref)
    }

    /// An endpoint's counters.
    #[inline]
    pub(super) fn endpoint(&self, id: UpstreamId, endpoint: u32) -> Option<&EndpointCounts> {
        let endpoints = self.endpoints.get(id.0 as usize)?;
        endpoints.get(endpoint as usize).map(Arc::as_ref)
    }

    /// The listener's id in this sheet's plan, for one of another plan.
    pub(super) fn find_listener(&self, plan: &Plan, id: ListenerId) -> Option<ListenerId> {
        let name = &plan.listeners.get(id.0 as usize)?.name;
        self.names.listeners.find(name).map(ListenerId)
    }

    /// The route's id in this sheet's plan, for one of another plan.
    pub(super) fn find_route(&self, plan: &Plan, id: RouteId) -> Option<RouteId> {
        let name = &plan.routes.get(id.0 as usize)?.name;
        self.names.routes.find(name).map(RouteId)
    }

    /// The upstream's id in this sheet's plan, for one of another plan.
    pub(super) fn find_upstream(&self, plan: &Plan, id: UpstreamId) -> Option<UpstreamId> {
        let name = &plan.upstreams.get(id.0 as usize)?.name;
        self.names.upstreams.find(name).map(UpstreamId)
    }

    /// The endpoint's place in this sheet's set, for one of another set.
    pub(super) fn find_endpoint(
        &self,
        (plan, endpoints): (&Plan, &EndpointSets),
        id: UpstreamId,
        endpoint: u32,
    ) -> Option<u32> {
        let set = endpoints.get(id)?;
        let name = &set.endpoints.get(endpoint as usize)?.name;
        let here = self.find_upstream(plan, id)?;
        self.names.endpoints.get(here.0 as usize)?.find(name)
    }
}
