//! The typed configuration: what a file means once every check has passed.
//!
//! Purpose: plain data for the plan compiler. Every value is parsed, every name is resolved and
//! every reference points somewhere, so nothing after this stage handles a mistake in a file.
//! This module owns the types; [`crate::parse`] is the only way from text to them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use crate::diagnostic::Spot;
use crate::layers::{
    Http2, Limits, LimitsPatch, Pool, Retries, RetriesPatch, Timeouts, TimeoutsPatch,
};
use crate::process::Account;
use crate::tls::{ListenTls, NamedFile, ProxyProtocol, UpstreamTls};

/// One whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which CPU cores run the data path.
    pub cores: Cores,
    /// What drives each core's io_uring.
    pub driver: Driver,
    /// The user that the process becomes once it listens; unless set, the one that started it.
    pub user: Option<Account>,
    /// Its group; that of the user unless set.
    pub group: Option<Account>,
    /// The file that holds the number of the process while it runs.
    pub pid_file: Option<NamedFile>,
    /// Where metrics and health of Weir itself are served; off unless set.
    pub admin: Option<Address>,
    /// Where a line about every exchange goes; off unless set.
    pub access_log: Option<AccessLog>,
    /// Peers whose forwarded fields are believed.
    pub trusted_proxies: Vec<TrustedPeer>,
    /// The field in which they say who asked.
    pub forwarded_header: ForwardedHeader,
    /// Time limits that hold unless an upstream or a route says otherwise.
    pub timeouts: Timeouts,
    /// Size and count limits that hold unless a route says otherwise.
    pub limits: Limits,
    /// What one connection of HTTP/2 may ask of Weir.
    pub http2: Http2,
    /// Retry rules that hold unless an upstream or a route says otherwise.
    pub retries: Retries,
    /// Addresses that accept connections, at least one, in file order.
    pub listeners: Vec<Listener>,
    /// Groups of endpoints, in file order.
    pub upstreams: Vec<Upstream>,
    /// What to do with which requests, at least one, in file order.
    pub routes: Vec<Route>,
    /// What the file says about itself; `weir check` runs these.
    pub tests: Vec<Test>,
    /// Where the keys of the top level are that may not suit the machine.
    pub spots: Spots,
}

/// Where keys of the top level are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spots {
    /// `cores`.
    pub cores: Spot,
    /// `driver`.
    pub driver: Spot,
    /// `admin`.
    pub admin: Spot,
    /// `access_log`.
    pub access_log: Spot,
}

impl Config {
    /// The configuration of `weir proxy ADDR ENDPOINT...`: one listener, one upstream named
    /// `default`, and a route that sends every request there. All else is default.
    ///
    /// An empty `endpoints` gives an upstream that answers nothing; the command line refuses it.
    #[must_use]
    pub fn quick(listen: Address, endpoints: Vec<Endpoint>) -> Self {
        Self {
            cores: Cores::Auto,
            driver: Driver::Auto,
            user: None,
            group: None,
            pid_file: None,
            spots: Spots::default(),
            admin: None,
            access_log: None,
            trusted_proxies: Vec::new(),
            forwarded_header: crate::limits::FORWARDED_HEADER.value,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            http2: Http2::default(),
            retries: Retries::default(),
            listeners: vec![Listener::new(listen)],
            upstreams: vec![Upstream::new("default", endpoints)],
            routes: vec![Route::new(
                "/*",
                Match::everything(),
                Target::Upstream { index: 0 },
            )],
            tests: Vec::new(),
        }
    }

    /// The upstream that a route sends to, if it sends to one.
    #[must_use]
    pub fn upstream_of(&self, route: &Route) -> Option<&Upstream> {
        match &route.target {
            Target::Upstream { index } => self.upstreams.get(*index),
            Target::Redirect(_) | Target::Respond(_) => None,
        }
    }

    /// Time limits of an exchange on `route`: top level, then its upstream, then the route.
    #[must_use]
    pub fn timeouts_of(&self, route: &Route) -> Timeouts {
        let base = self
            .upstream_of(route)
            .map_or(self.timeouts, |upstream| self.upstream_timeouts(upstream));
        base.patched(&route.timeouts)
    }

    /// Time limits of an upstream before any route has its say: what its pool uses.
    #[must_use]
    pub fn upstream_timeouts(&self, upstream: &Upstream) -> Timeouts {
        self.timeouts.patched(&upstream.timeouts)
    }

    /// Time limits of a connection of `listener` before a route is known.
    #[must_use]
    pub fn listener_timeouts(&self, listener: &Listener) -> Timeouts {
        self.timeouts.patched(&listener.timeouts)
    }

