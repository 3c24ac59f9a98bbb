//! `match` of a route: which requests it takes.

mod cookie;
mod correction;
pub(crate) mod host;
pub(crate) mod path;
pub(crate) mod path_regex;
pub(crate) mod value;

use std::fmt;
use std::fmt::Display;
use std::net::IpAddr;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    FallibleKind, LongForm, NamedEntries, NamedEntry, OneOrMany, ShortOrLong, SpannedKind, TextKind,
};
use crate::decode::table::{frame, table};
use crate::policy::jwt::claims::{ClaimName, ClaimValuesKind};
use crate::slice::listener::Listener;
use crate::slice::request_match::cookie::{CookieName, check_cookie_names};
use crate::slice::request_match::host::{HostMatch, HostText};
use crate::slice::request_match::path::{PathMatch, PathText, Segment, read_path};
use crate::slice::request_match::path_regex::RawPathRegex;
use crate::slice::request_match::value::{FieldMatch, ValueMatch, ValueMatchKind};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::address::{Address, AddressText};
use crate::value::field::{FieldName, check_header_names, is_token};
use crate::value::network::{Cidr, CidrText};
use crate::value::placeholder::is_parameter_name;

/// The requests that a route takes. All parts must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The request must have one of these hosts, whatever the port. Never empty.
    pub hosts: Vec<HostMatch>,
    /// The request's normal path must match one of these. Never empty.
    pub paths: Vec<PathMatch>,
    /// Methods, case-sensitive (RFC 9110 section 9.1); empty for every method.
    pub methods: Vec<String>,
    /// Request fields by lower-case name; all must hold.
    pub headers: Vec<FieldMatch>,
    /// Query parameters by name, case-sensitive; all must hold.
    pub query: Vec<FieldMatch>,
    /// Cookies by name, case-sensitive; all must hold.
    pub cookies: Vec<FieldMatch>,
    /// What the subject or a name of the client's certificate must be.
    pub client_cert: Option<ValueMatch>,
    /// Indices in [`Config::listeners`](crate::Config::listeners): the request must arrive at one of these. Empty for
    /// every listener.
    pub listeners: Vec<usize>,
    /// Networks, one of which the client's address must be in. Empty for every client.
    pub sources: Vec<Cidr>,
    /// Claims that a valid token must have, each with the values that do; for `scope`, all values must be there. The
    /// route has `jwt` if there are any.
    pub claims: Vec<(String, Vec<String>)>,
}

impl Match {
    /// Takes every request.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            hosts: vec![HostMatch::Any],
            paths: vec![PathMatch::Prefix("/".to_owned())],
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            client_cert: None,
            listeners: Vec::new(),
            sources: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// Every host pattern with every path pattern.
    pub fn patterns(&self) -> impl Iterator<Item = (&HostMatch, &PathMatch)> {
        let with_paths = |host| self.paths.iter().map(move |path| (host, path));
        self.hosts.iter().flat_map(with_paths)
    }
}

impl Display for Match {
    /// Writes the first pattern as a file would, `api.example.com/v1/*`, and how many more there are. It leaves out
    /// predicates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((host, path)) = self.patterns().next() {
            write!(f, "{host}{path}")?;
        }
        match self.hosts.len() * self.paths.len() {
            0 | 1 => Ok(()),
            all => write!(f, " and {} more", all - 1),
        }
    }
}

/// The most hosts of one route, and the most paths.
const PATTERNS_MAX: usize = 256;

