//! URLs of servers that Weir itself asks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::text::problem::Problem;
use crate::value::address::is_host_name;

/// The server of a URL: `https://auth.internal`, `http://127.0.0.1:9091`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// Whether Weir speaks TLS to it.
    pub is_tls: bool,
    /// Its host.
    pub host: UrlHost,
    /// Its port.
    pub port: u16,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UrlHost {
    /// An address.
    Ip(IpAddr),
    /// A name in lower case, which control resolves.
    Name(String),
}

impl ServerUrl {
    /// Splits a URL into its server and the rest: path and query, `/` if it has none.
    pub(crate) fn split(text: &str) -> Result<(Self, String), Problem> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| Problem::new(format!("`{text}` is not a URL")))?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => {
                return Err(
                    Problem::new(format!("Weir cannot ask a server over `{scheme}`"))
                        .at(0, scheme.len())
                        .help("write http:// or https://"),
                );
            }
        };
        let at = scheme.len() + 3;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if let Some(sign) = authority.find('@') {
            return Err(Problem::new("a URL with a user name is not supported")
                .at(at, sign + 1)
                .help("leave the user name out"));
        }
        let (host, port) = split_port(authority).map_err(|problem| problem.at(at, end))?;
        let server = Self {
            is_tls,
            host: read_host(host).map_err(|problem| problem.at(at, host.len()))?,
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
        };
        let target = match target {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        check_target(&target)?;
        Ok((server, target))
    }

    /// The host and port, as a request names them: without the default port.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match &self.host {
            UrlHost::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            UrlHost::Ip(ip) => ip.to_string(),
            UrlHost::Name(name) => name.clone(),
        };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Checks a path with a query.
pub(crate) fn check_target(target: &str) -> Result<(), Problem> {
    if !target.starts_with('/') {
        return Err(Problem::new(format!("`{target}` is not a path"))
            .help(format!("begin it with a slash: \"/{target}\"")));
    }
    let is_bad = |c: char| !c.is_ascii_graphic() || c == '#';
    match target.find(is_bad) {
        Some(bad) => Err(
            Problem::new("a path has no blanks, no `#` and only ASCII characters")
                .help(format!("percent-encode what follows `{}`", &target[..bad])),
        ),
        None => Ok(()),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), Problem> {
    let Some((host, digits)) = authority.rsplit_once(':') else {
        return Ok((authority, None));
    };
    if digits.ends_with(']') || authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits
        .parse::<u16>()
        .ok()
        .filter(|&port| is_number && port > 0);
    match port {
        Some(port) => Ok((host, Some(port))),
        None => {
            Err(Problem::new(format!("`{digits}` is not a port"))
                .help("write a port from 1 to 65535"))
        }
    }
}

fn read_host(host: &str) -> Result<UrlHost, Problem> {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(host) = bracketed {
        let ip = host.parse::<Ipv6Addr>();
        return ip
            .map(|ip| UrlHost::Ip(ip.into()))
            .map_err(|_| Problem::new(format!("`{host}` is not an IPv6 address")));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return match ip {
            IpAddr::V4(_) => Ok(UrlHost::Ip(ip)),
            IpAddr::V6(_) => {
                Err(Problem::new(format!("`{host}` needs brackets"))
                    .help(format!("write [{host}]")))
            }
        };
    }
    if !is_host_name(host) {
        return Err(Problem::new(format!("`{host}` is not a host"))
            .help("write an IP address, or a name of letters, digits, hyphens and dots"));
    }
    Ok(UrlHost::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_server_and_target() {
        let cases = [
            (
                "http://auth.internal/verify",
                "http://auth.internal",
                "/verify",
            ),
            ("https://Auth.Internal:443", "https://auth.internal", "/"),
            (
                "https://auth.internal:8443/a?b=c",
                "https://auth.internal:8443",
                "/a?b=c",
            ),
            (
                "http://127.0.0.1:9091?rd=x",
                "http://127.0.0.1:9091",
                "/?rd=x",
            ),
            ("http://[::1]:80/", "http://[::1]", "/"),
            ("http://[::1]/", "http://[::1]", "/"),
        ];
        for (text, server, target) in cases {
            let (found, rest) = ServerUrl::split(text).unwrap();
            assert_eq!((&*found.to_string(), &*rest), (server, target), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        let cases = [
            ("auth.internal", "`auth.internal` is not a URL"),
            ("ftp://a/", "Weir cannot ask a server over `ftp`"),
            ("http://u:p@a/", "a URL with a user name is not supported"),
            ("http://a:0/", "`0` is not a port"),
            ("http://a:x/", "`x` is not a port"),
            ("http:///x", "`` is not a host"),
            ("http://::1/", "`::1` needs brackets"),
            (
                "http://a/b c",
                "a path has no blanks, no `#` and only ASCII characters",
            ),
            (
                "http://a/b#c",
                "a path has no blanks, no `#` and only ASCII characters",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                ServerUrl::split(text).unwrap_err().message,
                message,
                "{text}"
            );
        }
    }
}
