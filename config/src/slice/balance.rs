//! `balance` of an upstream: how Weir chooses an endpoint.

use std::fmt;

use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::suggest::nearest;
use crate::value::named_part::{NamedPart, PartWords};

/// How Weir chooses an endpoint for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// Of two endpoints drawn at random, the one with less load.
    #[default]
    P2c,
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The endpoint with the fewest requests in flight in proportion to its weight.
    LeastConn,
    /// The endpoint with the least expected time: requests in flight times latency.
    LeastTime,
    /// At random, in proportion to the weights.
    Random,
    /// By the client's address.
    IpHash,
    /// By a key of the request.
    Hash(HashKey),
    /// The first endpoint of the file that is usable and has room.
    First,
}

/// What `hash(KEY)` reads from a request. A request without it goes to an endpoint at random.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// `header:NAME`: the first field of this name, in lower case.
    Header(String),
    /// `cookie:NAME`: the first cookie of this name.
    Cookie(String),
    /// `query:NAME`: the first query parameter of this name.
    Query(String),
    /// `param:NAME`: the segment of the path that this parameter of the route's match takes.
    Param(String),
    /// `path`: the path, without the query.
    Path,
    /// `ip`: the client's address.
    Ip,
}

/// Balancers without a key, as the file writes them.
const PLAIN: [(&str, Balance); 7] = [
    ("p2c", Balance::P2c),
    ("round_robin", Balance::RoundRobin),
    ("least_conn", Balance::LeastConn),
    ("least_time", Balance::LeastTime),
    ("random", Balance::Random),
    ("ip_hash", Balance::IpHash),
    ("first", Balance::First),
];

/// Keys without a name of their own behind a colon.
const PLAIN_KEYS: [(&str, HashKey); 2] = [("path", HashKey::Path), ("ip", HashKey::Ip)];

const KEY_WORDS: PartWords<HashKey> = PartWords {
    plain: &PLAIN_KEYS,
    families: &[
        ("header", "header:X-User"),
        ("cookie", "cookie:session"),
        ("query", "query:id"),
        ("param", "param:tenant"),
    ],
    foreign: &[],
    write: |word| format!("\"hash({word})\""),
};

/// Names of balancers in other proxies, and Weir's.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "roundrobin",
            "rr",
            "static-rr",
            "wrr",
            "weighted_round_robin",
        ],
        "round_robin",
    ),
    (
        &[
            "leastconn",
            "least_request",
            "least_connections",
            "least-connections",
        ],
        "least_conn",
    ),
    (
        &["source", "iphash", "source_ip", "client_ip_hash", "hrw"],
        "ip_hash",
    ),
    (&["uri", "uri_hash"], "hash(path)"),
    (
        &[
            "hdr",
            "header",
            "consistent_hash",
            "ring_hash",
            "maglev",
            "chash",
            "ewma",
        ],
        "hash(header:X-User)",
    ),
    (
        &["power_of_two", "random_choose", "peak_ewma", "p2c_ewma"],
        "p2c",
    ),
];

/// The text of a balancer.
pub(crate) struct BalanceText;

impl TextKind for BalanceText {
    type Value = Balance;
    const NOUN: &'static str = "a balancer";
    const PATTERN: Option<&'static str> = Some(
        "^(p2c|round_robin|least_conn|least_time|random|ip_hash|first|hash\\((path|ip|(header|cookie|query|param):.+)\\))$",
    );
    const EXAMPLES: &'static [&'static str] = &[
        "p2c",
        "round_robin",
        "least_conn",
        "least_time",
        "random",
        "ip_hash",
        "hash(header:X-User)",
        "first",
    ];

    fn parse(text: &str) -> Result<Balance, Problem> {
        let plain = PLAIN.iter().find(|(known, _)| *known == text);
        if let Some((_, balance)) = plain {
            return Ok(balance.clone());
        }
        let key = text.strip_prefix("hash(");
        if let Some(key) = key.and_then(|rest| rest.strip_suffix(')')) {
            let at = "hash(".len();
            return HashKey::parse(key)
                .map(Balance::Hash)
                .map_err(|problem| problem.at(at, key.len().max(1)));
        }
        Err(unknown(text))
    }
}

