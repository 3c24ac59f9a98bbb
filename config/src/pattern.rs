//! Patterns of requests: hosts, paths, field values, and texts with placeholders.

mod meant;

use crate::address::is_host_name;
use crate::kinds::Text;
use crate::model::{HostMatch, Match, PathMatch, Pattern, Piece, Segment};
use crate::units::Problem;

/// Placeholders that every pattern text may use; parameters of a match cannot have these names.
const RESERVED: [&str; 4] = ["host", "path", "query", "rest"];

/// `host/path*`: the short form of a match.
pub(crate) struct MatchText;

impl Text for MatchText {
    type Value = Match;
    const NOUN: &'static str = "a match";
    const PATTERN: Option<&'static str> = Some("^[^/]*/");
    const EXAMPLES: &'static [&'static str] = &["api.example.com/v1/*", "/*", "/users/{id}"];

    fn parse(text: &str) -> Result<Match, Problem> {
        read_match(text).map_err(|problem| {
            let is_right = |text: &str| read_match(text).is_ok();
            match meant::by_match(text, is_right) {
                Some(meant) => problem.help(meant.advice()),
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

/// A host or a wildcard.
pub(crate) struct HostText;

impl Text for HostText {
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
                .map_err(|_| Problem::new(format!("`{text}` is no IPv6 address")));
        }
        let (wild, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let problem = Problem::new(format!("`{text}` is no host")).at(0, text.len());
        if let Some((host, port)) = name.rsplit_once(':')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            let host = if wild {
                format!("*.{host}")
            } else {
                host.to_owned()
            };
            return Err(problem.help(format!(
                "a match looks at the host without its port: \"{host}\""
            )));
        }
        if name.contains('*') {
            return Err(problem.help("a star stands for whole labels in front: \"*.example.com\""));
        }
        if !name.is_ascii() {
            return Err(problem.help("write the name as DNS has it, beginning with \"xn--\""));
        }
        let is_v4 = !wild && name.parse::<std::net::Ipv4Addr>().is_ok();
        if !is_v4 && !is_host_name(name) {
            return Err(problem.help("letters, digits, hyphens and dots"));
        }
        let name = name.to_ascii_lowercase();
        Ok(if wild {
            HostMatch::Wildcard(name)
        } else {
            HostMatch::Exact(name)
        })
    }
}

/// A path, a prefix or a template.
pub(crate) struct PathText;

impl Text for PathText {
    type Value = PathMatch;
    const NOUN: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/[^?#*]*\\*?$");
    const EXAMPLES: &'static [&'static str] = &["/v1/*", "/health", "/users/{id}", "/users/{id}/*"];

    fn parse(text: &str) -> Result<PathMatch, Problem> {
        read_path(text).map_err(|problem| {
            let is_right = |text: &str| read_path(text).is_ok();
            match meant::by_path(text, is_right) {
                Some(meant) => problem.help(meant.advice()),
                None => problem,
            }
        })
    }
}

fn read_path(text: &str) -> Result<PathMatch, Problem> {
    if !text.starts_with('/') {
        return Err(
            Problem::new(format!("path `{text}` does not begin with a slash"))
                .help(format!("write \"/{text}\"")),
        );
    }
    let (body, open) = match text.strip_suffix('*') {
        Some(body) => (body, true),
        None => (text, false),
    };
    if let Some(star) = body.find('*') {
        return Err(Problem::new("a star can only be the last character")
            .at(star, 1)
            .help("for one segment write a name in braces: \"/users/{id}/orders\""));
    }
    if body.contains(['{', '}']) {
        return template(body, open);
    }
    let path = normal_path(body)?;
    Ok(if open {
        PathMatch::Prefix(path)
    } else {
        PathMatch::Exact(path)
    })
}

fn template(body: &str, open: bool) -> Result<PathMatch, Problem> {
    let mut segments = Vec::new();
    let mut at = 1;
    for text in body.split('/').skip(1) {
        let segment = if text.contains(['{', '}']) {
            let name = text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'))
                .filter(|name| is_parameter_name(name))
                .ok_or_else(|| {
                    Problem::new(format!("`{text}` is no parameter"))
                        .at(at, text.len())
                        .help("a whole segment in braces, lower case: \"/users/{id}\"")
                })?;
            if RESERVED.contains(&name) {
                return Err(Problem::new(format!("`{name}` has a meaning already"))
                    .at(at, text.len())
                    .help("take another name for the parameter"));
            }
            Segment::Parameter(name.to_owned())
        } else {
            Segment::Literal(text.to_owned())
        };
        if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
            return Err(
                Problem::new(format!("parameter `{text}` is named twice")).at(at, text.len())
            );
        }
        at += text.len() + 1;
        segments.push(segment);
    }
    if open {
        // A star must be a segment of its own: what is left of it is then an empty literal.
        if segments.pop() != Some(Segment::Literal(String::new())) {
            return Err(
                Problem::new("after a parameter the star must stand between slashes")
                    .at(body.len(), 1)
                    .help("write \"/users/{id}/*\""),
            );
        }
    }
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.iter_mut().enumerate() {
        if let Segment::Literal(text) = segment {
            if text.is_empty() && index == last && !open {
                continue;
            }
            let normal = normal_path(&format!("/{text}")).map_err(|problem| Problem {
                at: None,
                ..problem
            })?;
            *text = normal.trim_start_matches('/').to_owned();
            if text.is_empty() {
                return Err(double_slash(body));
            }
        }
    }
    Ok(PathMatch::Template { segments, open })
}

/// Brings a path into the form that requests have when they are matched.
fn normal_path(path: &str) -> Result<String, Problem> {
    let mut normal = String::with_capacity(path.len());
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '%' => {
                let octet = path
                    .get(at + 1..at + 3)
                    .and_then(hex_octet)
                    .ok_or_else(|| {
                        Problem::new("a percent sign needs two hexadecimal digits").at(at, 1)
                    })?;
                chars.next();
                chars.next();
                match octet {
                    0 => {
                        return Err(
                            Problem::new("requests with an encoded NUL are refused").at(at, 3)
                        );
                    }
                    octet if is_unreserved(octet) => normal.push(char::from(octet)),
                    octet => push_encoded(&mut normal, octet),
                }
            }
            c if c.is_ascii() && is_path_octet(c as u8) => normal.push(c),
            c if !c.is_ascii() => {
                let mut utf8 = [0; 4];
                for octet in c.encode_utf8(&mut utf8).bytes() {
                    push_encoded(&mut normal, octet);
                }
            }
            '?' | '#' => {
                return Err(Problem::new(format!("`{c}` is no part of a path"))
                    .at(at, 1)
                    .help("the query has predicates of its own: match = { path = \"...\", query = { key = \"value\" } }"));
            }
            c => {
                let encoded = format!("%{:02X}", u32::from(c));
                let help = if "|^[]\\".contains(c) {
                    format!(
                        "a match is no regular expression; for the sign itself write \"{encoded}\""
                    )
                } else {
                    format!("write \"{encoded}\"")
                };
                return Err(Problem::new(format!("a path cannot hold {c:?} as it is"))
                    .at(at, c.len_utf8())
                    .help(help));
            }
        }
    }
    if normal.contains("//") {
        return Err(double_slash(path));
    }
    if normal
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return Err(Problem::new(format!("path `{path}` has a dot segment"))
            .help("dot segments are resolved before a request is matched: nothing would match"));
    }
    Ok(normal)
}

