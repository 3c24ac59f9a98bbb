//! `[upstream.NAME]`.

use std::collections::HashMap;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, Count, InScope, KeyPlaceholder, Keywords, LongForm, NamedEntry, OneOrMany, OrOff,
    ShortOrLong, SpannedKind, quoted_if_needed,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::slice::endpoint::{Endpoint, ServerKind, check_endpoints};
use crate::slice::listener::Listener;
use crate::slice::pool::{Pool, PoolPatch};
use crate::slice::retries::{RETRIES_MAX, RetriesPatch};
use crate::slice::timeouts::{InUpstream, TimeoutsPatch, times_agree};
use crate::slice::upstream_tls::{RawUpstreamTls, UpstreamTls};
use crate::text::diagnostic::{Code, Position};

/// A named group of endpoints that serve the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, unique in the file.
    pub name: String,
    /// Its endpoints, at least one, in file order.
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Connection keeping.
    pub pool: Pool,
    /// How its `https://` endpoints are spoken to.
    pub tls: UpstreamTls,
    /// What is said to endpoints before every connection: whose it is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What differs from the top level; see [`Config::timeouts_of`].
    pub timeouts: TimeoutsPatch,
    /// What differs from the top level; see [`Config::retries_of`].
    pub retries: RetriesPatch,
    /// Where it is in the file.
    pub position: Position,
}

impl Upstream {
    /// An upstream with defaults only.
    #[must_use]
    pub fn new(name: &str, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.to_owned(),
            endpoints,
            balance: Balance::default(),
            pool: Pool::default(),
            tls: UpstreamTls::default(),
            proxy_protocol: None,
            timeouts: TimeoutsPatch::default(),
            retries: RetriesPatch::default(),
            position: Position::default(),
        }
    }
}

/// How an endpoint is chosen for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn, in proportion to the weights.
    #[default]
    RoundRobin,
}

/// How an endpoint is chosen.
const BALANCE: Preset<Balance> = preset(Balance::RoundRobin, "nginx, Envoy and Traefik");

impl Keywords for Balance {
    const ALL: &'static [(&'static str, Self)] = &[("round_robin", Self::RoundRobin)];
}

/// What an upstream says before every connection (HAProxy's PROXY protocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// The binary form.
    V2,
}

impl Keywords for ProxyProtocol {
    const ALL: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &["max_conns", "maxconn", "max_connections", "connections"],
        "`pool.connections`",
    ),
    (
        &["keepalive", "keep_alive", "idle_per_core"],
        "`pool.idle_per_core`",
    ),
    (
        &[
            "endpoints",
            "nodes",
            "hosts",
            "targets",
            "backends",
            "address",
            "addresses",
        ],
        "`servers`",
    ),
    (
        &["lb_policy", "algorithm", "strategy", "policy"],
        "`balance`",
    ),
    (&["ssl"], "`tls`"),
];

table! {
    /// A named group of endpoints that serve the same thing.
    RawUpstream, "upstream", "[upstream.NAME]", foreign FOREIGN_NAMES {
        /// The endpoints, at least one.
        required servers: Vec<Spanned<Endpoint>> = "servers" as OneOrMany<SpannedKind<ServerKind>>;
        /// How an endpoint is chosen.
        preset(BALANCE) balance: Balance = "balance" as Choice<Balance>;
        /// Connections kept to the endpoints.
        optional pool: PoolPatch = "pool" as PoolPatch;
        /// TLS towards those endpoints that begin with `https://`.
        optional tls: RawUpstreamTls = "tls" as RawUpstreamTls;
        /// Has every connection begin with the client's address, in the PROXY protocol. Each client
        /// then has connections of its own, and these are of HTTP/1.1.
        optional proxy_protocol: ProxyProtocol = "proxy_protocol" as Choice<ProxyProtocol>;
        /// Time limits in place of the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<InUpstream, TimeoutsPatch>;
        /// Retry rules in place of the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as ShortOrLong<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
    }
}

