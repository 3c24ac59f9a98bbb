//! What all cores share: the table of keys, and the limits by name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::bucket_set::BucketSet;
use super::count_set::CountSet;
use super::digest::DigestSecret;
use super::gcra::Gcra;
use super::table::KeyTable;
use super::token_cache::TokenCache;
use crate::shared::{AtomicU64, Ordering};

/// The table of all keys.
#[derive(Debug)]
pub(super) struct LimitTable {
    pub(super) cells: KeyTable,
    pub(super) secret: DigestSecret,
    /// How many keys each core caches tokens of.
    cached_keys: usize,
}

/// A rate limit. All plans that have a limit of its name and rate share it.
#[derive(Debug)]
pub(super) struct SharedLimit {
    /// Tells its keys apart from those of other limits.
    pub(super) number: u64,
    pub(super) buckets: BucketSet,
    /// The limit of this name before a reload changed the rate or the burst.
    pub(super) previous: Option<PreviousLimit>,
    pub(super) counts: Arc<LimitCounts>,
}

/// A limit whose keys still have buckets.
#[derive(Debug)]
pub(super) struct PreviousLimit {
    pub(super) number: u64,
    pub(super) gcra: Gcra,
    /// When all of its buckets are full again, in ticks; 0 until a core has seen it.
    until: AtomicU64,
}

/// A limit of requests at once.
#[derive(Debug)]
pub(super) struct SharedCount {
    pub(super) number: u64,
    pub(super) set: CountSet,
    pub(super) counts: Arc<LimitCounts>,
}

/// What a limit has done since the start.
#[derive(Debug, Default)]
pub struct LimitCounts {
    /// Requests that it refused.
    pub refused: AtomicU64,
    /// Requests that it would have refused without `dry_run`.
    pub let_through: AtomicU64,
    /// Requests whose key had no place in the table.
    pub overflowed: AtomicU64,
}

/// Everything that a plan's limits share.
#[derive(Debug)]
pub(super) struct SharedLimits {
    pub(super) table: Arc<LimitTable>,
    pub(super) limits: Box<[Arc<SharedLimit>]>,
    pub(super) counts: Box<[Arc<SharedCount>]>,
}

/// The limits of all plans that still run, by name. Control owns it.
#[derive(Debug, Default)]
pub struct LimitRegistry {
    /// How many cores share a limit.
    cores: usize,
    table: Weak<LimitTable>,
    limits: HashMap<Box<str>, Weak<SharedLimit>>,
    counts: HashMap<Box<str>, Weak<SharedCount>>,
    last_number: u64,
}

/// A limit's name, and its numbers for the metrics page.
#[derive(Debug)]
pub struct LimitReport {
    /// Its name, or its place in the file.
    pub name: Box<str>,
    /// `limit` or `concurrency`.
    pub kind: super::PolicyKind,
    /// What it has done.
    pub counts: Arc<LimitCounts>,
}

impl LimitTable {
    fn new(keys: usize, cores: usize) -> Self {
        Self {
            cells: KeyTable::new(keys),
            secret: DigestSecret::default(),
            cached_keys: super::cached_keys(keys, cores),
        }
    }

    /// A core's cache for this table.
    pub(super) fn make_cache(&self) -> TokenCache {
        TokenCache::new(self.cached_keys)
    }
}

impl SharedLimit {
    /// The limit before, as long as a bucket of it may lack tokens.
    pub(super) fn previous(&self, now: u64) -> Option<&PreviousLimit> {
        let previous = self.previous.as_ref()?;
        let until = previous.until.load(Ordering::Relaxed);
        if until == 0 {
            let until = now.saturating_add(previous.gcra.fill_ticks());
            previous.until.store(until, Ordering::Relaxed);
            return Some(previous);
        }
        (now < until).then_some(previous)
    }
}

impl LimitRegistry {
    /// Sets how many cores share a limit.
    pub fn set_cores(&mut self, cores: usize) {
        self.cores = cores;
    }

    /// The table; makes one for `keys` keys if no plan has any.
    pub(super) fn table(&mut self, keys: usize) -> Arc<LimitTable> {
        self.table.upgrade().unwrap_or_else(|| {
            let table = Arc::new(LimitTable::new(keys, self.cores));
            self.table = Arc::downgrade(&table);
            table
        })
    }

    /// The limit of this name. If its rate is another than before, its keys keep how many tokens their buckets lack.
    pub(super) fn limit(&mut self, name: &str, gcra: Gcra) -> Arc<SharedLimit> {
        let old = self.limits.get(name).and_then(Weak::upgrade);
        if let Some(old) = &old
            && old.buckets.gcra == gcra
        {
            return old.clone();
        }
        self.limits.retain(|_, limit| limit.strong_count() > 0);
        let limit = Arc::new(SharedLimit {
            number: self.next_number(),
            buckets: BucketSet::new(gcra, self.cores),
            counts: old
                .as_ref()
                .map(|old| old.counts.clone())
                .unwrap_or_default(),
            previous: old.map(|old| PreviousLimit {
                number: old.number,
                gcra: old.buckets.gcra,
                until: AtomicU64::new(0),
            }),
        });
        self.limits.insert(name.into(), Arc::downgrade(&limit));
        limit
    }

    /// The limit of requests at once of this name.
    pub(super) fn count(&mut self, name: &str) -> Arc<SharedCount> {
        if let Some(known) = self.counts.get(name).and_then(Weak::upgrade) {
            return known;
        }
        self.counts.retain(|_, count| count.strong_count() > 0);
        let count = Arc::new(SharedCount {
            number: self.next_number(),
            set: CountSet::default(),
            counts: Arc::default(),
        });
        self.counts.insert(name.into(), Arc::downgrade(&count));
        count
    }

    /// All limits that some plan has, by name.
    #[must_use]
    pub fn reports(&self) -> Vec<LimitReport> {
        use super::PolicyKind::{Concurrency, Limit};
        let limits = self.limits.iter().filter_map(|(name, limit)| {
            let counts = limit.upgrade()?.counts.clone();
            Some((name, Limit, counts))
        });
        let at_once = self.counts.iter().filter_map(|(name, count)| {
            let counts = count.upgrade()?.counts.clone();
            Some((name, Concurrency, counts))
        });
        let all = limits.chain(at_once);
        let mut reports: Vec<_> = all
            .map(|(name, kind, counts)| LimitReport {
                name: name.clone(),
                kind,
                counts,
            })
            .collect();
        reports.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        reports
    }

    /// Cells of the table that have had a key; `None` without limits.
    #[must_use]
    pub fn keys(&self) -> Option<u64> {
        Some(self.table.upgrade()?.cells.used())
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}