fn double_slash(path: &str) -> Problem {
    Problem::new(format!("path `{path}` has an empty segment"))
        .help("double slashes are merged before a request is matched: nothing would match")
}

fn push_encoded(out: &mut String, octet: u8) {
    out.push_str(&format!("%{octet:02X}"));
}

fn hex_octet(digits: &str) -> Option<u8> {
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| hex)
}

//= rfc3986#2.3: unreserved characters mean the same whether encoded or not.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

//= rfc3986#3.3: a path holds pchar and slashes.
fn is_path_octet(octet: u8) -> bool {
    is_unreserved(octet) || b"!$&'()*+,;=:@/".contains(&octet)
}

/// Whether a parameter may have this name.
pub(crate) fn is_parameter_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// A text with placeholders: where a redirect leads, or a path built anew.
pub(crate) struct PatternText;

impl Text for PatternText {
    type Value = Pattern;
    const NOUN: &'static str = "a text with placeholders";
    const EXAMPLES: &'static [&'static str] = &["https://{host}{path}{query}", "/v2/{rest}"];

    fn parse(text: &str) -> Result<Pattern, Problem> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let plain_end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(plain_end);
            if let Some(bad) = plain.find(|c: char| !c.is_ascii_graphic()) {
                return Err(Problem::new("only visible ASCII characters make up a URL")
                    .at(
                        at + bad,
                        plain[bad..].chars().next().map_or(1, char::len_utf8),
                    )
                    .help("encode others with a percent sign: \"%20\" is a space"));
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            if after.is_empty() {
                break;
            }
            let close = after.find('}').filter(|_| after.starts_with('{'));
            let Some(close) = close else {
                return Err(Problem::new("a brace without its partner")
                    .at(at + plain_end, 1)
                    .help(
                        "braces hold placeholders: {host}, {path}, {query}, {rest} or a parameter",
                    ));
            };
            let name = &after[1..close];
            pieces.push(match name {
                "host" => Piece::Host,
                "path" => Piece::Path,
                "query" => Piece::Query,
                "rest" => Piece::Rest,
                name if is_parameter_name(name) => Piece::Parameter(name.to_owned()),
                _ => {
                    return Err(Problem::new(format!("`{{{name}}}` is no placeholder"))
                        .at(at + plain_end, close + 1)
                        .help("{host}, {path}, {query}, {rest} or a parameter of the match"));
                }
            });
            rest = &after[close + 1..];
        }
        if pieces.is_empty() {
            return Err(Problem::new("an empty text"));
        }
        Ok(Pattern(pieces))
    }
}

