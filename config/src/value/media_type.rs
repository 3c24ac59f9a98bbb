//! Media types.

use std::borrow::Cow;

use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::value::field::{FieldValueText, is_token};

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
            _ => Err(Problem::new(format!("`{text}` is not a media type"))
                .help("write one such as \"application/json\"")),
        }
    }
}

impl WritableKind for MediaTypeText {
    fn to_json(value: &Cow<'static, str>) -> Json {
        Json::text(value)
    }
}
