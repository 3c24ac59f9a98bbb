//! The plan: a configuration in the form that cores run.
//!
//! The control thread compiles a plan once, so that cores do not have to for each request: names become ids, overrides
//! are merged, patterns become a [`RouteTable`]. A plan is immutable, and all cores share it. An exchange keeps the
//! plan that it began with. The addresses of endpoints ([`EndpointSets`]) live beside the plan, and so does everything
//! that changes while Weir runs: pools, budgets, counters. These survive a reload by name.
#![forbid(unsafe_code)]

mod balance_parameters;
mod breaker_plan;
mod capacity;
mod compile;
mod cookie;
mod decision;
mod dry_run;
mod endpoints;
mod file_tests;
mod forwarded_chain;
mod health_plan;
mod listener_diff;
mod listener_target;
mod paths;
mod retry_plan;
mod route_plan;
mod screening;
mod split;
mod sticky;
mod template;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::route::{KnownClaims, VerifiedClaims};
pub use balance_parameters::BalanceParameters;
pub use breaker_plan::BreakerPlan;
pub use capacity::{Capacity, Grants};
pub use cookie::CookiePlan;
pub use decision::{
    Decision, DecisionBuffers, Explanation, REDIRECT_HTTPS_STATUS, Refusal, RequestHead,
};
pub use dry_run::{DryRequest, DryRun, default_port};
pub use endpoints::{
    EndpointSet, EndpointSets, EndpointSpec, EndpointState, SourceSummary, UnresolvedEndpoint,
};
pub use forwarded_chain::{ForwardedChain, ForwardedHop, ForwardedNode};
pub use health_plan::HealthPlan;
pub use listener_diff::{KeptListener, ListenerDiff};
pub use listener_target::{ListenerTarget, NameTarget, ServerNames, Transport, UdpPlan};
pub use paths::PathObjection;
pub use retry_plan::RetryPlan;
pub use route_plan::{FixedAnswer, RoutePlan, RouteTarget};
pub use screening::{PeerFacts, ScreenedRequest, is_grpc, odd_names};
pub use split::{RouteSplit, SplitShare};
pub use sticky::{StickyKeys, StickyKind, StickyPlan};
pub use template::{Redirect, Rewrite};

use weir_config::{Code, ForwardedHeader, Position};
use weir_proto_h1::{Claims, is_other_spelling};

pub use crate::ids::{JwtId, ListenerId, RouteId, UpstreamId};
use crate::io::Address;
use crate::networks::NetworkSet;
use crate::policy::errors::{ErrorPages, PageFiles};
use crate::policy::{PlannedStep, StatePlans};
use crate::route::RouteTable;
use crate::tls;

/// The compiled configuration that all cores run. [`Plan::compile`] makes it.
#[derive(Debug)]
pub struct Plan {
    /// The number of the plan: control gives each plan a higher one than the plan before; 0 until then.
    pub epoch: u64,
    /// Addresses that accept connections, in file order.
    pub listeners: Vec<ListenerPlan>,
    /// What each route does with its requests, in file order.
    pub routes: Vec<RoutePlan>,
    /// What clients get in place of error answers to requests without a route.
    pub errors: ErrorPages,
    /// Finds the route of a request.
    pub table: RouteTable,
    /// The steps for requests without a route. None of them waits.
    pub steps_without_route: Box<[PlannedStep]>,
    /// What the steps of routes and listeners keep from request to request.
    pub states: StatePlans,
    /// Groups of endpoints, in file order.
    pub upstreams: Vec<UpstreamPlan>,
    /// The name that Weir adds to Via, and finds there again if a request loops (RFC 9110, section 7.6.3). The name
    /// follows from the file alone. Two machines in a row have different files, so neither mistakes the other for
    /// itself, and a machine keeps its name when addresses change.
    pub via: Box<str>,
    /// Peers whose forwarded fields Weir believes.
    pub trusted_proxies: NetworkSet,
    /// The claims that only these peers may make.
    pub trusted_claims: Claims,
    /// The field in which these peers name the client.
    pub forwarded_header: ForwardedHeader,
    /// Names of the fields that routes match on or that their policies change in requests, in lower case and sorted.
    pub matched_fields: Box<[Box<str>]>,
    /// Fields of requests and answers that the access log has.
    pub log_fields: Arc<LogFields>,
    /// How long running exchanges may take to end after a signal to stop.
    pub grace: Duration,
    /// How much of the machine the cores may use.
    pub capacity: Capacity,
}