impl WritableKind for BalanceText {
    fn to_json(value: &Balance) -> Json {
        Json::Text(value.to_string())
    }
}

/// The message for a text that names no balancer, with the nearest one.
fn unknown(text: &str) -> Problem {
    let problem = Problem::new(format!("`{text}` is not a balancer"));
    if text == "hash" || text.starts_with("hash(") || text.starts_with("hash ") {
        return problem.help("write the key in parentheses, such as \"hash(cookie:session)\"");
    }
    if let Some((_, ours)) = FOREIGN.iter().find(|(theirs, _)| theirs.contains(&text)) {
        return problem.help(format!("write \"{ours}\""));
    }
    match nearest(text, PLAIN.iter().map(|(known, _)| *known)) {
        Some(near) => problem.help(format!("did you mean \"{near}\"?")),
        None => problem.help(
            "there are: p2c, round_robin, least_conn, least_time, random, ip_hash, hash(KEY), first",
        ),
    }
}

impl HashKey {
    fn parse(text: &str) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(format!("a request has no `{text}` to hash")).help(KEY_WORDS.advise(text))
        };
        let Some((family, name)) = text.split_once(':') else {
            let found = PLAIN_KEYS.iter().find(|(known, _)| *known == text);
            return found.map(|(_, key)| key.clone()).ok_or_else(unknown);
        };
        match NamedPart::parse(family, name).ok_or_else(unknown)?? {
            NamedPart::Header(name) => Ok(Self::Header(name)),
            NamedPart::Cookie(name) => Ok(Self::Cookie(name)),
            NamedPart::Query(name) => Ok(Self::Query(name)),
            NamedPart::Param(name) => Ok(Self::Param(name)),
            // A balancer chooses by the request alone, also where no policy has verified a token.
            NamedPart::Claim(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for Balance {
    /// Writes it as a file would.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Hash(key) = self {
            return write!(f, "hash({key})");
        }
        let plain = PLAIN.iter().find(|(_, balance)| balance == self);
        f.write_str(plain.map_or("", |(name, _)| name))
    }
}

impl fmt::Display for HashKey {
    /// Writes the key as a file would.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Param(name) => write!(f, "param:{name}"),
            Self::Path => f.write_str("path"),
            Self::Ip => f.write_str("ip"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_balancer_is_read_as_it_is_written() {
        for text in BalanceText::EXAMPLES.iter().copied().chain([
            "hash(path)",
            "hash(ip)",
            "hash(cookie:session)",
            "hash(query:id)",
            "hash(param:tenant)",
        ]) {
            let balance = BalanceText::parse(text).expect(text);
            assert_eq!(
                balance.to_string().to_ascii_lowercase(),
                text.to_ascii_lowercase()
            );
        }
    }

    #[test]
    fn mistakes_are_told_with_what_was_meant() {
        for (text, help) in [
            ("roundrobin", "write \"round_robin\""),
            ("leastconn", "write \"least_conn\""),
            ("randm", "did you mean \"random\"?"),
            (
                "hash",
                "write the key in parentheses, such as \"hash(cookie:session)\"",
            ),
            (
                "hash(cookie)",
                "it has a name behind a colon, such as \"hash(cookie:session)\"",
            ),
            (
                "hash(host)",
                "there are: \"hash(path)\", \"hash(ip)\", \"hash(header:NAME)\", \"hash(cookie:NAME)\", \"hash(query:NAME)\", \"hash(param:NAME)\"",
            ),
            ("hash(cokie:a)", "did you mean \"hash(cookie:a)\"?"),
        ] {
            let problem = BalanceText::parse(text).expect_err(text);
            assert_eq!(problem.help.as_deref(), Some(help), "{text}");
        }
    }
}
