//! The dynamic table (RFC 7541, sections 2.3.2 and 4).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::FIELD_OVERHEAD_BYTES;
use super::name::NameId;

/// An entry of the dynamic table: where its text is, and what was found out when it was inserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct DynamicEntry {
    /// Position of the text (name, then value) in everything ever inserted, wrapping.
    place: u32,
    name_len: u32,
    text_len: u32,
    pub(super) name_id: NameId,
    /// The code of `name_id`.
    pub(super) code: u8,
    /// Whether name and value are valid.
    pub(super) is_valid: bool,
}

impl DynamicEntry {
    #[inline]
    pub(super) fn name_len(&self) -> usize {
        self.name_len as usize
    }

    #[inline]
    pub(super) fn text_len(&self) -> usize {
        self.text_len as usize
    }

    fn size(&self) -> u32 {
        self.text_len + FIELD_OVERHEAD_BYTES
    }
}

/// The most recent fields that fit. Their texts lie in one buffer, oldest first. Dropped texts are
/// removed when they take as much as the rest, so each byte moves about once.
#[derive(Clone, Debug, Default)]
pub(super) struct DynamicTable {
    /// The newest comes first.
    entries: VecDeque<DynamicEntry>,
    text: Vec<u8>,
    /// The position of the first byte of `text`.
    origin: u32,
    size: u32,
    size_max: u32,
}

impl DynamicTable {
    pub(super) fn new(size_max: u32) -> Self {
        Self {
            size_max,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) const fn size_max(&self) -> u32 {
        self.size_max
    }

    /// Finds an entry by its index. The newest has index 0.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&DynamicEntry> {
        self.entries.get(index)
    }

    /// Name and value of an entry.
    #[inline]
    pub(super) fn text(&self, entry: &DynamicEntry) -> &[u8] {
        self.part(entry, 0, entry.text_len)
    }

    #[inline]
    pub(super) fn name(&self, entry: &DynamicEntry) -> &[u8] {
        self.part(entry, 0, entry.name_len)
    }

    #[inline]
    pub(super) fn value(&self, entry: &DynamicEntry) -> &[u8] {
        self.part(entry, entry.name_len, entry.text_len)
    }

    /// The text of an entry between two offsets.
    #[inline]
    fn part(&self, entry: &DynamicEntry, from: u32, to: u32) -> &[u8] {
        let start = entry.place.wrapping_sub(self.origin) as usize;
        self.text
            .get(start + from as usize..start + to as usize)
            .unwrap_or_default()
    }

    /// Changes the size and drops what no longer fits.
    pub(super) fn resize(&mut self, size_max: u32) {
        self.size_max = size_max;
        self.evict(size_max);
    }

    /// Inserts a field before all others. A field larger than the table empties it (RFC 7541,
    /// section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], name_id: NameId, is_valid: bool) {
        let len = name.len() + value.len();
        let room = (self.size_max as usize).checked_sub(len + FIELD_OVERHEAD_BYTES as usize);
        let Some(room) = room else {
            return self.evict(0);
        };
        self.evict(room as u32);
        self.compact(len);
        let entry = DynamicEntry {
            place: self.origin.wrapping_add(self.text.len() as u32),
            name_len: name.len() as u32,
            text_len: len as u32,
            name_id,
            code: name_id.code(),
            is_valid,
        };
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += entry.size();
        self.entries.push_front(entry);
    }

    /// Frees memory that the entries do not need.
    pub(super) fn release_memory(&mut self) {
        let dropped = match self.entries.back() {
            Some(oldest) => oldest.place.wrapping_sub(self.origin) as usize,
            None => self.text.len(),
        };
        self.text.drain(..dropped.min(self.text.len()));
        self.origin = self.origin.wrapping_add(dropped as u32);
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Drops the oldest entries until the rest take at most `size`.
    fn evict(&mut self, size: u32) {
        while self.size > size {
            match self.entries.pop_back() {
                Some(entry) => self.size -= entry.size(),
                None => self.size = 0,
            }
        }
    }

    /// Makes room for a text by removing dropped texts, if that is worthwhile.
    fn compact(&mut self, len: usize) {
        if self.text.len() + len <= self.text.capacity() {
            return;
        }
        let dropped = match self.entries.back() {
            Some(oldest) => oldest.place.wrapping_sub(self.origin) as usize,
            None => self.text.len(),
        };
        if dropped * 2 >= self.text.len() && dropped <= self.text.len() {
            self.text.drain(..dropped);
            self.origin = self.origin.wrapping_add(dropped as u32);
        }
    }
}
