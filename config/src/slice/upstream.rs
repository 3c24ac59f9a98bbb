//! `[upstream.NAME]`: a group of endpoints.

use std::time::Duration;

use crate::decode::amounts::{DurationText, ShareOrNoneText};
use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    BooleanKind, Choice, InScope, KeyPlaceholder, Keywords, LongForm, NamedEntry, OneOrMany, OrOff,
    ShortOrLong, SpannedKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::slice::balance::{Balance, BalanceText};
use crate::slice::breaker::{Breaker, BreakerPatch};
use crate::slice::eject::{Eject, RawEject};
use crate::slice::endpoint::source::{EndpointSource, ServerEntry, ServerEntryKind, split_entries};
use crate::slice::endpoint::{Endpoint, EndpointAddress, check_endpoints};
use crate::slice::health::{HealthCheck, HealthPath, RawHealth};
use crate::slice::listener::Listener;
use crate::slice::pool::{Pool, PoolPatch};
use crate::slice::retries::{RetriesKind, RetriesPatch};
use crate::slice::sticky::{RawSticky, Sticky, StickyText};
use crate::slice::timeouts::{InUpstream, TimeoutsPatch, check_timeouts};
use crate::slice::upstream_tls::{RawUpstreamTls, UpstreamTls};
use crate::text::diagnostic::{Code, Position};
use crate::value::authority::AuthorityText;
use crate::value::plain_name::is_plain_name;
use crate::value::server_url::{ServerUrl, UrlHost};

/// A named group of endpoints that serve the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, unique in the file.
    pub name: String,
    /// Its endpoints, in file order.
    pub endpoints: Vec<Endpoint>,
    /// What Weir asks for more endpoints, in file order. An upstream has an endpoint or a source at least.
    pub sources: Vec<EndpointSource>,
    /// How Weir chooses an endpoint.
    pub balance: Balance,
    /// What keeps a client at the endpoint that it got first; `None`: nothing does.
    pub sticky: Option<Sticky>,
    /// How long an endpoint that becomes usable gets less than its share; `None` gives it all at once.
    pub slow_start: Option<Duration>,
    /// The share of usable endpoints, in percent, below which Weir uses all of them.
    pub panic_percent: u32,
    /// Which failures of requests take an endpoint out of use for a time; `None`: none do.
    pub eject: Option<Eject>,
    /// The checks of its endpoints; `None` for none.
    pub health: Option<HealthCheck>,
    /// Limits of its connections.
    pub pool: Pool,
    /// How Weir speaks to its `https://` endpoints.
    pub tls: UpstreamTls,
    /// The Host that its endpoints get; `None` for the one that the client asked for.
    pub host: Option<String>,
    /// The PROXY header that begins every connection to its endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Its overrides; see [`Config::timeouts_of`](crate::Config::timeouts_of).
    pub timeouts: TimeoutsPatch,
    /// Its overrides; see [`Config::retries_of`](crate::Config::retries_of).
    pub retries: RetriesPatch,
    /// When it refuses requests that it would not serve; `None` for never.
    pub breaker: Option<Breaker>,
    /// Whether Weir measures how many requests it can serve at once.
    pub adaptive_concurrency: bool,
    /// Its position in the file.
    pub position: Position,
}

impl Upstream {
    /// An upstream with defaults only.
    #[must_use]
    pub fn new(name: &str, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.to_owned(),
            endpoints,
            sources: Vec::new(),
            balance: BALANCE.value,
            sticky: None,
            slow_start: SLOW_START.value,
            panic_percent: PANIC.value,
            eject: Some(Eject::default()),
            health: None,
            pool: Pool::default(),
            tls: UpstreamTls::default(),
            host: None,
            proxy_protocol: None,
            timeouts: TimeoutsPatch::default(),
            retries: RetriesPatch::default(),
            breaker: None,
            adaptive_concurrency: ADAPTIVE_CONCURRENCY.value,
            position: Position::default(),
        }
    }
}

/// The upstream of a server that a policy names by its URL. Its name is that URL without the path, which no upstream of
/// the file can have.
pub(crate) fn upstream_of_server(server: &Spanned<ServerUrl>, cx: &Decoder<'_>) -> Upstream {
    let Spanned { value: url, span } = server;
    let address = match &url.host {
        UrlHost::Ip(ip) => EndpointAddress::Ip((*ip, url.port).into()),
        UrlHost::Name(host) => EndpointAddress::Name {
            host: host.clone(),
            port: url.port,
        },
    };
    let position = cx.position(span);
    let endpoint = Endpoint {
        tls: url.is_tls,
        position: position.clone(),
        ..address.into()
    };
    Upstream {
        position,
        ..Upstream::new(&url.to_string(), vec![endpoint])
    }
}