table! {
    /// The requests that a route takes. All parts must hold. A match with one host and one path may be written
    /// HOST/PATH.
    RawMatch, "match", "match of [[route]]" {
        /// A host, a wildcard (`*.` stands for one label or more), or several of these; `"*"` is any host, which is the
        /// default.
        optional host: Spanned<Option<Vec<HostMatch>>> = "host" as FallibleKind<OneOrMany<HostText>>;
        /// A path, a prefix that ends in a star, a template such as `/users/{id}`, a regular expression
        /// `{ regex = "..." }`, or several of these. The default is any path.
        optional path: Spanned<Option<Vec<PathMatch>>> = "path" as FallibleKind<OneOrMany<ShortOrLong<PathText, RawPathRegex>>>;
        /// The methods that the route takes. The default is any method.
        optional method: Vec<String> = "method" as OneOrMany<MethodText>;
        /// Header fields that the request must have. A string is the whole value, `true` any value; `false` means that
        /// the request must not have the field.
        optional header: Vec<NamedEntry<ValueMatch>> = "header" as NamedEntries<FieldName, ValueMatchKind>;
        /// Query parameters that the request must have, written like `header`.
        optional query: Vec<NamedEntry<ValueMatch>> = "query" as NamedEntries<FieldName, ValueMatchKind>;
        /// Cookies that the request must have, written like `header`. Names and values are compared as the client sends
        /// them. Of several cookies with one name, any may hold.
        optional cookie: Vec<NamedEntry<ValueMatch>> = "cookie" as NamedEntries<CookieName, ValueMatchKind>;
        /// The client's certificate: `true` for any, `false` for none, or its subject or one of its names, such as
        /// `DNS:a.example.com`, written like a value of `header`.
        optional client_cert: ValueMatch = "client_cert" as ValueMatchKind;
        /// The listener at which the request arrives, by its address, or several of these. The default is any listener.
        optional listener: Spanned<Vec<Spanned<Address>>> = "listener" as SpannedKind<OneOrMany<SpannedKind<AddressText>>>;
        /// Networks of clients, one of which the client's address must be in. Behind `trusted_proxies`, the client is the
        /// one that they name. A client without an address, on a Unix socket, is in no network. The default is any
        /// client.
        optional source: Spanned<Vec<Spanned<Cidr>>> = "source" as SpannedKind<OneOrMany<SpannedKind<CidrText>>>;
        /// Claims that the client's token must have, written like `require` of `jwt`: a value, or a list of which one must
        /// be there; of `scope`, all must. The route must have `jwt`. Without a valid token, the predicate does not hold,
        /// and Weir tries the next route.
        optional claim: Spanned<Vec<NamedEntry<Vec<String>>>> = "claim" as SpannedKind<NamedEntries<ClaimName, ClaimValuesKind>>;
    }
}

/// A match as the file has it: names of other parts of the file are not resolved.
#[derive(Debug, Clone)]
pub(crate) struct WrittenMatch {
    /// All that needs no other part of the file.
    matches: Match,
    /// The addresses of listeners.
    listeners: Vec<Spanned<Address>>,
    /// The place of `claim`.
    claim: Option<Span>,
}

/// The listeners that a match may name.
pub(crate) struct KnownListeners<'a> {
    pub(crate) readable: &'a [Listener],
    /// Whether another listener of the file may be the one that a match names, because it could not be read.
    pub(crate) may_be_more: bool,
}

impl WrittenMatch {
    /// The match; reports addresses that no listener has.
    pub(crate) fn resolve(&self, known: &KnownListeners<'_>, cx: &mut Decoder<'_>) -> Match {
        let mut matches = self.matches.clone();
        for Spanned { value, span } in &self.listeners {
            let mut addresses = known.readable.iter().map(|each| &each.address);
            let index = addresses.position(|address| address == value);
            match index {
                Some(index) if matches.listeners.contains(&index) => {
                    let message = format!("listener `{value}` occurs twice");
                    cx.error(Code::Duplicate, span.clone(), message)
                        .help("leave one of them out");
                }
                Some(index) => matches.listeners.push(index),
                None if known.may_be_more => {}
                None => {
                    let name = Spanned {
                        value: value.to_string(),
                        span: span.clone(),
                    };
                    let texts = known.readable.iter().map(|each| each.address.to_string());
                    let texts: Vec<String> = texts.collect();
                    cx.unknown_name(&name, "listener", texts.iter().map(String::as_str));
                }
            }
        }
        matches
    }
}

impl WrittenMatch {
    /// Reports claims on a route that verifies no tokens.
    pub(crate) fn check_claims(&self, has_jwt: bool, cx: &mut Decoder<'_>) {
        if let Some(span) = &self.claim
            && !has_jwt
        {
            let message = "a route that matches claims needs `jwt`, which verifies them";
            cx.error(Code::MissingKey, span.clone(), message)
                .help("add jwt = \"https://ISSUER/ for AUDIENCE\" to the route, to a set that it uses, or at the top level");
        }
    }
}

impl From<Match> for WrittenMatch {
    fn from(matches: Match) -> Self {
        Self {
            matches,
            listeners: Vec::new(),
            claim: None,
        }
    }
}

impl Display for WrittenMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.fmt(f)
    }
}

impl LongForm for RawMatch {
    type Out = WrittenMatch;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<WrittenMatch> {
        let everything = Match::everything();
        let header = check_header_names(table.header.unwrap_or_default(), cx);
        let query = table.query.unwrap_or_default();
        let cookies = check_cookie_names(table.cookie.unwrap_or_default(), cx);
        let field_match = |(name, value)| FieldMatch { name, value };
        let sources = check_sources(table.source, cx);
        let claim = table.claim.as_ref().map(|claim| claim.span.clone());
        let claims = table.claim.into_iter().flat_map(|claim| claim.value);
        let claims = claims
            .filter_map(|entry| Some((entry.name.value, entry.value?)))
            .collect();
        let listeners = check_listeners(table.listener, cx);
        let matches = Match {
            hosts: check_patterns("host", table.host, everything.hosts, cx)?,
            paths: check_patterns("path", table.path, everything.paths, cx)?,
            methods: table.method.unwrap_or_default(),
            headers: header.into_iter().map(field_match).collect(),
            query: query
                .into_iter()
                .filter_map(|entry| Some((entry.name.value, entry.value?)))
                .map(field_match)
                .collect(),
            cookies: cookies.into_iter().map(field_match).collect(),
            client_cert: table.client_cert,
            listeners: Vec::new(),
            sources,
            claims,
        };
        Some(WrittenMatch {
            matches,
            listeners,
            claim,
        })
    }
}

