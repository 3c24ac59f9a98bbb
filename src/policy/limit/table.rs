//! The cells of all keys that Weir counts, shared by all cores.
//!
//! A cell is one key and one word. The word is either the time until which a bucket refills ([`super::gcra`]), or a
//! number of requests at once ([`held`]). Both kinds say by themselves whether their key can be forgotten without any
//! effect: a bucket that is full again, or nothing held. Such a cell is idle, and only idle cells give way to new keys.
//! So no number of invented keys evicts a key that counts something. A key that finds no idle cell in its set has no
//! cell ([`Update::NoRoom`]).
//!
//! Changing the word of a known key takes no lock. Only a new key locks its set, for the few stores that write it; two
//! cores could otherwise write one key into two cells. The words of a cell's next key differ from those of its last
//! key, so an exchange that expects a word also proves that the cell still has its key:
//! - The first word of a bucket is later than now, and the last word of the bucket before it was earlier. (An older word
//!   can recur only if tokens were given back, and if a core stalls for as long as a bucket takes to fill, and then
//!   only at the same eighth of a nanosecond.)
//! - A number of requests at once has a version, which counts the keys that its set has had.

use super::atomics::{
    AtomicU32, AtomicU64, LOCK_SPINS, LOCK_YIELDS, Ordering, spin_loop, yield_now, zeroed_words,
};

/// Cells for each key that the table has to hold: keys are not spread evenly over the sets. When half of all cells are
/// in use, one key in 1,250 finds its set full (16 cells, Poisson distribution with mean 8).
const CELLS_PER_KEY: usize = 2;
/// The word of a cell that is about to get another key.
const CLAIMED: u64 = u64::MAX;
/// The bit that tells a number of requests at once from a time.
const HELD: u64 = 1 << 63;

/// What identifies a key: a keyed hash of 128 bits, so that two keys in use are the same with a probability of
/// 10^-26 among a million, and nobody outside can construct two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Chooses the set and a part of the identity.
    pub(super) high: u64,
    /// The rest of the identity.
    pub(super) low: u64,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// The word changed from `old` to `new`. `old` is 0 if the key had no cell.
    Changed { cell: usize, old: u64, new: u64 },
    /// The caller refused to change this word; 0 if the key has no cell.
    Kept(u64),
    /// Every cell of the key's set counts something for another key.
    NoRoom,
}

/// The cells. A key may be in any of the `WAYS` cells of its set.
#[derive(Debug)]
pub(super) struct KeyTable<const WAYS: usize = 16> {
    /// Three words for each cell: the key's two, and the word.
    words: Box<[AtomicU64]>,
    /// One for each set. Odd while a new key is being written; half of it counts the keys that the set has had.
    locks: Box<[AtomicU32]>,
    /// Cells that have had a key.
    used: AtomicU64,
}

/// A cell.
#[derive(Clone, Copy)]
struct Cell<'t> {
    high: &'t AtomicU64,
    low: &'t AtomicU64,
    word: &'t AtomicU64,
}

enum Insertion {
    Done(usize),
    Found,
    NoRoom,
}

impl<const WAYS: usize> KeyTable<WAYS> {
    /// A table with room for `keys` keys at once. It takes [`KeyTable::bytes`] of memory, but the system gives each
    /// page only when it is first used.
    #[must_use]
    pub(super) fn new(keys: usize) -> Self {
        let sets = (keys * CELLS_PER_KEY).div_ceil(WAYS).max(1);
        let locks = vec![0_u32; sets].into_iter();
        Self {
            words: zeroed_words(3 * WAYS * sets),
            locks: locks.map(AtomicU32::new).collect(),
            used: AtomicU64::new(0),
        }
    }

    /// Locks the set of `key`, as a core does whose CPU is then taken away. Returns what unlocks it.
    #[cfg(test)]
    pub(super) fn stall(&self, key: Key) -> impl FnOnce() {
        let lock = &self.locks[self.set(key)];
        lock.fetch_add(1, Ordering::Acquire);
        || {
            lock.fetch_add(1, Ordering::Release);
        }
    }

