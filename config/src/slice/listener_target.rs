//! `tcp`, `passthrough` and `udp` of a listener: it passes bytes to an upstream instead of serving HTTP.

use std::time::Duration;

use toml::de::DeTable;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Count, KeyPlaceholder, LongForm, NamedEntries, NamedEntry, PlainText, ShortOrLong, SpannedKind,
    TextKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::reader::find_span;
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::ListenerPolicies;
use crate::policy::limit_key::LimitKey;
use crate::slice::request_match::host::{HostMatch, HostText};
use crate::text::diagnostic::{Code, Position};
use crate::text::source::Span;
use crate::value::address::Address;
use crate::value::upstream_names::UpstreamNames;

/// How long a connection of `tcp` or `passthrough` may be silent.
pub const TCP_IDLE: Preset<Duration> = preset(
    Duration::from_secs(600),
    "nginx stream `proxy_timeout` 10 m",
);
const UDP_IDLE: Preset<Duration> = preset(
    Duration::from_secs(30),
    "Linux `nf_conntrack_udp_timeout` 30 s",
);
const UDP_REPLIES: Preset<u32> = preset(
    0,
    "nginx: without `proxy_responses`, only silence ends a flow",
);
const UDP_SESSIONS: Preset<u32> = preset(
    16_384,
    "a flow takes one descriptor and about 2 KiB with its socket: 32 MiB",
);
const SESSIONS_MAX: u32 = 1_000_000;
const REPLIES_MAX: u32 = 1_000_000;

/// What becomes of a listener's connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListenerTarget {
    /// Weir serves HTTP on them, by the routes.
    #[default]
    Http,
    /// Weir passes their bytes to an endpoint of an upstream, after TLS if the listener has it.
    Tcp(UpstreamTarget),
    /// Weir passes connections on by the name in their TLS handshake, without ending TLS.
    Passthrough(Vec<ServerNameRoute>),
    /// Weir passes datagrams to an endpoint of an upstream.
    Udp(UdpTarget),
}

impl ListenerTarget {
    /// The targets that the file names, each with its place.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamTarget> {
        let (one, many) = match self {
            Self::Http => (None, &[][..]),
            Self::Tcp(to) => (Some(to), &[][..]),
            Self::Udp(udp) => (Some(&udp.to), &[][..]),
            Self::Passthrough(routes) => (None, &routes[..]),
        };
        let many = many
            .iter()
            .flat_map(|route| route.alpn.iter().map(|(_, to)| to).chain([&route.to]));
        one.into_iter().chain(many)
    }

    /// The key that says so; `None` for HTTP.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Http => None,
            Self::Tcp(_) => Some("tcp"),
            Self::Passthrough(_) => Some("passthrough"),
            Self::Udp(_) => Some("udp"),
        }
    }
}

/// An upstream that a listener names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTarget {
    /// Its index among the upstreams of the file.
    pub index: usize,
    /// The place of its name in the file.
    pub position: Position,
}

/// An entry of `passthrough`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNameRoute {
    /// The names that the entry is for.
    pub name: HostMatch,
    /// The upstream of their connections.
    pub to: UpstreamTarget,
    /// By protocol of ALPN, the upstream of connections whose clients offer it.
    pub alpn: Vec<(String, UpstreamTarget)>,
}

/// `udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpTarget {
    /// The upstream of the datagrams.
    pub to: UpstreamTarget,
    /// How long a flow may be silent.
    pub idle: Duration,
    /// How many answers end a flow; 0 if only silence does.
    pub replies: u32,
    /// The most flows at once, over all cores.
    pub sessions: u32,
}

/// The three keys as a table has them.
pub(crate) struct RawTargets {
    pub(crate) tcp: Option<Spanned<String>>,
    pub(crate) passthrough: Option<Spanned<Vec<NamedEntry<RawNameTarget>>>>,
    pub(crate) udp: Option<Spanned<RawUdp>>,
}

/// Keys of `passthrough`.
pub(crate) struct ServerNameKey;

impl KeyPlaceholder for ServerNameKey {
    const NAME: &'static str = "NAME";
}

/// The value of `passthrough`.
pub(crate) type PassthroughKind =
    SpannedKind<NamedEntries<ServerNameKey, ShortOrLong<SpannedKind<PlainText>, RawNameTarget>>>;

/// Keys of `alpn`.
pub(crate) struct ProtocolKey;

impl KeyPlaceholder for ProtocolKey {
    const NAME: &'static str = "PROTOCOL";
}

/// The longest name of a protocol (RFC 7301, section 3.1).
const PROTOCOL_BYTES_MAX: usize = 255;

const NAME_TARGET_FOREIGN: &[ForeignName] = &[(&["upstream", "server", "servers"], "`to`")];

