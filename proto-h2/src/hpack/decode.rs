//! Field blocks to fields.

use alloc::vec::Vec;

use weir_proto_h1::{FieldId, Span};

use super::dynamic_table::DynamicTable;
use super::error::Error;
use super::name::{NameId, PseudoField, is_name, is_value};
use super::{FIELD_OVERHEAD_BYTES, huffman, integer, static_table};

/// Table sizes at the front of a block: the lowest since the last block, and the last (RFC 7541,
/// section 4.2).
const SIZE_UPDATES_MAX: u32 = 2;

/// Decoding stops when the fields beyond the limit take this many times the limit.
const BOMB_FACTOR: usize = 16;

/// Decodes the blocks of one peer, in order.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// The limit that the peer has acknowledged.
    table_bytes_max: u32,
    /// Whether the next block must begin with a table size.
    expects_table_size: bool,
}

/// A field of a block. Its spans are over the text passed to [`Decoder::decode`]. The value follows
/// the name directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedField {
    /// The pseudo-field, if its name is a defined one. Undefined names also begin with a colon.
    pub pseudo: Option<PseudoField>,
    /// The known name, or [`FieldId::Other`].
    pub id: FieldId,
    /// The name as received.
    pub name: Span,
    /// The value as received.
    pub value: Span,
    /// Whether no intermediary may index the field (RFC 7541, section 6.2.3).
    pub is_sensitive: bool,
    /// Whether the field is valid: the name is a lower-case token or a defined pseudo-field, and
    /// the value has no control byte and no surrounding whitespace (RFC 9113, section 8.2.1).
    /// Otherwise the message is malformed.
    pub is_valid: bool,
}

/// The result of a block that could be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome<E> {
    /// `each` got every field.
    Complete {
        /// Bytes of names and values, with 32 extra for each field (RFC 9113, section 6.5.2).
        list_bytes: u32,
    },
    /// The fields exceed the limit. `each` did not get those beyond it.
    TooLarge,
    /// `each` refused a field and did not get those after it.
    Refused(E),
}

impl Decoder {
    /// Makes a decoder with a table of this size. Before the peer has acknowledged any setting,
    /// that is [`TABLE_BYTES`](super::TABLE_BYTES).
    #[must_use]
    pub fn new(table_bytes_max: u32) -> Self {
        Self {
            table: DynamicTable::new(table_bytes_max),
            table_bytes_max,
            expects_table_size: false,
        }
    }

    /// Applies a SETTINGS_HEADER_TABLE_SIZE that the peer has acknowledged.
    pub fn set_table_bytes_max(&mut self, table_bytes_max: u32) {
        self.table_bytes_max = table_bytes_max;
        //= rfc9113#4.3.1
        // If the table is too large now, the next block must shrink it.
        self.expects_table_size = self.table.size_max() > table_bytes_max;
    }

    /// Frees memory that the table does not need.
    pub fn release_memory(&mut self) {
        self.table.release_memory();
    }

    /// Decodes a complete block. Appends names and values to `text`, and calls `each` with every
    /// field and the text so far.
    ///
    /// The fields may take `list_bytes_max` bytes in total. Later fields, and those after the first
    /// that `each` refuses, are not stored. The table still gets them, so that the next block can
    /// be decoded, unless they are a [`Error::Bomb`]. Beyond the limit, `text` grows temporarily by
    /// at most the table and twice the block.
    ///
    /// # Errors
    ///
    /// The block is malformed, and no later one can be decoded.
    pub fn decode<E>(
        &mut self,
        block: &[u8],
        text: &mut Vec<u8>,
        list_bytes_max: u32,
        each: impl FnMut(&[u8], DecodedField) -> Result<(), E>,
    ) -> Result<BlockOutcome<E>, Error> {
        let mut fields = FieldSink {
            text,
            each,
            list_bytes_max: list_bytes_max as usize,
            room: list_bytes_max as usize,
            dropped_bytes: 0,
            refused: None,
        };
        let mut rest = self.table_sizes(block)?;
        while let Some((&first, tail)) = rest.split_first() {
            rest = if first & 0x80 != 0 {
                let (index, tail) = integer::read(first, 0x7f, tail)?;
                self.indexed(index, &mut fields)?;
                tail
            } else if first & 0x40 != 0 {
                self.literal(first, 0x3f, tail, &mut fields)?
            } else if first & 0x20 != 0 {
                return Err(Error::UnexpectedTableSize);
            } else {
                self.literal(first, 0x0f, tail, &mut fields)?
            };
        }
        Ok(fields.outcome())
    }

