//! Addresses: listeners, endpoints, networks, and the list of cores.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use crate::decode::{Decoder, Kind, Spell, Value};
use crate::diagnostic::{Code, Spot};
use crate::json::Json;
use crate::kinds::{Text, integer};
use crate::limits::{CORES_MAX, UNIX_PATH_BYTES_MAX};
use crate::model::{Address, Cidr, Cores, Endpoint, EndpointAddress, TrustedPeer};
use crate::shape::Shape;
use crate::units::Problem;

/// Why a single value, given outside of a file, is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead, if that is known.
    pub help: Option<String>,
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

impl std::error::Error for ValueError {}

impl From<Problem> for ValueError {
    fn from(problem: Problem) -> Self {
        Self {
            message: problem.message,
            help: problem.help,
        }
    }
}

impl FromStr for Address {
    type Err = ValueError;

    /// Reads `IP:PORT`, `[IPV6]:PORT` or `unix:/PATH`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        ListenText::parse(text).map_err(Into::into)
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
    /// An endpoint of weight 1 that is in no file.
    fn from(address: EndpointAddress) -> Self {
        Self {
            address,
            tls: false,
            h2c: false,
            weight: crate::limits::WEIGHT.value,
            spot: Spot::default(),
        }
    }
}

/// An address to listen on.
pub(crate) struct ListenText;

impl Text for ListenText {
    type Value = Address;
    const NOUN: &'static str = "an address";
    const PATTERN: Option<&'static str> = Some("^(unix:/.+|.+:[0-9]+)$");
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:8080", "[::]:8080", "unix:/run/weir.sock"];

    fn parse(text: &str) -> Result<Address, Problem> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match unusable(&address) {
                Some(problem) => Err(problem),
                None => Ok(Address::Tcp(address)),
            };
        }
        let problem = Problem::new(format!("`{text}` is no address to listen on"));
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        Err(if text.contains("://") {
            problem.help("an address has no scheme: \"0.0.0.0:8080\"")
        } else if text.starts_with('/') {
            problem.help(format!("for a unix socket write \"unix:{text}\""))
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            problem.help(format!(
                "for port {text} of every address write \"0.0.0.0:{text}\""
            ))
        } else if text.parse::<Ipv6Addr>().is_ok() {
            problem.help(format!("brackets and a port: \"[{text}]:8080\""))
        } else if text.parse::<IpAddr>().is_ok() {
            problem.help(format!("a port is missing: \"{text}:8080\""))
        } else if port.parse::<u16>().is_ok() && matches!(host, "" | "*") {
            problem.help(format!(
                "for every address write \"0.0.0.0:{port}\" or \"[::]:{port}\""
            ))
        } else if port.parse::<u16>().is_ok() && host == "localhost" {
            problem.help(format!("write \"127.0.0.1:{port}\""))
        } else if port.parse::<u16>().is_ok() && is_host_name(host) {
            problem.help("an IP address, not a name: a listener must not depend on DNS")
        } else {
            problem.help("write \"0.0.0.0:8080\", \"[::]:8080\" or \"unix:/run/weir.sock\"")
        })
    }
}

/// Why the system refuses to listen on an address whatever the machine.
fn unusable(address: &SocketAddr) -> Option<Problem> {
    let SocketAddr::V6(v6) = address else {
        return None;
    };
    let (ip, port) = (v6.ip(), v6.port());
    if let Some(v4) = ip.to_ipv4_mapped() {
        let problem = Problem::new(format!(
            "`{address}` is an IPv4 address in the form of IPv6"
        ));
        return Some(problem.help(format!("write \"{v4}:{port}\"")));
    }
    // fe80::/10, RFC 4291 section 2.5.6.
    let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
    if (is_link_local || ip.is_multicast()) && v6.scope_id() == 0 {
        let problem = Problem::new(format!(
            "`{address}` is an address of one link, which is missing"
        ));
        return Some(problem.help(format!(
            "with the number of the interface, as `ip link` shows it: \"[{ip}%2]:{port}\""
        )));
    }
    None
}

/// Where an endpoint is.
pub(crate) struct EndpointText;