    /// Limits of an exchange on `route`: top level, then the route.
    #[must_use]
    pub fn limits_of(&self, route: &Route) -> Limits {
        self.limits.patched(&route.limits)
    }

    /// Retry rules of an exchange on `route`: top level, then its upstream, then the route.
    #[must_use]
    pub fn retries_of(&self, route: &Route) -> Retries {
        let base = self.upstream_of(route).map_or(self.retries, |upstream| {
            self.retries.patched(&upstream.retries)
        });
        base.patched(&route.retries)
    }

    /// Whether peers of `listener` are trusted whatever their address: it is a Unix socket among the trusted ones.
    #[must_use]
    pub fn trusts_all_of(&self, listener: &Listener) -> bool {
        let Address::Unix(path) = &listener.address else {
            return false;
        };
        self.trusted_proxies.iter().any(|peer| match peer {
            TrustedPeer::Network(_) => false,
            TrustedPeer::Unix(trusted) => trusted == path,
            TrustedPeer::AnyUnix => true,
        })
    }

    /// Connections that `listener` serves at once, all cores together; `None` for as many as the machine allows.
    #[must_use]
    pub fn connections_of(&self, listener: &Listener) -> Option<u32> {
        listener.connections.or(self.limits.connections)
    }

    /// Connections that one client address may hold at `listener`, never more than
    /// [`Self::connections_of`].
    #[must_use]
    pub fn connections_per_client_of(&self, listener: &Listener) -> u32 {
        listener
            .connections_per_client
            .unwrap_or(self.limits.connections_per_client)
            .min(self.connections_of(listener).unwrap_or(u32::MAX))
    }
}

/// Which CPU cores run the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// As many as the affinity mask and the cgroup quota allow.
    Auto,
    /// This many of the allowed ones.
    Count(NonZeroU32),
    /// Exactly these, by kernel number, ascending and without repeats.
    Set(Vec<u32>),
}

/// What drives each core's io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The first that the kernel grants.
    Auto,
    /// Weir's own; Linux 6.1.
    Ring,
    /// monoio; Linux 5.19.
    Monoio,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// An absolute path of a unix stream socket, at most 107 bytes.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the access log goes and what a line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The destination.
    pub to: LogTarget,
    /// The form of a line.
    pub format: LogFormat,
    /// Parameters whose values are replaced besides those that are known to hold secrets; `None` replaces none.
    pub redact: Option<Vec<String>>,
    /// Fields of the request that lines have too, in lower case.
    pub request_headers: Vec<String>,
    /// Fields of the answer that lines have too, in lower case.
    pub response_headers: Vec<String>,
}

impl From<LogTarget> for AccessLog {
    /// A log with defaults only.
    fn from(to: LogTarget) -> Self {
        Self {
            to,
            format: crate::limits::LOG_FORMAT.value,
            redact: Some(Vec::new()),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }
}

/// The destination of log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file that is appended to; an absolute path.
    File(PathBuf),
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One readable line.
    Text,
    /// What Apache and nginx call `combined`.
    Combined,
    /// Names and values.
    Logfmt,
}

/// A network in CIDR notation; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The network's first address.
    pub network: IpAddr,
    /// How many leading bits count: up to 32 or 128.
    pub prefix_bits: u8,
}

impl Cidr {
    /// Whether `address` lies in this network. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.prefix_bits));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                address.to_bits() & mask == network.to_bits()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.prefix_bits));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                address.to_bits() & mask == network.to_bits()
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

/// Peers whose forwarded fields are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedPeer {
    /// Those with an address in this network.
    Network(Cidr),
    /// Those that connect to the listener at this Unix socket.
    Unix(PathBuf),
    /// Those that connect to any Unix socket.
    AnyUnix,
}

/// The field in which trusted peers say who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and its kin.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What becomes of request fields whose names have other characters than letters, digits and hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    /// They are dropped.
    Drop,
    /// They are kept, unless an endpoint could take them for fields that Weir sets.
    Keep,
}

