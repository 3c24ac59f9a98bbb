//! The system's allocator, counting the allocations of chosen threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static TALLY: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// Counts in `tally` every allocation and reallocation of this thread from now on.
pub(crate) fn count_in(tally: &'static AtomicU64) {
    TALLY.set(Some(tally));
}

/// The global allocator of the test's binary.
pub(crate) struct CountingAllocator;

fn count() {
    // A thread that is ending no longer has its thread-local.
    let tally = TALLY.try_with(Cell::get).ok().flatten();
    if let Some(tally) = tally {
        tally.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call passes unchanged to the system's allocator. Counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `realloc`, and `block` came from the same allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from the same allocator.
        unsafe { System.dealloc(block, layout) }
    }
}
