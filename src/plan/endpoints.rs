//! Endpoints of upstreams: addresses, weights and what each endpoint speaks.
//!
//! A [`Plan`] follows from the file alone; addresses of endpoints follow from name resolution too. So endpoints live in
//! sets beside the plan. When a name resolves differently, cores get new sets: control compiles no route and replaces no
//! plan. An exchange keeps the sets it began with.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_config::{Code, Config, EndpointAddress, Position};

use super::{Plan, Problem, Protocol, UpstreamId};
use crate::io::Address;
use crate::tls;

/// Finds the addresses of a host name.
type Resolve<'a> = &'a dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Finds the endpoints that a source gives, or why it gives none.
type Find<'a> =
    &'a dyn Fn(&weir_config::EndpointSource) -> Result<Arc<[weir_config::Endpoint]>, String>;

/// The endpoints of all upstreams of a plan.
#[derive(Debug, Default)]
pub struct EndpointSets {
    /// The number of these sets: 0 until control gives them a higher number than all sets before, whatever their plan.
    pub epoch: u64,
    sets: Vec<Arc<EndpointSet>>,
}

/// The endpoints of one upstream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    /// Endpoints in file order, then those of sources; all addresses of a host name one after the other.
    pub endpoints: Vec<EndpointSpec>,
    /// Endpoints without an address, because their names were not found, and sources that have never given endpoints.
    pub unresolved: Vec<UnresolvedEndpoint>,
    /// Endpoints of sources that listeners without HTTP cannot use, which are left out.
    pub unfit: Vec<UnresolvedEndpoint>,
    /// What sources gave.
    pub sources: Vec<SourceSummary>,
}

/// What a source of endpoints gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSummary {
    /// Its name.
    pub name: Arc<str>,
    /// How many endpoints it gave, host names counted once.
    pub endpoints: usize,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its address as in the file, unique in its upstream: the key under which its state survives a reload. An address
    /// that a host name resolves to follows an `@`: `backend:8080@10.0.0.7`.
    pub name: Arc<str>,
    /// Where Weir connects to.
    pub address: Address,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its share of requests in proportion to the others'; 0 drains it.
    pub weight: u32,
    /// Whether the administrator lets it have requests.
    pub state: EndpointState,
    /// Whether it gets requests only while no other endpoint is healthy.
    pub backup: bool,
    /// Its priority: 0 is used first.
    pub priority: u32,
    /// The most connections to it, over all cores, if fewer than the upstream's limit.
    pub connections_max: Option<u32>,
    /// The most requests to it at once, over all cores.
    pub requests_max: Option<u32>,
    /// The zone that it is in.
    pub zone: Option<Arc<str>>,
    /// The name that its certificate must have; `None` for an endpoint that does not speak TLS.
    pub tls_name: Option<tls::TlsName>,
}

/// Whether the administrator lets an endpoint have requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// It gets requests.
    #[default]
    Ready,
    /// It gets no new clients; who is bound to it by a sticky session stays.
    Drain,
    /// It gets no requests at all.
    Maintenance,
}

impl EndpointState {
    /// Its name in the admin API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// An endpoint that is left out: its name was not found, or it does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnresolvedEndpoint {
    /// Its address as in the file.
    pub name: Arc<str>,
    /// Where it, or its source, is in the file.
    pub position: Position,
    /// Why it is left out.
    pub why: String,
}

impl EndpointSets {
    /// Finds the endpoints of a configuration's upstreams.
    ///
    /// Asks `resolve` once for every endpoint that is a host name. Each address it gives becomes an endpoint with the
    /// weight of that entry. An endpoint without an address goes to [`EndpointSet::unresolved`].
    ///
    /// # Errors
    /// Upstreams with more endpoints than an upstream may have.
    pub fn compile(config: &Config, resolve: Resolve<'_>) -> Result<Self, Vec<Problem>> {
        Self::compile_with(config, resolve, &|_| Err("it was not asked".to_owned()))
    }