/// The addresses of listeners; reports an empty list.
fn check_listeners(
    written: Option<Spanned<Vec<Spanned<Address>>>>,
    cx: &mut Decoder<'_>,
) -> Vec<Spanned<Address>> {
    let Some(Spanned { value, span }) = written else {
        return Vec::new();
    };
    if value.is_empty() {
        let message = "a match without a listener takes no request";
        cx.error(Code::BadValue, span, message)
            .help("to take requests of any listener, leave out `listener`");
    }
    value
}

/// The networks; reports an empty list, and networks that others contain.
fn check_sources(sources: Option<Spanned<Vec<Spanned<Cidr>>>>, cx: &mut Decoder<'_>) -> Vec<Cidr> {
    let Some(Spanned { value: all, span }) = sources else {
        return Vec::new();
    };
    if all.is_empty() {
        let message = "a match without a source takes no request";
        cx.error(Code::BadValue, span, message)
            .help("to take any client, leave out `source`");
    } else if all.len() > PATTERNS_MAX {
        let message = format!("a route has at most {PATTERNS_MAX} sources");
        cx.error(Code::BadValue, span, message)
            .help("name larger networks");
        return Vec::new();
    }
    for (index, narrow) in all.iter().enumerate() {
        let is_repeat =
            |(at, wide): &(usize, &Spanned<Cidr>)| wide.value != narrow.value || *at < index;
        let mut wider = all.iter().enumerate().filter(is_repeat);
        if let Some((_, wide)) = wider.find(|(_, wide)| wide.value.covers(&narrow.value)) {
            let message = match wide.value == narrow.value {
                true => format!("`{}` occurs twice", narrow.value),
                false => format!("`{}` contains `{}`", wide.value, narrow.value),
            };
            cx.warning(Code::NoEffect, narrow.span.clone(), message)
                .help("leave this one out");
        }
    }
    all.into_iter().map(|each| each.value).collect()
}

/// The patterns of `key`, or `any` without that key; reports an empty list and repeats. `None` if they could not be
/// read.
fn check_patterns<T: PartialEq + Display>(
    key: &str,
    written: Option<Spanned<Option<Vec<T>>>>,
    any: Vec<T>,
    cx: &mut Decoder<'_>,
) -> Option<Vec<T>> {
    let Some(Spanned { value, span }) = written else {
        return Some(any);
    };
    let patterns = value?;
    if patterns.is_empty() {
        cx.error(
            Code::BadValue,
            span,
            format!("a match without a {key} takes no request"),
        )
        .help(format!("to take any {key}, leave out `{key}`"));
        return None;
    }
    if patterns.len() > PATTERNS_MAX {
        let message = format!("a route has at most {PATTERNS_MAX} {key}s");
        cx.error(Code::BadValue, span, message)
            .help("split it into several routes");
        return None;
    }
    for (index, pattern) in patterns.iter().enumerate() {
        if patterns
            .iter()
            .take(index)
            .any(|earlier| earlier == pattern)
        {
            let pattern = pattern.to_string();
            let shown = if pattern.is_empty() { "*" } else { &pattern };
            let message = format!("{key} `{shown}` occurs twice");
            cx.error(Code::Duplicate, span.clone(), message)
                .help("leave one of them out");
        }
    }
    Some(patterns)
}

/// HOST/PATH.
pub(crate) struct MatchText;

impl TextKind for MatchText {
    type Value = Match;
    const NOUN: &'static str = "a match";
    const PATTERN: Option<&'static str> = Some("^[^/]*/");
    const EXAMPLES: &'static [&'static str] = &["api.example.com/v1/*", "/*", "/users/{id}"];

    fn parse(text: &str) -> Result<Match, Problem> {
        read_match(text).map_err(|problem| {
            let is_readable = |text: &str| read_match(text).is_ok();
            match correction::correct_match(text, is_readable) {
                Some(correction) => problem.help(correction.advice()),
                None => problem,
            }
        })
    }
}

