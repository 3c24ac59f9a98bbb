//! `[listen."ADDR"]`.

use std::marker::PhantomData;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{
    BooleanKind, Choice, Count, InScope, KeyPlaceholder, Keywords, NamedEntry, OneOrMany,
    SpannedKind, TextKind, integer,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::slice::address_claims::{AddressClaims, leave_one_out, same_place};
use crate::slice::limits::{CONNECTIONS_MAX, Limits, per_client_unreachable};
use crate::slice::listener_tls::{ListenTls, ListenTlsKind};
use crate::slice::timeouts::{InListener, TimeoutsPatch};
use crate::text::diagnostic::{Code, Position};
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::address::{Address, AddressText};
use crate::value::network::{Cidr, CidrText};

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
            http2: LISTEN_HTTP2.value,
            request_id: LISTEN_REQUEST_ID.value,
            tls: None,
            redirect_https: None,
            proxy_protocol: Vec::new(),
            mode: None,
            underscores: UNDERSCORES.value,
            timeouts: TimeoutsPatch::default(),
            position: Position::default(),
        }
    }
}

/// What becomes of request fields whose names have other characters than letters, digits and hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    /// They are dropped.
    Drop,
    /// They are kept, unless an endpoint could take them for fields that Weir sets.
    Keep,
}

/// Pending connections in the kernel's accept queue.
pub const BACKLOG: Preset<u32> = preset(4_096, "Linux `net.core.somaxconn` 4,096");

/// The largest accept queue a file may ask for.
const BACKLOG_MAX: u32 = 65_535;

/// Whether a listener speaks HTTP/2 with clients that do.
const LISTEN_HTTP2: Preset<bool> =
    preset(true, "HAProxy, Envoy and Caddy speak both; clients choose");

/// Whether answers carry the request id.
const LISTEN_REQUEST_ID: Preset<bool> = preset(
    true,
    "who reports an error can name the line of the log; GitHub and Stripe do so",
);

/// What becomes of request fields with underscores in their names.
const UNDERSCORES: Preset<Underscores> = preset(Underscores::Drop, "nginx; RFC 9110 section 17.10");

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
];

table! {
    /// An address that accepts connections: IP:PORT, [IPV6]:PORT or unix:/PATH.
    RawListener, "listen", "[listen.\"ADDR\"]", foreign FOREIGN_NAMES {
        /// Connections at once, all cores together, in place of `limits.connections`.
        optional connections: Spanned<u32> = "connections" as SpannedKind<Count<1, CONNECTIONS_MAX>>;
        /// The same by client address, in place of `limits.connections_per_client`.
        optional connections_per_client: Spanned<u32> =
            "connections_per_client" as SpannedKind<Count<1, CONNECTIONS_MAX>>;
        /// Length of the kernel's queue of connections that wait to be accepted.
        preset(BACKLOG) backlog: u32 = "backlog" as Count<1, BACKLOG_MAX>;
        /// Whether HTTP/2 is spoken here with clients that do: chosen by ALPN over TLS, known beforehand
        /// in the clear.
        preset(LISTEN_HTTP2) http2: bool = "http2" as BooleanKind;
        /// Whether every answer carries the request id of log and endpoint, as `X-Request-Id`. An
        /// endpoint's own gives way to it.
        preset(LISTEN_REQUEST_ID) request_id: bool = "request_id" as BooleanKind;
        /// TLS. Without it, HTTP is spoken in the clear.
        optional tls: Spanned<Option<ListenTls>> = "tls" as SpannedKind<ListenTlsKind>;
        /// Sends every request to `https`: `true` for port 443, or another port. Clients keep method
        /// and body (308), and remember. What a trusted proxy says that it was asked over `https` is served.
        optional redirect_https: Spanned<Option<u16>> = "redirect_https" as SpannedKind<HttpsPortKind>;
        /// Networks of load balancers that say in the PROXY protocol (v1 or v2) whose each
        /// connection is. They must say it, and others are refused.
        optional proxy_protocol: Vec<Cidr> = "proxy_protocol" as OneOrMany<CidrText>;
        /// Permissions of a Unix socket's file, octal; else the umask has its say.
        optional mode: Spanned<u32> = "mode" as SpannedKind<FileModeText>;
        /// What becomes of request fields whose names have other characters than letters, digits and hyphens:
        /// endpoints behind CGI, WSGI or PHP take `X_User` for `X-User`. "keep" keeps those that cannot be taken
        /// for a field that Weir knows. A gRPC request keeps underscores and dots.
        preset(UNDERSCORES) underscores: Underscores = "underscores" as Choice<Underscores>;
        /// Time limits for connections of this listener. Only `head` and `idle` matter here.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<InListener, TimeoutsPatch>;
    }
}