const BALANCE: Preset<Balance> = preset(
    Balance::P2c,
    "as HAProxy, which draws two; Linkerd and Finagle weigh latency too",
);

const SLOW_START: Preset<Option<Duration>> = preset(None, "as nginx and Envoy");

const ADAPTIVE_CONCURRENCY: Preset<bool> = preset(false, "as Envoy's filter");

const PANIC: Preset<u32> = preset(50, "as Envoy's `healthy_panic_threshold`");

/// The version of the PROXY header that begins a connection (HAProxy's PROXY protocol).
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
        &["max_fails", "fail_timeout", "outlier_detection"],
        "`eject`",
    ),
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
    (
        &[
            "session_affinity",
            "affinity",
            "persistence",
            "cookie",
            "stickiness",
        ],
        "`sticky`",
    ),
    (
        &[
            "health_check",
            "healthCheck",
            "healthcheck",
            "check",
            "checks",
            "health_checks",
        ],
        "`health`",
    ),
    (&["host_header", "pass_host", "upstream_vhost"], "`host`"),
];

table! {
    /// A named group of endpoints that serve the same content.
    RawUpstream, "upstream", "[upstream.NAME]", foreign FOREIGN_NAMES {
        /// The endpoints, or sources of endpoints ([discovery.md](discovery.md)), at least one. An upstream with nothing
        /// else may be their list alone.
        required servers: Vec<Spanned<ServerEntry>> = "servers" as OneOrMany<SpannedKind<ServerEntryKind>>;
        /// How Weir chooses an endpoint: `"p2c"` takes the less loaded of two drawn at random, `"round_robin"` takes them in
        /// turn, `"random"` draws one, all in proportion to their weights; `"least_conn"` takes the one with the fewest
        /// requests in flight, `"least_time"` the one with the least expected time, `"first"` the first in the file that has
        /// room. `"ip_hash"` and `"hash(KEY)"` send requests with the same client address or key to the same endpoint; KEY is
        /// `header:NAME`, `cookie:NAME`, `query:NAME`, `param:NAME`, `path` or `ip`.
        preset(BALANCE) balance: Balance = "balance" as BalanceText;
        /// Keeps a client at the endpoint that it got first: `"cookie"` by a cookie that Weir sets, `"header:NAME"` by the
        /// value of a request field, `{ learn = "JSESSIONID" }` by a cookie of the application. Set it where an endpoint
        /// has what another one lacks, such as sessions in its memory.
        optional sticky: Sticky = "sticky" as ShortOrLong<StickyText, RawSticky>;
        /// How long an endpoint that becomes usable again, or is new, gets less than its share: it begins with a tenth, and
        /// its share grows evenly. Set it for endpoints that have to warm up.
        preset(SLOW_START) slow_start: Option<Duration> = "slow_start" as OrOff<DurationText>;
        /// When less than this share of the endpoints is usable, Weir uses all of them, because the few that are left could
        /// not carry the load. `"0%"` never does.
        preset(PANIC) panic: u32 = "panic" as ShareOrNoneText;
        /// Which failures of requests take an endpoint out of use for a time. Set `"off"` for endpoints whose errors say
        /// nothing about the next request.
        optional eject: Option<RawEject> = "eject" as OrOff<RawEject>;
        /// Checks every endpoint regularly, and sends no requests to those that fail: a path alone, such
        /// as `"/healthz"`, or a table. Set it for endpoints that may fail in other ways than refusing connections.
        optional health: RawHealth = "health" as ShortOrLong<HealthPath, RawHealth>;
        /// Limits of the connections to the endpoints.
        optional pool: PoolPatch = "pool" as PoolPatch;
        /// TLS to those endpoints that begin with `https://`.
        optional tls: RawUpstreamTls = "tls" as RawUpstreamTls;
        /// The host that endpoints get in Host or `:authority`, with a port if they need one; without the key, they get the
        /// one that the client asked for. `X-Forwarded-Host` names the client's in any case. TLS does not depend on it:
        /// see `tls.server_name`.
        optional host: String = "host" as AuthorityText;
        /// Begins every connection with a PROXY header of this version, which names the client. Each client then has
        /// HTTP/1.1 connections of its own. Set it for endpoints that need the client's address and cannot read
        /// `X-Forwarded-For`.
        optional proxy_protocol: ProxyProtocol = "proxy_protocol" as Choice<ProxyProtocol>;
        /// Time limits that override the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<InUpstream, TimeoutsPatch>;
        /// Retry rules that override the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as RetriesKind;
        /// Refuses requests at once, with 503 `circuit_open`, when too many have failed or are running. There is none
        /// without the key.
        optional breaker: BreakerPatch = "breaker" as BreakerPatch;
        /// Measures how many requests the upstream can serve at once without growing slower, and refuses further ones with
        /// 503 `upstream_overloaded`; on each core apart. Set it where an overloaded upstream answers all requests too late.
        preset(ADAPTIVE_CONCURRENCY) adaptive_concurrency: bool = "adaptive_concurrency" as BooleanKind;
    }
}

