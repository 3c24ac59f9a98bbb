//! Compiles a configuration to a plan.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use weir_config::{
    Cidr, Code, Config, FieldRules, ForwardedHeader, Policies, TokenPlace, TrustedPeer, Underscores,
};
use weir_proto_h1::{Claim, Claims};

use super::route_plan::compile_errors;
use super::{
    Capacity, EndpointSets, Grants, HealthPlan, ListenerPlan, ListenerTarget, LogFields, Plan,
    Problem, RetryPlan, RoutePlan, RouteTarget, StickyPlan, Timeouts, UpstreamId, UpstreamPlan,
};
use crate::io::Address;
use crate::limits::TCP_DEAD_AFTER_MS;
use crate::networks::NetworkSet;
use crate::policy::{self, StatePlans};
use crate::route::{RouteSpec, RouteTable};

impl Plan {
    /// Compiles a configuration. [`EndpointSets::compile`](super::EndpointSets::compile) finds its endpoints.
    ///
    /// # Errors
    /// All mistakes, not only the first: rewrites and redirects with placeholders that their match does not define, and
    /// policies that contradict each other.
    pub fn compile(config: &Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut states = StatePlans::default();
        let mut upstreams: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| compile_upstream(config, upstream))
            .collect();
        let routes: Vec<_> = config
            .routes
            .iter()
            .filter_map(|route| {
                let compiled = RoutePlan::compile(config, route, &mut states);
                compiled.map_err(|problem| problems.push(problem)).ok()
            })
            .collect();
        let listeners = compile_listeners(config, &mut states, &mut problems);
        let errors = compile_errors(&config.policies.errors);
        let errors = errors.map_err(|problem| problems.push(problem)).ok();
        let Some(errors) = errors.filter(|_| problems.is_empty()) else {
            // Those of the top level come once for each route.
            problems
                .sort_by(|a, b| (a.position.line, &a.message).cmp(&(b.position.line, &b.message)));
            problems.dedup();
            return Err(problems);
        };
        for route in &routes {
            let shares = match &route.target {
                RouteTarget::Split(split) => &split.shares[..],
                _ => &[],
            };
            for route in shares.iter().map(|share| &share.route).chain([route]) {
                if let RouteTarget::Upstream(UpstreamId(id)) = route.target
                    && let Some(upstream) = upstreams.get_mut(id as usize)
                {
                    upstream.dead_after = upstream.dead_after.max(route.timeouts.body_stall);
                }
            }
        }
        for listener in &config.listeners {
            for to in listener.target.upstreams() {
                if let Some(upstream) = upstreams.get_mut(to.index) {
                    let idle = config.relay_idle_of(listener);
                    upstream.dead_after = upstream.dead_after.max(idle);
                }
            }
        }
        Ok(Self {
            epoch: 0,
            listeners,
            steps_without_route: policy::compile_without_route(config, &mut states),
            states,
            table: RouteTable::from_specs(config.routes.iter().zip(&routes).map(
                |(written, compiled)| RouteSpec {
                    matches: &written.matches,
                    jwt: compiled.jwt,
                    answers_preflights: written.policies.cors.is_some(),
                },
            )),
            via: pseudonym(config),
            routes,
            errors,
            upstreams,
            log_fields: Arc::new(log_fields(config)),
            trusted_proxies: NetworkSet::of(&trusted_networks(config)),
            trusted_claims: trusted_claims(config),
            forwarded_header: config.forwarded_header,
            matched_fields: matched_fields(config),
            grace: config.timeouts.grace,
            capacity: Capacity::unbounded(config),
        })
    }
}

impl Plan {
    /// Works out how much of the machine the cores may use. A listener without a limit in the file has no limit, and
    /// neither has one client of it: at the machine's limit, Weir lets clients wait in the accept queue and refuses
    /// none.
    pub fn fit(&mut self, config: &Config, endpoints: &EndpointSets, grants: Grants, cores: usize) {
        let pooled = endpoints.connections_max(self);
        self.capacity = Capacity::of(config, pooled, grants, cores);
        for (listener, written) in self.listeners.iter_mut().zip(&config.listeners) {
            let per_client = connections_per_client_max(config, written);
            let count = connections_max(config, written);
            listener.connections_per_client_max = per_client.min(count);
        }
    }

    /// How many connections clients may have at once while upstreams have these endpoints.
    #[must_use]
    pub fn client_connections_max(&self, endpoints: &EndpointSets) -> u32 {
        self.capacity
            .connections_with(endpoints.connections_max(self))
    }
}

fn trusted_networks(config: &Config) -> Vec<Cidr> {
    let network = |peer: &TrustedPeer| match peer {
        TrustedPeer::Network(network) => Some(*network),
        TrustedPeer::Unix(_) | TrustedPeer::AnyUnix => None,
    };
    config.trusted_proxies.iter().filter_map(network).collect()
}

