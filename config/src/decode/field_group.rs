//! Keys that several tables share.

use crate::decode::decoder::Decoder;
use crate::decode::reader::TableReader;
use crate::decode::shape::{FieldInfo, ForeignName};

/// Keys that several tables share. Each of these tables takes them in by `with`.
pub(crate) trait FieldGroup: Sized {
    /// Reads the keys of the table at hand.
    fn read(reader: &TableReader<'_, '_>, cx: &mut Decoder<'_>) -> Self;

    /// The keys, and what they do.
    fn fields() -> Vec<FieldInfo>;

    /// What other proxies call the keys.
    fn foreign() -> &'static [ForeignName];
}
