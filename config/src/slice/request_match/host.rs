//! The host of a match.

use std::fmt;

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::address::is_host_name;

/// A pattern for the host of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// Every host.
    Any,
    /// This host, in lower case; an IPv6 address in brackets.
    Exact(String),
    /// Every host with at least one label before a dot and this name: `example.com` for `*.example.com`.
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

/// A host or a wildcard.
pub(crate) struct HostText;

impl TextKind for HostText {
    type Value = HostMatch;
    const NOUN: &'static str = "a host";
    const PATTERN: Option<&'static str> = Some("^(\\*|(\\*\\.)?[^/*:]+|\\[[0-9a-fA-F:.]+\\])$");
    const EXAMPLES: &'static [&'static str] = &["api.example.com", "*.example.com"];

    fn parse(text: &str) -> Result<HostMatch, Problem> {
        if text == "*" {
            return Ok(HostMatch::Any);
        }
        if let Some(inside) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        {
            let address = inside.parse::<std::net::Ipv6Addr>();
            return address
                .map(|address| HostMatch::Exact(format!("[{address}]")))
                .map_err(|_| {
                    Problem::new(format!("`{text}` is not an IPv6 address"))
                        .help("write one such as \"[2001:db8::1]\"")
                });
        }
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let problem = Problem::new(format!("`{text}` is not a host")).at(0, text.len());
        if let Some((host, port)) = name.rsplit_once(':')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            let host = if is_wildcard {
                format!("*.{host}")
            } else {
                host.to_owned()
            };
            return Err(problem.help(format!(
                "write it without the port, which a match does not look at: \"{host}\""
            )));
        }
        if name.contains('*') {
            return Err(
                problem.help("a star stands for whole labels at the front: \"*.example.com\"")
            );
        }
        if !name.is_ascii() {
            return Err(problem
                .help("write the name in the form that DNS uses, which begins with \"xn--\""));
        }
        let is_v4 = !is_wildcard && name.parse::<std::net::Ipv4Addr>().is_ok();
        if !is_v4 && !is_host_name(name) {
            return Err(problem.help("use letters, digits, hyphens and dots"));
        }
        let name = name.to_ascii_lowercase();
        Ok(if is_wildcard {
            HostMatch::Wildcard(name)
        } else {
            HostMatch::Exact(name)
        })
    }
}
