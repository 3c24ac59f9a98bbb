//! Fields to a block, and what is worth a place in the peer's table.

use alloc::vec::Vec;

use weir_proto_h1::FieldId;

use super::label::{Label, Pseudo};
use super::table::{Entry, Table};
use super::{TABLE_BYTES, fixed, huffman, integer};

/// The name of a field to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A field of the start line.
    Pseudo(Pseudo),
    /// A known name; not [`FieldId::Other`].
    Known(FieldId),
    /// Any other name, in any case: it is written in lower case.
    Text(&'a [u8]),
}

impl<'a> Name<'a> {
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
    pub fn of(name: Name<'_>, value: &[u8]) -> Self {
        let indexing = match name {
            Name::Pseudo(Pseudo::Path) => Self::NoIndex,
            Name::Pseudo(_) => Self::Index,
            Name::Known(id) => Self::of_known(id, value.len()),
            Name::Text(_) => Self::IfRepeated,
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
    table: Table,
    /// The lowest table size since the last block, if the peer has to be told.
    lowest: Option<u32>,
    /// How many entries were ever put in, wrapping: an entry's number is the count before it. The
    /// table never holds 256, so a byte tells them apart.
    count: u8,
    /// Numbers of entries by a hash of name and value. What is found has to be compared.
    fields: [u8; FIELD_SLOTS],
    /// Numbers of entries by a hash of the name.
    names: [u8; NAME_SLOTS],
    /// Hashes of fields that came once.
    seen: [u16; SEEN_SLOTS],
    /// A name in lower case.
    name: Vec<u8>,
}

const FIELD_SLOTS: usize = 128;
const NAME_SLOTS: usize = 64;
const SEEN_SLOTS: usize = 64;

const _: () = assert!(
    TABLE_BYTES / super::FIELD_OVERHEAD_BYTES < 256,
    "a byte numbers entries"
);

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
            table: Table::new(TABLE_BYTES),
            lowest: None,
            count: 0,
            fields: [0; FIELD_SLOTS],
            names: [0; NAME_SLOTS],
            seen: [0; SEEN_SLOTS],
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

    /// Appends a field to the block that is being made. A block is made at once, by this encoder
    /// alone; its bytes come to stand in `out` because a frame says its length before them.
    pub fn encode(&mut self, out: &mut Vec<u8>, name: Name<'_>, value: &[u8], indexing: Indexing) {
        if self.lowest.is_some() {
            self.table_sizes(out);
        }
        let key = Key::of(name);
        match indexing {
            Indexing::Index | Indexing::IfRepeated => {
                self.find_or_index(out, &key, value, indexing)
            }
            Indexing::NoIndex => match key.fixed_field(value) {
                0 => self.literal(out, &key, value, 0x00, 0x0f),
                index => integer::write(out, 0x80, 0x7f, index),
            },
            Indexing::Never => self.literal(out, &key, value, 0x10, 0x0f),
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

    fn find_or_index(
        &mut self,
        out: &mut Vec<u8>,
        key: &Key<'_>,
        value: &[u8],
        indexing: Indexing,
    ) {
        match key.fixed_field(value) {
            0 => {}
            index => return integer::write(out, 0x80, 0x7f, index),
        }
        let hash = hash(value, key.hash);
        let slot = (hash >> 57) as usize;
        if let Some(number) = self.fields.get(slot)
            && let Some((index, entry)) = self.entry(*number)
            && key.is_name_of(entry, &self.table)
            && self.table.value(entry) == value
        {
            return integer::write(out, 0x80, 0x7f, fixed::LEN + 1 + index);
        }
        if indexing == Indexing::IfRepeated && !self.is_repeated(hash) {
            return self.literal(out, key, value, 0x00, 0x0f);
        }
        self.literal(out, key, value, 0x40, 0x3f);
        if let Some(number) = self.fields.get_mut(slot) {
            *number = self.count;
        }
        self.insert(key, value);
    }

    /// Says whether a field came before, and remembers it if not.
    fn is_repeated(&mut self, hash: u64) -> bool {
        let mark = (hash >> 32) as u16;
        match self.seen.get_mut((hash >> 48) as usize % SEEN_SLOTS) {
            Some(seen) if *seen == mark => true,
            Some(seen) => {
                *seen = mark;
                false
            }
            None => false,
        }
    }

    fn insert(&mut self, key: &Key<'_>, value: &[u8]) {
        self.name.clear();
        self.name.extend_from_slice(key.text);
        self.name.make_ascii_lowercase();
        if let Some(number) = self.names.get_mut(key.slot()) {
            *number = self.count;
        }
        self.count = self.count.wrapping_add(1);
        self.table.insert(&self.name, value, key.label, true);
    }

    /// Writes a field that is spelt out, its name as an index if a table has it.
    fn literal(&mut self, out: &mut Vec<u8>, key: &Key<'_>, value: &[u8], pattern: u8, mask: u8) {
        let index = match key.fixed_name {
            0 => self.name_index(key),
            index => index,
        };
        integer::write(out, pattern, mask, index);
        if index == 0 {
            self.name.clear();
            self.name.extend_from_slice(key.text);
            self.name.make_ascii_lowercase();
            string(out, &self.name);
        }
        string(out, value);
    }

    fn name_index(&self, key: &Key<'_>) -> usize {
        let number = self.names.get(key.slot()).copied().unwrap_or_default();
        match self.entry(number) {
            Some((index, entry)) if key.is_name_of(entry, &self.table) => fixed::LEN + 1 + index,
            _ => 0,
        }
    }

    /// Finds an entry by its number, if it is still there, and how many are newer.
    #[inline]
    fn entry(&self, number: u8) -> Option<(usize, &Entry)> {
        let newer = usize::from(self.count.wrapping_sub(number).wrapping_sub(1));
        Some((newer, self.table.get(newer)?))
    }
}

/// A name as it is looked up.
struct Key<'a> {
    label: Label,
    /// The name in any case.
    text: &'a [u8],
    /// The first index of the name in the static table; 0 if it is not there.
    fixed_name: usize,
    hash: u64,
}

impl<'a> Key<'a> {
    #[inline]
    fn of(name: Name<'a>) -> Self {
        match name {
            Name::Pseudo(pseudo) => Self {
                label: Label::pseudo(pseudo),
                text: pseudo.name().as_bytes(),
                fixed_name: fixed::pseudo_index(pseudo),
                hash: 64 + pseudo as u64,
            },
            Name::Known(id) => Self {
                label: Label::field(id),
                text: id.name().as_bytes(),
                fixed_name: fixed::name_index(id),
                hash: id as u64,
            },
            Name::Text(text) => Self {
                label: Label::UNKNOWN,
                text,
                fixed_name: fixed::unlisted_index(text),
                hash: text.iter().fold(0, |hash: u64, &byte| {
                    (hash ^ u64::from(byte | 0x20)).wrapping_mul(SPREAD)
                }),
            },
        }
    }

    #[inline]
    fn slot(&self) -> usize {
        (self.hash ^ self.hash >> 32) as usize % NAME_SLOTS
    }

    #[inline]
    fn is_name_of(&self, entry: &Entry, table: &Table) -> bool {
        entry.label == self.label
            && (!self.label.is_unknown() || table.name(entry).eq_ignore_ascii_case(self.text))
    }

    /// The index of the whole field in the static table; 0 if it is not there.
    #[inline]
    fn fixed_field(&self, value: &[u8]) -> usize {
        match (self.label.pseudo, self.label.id) {
            (None, FieldId::AcceptEncoding) if value == b"gzip, deflate" => 16,
            (None, _) => 0,
            (Some(pseudo), _) => fixed::pseudo_field(pseudo, value),
        }
    }
}

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash whose high bits depend on all of a value.
#[inline]
fn hash(value: &[u8], seed: u64) -> u64 {
    let mut hash = (seed ^ (value.len() as u64) << 32).wrapping_mul(SPREAD);
    let (words, rest) = value.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(SPREAD);
        hash ^= hash >> 32;
    }
    let mut last = 0;
    for &byte in rest {
        last = last << 8 | u64::from(byte);
    }
    (hash ^ last).wrapping_mul(SPREAD)
}

/// Writes a string (RFC 7541, section 5.2), by the Huffman code if that is shorter.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    let len = huffman::len(text);
    if len < text.len() {
        integer::write(out, 0x80, 0x7f, len);
        huffman::encode(text, out);
    } else {
        integer::write(out, 0x00, 0x7f, text.len());
        out.extend_from_slice(text);
    }
}
