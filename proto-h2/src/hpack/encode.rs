//! Fields to a block, and what is worth a place in the peer's table.

use alloc::vec::Vec;

use weir_proto_h1::FieldId;

use super::dynamic_table::{DynamicEntry, DynamicTable};
use super::name::{NAME_CODES, NameId, PseudoField};
use super::{TABLE_BYTES, huffman, integer, static_table};

/// The name of a field to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldName<'a> {
    /// A field of the start line.
    PseudoField(PseudoField),
    /// A known name; not [`FieldId::Other`].
    Known(FieldId),
    /// Any other name, in any case: it is written in lower case.
    Text(&'a [u8]),
}

impl<'a> FieldName<'a> {
    /// The name of a field of a head.
    #[inline]
    #[must_use]
    pub const fn of(id: FieldId, text: &'a [u8]) -> Self {
        match id {
            FieldId::Other => Self::Text(text),
            id => Self::Known(id),
        }
    }
}

/// Whether a field is put into the peer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// It is: the next one like it is one byte.
    Index,
    /// It is, once it comes for the second time.
    IfRepeated,
    /// It is not.
    NoIndex,
    /// It is not, and no intermediary may do so either (RFC 7541, section 7.1.3).
    Never,
}

/// Cookies below this can be guessed, one at a time, from how much they compress: nghttp2's bound.
const COOKIE_BYTES_MIN: usize = 20;

/// Values above this take the place of too many others: an eighth of the table.
const VALUE_BYTES_MAX: usize = TABLE_BYTES as usize / 8;

impl Indexing {
    /// What to do with a field of a message that is passed on. What is the same in most messages of
    /// a connection is indexed; what may be, when it is seen again; what tells messages apart, and
    /// large values, are not; what authenticates somebody never is.
    #[must_use]
    pub fn of(name: FieldName<'_>, value: &[u8]) -> Self {
        let indexing = match name {
            FieldName::PseudoField(PseudoField::Path) => Self::NoIndex,
            FieldName::PseudoField(_) => Self::Index,
            FieldName::Known(id) => Self::of_known(id, value.len()),
            FieldName::Text(_) => Self::IfRepeated,
        };
        match indexing {
            Self::Index | Self::IfRepeated if value.len() > VALUE_BYTES_MAX => Self::NoIndex,
            indexing => indexing,
        }
    }

    const fn of_known(id: FieldId, value_len: usize) -> Self {
        match id {
            FieldId::Authorization | FieldId::ProxyAuthorization | FieldId::SetCookie => {
                Self::Never
            }
            FieldId::Cookie if value_len < COOKIE_BYTES_MIN => Self::Never,
            FieldId::ContentLength
            | FieldId::ContentRange
            | FieldId::Range
            | FieldId::IfRange
            | FieldId::Age
            | FieldId::XRequestId
            | FieldId::Traceparent
            | FieldId::Tracestate
            | FieldId::SecWebSocketKey
            | FieldId::SecWebSocketAccept => Self::NoIndex,
            FieldId::Host
            | FieldId::Te
            | FieldId::Via
            | FieldId::Forwarded
            | FieldId::XForwardedProto
            | FieldId::XForwardedHost
            | FieldId::Server
            | FieldId::ContentType
            | FieldId::ContentEncoding
            | FieldId::ContentLanguage
            | FieldId::UserAgent
            | FieldId::Accept
            | FieldId::AcceptEncoding
            | FieldId::AcceptLanguage
            | FieldId::AcceptRanges
            | FieldId::CacheControl
            | FieldId::Pragma
            | FieldId::Vary
            | FieldId::Origin
            | FieldId::Allow => Self::Index,
            _ => Self::IfRepeated,
        }
    }
}

/// Encodes the blocks that one peer receives, in their order.
#[derive(Clone, Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// The lowest table size since the last block, if the peer has to be told.
    lowest: Option<u32>,
    /// How many entries were ever put in, wrapping: an entry's number is the count before it. The
    /// table never holds 256, so a byte tells them apart.
    count: u8,
    /// The newest entry by a hash of name and value. What is found has to be compared.
    fields: [u8; FIELD_SLOTS],
    /// The next older entry of the same hash, by the number of an entry.
    older: [u8; ENTRIES_MAX],
    /// The newest entry by a hash of the name.
    names: [u8; NAME_SLOTS],
    /// Hashes of fields that came once, the last ones of each set.
    seen: [[u16; SEEN_WAYS]; SEEN_SETS],
    /// A name in lower case.
    name: Vec<u8>,
}

