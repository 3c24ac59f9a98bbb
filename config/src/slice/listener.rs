//! `[listen."ADDR"]`: an address that accepts connections.

use toml::de::DeTable;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{
    BooleanKind, Choice, Count, InScope, KeyPlaceholder, Keywords, NamedEntry, OneOrMany,
    PlainText, SpannedKind, TextKind, integer,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Level, Origin, Place};
use crate::policy::{ListenerPolicies, RawListenerPolicies};
use crate::slice::address_claims::{
    AddressClaim, AddressClaims, advise_leaving_out, is_same_address,
};
use crate::slice::limits::{CONNECTIONS_MAX, Limits, report_unreachable_per_client};
use crate::slice::listener_target::{
    ListenerTable, ListenerTarget, PassthroughKind, RawNameTarget, RawTargets, RawUdp, UdpKind,
    check_keys, check_limit_keys,
};
use crate::slice::listener_tls::{ListenTls, ListenTlsKind};
use crate::slice::timeouts::{InListener, TimeoutsPatch};
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::address::{Address, AddressText};
use crate::value::network::{Cidr, CidrText};
use crate::value::upstream_names::UpstreamNames;

/// Length of the kernel's accept queue.
pub const BACKLOG: Preset<u32> = preset(4_096, "Linux `net.core.somaxconn` 4,096");
const BACKLOG_MAX: u32 = 65_535;
const HTTP2: Preset<bool> = preset(true, "HAProxy, Envoy and Caddy speak both; clients choose");
const REQUEST_ID: Preset<bool> = preset(
    true,
    "a user who reports an error can name the line of the log; GitHub and Stripe do so",
);
const UNDERSCORES: Preset<Underscores> = preset(Underscores::Drop, "nginx; RFC 9110 section 17.10");

/// An address that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address that it listens on.
    pub address: Address,
    /// Concurrent connections, if the listener sets them; see [`Config::connections_of`](crate::Config::connections_of).
    pub connections: Option<u32>,
    /// Concurrent connections of one client address, if the listener sets them; see
    /// [`Config::connections_per_client_of`](crate::Config::connections_per_client_of).
    pub connections_per_client: Option<u32>,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// Whether it speaks HTTP/2 with clients that do.
    pub http2: bool,
    /// Whether its answers carry the request id.
    pub request_id: bool,
    /// What becomes of its connections or datagrams.
    pub target: ListenerTarget,
    /// TLS; `None` in the clear.
    pub tls: Option<ListenTls>,
    /// The `https` port that it redirects every request to.
    pub redirect_https: Option<u16>,
    /// Networks whose connections begin with a PROXY header. If there are any, no other peer may connect.
    pub proxy_protocol: Vec<Cidr>,
    /// Permissions of a Unix socket's file; `None` leaves them to the umask.
    pub mode: Option<u32>,
    /// Which request fields with odd names routes see, and endpoints whose route does not differ.
    pub underscores: Underscores,
    /// Its overrides; see [`Config::listener_timeouts`](crate::Config::listener_timeouts).
    pub timeouts: TimeoutsPatch,
    /// Its policies, for all requests.
    pub policies: ListenerPolicies,
    /// Its position in the file.
    pub position: Position,
}

impl Listener {
    /// A listener with defaults only.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            connections: None,
            connections_per_client: None,
            backlog: BACKLOG.value,
            http2: HTTP2.value,
            request_id: REQUEST_ID.value,
            target: ListenerTarget::Http,
            tls: None,
            redirect_https: None,
            proxy_protocol: Vec::new(),
            mode: None,
            underscores: UNDERSCORES.value,
            timeouts: TimeoutsPatch::default(),
            policies: ListenerPolicies::default(),
            position: Position::default(),
        }
    }
}

/// What Weir does with request fields whose names have characters other than letters, digits and hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    /// Drops them.
    Drop,
    /// Keeps them, except names that an endpoint could confuse with a field that Weir sets.
    Keep,
}

impl Keywords for Underscores {
    const ALL: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("keep", Self::Keep)];
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["ssl", "https"], "`tls`"),
    (
        &[
            "cert",
            "key",
            "crt",
            "ssl_certificate",
            "ssl_certificate_key",
        ],
        "`tls = { cert = \"...\", key = \"...\" }`",
    ),
    (
        &["maxconn", "max_conns", "max_connections"],
        "`connections`",
    ),
    (&["accept_proxy"], "`proxy_protocol`"),
    (&["redirect"], "`redirect_https`"),
    (
        &["proxy_pass", "to", "upstream", "stream"],
        "`tcp`, or a `[[route]]` for HTTP",
    ),
    (&["sni", "ssl_preread", "host_sni"], "`passthrough`"),
];