/// The claims that trusted peers may make. Only one spelling counts, because load balancers pass on a client's field of
/// the other spelling unchanged.
fn trusted_claims(config: &Config) -> Claims {
    let spelling = match config.forwarded_header {
        ForwardedHeader::XForwardedFor => Claim::XForwarded,
        ForwardedHeader::Forwarded => Claim::Forwarded,
    };
    // If Weir itself names the client's certificate to endpoints, no peer may.
    let tells = |listener: &weir_config::Listener| {
        listener.tls.as_ref().is_some_and(|tls| tls.client_headers)
    };
    let certificate = if config.listeners.iter().any(tells) {
        spelling
    } else {
        Claim::Certificate
    };
    Claims::of(&[spelling, certificate, Claim::Origin, Claim::RequestId])
}

/// The fields of requests that routes match on, and those that their policies write or remove: a client must not get
/// such a field to an endpoint in another spelling, or in its trailers.
fn matched_fields(config: &Config) -> Box<[Box<str>]> {
    let matches = || config.routes.iter().map(|route| &route.matches);
    let fields = matches().flat_map(|matches| &matches.headers);
    let mut names: BTreeSet<&str> = fields.map(|field| field.name.as_str()).collect();
    if matches().any(|matches| !matches.cookies.is_empty()) {
        names.insert("cookie");
    }
    names
        .into_iter()
        .map(Into::into)
        .chain(names_changed(config))
        .collect::<BTreeSet<Box<str>>>()
        .into_iter()
        .collect()
}

/// The fields of requests that policies write or remove, in lower case.
fn names_changed(config: &Config) -> impl Iterator<Item = Box<str>> {
    let policies = config.routes.iter().map(|route| &route.policies);
    let names = policies.flat_map(fields_changed);
    names.map(|name| name.to_ascii_lowercase().into())
}

/// The fields of requests that the policies of a route write, remove or take tokens from. The pattern has no `..`, so
/// the compiler points here when there is a new policy.
fn fields_changed(policies: &Policies) -> impl Iterator<Item = &str> {
    let Policies {
        headers,
        jwt,
        // Removes other spellings itself, on its own routes only.
        forward_auth: _,
        // These change no fields of requests.
        ip: _,
        cors: _,
        limits: _,
        concurrency: _,
        compress: _,
        errors: _,
        security_headers: _,
        mirror: _,
    } = policies;
    let of_headers = headers.iter().flat_map(|rules| {
        let FieldRules { remove, set, add } = &rules.request;
        let written = set.iter().chain(add).map(|field| &field.name);
        remove.iter().chain(written)
    });
    let issuers = jwt.iter().flat_map(|jwt| &jwt.issuers);
    let of_tokens = issuers.flat_map(|issuer| {
        let place = match &issuer.place {
            TokenPlace::Header(name) => Some(name),
            TokenPlace::Cookie(_) | TokenPlace::Query(_) => None,
        };
        let of_claims = issuer.claims_to_headers.iter().map(|(_, field)| field);
        of_claims.chain(place)
    });
    of_headers.chain(of_tokens).map(String::as_str)
}

fn log_fields(config: &Config) -> LogFields {
    let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    config
        .access_log
        .as_ref()
        .map_or_else(LogFields::default, |log| LogFields {
            request: names(&log.request_headers),
            response: names(&log.response_headers),
        })
}

fn compile_listeners(
    config: &Config,
    states: &mut StatePlans,
    problems: &mut Vec<Problem>,
) -> Vec<ListenerPlan> {
    let compile = |listener: &weir_config::Listener| ListenerPlan {
        steps: policy::compile_listener(config, listener, states).unwrap_or_else(|message| {
            problems.push(Problem {
                code: Code::Plan,
                position: listener.position.clone(),
                message: format!("listener `{}`: {message}", listener.address),
            });
            Box::default()
        }),
        name: match &listener.target {
            // A listener of the same address may accept connections.
            weir_config::ListenerTarget::Udp(_) => format!("{}/udp", listener.address).into(),
            _ => listener.address.to_string().into(),
        },
        target: ListenerTarget::compile(&listener.target),
        address: match &listener.address {
            weir_config::Address::Tcp(address) => Address::Ip(*address),
            weir_config::Address::Unix(path) => Address::Unix(Arc::new(path.clone())),
        },
        timeouts: listener_timeouts(config, listener),
        connect_timeout: listener.timeouts.connect,
        limits: head_limits(config.limits),
        takes_http2: listener.http2,
        shows_request_id: listener.request_id,
        http2: http2_limits(config),
        connections_max: connections_max(config, listener),
        connections_per_client_max: connections_per_client_max(config, listener),
        backlog: listener.backlog,
        tls: None,
        redirect_https: listener.redirect_https,
        proxy_protocol: (!listener.proxy_protocol.is_empty())
            .then(|| Arc::new(NetworkSet::of(&listener.proxy_protocol))),
        mode: listener.mode,
        trusts_peers: config.trusts_all_of(listener),
        keeps_odd_names: listener.underscores == Underscores::Keep,
    };
    config.listeners.iter().map(compile).collect()
}