table! {
    /// Where the connections of one server name go. A name of an upstream stands for `to`.
    RawNameTarget, "passthrough-name", "an entry of passthrough", foreign NAME_TARGET_FOREIGN {
        /// The upstream of connections that no entry of `alpn` has.
        required to: Spanned<String> = "to" as SpannedKind<PlainText>;
        /// Upstreams by the protocol that clients offer (ALPN): PROTOCOL = NAME. Weir looks at the client's protocols in
        /// the client's order and takes the first that stands here. Set it where servers behind one name speak different
        /// protocols, such as `"acme-tls/1"`.
        optional alpn: Vec<NamedEntry<Spanned<String>>> = "alpn" as NamedEntries<ProtocolKey, SpannedKind<PlainText>>;
    }
}

impl From<Spanned<String>> for RawNameTarget {
    /// All connections to this upstream.
    fn from(to: Spanned<String>) -> Self {
        Self {
            span: to.span.clone(),
            to,
            alpn: None,
        }
    }
}

impl LongForm for RawNameTarget {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

/// The value of `udp`.
pub(crate) type UdpKind = SpannedKind<ShortOrLong<SpannedKind<PlainText>, RawUdp>>;

const UDP_FOREIGN: &[ForeignName] = &[
    (&["upstream", "server", "servers"], "`to`"),
    (&["timeout", "proxy_timeout", "idle_timeout"], "`idle`"),
    (&["responses", "proxy_responses"], "`replies`"),
    (&["max_flows", "flows", "max_sessions"], "`sessions`"),
];

table! {
    /// How a listener passes datagrams on. A flow is what one client address and port sends; all its datagrams go to
    /// one endpoint. A name stands for `to`.
    RawUdp, "udp", "[listen.\"ADDR\".udp]", foreign UDP_FOREIGN {
        /// The upstream that gets the datagrams.
        required to: Spanned<String> = "to" as SpannedKind<PlainText>;
        /// How long a flow may be silent before Weir forgets it. Raise it for protocols with long pauses, such as
        /// games or VPNs.
        preset(UDP_IDLE) idle: Duration = "idle" as DurationText;
        /// How many answers end a flow; 0 if only silence ends it. Set 1 for DNS, whose clients use a new port for each
        /// question: the flow then costs nothing once it is answered.
        preset(UDP_REPLIES) replies: u32 = "replies" as Count<0, REPLIES_MAX>;
        /// The most flows at once, over all cores; each core has an equal share. When its table is full, a core drops
        /// the flow that has been silent longest.
        preset(UDP_SESSIONS) sessions: u32 = "sessions" as Count<1, SESSIONS_MAX>;
    }
}

impl From<Spanned<String>> for RawUdp {
    /// Datagrams to this upstream, with defaults only.
    fn from(to: Spanned<String>) -> Self {
        Self {
            span: to.span.clone(),
            to,
            idle: UDP_IDLE.value,
            replies: UDP_REPLIES.value,
            sessions: UDP_SESSIONS.value,
        }
    }
}

impl LongForm for RawUdp {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

/// The table of a listener in the file.
pub(crate) struct ListenerTable<'r> {
    pub(crate) root: &'r DeTable<'r>,
    /// Its address as the file writes it.
    pub(crate) name: &'r str,
}

impl ListenerTable<'_> {
    /// Where the listener has this key, if it has it.
    pub(crate) fn span_of(&self, path: &[&str]) -> Option<Span> {
        let path: Vec<&str> = ["listen", self.name]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        find_span(self.root, &path)
    }
}

/// The targets of a listener: that of its connections, and that of its datagrams. `None`: it has none.
pub(crate) struct Targets {
    pub(crate) stream: Option<ListenerTarget>,
    pub(crate) udp: Option<ListenerTarget>,
}

impl RawTargets {
    /// Reads the targets; reports names of no upstream, and targets that exclude each other.
    pub(crate) fn build(
        self,
        address: &Address,
        names: &UpstreamNames,
        cx: &mut Decoder<'_>,
    ) -> Targets {
        if let (Some(_), Some(passthrough)) = (&self.tcp, &self.passthrough) {
            cx.error(
                Code::Conflict,
                passthrough.span.clone(),
                "a listener has either `tcp` or `passthrough`",
            )
            .help("for all names: passthrough = { \"*\" = \"NAME\" }");
        }
        if let (Some(udp), Address::Unix(_)) = (&self.udp, address) {
            cx.error(
                Code::Conflict,
                udp.span.clone(),
                "`udp` needs an IP address and a port",
            )
            .help("write [listen.\"0.0.0.0:53\"]");
        }
        let target = |name: &Spanned<String>, cx: &mut Decoder<'_>| UpstreamTarget {
            // An unknown name is an error, so the index is never used.
            index: names.resolve(name, cx).unwrap_or(usize::MAX),
            position: cx.position(&name.span),
        };
        let passthrough = self.passthrough.map(|entries| {
            if entries.value.is_empty() {
                cx.error(
                    Code::MissingKey,
                    entries.span.clone(),
                    "`passthrough` names no server",
                )
                .help("write passthrough = { \"db.example.com\" = \"db\", \"*\" = \"rest\" }");
            }
            let mut routes: Vec<ServerNameRoute> = Vec::new();
            for NamedEntry { name, value } in entries.value {
                let found = match HostText::parse(&name.value) {
                    Ok(found) => found,
                    Err(problem) => {
                        cx.problem(name.span, &name.value, problem);
                        continue;
                    }
                };
                if routes.iter().any(|known| known.name == found) {
                    let message = format!("`{}` stands here twice", name.value);
                    cx.error(Code::Duplicate, name.span.clone(), message);
                }
                if let Some(value) = value {
                    routes.push(ServerNameRoute {
                        name: found,
                        to: target(&value.to, cx),
                        alpn: read_protocols(value.alpn.unwrap_or_default(), &target, cx),
                    });
                }
            }
            ListenerTarget::Passthrough(routes)
        });
        let tcp = self.tcp.map(|name| ListenerTarget::Tcp(target(&name, cx)));
        let udp = self.udp.map(|udp| {
            let RawUdp {
                span: _,
                to,
                idle,
                replies,
                sessions,
            } = udp.value;
            let to = target(&to, cx);
            ListenerTarget::Udp(UdpTarget {
                to,
                idle,
                replies,
                sessions,
            })
        });
        Targets {
            stream: passthrough.or(tcp),
            udp,
        }
    }
}