    /// The most memory that the table takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(&*self.locks)
    }

    /// Cells that have had a key. Some of these keys may be idle now.
    #[must_use]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The word of `key`; 0 if it has no cell.
    #[must_use]
    pub(super) fn read(&self, key: Key) -> u64 {
        self.find(key).map_or(0, |(_, word)| word)
    }

    /// Changes the word of `key` to what `change` makes of it. `change` gets 0 if the key has no cell, may be called
    /// several times, and returns `None` to leave the word as it is. `now` says which cells are idle.
    pub(super) fn update(&self, key: Key, now: u64, change: impl Fn(u64) -> Option<u64>) -> Update {
        loop {
            let Some((cell, old)) = self.find(key) else {
                let Some(first) = change(0) else {
                    return Update::Kept(0);
                };
                match self.insert(key, now, first) {
                    Insertion::Done(cell) => {
                        return Update::Changed {
                            cell,
                            old: 0,
                            new: first,
                        };
                    }
                    Insertion::Found => continue,
                    Insertion::NoRoom => return Update::NoRoom,
                }
            };
            let Some(new) = change(old) else {
                return Update::Kept(old);
            };
            if self.exchange(cell, old, new) {
                return Update::Changed { cell, old, new };
            }
        }
    }

    /// Counts one request out of the cell that counted it in.
    pub(super) fn release(&self, cell: usize) {
        if let Some(cell) = self.cell(cell) {
            cell.word.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn exchange(&self, cell: usize, old: u64, new: u64) -> bool {
        self.cell(cell).is_some_and(|cell| {
            cell.word
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// The cell of `key` and its word.
    fn find(&self, key: Key) -> Option<(usize, u64)> {
        self.places(key).find_map(|(place, cell)| {
            if cell.high.load(Ordering::Relaxed) != key.high {
                return None;
            }
            // The word comes first: if the cell gets another key while its tag is read, the word changes too, and
            // no exchange with this word succeeds.
            let word = cell.word.load(Ordering::Acquire);
            let is_same = word != CLAIMED
                && cell.high.load(Ordering::Relaxed) == key.high
                && cell.low.load(Ordering::Relaxed) == key.low;
            is_same.then_some((place, word))
        })
    }

    /// Writes `key` with its first word into an idle cell of its set.
    fn insert(&self, key: Key, now: u64, first: u64) -> Insertion {
        let Some(lock) = self.locks.get(self.set(key)) else {
            return Insertion::NoRoom;
        };
        let mut count = lock.load(Ordering::Relaxed) & !1;
        let mut spins = 0;
        while let Err(other) =
            lock.compare_exchange(count, count + 1, Ordering::Acquire, Ordering::Relaxed)
        {
            // Without the lock, the key would count where keys without a cell do, and once more in the cell that it is
            // about to get. So a core gives up late.
            spins += 1;
            if spins < LOCK_SPINS {
                spin_loop();
            } else if spins < LOCK_SPINS + LOCK_YIELDS {
                yield_now();
            } else {
                return Insertion::NoRoom;
            }
            count = other & !1;
        }
        let insertion = if self.find(key).is_some() {
            Insertion::Found
        } else {
            self.replace_idle(key, now, stamped(first, count))
        };
        lock.store(count.wrapping_add(2), Ordering::Release);
        insertion
    }

    fn replace_idle(&self, key: Key, now: u64, first: u64) -> Insertion {
        for (place, cell) in self.places(key) {
            let word = cell.word.load(Ordering::Relaxed);
            let is_claimed = is_idle(word, now)
                && cell
                    .word
                    .compare_exchange(word, CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok();
            if !is_claimed {
                continue;
            }
            cell.high.store(key.high, Ordering::Relaxed);
            cell.low.store(key.low, Ordering::Relaxed);
            cell.word.store(first, Ordering::Release);
            if word == 0 {
                self.used.fetch_add(1, Ordering::Relaxed);
            }
            return Insertion::Done(place);
        }
        Insertion::NoRoom
    }

    /// The cells in which `key` may be, the likeliest first.
    fn places(&self, key: Key) -> impl Iterator<Item = (usize, Cell<'_>)> {
        let begin = self.set(key) * WAYS;
        let first = key.low as usize;
        (0..WAYS).filter_map(move |n| {
            let place = begin + first.wrapping_add(n) % WAYS;
            Some((place, self.cell(place)?))
        })
    }

    fn cell(&self, place: usize) -> Option<Cell<'_>> {
        match self.words.get(3 * place..3 * place + 3)? {
            [high, low, word] => Some(Cell { high, low, word }),
            _ => None,
        }
    }

    fn set(&self, key: Key) -> usize {
        // The product's upper half is below the number of sets.
        ((u128::from(key.high) * self.locks.len() as u128) >> 64) as usize
    }
}

/// The word for `count` requests at once of a key without a cell.
#[must_use]
pub(super) fn held(count: u32) -> u64 {
    HELD | u64::from(count)
}

/// How many requests at once a word counts; 0 for a key without a cell.
#[must_use]
pub(super) fn held_count(word: u64) -> u32 {
    word as u32
}

/// The first word of a key, with the number of keys that its set has had before if it counts requests at once.
fn stamped(word: u64, lock: u32) -> u64 {
    if word & HELD == 0 {
        return word;
    }
    word | u64::from(lock >> 1) << 32
}

/// Whether the key of this word can be forgotten.
fn is_idle(word: u64, now: u64) -> bool {
    if word & HELD != 0 {
        held_count(word) == 0
    } else {
        word == 0 || word < now
    }
}