fn listener_timeouts(config: &Config, listener: &weir_config::Listener) -> Timeouts {
    let timeouts = Timeouts::new(config.listener_timeouts(listener), config.limits);
    match listener.target {
        weir_config::ListenerTarget::Http => timeouts,
        _ => Timeouts {
            idle: config.relay_idle_of(listener),
            ..timeouts
        },
    }
}

/// Concurrent connections of a listener. Flows of datagrams have a limit of their own.
fn connections_max(config: &Config, listener: &weir_config::Listener) -> u32 {
    match listener.target {
        weir_config::ListenerTarget::Udp(_) => u32::MAX,
        _ => config.connections_of(listener).unwrap_or(u32::MAX),
    }
}

/// Concurrent connections of one client address. Many clients may send datagrams from one address: resolvers do.
fn connections_per_client_max(config: &Config, listener: &weir_config::Listener) -> u32 {
    match listener.target {
        weir_config::ListenerTarget::Udp(_) => u32::MAX,
        _ => config.connections_per_client_of(listener),
    }
}

fn compile_upstream(config: &Config, upstream: &weir_config::Upstream) -> UpstreamPlan {
    let timeouts = Timeouts::new(config.upstream_timeouts(upstream), config.limits);
    UpstreamPlan {
        name: upstream.name.as_str().into(),
        balance: upstream.balance.clone(),
        sticky: (upstream.sticky.as_ref())
            .map(|sticky| StickyPlan::compile(sticky, &upstream.name)),
        slow_start: upstream.slow_start,
        panic_percent: upstream.panic_percent,
        eject: upstream.eject,
        health: HealthPlan::compile(upstream).map(Arc::new),
        idle_per_core_max: upstream.pool.idle_per_core,
        connections_max: upstream.pool.connections,
        pending_max: upstream.pool.pending,
        retry: RetryPlan::new(config.retries.patched(&upstream.retries)),
        breaker: upstream.breaker.map(Into::into),
        has_adaptive_concurrency: upstream.adaptive_concurrency,
        timeouts,
        dead_after: Duration::from_millis(TCP_DEAD_AFTER_MS).max(timeouts.body_stall),
        limits: head_limits(config.limits),
        proxy_protocol: upstream.proxy_protocol,
        tls: None,
        http2: http2_limits(config),
    }
}

fn head_limits(from: weir_config::Limits) -> weir_proto_h1::Limits {
    let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    weir_proto_h1::Limits {
        head_bytes_max: bytes(from.head_bytes),
        target_bytes_max: bytes(from.target_bytes),
        fields_max: from.fields,
        ..weir_proto_h1::Limits::default()
    }
}

/// The limits of an HTTP/2 connection. Heads have those of HTTP/1.1. Windows grow to sixteen times their first size.
fn http2_limits(config: &Config) -> weir_proto_h2::Config {
    let (heads, from) = (head_limits(config.limits), config.http2);
    let window = |bytes: u64| {
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(i32::MAX as u32)
    };
    weir_proto_h2::Config {
        streams_max: from.streams,
        stream_window_bytes: window(from.stream_window),
        stream_window_bytes_max: window(16 * from.stream_window),
        connection_window_bytes: window(from.connection_window),
        connection_window_bytes_max: window(16 * from.connection_window),
        list_bytes_max: heads.head_bytes_max,
        fields_max: heads.fields_max,
        target_bytes_max: heads.target_bytes_max,
        extended_connect: true,
        is_https: false,
        floods: weir_proto_h2::FloodLimits {
            resets_max: from.resets,
            settings_max: from.settings,
            pings_max: from.pings,
            empty_data_max: from.empty_data,
            continuations_max: from.continuations,
            ..weir_proto_h2::FloodLimits::default()
        },
    }
}

/// The name for Via: a hash of the listeners, routes and upstreams as the file writes them, without resolved addresses.
fn pseudonym(config: &Config) -> Box<str> {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for listener in &config.listeners {
        hash.add(&listener.address);
    }
    for route in &config.routes {
        hash.add(&(&route.matches, &route.target));
    }
    for upstream in &config.upstreams {
        hash.add(&upstream.name);
        for endpoint in &upstream.endpoints {
            hash.add(&endpoint.to_string());
        }
    }
    format!("weir-{:08x}", (hash.0 ^ hash.0 >> 32) & 0xffff_ffff).into()
}

/// A 64-bit FNV-1a hash of the text written to it.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, part: &dyn fmt::Debug) {
        // Hashing cannot fail.
        let _ = writeln!(self, "{part:?}");
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}
