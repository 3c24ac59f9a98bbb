//! Fields to field blocks, and which fields are worth a place in the peer's table.

use alloc::vec::Vec;

use weir_proto_h1::FieldId;

use super::dynamic_table::{DynamicEntry, DynamicTable};
use super::name::{NAME_CODES, NameId, PseudoField};
use super::{TABLE_BYTES, huffman, integer, static_table};

/// The name of a field to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldName<'a> {
    /// A pseudo-field.
    PseudoField(PseudoField),
    /// A known name; not [`FieldId::Other`].
    Known(FieldId),
    /// Any other name, in any case. The encoder writes it in lower case.
    Text(&'a [u8]),
}

impl<'a> FieldName<'a> {
    /// The name of a field in a head.
    #[inline]
    #[must_use]
    pub const fn of(id: FieldId, text: &'a [u8]) -> Self {
        match id {
            FieldId::Other => Self::Text(text),
            id => Self::Known(id),
        }
    }
}

/// Whether the peer's table gets a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// Yes. The next equal field takes one byte.
    Index,
    /// Yes, when the field appears for the second time.
    IfRepeated,
    /// No.
    NoIndex,
    /// No, and no intermediary may index it either (RFC 7541, section 7.1.3).
    Never,
}

/// An attacker could guess shorter cookies from how well they compress. nghttp2 has the same bound.
const COOKIE_BYTES_MIN: usize = 20;

/// Longer values would replace too many others: an eighth of the table.
const VALUE_BYTES_MAX: usize = TABLE_BYTES as usize / 8;

/// Up to this length, a value that goes into no table is not Huffman-encoded. Such values are mostly numbers and digests,
/// new in each message: the code saves a quarter of few bytes, and costs both sides more than the other fields do.
const UNCODED_BYTES_MAX: usize = 64;

impl Indexing {
    /// The policy for fields that a proxy passes on. Fields that most messages of a connection
    /// share are indexed; fields that may repeat are indexed when they do. Fields that differ from
    /// message to message and long values are not indexed. Credentials are never indexed.
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

/// Encodes the blocks for one peer, in order.
#[derive(Clone, Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// The lowest table size since the last block, if this side must still announce it.
    lowest: Option<u32>,
    /// The number of insertions, wrapping. An entry's number is the count before its insertion. The
    /// table never holds 256 entries, so a byte identifies them.
    count: u8,
    /// The newest entry for a hash of name and value. The caller compares the entry.
    fields: [u8; FIELD_SLOTS],
    /// The next older entry with the same hash, by entry number.
    older: [u8; ENTRIES_MAX],
    /// The newest entry for a hash of the name.
    names: [u8; NAME_SLOTS],
    /// Hashes of fields that appeared once: the most recent of each set.
    seen: [[u16; SEEN_WAYS]; SEEN_SETS],
    /// A name in lower case.
    name: Vec<u8>,
}

const ENTRIES_MAX: usize = (TABLE_BYTES / super::FIELD_OVERHEAD_BYTES) as usize;
const FIELD_SLOTS: usize = 128;
/// Each known name has its own slot.
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

    /// Applies the peer's SETTINGS_HEADER_TABLE_SIZE, between two blocks. The encoder uses at most
    /// [`TABLE_BYTES`].
    pub fn set_table_bytes_max(&mut self, table_bytes_max: u32) {
        let size_max = table_bytes_max.min(TABLE_BYTES);
        if size_max != self.table.size_max() {
            self.lowest = Some(self.lowest.unwrap_or(size_max).min(size_max));
            self.table.resize(size_max);
        }
    }

    /// Frees memory that the table does not need.
    pub fn release_memory(&mut self) {
        self.table.release_memory();
        self.name = Vec::new();
    }

    /// Appends a field to the current block. Only one block may be under way. `out` holds it until
    /// its length is known, which goes into the frame header before it.
    #[inline]
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        name: FieldName<'_>,
        value: &[u8],
        indexing: Indexing,
    ) {
        // Most fields equal the last one of their name, and need no more than this.
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
        debug_assert_ne!(
            name,
            FieldName::Known(FieldId::Other),
            "`Other` is not a name"
        );
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
    // The lowest size is stated because entries were dropped for it, then the last size.
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

    /// Searches for a field by its hash, or inserts it.
    #[inline(never)]
    fn search(&mut self, out: &mut Vec<u8>, key: &NameKey<'_>, value: &[u8], indexing: Indexing) {
        if key.code == FieldId::AcceptEncoding as u8 && value == b"gzip, deflate" {
            return out.push(INDEXED | 16);
        }
        let hash = hash::<0>(value, u64::from(key.slot) << 32 | value.len() as u64);
        if let Some((newer, number)) = self.find(hash, key, value) {
            // The next field of this name is probably like this one and unlike the newest.
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

    /// Finds a field among the entries with its hash. Returns how many are newer, and its number.
    fn find(&self, hash: u64, key: &NameKey<'_>, value: &[u8]) -> Option<(usize, u8)> {
        let mut number = *self.fields.get(field_slot(hash))?;
        let (mut newer, mut entry) = self.entry(number)?;
        loop {
            if key.is_name_of(entry, &self.table) && self.table.value(entry) == value {
                return Some((newer, number));
            }
            number = *self.older.get(usize::from(number) % ENTRIES_MAX)?;
            let next = self.entry(number)?;
            // The number of a dropped entry may belong to another entry by now, even to a newer
            // one.
            if next.0 <= newer {
                return None;
            }
            (newer, entry) = next;
        }
    }

    /// Returns whether a field appeared before. Remembers it if not.
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

    /// Writes a field as a literal. If the peer's table lacks a known name, the field goes into it,
    /// so that the name is spelt out only once.
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
        if pattern == WITHOUT_INDEXING && value.len() <= UNCODED_BYTES_MAX {
            huffman::write_plain(out, value);
        } else {
            huffman::write(out, value);
        }
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

    /// Finds the newest or last used entry of a name, and how many are newer.
    #[inline]
    fn newest_of(&self, key: &NameKey<'_>) -> Option<(usize, &DynamicEntry)> {
        let (newer, entry) = self.newest_in(key.slot)?;
        key.is_name_of(entry, &self.table).then_some((newer, entry))
    }

    #[inline]
    fn newest_in(&self, slot: u8) -> Option<(usize, &DynamicEntry)> {
        self.entry(*self.names.get(usize::from(slot))?)
    }

    /// Finds an entry by its number, if it still exists, and how many are newer.
    #[inline]
    fn entry(&self, number: u8) -> Option<(usize, &DynamicEntry)> {
        let newer = usize::from(self.count.wrapping_sub(number).wrapping_sub(1));
        Some((newer, self.table.get(newer)?))
    }
}

/// The first bits of each form of a field (RFC 7541, section 6).
const INDEXED: u8 = 0x80;
const WITH_INDEXING: u8 = 0x40;
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// A name, prepared for lookup.
struct NameKey<'a> {
    name: FieldName<'a>,
    /// The code of its [`NameId`].
    code: u8,
    /// The slot for its newest entry.
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

    /// Writes the name in lower case.
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

/// A hash whose high bits depend on all bytes. `FOLD` sets bits in each byte first.
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
        // Some bytes count twice, which does no harm.
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
