//! Texts with placeholders against the match that fills them.

use crate::decode::decoder::Decoder;
use crate::slice::request_match::Match;
use crate::slice::request_match::path::{PathMatch, Segment, common_start};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::placeholder::{PlaceholderText, TextPiece};

pub(crate) fn check_placeholders(
    pattern: &PlaceholderText,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    for piece in &pattern.0 {
        let message = match piece {
            TextPiece::Rest if !matches.paths.iter().all(has_star) => {
                "{rest} is what the star of the match took, and there is none".to_owned()
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
            diagnostic.help("every path of the match must have it");
        }
    }
}

/// Warns of a star within a segment whose rest becomes a segment: `/static*` and `/files/{rest}` make
/// `/files/../x` of `/static../x`, which is refused.
pub(crate) fn check_rest(
    pattern: &PlaceholderText,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let Some(at) = pattern.0.iter().position(|piece| *piece == TextPiece::Rest) else {
        return;
    };
    let before = at.checked_sub(1).and_then(|before| pattern.0.get(before));
    if !matches!(before, Some(TextPiece::Text(text)) if text.ends_with('/')) {
        return;
    }
    let cuts =
        |path: &&PathMatch| matches!(path, PathMatch::Prefix(start) if !start.ends_with('/'));
    if let Some(path) = matches.paths.iter().find(cuts) {
        let start = common_start(path);
        let message = format!(
            "the star of `{path}` begins within a segment: requests for `{start}../x` are answered 400"
        );
        cx.warning(Code::Conflict, span.clone(), message)
            .help(format!("for whole segments only, match \"{start}/*\""));
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
