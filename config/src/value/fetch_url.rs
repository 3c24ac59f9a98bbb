//! Addresses that Weir itself fetches something from.

use std::fmt;
use std::net::IpAddr;

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::address::is_host_name;

/// A URL that Weir fetches. Where what Weir fetches decides whom it trusts, it is `https`, or `http` to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FetchUrl {
    /// Whether Weir speaks TLS.
    pub is_https: bool,
    /// A host name in lower case, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query; begins with a slash.
    pub target: String,
}

impl FetchUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// The text is not the URL of a web resource, or is `http` to another machine.
    pub fn parse(text: &str) -> Result<Self, String> {
        read(text).map_err(|problem| problem.message)
    }

    /// Whether it is on this machine, by its host.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        is_this_machine(&self.host)
    }

    /// Host and port as `Host` has them: without the usual port.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// A [`FetchUrl`].
pub(crate) struct FetchUrlText;

impl TextKind for FetchUrlText {
    type Value = FetchUrl;
    const NOUN: &'static str = "a URL";
    const PATTERN: Option<&'static str> = Some("^https?://[^/?#@]+");
    const EXAMPLES: &'static [&'static str] = &["https://issuer.example/keys"];

    fn parse(text: &str) -> Result<FetchUrl, Problem> {
        read(text)
    }
}

fn read(text: &str) -> Result<FetchUrl, Problem> {
    let url = read_any(text)?;
    if !url.is_https && !is_this_machine(&url.host) {
        let problem = Problem::new(format!(
            "`{text}` is in the clear: anyone on the way could change what Weir gets"
        ));
        return Err(problem.help("write https://; http:// is for this machine alone"));
    }
    Ok(url)
}

/// Reads a URL of `https` or `http`, on any machine.
pub(crate) fn read_any(text: &str) -> Result<FetchUrl, Problem> {
    let bad = |why: &str| Problem::new(format!("`{text}` {why}")).help("write https://HOST/PATH");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("is not a URL"))?;
    let is_https = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(bad("is not the URL of a web resource")),
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !text.bytes().all(is_plain) {
        return Err(bad("has a character that no URL has"));
    }
    if text.contains('#') {
        return Err(bad("has a fragment, which no server sees"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.contains('@') {
        return Err(bad("has a user name"));
    }
    let default = if is_https { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port
                .parse::<u16>()
                .ok()
                .filter(|port| is_number && *port > 0);
            (host, port.ok_or_else(|| bad("has no valid port"))?)
        }
        _ => (authority, default),
    };
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner.to_ascii_lowercase(),
        None if is_host_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok() => {
            host.to_ascii_lowercase()
        }
        _ => return Err(bad("has no valid host")),
    };
    let target = match target {
        "" => "/".to_owned(),
        target if target.starts_with('?') => format!("/{target}"),
        target => target.to_owned(),
    };
    Ok(FetchUrl {
        is_https,
        host,
        port,
        target,
    })
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, shown) in [
            ("https://issuer.example", "https://issuer.example/"),
            (
                "https://Issuer.example:443/a?b=c",
                "https://issuer.example/a?b=c",
            ),
            (
                "https://issuer.example:8443?x",
                "https://issuer.example:8443/?x",
            ),
            ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443/"),
            ("https://192.0.2.1/", "https://192.0.2.1/"),
            ("http://127.0.0.1:80/x", "http://127.0.0.1/x"),
            ("http://localhost:8080/x", "http://localhost:8080/x"),
            ("http://[::1]/x", "http://[::1]/x"),
        ] {
            assert_eq!(FetchUrl::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "issuer.example",
            "https:/issuer.example",
            "https://",
            "https:///x",
            "ftp://issuer.example/",
            "HTTPS://issuer.example/",
            "https://user@issuer.example/",
            "https://user:pw@issuer.example/",
            "https://issuer.example/#x",
            "https://issuer.example:0/",
            "https://issuer.example:+1/",
            "https://issuer.example:99999/",
            "https://issuer.example:/",
            "https://iss uer.example/",
            "https://issuer.example/\r\nX: y",
            "https://issuer.example/é",
            "https://[::1/",
            "https://[x]/",
            "http://issuer.example/",
            "http://192.0.2.1/",
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://127.0.0.1.evil.example/",
        ] {
            FetchUrl::parse(text).unwrap_err();
        }
    }
}