/// Names of the fields that the access log has, in lower case.
#[derive(Debug, Default)]
pub struct LogFields {
    /// Request fields.
    pub request: Vec<Box<str>>,
    /// Response fields.
    pub response: Vec<Box<str>>,
}

impl Plan {
    /// Adds the TLS servers and clients that were loaded for the same configuration.
    pub fn equip(&mut self, tls: &tls::LoadedTls) {
        for (listener, server) in self.listeners.iter_mut().zip(&tls.servers) {
            listener.tls.clone_from(server);
        }
        for (upstream, client) in self.upstreams.iter_mut().zip(&tls.clients) {
            upstream.tls.clone_from(client);
        }
    }

    /// Adds the error pages that were read for the same configuration.
    pub fn take_error_files(&mut self, files: &PageFiles) {
        let routes = self.routes.iter_mut().map(|route| &mut route.errors);
        for pages in routes.chain([&mut self.errors]) {
            pages.take_files(files);
        }
    }

    /// What clients get in place of error answers on a route, or without one.
    #[must_use]
    pub fn errors_of(&self, route: Option<RouteId>) -> &ErrorPages {
        let route = route.and_then(|id| self.route(id));
        route.map_or(&self.errors, |route| &route.errors)
    }

    /// Whether some route matches on the field of this name or changes it.
    pub fn matches_field(&self, name: &[u8]) -> bool {
        let lower = |byte: &u8| byte.to_ascii_lowercase();
        let found = self
            .matched_fields
            .binary_search_by(|known| known.bytes().cmp(name.iter().map(lower)));
        found.is_ok()
    }

    /// Whether an endpoint may confuse this name with that of a field that some route matches on or changes.
    #[cold]
    #[must_use]
    pub fn is_taken_for_matched(&self, name: &[u8]) -> bool {
        let mut matched = self.matched_fields.iter();
        matched.any(|matched| is_other_spelling(name, matched.as_bytes()))
    }

    /// The listener with an id of this plan.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&ListenerPlan> {
        self.listeners.get(id.0 as usize)
    }

    /// The route with an id of this plan.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Option<&RoutePlan> {
        self.routes.get(id.0 as usize)
    }

    /// The name of a route of this plan.
    #[must_use]
    pub fn route_name(&self, id: RouteId) -> &str {
        self.route(id).map_or("", |route| &*route.name)
    }

    /// The upstream with an id of this plan.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<&UpstreamPlan> {
        self.upstreams.get(id.0 as usize)
    }
}

/// An address that accepts connections.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Its address as in the file. Its sockets and counters survive a reload under this name.
    pub name: Arc<str>,
    /// Its address.
    pub address: Address,
    /// What becomes of its connections or datagrams.
    pub target: ListenerTarget,
    /// Time limits until a route is known. Without HTTP, `idle` is that of a whole connection.
    pub timeouts: Timeouts,
    /// How long a connection to an endpoint may take to open, in place of the upstream's limit, for connections that
    /// Weir only passes on.
    pub connect_timeout: Option<Duration>,
    /// Limits of request heads and framing.
    pub limits: weir_proto_h1::Limits,
    /// Whether it accepts HTTP/2.
    pub takes_http2: bool,
    /// Whether answers have the request id.
    pub shows_request_id: bool,
    /// Limits of HTTP/2.
    pub http2: weir_proto_h2::Config,
    /// Concurrent connections, over all cores.
    pub connections_max: u32,
    /// Concurrent connections from one client address, over all cores.
    pub connections_per_client_max: u32,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// The TLS server of a listener with TLS; [`Plan::equip`] adds it.
    pub tls: Option<Arc<tls::TlsServer>>,
    /// The port of `https` that the listener redirects every request to.
    pub redirect_https: Option<u16>,
    /// The peers that must begin each connection with a PROXY protocol header.
    pub proxy_protocol: Option<Arc<NetworkSet>>,
    /// The mode of a Unix socket's file; `None` leaves it to the umask.
    pub mode: Option<u32>,
    /// Whether `trusted_proxies` has this listener's Unix socket. Its peers have no address to look up.
    pub trusts_peers: bool,
    /// Whether routes and endpoints see fields with odd names, unless the route differs.
    pub keeps_odd_names: bool,
    /// The policies that cover every request, also those that no route takes.
    pub steps: Box<[PlannedStep]>,
}

