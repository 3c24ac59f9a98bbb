//! The path of a match.

use std::fmt;

use crate::decode::kinds::TextKind;
use crate::slice::request_match::correction;
use crate::text::problem::Problem;
use crate::value::placeholder::{RESERVED, is_parameter_name};
use crate::value::regex::RegexPattern;

/// A pattern for the normal path of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This path and no other.
    Exact(String),
    /// Every path that begins with these characters: `/v1/` for `/v1/*`. A prefix that ends with a slash also takes the
    /// path without it, unless another pattern names that path in full.
    Prefix(String),
    /// Segment by segment: `/users/{id}`, `/users/{id}/*`.
    Template {
        /// The segments, without slashes.
        segments: Vec<Segment>,
        /// Whether a slash and any rest may follow (`/*`).
        open: bool,
    },
    /// Every path that this expression describes as a whole.
    Regex(RegexPattern),
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Template { segments, open } => {
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => write!(f, "/{text}")?,
                        Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                f.write_str(if *open { "/*" } else { "" })
            }
            Self::Regex(regex) => write!(f, "~{}", regex.as_str()),
        }
    }
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These characters; none, in last place, for a trailing slash.
    Literal(String),
    /// One or more characters except a slash, under this name.
    Parameter(String),
}

/// A path, a prefix or a template.
pub(crate) struct PathText;

impl TextKind for PathText {
    type Value = PathMatch;
    const NOUN: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/[^?#*]*\\*?$");
    const EXAMPLES: &'static [&'static str] = &["/v1/*", "/health", "/users/{id}", "/users/{id}/*"];

    fn parse(text: &str) -> Result<PathMatch, Problem> {
        read_path(text).map_err(|problem| {
            let is_readable = |text: &str| read_path(text).is_ok();
            match correction::correct_path(text, is_readable) {
                Some(correction) => problem.help(correction.advice()),
                None => problem,
            }
        })
    }
}

pub(super) fn read_path(text: &str) -> Result<PathMatch, Problem> {
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
            .help("for a single segment write a name in braces: \"/users/{id}/orders\""));
    }
    if body.contains(['{', '}']) {
        return read_template(body, open);
    }
    let path = normal_path(body)?;
    Ok(if open {
        PathMatch::Prefix(path)
    } else {
        PathMatch::Exact(path)
    })
}

fn read_template(body: &str, open: bool) -> Result<PathMatch, Problem> {
    let mut segments = Vec::new();
    let mut at = 1;
    for text in body.split('/').skip(1) {
        let segment = if text.contains(['{', '}']) {
            let name = text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'))
                .filter(|name| is_parameter_name(name))
                .ok_or_else(|| {
                    Problem::new(format!("`{text}` is not a parameter"))
                        .at(at, text.len())
                        .help("write a whole segment in braces, in lower case: \"/users/{id}\"")
                })?;
            if RESERVED.contains(&name) {
                return Err(
                    Problem::new(format!("`{name}` is the name of another placeholder"))
                        .at(at, text.len())
                        .help("give the parameter another name"),
                );
            }
            Segment::Parameter(name.to_owned())
        } else {
            Segment::Literal(text.to_owned())
        };
        if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
            return Err(Problem::new(format!("parameter `{text}` occurs twice"))
                .at(at, text.len())
                .help("give one of them another name"));
        }
        at += text.len() + 1;
        segments.push(segment);
    }
    if open {
        // A star that is a segment of its own leaves an empty literal behind.
        if segments.pop() != Some(Segment::Literal(String::new())) {
            return Err(
                Problem::new("after a parameter, the star must be a segment of its own")
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

/// The normal form of a path, which Weir compares with the normal form of requests.
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
                        Problem::new("a percent sign needs two hexadecimal digits")
                            .at(at, 1)
                            .help("for the sign itself write \"%25\"")
                    })?;
                chars.next();
                chars.next();
                match octet {
                    0 => {
                        return Err(Problem::new("Weir refuses requests with an encoded NUL")
                            .at(at, 3)
                            .help("leave it out: nothing would match"));
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
                return Err(Problem::new(format!("`{c}` is not part of a path"))
                    .at(at, 1)
                    .help("for the query write match = { path = \"...\", query = { key = \"value\" } }"));
            }
            c => {
                let encoded = format!("%{:02X}", u32::from(c));
                let help = if "|^[]\\".contains(c) {
                    format!(
                        "a match is not a regular expression; for the character itself write \"{encoded}\""
                    )
                } else {
                    format!("write \"{encoded}\"")
                };
                return Err(
                    Problem::new(format!("a path cannot contain {c:?} as it is"))
                        .at(at, c.len_utf8())
                        .help(help),
                );
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
            .help("write the path without `.` and `..`: Weir resolves them before it matches, so nothing would match"));
    }
    Ok(normal)
}

fn double_slash(path: &str) -> Problem {
    Problem::new(format!("path `{path}` has an empty segment")).help(
        "write single slashes: Weir merges double ones before it matches, so nothing would match",
    )
}

fn push_encoded(out: &mut String, octet: u8) {
    out.push_str(&format!("%{octet:02X}"));
}

pub(super) fn hex_octet(digits: &str) -> Option<u8> {
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| hex)
}

//= rfc3986#2.3: unreserved characters mean the same whether encoded or not.
pub(super) fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

//= rfc3986#3.3: a path holds pchar and slashes.
fn is_path_octet(octet: u8) -> bool {
    is_unreserved(octet) || b"!$&'()*+,;=:@/".contains(&octet)
}

impl PathMatch {
    /// The beginning that all paths of this pattern have.
    pub(crate) fn common_start(&self) -> String {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path.clone(),
            Self::Template { segments, .. } => {
                let mut start = "/".to_owned();
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => {
                            start.push_str(text);
                            start.push('/');
                        }
                        Segment::Parameter(_) => break,
                    }
                }
                start
            }
            Self::Regex(regex) => regex.literal_start(),
        }
    }
}