/// An address that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: Address,
    /// Connections at once, if the file says so here; see [`Config::connections_of`].
    pub connections: Option<u32>,
    /// The same by client address; see [`Config::connections_per_client_of`].
    pub connections_per_client: Option<u32>,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// Whether HTTP/2 is spoken here with clients that do.
    pub http2: bool,
    /// Whether answers carry the request id.
    pub request_id: bool,
    /// TLS, if it is spoken here.
    pub tls: Option<ListenTls>,
    /// The port that every request is sent to by a redirect, over `https`.
    pub redirect_https: Option<u16>,
    /// Who may, and must, say in the PROXY protocol where connections come from; nobody if empty.
    pub proxy_protocol: Vec<Cidr>,
    /// Permissions of a Unix socket's file; the umask has its say where there are none.
    pub mode: Option<u32>,
    /// Which names of request fields routes see, and endpoints where their route does not differ.
    pub underscores: Underscores,
    /// What differs from the top level; see [`Config::listener_timeouts`].
    pub timeouts: TimeoutsPatch,
    /// Where it is in the file.
    pub spot: Spot,
}

impl Listener {
    /// A listener with defaults only.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            connections: None,
            connections_per_client: None,
            backlog: crate::limits::BACKLOG.value,
            http2: crate::limits::LISTEN_HTTP2.value,
            request_id: crate::limits::LISTEN_REQUEST_ID.value,
            tls: None,
            redirect_https: None,
            proxy_protocol: Vec::new(),
            mode: None,
            underscores: crate::limits::UNDERSCORES.value,
            timeouts: TimeoutsPatch::default(),
            spot: Spot::default(),
        }
    }
}

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
    pub spot: Spot,
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
            spot: Spot::default(),
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

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// It is spoken to over TLS (`https://`).
    pub tls: bool,
    /// It speaks HTTP/2 in the clear, known beforehand (`h2c://`).
    pub h2c: bool,
    /// Its share of requests in proportion to the others'.
    pub weight: NonZeroU32,
    /// Where it is in the file.
    pub spot: Spot,
}

impl fmt::Display for Endpoint {
    /// As a file would have it, without its weight.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.tls, self.h2c) {
            (true, _) => "https://",
            (false, true) => "h2c://",
            (false, false) => "",
        };
        write!(f, "{scheme}{}", self.address)
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name, lower case, to be resolved by the control thread.
    Name {
        /// The name, without a port.
        host: String,
        /// The port.
        port: u16,
    },
    /// An absolute path of a unix stream socket, at most 107 bytes.
    Unix(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A match and what to do with the requests that it takes.
///
/// Order of choice: an exact host before a wildcard (longest first) before any host; then the path
/// segment by segment from the left, where two patterns first differ text before a parameter
/// before a star, so that an exact path comes before all else; then file order among equal
/// patterns, the first whose predicates all hold. A route whose predicates fail gives way to the
/// next candidate, up to less specific hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name if given, else the text of its match; what logs and metrics show.
    pub name: String,
    /// Which requests it takes.
    pub matches: Match,
    /// What happens to them.
    pub target: Target,
    /// Change of the path on its way upstream.
    pub rewrite: Option<Rewrite>,
    /// What becomes of requests with `%2F` or `%5C` in the path.
    pub encoded_slash: EncodedSlash,
    /// Which names of request fields go upstream, where the listener's rule does not hold.
    pub underscores: Option<Underscores>,
    /// What differs from upstream and top level; see [`Config::timeouts_of`].
    pub timeouts: TimeoutsPatch,
    /// What differs from the top level; see [`Config::limits_of`].
    pub limits: LimitsPatch,
    /// What differs from upstream and top level; see [`Config::retries_of`].
    pub retries: RetriesPatch,
    /// Where it is in the file.
    pub spot: Spot,
}

impl Route {
    /// A route with defaults only.
    #[must_use]
    pub fn new(name: &str, matches: Match, target: Target) -> Self {
        Self {
            name: name.to_owned(),
            matches,
            target,
            rewrite: None,
            encoded_slash: EncodedSlash::default(),
            underscores: None,
            timeouts: TimeoutsPatch::default(),
            limits: LimitsPatch::default(),
            retries: RetriesPatch::default(),
            spot: Spot::default(),
        }
    }
}

/// Which requests a route takes. All parts must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The request's host, port left out: one of these, at least one.
    pub hosts: Vec<HostMatch>,
    /// The request's normalised path: one of these, at least one.
    pub paths: Vec<PathMatch>,
    /// Allowed methods, case-sensitive (RFC 9110 section 9.1); empty means every method.
    pub methods: Vec<String>,
    /// Request fields by lower-case name; all must hold.
    pub headers: Vec<FieldMatch>,
    /// Query parameters by name, case-sensitive; all must hold.
    pub query: Vec<FieldMatch>,
    /// What the client's certificate must be: its subject, or one of its names.
    pub client_cert: Option<ValueMatch>,
}

