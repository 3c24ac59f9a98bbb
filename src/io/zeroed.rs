//! Memory that costs nothing until it is used.

use crate::shared::AtomicU64;

/// So many atomic words, all zero. The system gives the pages of many words only when they are first written.
#[must_use]
pub fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    const { assert!(align_of::<AtomicU64>() == align_of::<u64>()) };
    let words: *mut [u64] = Box::into_raw(vec![0; count].into_boxed_slice());
    // SAFETY: `AtomicU64` has the size and the valid values of `u64`, and here its alignment, and the box is the only
    // owner of the words.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}