impl From<Vec<Spanned<ServerEntry>>> for RawUpstream {
    /// An upstream of these endpoints with defaults only.
    fn from(servers: Vec<Spanned<ServerEntry>>) -> Self {
        Self {
            span: servers
                .first()
                .map(|first| first.span.clone())
                .unwrap_or_default(),
            servers,
            balance: BALANCE.value,
            sticky: None,
            slow_start: SLOW_START.value,
            panic: PANIC.value,
            eject: None,
            health: None,
            pool: None,
            tls: None,
            host: None,
            proxy_protocol: None,
            timeouts: None,
            retries: None,
            breaker: None,
            adaptive_concurrency: ADAPTIVE_CONCURRENCY.value,
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

/// Makes upstreams of the tables; reports names, endpoints and settings that cannot work.
pub(crate) fn check_upstreams(
    entries: Vec<NamedEntry<RawUpstream>>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<Upstream> {
    let mut upstreams = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        if !is_plain_name(&name.value) {
            let message = format!("`{}` is not a name for an upstream", name.value);
            cx.error(Code::BadValue, name.span.clone(), message)
                .help("use letters, digits, hyphens, underscores and dots");
        }
        let Some(raw) = value else { continue };
        upstreams.push(raw.build(name, listeners, cx));
    }
    upstreams
}

impl RawUpstream {
    fn build(
        self,
        name: Spanned<String>,
        listeners: &[Listener],
        cx: &mut Decoder<'_>,
    ) -> Upstream {
        let pool = self.pool.unwrap_or_default();
        if let (Some(idle), Some(all)) = (pool.idle_per_core, pool.connections)
            && idle > all
        {
            let message = "`pool.idle_per_core` is never reached: `pool.connections` is lower";
            cx.warning(Code::Unreachable, self.span.clone(), message)
                .help("lower `idle_per_core`, or raise `connections`");
        }
        let timeouts = self.timeouts.unwrap_or_default();
        check_timeouts(&timeouts, &self.span, cx);
        let checks_tls = (self.health.as_ref()).is_some_and(RawHealth::speaks_tls);
        let (servers, sources) = split_entries(self.servers, cx);
        let endpoints = check_endpoints(servers, &name, listeners, cx);
        if let Some(tls) = &self.tls
            && sources.is_empty()
            && !checks_tls
            && !endpoints.iter().any(|endpoint| endpoint.tls)
        {
            let message = "no endpoint of this upstream begins with `https://`";
            cx.warning(Code::NoEffect, tls.span.clone(), message)
                .label("has no effect without one");
        }
        if self.proxy_protocol.is_some() && endpoints.iter().any(|endpoint| endpoint.h2c) {
            let message = "`proxy_protocol` cannot name one client: clients share the connections to `h2c://` endpoints";
            cx.error(Code::Conflict, self.span.clone(), message)
                .help("leave out `proxy_protocol`, or speak HTTP/1.1 to these endpoints");
        }
        let tls = self.tls.map(|tls| tls.build(cx)).unwrap_or_default();
        let has_tls_name = tls.server_name.is_some();
        let health = self
            .health
            .and_then(|health| <RawHealth>::build(health, (&endpoints, has_tls_name), cx))
            .map(|health| HealthCheck {
                host: health.host.or_else(|| self.host.clone()),
                ..health
            });
        Upstream {
            endpoints,
            sources,
            tls,
            host: self.host,
            proxy_protocol: self.proxy_protocol,
            balance: self.balance,
            sticky: self.sticky,
            slow_start: self.slow_start,
            panic_percent: self.panic,
            eject: match self.eject {
                Some(written) => written.map(RawEject::build),
                None => Some(Eject::default()),
            },
            health,
            pool: Pool::default().patched(&pool),
            timeouts,
            retries: self.retries.unwrap_or_default(),
            breaker: self
                .breaker
                .and_then(|breaker| BreakerPatch::build(breaker, cx)),
            adaptive_concurrency: self.adaptive_concurrency,
            position: cx.position(&name.span),
            name: name.value,
        }
    }
}
