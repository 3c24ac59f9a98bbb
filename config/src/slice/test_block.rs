//! `[[test]]`: a request, and what Weir must do with it.

use std::net::IpAddr;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Count, NamedEntries, NamedEntry, OneOrMany, PlainText, SpannedKind, TextKind,
};
use crate::decode::table::{frame, table};
use crate::policy::jwt::claims::{ClaimName, ClaimValuesKind};
use crate::slice::routes::RouteNames;
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::value::address::is_host_name;
use crate::value::field::{FieldName, FieldValueText, check_header_names, is_token};
use crate::value::upstream_names::UpstreamNames;

/// A request, and what Weir must do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The request's method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The request's host, in lower case, without a port.
    pub host: String,
    /// The port, if the URL names one.
    pub port: Option<u16>,
    /// Path and query, as in the URL.
    pub target: String,
    /// Request fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The subject and the names of the client's certificate; empty without one.
    pub client_cert: Vec<String>,
    /// The client's address, unless fields of a trusted proxy name another; `None` for a client without one.
    pub client_ip: Option<IpAddr>,
    /// The claims of the client's token, each with its values; `None` without a valid token.
    pub claims: Option<Vec<(String, Vec<String>)>>,
    /// Index in [`Config::routes`](crate::Config::routes) of the route that must take it.
    pub route: Option<usize>,
    /// Index in [`Config::upstreams`](crate::Config::upstreams) of the upstream that must get it.
    pub upstream: Option<usize>,
    /// The status of the answer that Weir itself must give.
    pub status: Option<u16>,
    /// The position of its request in the file.
    pub position: Position,
}

table! {
    /// A request, and at least one of `route`, `upstream` and `status`: what Weir must do with it. `weir check` runs the
    /// tests.
    RawTest, "test", "[[test]]" {
        /// The request: METHOD URL.
        required request: Spanned<RequestLine> = "request" as SpannedKind<RequestText>;
        /// Header fields of the request.
        optional headers: Vec<NamedEntry<String>> = "headers" as NamedEntries<FieldName, FieldValueText>;
        /// The client's certificate: its subject, such as `CN=a,O=Example`, its names, such as `DNS:a.example.com`, or
        /// several of these. Without the key, the client shows none.
        optional client_cert: Vec<String> = "client_cert" as OneOrMany<PlainText>;
        /// The client's address, unless `headers` of a trusted proxy name another. Without the key, the client has none,
        /// and `ip` lets it pass. Set it to test the rules of `ip`.
        optional client_ip: IpAddr = "client_ip" as IpText;
        /// The claims of the client's token, which counts as valid for every `jwt`; a list is a claim with several values.
        /// Without the key, the client has no valid token.
        optional claims: Vec<NamedEntry<Vec<String>>> = "claims" as NamedEntries<ClaimName, ClaimValuesKind>;
        /// The name of the route that must take the request.
        optional route: Spanned<String> = "route" as SpannedKind<PlainText>;
        /// The name of the upstream that must get the request.
        optional upstream: Spanned<String> = "upstream" as SpannedKind<PlainText>;
        /// The status of the answer that Weir itself must give.
        optional status: u32 = "status" as Count<100, 599>;
    }
}

/// An IP address.
pub(crate) struct IpText;

impl TextKind for IpText {
    type Value = IpAddr;
    const NOUN: &'static str = "an IP address";
    const PATTERN: Option<&'static str> = Some("^[0-9a-fA-F.:]+$");
    const EXAMPLES: &'static [&'static str] = &["192.0.2.7", "2001:db8::7"];

    fn parse(text: &str) -> Result<IpAddr, Problem> {
        text.parse().map_err(|_| {
            Problem::new(format!("`{text}` is not an IP address"))
                .help("write one without a port and brackets: \"192.0.2.7\"")
        })
    }
}

/// METHOD URL.
pub(crate) struct RequestText;

/// The request of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) target: String,
}

impl TextKind for RequestText {
    type Value = RequestLine;
    const NOUN: &'static str = "a request";
    const PATTERN: Option<&'static str> = Some("^[^ ]+ https?://[^ ]+$");
    const EXAMPLES: &'static [&'static str] = &["GET http://api.example.com/v1/users"];

    fn parse(text: &str) -> Result<RequestLine, Problem> {
        let problem =
            |message: &str| Problem::new(message).help("write \"GET http://api.example.com/path\"");
        let (method, url) = text
            .split_once(' ')
            .ok_or_else(|| problem("a request is a method, a space and a URL"))?;
        if !is_token(method) {
            return Err(problem("a request begins with its method").at(0, method.len()));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "http" | "https") {
            return Err(
                problem("the URL begins with http:// or https://").at(method.len() + 1, url.len())
            );
        }
        if let Some(at) = rest.find(|c: char| !c.is_ascii_graphic() || c == '#') {
            return Err(problem(
                "the URL of a request has visible ASCII characters only, and no fragment",
            )
            .at(
                text.len() - rest.len() + at,
                rest[at..].chars().next().map_or(1, char::len_utf8),
            ));
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(authority_end);
        let (host, port) =
            split_port(authority).ok_or_else(|| problem("the URL has no valid host"))?;
        Ok(RequestLine {
            method: method.to_owned(),
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            port,
            target: target.to_owned(),
        })
    }
}

/// Splits HOST:PORT, whose port may be empty or absent. `None` if either is invalid.
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
    let is_valid = match literal {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            // "example.com." is the same name in its absolute form.
            let name = host.strip_suffix('.').unwrap_or(host);
            name.parse::<std::net::Ipv4Addr>().is_ok() || is_host_name(name)
        }
    };
    is_valid.then_some((host, port))
}

/// The test that a table describes; reports one that names no route or upstream of the file, or expects nothing.
pub(crate) fn check_test(
    table: RawTest,
    route_names: &RouteNames,
    upstream_names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) -> Option<Test> {
    let route = table.route.map(|name| route_names.resolve(&name, cx));
    let upstream = table.upstream.map(|name| upstream_names.resolve(&name, cx));
    if route.is_none() && upstream.is_none() && table.status.is_none() {
        cx.error(Code::MissingKey, table.span, "this test expects nothing")
            .help("add `route`, `upstream` or `status`");
        return None;
    }
    let position = cx.position(&table.request.span);
    let request = table.request.value;
    Some(Test {
        method: request.method,
        scheme: request.scheme,
        host: request.host,
        port: request.port,
        target: request.target,
        headers: check_header_names(table.headers.unwrap_or_default(), cx),
        client_cert: table.client_cert.unwrap_or_default(),
        client_ip: table.client_ip,
        claims: table.claims.map(|claims| {
            let entries = claims.into_iter();
            let pairs = entries.filter_map(|entry| Some((entry.name.value, entry.value?)));
            pairs.collect()
        }),
        route: route.flatten(),
        upstream: upstream.flatten(),
        status: table.status.and_then(|status| u16::try_from(status).ok()),
        position,
    })
}
