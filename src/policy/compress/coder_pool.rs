//! Coders that have ended a body and wait for the next one.

use std::cell::{Cell, RefCell};
use std::fmt;

use super::Coding;
use super::coder::{Coder, CoderError, state_bytes};
use crate::io::{Charge, Pool};
use crate::limits::IDLE_CODERS_MAX;

/// The idle coders of one core, the last used one at the end. The pool of blocks counts their memory, and says how many
/// bytes of it they may keep.
#[derive(Default)]
pub struct CoderPool {
    idle: RefCell<Vec<PooledCoder>>,
    /// Coders at the front that nothing has needed since the last [`CoderPool::trim`].
    spare: Cell<usize>,
}

/// A coder, with the memory that it takes.
pub(super) struct PooledCoder {
    pub(super) coder: Coder,
    coding: Coding,
    level: u8,
    bytes: usize,
    _charge: Charge,
}

impl CoderPool {
    /// Takes a coder for a body, which is this long if its length is known. Makes one if none is idle.
    pub(super) fn take(
        &self,
        (coding, level): (Coding, u8),
        length: Option<u64>,
        pool: &Pool,
    ) -> Result<PooledCoder, CoderError> {
        let bytes = state_bytes(coding, level, length);
        let idle = self.take_idle(coding, level);
        if let Some(mut idle) = idle
            && idle.coder.reset(length)
        {
            // Tables that have grown stay.
            if idle.bytes < bytes {
                (idle.bytes, idle._charge) = (bytes, pool.charge(bytes));
            }
            return Ok(idle);
        }
        let charge = pool.charge(bytes);
        Ok(PooledCoder {
            coder: Coder::new(coding, level, length)?,
            coding,
            level,
            bytes,
            _charge: charge,
        })
    }

    fn take_idle(&self, coding: Coding, level: u8) -> Option<PooledCoder> {
        let mut idle = self.idle.borrow_mut();
        let at = (idle.iter()).rposition(|one| (one.coding, one.level) == (coding, level))?;
        let found = idle.remove(at);
        self.spare.set(self.spare.get().min(idle.len()));
        Some(found)
    }

    /// Keeps a coder for the next body. Frees the coders that have been idle longest, if there are too many.
    pub(super) fn put(&self, coder: PooledCoder, pool: &Pool) {
        if !coder.coder.can_reset() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        idle.push(coder);
        let mut bytes: usize = idle.iter().map(|one| one.bytes).sum();
        while bytes > pool.kept_bytes_max() || idle.len() > IDLE_CODERS_MAX {
            bytes -= idle.remove(0).bytes;
        }
        self.spare.set(self.spare.get().min(idle.len()));
    }

    /// Frees all idle coders.
    pub(super) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.spare.set(0);
    }

    /// Frees half of the coders that nothing has needed since the last call.
    pub fn trim(&self) {
        let mut idle = self.idle.borrow_mut();
        let excess = self.spare.get().min(idle.len()).div_ceil(2);
        idle.drain(..excess);
        self.spare.set(idle.len());
    }
}

impl PooledCoder {
    /// Bytes of memory that the coder takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for CoderPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoderPool({})", self.idle.borrow().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: (Coding, u8) = (Coding::Gzip, 5);

    fn ended(coders: &CoderPool, kind: (Coding, u8), pool: &Pool) {
        let coder = coders.take(kind, None, pool).ok().unwrap();
        coders.put(coder, pool);
    }

    #[test]
    fn idle_coders_are_counted_and_used_again() {
        let (coders, pool) = (CoderPool::default(), Pool::new());
        ended(&coders, GZIP, &pool);
        let one = pool.taken_bytes();
        assert_eq!(one, state_bytes(GZIP.0, GZIP.1, None));
        ended(&coders, GZIP, &pool);
        assert_eq!(pool.taken_bytes(), one, "the same coder again");
        ended(&coders, (Coding::Gzip, 6), &pool);
        assert_eq!(
            pool.taken_bytes(),
            2 * one,
            "another level is another coder"
        );
        ended(&coders, (Coding::Brotli, 4), &pool);
        assert_eq!(pool.taken_bytes(), 2 * one, "Brotli's cannot begin anew");
        coders.clear();
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn a_coder_that_grows_is_charged_for_it() {
        let (coders, pool) = (CoderPool::default(), Pool::new());
        let zstd = (Coding::Zstd, 3);
        for (length, counted) in [(1_000, 1_000), (100_000, 100_000), (1_000, 100_000)] {
            let coder = coders.take(zstd, Some(length), &pool).ok().unwrap();
            let bytes = state_bytes(zstd.0, zstd.1, Some(counted));
            assert_eq!((pool.taken_bytes(), coder.bytes()), (bytes, bytes));
            coders.put(coder, &pool);
        }
    }

    #[test]
    fn idle_coders_are_bounded_in_number_and_bytes() {
        let (coders, pool) = (CoderPool::default(), Pool::new());
        let many = || {
            let taken =
                (0..2 * IDLE_CODERS_MAX).map(|_| coders.take(GZIP, None, &pool).ok().unwrap());
            let taken: Vec<_> = taken.collect();
            taken.into_iter().for_each(|coder| coders.put(coder, &pool));
            coders.idle.borrow().len()
        };
        assert!(many() <= IDLE_CODERS_MAX);
        assert!(pool.taken_bytes() <= pool.kept_bytes_max());
        pool.keep(1_000_000);
        assert_eq!(many(), 2);
        pool.keep(0);
        assert_eq!(many(), 0);
        assert_eq!(pool.taken_bytes(), 0);
    }

    #[test]
    fn coders_that_nothing_needs_are_freed_in_time() {
        let (coders, pool) = (CoderPool::default(), Pool::new());
        let both = [(); 2].map(|()| coders.take(GZIP, None, &pool).ok().unwrap());
        both.into_iter().for_each(|coder| coders.put(coder, &pool));
        coders.trim();
        for _ in 0..5 {
            ended(&coders, GZIP, &pool);
            coders.trim();
        }
        assert_eq!(coders.idle.borrow().len(), 1, "one is in use");
        coders.trim();
        assert_eq!(pool.taken_bytes(), 0);
    }
}
