//! `redirect` of a route: an answer that sends the client to another address.

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
    /// The value of the Location field.
    pub location: PlaceholderText,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

const REDIRECT_STATUS: Preset<u16> = preset(
    307,
    "RFC 9110 section 15.4.8: 307 keeps the method, and clients do not remember a mistake",
);

table! {
    /// A redirect with a status of its own. One without is written as its `location` alone.
    RawRedirect, "redirect", "redirect of [[route]]" {
        /// The new address: a URL or a path. The request fills in {host}, {path}, {query}, {rest} and parameters of the
        /// match.
        required location: PlaceholderText = "location" as PlaceholderTextKind;
        /// The status: 301, 302, 303, 307 or 308. Set 308 once the move is permanent: clients remember it.
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
            let message = "the status of a redirect is 301, 302, 303, 307 or 308";
            cx.error(Code::BadValue, value.span(), message)
                .help("307 and 308 keep the method; clients remember 301 and 308");
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

/// Reports a redirect whose location is unusable, or open to the client's choice of host.
pub(crate) fn check_redirect(
    redirect: &Redirect,
    matches: &Match,
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let location = &redirect.location;
    if !location.begins_with_any(&["/", "http://", "https://"]) {
        cx.error(
            Code::BadValue,
            span.clone(),
            "the location of a redirect is a URL or a path",
        )
        .help("begin it with https://, http:// or a slash");
    }
    if has_dot_segment(location) {
        cx.error(
            Code::BadValue,
            span.clone(),
            "the location has a dot segment",
        )
        .help("write the path without `.` and `..`");
    }
    if let Some(piece) = piece_in_host(location) {
        let message = format!("`{{{piece}}}` would let clients choose the host of the redirect");
        cx.error(Code::BadValue, span.clone(), message)
            .help("end the host with a slash in front of it");
    }
    check_placeholders(location, matches, span, cx);
    check_rest(location, matches, span, cx);
}

/// The first placeholder for a part of the request's path that could extend the location's host:
/// `https://example.com{rest}` would lead to `example.com.evil.net`.
fn piece_in_host(location: &PlaceholderText) -> Option<&str> {
    let mut pieces = location.0.iter();
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
