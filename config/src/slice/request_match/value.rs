//! Predicates of a match: on header fields, query parameters and certificates.

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
    /// The name; of header fields in lower case.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// There must be a value.
    Present,
    /// There must be no value.
    Absent,
    /// This value.
    Exact(String),
    /// A value that begins with this.
    Prefix(String),
}

table! {
    /// A value that need not match as a whole.
    RawValueMatch, "value", "a value of match" {
        /// The beginning that the value must have.
        required prefix: String = "prefix" as PlainText;
    }
}

/// A string, a boolean or a table.
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
