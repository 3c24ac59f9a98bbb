//! `servers` of an upstream: its endpoints.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{BooleanKind, Count, LongForm, PlainText, ShortOrLong, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, table};
use crate::slice::listener::Listener;
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::{Problem, ValueError};
use crate::value::address::{Address, is_host_name, unix_path};

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: EndpointAddress,
    /// Whether Weir speaks TLS to it (`https://`).
    pub tls: bool,
    /// Whether Weir speaks HTTP/2 to it in the clear (`h2c://`).
    pub h2c: bool,
    /// Its share of requests, relative to the other endpoints' weights; 0 drains it.
    pub weight: u32,
    /// Whether it gets requests only while no other endpoint is usable.
    pub backup: bool,
    /// Its priority: 0 is used first.
    pub priority: u32,
    /// The most connections to it, over all cores, if fewer than `pool.connections`.
    pub connections: Option<u32>,
    /// The most requests to it at once, over all cores.
    pub requests: Option<u32>,
    /// The zone that it is in.
    pub zone: Option<String>,
    /// Its position in the file.
    pub position: Position,
}

impl fmt::Display for Endpoint {
    /// Writes it as a file would, without its weight.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.tls, self.h2c) {
            (true, _) => "https://",
            (false, true) => "h2c://",
            (false, false) => "",
        };
        write!(f, "{scheme}{}", self.address)
    }
}

/// The address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name, which control resolves.
    Name {
        /// The name, in lower case, without a port.
        host: String,
        /// The port.
        port: u16,
    },
    /// The absolute path of a Unix stream socket, at most 107 bytes.
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

impl FromStr for Endpoint {
    type Err = ValueError;

    /// Reads `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT`, `h2c://HOST:PORT` or
    /// `unix:/PATH`, with weight 1.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        EndpointText::parse(text).map_err(Into::into)
    }
}

impl From<EndpointAddress> for Endpoint {
    /// An endpoint of weight 1, in the clear, that is in no file.
    fn from(address: EndpointAddress) -> Self {
        Self {
            address,
            tls: false,
            h2c: false,
            weight: WEIGHT.value,
            backup: BACKUP.value,
            priority: PRIORITY.value,
            connections: None,
            requests: None,
            zone: None,
            position: Position::default(),
        }
    }
}

const WEIGHT: Preset<u32> = preset(1, "as nginx and HAProxy");

const BACKUP: Preset<bool> = preset(false, "as nginx and HAProxy");

const PRIORITY: Preset<u32> = preset(0, "as Envoy");

/// The highest priority of an endpoint. Envoy has as many.
pub const PRIORITY_MAX: u32 = 127;

const AT_ONCE_MAX: u32 = 10_000_000;

/// Low enough for the sum of [`ENDPOINTS_MAX`] weights to fit in 32 bits.
const WEIGHT_MAX: u32 = 65_535;

/// The most endpoints of one upstream.
pub const ENDPOINTS_MAX: usize = 4_096;

/// An address, or a table with it.
pub(crate) type ServerKind = ShortOrLong<EndpointText, RawServer>;

table! {
    /// An endpoint with settings of its own. One without them is written as its `address` alone.
    RawServer, "server", "an endpoint of [upstream.NAME]" {
        /// Its address: HOST:PORT, http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH. `h2c://` is HTTP/2 in the clear;
        /// with `https://` the TLS handshake chooses the protocol; the others are HTTP/1.1.
        required address: Endpoint = "address" as EndpointText;
        /// Its share of requests, relative to the other endpoints' weights. Raise it for larger machines. 0 drains it: it
        /// gets no new requests.
        preset(WEIGHT) weight: u32 = "weight" as Count<0, WEIGHT_MAX>;
        /// `true` gives it requests only while no other endpoint is usable.
        preset(BACKUP) backup: bool = "backup" as BooleanKind;
        /// Its priority. Endpoints of priority 0 get all requests while enough of them are usable; as they fail, the next
        /// priority takes the share that they cannot.
        preset(PRIORITY) priority: u32 = "priority" as Count<0, PRIORITY_MAX>;
        /// The most connections to it, over all cores; of this and `pool.connections` the smaller holds.
        optional connections: u32 = "connections" as Count<1, AT_ONCE_MAX>;
        /// The most requests that it gets at once, over all cores. Others go elsewhere or wait in the queue. Set it for
        /// endpoints with a fixed number of workers.
        optional requests: u32 = "requests" as Count<1, AT_ONCE_MAX>;
        /// The zone or data center that it is in, shown by `weir explain`. Weir chooses no endpoint by it.
        optional zone: String = "zone" as PlainText;
    }
}