const ENTRIES_MAX: usize = (TABLE_BYTES / super::FIELD_OVERHEAD_BYTES) as usize;
const FIELD_SLOTS: usize = 128;
/// Known names have one each.
const NAME_SLOTS: usize = 128;
const SEEN_SETS: usize = 32;
const SEEN_WAYS: usize = 4;

const _: () = assert!(ENTRIES_MAX < 256 && 256 % ENTRIES_MAX == 0);

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Makes an encoder for a peer whose settings are not known yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: DynamicTable::new(TABLE_BYTES),
            lowest: None,
            count: 0,
            fields: [0; FIELD_SLOTS],
            older: [0; ENTRIES_MAX],
            names: [0; NAME_SLOTS],
            seen: [[0; SEEN_WAYS]; SEEN_SETS],
            name: Vec::new(),
        }
    }

    /// Takes over the peer's SETTINGS_HEADER_TABLE_SIZE, between two blocks. Of more than
    /// [`TABLE_BYTES`] no use is made.
    pub fn set_table_bytes_max(&mut self, table_bytes_max: u32) {
        let size_max = table_bytes_max.min(TABLE_BYTES);
        if size_max != self.table.size_max() {
            self.lowest = Some(self.lowest.unwrap_or(size_max).min(size_max));
            self.table.resize(size_max);
        }
    }

    /// Gives back memory that the table does not need now.
    pub fn release_memory(&mut self) {
        self.table.release_memory();
        self.name = Vec::new();
    }

    /// Appends a field to the block that is being made. A block is made at once, by this encoder
    /// alone; its bytes come to stand in `out` because a frame says its length before them.
    #[inline]
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        name: FieldName<'_>,
        value: &[u8],
        indexing: Indexing,
    ) {
        // Most fields are the same as last time, and this is all there is to do for them.
        if let (FieldName::Known(id), Indexing::Index | Indexing::IfRepeated) = (name, indexing)
            && self.lowest.is_none()
            && let Some((newer, entry)) = self.newest_in(id as u8)
            && entry.code == id as u8
            && self.table.value(entry) == value
        {
            return integer::write(out, INDEXED, 0x7f, static_table::LEN + 1 + newer);
        }
        self.encode_any(out, name, value, indexing);
    }

    fn encode_any(
        &mut self,
        out: &mut Vec<u8>,
        name: FieldName<'_>,
        value: &[u8],
        indexing: Indexing,
    ) {
        debug_assert_ne!(name, FieldName::Known(FieldId::Other), "that is no name");
        if self.lowest.is_some() {
            self.table_sizes(out);
        }
        if let FieldName::PseudoField(pseudo) = name
            && let index @ 1.. = static_table::pseudo_field(pseudo, value)
        {
            return out.push(INDEXED | index as u8);
        }
        let key = NameKey::of(name);
        if let Indexing::NoIndex | Indexing::Never = indexing {
            return self.spell_out(out, &key, value, indexing);
        }
        match self.newest_of(&key) {
            Some((newer, entry)) if self.table.value(entry) == value => {
                integer::write(out, INDEXED, 0x7f, static_table::LEN + 1 + newer);
            }
            _ => self.search(out, &key, value, indexing),
        }
    }

    //= rfc7541#4.2
    // The lowest size is said, because entries were dropped for it, and the last.
    #[cold]
    fn table_sizes(&mut self, out: &mut Vec<u8>) {
        let size = self.table.size_max();
        if let Some(lowest) = self.lowest.take()
            && lowest != size
        {
            integer::write(out, 0x20, 0x1f, lowest as usize);
        }
        integer::write(out, 0x20, 0x1f, size as usize);
    }

    /// Finds a field in what is left to be searched, or puts it there.
    #[inline(never)]
    fn search(&mut self, out: &mut Vec<u8>, key: &NameKey<'_>, value: &[u8], indexing: Indexing) {
        if key.code == FieldId::AcceptEncoding as u8 && value == b"gzip, deflate" {
            return out.push(INDEXED | 16);
        }
        let hash = hash::<0>(value, u64::from(key.slot) << 32 | value.len() as u64);
        if let Some((newer, number)) = self.find(hash, key, value) {
            // The next field of this name is like this one rather than like the newest.
            if let Some(newest) = self.names.get_mut(usize::from(key.slot)) {
                *newest = number;
            }
            return integer::write(out, INDEXED, 0x7f, static_table::LEN + 1 + newer);
        }
        if indexing == Indexing::IfRepeated && !self.is_repeated(hash) {
            return self.spell_out(out, key, value, Indexing::NoIndex);
        }
        self.literal(out, WITH_INDEXING, 0x3f, self.name_index(key), key, value);
        self.insert(key, value, hash);
    }

    /// Finds a whole field among the entries of its hash: how many are newer, and its number.
    fn find(&self, hash: u64, key: &NameKey<'_>, value: &[u8]) -> Option<(usize, u8)> {
        let mut number = *self.fields.get(field_slot(hash))?;
        let (mut newer, mut entry) = self.entry(number)?;
        loop {
            if key.is_name_of(entry, &self.table) && self.table.value(entry) == value {
                return Some((newer, number));
            }
            number = *self.older.get(usize::from(number) % ENTRIES_MAX)?;
            let next = self.entry(number)?;
            // The number of an entry that is gone may be another's by now, even a newer one's.
            if next.0 <= newer {
                return None;
            }
            (newer, entry) = next;
        }
    }

    /// Says whether a field came before, and remembers it if not.
    fn is_repeated(&mut self, hash: u64) -> bool {
        let mark = (hash >> 32) as u16;
        let Some(seen) = self.seen.get_mut((hash >> 48) as usize % SEEN_SETS) else {
            return false;
        };
        if seen.contains(&mark) {
            return true;
        }
        seen.rotate_right(1);
        if let Some(first) = seen.first_mut() {
            *first = mark;
        }
        false
    }

    fn insert(&mut self, key: &NameKey<'_>, value: &[u8], hash: u64) {
        if let Some(newest) = self.fields.get_mut(field_slot(hash))
            && let Some(older) = self.older.get_mut(usize::from(self.count) % ENTRIES_MAX)
        {
            (*newest, *older) = (self.count, *newest);
        }
        if let Some(newest) = self.names.get_mut(usize::from(key.slot)) {
            *newest = self.count;
        }
        self.count = self.count.wrapping_add(1);
        key.lower(&mut self.name);
        let name_id = key.name_id();
        self.table.insert(&self.name, value, name_id, true);
    }

    /// Writes a field that is not looked for. A known name that the peer does not have yet goes into
    /// its table with this value, so that it is spelt out once.
    #[inline]
    fn spell_out(
        &mut self,
        out: &mut Vec<u8>,
        key: &NameKey<'_>,
        value: &[u8],
        indexing: Indexing,
    ) {
        let index = self.name_index(key);
        if indexing == Indexing::Never {
            self.literal(out, NEVER_INDEXED, 0x0f, index, key, value);
        } else if index == 0 && key.code != 0 && value.len() <= VALUE_BYTES_MAX {
            self.literal(out, WITH_INDEXING, 0x3f, index, key, value);
            self.insert(key, value, u64::from(key.code) << 57);
        } else {
            self.literal(out, WITHOUT_INDEXING, 0x0f, index, key, value);
        }
    }

    #[inline]
    fn literal(
        &mut self,
        out: &mut Vec<u8>,
        pattern: u8,
        mask: u8,
        name_index: usize,
        key: &NameKey<'_>,
        value: &[u8],
    ) {
        integer::write(out, pattern, mask, name_index);
        if name_index == 0 {
            key.lower(&mut self.name);
            huffman::write(out, &self.name);
        }
        huffman::write(out, value);
    }

    /// The index of a name; 0 if no table has it.
    #[inline]
    fn name_index(&self, key: &NameKey<'_>) -> usize {
        match key.fixed_name() {
            0 => self
                .newest_of(key)
                .map_or(0, |(newer, _)| static_table::LEN + 1 + newer),
            index => index,
        }
    }

    /// Finds the newest entry of a name, or the one that was used last, and how many are newer.
    #[inline]
    fn newest_of(&self, key: &NameKey<'_>) -> Option<(usize, &DynamicEntry)> {
        let (newer, entry) = self.newest_in(key.slot)?;
        key.is_name_of(entry, &self.table).then_some((newer, entry))
    }

    #[inline]
    fn newest_in(&self, slot: u8) -> Option<(usize, &DynamicEntry)> {
        self.entry(*self.names.get(usize::from(slot))?)
    }

    /// Finds an entry by its number, if it is still there, and how many are newer.
    #[inline]
    fn entry(&self, number: u8) -> Option<(usize, &DynamicEntry)> {
        let newer = usize::from(self.count.wrapping_sub(number).wrapping_sub(1));
        Some((newer, self.table.get(newer)?))
    }
}

