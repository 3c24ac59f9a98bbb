//! `strip` and `replace` of a route: the path on its way upstream.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{LongForm, PlainText, TextKind};
use crate::decode::table::{frame, table};
use crate::slice::placeholder_check::{check_placeholders, check_rest};
use crate::slice::request_match::Match;
use crate::slice::request_match::path::{PathMatch, PathText, common_start};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::placeholder::{PlaceholderText, TextPiece, has_dot_segment};

/// Change of the path on its way upstream. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The path's beginning is exchanged (`strip`, `replace = { prefix, with }`). The outcome
    /// gets a leading slash when it has none.
    Prefix {
        /// What every path of the route starts with.
        prefix: String,
        /// What comes in its place; empty for `strip`.
        with: String,
    },
    /// The whole path is built anew (`replace = "..."`).
    Path(PlaceholderText),
}

table! {
    /// The long form of `replace`: one prefix for another.
    RawReplace, "replace", "replace of [[route]]" {
        /// What every path of the route begins with.
        required prefix: String = "prefix" as PlainText;
        /// What comes in its place.
        required with: String = "with" as PlainText;
    }
}

impl From<PlaceholderText> for Rewrite {
    fn from(path: PlaceholderText) -> Self {
        Self::Path(path)
    }
}

impl LongForm for RawReplace {
    type Out = Rewrite;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Rewrite> {
        Some(Rewrite::Prefix {
            prefix: table.prefix,
            with: table.with,
        })
    }
}

/// What `strip` and `replace` of a route make of its paths; reports what does not go with its match.
pub(crate) fn check_rewrite(
    strip: Option<&Spanned<Option<String>>>,
    replace: Option<&Spanned<Option<Rewrite>>>,
    matches: Option<&Match>,
    cx: &mut Decoder<'_>,
) -> Option<Rewrite> {
    if let (Some(_), Some(replace)) = (strip, replace) {
        let message = "`strip` and `replace` exclude each other";
        cx.error(Code::Conflict, replace.span.clone(), message)
            .help("replace = { prefix = \"/old\", with = \"/new\" } does both");
        return None;
    }
    let matches = matches?;
    if let Some(strip) = strip {
        let prefix = plain_path(strip.value.as_ref()?, &strip.span, cx)?;
        check_prefix((&prefix, ""), matches, &strip.span, cx);
        return Some(Rewrite::Prefix {
            prefix,
            with: String::new(),
        });
    }
    let replace = replace?;
    match replace.value.as_ref()? {
        Rewrite::Prefix { prefix, with } => {
            let prefix = plain_path(prefix, &replace.span, cx)?;
            let with = plain_path(with, &replace.span, cx)?;
            check_prefix((&prefix, &with), matches, &replace.span, cx);
            if prefix.ends_with('/') != with.ends_with('/') {
                let message =
                    format!("`{prefix}` and `{with}` must both end with a slash, or none");
                cx.error(Code::Conflict, replace.span.clone(), message)
                    .help("else slashes would be doubled or lost");
            }
            Some(Rewrite::Prefix { prefix, with })
        }
        Rewrite::Path(pattern) => {
            check_path_pattern(pattern, matches, &replace.span, cx);
            check_rest(pattern, matches, &replace.span, cx);
            Some(Rewrite::Path(pattern.clone()))
        }
    }
}

/// A path without star or braces, in the form that requests are matched in.
fn plain_path(text: &str, span: &Span, cx: &mut Decoder<'_>) -> Option<String> {
    match PathText::parse(text) {
        Ok(PathMatch::Exact(path)) => Some(path),
        Ok(_) => {
            let message = format!("`{text}` must be a plain path, without star or braces");
            cx.error(Code::BadValue, span.clone(), message);
            None
        }
        Err(problem) => {
            cx.problem(span.clone(), text, problem);
            None
        }
    }
}

fn check_prefix((prefix, with): (&str, &str), matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    // What is stripped leaves a slash in front.
    let with = if with.is_empty() { "/" } else { with };
    for path in &matches.paths {
        let start = common_start(path);
        // `/v1/*` takes `/v1` too, and there is no more of that.
        let is_whole = || start.strip_suffix('/') == prefix.strip_suffix('/');
        if !start.starts_with(prefix) && !is_whole() {
            let message = format!("not every path of this route begins with `{prefix}`");
            cx.error(Code::Conflict, span.clone(), message)
                .label(format!("the match is `{matches}`"));
            return;
        }
        let rest = start.strip_prefix(prefix).unwrap_or_default();
        if prefix.ends_with('/') || rest.starts_with('/') {
            continue;
        }
        if !rest.is_empty() {
            let message =
                format!("`{prefix}` ends within a segment: `{start}` becomes `{with}{rest}`");
            cx.warning(Code::Conflict, span.clone(), message)
                .help("write whole segments");
            return;
        }
        if matches!(path, PathMatch::Prefix(_)) {
            let message =
                format!("paths such as `{prefix}0` match too, and would become `{with}0`");
            cx.warning(Code::Conflict, span.clone(), message)
                .help(format!("for whole segments only, match \"{prefix}/*\""));
            return;
        }
    }
}

/// Checks a path that is built anew.
pub(crate) fn check_path_pattern(
    pattern: &PlaceholderText,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let good = match pattern.0.first() {
        Some(TextPiece::Text(text)) => text.starts_with('/'),
        Some(TextPiece::Path) => true,
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
            TextPiece::Host => "the host is no part of a path",
            TextPiece::Query => "the query is kept as it is",
            TextPiece::Text(text) if text.contains(['?', '#']) => "`replace` sets the path only",
            TextPiece::Text(text) if text.contains('\\') => {
                "a path has no backslash in it: write \"%5C\""
            }
            TextPiece::Text(text) if has_bad_percent(text) => {
                "a percent sign needs two hexadecimal digits: write \"%25\""
            }
            _ => continue,
        };
        cx.error(Code::BadValue, span.clone(), message)
            .help("`replace` may use {path}, {rest} and parameters of the match");
    }
    check_placeholders(pattern, matches, span, cx);
}

/// Whether a text has a percent sign without two hexadecimal digits: endpoints would get a path that is none.
fn has_bad_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|part| {
        let digits = part.get(..2).unwrap_or_default();
        digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