impl ListenerPlan {
    /// Whether the listener serves HTTP.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.target, ListenerTarget::Http)
    }

    /// What its socket carries. Two listeners may share an address if their transports differ.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.target {
            ListenerTarget::Udp(_) => Transport::Datagram,
            ListenerTarget::Http | ListenerTarget::Tcp(_) | ListenerTarget::Passthrough(_) => {
                Transport::Stream
            }
        }
    }

    /// Whether both have the same socket, so that a reload keeps it.
    #[must_use]
    pub fn has_same_socket(&self, other: &Self) -> bool {
        self.address == other.address && self.transport() == other.transport()
    }
}

/// Merged time limits: a listener's override the top level's; a route's override its upstream's, which override the top
/// level's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A request head must be complete within this time.
    pub head: Duration,
    /// Silence on a client's connection between requests, and on an upgraded connection.
    pub idle: Duration,
    /// Connecting to an endpoint.
    pub connect: Duration,
    /// Waiting for a free connection to an endpoint.
    pub queue: Duration,
    /// From the end of the request, or from an interim answer, to the first byte of the answer.
    pub first_byte: Duration,
    /// Silence of the request body before an answer begins, and of both directions together after that.
    pub body_stall: Duration,
    /// How long Weir keeps an unused connection to an endpoint.
    pub upstream_idle: Duration,
    /// The whole exchange.
    pub total: Option<Duration>,
    /// The lowest rate of an upload before its answer begins, and of a client that reads an answer, in bytes a second.
    /// 0 allows any rate.
    pub body_rate_bytes_min: u64,
}

impl Timeouts {
    /// Compiles the time limits `merged` and the rates in `limits`.
    fn new(merged: weir_config::Timeouts, limits: weir_config::Limits) -> Self {
        Self {
            head: merged.head,
            idle: merged.idle,
            connect: merged.connect,
            queue: merged.queue,
            first_byte: merged.first_byte,
            body_stall: merged.body_stall,
            upstream_idle: merged.upstream_idle,
            total: merged.total,
            body_rate_bytes_min: limits.body_rate.unwrap_or(0),
        }
    }
}

/// The settings of an upstream. [`EndpointSet`] has its endpoints.
#[derive(Clone, Debug)]
pub struct UpstreamPlan {
    /// Its name in the file. Its state survives a reload under this name.
    pub name: Arc<str>,
    /// How it chooses an endpoint.
    pub balance: weir_config::Balance,
    /// What keeps clients at their endpoints.
    pub sticky: Option<StickyPlan>,
    /// How long an endpoint that becomes usable gets less than its share.
    pub slow_start: Option<Duration>,
    /// The share of healthy endpoints, in percent, below which health is ignored; 0 never ignores it.
    pub panic_percent: u32,
    /// Which failures of requests take an endpoint out of use for a time.
    pub eject: Option<weir_config::Eject>,
    /// The checks of its endpoints.
    pub health: Option<Arc<HealthPlan>>,
    /// Unused connections that each core keeps to each endpoint.
    pub idle_per_core_max: u32,
    /// Connections to each endpoint, over all cores.
    pub connections_max: u32,
    /// Requests that may wait for a connection, over all cores.
    pub pending_max: u32,
    /// Retry rules for routes without rules of their own. All routes share the budget.
    pub retry: RetryPlan,
    /// When it refuses requests that it would not serve.
    pub breaker: Option<BreakerPlan>,
    /// Whether each core finds out how many requests it can serve at once.
    pub has_adaptive_concurrency: bool,
    /// Time limits without those of a route, for the pool.
    pub timeouts: Timeouts,
    /// How long an endpoint's machine may acknowledge nothing before the kernel gives the connection up: at least the
    /// longest `body_stall` of the routes to this upstream, because the kernel cannot tell a dead machine from an
    /// endpoint that does not read.
    pub dead_after: Duration,
    /// Limits of response heads and framing.
    pub limits: weir_proto_h1::Limits,
    /// Limits of HTTP/2.
    pub http2: weir_proto_h2::Config,
    /// The PROXY protocol header that connections to it begin with, if any.
    pub proxy_protocol: Option<weir_config::ProxyProtocol>,
    /// The TLS client of an upstream with TLS endpoints; [`Plan::equip`] adds it.
    pub tls: Option<Arc<tls::TlsClient>>,
}

/// The protocol of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, or whatever ALPN chooses over TLS.
    Http2,
}

/// A mistake in a configuration that only compiling or testing the plan shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind of mistake.
    pub code: Code,
    /// Its place in the file.
    pub position: Position,
    /// What is wrong and what to do, in one sentence without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests;