impl LongForm for RawServer {
    type Out = Endpoint;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Endpoint> {
        if table.backup && table.priority != PRIORITY.value {
            let message = "`backup` and `priority` both say when the endpoint is used";
            cx.error(Code::Conflict, table.span.clone(), message)
                .help("leave one out: a backup comes after all priorities");
        }
        Some(Endpoint {
            weight: table.weight,
            backup: table.backup,
            priority: table.priority,
            connections: table.connections,
            requests: table.requests,
            zone: table.zone,
            position: cx.position(&table.span),
            ..table.address
        })
    }
}

/// The address of an endpoint.
pub(crate) struct EndpointText;

impl TextKind for EndpointText {
    type Value = Endpoint;
    const NOUN: &'static str = "an endpoint";
    const PATTERN: Option<&'static str> =
        Some("^(unix:/.+|((https?|h2c)://)?[^/]+:[0-9]+|(https?|h2c)://[^/]+)$");
    const EXAMPLES: &'static [&'static str] = &[
        "10.0.0.11:8080",
        "http://app.internal:8080",
        "https://app.internal:8443",
        "h2c://grpc.internal:50051",
        "unix:/run/app.sock",
    ];

    fn parse(text: &str) -> Result<Endpoint, Problem> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(|path| EndpointAddress::Unix(path).into());
        }
        let (tls, h2c) = (text.starts_with("https://"), text.starts_with("h2c://"));
        let authority = match text.split_once("://") {
            None => text,
            Some(("http" | "https" | "h2c", authority)) => authority,
            Some((scheme, _)) => {
                return Err(Problem::new(format!("`{scheme}` is not a scheme of an endpoint"))
                    .at(0, scheme.len())
                    .help(match scheme {
                        "grpc" | "grpcs" | "h2" | "http2" => {
                            "for HTTP/2, and so gRPC, write \"h2c://host:port\" in the clear or \"https://host:port\" over TLS"
                        }
                        "ws" | "wss" => {
                            "for WebSockets write \"http://host:port\" or \"https://host:port\", as for other requests"
                        }
                        _ => {
                            "write \"host:port\", \"http://host:port\", \"https://host:port\", \"h2c://host:port\" or \"unix:/path\""
                        }
                    }));
            }
        };
        let at = text.len() - authority.len();
        if let Some(slash) = authority.find(['/', '?', '#']) {
            let problem =
                Problem::new("an endpoint has no path").at(at + slash, authority.len() - slash);
            let bare = &text[..at + slash];
            return Err(if slash == 0 {
                Problem::new(format!("`{text}` is not an endpoint"))
                    .help(format!("for a Unix socket write \"unix:{text}\""))
            } else {
                problem.help(format!(
                    "write \"{bare}\"; a route's `replace` can set the path"
                ))
            });
        }
        let default_port = (at > 0).then_some(if tls { 443 } else { 80 });
        let address = host_and_port(authority, default_port);
        let address = address.map_err(|problem| match problem.at {
            Some(span) => Problem {
                at: Some(span.start + at..span.end + at),
                ..problem
            },
            None => problem,
        })?;
        Ok(Endpoint {
            tls,
            h2c,
            ..address.into()
        })
    }
}

