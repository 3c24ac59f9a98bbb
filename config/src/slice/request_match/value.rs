//! Predicates on values: of header fields, query parameters and certificates.

use toml::de::DeValue;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::PlainText;
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::value::field::FieldValueText;

/// A predicate on one header field or query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    /// The name; lower case for header fields.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// There must be one, any.
    Present,
    /// There must be none.
    Absent,
    /// Exactly this.
    Exact(String),
    /// Anything that starts with this.
    Prefix(String),
}

table! {
    /// The long form of a value to compare with.
    RawValueMatch, "value", "a value of match" {
        /// What the value must begin with.
        required prefix: String = "prefix" as PlainText;
    }
}

/// What a value must be: a string, a truth value, or a table.
pub(crate) struct ValueMatchKind;

impl ValueKind for ValueMatchKind {
    type Value = ValueMatch;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<ValueMatch> {
        match value.get_ref() {
            DeValue::Boolean(true) => Some(ValueMatch::Present),
            DeValue::Boolean(false) => Some(ValueMatch::Absent),
            DeValue::Table(_) => {
                RawValueMatch::decode(value, cx).map(|table| ValueMatch::Prefix(table.prefix))
            }
            _ => FieldValueText::decode(value, cx).map(ValueMatch::Exact),
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            FieldValueText::shape(),
            Shape::Boolean,
            RawValueMatch::shape(),
        ])
    }
}