/// The bits that begin each form of a field (RFC 7541, section 6).
const INDEXED: u8 = 0x80;
const WITH_INDEXING: u8 = 0x40;
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// A name as it is looked up.
struct NameKey<'a> {
    name: FieldName<'a>,
    /// The code of its label.
    code: u8,
    /// Where its newest entry is noted.
    slot: u8,
}

impl<'a> NameKey<'a> {
    #[inline]
    fn of(name: FieldName<'a>) -> Self {
        let (code, slot) = match name {
            FieldName::PseudoField(pseudo) => {
                (NameId::pseudo(pseudo).code(), NameId::pseudo(pseudo).code())
            }
            FieldName::Known(id) => (id as u8, id as u8),
            FieldName::Text(text) => {
                let slots = NAME_SLOTS as u64 - u64::from(NAME_CODES);
                let hash = hash::<0x20>(text, text.len() as u64) >> 32;
                (0, NAME_CODES + (hash % slots) as u8)
            }
        };
        Self { name, code, slot }
    }

    const fn name_id(&self) -> NameId {
        match self.name {
            FieldName::PseudoField(pseudo) => NameId::pseudo(pseudo),
            FieldName::Known(id) => NameId::field(id),
            FieldName::Text(_) => NameId::UNKNOWN,
        }
    }

