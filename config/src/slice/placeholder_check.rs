//! Whether a route's match can fill the placeholders of its texts.

use crate::decode::decoder::Decoder;
use crate::slice::request_match::Match;
use crate::slice::request_match::path::{PathMatch, Segment};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::placeholder::{PlaceholderText, TextPiece};
use crate::value::variable::find_nginx_variable;

/// Reports placeholders that the match does not fill.
pub(crate) fn check_placeholders(
    text: &PlaceholderText,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    for piece in &text.0 {
        let message = match piece {
            TextPiece::Text(literal) => {
                warn_of_nginx_variables(literal, span, cx);
                continue;
            }
            TextPiece::Rest if !matches.paths.iter().all(has_star) => {
                "`{rest}` stands for what the star of the match takes, and the match has none"
                    .to_owned()
            }
            TextPiece::Parameter(name)
                if !matches.paths.iter().all(|path| has_parameter(path, name)) =>
            {
                format!("the match has no parameter `{{{name}}}`")
            }
            _ => continue,
        };
        let diagnostic = cx.error(Code::UnknownName, span.clone(), message);
        diagnostic.label(format!("the match is `{matches}`"));
        if matches.paths.len() > 1 {
            diagnostic.help("add it to every path of the match");
        }
    }
}

/// Warns of variables and captures written as in nginx, which are text here.
fn warn_of_nginx_variables(literal: &str, span: &Span, cx: &mut Decoder<'_>) {
    let capture = literal.match_indices('$').find_map(|(at, _)| {
        let end = at + 2;
        let digit = literal.as_bytes().get(at + 1)?;
        digit.is_ascii_digit().then(|| &literal[at..end])
    });
    let (theirs, ours) = match (find_nginx_variable(literal), capture) {
        (Some(found), _) => found,
        (None, Some(capture)) => (
            capture,
            "{rest} for what the star of the match takes, or the name of a parameter in braces"
                .to_owned(),
        ),
        (None, None) => return,
    };
    let message = format!("`{theirs}` is text here: placeholders stand in braces");
    cx.warning(Code::NoEffect, span.clone(), message)
        .help(format!("write {ours}"));
}

/// Warns of a star within a segment whose rest becomes a segment of its own: with `/static*` and `/files/{rest}`,
/// `/static../x` would become `/files/../x`.
pub(crate) fn check_rest(
    text: &PlaceholderText,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let Some(at) = text.0.iter().position(|piece| *piece == TextPiece::Rest) else {
        return;
    };
    let before = at.checked_sub(1).and_then(|before| text.0.get(before));
    if !matches!(before, Some(TextPiece::Text(literal)) if literal.ends_with('/')) {
        return;
    }
    let cuts =
        |path: &&PathMatch| matches!(path, PathMatch::Prefix(start) if !start.ends_with('/'));
    if let Some(path) = matches.paths.iter().find(cuts) {
        let start = path.common_start();
        let message = format!(
            "the star of `{path}` begins within a segment: requests for `{start}../x` get 400"
        );
        cx.warning(Code::Conflict, span.clone(), message)
            .help(format!("for whole segments only, match \"{start}/*\""));
    }
}

/// The parameters that every path of `matches` has.
pub(crate) fn list_parameters(matches: &Match) -> Vec<&str> {
    let Some((PathMatch::Template { segments, .. }, others)) = matches.paths.split_first() else {
        return Vec::new();
    };
    let names = segments.iter().filter_map(|segment| match segment {
        Segment::Parameter(name) => Some(name.as_str()),
        _ => None,
    });
    names
        .filter(|name| others.iter().all(|path| has_parameter(path, name)))
        .collect()
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
