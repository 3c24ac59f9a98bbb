//! Where control posts the keys of an issuer, and cores read them.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key_set::KeySet;
use super::source::KeySource;
use crate::shared::{AtomicBool, AtomicU64, Ordering};

/// The keys of one issuer. Control posts them; each core has a [`KeyReader`]. It survives reloads.
#[derive(Debug)]
pub struct KeyBoard {
    source: KeySource,
    /// How often the keys have changed: 0 while there are none.
    version: AtomicU64,
    keys: Mutex<Option<Arc<KeySet>>>,
    /// A core saw a token whose key the set lacks.
    is_wanted: AtomicBool,
}

impl KeyBoard {
    /// A board without keys, for keys from this source.
    #[must_use]
    pub fn new(source: KeySource) -> Self {
        Self {
            source,
            version: AtomicU64::new(0),
            keys: Mutex::default(),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Where the keys come from.
    #[must_use]
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// Posts keys. The version moves only if they differ from the keys before. Returns whether it did.
    pub fn post(&self, keys: KeySet) -> bool {
        let mut posted = self.lock();
        if posted.as_deref() == Some(&keys) {
            return false;
        }
        *posted = Some(Arc::new(keys));
        // Under the lock, so that a reader never sees older keys with a newer version.
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// How often the keys have changed: 0 while there are none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The keys; `None` while there are none.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.lock().clone()
    }

    /// Asks control to look for new keys.
    pub fn want(&self) {
        // Only the first of many stores, so that cores do not fight for the line of memory.
        if !self.is_wanted.load(Ordering::Relaxed) {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a core has asked since the last call.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<KeySet>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A core's view of a board. It takes the lock only when the keys have changed.
#[derive(Debug)]
pub struct KeyReader {
    board: Arc<KeyBoard>,
    known: RefCell<(u64, Option<Arc<KeySet>>)>,
}

impl KeyReader {
    /// A reader of `board`.
    #[must_use]
    pub fn new(board: Arc<KeyBoard>) -> Self {
        Self {
            board,
            known: RefCell::default(),
        }
    }

    /// The board.
    #[must_use]
    pub fn board(&self) -> &Arc<KeyBoard> {
        &self.board
    }

    /// The version of the keys, which [`KeyReader::with`] would use.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.board.version()
    }

    /// Runs `use_keys` with the keys, if there are any, and their version.
    pub fn with<T>(&self, use_keys: impl FnOnce(Option<&KeySet>, u64) -> T) -> T {
        let mut known = self.known.borrow_mut();
        if known.0 != self.board.version() {
            let posted = self.board.lock();
            *known = (self.board.version(), posted.clone());
        }
        let (version, keys) = &*known;
        use_keys(keys.as_deref(), *version)
    }
}
