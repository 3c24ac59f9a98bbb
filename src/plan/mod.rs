//! The plan: a configuration in the form that cores run.
//!
//! Purpose: everything that can be worked out before a request comes is worked out here, once, on
//! the control thread: names become ids, overrides are merged, patterns become a
//! [`RouteTable`]. A plan is immutable and shared by all cores; an exchange holds on to the one it
//! began with. Where endpoints are ([`EndpointSets`]) lives beside the plan, and so does what changes while Weir runs
//! (pools, budgets, counters), which survives a reload by name.
#![forbid(unsafe_code)]

mod capacity;
mod cidr_set;
mod compile;
mod decision;
mod dry_run;
mod endpoints;
mod file_tests;
mod forwarded_chain;
mod listener_diff;
mod paths;
mod route_plan;
mod screening;
mod template;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use capacity::{Capacity, Grants};
pub use cidr_set::CidrSet;
pub use decision::{
    Decision, DecisionBuffers, Explanation, REDIRECT_HTTPS_STATUS, Refusal, RequestHead,
};
pub use dry_run::{DryRequest, DryRun, default_port};
pub use endpoints::{EndpointSet, EndpointSets, EndpointSpec, UnresolvedEndpoint};
pub use forwarded_chain::{ForwardedChain, ForwardedHop, ForwardedNode};
pub use listener_diff::{KeptListener, ListenerDiff};
pub use paths::PathObjection;
pub use route_plan::{FixedAnswer, RoutePlan, RouteTarget};
pub use screening::{PeerFacts, ScreenedRequest, is_grpc, odd_names};
pub use template::{Redirect, Rewrite};

use weir_config::{Code, ForwardedHeader, Position};
use weir_proto_h1::{Claims, is_other_spelling};

use crate::io::Address;
use crate::limits::CONNECTS_MAX;
pub use crate::route::RouteId;
use crate::route::RouteTable;
use crate::tls;

/// A listener's place in [`Plan::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// An upstream's place in [`Plan::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// What all cores run. Made by [`Plan::compile`].
#[derive(Debug)]
pub struct Plan {
    /// Counts plans: control gives each a higher number than the one before. 0 until then.
    pub epoch: u64,
    /// Addresses that accept connections, in file order.
    pub listeners: Vec<ListenerPlan>,
    /// What to do with requests, in file order.
    pub routes: Vec<RoutePlan>,
    /// Finds the route of a request.
    pub table: RouteTable,
    /// Groups of endpoints, in file order.
    pub upstreams: Vec<UpstreamPlan>,
    /// What Weir calls itself in Via, and what it looks for there to notice a loop
    /// (RFC 9110 section 7.6.3). A token. Follows from the file, so that two boxes in a row, whose files differ, do not
    /// take each other for themselves, and from nothing else, so that a box keeps its name when addresses change.
    pub via: Box<str>,
    /// Peers whose forwarded fields are believed.
    pub trusted_proxies: CidrSet,
    /// What they may say that others may not.
    pub trusted_claims: Claims,
    /// The field in which they say who asked.
    pub forwarded_header: ForwardedHeader,
    /// Names of fields that decide which route takes a request, in lower case and sorted.
    pub matched_fields: Box<[Box<str>]>,
    /// Fields of requests and answers that lines of the access log have.
    pub log_fields: Arc<LogFields>,
    /// How long running exchanges may go on after a request to stop.
    pub grace: Duration,
    /// How much of the machine the cores may use.
    pub capacity: Capacity,
}

/// Names of fields that lines of the access log have, in lower case.
#[derive(Debug, Default)]
pub struct LogFields {
    /// Of requests.
    pub request: Vec<Box<str>>,
    /// Of answers.
    pub response: Vec<Box<str>>,
}

impl Plan {
    /// Puts in what was made of the files for TLS: by place in the file, as both come from the same configuration.
    pub fn equip(&mut self, tls: &tls::LoadedTls) {
        for (listener, server) in self.listeners.iter_mut().zip(&tls.servers) {
            listener.tls.clone_from(server);
        }
        for (upstream, client) in self.upstreams.iter_mut().zip(&tls.clients) {
            upstream.tls.clone_from(client);
        }
    }

    /// Whether a field of this name may decide which route takes a request.
    pub fn matches_field(&self, name: &[u8]) -> bool {
        let lower = |byte: &u8| byte.to_ascii_lowercase();
        let found = self
            .matched_fields
            .binary_search_by(|known| known.bytes().cmp(name.iter().map(lower)));
        found.is_ok()
    }

    /// Says whether an endpoint may take a name for another at which a route's `match` looks.
    #[cold]
    #[must_use]
    pub fn is_taken_for_matched(&self, name: &[u8]) -> bool {
        let mut matched = self.matched_fields.iter();
        matched.any(|matched| is_other_spelling(name, matched.as_bytes()))
    }

