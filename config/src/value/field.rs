//! Names and values of header fields.

use std::collections::HashMap;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kinds::{KeyPlaceholder, NamedEntry, TextKind, quoted_if_needed};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;

/// Names of header fields and of query parameters.
pub(crate) struct FieldName;

impl KeyPlaceholder for FieldName {
    const NAME: &'static str = "FIELD";

    fn written(value: &Value<'_>) -> Option<String> {
        written_field(value)
    }
}

/// How tables write `"NAME: VALUE"`, or a list of such lines.
pub(crate) fn written_field(value: &Value<'_>) -> Option<String> {
    let written = |value: &Value<'_>| {
        let (name, text) = value.get_ref().as_str()?.split_once(':')?;
        let name = name.trim();
        is_token(name).then(|| format!("{} = \"{}\"", quoted_if_needed(name), text.trim()))
    };
    match value.get_ref().as_array() {
        Some(lines) => {
            let fields: Option<Vec<_>> = lines.iter().map(written).collect();
            fields.map(|fields| fields.join(", "))
        }
        None => written(value),
    }
}

/// A value of a header field, or a value to compare with.
pub(crate) struct FieldValueText;

impl TextKind for FieldValueText {
    type Value = String;
    const NOUN: &'static str = "a value";
    const EXAMPLES: &'static [&'static str] = &["text/plain"];

    fn parse(text: &str) -> Result<String, Problem> {
        //= rfc9110#5.5: field values hold no control characters, nor blanks at their ends.
        if let Some(bad) = text.find(|c: char| c.is_control() && c != '\t') {
            return Err(Problem::new("a value cannot contain control characters").at(bad, 1));
        }
        if text.trim_matches([' ', '\t']) != text {
            return Err(Problem::new("a value cannot begin or end with a blank"));
        }
        Ok(text.to_owned())
    }
}

/// Whether `text` is a token (RFC 9110 section 5.6.2): a method or a field name.
pub(crate) fn is_token(text: &str) -> bool {
    let is_token_octet = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token_octet)
}

/// The error for a text that is not the name of a header field.
pub(crate) fn not_a_field_name(text: &str) -> Problem {
    Problem::new(format!("`{text}` is not the name of a header field"))
}

/// Makes names of header fields lower case. Reports and leaves out malformed and repeated names.
pub(crate) fn check_header_names<T>(
    entries: Vec<NamedEntry<T>>,
    cx: &mut Decoder<'_>,
) -> Vec<(String, T)> {
    let mut fields: Vec<(String, T)> = Vec::with_capacity(entries.len());
    let mut lines = HashMap::new();
    for NamedEntry { name, value } in entries {
        let lower = name.value.to_ascii_lowercase();
        if !is_token(&lower) {
            let message = not_a_field_name(&name.value).message;
            cx.error(Code::BadValue, name.span, message);
        } else if let Some(first) = lines.insert(lower.clone(), cx.line(&name.span)) {
            let message = format!("header field `{lower}` occurs twice");
            cx.error(Code::Duplicate, name.span, message).help(format!(
                "the first one is in line {first}; case does not matter in names of header fields"
            ));
        } else if let Some(value) = value {
            fields.push((lower, value));
        }
    }
    fields
}

#[cfg(test)]
mod tests;
