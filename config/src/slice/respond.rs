//! `respond` of a route.

use std::borrow::Cow;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{
    Count, LongForm, NamedEntries, NamedEntry, PlainText, SpannedKind, TextKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::field::{FieldName, FieldValueText, header_names, is_token};

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// The body; empty for 204, 205 and 304.
    pub body: String,
    /// The body's media type; absent without a body.
    pub content_type: Option<String>,
    /// Further fields, names lower case, no framing or connection fields among them.
    pub headers: Vec<(String, String)>,
}

/// The status of a fixed answer.
const RESPOND_STATUS: Preset<u32> = preset(200, "nginx `return`, Caddy `respond`");

/// The media type of a fixed answer's body.
const RESPOND_CONTENT_TYPE: Preset<Cow<'static, str>> = preset(
    Cow::Borrowed("text/plain; charset=utf-8"),
    "the only type that needs no guess",
);

/// A fixed answer's body, bytes.
const RESPOND_BODY_BYTES_MAX: usize = 64 * 1024;

table! {
    /// The long form of a fixed answer.
    RawRespond, "respond", "respond of [[route]]" {
        /// The status, final.
        preset(RESPOND_STATUS) status: u32 = "status" as Count<200, 599>;
        /// The body.
        optional body: Spanned<String> = "body" as SpannedKind<PlainText>;
        /// The body's media type.
        preset(RESPOND_CONTENT_TYPE) content_type: Cow<'static, str> =
            "content_type" as MediaTypeText;
        /// Further header fields.
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
            return Some(respond(status, String::new(), RESPOND_CONTENT_TYPE.value));
        }
        let body = PlainText::decode(value, cx)?;
        check_body(&body, value.span(), cx)?;
        Some(respond(
            RESPOND_STATUS.value,
            body,
            RESPOND_CONTENT_TYPE.value,
        ))
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
            if OWN_FIELDS.contains(&entry.name.value.to_ascii_lowercase().as_str()) {
                let message = format!("Weir sets `{}` by itself", entry.name.value);
                cx.error(Code::BadValue, entry.name.span.clone(), message)
                    .help("the media type has its own key: content_type = \"...\"");
            }
        }
        let headers = header_names(headers, cx);
        let body = table.body.unwrap_or(Spanned {
            value: String::new(),
            span: table.span,
        });
        check_body(&body.value, body.span.clone(), cx)?;
        //= rfc9110#15.3.5: a 204 ends with its head; likewise 205 and 304.
        if matches!(table.status, 204 | 205 | 304) && !body.value.is_empty() {
            let message = format!("an answer with status {} has no body", table.status);
            cx.error(Code::Conflict, body.span, message)
                .help("leave the body out, or take the status 200");
            return None;
        }
        let mut answer = respond(table.status, body.value, table.content_type);
        answer.headers = headers;
        Some(answer)
    }
}

/// Fields of an answer that say how it is framed, or that have a key of their own.
const OWN_FIELDS: [&str; 10] = [
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

fn respond(status: u32, body: String, content_type: Cow<'static, str>) -> Respond {
    Respond {
        // Counts are bounded by 599.
        status: u16::try_from(status).unwrap_or(500),
        content_type: (!body.is_empty()).then(|| content_type.into_owned()),
        body,
        headers: Vec::new(),
    }
}

fn check_body(body: &str, span: Span, cx: &mut Decoder<'_>) -> Option<()> {
    if body.len() <= RESPOND_BODY_BYTES_MAX {
        return Some(());
    }
    let message = format!(
        "a fixed body has at most {RESPOND_BODY_BYTES_MAX} bytes, this one has {}",
        body.len()
    );
    cx.error(Code::BadValue, span, message)
        .help("serve large documents from an upstream");
    None
}

/// A media type.
pub(crate) struct MediaTypeText;

impl TextKind for MediaTypeText {
    type Value = Cow<'static, str>;
    const NOUN: &'static str = "a media type";
    const PATTERN: Option<&'static str> = Some("^[^/ ]+/[^/ ;]+( *;.*)?$");
    const EXAMPLES: &'static [&'static str] = &["application/json", "text/html; charset=utf-8"];

    fn parse(text: &str) -> Result<Cow<'static, str>, Problem> {
        let value = FieldValueText::parse(text)?;
        let essence = value.split(';').next().unwrap_or("").trim_end();
        match essence.split_once('/') {
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(value.into()),
            _ => Err(Problem::new(format!("`{text}` is no media type"))
                .help("for example \"application/json\"")),
        }
    }
}

impl WritableKind for MediaTypeText {
    fn to_json(value: &Cow<'static, str>) -> Json {
        Json::text(value)
    }
}
