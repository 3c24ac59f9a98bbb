//! The system's allocator, counting the allocations of chosen threads and what they leave allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Sizes up to 2^40 bytes.
const CLASSES: usize = 40 * 4;

thread_local! {
    static TALLY: Cell<Option<&'static Tally>> = const { Cell::new(None) };
}

/// The allocations of a thread.
pub(crate) struct Tally {
    /// Allocations and reallocations so far.
    pub(crate) allocations: AtomicU64,
    /// Pieces of memory that are allocated now, by size class.
    live: [AtomicI64; CLASSES],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            live: [const { AtomicI64::new(0) }; CLASSES],
        }
    }
}

impl Tally {
    /// The pieces of memory that are allocated now, by the bytes that each takes. Sizes are rounded as mimalloc rounds
    /// them, with which Weir runs.
    pub(crate) fn live(&self) -> Vec<(i64, i64)> {
        let live = self.live.iter().map(|live| live.load(Ordering::Relaxed));
        (0..).map(class_bytes).zip(live).collect()
    }

    fn add(&self, size: usize, pieces: i64) {
        if let Some(live) = self.live.get(class(size)) {
            live.fetch_add(pieces, Ordering::Relaxed);
        }
    }
}

/// The size class of mimalloc 3: four for each power of two, and multiples of 16 bytes below 64.
fn class(size: usize) -> usize {
    match size {
        0..=64 => size.div_ceil(16),
        _ => {
            let power = (size - 1).ilog2() as usize;
            4 * (power - 5) + ((size - 1) >> (power - 2)) % 4 + 1
        }
    }
}

fn class_bytes(class: usize) -> i64 {
    match class {
        0..=4 => 16 * class as i64,
        _ => (((class - 1) % 4 + 5) << ((class - 1) / 4 + 3)) as i64,
    }
}

/// Counts in `tally` every allocation and reallocation of this thread from now on.
pub(crate) fn count_in(tally: &'static Tally) {
    TALLY.set(Some(tally));
}

/// The global allocator of the test's binary.
pub(crate) struct CountingAllocator;

fn count(count: impl FnOnce(&Tally)) {
    // A thread that is ending no longer has its thread-local.
    if let Some(tally) = TALLY.try_with(Cell::get).ok().flatten() {
        count(tally);
    }
}

fn count_allocation(size: usize) {
    count(|tally| {
        tally.allocations.fetch_add(1, Ordering::Relaxed);
        tally.add(size, 1);
    });
}

// SAFETY: every call passes unchanged to the system's allocator. Counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller keeps the rules of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation(size);
        count(|tally| tally.add(layout.size(), -1));
        // SAFETY: the caller keeps the rules of `realloc`, and `block` came from the same allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(|tally| tally.add(layout.size(), -1));
        // SAFETY: `block` came from the same allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[test]
fn classes_are_those_of_mimalloc() {
    let rounded = |size| class_bytes(class(size));
    for (size, bytes) in [
        (1, 16),
        (64, 64),
        (65, 80),
        (80, 80),
        (81, 96),
        (128, 128),
        (129, 160),
        (1025, 1280),
    ] {
        assert_eq!(rounded(size), bytes);
    }
}