impl From<Vec<Spanned<Endpoint>>> for RawUpstream {
    /// An upstream of these endpoints with defaults only.
    fn from(servers: Vec<Spanned<Endpoint>>) -> Self {
        Self {
            span: servers
                .first()
                .map(|first| first.span.clone())
                .unwrap_or_default(),
            servers,
            balance: BALANCE.value,
            pool: None,
            tls: None,
            proxy_protocol: None,
            timeouts: None,
            retries: None,
        }
    }
}

impl LongForm for RawUpstream {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

/// Keys of `[upstream]`.
pub(crate) struct UpstreamName;

impl KeyPlaceholder for UpstreamName {
    const NAME: &'static str = "NAME";
}

pub(crate) fn check_upstreams(
    entries: Vec<NamedEntry<RawUpstream>>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<Upstream> {
    let mut upstreams = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.value.is_empty() || !name.value.chars().all(plain) {
            let message = format!("`{}` is no name for an upstream", name.value);
            cx.error(Code::BadValue, name.span.clone(), message)
                .help("letters, digits, hyphens, underscores and dots");
        }
        let Some(raw) = value else { continue };
        let patch = raw.pool.unwrap_or_default();
        if let (Some(idle), Some(all)) = (patch.idle_per_core, patch.connections)
            && idle > all
        {
            let message = "`pool.idle_per_core` is never reached: `pool.connections` is lower";
            cx.warning(Code::Unreachable, raw.span.clone(), message);
        }
        let timeouts = raw.timeouts.unwrap_or_default();
        times_agree(&timeouts, &raw.span, cx);
        let endpoints = check_endpoints(raw.servers, &name, listeners, cx);
        if let Some(tls) = &raw.tls
            && !endpoints.iter().any(|endpoint| endpoint.tls)
        {
            let message = "no endpoint of this upstream begins with `https://`";
            cx.warning(Code::NoEffect, tls.span.clone(), message)
                .label("does nothing without one");
        }
        if raw.proxy_protocol.is_some() && endpoints.iter().any(|endpoint| endpoint.h2c) {
            let message = "connections to `h2c://` endpoints are shared by clients: `proxy_protocol` cannot say whose one is";
            cx.error(Code::Conflict, raw.span.clone(), message)
                .help("leave out `proxy_protocol`, or speak HTTP/1.1 to these endpoints");
        }
        let tls = raw.tls.map(|tls| tls.build(cx)).unwrap_or_default();
        upstreams.push(Upstream {
            endpoints,
            tls,
            proxy_protocol: raw.proxy_protocol,
            balance: raw.balance,
            pool: Pool::default().patched(&patch),
            timeouts,
            retries: raw.retries.unwrap_or_default(),
            position: cx.position(&name.span),
            name: name.value,
        });
    }
    upstreams
}

/// The upstreams' names, in file order, whether the rest of them could be read or not.
pub(crate) struct UpstreamNames {
    pub(crate) all: Vec<Spanned<String>>,
    index: HashMap<String, usize>,
}

impl UpstreamNames {
    pub(crate) fn new(upstreams: &[NamedEntry<RawUpstream>]) -> Self {
        let all: Vec<_> = upstreams.iter().map(|entry| entry.name.clone()).collect();
        let index = all.iter().enumerate();
        let index = index.map(|(i, name)| (name.value.clone(), i)).collect();
        Self { all, index }
    }

    /// The index of the upstream `name`; an unknown name is reported with the nearest one.
    pub(crate) fn resolve(&self, name: &Spanned<String>, cx: &mut Decoder<'_>) -> Option<usize> {
        let found = self.index.get(&name.value).copied();
        if found.is_none() {
            let known = self.all.iter().map(|name| name.value.as_str());
            cx.unknown_name(name, "upstream", known).help(format!(
                "an upstream is defined like this:\n[upstream.{}]\nservers = [\"10.0.0.11:8080\"]",
                quoted_if_needed(&name.value)
            ));
        }
        found
    }
}
