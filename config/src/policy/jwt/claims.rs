//! Claims that a token must have, and that endpoints get.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{KeyPlaceholder, NamedEntry};
use crate::decode::shape::Shape;
use crate::text::diagnostic::Code;

/// Names of claims.
pub(crate) struct ClaimName;

impl KeyPlaceholder for ClaimName {
    const NAME: &'static str = "CLAIM";
}

/// Values of a claim: strings, whole numbers, `true` or `false`, one or a list. As text, because a claim is compared by
/// its text.
pub(crate) struct ClaimValuesKind;

impl ValueKind for ClaimValuesKind {
    type Value = Vec<String>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Vec<String>> {
        let values = match value.get_ref().as_array() {
            Some(items) => items.iter().map(|item| decode_one(item, cx)).collect(),
            None => decode_one(value, cx).map(|only| vec![only]),
        };
        if values.as_ref().is_some_and(Vec::is_empty) {
            cx.error(
                Code::BadValue,
                value.span(),
                "no token has one of no values",
            )
            .help("add a value, or leave the claim out");
            return None;
        }
        values
    }

    fn shape() -> Shape {
        let one = Shape::AnyOf(vec![
            Shape::Text {
                noun: "a value of the claim",
                pattern: None,
                examples: &["gold"],
            },
            Shape::Integer {
                min: 0,
                max: i64::MAX.unsigned_abs(),
            },
            Shape::Boolean,
        ]);
        Shape::AnyOf(vec![one.clone(), Shape::List(Box::new(one))])
    }
}

fn decode_one(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<String> {
    let found = value.get_ref();
    if let Some(text) = found.as_str() {
        return Some(text.to_owned());
    }
    if let Some(number) = found.as_integer()
        && let Ok(number) = i64::from_str_radix(number.as_str(), number.radix())
    {
        return Some(number.to_string());
    }
    if let Some(truth) = found.as_bool() {
        return Some(truth.to_string());
    }
    cx.wrong_type(value, "a string, a whole number, true or false");
    None
}

/// Reports and leaves out fields that two claims would share.
pub(crate) fn check_header_names(
    entries: Option<Vec<NamedEntry<String>>>,
    cx: &mut Decoder<'_>,
) -> Option<Vec<NamedEntry<String>>> {
    let mut kept: Vec<NamedEntry<String>> = Vec::new();
    for entry in entries? {
        match kept
            .iter()
            .find(|known| known.value.is_some() && known.value == entry.value)
        {
            Some(known) => {
                let message = format!(
                    "the claims `{}` and `{}` have the same field",
                    known.name.value, entry.name.value
                );
                cx.error(Code::Duplicate, entry.name.span, message)
                    .help("an endpoint could not tell them apart; choose another field");
            }
            None => kept.push(entry),
        }
    }
    Some(kept)
}
