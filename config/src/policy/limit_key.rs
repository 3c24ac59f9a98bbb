//! `per`: what `limit` and `concurrency` count by.

use std::fmt;

use crate::decode::decoder::Decoder;
use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::policy::level::{Origin, Place};
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::text::suggest::nearest;
use crate::value::field::is_token;
use crate::value::placeholder::is_parameter_name;

/// What a limit counts by: requests that differ in it are counted apart. A request that has nothing for it is counted
/// by its client's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// `ip`: the client's address, which `trusted_proxies` may name; of an IPv6 address its /64.
    Ip,
    /// `header:NAME`: the values of all fields of this name, in lower case, as the client sent them.
    Header(String),
    /// `cookie:NAME`: the first cookie of this name.
    Cookie(String),
    /// `query:NAME`: the first query parameter of this name, decoded.
    Query(String),
    /// `param:NAME`: the segment of the path that this parameter of the match takes.
    Param(String),
    /// `claim:NAME`: this claim of the client's token.
    Claim(String),
    /// `host`: the request's host in lower case, without a port.
    Host,
    /// `route`: the route.
    Route,
    /// `global`: nothing, so all requests are counted together.
    Global,
}

/// Keys without a name of their own behind a colon.
const PLAIN: [(&str, LimitKey); 4] = [
    ("ip", LimitKey::Ip),
    ("host", LimitKey::Host),
    ("route", LimitKey::Route),
    ("global", LimitKey::Global),
];

/// Keys with a name: what stands before the colon, and an example.
const FAMILIES: [(&str, &str); 5] = [
    ("header", "header:X-Api-Key"),
    ("cookie", "cookie:session"),
    ("query", "query:key"),
    ("param", "param:tenant"),
    ("claim", "claim:sub"),
];

/// What other proxies call a key.
const FOREIGN: [(&[&str], &str); 4] = [
    (
        &[
            "client_ip",
            "remote_addr",
            "address",
            "src",
            "client",
            "ipaddr",
            "remote_ip",
        ],
        "ip",
    ),
    (
        &["server", "server_name", "vhost", "hostname", "domain"],
        "host",
    ),
    (&["all", "total", "everything"], "global"),
    (&["arg", "args", "url_param"], "query:NAME"),
];

/// The keys of a limit, with a plus sign between them.
pub(crate) struct LimitKeysText;

impl TextKind for LimitKeysText {
    type Value = Vec<LimitKey>;
    const NOUN: &'static str = "a key to count by";
    const EXAMPLES: &'static [&'static str] =
        &["ip", "header:X-Api-Key", "param:tenant + ip", "global"];

    fn parse(text: &str) -> Result<Vec<LimitKey>, Problem> {
        let mut keys = Vec::new();
        let mut at = 0;
        for part in text.split('+') {
            let name = part.trim();
            let start = at + (part.len() - part.trim_start().len());
            let key =
                LimitKey::parse(name).map_err(|problem| problem.at(start, name.len().max(1)))?;
            if keys.contains(&key) {
                return Err(
                    Problem::new(format!("`{name}` stands here twice")).at(start, name.len())
                );
            }
            keys.push(key);
            at += part.len() + 1;
        }
        if keys.len() > 1 && keys.contains(&LimitKey::Global) {
            return Err(Problem::new("`global` counts all requests together")
                .help("leave it out, or leave the other keys out"));
        }
        Ok(keys)
    }
}

impl WritableKind for LimitKeysText {
    fn to_json(value: &Vec<LimitKey>) -> Json {
        Json::Text(show_keys(value))
    }
}

impl LimitKey {
    fn parse(text: &str) -> Result<Self, Problem> {
        let Some((family, name)) = text.split_once(':') else {
            let found = PLAIN.iter().find(|(known, _)| *known == text);
            return found
                .map(|(_, key)| key.clone())
                .ok_or_else(|| unknown(text));
        };
        let bad_name = |what: &str| {
            Err(Problem::new(format!(
                "`{name}` is not the name of a {what}"
            )))
        };
        match family {
            "header" if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            "header" => bad_name("header field"),
            "cookie" if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            "cookie" => bad_name("cookie"),
            "query" if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            "query" => bad_name("query parameter"),
            "param" if is_parameter_name(name) => Ok(Self::Param(name.to_owned())),
            "param" => bad_name("parameter"),
            "claim" if !name.is_empty() => Ok(Self::Claim(name.to_owned())),
            "claim" => bad_name("claim"),
            _ => Err(unknown(text)),
        }
    }
}

/// That no key is called `text`, and what was probably meant.
fn unknown(text: &str) -> Problem {
    let problem = Problem::new(format!("a limit cannot count by `{text}`"));
    let (family, name) = match text.split_once(':') {
        Some((family, name)) => (family, Some(name)),
        None => (text, None),
    };
    if let Some((_, example)) = FAMILIES.iter().find(|(known, _)| *known == text) {
        return problem.help(format!(
            "it has a name behind a colon, such as \"{example}\""
        ));
    }
    let mut foreign = FOREIGN.iter();
    if let Some((_, ours)) = foreign.find(|(theirs, _)| theirs.contains(&family)) {
        return problem.help(format!("write \"{ours}\""));
    }
    let families = FAMILIES.iter().map(|(known, _)| *known);
    let near = match name {
        Some(_) => nearest(family, families),
        None => nearest(text, PLAIN.iter().map(|(known, _)| *known)),
    };
    match (near, name) {
        (Some(near), Some(name)) => problem.help(format!("did you mean \"{near}:{name}\"?")),
        (Some(near), None) => problem.help(format!("did you mean \"{near}\"?")),
        (None, _) => problem.help(
            "there are: ip, host, route, global, header:NAME, cookie:NAME, query:NAME, param:NAME, claim:NAME",
        ),
    }
}

/// Reports keys that no request at `place` has.
pub(crate) fn check_keys(keys: &[LimitKey], span: &Span, place: &Place<'_>, cx: &mut Decoder<'_>) {
    let is_listener = matches!(place.origin, Origin::Listener(_));
    for key in keys {
        let needs = match key {
            LimitKey::Param(_) | LimitKey::Route => "the route",
            LimitKey::Claim(_) => "the token",
            _ => continue,
        };
        if is_listener {
            let message = format!("a listener cannot count by `{key}`");
            cx.error(Code::BadValue, span.clone(), message)
                .label(format!(
                    "a listener counts a request before {needs} is known"
                ))
                .help("move the limit to the routes, or count by another key");
        }
        if let LimitKey::Param(name) = key
            && let Some(known) = place.parameters
            && !known.contains(&name.as_str())
        {
            let message = format!(
                "the match of {} has no parameter `{{{name}}}`",
                place.origin
            );
            cx.error(Code::UnknownName, span.clone(), message)
                .help("add it to every path of the match, or count by another key");
        }
    }
}

/// Writes keys as a file would.
pub(crate) fn show_keys(keys: &[LimitKey]) -> String {
    let keys: Vec<_> = keys.iter().map(LimitKey::to_string).collect();
    keys.join("+")
}

impl fmt::Display for LimitKey {
    /// Writes the key as a file would.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Param(name) => write!(f, "param:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            plain => {
                let known = PLAIN.iter().find(|(_, key)| key == plain);
                f.write_str(known.map_or("", |(name, _)| name))
            }
        }
    }
}
