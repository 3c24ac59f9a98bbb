//! Why a block cannot be decoded.

use core::fmt;

/// Why a block cannot be decoded. The tables are out of step afterwards, so the connection ends
/// with COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The block ends within a field.
    Truncated,
    /// An index that neither table contains, or 0 where an entry is required (RFC 7541, section
    /// 2.3.3).
    BadIndex,
    /// An integer that is too long or too large (RFC 7541, section 5.1).
    BadInteger,
    /// A Huffman string with EOS, or with padding that is longer than seven bits or not all ones
    /// (RFC 7541, section 5.2).
    BadHuffman,
    /// A table size above the agreed limit (RFC 7541, section 6.3).
    TableSizeTooLarge,
    /// A table size after a field, or a third one (RFC 7541, section 4.2).
    UnexpectedTableSize,
    /// Fields that exceed the limit by 16 times the limit: an attack on memory or time.
    Bomb,
    /// No table size at the front of the block after the limit was lowered (RFC 9113, section
    /// 4.3.1).
    MissingTableSize,
}

impl Error {
    /// A stable name for logs, metrics and test cases: the variant in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadIndex => "bad_index",
            Self::BadInteger => "bad_integer",
            Self::BadHuffman => "bad_huffman",
            Self::TableSizeTooLarge => "table_size_too_large",
            Self::UnexpectedTableSize => "unexpected_table_size",
            Self::Bomb => "bomb",
            Self::MissingTableSize => "missing_table_size",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Error {}