    /// Parses the table sizes at the front of a block. Returns the rest.
    #[inline]
    fn table_sizes<'b>(&mut self, mut block: &'b [u8]) -> Result<&'b [u8], Error> {
        let mut count = 0;
        while let Some((&first, tail)) = block.split_first()
            && first & 0xe0 == 0x20
        {
            let size;
            (size, block) = integer::read(first, 0x1f, tail)?;
            count += 1;
            if count > SIZE_UPDATES_MAX {
                return Err(Error::UnexpectedTableSize);
            }
            if size > self.table_bytes_max as usize {
                return Err(Error::TableSizeTooLarge);
            }
            self.table.resize(size as u32);
            self.expects_table_size = false;
        }
        if self.expects_table_size {
            return Err(Error::MissingTableSize);
        }
        Ok(block)
    }

    /// Decodes an indexed field (RFC 7541, section 6.1).
    #[inline]
    fn indexed<E, F>(&self, index: usize, fields: &mut FieldSink<'_, F, E>) -> Result<(), Error>
    where
        F: FnMut(&[u8], DecodedField) -> Result<(), E>,
    {
        let start = fields.text.len();
        if let Some(index) = index.checked_sub(static_table::LEN + 1) {
            let entry = self.table.get(index).ok_or(Error::BadIndex)?;
            if fields.has_room(entry.text_len())? {
                fields.text.extend_from_slice(self.table.text(entry));
                let (name_len, name_id) = (entry.name_len(), entry.name_id);
                fields.pass_on(start, name_len, name_id, false, entry.is_valid);
            }
        } else {
            let entry = static_table::get(index).ok_or(Error::BadIndex)?;
            if fields.has_room(entry.text.len())? {
                fields.text.extend_from_slice(entry.text);
                fields.pass_on(start, entry.name_len, entry.name_id, false, true);
            }
        }
        Ok(())
    }

    /// Decodes a literal field, whose name may be in a table (RFC 7541, section 6.2). Also decodes
    /// fields that are not stored, because the table may need them and they may be malformed.
    fn literal<'b, E, F>(
        &mut self,
        first: u8,
        mask: u8,
        rest: &'b [u8],
        fields: &mut FieldSink<'_, F, E>,
    ) -> Result<&'b [u8], Error>
    where
        F: FnMut(&[u8], DecodedField) -> Result<(), E>,
    {
        let start = fields.text.len();
        let (index, mut rest) = integer::read(first, mask, rest)?;
        let (name_id, is_valid_name);
        if index == 0 {
            rest = string(rest, fields.text)?;
            let name = fields.text.get(start..).unwrap_or_default();
            (name_id, is_valid_name) = (NameId::of(name), is_name(name));
        } else {
            let (name, known, is_valid) = self.name(index)?;
            (name_id, is_valid_name) = (known, is_valid || is_name(name));
            fields.text.extend_from_slice(name);
        }
        let name_end = fields.text.len();
        rest = string(rest, fields.text)?;
        let value = fields.text.get(name_end..).unwrap_or_default();
        let is_valid = is_valid_name && is_value(value);
        if mask == 0x3f {
            let name = fields.text.get(start..name_end).unwrap_or_default();
            self.table.insert(name, value, name_id, is_valid);
        }
        if fields.has_room(fields.text.len() - start)? {
            let is_sensitive = mask == 0x0f && first & 0x10 != 0;
            fields.pass_on(start, name_end - start, name_id, is_sensitive, is_valid);
        } else {
            fields.text.truncate(start);
        }
        Ok(rest)
    }

    /// The name of an entry, its id, and whether the entry is valid.
    fn name(&self, index: usize) -> Result<(&[u8], NameId, bool), Error> {
        if let Some(entry) = static_table::get(index) {
            return Ok((entry.name(), entry.name_id, true));
        }
        // 0 becomes an index that no table contains.
        let entry = self.table.get(index.wrapping_sub(static_table::LEN + 1));
        let entry = entry.ok_or(Error::BadIndex)?;
        Ok((self.table.name(entry), entry.name_id, entry.is_valid))
    }
}

/// Decodes a string (RFC 7541, section 5.2) and appends it. Returns the rest.
fn string<'b>(block: &'b [u8], text: &mut Vec<u8>) -> Result<&'b [u8], Error> {
    let (&first, rest) = block.split_first().ok_or(Error::Truncated)?;
    let (len, rest) = integer::read(first, 0x7f, rest)?;
    let (string, rest) = rest.split_at_checked(len).ok_or(Error::Truncated)?;
    if first & 0x80 != 0 {
        huffman::decode(string, text)?;
    } else {
        text.extend_from_slice(string);
    }
    Ok(rest)
}

/// Collects the fields of a block.
struct FieldSink<'t, F, E> {
    text: &'t mut Vec<u8>,
    each: F,
    list_bytes_max: usize,
    /// What remains of the limit; 0 after a refused field.
    room: usize,
    /// Bytes of the fields that were not passed on.
    dropped_bytes: usize,
    refused: Option<E>,
}

impl<E, F: FnMut(&[u8], DecodedField) -> Result<(), E>> FieldSink<'_, F, E> {
    /// Counts a field. Returns whether it fits.
    #[inline]
    fn has_room(&mut self, len: usize) -> Result<bool, Error> {
        match self.room.checked_sub(len + FIELD_OVERHEAD_BYTES as usize) {
            Some(room) => {
                self.room = room;
                Ok(true)
            }
            None => self.drop_field(len + FIELD_OVERHEAD_BYTES as usize),
        }
    }

    #[cold]
    fn drop_field(&mut self, size: usize) -> Result<bool, Error> {
        self.room = 0;
        self.dropped_bytes += size;
        if self.dropped_bytes > self.list_bytes_max.saturating_mul(BOMB_FACTOR) {
            return Err(Error::Bomb);
        }
        Ok(false)
    }

    /// Passes on the field at the end of the text.
    #[inline]
    fn pass_on(
        &mut self,
        start: usize,
        name_len: usize,
        name_id: NameId,
        is_sensitive: bool,
        is_valid: bool,
    ) {
        let field = DecodedField {
            pseudo: name_id.pseudo,
            id: name_id.id,
            name: Span::new(start, start + name_len),
            value: Span::new(start + name_len, self.text.len()),
            is_sensitive,
            is_valid,
        };
        if let Err(why) = (self.each)(self.text, field) {
            self.refused = Some(why);
            self.room = 0;
        }
    }

    fn outcome(self) -> BlockOutcome<E> {
        match self.refused {
            Some(why) => BlockOutcome::Refused(why),
            None if self.dropped_bytes > 0 => BlockOutcome::TooLarge,
            None => BlockOutcome::Complete {
                list_bytes: (self.list_bytes_max - self.room) as u32,
            },
        }
    }
}
