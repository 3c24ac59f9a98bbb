//! Addresses to listen on, and the paths and host names in addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::decode::kinds::TextKind;
use crate::text::problem::{Problem, ValueError};

/// The longest path of a Unix socket: `sun_path` of unix(7) holds 108 bytes, the last of them NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix stream socket, at most 107 bytes.
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

impl FromStr for Address {
    type Err = ValueError;

    /// Reads `IP:PORT`, `[IPV6]:PORT` or `unix:/PATH`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        AddressText::parse(text).map_err(Into::into)
    }
}

/// An address to listen on.
pub(crate) struct AddressText;

impl TextKind for AddressText {
    type Value = Address;
    const NOUN: &'static str = "an address";
    const PATTERN: Option<&'static str> = Some("^(unix:/.+|.+:[0-9]+)$");
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:8080", "[::]:8080", "unix:/run/weir.sock"];

    fn parse(text: &str) -> Result<Address, Problem> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match find_fault(&address) {
                Some(problem) => Err(problem),
                None => Ok(Address::Tcp(address)),
            };
        }
        let problem = Problem::new(format!("`{text}` is not an address to listen on"));
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        Err(if text.contains("://") {
            problem.help("write it without a scheme: \"0.0.0.0:8080\"")
        } else if text.starts_with('/') {
            problem.help(format!("for a Unix socket write \"unix:{text}\""))
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            problem.help(format!(
                "for port {text} of all addresses write \"0.0.0.0:{text}\""
            ))
        } else if text.parse::<Ipv6Addr>().is_ok() {
            problem.help(format!(
                "write it with brackets and a port: \"[{text}]:8080\""
            ))
        } else if text.parse::<IpAddr>().is_ok() {
            problem.help(format!("write it with a port: \"{text}:8080\""))
        } else if port.parse::<u16>().is_ok() && matches!(host, "" | "*") {
            problem.help(format!(
                "for all addresses write \"0.0.0.0:{port}\" or \"[::]:{port}\""
            ))
        } else if port.parse::<u16>().is_ok() && host == "localhost" {
            problem.help(format!("write \"127.0.0.1:{port}\""))
        } else if port.parse::<u16>().is_ok() && is_host_name(host) {
            problem.help("write an IP address: a listener must not depend on DNS")
        } else {
            problem.help("write \"0.0.0.0:8080\", \"[::]:8080\" or \"unix:/run/weir.sock\"")
        })
    }
}

/// Why no Linux machine could listen on `address`.
fn find_fault(address: &SocketAddr) -> Option<Problem> {
    let SocketAddr::V6(v6) = address else {
        return None;
    };
    let (ip, port) = (v6.ip(), v6.port());
    if let Some(v4) = ip.to_ipv4_mapped() {
        let problem = Problem::new(format!("`{address}` is an IPv4 address in IPv6 form"));
        return Some(problem.help(format!("write \"{v4}:{port}\"")));
    }
    // fe80::/10, RFC 4291 section 2.5.6.
    let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
    if (is_link_local || ip.is_multicast()) && v6.scope_id() == 0 {
        let problem = Problem::new(format!(
            "`{address}` is valid on one link only, and names none"
        ));
        return Some(problem.help(format!(
            "add the number of the interface, which `ip link` shows: \"[{ip}%2]:{port}\""
        )));
    }
    None
}

/// The path of a Unix socket.
pub(crate) fn unix_path(path: &str) -> Result<PathBuf, Problem> {
    let problem = if !path.starts_with('/') {
        Problem::new("the path of a Unix socket must be absolute")
            .help("write \"unix:/run/weir.sock\"")
    } else if path.ends_with('/') {
        Problem::new("the path of a Unix socket has no file name")
            .help("write \"unix:/run/weir.sock\"")
    } else if path.contains(char::is_control) {
        // Paths stand in lines of the log.
        Problem::new("the path of a Unix socket cannot contain control characters")
    } else if path.len() > UNIX_PATH_BYTES_MAX {
        Problem::new(format!(
            "the path of a Unix socket has {} bytes, the most is {UNIX_PATH_BYTES_MAX}",
            path.len()
        ))
    } else {
        return Ok(PathBuf::from(path));
    };
    Err(problem)
}

/// Whether `text` is a DNS name or a single label (RFC 1123 section 2.1). Underscores may occur, because service names
/// have them.
pub(crate) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253
        && text.split('.').all(is_label)
        // A last label of digits alone is a mistyped address.
        && !text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