pub(crate) fn check_listeners(
    entries: Vec<NamedEntry<RawListener>>,
    limits: &Limits,
    taken: &mut AddressClaims,
    cx: &mut Decoder<'_>,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        let address = match AddressText::parse(&name.value) {
            Ok(address) => address,
            Err(problem) => {
                // The part behind the dot was reported as a key already.
                if cx.dotted_name(&name.span).is_none() {
                    cx.problem(name.span, &name.value, problem);
                }
                continue;
            }
        };
        // Two on ports that the kernel chooses would still have one name.
        let may_be_shared = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
        let mut known = listeners.iter().filter(|_| may_be_shared);
        let same = known.find(|known| known.address == address);
        let same = same.map(|known| (known.address.clone(), known.position.line));
        let clash = taken.claim(&address, cx.line(&name.span));
        let clash = clash.map(|holder| (holder.address, holder.line));
        if let Some((other, line)) = clash.or(same) {
            listener_overlaps(&address, name.span, (&other, line), cx);
            continue;
        }
        let Some(raw) = value else { continue };
        let connections = raw
            .connections
            .as_ref()
            .map_or(limits.connections, |at| Some(at.value));
        if let (Some(per_client), Some(connections)) = (&raw.connections_per_client, connections)
            && per_client.value > connections
        {
            per_client_unreachable(per_client.span.clone(), connections, cx);
        }
        let tls = raw.tls.and_then(|at| at.value);
        if let (Some(_), Some(redirect)) = (&tls, &raw.redirect_https)
            && redirect.value.is_some()
        {
            let message = "a listener with TLS has nothing to redirect to `https`";
            cx.error(Code::Conflict, redirect.span.clone(), message)
                .help("`redirect_https` belongs to the listener of port 80");
        }
        if let (Some(mode), Address::Tcp(_)) = (&raw.mode, &address) {
            let message = "`mode` does nothing here";
            cx.warning(Code::NoEffect, mode.span.clone(), message)
                .label("only a Unix socket has a file");
        }
        listeners.push(Listener {
            address,
            connections: raw.connections.map(|at| at.value),
            connections_per_client: raw.connections_per_client.map(|at| at.value),
            backlog: raw.backlog,
            http2: raw.http2,
            request_id: raw.request_id,
            tls,
            redirect_https: raw.redirect_https.and_then(|at| at.value),
            proxy_protocol: raw.proxy_protocol.unwrap_or_default(),
            mode: raw.mode.map(|at| at.value),
            underscores: raw.underscores,
            timeouts: raw.timeouts.unwrap_or_default(),
            position: cx.position(&name.span),
        });
    }
    listeners
}

fn listener_overlaps(
    address: &Address,
    span: Span,
    (other, line): (&Address, u32),
    cx: &mut Decoder<'_>,
) {
    if same_place(address, other) {
        let message = format!("a second listener for `{other}`");
        cx.error(Code::Duplicate, span, message)
            .help(format!("the first one is in line {line}"));
        return;
    }
    let message = format!("`{address}` overlaps with the listener `{other}` in line {line}");
    cx.error(Code::Conflict, span, message)
        .help(leave_one_out(address, other));
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
                Problem::new(format!("`{text}` are no permissions of a file"))
                    .help("three octal digits for owner, group and others: \"0660\"")
            })
    }

    fn from_number(_number: &str) -> Option<String> {
        Some("write them as a text: \"0660\"".to_owned())
    }
}

/// `true` for the usual port, or a port.
pub(crate) struct HttpsPortKind(PhantomData<()>);

impl ValueKind for HttpsPortKind {
    type Value = Option<u16>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if let Some(flag) = value.get_ref().as_bool() {
            return Some(flag.then_some(443));
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

impl WritableKind for HttpsPortKind {
    fn to_json(value: &Option<u16>) -> Json {
        value.map_or(Json::Bool(false), |port| Json::Number(port.into()))
    }
}

const _: () = assert!(BACKLOG.value <= BACKLOG_MAX);