    /// The listener of an id of this plan.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&ListenerPlan> {
        self.listeners.get(id.0 as usize)
    }

    /// The route of an id of this plan.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Option<&RoutePlan> {
        self.routes.get(id.0 as usize)
    }

    /// The name of a route of this plan.
    #[must_use]
    pub fn route_name(&self, id: RouteId) -> &str {
        self.route(id).map_or("", |route| &*route.name)
    }

    /// The upstream of an id of this plan.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<&UpstreamPlan> {
        self.upstreams.get(id.0 as usize)
    }
}

/// An address that accepts connections.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Its address as in the file: the key under which it survives a reload.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// What holds before a route is known.
    pub timeouts: Timeouts,
    /// Limits of request heads and framing.
    pub limits: weir_proto_h1::Limits,
    /// Whether it speaks HTTP/2 with clients that do.
    pub takes_http2: bool,
    /// Whether answers carry the request id.
    pub shows_request_id: bool,
    /// Limits of HTTP/2.
    pub http2: weir_proto_h2::Config,
    /// Connections at once, all cores together.
    pub connections_max: u32,
    /// Connections at once from one client address, all cores together.
    pub connections_per_client_max: u32,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// What TLS is terminated with, where it is spoken. Filled in by whoever has read the files.
    pub tls: Option<Arc<tls::TlsServer>>,
    /// The port that every request is sent to by a redirect, over `https`.
    pub redirect_https: Option<u16>,
    /// Who must say in the PROXY protocol whose a connection is.
    pub proxy_protocol: Option<Arc<CidrSet>>,
    /// Permissions of a Unix socket's file, else by the umask.
    pub mode: Option<u32>,
    /// Whether peers without an address are trusted: those of a Unix socket among `trusted_proxies`.
    pub trusts_peers: bool,
    /// Whether routes see fields with odd names, and endpoints where the route does not differ.
    pub keeps_odd_names: bool,
}

/// Time limits, merged: top level, then listener, or upstream and route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A whole request head must have come within this time.
    pub head: Duration,
    /// Silence of a client's connection between requests, and of an upgraded one.
    pub idle: Duration,
    /// Opening a connection to an endpoint.
    pub connect: Duration,
    /// Waiting for a free connection to an endpoint.
    pub queue: Duration,
    /// From the end of the request, or from an interim answer, to the first byte of the answer.
    pub first_byte: Duration,
    /// Silence of a request's body before there is an answer, and of both directions together after.
    pub body_stall: Duration,
    /// How long an unused connection to an endpoint is kept.
    pub upstream_idle: Duration,
    /// A whole exchange.
    pub total: Option<Duration>,
    /// The slowest upload that is served without an answer, and the slowest reading of one, bytes a second; 0 serves any.
    pub body_rate_bytes_min: u64,
}

impl Timeouts {
    /// The time limits `merged`, with the rates that hold beside them.
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

/// What holds for a named group of endpoints as a whole; [`EndpointSet`] has the endpoints.
#[derive(Clone, Debug)]
pub struct UpstreamPlan {
    /// Its name in the file: the key under which its state survives a reload.
    pub name: Arc<str>,
    /// Unused connections kept, by endpoint and core.
    pub idle_per_core_max: u32,
    /// Connections to one endpoint, all cores together.
    pub connections_max: u32,
    /// Requests that wait for a connection, all cores together.
    pub pending_max: u32,
    /// Retry rules before any route has its say; the budget is the upstream's.
    pub retry: RetryPlan,
    /// Time limits before any route has its say: what the pool uses.
    pub timeouts: Timeouts,
    /// How long an endpoint's machine may acknowledge nothing before a connection is given up: no less than the longest
    /// `body_stall` of the routes that lead here, because an endpoint that only does not read counts the same.
    pub dead_after: Duration,
    /// Limits of response heads and framing.
    pub limits: weir_proto_h1::Limits,
    /// Limits of HTTP/2.
    pub http2: weir_proto_h2::Config,
    /// How connections to it begin: by saying whose they are.
    pub proxy_protocol: Option<weir_config::ProxyProtocol>,
    /// How its endpoints are spoken to over TLS, where one is. Filled in by whoever has read the files.
    pub tls: Option<Arc<tls::TlsClient>>,
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, known beforehand.
    Http2,
}

/// When a failed attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// How often a request that was sent may be sent again.
    pub retries_max: u32,
    /// Connections that may fail before the exchange does: what could not be made is tried elsewhere until then.
    pub connects_max: u32,
    /// The share of the upstream's live exchanges that may be retries, percent.
    pub budget_percent: u32,
    /// Retries at once that are allowed whatever the share.
    pub budget_min: u32,
    /// The mean wait before a retry.
    pub backoff: Duration,
    /// The time limit of one attempt.
    pub per_try: Option<Duration>,
}

impl RetryPlan {
    /// The retry rules `merged`.
    fn new(merged: weir_config::Retries) -> Self {
        Self {
            retries_max: merged.count.unwrap_or(0),
            connects_max: merged.count.map_or(1, |_| CONNECTS_MAX),
            budget_percent: merged.budget_percent,
            budget_min: merged.budget_floor,
            backoff: merged.backoff,
            per_try: merged.per_try,
        }
    }
}

/// Something in a configuration that only shows when it is compiled or tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub code: Code,
    /// Where it is in the file.
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
