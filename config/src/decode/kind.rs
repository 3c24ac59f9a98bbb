//! The contract of every sort of value: how it is read, how it is described.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::shape::{Shape, TableInfo};
use crate::text::json::Json;

/// A sort of value: how it is read from the tree, and how it is described to people and editors.
pub(crate) trait ValueKind {
    /// What comes out.
    type Value;

    /// Reads `value`. `None` means that the reason has been reported.
    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value>;

    /// Describes what may be written.
    fn shape() -> Shape;
}

/// A kind whose values can be written back, which defaults need.
pub(crate) trait WritableKind: ValueKind {
    /// Writes `value` as a file would.
    fn to_json(value: &Self::Value) -> Json;
}

/// A kind that is a table with known keys.
pub(crate) trait TableKind: ValueKind {
    /// Its keys and what they mean.
    fn info() -> TableInfo;
}
