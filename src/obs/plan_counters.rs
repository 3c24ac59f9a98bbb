//! Assigns counters to the parts of a plan and to its endpoints.
//!
//! [`PlanCounters`] are the counters of one core, in arrays indexed by the ids of the plan and of its endpoint sets. A
//! reload or a change of endpoints creates new arrays, which keep the counters of every part whose name still exists.
//! Parts of the same name share their counters.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{EndpointCounts, ListenerCounts, RouteCounts, UpstreamCounts};
use crate::plan::{EndpointSet, EndpointSets, ListenerId, LogFields, Plan, RouteId, UpstreamId};

/// The names of a plan's parts and endpoints, by id. All cores share them.
#[derive(Debug, Default)]
pub(super) struct PlanNames {
    /// The epoch of the endpoint sets. It identifies the plan too, because no two plans have the same sets.
    pub(super) epoch: u64,
    pub(super) plan_epoch: u64,
    pub(super) listeners: Arc<NameTable>,
    pub(super) routes: Arc<NameTable>,
    pub(super) upstreams: Arc<NameTable>,
    /// By upstream.
    pub(super) endpoints: Vec<NameTable>,
    /// The configured fields of access log lines.
    pub(super) fields: Arc<LogFields>,
}

/// Names by id, and ids by name.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    names: Vec<Arc<str>>,
    first: HashMap<Arc<str>, u32>,
}

impl PlanNames {
    /// The names of `plan` and `endpoints`. If `old` belongs to the same plan, the two share the plan's part.
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

    pub(super) fn get(&self, id: u32) -> Option<&Arc<str>> {
        self.names.get(id as usize)
    }

    /// The first part of this name.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.first.get(name).copied()
    }

    /// Every name once, with the first id that has it, in order of ids.
    pub(super) fn unique(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        (0_u32..)
            .zip(&self.names)
            .filter(|(id, name)| self.find(name) == Some(*id))
    }

    /// Counters for every id. A name that exists in `old` keeps its counters.
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

/// The counters of one core for one plan and its endpoint sets.
#[derive(Debug)]
pub(super) struct PlanCounters {
    pub(super) names: Arc<PlanNames>,
    listeners: Arc<[Arc<ListenerCounts>]>,
    routes: Arc<[Arc<RouteCounts>]>,
    upstreams: Arc<[Arc<UpstreamCounts>]>,
    endpoints: Vec<Arc<[Arc<EndpointCounts>]>>,
}

impl PlanCounters {
    /// Counters for a plan's parts; names that exist in `old` keep theirs.
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

    /// The epoch of the endpoint sets, and thereby of the plan, that the ids belong to.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.names.epoch
    }

    #[inline]
    pub(super) fn listener(&self, id: ListenerId) -> Option<&ListenerCounts> {
        self.listeners.get(id.0 as usize).map(Arc::as_ref)
    }

    #[inline]
    pub(super) fn route(&self, id: RouteId) -> Option<&RouteCounts> {
        self.routes.get(id.0 as usize).map(Arc::as_ref)
    }

    #[inline]
    pub(super) fn upstream(&self, id: UpstreamId) -> Option<&UpstreamCounts> {
        self.upstreams.get(id.0 as usize).map(Arc::as_ref)
    }

    #[inline]
    pub(super) fn endpoint(&self, id: UpstreamId, endpoint: u32) -> Option<&EndpointCounts> {
        let endpoints = self.endpoints.get(id.0 as usize)?;
        endpoints.get(endpoint as usize).map(Arc::as_ref)
    }

    /// Converts a listener's id in `plan` into the id here.
    pub(super) fn find_listener(&self, plan: &Plan, id: ListenerId) -> Option<ListenerId> {
        let name = &plan.listeners.get(id.0 as usize)?.name;
        self.names.listeners.find(name).map(ListenerId)
    }

    /// Converts a route's id in `plan` into the id here.
    pub(super) fn find_route(&self, plan: &Plan, id: RouteId) -> Option<RouteId> {
        let name = &plan.routes.get(id.0 as usize)?.name;
        self.names.routes.find(name).map(RouteId)
    }

    /// Converts an upstream's id in `plan` into the id here.
    pub(super) fn find_upstream(&self, plan: &Plan, id: UpstreamId) -> Option<UpstreamId> {
        let name = &plan.upstreams.get(id.0 as usize)?.name;
        self.names.upstreams.find(name).map(UpstreamId)
    }

    /// Converts an endpoint's index in another endpoint set into the index here.
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
