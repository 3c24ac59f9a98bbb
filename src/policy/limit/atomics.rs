//! The atomics of the shared cells. `tests/loom_limit.rs` compiles the same cells over those of a model checker.

pub(super) use crate::io::zeroed_words;
pub(super) use crate::shared::{AtomicU32, AtomicU64, Ordering};
pub(super) use std::hint::spin_loop;
pub(super) use std::thread::yield_now;

/// How often a core looks whether a set's lock is free. The lock is held for some 20 ns, unless the system takes the CPU
/// away from its holder.
pub(super) const LOCK_SPINS: u32 = 1_000;

/// How often a core then gives its CPU to other threads, one of which may be the holder: some 10 ms in all.
pub(super) const LOCK_YIELDS: u32 = 10_000;