    /// The same with the endpoints that sources give. A source that gives none goes to [`EndpointSet::unresolved`]; an
    /// endpoint that the upstream has already counts once.
    ///
    /// # Errors
    /// As [`EndpointSets::compile`].
    pub fn compile_with(
        config: &Config,
        resolve: Resolve<'_>,
        find: Find<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let numbers = 0..config.upstreams.len();
        let compile = |number| Arc::new(EndpointSet::compile((config, number), resolve, find));
        let sets: Vec<_> = numbers.map(compile).collect();
        let upstreams = config.upstreams.iter().zip(&sets);
        let problems: Vec<_> = upstreams
            .filter_map(|(upstream, set)| set.problem(upstream))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { epoch: 0, sets })
    }

    /// Shares every set that is equal in `old`, which belongs to the same plan. Cores recognise unchanged upstreams by
    /// the shared sets.
    pub fn share_unchanged(&mut self, old: &Self) {
        for (set, old) in self.sets.iter_mut().zip(&old.sets) {
            if *set == *old {
                set.clone_from(old);
            }
        }
    }

    /// These sets, except those that `change` replaces. It gets the number and the set of each upstream.
    #[must_use]
    pub fn changed(
        &self,
        mut change: impl FnMut(usize, &EndpointSet) -> Option<EndpointSet>,
    ) -> Self {
        let sets = self.sets.iter().enumerate().map(|(at, set)| {
            let changed = change(at, set).map(Arc::new);
            changed.unwrap_or_else(|| set.clone())
        });
        Self {
            epoch: self.epoch,
            sets: sets.collect(),
        }
    }

    /// Whether all sets are shared with `other`.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.sets.iter().zip(&other.sets);
        self.sets.len() == other.sets.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// The endpoints of an upstream. `None` if the plan does not have the upstream.
    #[must_use]
    pub fn get(&self, id: UpstreamId) -> Option<&Arc<EndpointSet>> {
        self.sets.get(id.0 as usize)
    }

    /// The sets in the order of the plan's upstreams.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EndpointSet>> {
        self.sets.iter()
    }

    /// How many endpoints have an address.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sets.iter().map(|set| set.endpoints.len()).sum()
    }

    /// How many connections the pools of `plan` allow to all these endpoints together.
    #[must_use]
    pub fn connections_max(&self, plan: &Plan) -> u64 {
        let upstreams = plan.upstreams.iter().zip(&self.sets);
        upstreams
            .flat_map(|(upstream, set)| {
                let max = upstream.connections_max;
                let endpoints = set.endpoints.iter();
                // Control keeps one more for checks.
                let checks = u64::from(upstream.health.is_some());
                endpoints.map(move |endpoint| u64::from(endpoint.connections_max(max)) + checks)
            })
            .sum()
    }
}

impl EndpointSpec {
    /// An endpoint of the configuration at one address.
    #[must_use]
    pub fn new(
        upstream: &weir_config::Upstream,
        endpoint: &weir_config::Endpoint,
        name: Arc<str>,
        address: Address,
    ) -> Self {
        Self {
            name,
            address,
            // With TLS, the handshake decides; HTTP/2 is the first guess.
            protocol: if endpoint.h2c || endpoint.tls {
                Protocol::Http2
            } else {
                Protocol::Http1
            },
            weight: endpoint.weight,
            state: EndpointState::Ready,
            backup: endpoint.backup,
            priority: endpoint.priority,
            connections_max: endpoint.connections,
            requests_max: endpoint.requests,
            zone: endpoint.zone.as_deref().map(Into::into),
            tls_name: tls_name(upstream, endpoint),
        }
    }

    /// The most connections to the endpoint, over all cores, in an upstream that allows `upstream_max` to each.
    #[must_use]
    pub fn connections_max(&self, upstream_max: u32) -> u32 {
        let own = self.connections_max.unwrap_or(upstream_max);
        // An HTTP/1.1 connection carries one request at a time.
        let requests = self
            .requests_max
            .filter(|_| self.protocol == Protocol::Http1);
        own.min(upstream_max).min(requests.unwrap_or(u32::MAX))
    }
}

