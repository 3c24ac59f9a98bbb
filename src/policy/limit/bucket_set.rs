//! The buckets of one limit, one for each key.

use super::atomics::{AtomicU64, Ordering};
use super::gcra::Gcra;
use super::table::{Key, KeyTable, Update};
use super::token_cache::{TokenCache, Tokens};

/// The buckets of one limit. Their words are cells of a [`KeyTable`], which all limits share.
#[derive(Debug)]
pub(super) struct BucketSet {
    pub(super) gcra: Gcra,
    /// The most tokens that a core takes from a bucket at a time.
    pub(super) batch: u64,
    /// The bucket of all keys that find no cell.
    pub(super) overflow: AtomicU64,
}

/// How a bucket stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The bucket's word.
    pub(super) word: u64,
    /// Tokens that are left.
    pub(super) left: u64,
    /// The key has no cell, and was counted with others like it.
    pub(super) is_overflow: bool,
}

impl BucketSet {
    /// The buckets of a limit on `cores` cores.
    #[must_use]
    pub(super) fn new(gcra: Gcra, cores: usize) -> Self {
        Self {
            gcra,
            batch: gcra.batch(cores),
            overflow: AtomicU64::new(0),
        }
    }

    /// Takes `cost` tokens from the bucket of `key`. A new bucket begins as `first`.
    ///
    /// # Errors
    /// The bucket has fewer tokens; nothing was taken.
    pub(super) fn take(
        &self,
        table: &KeyTable,
        cache: &mut TokenCache,
        key: Key,
        first: u64,
        cost: u64,
        now: u64,
    ) -> Result<Standing, Standing> {
        if self.batch == 1 || cache.is_empty() {
            return self
                .take_shared(table, key, first, (cost, cost), now)
                .map(|(standing, _)| standing);
        }
        if let Some(expired) = cache.take_expired(now) {
            give_back(table, &expired, now);
        }
        if let Some(left) = cache.use_up(key, cost, now) {
            let word = table.read(key);
            return Ok(self.standing(word, left, now));
        }
        // Expired tokens go back to the bucket, and a full bucket has no use for them.
        let kept = cache.take(key);
        if let Some(kept) = &kept {
            give_back(table, kept, now);
        }
        let (standing, taken) =
            self.take_shared(table, key, first, (cost, self.batch.max(cost)), now)?;
        let spare = taken - cost;
        if spare > 0
            && let Some(other) = cache.keep(key, self.gcra, spare, now)
        {
            give_back(table, &other, now);
        }
        Ok(Standing {
            left: self.gcra.at_most_full(standing.left + spare),
            ..standing
        })
    }

    /// How the bucket of `key` stands.
    pub(super) fn look(
        &self,
        table: &KeyTable,
        cache: &mut TokenCache,
        key: Key,
        first: u64,
        now: u64,
    ) -> Standing {
        let word = match table.read(key) {
            0 => first,
            word => word,
        };
        self.standing(word, cache.count(key, now), now)
    }

    /// Gives `count` tokens back to the bucket of `key`.
    pub(super) fn give_back(
        &self,
        table: &KeyTable,
        key: Key,
        count: u64,
        taken: Standing,
        now: u64,
    ) {
        let change = |word| (word > now).then(|| self.gcra.give_back(word, count));
        if taken.is_overflow {
            update_word(&self.overflow, change);
        } else {
            table.update(key, now, change);
        }
    }

    /// Takes from the shared bucket as many tokens as it has, between the two numbers. Returns how many.
    fn take_shared(
        &self,
        table: &KeyTable,
        key: Key,
        first: u64,
        (least, most): (u64, u64),
        now: u64,
    ) -> Result<(Standing, u64), Standing> {
        let gcra = &self.gcra;
        let change = |word: u64| {
            let word = if word == 0 { first } else { word };
            let tokens = gcra.tokens(word, now);
            (tokens >= least).then(|| gcra.take(word, now, tokens.min(most)))
        };
        let mut is_overflow = false;
        let update = match table.update(key, now, change) {
            Update::NoRoom => {
                is_overflow = true;
                update_word(&self.overflow, |word| {
                    (gcra.tokens(word, now) >= least).then(|| gcra.take(word, now, least))
                })
            }
            update => update,
        };
        match update {
            Update::Changed { old, new, .. } => {
                let old = if old == 0 && !is_overflow { first } else { old };
                let left = gcra.tokens(new, now);
                Ok((
                    Standing {
                        word: new,
                        left,
                        is_overflow,
                    },
                    gcra.tokens(old, now) - left,
                ))
            }
            Update::Kept(0) if !is_overflow => {
                // The bucket before the limit changed had too few. From now on this one fills.
                table.update(key, now, |word| (word == 0 && first > now).then_some(first));
                Err(self.standing(first, 0, now))
            }
            Update::Kept(word) => Err(Standing {
                is_overflow,
                ..self.standing(word, 0, now)
            }),
            Update::NoRoom => Err(Standing {
                word: 0,
                left: 0,
                is_overflow,
            }),
        }
    }

    fn standing(&self, word: u64, kept: u64, now: u64) -> Standing {
        Standing {
            word,
            left: self.gcra.at_most_full(self.gcra.tokens(word, now) + kept),
            is_overflow: false,
        }
    }
}

/// Gives tokens back to the bucket that they are from, unless the bucket is full, and its key maybe forgotten.
fn give_back(table: &KeyTable, tokens: &Tokens, now: u64) {
    table.update(tokens.key, now, |word| {
        (word > now && tokens.count > 0).then(|| tokens.gcra.give_back(word, tokens.count))
    });
}

/// Changes a word that has no key, as [`KeyTable::update`] does.
pub(super) fn update_word(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> Update {
    let mut old = word.load(Ordering::Acquire);
    loop {
        let Some(new) = change(old) else {
            return Update::Kept(old);
        };
        match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                return Update::Changed {
                    cell: usize::MAX,
                    old,
                    new,
                };
            }
            Err(other) => old = other,
        }
    }
}
