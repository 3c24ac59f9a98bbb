//! What every kind of value can do: be read, be described, be written back.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::shape::{Shape, TableInfo};
use crate::text::json::Json;

/// A kind of value: how to read it from the tree, and how to describe it to people and editors.
pub(crate) trait ValueKind {
    /// The type of a value that was read.
    type Value;

    /// Reads `value`. `None` means that `cx` has the reason.
    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value>;

    /// Describes what a file may say.
    fn shape() -> Shape;
}

/// A kind whose values can be written, so that a key may have a default.
pub(crate) trait WritableKind: ValueKind {
    /// Writes `value` as a file would.
    fn to_json(value: &Self::Value) -> Json;
}

/// A table with known keys.
pub(crate) trait TableKind: ValueKind {
    /// Its keys, and what they do.
    fn info() -> TableInfo;
}
