//! What somebody may have meant by a match that is none: patterns as other programs write them, and slips.
//!
//! Only asked when a text cannot be read. What comes out is shown if it can be.

use std::net::Ipv6Addr;

use crate::value::field::is_token;
use crate::value::placeholder::{RESERVED, is_parameter_name};

/// A better text.
pub(super) struct Correction {
    /// What to know, if the text breaks a rule that has a name.
    rule: Option<&'static str>,
    /// What to write, as it stands in a file.
    write: String,
}

impl Correction {
    /// Advice in one sentence.
    pub(super) fn advice(&self) -> String {
        match self.rule {
            Some(rule) => format!("{rule}: write {}", self.write),
            None => format!("write {}", self.write),
        }
    }
}

const NO_RULE: &str = "a match is a host and a path, without functions";
const NO_SCHEME: &str = "a match is a host and a path";
const NO_METHOD: &str = "a method is a part of the long form";
const NO_PORT: &str = "a match looks at the host without its port";
const NO_EXPRESSION: &str =
    "a match is no regular expression, a star at its end stands for any rest";
const NO_MIDDLE: &str = "a star stands at the end, a name in braces for one segment";

/// What may have been meant by `HOST/PATH`, if a text that can be read comes of it.
pub(super) fn by_match(text: &str, is_right: impl Fn(&str) -> bool) -> Option<Correction> {
    let trimmed = text.trim();
    if let Some((method, rest)) = trimmed.split_once(' ')
        && is_token(method)
        && method.bytes().all(|b| b.is_ascii_uppercase())
    {
        let path = plain(rest.trim());
        let write = format!("match = {{ path = \"{path}\", method = \"{method}\" }}");
        return (path.starts_with('/') && is_right(&path)).then_some(Correction {
            rule: Some(NO_METHOD),
            write,
        });
    }
    let (rule, write) = match rule_of_functions(trimmed) {
        Some(write) => (Some(NO_RULE), write),
        None => (broken_rule(trimmed), plain(trimmed)),
    };
    // One word may be either.
    let is_word = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_alphanumeric());
    let other = if is_word && trimmed != "localhost" {
        format!(" for this host, or \"/{trimmed}/*\" for paths that begin so")
    } else {
        String::new()
    };
    (write != text && is_right(&write)).then(|| Correction {
        rule,
        write: format!("\"{write}\"{other}"),
    })
}

/// What may have been meant by a path alone.
pub(super) fn by_path(text: &str, is_right: impl Fn(&str) -> bool) -> Option<Correction> {
    let text_alone = without_anchors(text.trim());
    let write = match text_alone.split_once("://") {
        Some((_, rest)) => path(rest.find('/').and_then(|at| rest.get(at..))?),
        None if text_alone.starts_with('/') => path(text_alone),
        None => path(&format!("/{text_alone}")),
    };
    (write != text && is_right(&write)).then(|| Correction {
        rule: broken_rule(text).filter(|rule| *rule != NO_SCHEME && *rule != NO_PORT),
        write: format!("\"{write}\""),
    })
}

fn broken_rule(text: &str) -> Option<&'static str> {
    let (host, path) = match text.split_once('/') {
        Some((host, path)) => (host, path),
        None => (text, ""),
    };
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(name, port)| is_port(port) && !name.contains(':'));
    if text.contains("://") {
        Some(NO_SCHEME)
    } else if path.contains(['[', '(', '\\', '+']) || path.contains(".*") || text.contains('^') {
        Some(NO_EXPRESSION)
    } else if has_port {
        Some(NO_PORT)
    } else if path.trim_end_matches('*').contains('*') {
        Some(NO_MIDDLE)
    } else {
        None
    }
}

/// Traefik's way: Host(`a`) && PathPrefix(`/b`).
fn rule_of_functions(text: &str) -> Option<String> {
    let argument = |function: &str| {
        let (_, rest) = text.split_once(function)?;
        let quoted = rest.strip_prefix('(')?;
        let quoted = quoted.trim_start_matches(['`', '"', '\'']);
        quoted.split(['`', '"', '\'', ')']).next()
    };
    let host = argument("Host");
    let path = match (argument("PathPrefix"), argument("Path")) {
        (Some(prefix), _) => format!("{}/*", prefix.trim_end_matches('/')),
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            host?;
            "/*".to_owned()
        }
    };
    // What other functions ask is not in a host and a path.
    let known = 1 + usize::from(host.is_some() && path != "/*");
    (text.matches('(').count() == known).then(|| format!("{}{path}", host.unwrap_or("")))
}