impl EndpointSet {
    fn compile((config, number): (&Config, usize), resolve: Resolve<'_>, find: Find<'_>) -> Self {
        let mut set = Self::default();
        let Some(upstream) = config.upstreams.get(number) else {
            return set;
        };
        let found = set.ask((config, number), upstream, find);
        for endpoint in upstream.endpoints.iter().chain(&found) {
            let mut push = |name: String, address| {
                let spec = EndpointSpec::new(upstream, endpoint, name.into(), address);
                set.endpoints.push(spec);
            };
            let written = endpoint.to_string();
            match &endpoint.address {
                EndpointAddress::Ip(address) => push(written, Address::Ip(*address)),
                EndpointAddress::Unix(path) => push(written, Address::Unix(Arc::new(path.clone()))),
                EndpointAddress::Name { host, port } => match addresses(resolve, host, *port) {
                    Ok(found) => {
                        for address in found {
                            push(format!("{written}@{}", address.ip()), Address::Ip(address));
                        }
                    }
                    Err(why) => set.unresolved.push(UnresolvedEndpoint {
                        name: written.into(),
                        position: endpoint.position.clone(),
                        why,
                    }),
                },
            }
        }
        set
    }

    /// Asks the sources of an upstream. Returns the endpoints that the upstream does not have itself.
    fn ask(
        &mut self,
        (config, number): (&Config, usize),
        upstream: &weir_config::Upstream,
        find: Find<'_>,
    ) -> Vec<weir_config::Endpoint> {
        let mut found = Vec::new();
        if upstream.sources.is_empty() {
            return found;
        }
        let own = upstream.endpoints.iter();
        let mut known: HashSet<_> = own.map(|each| each.address.clone()).collect();
        for source in &upstream.sources {
            let name: Arc<str> = source.kind.to_string().into();
            match find(source) {
                Ok(endpoints) => {
                    self.sources.push(SourceSummary {
                        name,
                        endpoints: endpoints.len(),
                    });
                    for endpoint in endpoints.iter() {
                        if let Some(why) = config.misfit(number, endpoint) {
                            self.unfit.push(UnresolvedEndpoint {
                                name: endpoint.to_string().into(),
                                position: source.position.clone(),
                                why,
                            });
                        } else if known.insert(endpoint.address.clone()) {
                            found.push(endpoint.clone());
                        }
                    }
                }
                Err(why) => self.unresolved.push(UnresolvedEndpoint {
                    name,
                    position: source.position.clone(),
                    why,
                }),
            }
        }
        found
    }

    fn problem(&self, upstream: &weir_config::Upstream) -> Option<Problem> {
        let max = weir_config::limits::ENDPOINTS_MAX;
        (self.endpoints.len() > max).then(|| Problem {
            code: Code::Plan,
            position: upstream.position.clone(),
            message: format!(
                "upstream `{}` has {} endpoints, at most {max}",
                upstream.name,
                self.endpoints.len()
            ),
        })
    }
}

/// The name that an endpoint's certificate must have: the upstream's `server_name`, or the host of the endpoint's
/// address.
fn tls_name(
    upstream: &weir_config::Upstream,
    endpoint: &weir_config::Endpoint,
) -> Option<tls::TlsName> {
    if !endpoint.tls {
        return None;
    }
    match (&upstream.tls.server_name, &endpoint.address) {
        (Some(name), _) => tls::TlsName::parse(name),
        (None, EndpointAddress::Ip(address)) => tls::TlsName::parse(&address.ip().to_string()),
        (None, EndpointAddress::Name { host, .. }) => tls::TlsName::parse(host),
        (None, EndpointAddress::Unix(_)) => None,
    }
}

/// The addresses of a name, each once, in the resolver's order.
fn addresses(resolve: Resolve<'_>, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = resolve(host, port).map_err(|error| error.to_string())?;
    let mut unique = Vec::with_capacity(found.len());
    for address in found {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    if unique.is_empty() {
        return Err("the name exists without one".to_owned());
    }
    Ok(unique)
}
