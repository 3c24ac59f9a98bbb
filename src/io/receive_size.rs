//! How large the block of the next receive is.

use crate::limits::BLOCK_BYTES;

/// The size class of the next receive's block. It follows what recent receives have brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReceiveSize(u8);

impl ReceiveSize {
    /// Bytes that the block holds.
    pub(super) fn bytes(self) -> usize {
        BLOCK_BYTES[self.0 as usize]
    }

    /// Whether the block is larger than the smallest.
    pub(super) fn is_bulk(self) -> bool {
        self.0 > 0
    }

    /// The smallest size that holds `bytes`, or the largest of all.
    pub(super) fn for_bytes(bytes: usize) -> Self {
        let class = BLOCK_BYTES.iter().position(|&size| size >= bytes);
        Self(class.unwrap_or(BLOCK_BYTES.len() - 1) as u8)
    }

    /// Takes a larger block next if this one came full, and a smaller one if it came nearly empty.
    pub(super) fn adapt(&mut self, received: usize) {
        let size = self.bytes();
        if received >= size && (self.0 as usize) < BLOCK_BYTES.len() - 1 {
            self.0 += 1;
        } else if received < size / 8 && self.0 > 0 {
            self.0 -= 1;
        }
    }
}