/// A text without what belongs to no host and no path.
fn plain(text: &str) -> String {
    let text = without_anchors(text);
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        // `example.com*` means every path there; `example.*` would mean something else.
        None if text.ends_with(".*") => return text.to_owned(),
        None => (text.strip_suffix('*').unwrap_or(text), "/*"),
    };
    format!("{}{}", self::host(host), self::path(path))
}

/// nginx and regular expressions put signs around a path.
fn without_anchors(text: &str) -> &str {
    let inner = text.trim_start_matches(['~', '^', '=', ' ']);
    let inner = inner.strip_prefix("*").filter(|_| text.starts_with('~'));
    let inner = inner
        .unwrap_or(text)
        .trim_start_matches(['~', '^', '=', ' ']);
    if text.contains('^') {
        inner.strip_suffix('$').unwrap_or(inner)
    } else {
        inner
    }
}

fn host(text: &str) -> String {
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    if host.parse::<Ipv6Addr>().is_ok() {
        return format!("[{host}]");
    }
    let host = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let host = host.trim_end_matches('.');
    let name = host.trim_start_matches(['*', '.']);
    // A name in braces, or a word for "any", is no host at all.
    if name.is_empty() || name.starts_with('{') || name == "_" {
        return String::new();
    }
    if host == name {
        name.to_owned()
    } else {
        format!("*.{name}")
    }
}

fn path(text: &str) -> String {
    let mut segments: Vec<&str> = text.split('/').skip(1).collect();
    // Double slashes, and one behind a star that takes any rest.
    let last = segments.len().saturating_sub(1);
    let mut at = 0;
    segments.retain(|segment| {
        at += 1;
        !segment.is_empty() || at - 1 == last
    });
    if let [.., star, ""] = segments.as_slice()
        && is_rest(star)
    {
        segments.pop();
    }
    let mut fixed = String::new();
    let mut names: Vec<String> = Vec::new();
    let count = segments.len();
    for (index, text) in segments.into_iter().enumerate() {
        fixed.push('/');
        if index + 1 == count && is_rest(text) {
            fixed.push('*');
        } else if let Some(name) = parameter(text) {
            let taken = names.iter().filter(|taken| **taken == name).count();
            let number = if taken == 0 {
                String::new()
            } else {
                (taken + 1).to_string()
            };
            fixed.push_str(&format!("{{{name}{number}}}"));
            names.push(name);
        } else {
            fixed.push_str(&text.replace(' ', "%20"));
        }
    }
    fixed
}

/// Whether a last segment stands for any rest, as somebody writes it.
fn is_rest(segment: &str) -> bool {
    let inside = segment
        .strip_prefix('{')
        .and_then(|segment| segment.strip_suffix('}'));
    matches!(segment, "*" | "**" | ".*" | ".+" | "(.*)" | "(.+)")
        || inside.is_some_and(|name| name.starts_with('*') || name.ends_with(['*', '.']))
}

/// The name of a segment that stands for any, as somebody writes it: `:id`, `<id>`, `{id:[0-9]+}`, `[0-9]+`, `*`.
fn parameter(segment: &str) -> Option<String> {
    let first = segment.chars().next()?;
    let is_begun = matches!(first, ':' | '<' | '{' | '[' | '(' | '\\' | '*');
    if !is_begun && (segment.contains('{') || !segment.ends_with('}')) {
        return None;
    }
    // `(a|b)` is two routes, and `*.json` no whole segment.
    if segment.contains('|') || (first == '*' && segment != "*") {
        return None;
    }
    let text = segment.trim_matches([':', '<', '>', '{', '}', ' ']);
    // A type or an expression goes with the name: `<int:id>`, `{id:[0-9]+}`.
    let text = match (first, text.split_once(':')) {
        ('<', Some((_, name))) | ('{', Some((name, _))) => name,
        _ => text,
    };
    // More in the segment than the parameter: it would mean something else.
    if first == '{' && segment.find('}').is_some_and(|end| end + 1 < segment.len()) {
        return None;
    }
    let name = text.replace('-', "_").to_ascii_lowercase();
    Some(if is_parameter_name(&name) && !RESERVED.contains(&&*name) {
        name
    } else if matches!(first, '{' | '<' | ':') && !text.is_empty() && !text.contains(['[', '\\']) {
        return None;
    } else {
        "name".to_owned()
    })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
