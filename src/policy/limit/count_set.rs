//! How many requests each key of one `concurrency` has at once.

use super::atomics::{AtomicU64, Ordering};
use super::bucket_set::update_word;
use super::table::{Key, KeyTable, Update, held, held_count};

/// The keys of one limit. Their words are cells of a [`KeyTable`], which all limits share.
#[derive(Debug, Default)]
pub(super) struct CountSet {
    /// The word of all keys that find no cell.
    overflow: AtomicU64,
}

/// The place in which a request is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountPlace {
    /// This cell of the table.
    Cell(usize),
    /// The word that keys without a cell share.
    Overflow,
}

impl CountSet {
    /// Counts a request of `key` in, unless it has `most` already.
    pub(super) fn enter(
        &self,
        table: &KeyTable,
        key: Key,
        most: u32,
        now: u64,
    ) -> Option<CountPlace> {
        let change = |word: u64| match word {
            0 => Some(held(1)),
            word => (held_count(word) < most).then_some(word + 1),
        };
        match table.update(key, now, change) {
            Update::Changed { cell, .. } => Some(CountPlace::Cell(cell)),
            Update::Kept(_) => None,
            Update::NoRoom => match update_word(&self.overflow, change) {
                Update::Changed { .. } => Some(CountPlace::Overflow),
                Update::Kept(_) | Update::NoRoom => None,
            },
        }
    }

    /// Counts a request out.
    pub(super) fn leave(&self, table: &KeyTable, place: CountPlace) {
        match place {
            CountPlace::Cell(cell) => table.release(cell),
            CountPlace::Overflow => {
                self.overflow.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}