table! {
    /// An address that accepts connections: IP:PORT, [IPV6]:PORT or unix:/PATH.
    RawListener, "listen", "[listen.\"ADDR\"]", foreign FOREIGN_NAMES {
        /// Concurrent connections, over all cores, in place of `limits.connections`.
        optional connections: Spanned<u32> = "connections" as SpannedKind<Count<1, CONNECTIONS_MAX>>;
        /// Concurrent connections from one client address, over all cores, in place of
        /// `limits.connections_per_client`.
        optional connections_per_client: Spanned<u32> =
            "connections_per_client" as SpannedKind<Count<1, CONNECTIONS_MAX>>;
        /// Length of the kernel's queue of connections that wait to be accepted. Raise it, with
        /// `net.core.somaxconn`, if bursts of clients are refused.
        preset(BACKLOG) backlog: u32 = "backlog" as Count<1, BACKLOG_MAX>;
        /// Speaks HTTP/2 with clients that do: chosen by ALPN over TLS, by prior knowledge in the clear. `false` allows
        /// only HTTP/1.1.
        preset(HTTP2) http2: bool = "http2" as BooleanKind;
        /// Puts the request id, which log and endpoint also get, into every answer as `X-Request-Id`, in place of an
        /// endpoint's own. Set `false` to leave the endpoint's.
        preset(REQUEST_ID) request_id: bool = "request_id" as BooleanKind;
        /// Speaks TLS with these certificates. Without it, the listener speaks HTTP in the clear.
        optional tls: Spanned<Option<ListenTls>> = "tls" as SpannedKind<ListenTlsKind>;
        /// Passes the bytes of every connection to an endpoint of this upstream, in both directions, in place of HTTP.
        /// With `tls`, Weir ends TLS and passes on what was inside. [l4.md](l4.md) has the details.
        optional tcp: Spanned<String> = "tcp" as SpannedKind<PlainText>;
        /// Passes TLS connections on without ending TLS, each to the upstream of the name that its client asks for
        /// (SNI): a name, `*.NAME` for all names below it, or `*` for every other and for clients that ask for none.
        /// Weir refuses a name that no entry has.
        optional passthrough: Spanned<Vec<NamedEntry<RawNameTarget>>> = "passthrough" as PassthroughKind;
        /// Passes datagrams to an endpoint of this upstream, and its answers back. It may stand beside `tcp` or
        /// `passthrough`, as for DNS.
        optional udp: Spanned<RawUdp> = "udp" as UdpKind;
        /// Redirects every request to `https`: `true` to port 443, a number to another port. The status is 308, so
        /// clients keep method and body, and remember it. A request that a trusted proxy received over `https` is
        /// served.
        optional redirect_https: Spanned<Option<u16>> = "redirect_https" as SpannedKind<HttpsPortKind>;
        /// Networks of load balancers that begin each connection with a PROXY header (v1 or v2), which names its
        /// client. Weir refuses their connections without a header, and all other peers.
        optional proxy_protocol: Vec<Cidr> = "proxy_protocol" as OneOrMany<CidrText>;
        /// Permissions of a Unix socket's file, octal. Set it where the umask does not let your clients connect.
        optional mode: Spanned<u32> = "mode" as SpannedKind<FileModeText>;
        /// What Weir does with request fields whose names have characters other than letters, digits and hyphens.
        /// `"drop"` protects endpoints behind CGI, WSGI or PHP, which take `X_User` for `X-User`. `"keep"` keeps those
        /// that no endpoint can take for a field that Weir knows. A gRPC request always keeps underscores and dots.
        preset(UNDERSCORES) underscores: Underscores = "underscores" as Choice<Underscores>;
        /// Time limits for connections of this listener: `head` and `idle`; with `tcp` or `passthrough` `connect` too,
        /// and `idle` is 10 minutes by default.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<InListener, TimeoutsPatch>;
        with policies: RawListenerPolicies;
    }
}

/// Makes listeners of the tables; reports addresses that overlap and settings that contradict each other.
pub(crate) fn check_listeners(
    entries: Vec<NamedEntry<RawListener>>,
    limits: &Limits,
    upstreams: &UpstreamNames,
    root: &DeTable<'_>,
    claims: &mut AddressClaims,
    cx: &mut Decoder<'_>,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        let address = match AddressText::parse(&name.value) {
            Ok(address) => address,
            Err(problem) => {
                // With dots outside of quotes, the decoder has reported the rest of the name as a key.
                if cx.dotted_name(&name.span).is_none() {
                    cx.problem(name.span, &name.value, problem);
                }
                continue;
            }
        };
        // The kernel gives two listeners on port 0 two ports, but they would have one name.
        let has_free_port = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
        let mut known = listeners.iter().filter(|_| has_free_port);
        let same = known.find(|known| known.address == address);
        let same = same.map(|known| AddressClaim {
            address: known.address.clone(),
            line: known.position.line,
        });
        let clash = claims.claim(&address, cx.line(&name.span));
        if let Some(other) = clash.or(same) {
            report_overlap(&address, name.span, &other, cx);
            continue;
        }
        let Some(raw) = value else { continue };
        let table = ListenerTable {
            root,
            name: &name.value,
        };
        listeners.extend(raw.build(address, limits, upstreams, &table, name.span, cx));
    }
    listeners
}