impl Match {
    /// Takes every request.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            hosts: vec![HostMatch::Any],
            paths: vec![PathMatch::Prefix("/".to_owned())],
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            client_cert: None,
        }
    }
}

impl Match {
    /// Every host pattern with every path pattern.
    pub fn patterns(&self) -> impl Iterator<Item = (&HostMatch, &PathMatch)> {
        let with_paths = |host| self.paths.iter().map(move |path| (host, path));
        self.hosts.iter().flat_map(with_paths)
    }
}

impl fmt::Display for Match {
    /// Writes the first pattern as a file would, `api.example.com/v1/*`, and how many there are more. Predicates are
    /// left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((host, path)) = self.patterns().next() {
            write!(f, "{host}{path}")?;
        }
        match self.hosts.len() * self.paths.len() {
            0 | 1 => Ok(()),
            all => write!(f, " and {} more", all - 1),
        }
    }
}

/// A pattern for the host of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// Every host.
    Any,
    /// This host, lower case; IPv6 in brackets.
    Exact(String),
    /// Every host with at least one label before `.` and this name: `*.example.com` holds
    /// `example.com` here.
    Wildcard(String),
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// A pattern for the normalised path of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This path and no other.
    Exact(String),
    /// Every path that starts with these characters: `/v1/*` holds `/v1/`, `/*` holds `/`. One that
    /// ends with a slash takes the path without it too, after all that name that in full.
    Prefix(String),
    /// Segment by segment: `/users/{id}`, `/users/{id}/*`.
    Template {
        /// The segments, without slashes.
        segments: Vec<Segment>,
        /// Whether a slash and any rest may follow (`/*`); else the path ends here.
        open: bool,
    },
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Template { segments, open } => {
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => write!(f, "/{text}")?,
                        Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                f.write_str(if *open { "/*" } else { "" })
            }
        }
    }
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These characters. May be empty in last place, for a trailing slash.
    Literal(String),
    /// Any characters but a slash, at least one, known by this name.
    Parameter(String),
}

/// A predicate on one header field or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    /// The name; lower case for header fields.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// There must be one, any.
    Present,
    /// There must be none.
    Absent,
    /// Exactly this.
    Exact(String),
    /// Anything that starts with this.
    Prefix(String),
}

/// What a route does with its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Proxies them to an upstream.
    Upstream {
        /// Index in [`Config::upstreams`].
        index: usize,
    },
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The Location field.
    pub location: Pattern,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// The body; empty for 204, 205 and 304.
    pub body: String,
    /// The body's media type; absent without a body.
    pub content_type: Option<String>,
    /// Further fields, names lower case, no framing or connection fields among them.
    pub headers: Vec<(String, String)>,
}

/// Change of the path on its way upstream. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The path's beginning is exchanged (`strip`, `replace = { prefix, with }`). The outcome
    /// gets a leading slash when it has none.
    Prefix {
        /// What every path of the route starts with.
        prefix: String,
        /// What comes in its place; empty for `strip`.
        with: String,
    },
    /// The whole path is built anew (`replace = "..."`).
    Path(Pattern),
}

/// What becomes of requests with an encoded slash or backslash in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlash {
    /// They pass where an endpoint that decodes it would see a path of this route too; else 400.
    #[default]
    Auto,
    /// They pass: the endpoints take it for a character.
    Keep,
    /// They are answered 400.
    Refuse,
}

/// Text with placeholders, filled from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<Piece>);

/// A part of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These characters.
    Text(String),
    /// `{host}`: the request's host without a port.
    Host,
    /// `{path}`: the request's path, with its leading slash.
    Path,
    /// `{query}`: the request's query with its question mark, or nothing.
    Query,
    /// `{rest}`: what the star of the match took.
    Rest,
    /// `{name}`: what this parameter of the match took.
    Parameter(String),
}

/// A `[[test]]`: a request and what must become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The request's method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The request's host, lower case, without a port.
    pub host: String,
    /// The port, if the URL names one.
    pub port: Option<u16>,
    /// Path and query as in the URL.
    pub target: String,
    /// Request fields, names lower case.
    pub headers: Vec<(String, String)>,
    /// What the client's certificate is known by: its subject, its names. Empty: there is none.
    pub client_cert: Vec<String>,
    /// Index in [`Config::routes`] of the route that must take it.
    pub route: Option<usize>,
    /// Index in [`Config::upstreams`] of the upstream that must get it.
    pub upstream: Option<usize>,
    /// The status that Weir itself must answer with.
    pub status: Option<u16>,
    /// Where its request is in the file.
    pub spot: Spot,
}