fn host_and_port(authority: &str, default_port: Option<u16>) -> Result<EndpointAddress, Problem> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(port_zero(authority))
        } else {
            of_one_machine(address)
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(
            Problem::new(format!("`{authority}` needs brackets and a port"))
                .help(format!("write \"[{authority}]:8080\"")),
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, digits)) if !host.ends_with(':') && !authority.ends_with(']') => {
            let port = digits.parse::<u16>().ok();
            let port = port.filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
            let port = port.ok_or_else(|| {
                Problem::new(format!("`{digits}` is not a port"))
                    .at(host.len() + 1, digits.len())
                    .help("write a port from 1 to 65535")
            })?;
            (host, Some(port))
        }
        _ => (authority, None),
    };
    let Some(port) = port.or(default_port) else {
        return Err(Problem::new(format!("`{authority}` has no port"))
            .help(format!("write \"{authority}:8080\"")));
    };
    if port == 0 {
        return Err(port_zero(authority));
    }
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Ok(ip) = unbracketed.unwrap_or(host).parse::<IpAddr>()
        && unbracketed.is_some() == ip.is_ipv6()
    {
        return of_one_machine(SocketAddr::new(ip, port));
    }
    if !is_host_name(host) {
        return Err(Problem::new(format!("`{host}` is not a host"))
            .at(0, host.len())
            .help("write an IP address, or a name of letters, digits, hyphens and dots"));
    }
    Ok(EndpointAddress::Name {
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// The address in one spelling, `::ffff:10.0.0.1` as `10.0.0.1`.
fn of_one_machine(address: SocketAddr) -> Result<EndpointAddress, Problem> {
    let ip = address.ip().to_canonical();
    if is_of_one_machine(ip) {
        let mut address = address;
        // Keeps the scope of a link-local address.
        if address.ip() != ip {
            address = SocketAddr::new(ip, address.port());
        }
        return Ok(EndpointAddress::Ip(address));
    }
    let problem = Problem::new(format!("`{ip}` is not the address of one machine"));
    Err(match (ip, address.port()) {
        (IpAddr::V4(ip), port) if ip.is_unspecified() => {
            problem.help(format!("for this machine write \"127.0.0.1:{port}\""))
        }
        (IpAddr::V6(ip), port) if ip.is_unspecified() => {
            problem.help(format!("for this machine write \"[::1]:{port}\""))
        }
        _ => problem.help("write the address of the server"),
    })
}

/// Whether an endpoint can have the address: it is neither 0.0.0.0 or `::`, nor one of multicast or broadcast.
#[must_use]
pub fn is_of_one_machine(ip: IpAddr) -> bool {
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

fn port_zero(authority: &str) -> Problem {
    Problem::new(format!("`{authority}` has port 0")).help("write a port from 1 to 65535")
}

/// Reports endpoints that an upstream has twice, and endpoints that are listeners of this file.
pub(crate) fn check_endpoints(
    servers: Vec<Spanned<Endpoint>>,
    upstream: &Spanned<String>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<Endpoint> {
    let mut lines: HashMap<EndpointAddress, u32> = HashMap::with_capacity(servers.len());
    let mut endpoints = Vec::with_capacity(servers.len());
    if servers.len() > ENDPOINTS_MAX {
        let message = format!("an upstream has at most {ENDPOINTS_MAX} endpoints");
        cx.error(Code::BadValue, upstream.span.clone(), message)
            .help("split it into several upstreams");
    }
    for Spanned { value, span } in servers {
        let position = cx.position(&span);
        let line = position.line;
        let endpoint = Endpoint { position, ..value };
        if let Some(first) = lines.get(&endpoint.address) {
            let message = format!("endpoint `{}` occurs twice", endpoint.address);
            cx.error(Code::Duplicate, span.clone(), message)
                .help(format!(
                    "the first one is in line {first}; to send it more requests, raise its `weight`"
                ));
        }
        if let Some(listener) = listeners.iter().find(|each| is_reached_by(each, &endpoint)) {
            let message = format!(
                "endpoint `{}` is Weir's own listener `{}`",
                endpoint.address, listener.address
            );
            cx.error(Code::Conflict, span, message)
                .help("Weir would send requests to itself without end; name another address");
        }
        lines.insert(endpoint.address.clone(), line);
        endpoints.push(endpoint);
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let message = format!("no endpoint of `{}` gets requests", upstream.value);
        cx.warning(Code::NoEffect, upstream.span.clone(), message)
            .label("all have `weight = 0`");
    }
    endpoints
}

/// Whether a connection to `endpoint` certainly arrives at `listener`.
fn is_reached_by(listener: &Listener, endpoint: &Endpoint) -> bool {
    let accepts = |listen: &SocketAddr, to: &SocketAddr| {
        listen == to
            || (listen.port() == to.port()
                && listen.ip().is_unspecified()
                && to.ip().is_loopback()
                && listen.is_ipv4() == to.is_ipv4())
    };
    match (&listener.address, &endpoint.address) {
        (Address::Tcp(listen), EndpointAddress::Ip(to)) => accepts(listen, to),
        (Address::Unix(listen), EndpointAddress::Unix(to)) => listen == to,
        _ => false,
    }
}

pub(crate) mod source;
#[cfg(test)]
mod tests;
