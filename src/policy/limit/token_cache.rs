//! The tokens that one core has taken from shared buckets and not used yet.

use super::gcra::Gcra;
use super::table::Key;

/// Places in which a key may be.
const WAYS: usize = 4;
/// How long a core keeps tokens. At most 1/50 s worth of a rate is kept, so a busy key uses its tokens up long before.
const KEPT_NS: u64 = 100_000_000;
const KEPT_TICKS: u64 = super::gcra::ticks(KEPT_NS);

/// Tokens of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) key: Key,
    pub(super) gcra: Gcra,
    pub(super) count: u64,
    /// When the core gives them back, in ticks.
    until: u64,
}

/// The cache. It never holds more tokens of a bucket than its limit's batch.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    entries: Box<[Option<Tokens>]>,
    /// The entry that [`TokenCache::take_expired`] looks at next.
    hand: usize,
}

impl TokenCache {
    /// A cache for `keys` keys; it holds nothing if that is less than four.
    #[must_use]
    pub(super) fn new(keys: usize) -> Self {
        Self {
            entries: vec![None; keys / WAYS * WAYS].into(),
            hand: 0,
        }
    }

    /// The memory that a cache for `keys` keys takes.
    #[cfg(test)]
    pub(super) const fn bytes(keys: usize) -> usize {
        keys * size_of::<Option<Tokens>>()
    }

    /// Whether it can hold anything.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Uses `count` tokens of `key` if it has as many. Returns how many remain.
    pub(super) fn use_up(&mut self, key: Key, count: u64, now: u64) -> Option<u64> {
        let entry = self.entry(key)?.as_mut()?;
        if entry.until < now {
            return None;
        }
        entry.count = entry.count.checked_sub(count)?;
        Some(entry.count)
    }

    /// How many tokens of `key` can be used.
    #[must_use]
    pub(super) fn count(&mut self, key: Key, now: u64) -> u64 {
        let entry = self.entry(key).and_then(|entry| *entry);
        entry
            .filter(|entry| entry.until >= now)
            .map_or(0, |entry| entry.count)
    }

    /// Takes out all tokens of `key`.
    pub(super) fn take(&mut self, key: Key) -> Option<Tokens> {
        self.entry(key)?.take()
    }

    /// Keeps tokens of a key that has no entry. Returns the tokens of another key that have to go back to their bucket.
    #[must_use]
    pub(super) fn keep(&mut self, key: Key, gcra: Gcra, count: u64, now: u64) -> Option<Tokens> {
        let entries = self.set(key)?;
        let place = entries
            .iter_mut()
            .min_by_key(|entry| entry.map_or(0, |entry| entry.count))?;
        place.replace(Tokens {
            key,
            gcra,
            count,
            until: now.saturating_add(KEPT_TICKS),
        })
    }

    /// Looks at one entry, the next at each call, and takes its tokens if they have been kept for too long.
    pub(super) fn take_expired(&mut self, now: u64) -> Option<Tokens> {
        let count = self.entries.len().max(1);
        self.hand = (self.hand + 1) % count;
        self.entries
            .get_mut(self.hand)?
            .take_if(|entry| entry.until < now)
    }

    fn entry(&mut self, key: Key) -> Option<&mut Option<Tokens>> {
        let is_it = |entry: &&mut Option<Tokens>| entry.is_some_and(|entry| entry.key == key);
        self.set(key)?.iter_mut().find(is_it)
    }

    fn set(&mut self, key: Key) -> Option<&mut [Option<Tokens>]> {
        let sets = self.entries.len() / WAYS;
        // Not the half that chooses the set of the table.
        let begin = ((u128::from(key.low) * sets as u128) >> 64) as usize * WAYS;
        self.entries.get_mut(begin..begin + WAYS)
    }
}
