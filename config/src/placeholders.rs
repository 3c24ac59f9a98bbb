//! Texts with placeholders against the match that fills them.

use crate::decode::Decoder;
use crate::diagnostic::Code;
use crate::model::{Match, PathMatch, Pattern, Piece, Segment};
use crate::source::Span;

/// Checks where a redirect leads.
pub(crate) fn check_location(
    pattern: &Pattern,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let good = match pattern.0.first() {
        Some(Piece::Text(text)) => {
            text.starts_with('/') || text.starts_with("http://") || text.starts_with("https://")
        }
        Some(Piece::Path) => true,
        _ => false,
    };
    if !good {
        cx.error(
            Code::BadValue,
            span.clone(),
            "a redirect leads to a URL or a path",
        )
        .help("begin with https://, http:// or a slash");
    }
    if has_dot_segment(pattern) {
        cx.error(
            Code::BadValue,
            span.clone(),
            "a location with a dot segment",
        )
        .help("write the path that it leads to");
    }
    if let Some(piece) = piece_in_host(pattern) {
        let message = format!("`{{{piece}}}` would let clients choose the host they are sent to");
        cx.error(Code::BadValue, span.clone(), message)
            .help("put a slash in front of it, where the host ends");
    }
    check_placeholders(pattern, matches, span, cx);
}

/// Whether what a file says itself, without what requests fill in, has a dot segment.
fn has_dot_segment(pattern: &Pattern) -> bool {
    let text = pattern.0.iter().map(|piece| match piece {
        Piece::Text(text) => text.as_str(),
        _ => "{}",
    });
    let text = text
        .collect::<String>()
        .replace("%2e", ".")
        .replace("%2E", ".");
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether a text has a percent sign without two hexadecimal digits: endpoints would get a path that is none.
fn has_bad_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|part| {
        let digits = part.get(..2).unwrap_or_default();
        digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Checks a path that is built anew.
pub(crate) fn check_path_pattern(
    pattern: &Pattern,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let good = match pattern.0.first() {
        Some(Piece::Text(text)) => text.starts_with('/'),
        Some(Piece::Path) => true,
        _ => false,
    };
    if !good {
        cx.error(Code::BadValue, span.clone(), "a path begins with a slash");
    }
    if has_dot_segment(pattern) {
        cx.error(Code::BadValue, span.clone(), "a path with a dot segment")
            .help("write the path that it leads to: endpoints get no dot segments");
    }
    for piece in &pattern.0 {
        let message = match piece {
            Piece::Host => "the host is no part of a path",
            Piece::Query => "the query is kept as it is",
            Piece::Text(text) if text.contains(['?', '#']) => "`replace` sets the path only",
            Piece::Text(text) if text.contains('\\') => {
                "a path has no backslash in it: write \"%5C\""
            }
            Piece::Text(text) if has_bad_percent(text) => {
                "a percent sign needs two hexadecimal digits: write \"%25\""
            }
            _ => continue,
        };
        cx.error(Code::BadValue, span.clone(), message)
            .help("`replace` may use {path}, {rest} and parameters of the match");
    }
    check_placeholders(pattern, matches, span, cx);
}

fn check_placeholders(pattern: &Pattern, matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    for piece in &pattern.0 {
        let message = match piece {
            Piece::Rest if !matches.paths.iter().all(has_star) => {
                "{rest} is what the star of the match took, and there is none".to_owned()
            }
            Piece::Parameter(name)
                if !matches.paths.iter().all(|path| has_parameter(path, name)) =>
            {
                format!("the match has no parameter `{{{name}}}`")
            }
            _ => continue,
        };
        let diagnostic = cx.error(Code::UnknownName, span.clone(), message);
        diagnostic.label(format!("the match is `{matches}`"));
        if matches.paths.len() > 1 {
            diagnostic.help("every path of the match must have it");
        }
    }
}

fn has_star(path: &PathMatch) -> bool {
    matches!(
        path,
        PathMatch::Prefix(_) | PathMatch::Template { open: true, .. }
    )
}

fn has_parameter(path: &PathMatch, wanted: &str) -> bool {
    let PathMatch::Template { segments, .. } = path else {
        return false;
    };
    let is_wanted = |each: &Segment| matches!(each, Segment::Parameter(name) if name == wanted);
    segments.iter().any(is_wanted)
}

/// The first part of the request's path that stands where the location's host is still open:
/// `https://example.com{rest}` leads to `example.com.evil.net` for whoever asks for it.
fn piece_in_host(pattern: &Pattern) -> Option<&str> {
    let mut pieces = pattern.0.iter();
    let Some(Piece::Text(first)) = pieces.next() else {
        return None;
    };
    let ends_host = |text: &str| text.contains(['/', '?', '#']);
    let (_, host) = first
        .split_once("//")
        .filter(|(scheme, _)| !scheme.contains('/'))?;
    if ends_host(host) {
        return None;
    }
    for piece in pieces {
        match piece {
            Piece::Text(text) if ends_host(text) => return None,
            Piece::Path | Piece::Query => return None,
            Piece::Rest => return Some("rest"),
            Piece::Parameter(name) => return Some(name),
            Piece::Text(_) | Piece::Host => {}
        }
    }
    None
}
