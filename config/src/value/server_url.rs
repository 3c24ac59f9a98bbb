//! URLs of servers that Weir itself asks.

use std::fmt;
use std::net::IpAddr;

use crate::text::problem::Problem;
use crate::value::fetch_url::read_any;

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
        let url = read_any(text)?;
        let host = match url.host.parse() {
            Ok(ip) => UrlHost::Ip(ip),
            Err(_) => UrlHost::Name(url.host),
        };
        let server = Self {
            is_tls: url.is_https,
            host,
            port: url.port,
        };
        Ok((server, url.target))
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
}