/// A path with placeholders, on its way upstream.
pub(crate) struct PathPatternText;

impl Text for PathPatternText {
    type Value = Pattern;
    const NOUN: &'static str = "a path with placeholders";
    const EXAMPLES: &'static [&'static str] = &["/v2/{rest}", "/users/{id}"];

    fn parse(text: &str) -> Result<Pattern, Problem> {
        PatternText::parse(text)
    }
}

/// A request method.
pub(crate) struct MethodText;

impl Text for MethodText {
    type Value = String;
    const NOUN: &'static str = "a method";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    const EXAMPLES: &'static [&'static str] = &["GET", "POST"];

    fn parse(text: &str) -> Result<String, Problem> {
        const COMMON: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        if !is_token(text) {
            return Err(Problem::new(format!("`{text}` is no method")).help("for example \"GET\""));
        }
        let upper = text.to_ascii_uppercase();
        if text != upper && COMMON.contains(&upper.as_str()) {
            //= rfc9110#9.1: the method is case-sensitive.
            return Err(Problem::new(format!(
                "`{text}` would never match: methods have upper case"
            ))
            .help(format!("write \"{upper}\"")));
        }
        Ok(text.to_owned())
    }
}

/// A value of a header field, or what it is compared with.
pub(crate) struct FieldValueText;

impl Text for FieldValueText {
    type Value = String;
    const NOUN: &'static str = "a value";
    const EXAMPLES: &'static [&'static str] = &["text/plain"];

    fn parse(text: &str) -> Result<String, Problem> {
        //= rfc9110#5.5: field values hold no control characters, nor blanks at their ends.
        if let Some(bad) = text.find(|c: char| c.is_control() && c != '\t') {
            return Err(Problem::new("a value cannot hold control characters").at(bad, 1));
        }
        if text.trim_matches([' ', '\t']) != text {
            return Err(Problem::new("a value neither begins nor ends with a blank"));
        }
        Ok(text.to_owned())
    }
}

/// Whether `text` is a token (RFC 9110 section 5.6.2): a method or a field name.
pub(crate) fn is_token(text: &str) -> bool {
    let octet = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(octet)
}

#[cfg(test)]
mod tests;