/// Reads `alpn` of an entry of `passthrough`.
fn read_protocols(
    entries: Vec<NamedEntry<Spanned<String>>>,
    target: &impl Fn(&Spanned<String>, &mut Decoder<'_>) -> UpstreamTarget,
    cx: &mut Decoder<'_>,
) -> Vec<(String, UpstreamTarget)> {
    let mut protocols = Vec::new();
    for NamedEntry { name, value } in entries {
        if !(1..=PROTOCOL_BYTES_MAX).contains(&name.value.len()) {
            let message = format!("a protocol has 1 to {PROTOCOL_BYTES_MAX} bytes");
            cx.error(Code::BadValue, name.span.clone(), message)
                .help("write alpn = { h2 = \"NAME\" }");
        }
        if let Some(value) = value {
            protocols.push((name.value, target(&value, cx)));
        }
    }
    protocols
}

const OF_HTTP: &[&str] = &["http2", "request_id", "redirect_https", "underscores"];
const OF_CONNECTIONS: &[&str] = &[
    "connections",
    "connections_per_client",
    "backlog",
    "tls",
    "proxy_protocol",
    "mode",
    "timeouts",
];

/// Reports keys that a listener with these targets cannot have.
pub(crate) fn check_keys(targets: &Targets, table: &ListenerTable<'_>, cx: &mut Decoder<'_>) {
    let stream = targets.stream.as_ref().and_then(ListenerTarget::key);
    let Some(key) = stream.or_else(|| targets.udp.as_ref()?.key()) else {
        if let Some(span) = table.span_of(&["timeouts", "connect"]) {
            cx.warning(Code::NoEffect, span, "`connect` has no effect here")
                .label("routes connect: set it at the top level, in an upstream or in a route");
        }
        return;
    };
    for name in OF_HTTP {
        if let Some(span) = table.span_of(&[name]) {
            let message = format!("`{name}` is for HTTP, and this listener has `{key}`");
            cx.error(Code::Conflict, span, message).help("leave it out");
        }
    }
    match &targets.stream {
        Some(ListenerTarget::Passthrough(_)) => {
            if let Some(span) = table.span_of(&["tls"]) {
                let message = "`passthrough` does not end TLS, so `tls` has no use";
                cx.error(Code::Conflict, span, message).help(
                    "leave out `tls`, or end TLS and pass the bytes on: tls = { ... }, tcp = \"NAME\"",
                );
            }
        }
        Some(_) => {}
        None => {
            for name in OF_CONNECTIONS {
                if let Some(span) = table.span_of(&[name]) {
                    let help = match *name {
                        "connections" | "connections_per_client" => "`udp.sessions` bounds flows",
                        "timeouts" => "`udp.idle` bounds their silence",
                        _ => "leave it out",
                    };
                    let message =
                        format!("`{name}` is for connections, and this listener has only `udp`");
                    cx.error(Code::Conflict, span, message).help(help);
                }
            }
        }
    }
}

/// Reports limits that count by what only a request has.
pub(crate) fn check_limit_keys(
    policies: &ListenerPolicies,
    table: &ListenerTable<'_>,
    cx: &mut Decoder<'_>,
) {
    let limits = policies.limits.iter().flat_map(|limit| &limit.per);
    let counts = policies.concurrency.iter().flat_map(|limit| &limit.per);
    let keyed = limits
        .map(|key| ("limit", key))
        .chain(counts.map(|key| ("concurrency", key)));
    for (name, key) in keyed {
        if matches!(key, LimitKey::Ip | LimitKey::Global) {
            continue;
        }
        let span = table.span_of(&[name]).unwrap_or_default();
        let message = format!("a listener without HTTP cannot count by `{key}`");
        cx.error(Code::BadValue, span, message)
            .help("count by `ip` or `global`");
    }
}
