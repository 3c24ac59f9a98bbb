//! Memory that several cores use: the only atomics of the data path.
//!
//! A write to such memory takes its cache line away from the other cores, which costs them and the writer some 100 ns. So a
//! plain exchange on a kept connection makes no such write, and a test counts them (`tests/sim_cores.rs`). Two kinds count
//! apart: writes of cells that any core may write, and writes of [`OwnU32`] and [`OwnU64`], which only one core writes. Those
//! lie on lines of that core, and other threads read them once a second at most, or when a request has to wait.
//!
//! With debug assertions, the types count; without, they are those of the standard library.

pub use std::sync::atomic::Ordering;

#[cfg(not(debug_assertions))]
pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};

#[cfg(debug_assertions)]
pub use counting::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};

/// What all threads of the process have done with shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Writes of cells that any core may write, and messages to other threads.
    pub shared_writes: u64,
    /// Reads of such cells.
    pub shared_reads: u64,
    /// Writes of cells that only their core writes.
    pub own_writes: u64,
}

/// The accesses up to now; `None` in a build that does not count them.
#[must_use]
pub fn accesses() -> Option<Accesses> {
    #[cfg(debug_assertions)]
    return Some(Accesses {
        shared_writes: counting::read(&counting::SHARED_WRITES),
        shared_reads: counting::read(&counting::SHARED_READS),
        own_writes: counting::read(&counting::OWN_WRITES),
    });
    #[cfg(not(debug_assertions))]
    None
}

/// Counts a write of shared memory that is in no type of this module: a message in a queue between threads, a lock.
#[inline]
pub fn count_shared_write() {
    #[cfg(debug_assertions)]
    counting::add(&counting::SHARED_WRITES);
}

/// Counts a write that another thread reads in its own time, of memory that only this core writes: a record in its log ring.
#[inline]
pub fn count_own_write() {
    #[cfg(debug_assertions)]
    counting::add(&counting::OWN_WRITES);
}

macro_rules! own_cell {
    ($name:ident, $value:ty, $atomic:ident) => {
        /// A number that only one core writes, on a cache line of that core.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(std::sync::atomic::$atomic);

        impl $name {
            /// Makes the cell with its first value.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$atomic::new(value))
            }

            /// Reads the number, from any thread.
            #[inline]
            #[must_use]
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }

            /// Replaces the number. Only its core calls this.
            #[inline]
            pub fn store(&self, value: $value, order: Ordering) {
                count_own_write();
                self.0.store(value, order);
            }
        }
    };
}

own_cell!(OwnU32, u32, AtomicU32);
own_cell!(OwnU64, u64, AtomicU64);

/// The types of the standard library, with a count of what is done with them.
#[cfg(debug_assertions)]
mod counting {
    use std::sync::atomic::{self, Ordering};

    pub(super) static SHARED_WRITES: atomic::AtomicU64 = atomic::AtomicU64::new(0);
    pub(super) static SHARED_READS: atomic::AtomicU64 = atomic::AtomicU64::new(0);
    pub(super) static OWN_WRITES: atomic::AtomicU64 = atomic::AtomicU64::new(0);

    pub(super) fn read(count: &atomic::AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    pub(super) fn add(count: &atomic::AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    macro_rules! cell {
        ($name:ident, $value:ty) => {
            /// A value that any core may write.
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(atomic::$name);

            impl $name {
                /// Makes the cell with its first value.
                #[must_use]
                pub const fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                /// Reads the value.
                #[inline]
                pub fn load(&self, order: Ordering) -> $value {
                    add(&SHARED_READS);
                    self.0.load(order)
                }

                /// Replaces the value.
                #[inline]
                pub fn store(&self, value: $value, order: Ordering) {
                    add(&SHARED_WRITES);
                    self.0.store(value, order);
                }

                /// Replaces the value and returns the former one.
                #[inline]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    add(&SHARED_WRITES);
                    self.0.swap(value, order)
                }
            }
        };
    }

    macro_rules! number {
        ($name:ident, $value:ty) => {
            cell!($name, $value);

            impl $name {
                /// Adds and returns the former value.
                #[inline]
                pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    add(&SHARED_WRITES);
                    self.0.fetch_add(value, order)
                }

                /// Subtracts and returns the former value.
                #[inline]
                pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    add(&SHARED_WRITES);
                    self.0.fetch_sub(value, order)
                }

                /// Takes the lesser value and returns the former one.
                #[inline]
                pub fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                    add(&SHARED_WRITES);
                    self.0.fetch_min(value, order)
                }

                /// Takes the greater value and returns the former one.
                #[inline]
                pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    add(&SHARED_WRITES);
                    self.0.fetch_max(value, order)
                }

                /// Replaces the value if it is `current`, and returns the former one.
                ///
                /// # Errors
                /// The value was another, which is returned.
                #[inline]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    // Also a failure takes the line.
                    add(&SHARED_WRITES);
                    self.0.compare_exchange(current, new, success, failure)
                }

                /// Replaces the value by what `change` makes of it, and returns the former one.
                ///
                /// # Errors
                /// `change` has returned `None` for the value, which is returned.
                #[inline]
                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    change: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let former = self.0.fetch_update(set, fetch, change)?;
                    add(&SHARED_WRITES);
                    Ok(former)
                }
            }
        };
    }

    cell!(AtomicBool, bool);
    number!(AtomicI32, i32);
    number!(AtomicU32, u32);
    number!(AtomicU64, u64);
}
