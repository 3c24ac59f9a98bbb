//! `redirect` of a route.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{LongForm, integer};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::slice::placeholder_check::{check_placeholders, check_rest};
use crate::slice::request_match::Match;
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::source::Span;
use crate::value::placeholder::{PlaceholderText, PlaceholderTextKind, TextPiece, has_dot_segment};

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The Location field.
    pub location: PlaceholderText,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The status of a redirect.
const REDIRECT_STATUS: Preset<u16> = preset(
    307,
    "RFC 9110 section 15.4.8: keeps the method, and a mistake is not cached for ever",
);

table! {
    /// The long form of a redirect.
    RawRedirect, "redirect", "redirect of [[route]]" {
        /// The new address: {host}, {path}, {query}, {rest} and parameters of the match are
        /// filled in from the request.
        required location: PlaceholderText = "location" as PlaceholderTextKind;
        /// 301, 302, 303, 307 or 308.
        preset(REDIRECT_STATUS) status: u16 = "status" as RedirectStatusKind;
    }
}

/// A status that redirects.
pub(crate) struct RedirectStatusKind;

impl ValueKind for RedirectStatusKind {
    type Value = u16;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<u16> {
        let status = integer(value)
            .flatten()
            .and_then(|number| u16::try_from(number).ok());
        let status = status.filter(|status| matches!(status, 301..=303 | 307 | 308));
        if status.is_none() {
            let message = "a redirect has the status 301, 302, 303, 307 or 308";
            cx.error(Code::BadValue, value.span(), message)
                .help("307 and 308 keep the method; 301 and 308 are remembered by clients");
        }
        status
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Integer { min: 301, max: 303 },
            Shape::Integer { min: 307, max: 308 },
        ])
    }
}

impl WritableKind for RedirectStatusKind {
    fn to_json(value: &u16) -> Json {
        Json::Number((*value).into())
    }
}

impl From<PlaceholderText> for Redirect {
    /// A redirect with the default status.
    fn from(location: PlaceholderText) -> Self {
        Self {
            location,
            status: REDIRECT_STATUS.value,
        }
    }
}

impl LongForm for RawRedirect {
    type Out = Redirect;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Redirect> {
        Some(Redirect {
            location: table.location,
            status: table.status,
        })
    }
}

/// Checks where a redirect leads.
pub(crate) fn check_redirect(
    redirect: &Redirect,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let pattern = &redirect.location;
    let good = match pattern.0.first() {
        Some(TextPiece::Text(text)) => {
            text.starts_with('/') || text.starts_with("http://") || text.starts_with("https://")
        }
        Some(TextPiece::Path) => true,
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
    check_rest(pattern, matches, span, cx);
}

/// The first part of the request's path that stands where the location's host is still open:
/// `https://example.com{rest}` leads to `example.com.evil.net` for whoever asks for it.
fn piece_in_host(pattern: &PlaceholderText) -> Option<&str> {
    let mut pieces = pattern.0.iter();
    let Some(TextPiece::Text(first)) = pieces.next() else {
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
            TextPiece::Text(text) if ends_host(text) => return None,
            TextPiece::Path | TextPiece::Query => return None,
            TextPiece::Rest => return Some("rest"),
            TextPiece::Parameter(name) => return Some(name),
            TextPiece::Text(_) | TextPiece::Host => {}
        }
    }
    None
}