impl Text for EndpointText {
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
                return Err(Problem::new(format!("`{scheme}` is no scheme of an endpoint"))
                    .at(0, scheme.len())
                    .help(match scheme {
                        "grpc" | "grpcs" | "h2" | "http2" => {
                            "HTTP/2, and so gRPC, is spoken to \"h2c://host:port\" in the clear and to \"https://host:port\" over TLS"
                        }
                        "ws" | "wss" => {
                            "a WebSocket goes to \"http://host:port\" or \"https://host:port\" as other requests do"
                        }
                        _ => {
                            "an endpoint is \"host:port\", \"http://host:port\", \"https://host:port\", \"h2c://host:port\" or \"unix:/path\""
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
                Problem::new(format!("`{text}` is no endpoint"))
                    .help(format!("for a unix socket write \"unix:{text}\""))
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
            Ok(EndpointAddress::Ip(address))
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(
            Problem::new(format!("`{authority}` needs brackets and a port"))
                .help(format!("write \"[{authority}]:8080\"")),
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, digits)) if !host.ends_with(':') => {
            let port = digits.parse::<u16>().ok();
            let port = port.filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
            let port = port.ok_or_else(|| {
                Problem::new(format!("`{digits}` is no port"))
                    .at(host.len() + 1, digits.len())
                    .help("a number from 1 to 65535")
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
        return Ok(EndpointAddress::Ip(SocketAddr::new(ip, port)));
    }
    if !is_host_name(host) {
        return Err(Problem::new(format!("`{host}` is no host"))
            .at(0, host.len())
            .help("an IP address or a name of letters, digits, hyphens and dots"));
    }
    Ok(EndpointAddress::Name {
        host: host.to_ascii_lowercase(),
        port,
    })
}

fn port_zero(authority: &str) -> Problem {
    Problem::new(format!("`{authority}` has port 0")).help("a number from 1 to 65535")
}

fn unix_path(path: &str) -> Result<PathBuf, Problem> {
    let problem = if !path.starts_with('/') {
        Problem::new("the path of a unix socket must be absolute")
            .help("write \"unix:/run/weir.sock\"")
    } else if path.ends_with('/') {
        Problem::new("the path of a unix socket is missing its file name")
    } else if path.contains('\0') {
        Problem::new("a path cannot hold a NUL")
    } else if path.len() > UNIX_PATH_BYTES_MAX {
        Problem::new(format!(
            "the path of a unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, this one has {}",
            path.len()
        ))
    } else {
        return Ok(PathBuf::from(path));
    };
    Err(problem)
}

/// Whether `text` is a DNS name or a single label: RFC 1123 section 2.1, and underscores, which
/// service names have.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253
        && text.split('.').all(label)
        // A last label of digits only is a mistyped address, not a name.
        && !text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

/// A network, or Unix sockets.
pub(crate) struct TrustedPeerText;

impl Text for TrustedPeerText {
    type Value = TrustedPeer;
    const NOUN: &'static str = "a network or a Unix socket";
    const PATTERN: Option<&'static str> = Some("^([0-9a-fA-F.:]+(/[0-9]{1,3})?|unix:(/.+)?)$");
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "unix:/run/weir.sock", "unix:"];

    fn parse(text: &str) -> Result<TrustedPeer, Problem> {
        match text.strip_prefix("unix:") {
            Some("") => Ok(TrustedPeer::AnyUnix),
            Some(path) => unix_path(path).map(TrustedPeer::Unix),
            None => CidrText::parse(text).map(TrustedPeer::Network),
        }
    }
}

/// A network.
pub(crate) struct CidrText;

impl Text for CidrText {
    type Value = Cidr;
    const NOUN: &'static str = "a network";
    const PATTERN: Option<&'static str> = Some("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$");
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"];

    fn parse(text: &str) -> Result<Cidr, Problem> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(network) = address.parse::<IpAddr>() else {
            return Err(Problem::new(format!("`{text}` is no network"))
                .help("an address and a number of bits: \"10.0.0.0/8\""));
        };
        let bits_max: u8 = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) => bits
                .parse::<u8>()
                .ok()
                .filter(|number| *number <= bits_max && bits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| {
                    Problem::new(format!("`{bits}` is no number of bits"))
                        .at(address.len() + 1, bits.len())
                        .help(format!("from 0 to {bits_max}"))
                })?,
        };
        let first = first_of(network, prefix_bits);
        if first != network {
            return Err(Problem::new(format!(
                "`{text}` has bits set after its first {prefix_bits}"
            ))
            .help(format!("write \"{first}/{prefix_bits}\" or \"{network}\"")));
        }
        Ok(Cidr {
            network,
            prefix_bits,
        })
    }
}

fn first_of(network: IpAddr, prefix_bits: u8) -> IpAddr {
    match network {
        IpAddr::V4(address) => {
            let host_bits = 32_u32.saturating_sub(prefix_bits.into());
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(prefix_bits.into());
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// Which cores: `"auto"`, a number of them, or their names.
pub(crate) struct CoresKind;

impl Kind for CoresKind {
    type Value = Cores;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Cores> {
        if let Some(number) = integer(value) {
            let count = number
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number <= CORES_MAX)
                .and_then(NonZeroU32::new);
            if count.is_none() {
                cx.error(
                    Code::BadValue,
                    value.span(),
                    format!("expected a number of cores from 1 to {CORES_MAX}"),
                )
                .help("a string names cores: \"0\" is the first one");
            }
            return count.map(Cores::Count);
        }
        if !value.get_ref().is_str() {
            cx.wrong_type(
                value,
                "\"auto\", a number of cores, or their names such as \"2-7,10\"",
            );
            return None;
        }
        CoresText::decode(value, cx)
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Choice(vec!["auto"]),
            Shape::Integer {
                min: 1,
                max: CORES_MAX.into(),
            },
            CoresText::shape(),
        ])
    }
}

impl Spell for CoresKind {
    fn spell(value: &Cores) -> Json {
        match value {
            Cores::Auto => Json::text("auto"),
            Cores::Count(count) => Json::Number(count.get().into()),
            Cores::Set(set) => {
                Json::Text(set.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

struct CoresText;

impl Text for CoresText {
    type Value = Cores;
    const NOUN: &'static str = "a set of cores";
    const PATTERN: Option<&'static str> = Some("^(auto|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$");
    const EXAMPLES: &'static [&'static str] = &["2-7,10", "0"];

    fn parse(text: &str) -> Result<Cores, Problem> {
        if text == "auto" {
            return Ok(Cores::Auto);
        }
        let mut set = BTreeSet::new();
        let mut at = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (core_number(first), core_number(last)) else {
                return Err(Problem::new(format!("`{part}` is no core"))
                    .at(at, part.len())
                    .help(format!(
                        "\"auto\", a number, or names below {CORES_MAX} such as \"2-7,10\""
                    )));
            };
            if first > last {
                return Err(Problem::new(format!("`{part}` runs backwards"))
                    .at(at, part.len())
                    .help(format!("write \"{last}-{first}\"")));
            }
            for core in first..=last {
                if !set.insert(core) {
                    return Err(
                        Problem::new(format!("core {core} is named twice")).at(at, part.len())
                    );
                }
            }
            at += part.len() + 1;
        }
        Ok(Cores::Set(set.into_iter().collect()))
    }
}

fn core_number(text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    (number < CORES_MAX && text.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

#[cfg(test)]
mod tests;