    #[inline]
    fn is_name_of(&self, entry: &DynamicEntry, table: &DynamicTable) -> bool {
        entry.code == self.code
            && match self.name {
                FieldName::Text(text) => {
                    let name = table.name(entry);
                    name == text || name.eq_ignore_ascii_case(text)
                }
                _ => true,
            }
    }

    /// The first index of the name in the static table; 0 if it is not there.
    fn fixed_name(&self) -> usize {
        match self.name {
            FieldName::PseudoField(pseudo) => static_table::pseudo_index(pseudo),
            FieldName::Known(id) => static_table::name_index(id),
            FieldName::Text(text) => static_table::unlisted_index(text),
        }
    }

    /// Spells the name in lower case.
    fn lower(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(match self.name {
            FieldName::PseudoField(pseudo) => pseudo.name().as_bytes(),
            FieldName::Known(id) => id.name().as_bytes(),
            FieldName::Text(text) => text,
        });
        out.make_ascii_lowercase();
    }
}

#[inline]
const fn field_slot(hash: u64) -> usize {
    (hash >> 57) as usize
}

/// A hash whose high bits depend on all of the bytes, taken with the bits of `FOLD` set.
#[inline]
fn hash<const FOLD: u8>(bytes: &[u8], seed: u64) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = u64::from_le_bytes([FOLD; 8]);
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ (word | fold)).wrapping_mul(SPREAD);
        hash ^ hash >> 32
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(seed, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let last = match (
        bytes.last_chunk::<8>(),
        bytes.first_chunk::<4>(),
        bytes.last_chunk::<4>(),
    ) {
        // Some bytes come twice, which does no harm.
        (Some(last), _, _) => u64::from_le_bytes(*last),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => rest
            .iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    (hash ^ (last | fold)).wrapping_mul(SPREAD)
}
