//! `strip` and `replace` of a route: the path that endpoints get.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{LongForm, PlainText, TextKind};
use crate::decode::table::{frame, table};
use crate::slice::placeholder_check::{check_placeholders, check_rest};
use crate::slice::request_match::Match;
use crate::slice::request_match::path::{PathMatch, PathText};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::placeholder::{PlaceholderText, TextPiece, has_dot_segment};

/// How Weir changes the path for endpoints. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Replaces the path's beginning (`strip`, `replace = { prefix, with }`), and puts a slash in front if there is none.
    Prefix {
        /// The beginning that every path of the route has.
        prefix: String,
        /// The new beginning; empty for `strip`.
        with: String,
    },
    /// Writes the whole path anew (`replace = "..."`).
    Path(PlaceholderText),
}

table! {
    /// Replaces one prefix of the path by another.
    RawReplace, "replace", "replace of [[route]]" {
        /// The old prefix. Every path of the route must begin with it.
        required prefix: String = "prefix" as PlainText;
        /// The new prefix.
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

/// The rewrite that `strip` or `replace` of a route describes; reports one that does not suit the match.
pub(crate) fn check_rewrite(
    strip: Option<&Spanned<Option<String>>>,
    replace: Option<&Spanned<Option<Rewrite>>>,
    matches: Option<&Match>,
    cx: &mut Decoder<'_>,
) -> Option<Rewrite> {
    if let (Some(_), Some(replace)) = (strip, replace) {
        let message = "`strip` and `replace` exclude each other";
        cx.error(Code::Conflict, replace.span.clone(), message)
            .help("write both as one: replace = { prefix = \"/old\", with = \"/new\" }");
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
                    format!("`{prefix}` and `{with}` must both end with a slash, or neither");
                cx.error(Code::Conflict, replace.span.clone(), message)
                    .help("otherwise Weir would double or lose a slash");
            }
            Some(Rewrite::Prefix { prefix, with })
        }
        Rewrite::Path(path_text) => {
            check_path(path_text, matches, &replace.span, cx);
            check_rest(path_text, matches, &replace.span, cx);
            Some(Rewrite::Path(path_text.clone()))
        }
    }
}

/// A path without star or braces, in its normal form; reports any other.
fn plain_path(text: &str, span: &Span, cx: &mut Decoder<'_>) -> Option<String> {
    match PathText::parse(text) {
        Ok(PathMatch::Exact(path)) => Some(path),
        Ok(_) => {
            let message = format!("`{text}` has a star or braces");
            cx.error(Code::BadValue, span.clone(), message)
                .help("write a plain path");
            None
        }
        Err(problem) => {
            cx.problem(span.clone(), text, problem);
            None
        }
    }
}

/// Reports a prefix that not every path of the match has, and one that ends within a segment.
fn check_prefix((prefix, with): (&str, &str), matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    // `strip` leaves a slash in front.
    let with = if with.is_empty() { "/" } else { with };
    for path in &matches.paths {
        let start = path.common_start();
        if !start.starts_with(prefix) {
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
            let message = format!("paths such as `{prefix}0` match too and would become `{with}0`");
            cx.warning(Code::Conflict, span.clone(), message)
                .help(format!("for whole segments only, match \"{prefix}/*\""));
            return;
        }
    }
}

/// Reports a path with placeholders that could not stand in a request.
fn check_path(path_text: &PlaceholderText, matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    if !path_text.begins_with_any(&["/"]) {
        cx.error(
            Code::BadValue,
            span.clone(),
            "the path does not begin with a slash",
        )
        .help("put a slash in front of it");
    }
    if has_dot_segment(path_text) {
        cx.error(Code::BadValue, span.clone(), "the path has a dot segment")
            .help("write the path without `.` and `..`: Weir sends endpoints no dot segments");
    }
    for piece in &path_text.0 {
        let message = match piece {
            TextPiece::Host => "`{host}` is not part of a path",
            TextPiece::Query => {
                "`{query}` is not part of a path: endpoints get the query in any case"
            }
            TextPiece::Text(text) if text.contains(['?', '#']) => {
                "`replace` sets the path alone, without a query"
            }
            TextPiece::Text(text) if text.contains('\\') => {
                "a path cannot contain a backslash: write \"%5C\""
            }
            TextPiece::Text(text) if has_bad_percent(text) => {
                "a percent sign needs two hexadecimal digits: write \"%25\""
            }
            _ => continue,
        };
        cx.error(Code::BadValue, span.clone(), message)
            .help("use {path}, {rest} and parameters of the match");
    }
    check_placeholders(path_text, matches, span, cx);
}

/// Whether a text has a percent sign without two hexadecimal digits.
fn has_bad_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|part| {
        let digits = part.get(..2).unwrap_or_default();
        digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