impl RawListener {
    /// The listener at `address`, which stands at `name` in the file: one for its connections, one for its datagrams,
    /// or both.
    fn build(
        self,
        address: Address,
        limits: &Limits,
        upstreams: &UpstreamNames,
        table: &ListenerTable<'_>,
        name: Span,
        cx: &mut Decoder<'_>,
    ) -> impl Iterator<Item = Listener> + use<> {
        let targets = RawTargets {
            tcp: self.tcp,
            passthrough: self.passthrough,
            udp: self.udp,
        };
        let targets = targets.build(&address, upstreams, cx);
        check_keys(&targets, table, cx);
        let connections = self.connections.map(|spanned| spanned.value);
        if let (Some(per_client), Some(connections)) = (
            &self.connections_per_client,
            connections.or(limits.connections),
        ) && per_client.value > connections
        {
            report_unreachable_per_client(per_client.span.clone(), connections, cx);
        }
        let tls = self.tls.and_then(|spanned| spanned.value);
        if let (Some(_), Some(redirect)) = (&tls, &self.redirect_https)
            && redirect.value.is_some()
        {
            let message =
                "`redirect_https` on a listener with TLS: its requests are `https` already";
            cx.error(Code::Conflict, redirect.span.clone(), message)
                .help("move it to the listener of port 80, or leave it out");
        }
        if let (Some(mode), Address::Tcp(_)) = (&self.mode, &address) {
            let message = "`mode` has no effect here";
            cx.warning(Code::NoEffect, mode.span.clone(), message)
                .label("only a Unix socket has a file");
        }
        let place = Place {
            origin: &Origin::Listener(address.clone()),
            span: &self.span,
            target: None,
            lacks_claims: false,
            parameters: None,
            upstreams,
        };
        let own = Level {
            origin: place.origin,
            policies: &self.policies,
        };
        let policies = ListenerPolicies::combine(&[own], &place, cx);
        if targets.stream.is_some() || targets.udp.is_some() {
            check_limit_keys(&policies, table, cx);
        }
        let listener = Listener {
            policies,
            address,
            connections,
            connections_per_client: self.connections_per_client.map(|spanned| spanned.value),
            backlog: self.backlog,
            http2: self.http2,
            request_id: self.request_id,
            target: ListenerTarget::Http,
            tls,
            redirect_https: self.redirect_https.and_then(|spanned| spanned.value),
            proxy_protocol: self.proxy_protocol.unwrap_or_default(),
            mode: self.mode.map(|spanned| spanned.value),
            underscores: self.underscores,
            timeouts: self.timeouts.unwrap_or_default(),
            position: cx.position(&name),
        };
        let udp = targets.udp.map(|target| Listener {
            target,
            tls: None,
            proxy_protocol: Vec::new(),
            ..listener.clone()
        });
        let stream = match (targets.stream, &udp) {
            (None, Some(_)) => None,
            (target, _) => Some(Listener {
                target: target.unwrap_or_default(),
                ..listener
            }),
        };
        stream.into_iter().chain(udp)
    }
}

fn report_overlap(address: &Address, span: Span, other: &AddressClaim, cx: &mut Decoder<'_>) {
    let AddressClaim {
        address: other,
        line,
    } = other;
    if is_same_address(address, other) {
        let message = format!("a second listener for `{other}`");
        cx.error(Code::Duplicate, span, message).help(format!(
            "the first one is in line {line}; remove one of them"
        ));
        return;
    }
    let message = format!("`{address}` overlaps with the listener `{other}` in line {line}");
    cx.error(Code::Conflict, span, message)
        .help(advise_leaving_out(address, other));
}

/// Keys of `[listen]`.
pub(crate) struct ListenName;

impl KeyPlaceholder for ListenName {
    const NAME: &'static str = "ADDR";
}

/// Permissions of a file, as chmod(1) takes them: `0660`.
pub(crate) struct FileModeText;

impl TextKind for FileModeText {
    type Value = u32;
    const NOUN: &'static str = "permissions of a file";
    const PATTERN: Option<&'static str> = Some("^0?[0-7]{3}$");
    const EXAMPLES: &'static [&'static str] = &["0660"];

    fn parse(text: &str) -> Result<u32, Problem> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3);
        let digits = digits.unwrap_or(text);
        let is_octal = digits.len() == 3 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|_| is_octal)
            .ok_or_else(|| {
                Problem::new(format!("`{text}` is not a file mode"))
                    .help("write three octal digits for owner, group and others: \"0660\"")
            })
    }

    fn from_number(_number: &str) -> Option<String> {
        Some("write it as a string: \"0660\"".to_owned())
    }
}

/// `true` for port 443, or a port.
pub(crate) struct HttpsPortKind;

impl ValueKind for HttpsPortKind {
    type Value = Option<u16>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if let Some(is_on) = value.get_ref().as_bool() {
            return Some(is_on.then_some(443));
        }
        let port = integer(value)
            .flatten()
            .and_then(|port| u16::try_from(port).ok());
        if let Some(port) = port.filter(|port| *port > 0) {
            return Some(Some(port));
        }
        cx.wrong_type(value, "true, false or a port from 1 to 65535");
        None
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Boolean,
            Shape::Integer {
                min: 1,
                max: u16::MAX.into(),
            },
        ])
    }
}
