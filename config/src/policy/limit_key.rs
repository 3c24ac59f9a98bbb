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
use crate::value::named_part::{NamedPart, PartWords};

/// What a limit counts by: requests that differ in it are counted apart. A request that has nothing for it is counted
/// by its client's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// `ip`: the client's address, which `trusted_proxies` may name; of an IPv6 address its /64.
    Ip,
    /// `header:NAME`: the only field of this name, in lower case, as the client sent it.
    Header(String),
    /// `cookie:NAME`: the only cookie of this name.
    Cookie(String),
    /// `query:NAME`: the only query parameter of this name, decoded.
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

const WORDS: PartWords<LimitKey> = PartWords {
    plain: &PLAIN,
    families: &[
        ("header", "header:X-Api-Key"),
        ("cookie", "cookie:session"),
        ("query", "query:key"),
        ("param", "param:tenant"),
        ("claim", "claim:sub"),
    ],
    foreign: &[
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
    ],
    write: |word| format!("\"{word}\""),
};

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
        let unknown =
            || Problem::new(format!("a limit cannot count by `{text}`")).help(WORDS.advise(text));
        let Some((family, name)) = text.split_once(':') else {
            let found = PLAIN.iter().find(|(known, _)| *known == text);
            return found.map(|(_, key)| key.clone()).ok_or_else(unknown);
        };
        let part = NamedPart::parse(family, name).ok_or_else(unknown)??;
        Ok(match part {
            NamedPart::Header(name) => Self::Header(name),
            NamedPart::Cookie(name) => Self::Cookie(name),
            NamedPart::Query(name) => Self::Query(name),
            NamedPart::Param(name) => Self::Param(name),
            NamedPart::Claim(name) => Self::Claim(name),
        })
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
