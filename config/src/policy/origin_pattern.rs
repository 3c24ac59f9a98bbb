//! Origins of web pages, as `cors` lists them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::decode::decoder::Decoder;
use crate::decode::kinds::{LongForm, ShortOrLong, TextKind};
use crate::decode::table::{frame, table};
use crate::text::problem::Problem;
use crate::value::address::is_host_name;
use crate::value::regex::{RegexPattern, RegexText};

/// A pattern for origins. Its texts are in canonical form (RFC 6454, section 6.2): scheme and host in lower case, and no
/// port if it is the default one of the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    /// Every origin, `null` too.
    Any,
    /// `null`, which pages without an origin of their own send: files, sandboxed frames.
    Null,
    /// This origin.
    Exact(String),
    /// Origins with one label or more between these two parts: `https://` and `.example.com` for
    /// `https://*.example.com`.
    Subdomains {
        /// The scheme with its slashes.
        before: String,
        /// A dot, the rest of the host, and the port if there is one.
        after: String,
    },
    /// Origins that this expression describes as a whole.
    Regex(RegexPattern),
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Subdomains { before, after } => write!(f, "{before}*{after}"),
            Self::Regex(regex) => write!(f, "{{ regex = \"{}\" }}", regex.as_str()),
        }
    }
}

table! {
    /// Origins that a regular expression describes.
    RawOriginRegex, "origin", "an origin of `cors`" {
        /// An expression in the syntax of Rust's `regex` crate. It describes whole origins, as browsers send them:
        /// `https://[a-z]+\.example\.com`. Escape dots.
        required regex: RegexPattern = "regex" as RegexText;
    }
}

/// An origin, a wildcard or a regular expression.
pub(crate) type OriginPatternKind = ShortOrLong<OriginText, RawOriginRegex>;

impl LongForm for RawOriginRegex {
    type Out = OriginPattern;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<OriginPattern> {
        Some(OriginPattern::Regex(table.regex))
    }
}

/// An origin, or a wildcard.
pub(crate) struct OriginText;

impl TextKind for OriginText {
    type Value = OriginPattern;
    const NOUN: &'static str = "an origin";
    const PATTERN: Option<&'static str> = Some("^(\\*|null|[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#@]+)$");
    const EXAMPLES: &'static [&'static str] = &[
        "https://app.example.com",
        "https://*.example.com",
        "null",
        "*",
    ];

    fn parse(text: &str) -> Result<OriginPattern, Problem> {
        match text {
            "*" => return Ok(OriginPattern::Any),
            "null" => return Ok(OriginPattern::Null),
            _ => {}
        }
        let problem = || Problem::new(format!("`{text}` is not an origin"));
        let Some((scheme, authority)) = text.split_once("://") else {
            let is_host = is_host_name(
                text.strip_prefix("*.")
                    .unwrap_or(text)
                    .split(':')
                    .next()
                    .unwrap_or(""),
            );
            return Err(match is_host && !text.is_empty() {
                true => problem().help(format!("write the scheme too: \"https://{text}\"")),
                false => problem().help("write one such as \"https://app.example.com\""),
            });
        };
        if !is_scheme(scheme) {
            return Err(problem().help("begin it with a scheme: \"https://app.example.com\""));
        }
        if let Some(end) = authority.find(['/', '?', '#']) {
            let origin = &text[..text.len() - authority.len() + end];
            return Err(problem().help(format!("an origin has no path: write \"{origin}\"")));
        }
        if authority.contains('@') {
            return Err(problem().help("leave out the part before the `@`"));
        }
        if !text.is_ascii() {
            return Err(problem()
                .help("write the name in the form that DNS uses, which begins with \"xn--\""));
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(authority)
            .ok_or_else(|| problem().help("a port is a number from 1 to 65535"))?;
        let port = match (scheme.as_str(), port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        let host = host.to_ascii_lowercase();
        if let Some(domain) = host.strip_prefix("*.") {
            if !is_host_name(domain) {
                return Err(problem().help(
                    "a star stands for whole labels at the front: \"https://*.example.com\"",
                ));
            }
            return Ok(OriginPattern::Subdomains {
                before: format!("{scheme}://"),
                after: format!(".{domain}{port}"),
            });
        }
        if host.contains('*') {
            return Err(problem().help(
                "a star stands for whole labels at the front: \"https://*.example.com\"; for other patterns write { regex = \"...\" }",
            ));
        }
        let host = canonical_host(&host)
            .ok_or_else(|| problem().help("use letters, digits, hyphens and dots in the host"))?;
        Ok(OriginPattern::Exact(format!("{scheme}://{host}{port}")))
    }
}

//= rfc3986#3.1: a scheme is a letter, then letters, digits, `+`, `-` and `.`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Splits `HOST:PORT`; `None` if the port is no port.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port
                .parse::<u16>()
                .ok()
                .filter(|port| is_number && *port > 0)?;
            Some((host, Some(port)))
        }
        _ => Some((authority, None)),
    }
}

/// The host as browsers write it; `None` if it is no host.
fn canonical_host(host: &str) -> Option<String> {
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        let address = inside.parse::<Ipv6Addr>().ok()?;
        return Some(format!("[{address}]"));
    }
    let is_valid = host.parse::<Ipv4Addr>().is_ok() || is_host_name(host);
    is_valid.then(|| host.to_owned())
}

#[cfg(test)]
mod tests;
