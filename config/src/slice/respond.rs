//! `respond` of a route: an answer that Weir gives itself.

use std::borrow::Cow;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{Count, LongForm, NamedEntries, NamedEntry, PlainText, SpannedKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::field::{FieldName, FieldValueText, check_header_names};
use crate::value::media_type::MediaTypeText;

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// The body; empty for 204, 205 and 304.
    pub body: String,
    /// The body's media type; absent without a body.
    pub content_type: Option<String>,
    /// Further fields, names in lower case; none that Weir sets itself.
    pub headers: Vec<(String, String)>,
}

const STATUS: Preset<u32> = preset(200, "as nginx `return` and Caddy `respond`");

const CONTENT_TYPE: Preset<Cow<'static, str>> = preset(
    Cow::Borrowed("text/plain; charset=utf-8"),
    "text is the only type that Weir need not guess",
);

const BODY_BYTES_MAX: usize = 64 * 1024;

table! {
    /// An answer that Weir gives itself. With one key only, `respond` may be its `status` or its `body`.
    RawRespond, "respond", "respond of [[route]]" {
        /// The status.
        preset(STATUS) status: u32 = "status" as Count<200, 599>;
        /// The body, at most 64 KiB.
        optional body: Spanned<String> = "body" as SpannedKind<PlainText>;
        /// The media type of the body.
        preset(CONTENT_TYPE) content_type: Cow<'static, str> =
            "content_type" as MediaTypeText;
        /// Further header fields. Weir sets those about the connection, the length and the date itself.
        optional headers: Vec<NamedEntry<String>> = "headers" as NamedEntries<FieldName, FieldValueText>;
    }
}

/// A status or a body.
pub(crate) struct RespondShortForm;

impl ValueKind for RespondShortForm {
    type Value = Respond;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Respond> {
        if value.get_ref().is_integer() {
            let status = Count::<200, 599>::decode(value, cx)?;
            return Some(respond(status, String::new(), CONTENT_TYPE.value));
        }
        let body = PlainText::decode(value, cx)?;
        check_body(&body, value.span(), cx)?;
        Some(respond(STATUS.value, body, CONTENT_TYPE.value))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![Count::<200, 599>::shape(), PlainText::shape()])
    }
}

impl LongForm for RawRespond {
    type Out = Respond;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Respond> {
        let headers = table.headers.unwrap_or_default();
        for entry in &headers {
            if RESERVED_FIELDS.contains(&entry.name.value.to_ascii_lowercase().as_str()) {
                let message = format!("Weir sets `{}` itself", entry.name.value);
                cx.error(Code::BadValue, entry.name.span.clone(), message)
                    .help("leave it out; for the media type write content_type = \"...\"");
            }
        }
        let headers = check_header_names(headers, cx);
        let body = table.body.unwrap_or(Spanned {
            value: String::new(),
            span: table.span,
        });
        check_body(&body.value, body.span.clone(), cx)?;
        //= rfc9110#15.3.5: a 204 ends with its head; likewise 205 and 304.
        if matches!(table.status, 204 | 205 | 304) && !body.value.is_empty() {
            let message = format!("an answer with status {} cannot have a body", table.status);
            cx.error(Code::Conflict, body.span, message)
                .help("leave the body out, or set the status to 200");
            return None;
        }
        let mut answer = respond(table.status, body.value, table.content_type);
        answer.headers = headers;
        Some(answer)
    }
}

/// Fields that Weir sets itself, or that have a key of their own.
const RESERVED_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// An answer without further fields.
fn respond(status: u32, body: String, content_type: Cow<'static, str>) -> Respond {
    Respond {
        // Counts are bounded by 599.
        status: u16::try_from(status).unwrap_or(500),
        content_type: (!body.is_empty()).then(|| content_type.into_owned()),
        body,
        headers: Vec::new(),
    }
}

/// Reports a body that is too long.
fn check_body(body: &str, span: Span, cx: &mut Decoder<'_>) -> Option<()> {
    if body.len() <= BODY_BYTES_MAX {
        return Some(());
    }
    let message = format!(
        "the body has {} bytes, the most is {BODY_BYTES_MAX}",
        body.len()
    );
    cx.error(Code::BadValue, span, message)
        .help("serve large files from an upstream");
    None
}
