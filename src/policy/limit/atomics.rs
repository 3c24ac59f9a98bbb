//! The atomics of the shared cells. `tests/loom_limit.rs` compiles the same cells over those of a model checker.

pub(super) use crate::io::zeroed_words;
pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How often a core looks whether a set's lock is free. The lock is held for some 20 ns, unless the system takes the CPU
/// away from its holder.
pub(super) const LOCK_SPINS: u32 = 10_000;
