//! A block to fields.

use alloc::vec::Vec;

use weir_proto_h1::{FieldId, Span};

use super::dynamic_table::DynamicTable;
use super::error::Error;
use super::name::{NameId, PseudoField, is_name, is_value};
use super::{FIELD_OVERHEAD_BYTES, huffman, integer, static_table};

/// Table sizes at the front of one block: the lowest since the last block, and the last (RFC 7541,
/// section 4.2).
const SIZE_UPDATES_MAX: u32 = 2;

/// How many times what they may those fields can take that are not passed on, before no more work
/// is done for the block.
const BOMB_FACTOR: usize = 16;

/// Decodes the blocks that one peer sends, in their order.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What the peer has agreed to.
    table_bytes_max: u32,
    /// Says that the next block has to begin with a table size.
    expects_table_size: bool,
}

/// One field of a block. The spans are over the text that was passed to [`Decoder::decode`], the
/// value right behind the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedField {
    /// Which field of the start line it is; none for those of the names that are not defined, which
    /// begin with a colon too.
    pub pseudo: Option<PseudoField>,
    /// The name, when it is known.
    pub id: FieldId,
    /// The name as received.
    pub name: Span,
    /// The value as received.
    pub value: Span,
    /// Says that no intermediary may index it (RFC 7541, section 6.2.3).
    pub is_sensitive: bool,
    /// Says that the name is a lower-case token or a defined pseudo-field, and that the value has
    /// no control byte and no white space around it (RFC 9113, section 8.2.1). A message with a
    /// field of which this is false is malformed.
    pub is_valid: bool,
}

/// What became of a block that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOutcome<E> {
    /// Every field was passed on.
    Complete {
        /// Names and values with 32 bytes for each field (RFC 9113, section 6.5.2).
        list_bytes: u32,
    },
    /// The fields take more than they may; those that did not fit any more were not passed on.
    TooLarge,
    /// The caller refused a field; those behind it were not passed on.
    Refused(E),
}

impl Decoder {
    /// Makes a decoder for a table of so many bytes: what the peer knows before it has acknowledged
    /// any setting, which is [`TABLE_BYTES`](super::TABLE_BYTES).
    #[must_use]
    pub fn new(table_bytes_max: u32) -> Self {
        Self {
            table: DynamicTable::new(table_bytes_max),
            table_bytes_max,
            expects_table_size: false,
        }
    }

    /// Takes over a SETTINGS_HEADER_TABLE_SIZE of ours when the peer has acknowledged it.
    pub fn set_table_bytes_max(&mut self, table_bytes_max: u32) {
        self.table_bytes_max = table_bytes_max;
        //= rfc9113#4.3.1
        // A table that has become too large has to be made smaller by the next block.
        self.expects_table_size = self.table.size_max() > table_bytes_max;
    }

    /// Gives back memory that the table does not need now.
    pub fn release_memory(&mut self) {
        self.table.release_memory();
    }

    /// Decodes one complete block. Names and values are appended to `text`, and each field is
    /// passed on with the text so far.
    ///
    /// The fields may take `list_bytes_max` in all. Those beyond it, and all that follow the first
    /// that `each` refuses, are not stored; the table stays in step, so that the next block can be
    /// read, unless they are a [`Error::Bomb`]. Beyond `list_bytes_max`, `text` grows for a moment
    /// by no more than the table and twice the block.
    ///
    /// # Errors
    ///
    /// The block is malformed, and no other can be read.
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
            lost: 0,
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

    /// Takes the table sizes at the front of a block; gives what is behind them.
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

    /// A field that is in a table (RFC 7541, section 6.1).
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

    /// A field that is spelt out, its name perhaps in a table (RFC 7541, section 6.2). It is
    /// decoded even if it is not stored: the table may need it, and errors must be found.
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

    /// The name of an entry, what is known of it, and whether the entry holds only what it may.
    fn name(&self, index: usize) -> Result<(&[u8], NameId, bool), Error> {
        if let Some(entry) = static_table::get(index) {
            return Ok((entry.name(), entry.name_id, true));
        }
        // 0 becomes a number that no table reaches.
        let entry = self.table.get(index.wrapping_sub(static_table::LEN + 1));
        let entry = entry.ok_or(Error::BadIndex)?;
        Ok((self.table.name(entry), entry.name_id, entry.is_valid))
    }
}

/// Takes a string (RFC 7541, section 5.2) and appends what it says. Gives the rest.
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

/// Where the fields of a block go.
struct FieldSink<'t, F, E> {
    text: &'t mut Vec<u8>,
    each: F,
    list_bytes_max: usize,
    /// What is left of that; nothing once a field was refused.
    room: usize,
    /// What the fields take that were not passed on.
    lost: usize,
    refused: Option<E>,
}

impl<E, F: FnMut(&[u8], DecodedField) -> Result<(), E>> FieldSink<'_, F, E> {
    /// Counts a field; says whether it is still wanted.
    #[inline]
    fn has_room(&mut self, len: usize) -> Result<bool, Error> {
        match self.room.checked_sub(len + FIELD_OVERHEAD_BYTES as usize) {
            Some(room) => {
                self.room = room;
                Ok(true)
            }
            None => self.lose(len + FIELD_OVERHEAD_BYTES as usize),
        }
    }

    #[cold]
    fn lose(&mut self, size: usize) -> Result<bool, Error> {
        self.room = 0;
        self.lost += size;
        if self.lost > self.list_bytes_max.saturating_mul(BOMB_FACTOR) {
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
            None if self.lost > 0 => BlockOutcome::TooLarge,
            None => BlockOutcome::Complete {
                list_bytes: (self.list_bytes_max - self.room) as u32,
            },
        }
    }
}
