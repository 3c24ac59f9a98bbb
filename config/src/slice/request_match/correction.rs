//! Corrections of matches that cannot be read: patterns as other programs write them, and slips.
//!
//! A correction is shown only if it can be read itself.

use std::net::Ipv6Addr;

use crate::value::field::is_token;
use crate::value::placeholder::{RESERVED, is_parameter_name};

/// Advice for a match that cannot be read.
pub(super) struct Correction {
    /// The rule that the text breaks, if it has a name.
    rule: Option<&'static str>,
    /// The text to write, with its quotes.
    write: String,
}

impl Correction {
    /// The advice, in one sentence.
    pub(super) fn advice(&self) -> String {
        match self.rule {
            Some(rule) => format!("{rule}: write {}", self.write),
            None => format!("write {}", self.write),
        }
    }
}

const NO_RULE: &str = "a match is a host and a path, without functions";
const NO_SCHEME: &str = "a match is a host and a path";
const NO_METHOD: &str = "the method has a key of its own";
const NO_PORT: &str = "a match does not look at the port";
const NO_EXPRESSION: &str =
    "a match is not a regular expression; a star at its end stands for any rest";
const NO_MIDDLE: &str =
    "a star stands only at the end; for a single segment, write a name in braces";

/// A correction of HOST/PATH that `is_readable`.
pub(super) fn correct_match(text: &str, is_readable: impl Fn(&str) -> bool) -> Option<Correction> {
    let trimmed = text.trim();
    if let Some((method, rest)) = trimmed.split_once(' ')
        && is_token(method)
        && method.bytes().all(|b| b.is_ascii_uppercase())
    {
        let path = plain(rest.trim());
        let write = format!("match = {{ path = \"{path}\", method = \"{method}\" }}");
        return (path.starts_with('/') && is_readable(&path)).then_some(Correction {
            rule: Some(NO_METHOD),
            write,
        });
    }
    let (rule, write) = match rule_of_functions(trimmed) {
        Some(write) => (Some(NO_RULE), write),
        None => (broken_rule(trimmed), plain(trimmed)),
    };
    // One word may be a host or a path.
    let is_word = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_alphanumeric());
    let other = if is_word && trimmed != "localhost" {
        format!(" for this host, or \"/{trimmed}/*\" for paths that begin with it")
    } else {
        String::new()
    };
    (write != text && is_readable(&write)).then(|| Correction {
        rule,
        write: format!("\"{write}\"{other}"),
    })
}

/// A correction of a path that `is_readable`.
pub(super) fn correct_path(text: &str, is_readable: impl Fn(&str) -> bool) -> Option<Correction> {
    let text_alone = without_anchors(text.trim());
    let write = match text_alone.split_once("://") {
        Some((_, rest)) => path(rest.find('/').and_then(|at| rest.get(at..))?),
        None if text_alone.starts_with('/') => path(text_alone),
        None => path(&format!("/{text_alone}")),
    };
    (write != text && is_readable(&write)).then(|| Correction {
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

/// Traefik's rules: Host(`a`) && PathPrefix(`/b`).
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
    // A host and a path cannot express other functions.
    let known = 1 + usize::from(host.is_some() && path != "/*");
    (text.matches('(').count() == known).then(|| format!("{}{path}", host.unwrap_or("")))
}

/// Host and path of a text, without a scheme and other parts.
fn plain(text: &str) -> String {
    let text = without_anchors(text);
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        // `example.com*` means every path of the host; `example.*` means something else.
        None if text.ends_with(".*") => return text.to_owned(),
        None => (text.strip_suffix('*').unwrap_or(text), "/*"),
    };
    format!("{}{}", self::host(host), self::path(path))
}

/// A path without the signs that nginx and regular expressions put around it.
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
    // A name in braces or a word for "any" is not a host.
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
    // Drop double slashes, and a slash behind a star that takes any rest.
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

/// Whether another program reads a last segment as any rest.
fn is_rest(segment: &str) -> bool {
    let inside = segment
        .strip_prefix('{')
        .and_then(|segment| segment.strip_suffix('}'));
    matches!(segment, "*" | "**" | ".*" | ".+" | "(.*)" | "(.+)")
        || inside.is_some_and(|name| name.starts_with('*') || name.ends_with(['*', '.']))
}

/// A parameter's name for a segment that another program reads as any: `:id`, `<id>`, `{id:[0-9]+}`, `[0-9]+`, `*`.
fn parameter(segment: &str) -> Option<String> {
    let first = segment.chars().next()?;
    let may_be_parameter = matches!(first, ':' | '<' | '{' | '[' | '(' | '\\' | '*');
    if !may_be_parameter && (segment.contains('{') || !segment.ends_with('}')) {
        return None;
    }
    // `(a|b)` is two routes, and `*.json` no whole segment.
    if segment.contains('|') || (first == '*' && segment != "*") {
        return None;
    }
    let text = segment.trim_matches([':', '<', '>', '{', '}', ' ']);
    // A name may come with a type or an expression: `<int:id>`, `{id:[0-9]+}`.
    let text = match (first, text.split_once(':')) {
        ('<', Some((_, name))) | ('{', Some((name, _))) => name,
        _ => text,
    };
    // With more in the segment than the parameter, it means something else.
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
