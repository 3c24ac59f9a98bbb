//! The request of a `[[test]]`.

use crate::kinds::Text;
use crate::pattern::is_token;
use crate::units::Problem;

/// `METHOD URL`.
pub(crate) struct RequestText;

/// What a [`RequestText`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) target: String,
}

impl Text for RequestText {
    type Value = RequestLine;
    const NOUN: &'static str = "a request";
    const PATTERN: Option<&'static str> = Some("^[^ ]+ https?://[^ ]+$");
    const EXAMPLES: &'static [&'static str] = &["GET http://api.example.com/v1/users"];

    fn parse(text: &str) -> Result<RequestLine, Problem> {
        let bad =
            |message: &str| Problem::new(message).help("write \"GET http://api.example.com/path\"");
        let (method, url) = text
            .split_once(' ')
            .ok_or_else(|| bad("a request is a method, a space and a URL"))?;
        if !is_token(method) {
            return Err(bad("a request begins with its method").at(0, method.len()));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "http" | "https") {
            return Err(
                bad("the URL begins with http:// or https://").at(method.len() + 1, url.len())
            );
        }
        if let Some(at) = rest.find(|c: char| !c.is_ascii_graphic() || c == '#') {
            return Err(
                bad("a URL in a request holds visible ASCII characters and no fragment").at(
                    text.len() - rest.len() + at,
                    rest[at..].chars().next().map_or(1, char::len_utf8),
                ),
            );
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(authority_end);
        let (host, port) = split_port(authority).ok_or_else(|| bad("the URL has no valid host"))?;
        Ok(RequestLine {
            method: method.to_owned(),
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            port,
            target: target.to_owned(),
        })
    }
}

/// Splits `host:port`, of which the port may be empty. `None` when either is invalid.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let bracket_end = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority.get(bracket_end..)?.find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(bracket_end + colon);
            let digits = port.get(1..)?;
            let is_empty = digits.is_empty();
            (
                host,
                if is_empty {
                    None
                } else {
                    Some(digits.parse().ok()?)
                },
            )
        }
        None => (authority, None),
    };
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match literal {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            // "example.com." is the same name, said to be complete.
            let name = host.strip_suffix('.').unwrap_or(host);
            name.parse::<std::net::Ipv4Addr>().is_ok() || crate::address::is_host_name(name)
        }
    };
    valid.then_some((host, port))
}