fn read_match(text: &str) -> Result<Match, Problem> {
    if text.contains("://") {
        return Err(Problem::new(format!("`{text}` has a scheme"))
            .help("a match is a host and a path: \"api.example.com/v1/*\""));
    }
    let Some(slash) = text.find('/') else {
        return Err(Problem::new(format!("`{text}` has no path"))
            .help("a match is a host and a path: \"api.example.com/v1/*\""));
    };
    let (host, path) = text.split_at(slash);
    let host = if host.is_empty() {
        HostMatch::Any
    } else {
        HostText::parse(host)?
    };
    let path = read_path(path).map_err(|problem| match problem.at {
        Some(at) => Problem {
            at: Some(at.start + slash..at.end + slash),
            ..problem
        },
        None => problem,
    })?;
    Ok(Match {
        hosts: vec![host],
        paths: vec![path],
        ..Match::everything()
    })
}

/// A request method.
pub(crate) struct MethodText;

impl TextKind for MethodText {
    type Value = String;
    const NOUN: &'static str = "a method";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    const EXAMPLES: &'static [&'static str] = &["GET", "POST"];

    fn parse(text: &str) -> Result<String, Problem> {
        const COMMON: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        if !is_token(text) {
            return Err(
                Problem::new(format!("`{text}` is not a method")).help("write one such as \"GET\"")
            );
        }
        let upper = text.to_ascii_uppercase();
        if text != upper && COMMON.contains(&upper.as_str()) {
            //= rfc9110#9.1: the method is case-sensitive.
            return Err(Problem::new(format!(
                "`{text}` never matches: methods are case-sensitive"
            ))
            .help(format!("write \"{upper}\"")));
        }
        Ok(text.to_owned())
    }
}

/// Warns of `:id`, which other routers take for a parameter and Weir takes literally.
pub(crate) fn warn_of_colons(path: &PathMatch, span: &Span, cx: &mut Decoder<'_>) {
    let literal = |segment: &Segment| match segment {
        Segment::Literal(text) => text.clone(),
        Segment::Parameter(_) => String::new(),
    };
    let segments: Vec<String> = match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => {
            path.split('/').map(str::to_owned).collect()
        }
        PathMatch::Template { segments, .. } => segments.iter().map(literal).collect(),
        PathMatch::Regex(_) => return,
    };
    for name in segments.iter().filter_map(|each| each.strip_prefix(':')) {
        if is_parameter_name(name) {
            let message = format!("`:{name}` is a literal segment, not a parameter");
            cx.warning(Code::NoEffect, span.clone(), message)
                .help(format!("for a parameter write \"{{{name}}}\""));
        }
    }
}

/// Warns of a text that can be neither the subject nor a name of a certificate.
pub(crate) fn warn_of_certificate_name(
    wanted: Option<&ValueMatch>,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let Some(ValueMatch::Exact(text)) = wanted else {
        return;
    };
    if text.contains('=') || is_certificate_name(text) {
        return;
    }
    let kind = match text {
        text if text.contains("://") => "URI:",
        text if text.contains('@') => "email:",
        text if text.parse::<IpAddr>().is_ok() => "IP:",
        _ => "DNS:",
    };
    let message = format!("no certificate can have the subject or name `{text}`");
    cx.warning(Code::NoEffect, span.clone(), message)
        .help(format!("write client_cert = \"{kind}{text}\""));
}

/// Warns of predicates on fields that every listener drops.
pub(crate) fn warn_of_dropped_fields(wanted: &[FieldMatch], span: &Span, cx: &mut Decoder<'_>) {
    let is_odd = |name: &str| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    for field in wanted {
        if is_odd(&field.name) && field.value != ValueMatch::Absent {
            let message = format!(
                "every listener drops `{}`, except from gRPC requests",
                field.name
            );
            cx.warning(Code::Unreachable, span.clone(), message)
                .help("to let routes see such names, add underscores = \"keep\" to a listener");
        }
    }
}

/// Warns of a predicate on certificates if no listener asks clients for one.
pub(crate) fn warn_of_no_client_ca(wanted: Option<&ValueMatch>, span: &Span, cx: &mut Decoder<'_>) {
    if matches!(wanted, None | Some(ValueMatch::Absent)) {
        return;
    }
    let message = "no listener asks clients for a certificate: this route takes no request";
    cx.warning(Code::Unreachable, span.clone(), message)
        .help("add `client_ca` to the `tls` of a listener");
}

/// Whether a text is a name of a certificate, with its kind in front: `DNS:a.example.com`. Any other is a subject.
#[must_use]
pub fn is_certificate_name(text: &str) -> bool {
    let kinds = ["DNS:", "IP:", "URI:", "email:"];
    kinds.iter().any(|kind| text.starts_with(kind))
}

#[cfg(test)]
mod tests;
