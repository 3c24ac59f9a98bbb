//! Why a block cannot be read.

use core::fmt;

/// Why a block cannot be read. After any of them the tables are out of step: the connection ends
/// with COMPRESSION_ERROR, for a [`Error::Bomb`] with ENHANCE_YOUR_CALM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The block ends within a field.
    Truncated,
    /// An index that neither table has, or 0 where an entry must be meant (RFC 7541, section 2.3.3).
    BadIndex,
    /// A number longer or larger than any in use (RFC 7541, section 5.1).
    BadInteger,
    /// A Huffman string that holds EOS, or whose padding is longer than seven bits or not of ones
    /// (RFC 7541, section 5.2).
    BadHuffman,
    /// A table size above what was agreed (RFC 7541, section 6.3).
    TableSizeTooLarge,
    /// A table size behind a field, or a third one (RFC 7541, section 4.2).
    UnexpectedTableSize,
    /// Fields that take 16 times what they may, beyond what they may: an attack on memory or time.
    Bomb,
    /// No table size at the front of the block after the agreed one was lowered (RFC 9113, section
    /// 4.3.1).
    MissingTableSize,
}

impl Error {
    /// A stable word for logs, metrics and test tables: the name in lower case with underscores.
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
