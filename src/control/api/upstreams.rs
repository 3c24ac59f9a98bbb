//! `/api/upstreams`: upstreams with their endpoints, and what happens at each.

use serde::Serialize;

use super::operations::Names;
use super::reply::Reply;
use crate::control::health::Health;
use crate::control::{Control, State};
use crate::plan::{EndpointSet, EndpointState, UpstreamId};
use crate::upstream::{EndpointHealth, UpstreamRegistry};

/// An upstream.
#[derive(Serialize)]
struct ShownUpstream<'a> {
    name: &'a str,
    balance: String,
    endpoints: Vec<ShownEndpoint<'a>>,
    /// Endpoints whose names were not found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unresolved: Vec<ShownUnresolved<'a>>,
}

#[derive(Serialize)]
struct ShownUnresolved<'a> {
    address: &'a str,
    error: &'a str,
}

/// An endpoint, over all cores.
#[derive(Serialize)]
pub(super) struct ShownEndpoint<'a> {
    address: &'a str,
    weight: u32,
    state: EndpointState,
    healthy: bool,
    ejected: bool,
    /// Why the last check has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    in_flight: u32,
    connections: u32,
}

/// An upstream of the running plan.
pub(super) struct FoundUpstream<'a> {
    pub(super) id: UpstreamId,
    pub(super) config: &'a weir_config::Upstream,
    pub(super) set: &'a EndpointSet,
    health: &'a Health,
}

/// All upstreams.
pub(super) fn list(control: &Control) -> Reply {
    let state = control.state.borrow();
    let shown: Vec<_> = all(&state)
        .map(|upstream| upstream.show(control.cores.upstreams()))
        .collect();
    Reply::json(&shown)
}

/// One upstream.
pub(super) fn show(control: &Control, names: &Names) -> Result<Reply, Reply> {
    let state = control.state.borrow();
    let upstream = find(&state, names)?;
    Ok(Reply::json(&upstream.show(control.cores.upstreams())))
}

fn all(state: &State) -> impl Iterator<Item = FoundUpstream<'_>> {
    let sets = state.config.upstreams.iter().zip(state.endpoints.iter());
    (0..).zip(sets).map(|(id, (config, set))| FoundUpstream {
        id: UpstreamId(id),
        config,
        set,
        health: &state.health,
    })
}

/// Finds the upstream that a path names.
pub(super) fn find<'s>(state: &'s State, names: &Names) -> Result<FoundUpstream<'s>, Reply> {
    all(state)
        .find(|upstream| upstream.config.name == names.upstream)
        .ok_or_else(|| Reply::not_found("upstream", &names.upstream))
}

impl<'a> FoundUpstream<'a> {
    fn show(&self, counts: &UpstreamRegistry) -> ShownUpstream<'a> {
        let unresolved = self.set.unresolved.iter().map(|endpoint| ShownUnresolved {
            address: &endpoint.name,
            error: &endpoint.why,
        });
        ShownUpstream {
            name: &self.config.name,
            balance: self.config.balance.to_string(),
            endpoints: self.show_endpoints(counts),
            unresolved: unresolved.collect(),
        }
    }

    /// All endpoints.
    pub(super) fn show_endpoints(&self, counts: &UpstreamRegistry) -> Vec<ShownEndpoint<'a>> {
        let indices = 0..self.set.endpoints.len();
        indices
            .filter_map(|index| self.show_endpoint(counts, index))
            .collect()
    }

    /// The endpoint with this index.
    pub(super) fn show_endpoint(
        &self,
        counts: &UpstreamRegistry,
        index: usize,
    ) -> Option<ShownEndpoint<'a>> {
        let spec = self.set.endpoints.get(index)?;
        let load = counts.load(&self.config.name, &spec.name);
        let status = counts.status(&self.config.name, &spec.name);
        Some(ShownEndpoint {
            address: &spec.name,
            weight: spec.weight,
            state: spec.state,
            healthy: match self.config.health {
                Some(_) => status.health == EndpointHealth::Up,
                None => true,
            },
            ejected: status.is_ejected,
            failure: (self.health.failure(&self.config.name, &spec.name))
                .map(|why| why.to_string()),
            in_flight: load.in_flight,
            connections: load.connections,
        })
    }

    /// The index of the endpoint with this address, in any spelling that the file takes.
    pub(super) fn find_endpoint(&self, address: &str) -> Option<usize> {
        let named = |name: &str| {
            let mut all = self.set.endpoints.iter();
            all.position(|spec| *spec.name == *name)
        };
        named(address).or_else(|| {
            let parsed: weir_config::Endpoint = address.parse().ok()?;
            named(&parsed.to_string())
        })
    }
}
