//! Received bytes that are not parsed yet.

use std::ops::Range;

use crate::io::{Chunk, Pool};

/// Received bytes that are not parsed yet. They are always in one piece, because Weir parses heads in place.
#[derive(Default)]
pub struct Inbox {
    chunk: Option<Chunk>,
}

impl Inbox {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.chunk.as_deref().unwrap_or_default()
    }

    /// A view of the bytes.
    pub fn view(&self) -> Chunk {
        self.chunk.clone().unwrap_or_default()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_none()
    }

    /// Adds a chunk behind the bytes: by reference if there are none, else by copy. So Weir copies only heads that
    /// arrive in pieces, and few of their bytes twice.
    pub fn add(&mut self, chunk: Chunk, pool: &Pool) {
        let Some(mut before) = self.chunk.take() else {
            self.chunk = (!chunk.is_empty()).then_some(chunk);
            return;
        };
        if !before.append(&chunk) {
            let mut joined = pool.out(2 * (before.len() + chunk.len()));
            joined.put(&before);
            joined.put(&chunk);
            before = joined.freeze();
        }
        self.chunk = Some(before);
    }

    /// Drops the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        if let Some(chunk) = &mut self.chunk {
            chunk.advance(n);
            if chunk.is_empty() {
                self.chunk = None;
            }
        }
    }

    /// Drops the first `consumed` bytes and returns `range` of them. If these are the last bytes of a block, the returned
    /// chunk is its only view, so that framing can be written around them in place.
    pub fn cut(&mut self, consumed: usize, range: Range<usize>) -> Chunk {
        let Some(chunk) = self.chunk.take() else {
            return Chunk::default();
        };
        let mut piece = if consumed >= chunk.len() {
            chunk
        } else {
            let piece = chunk.slice(0, consumed);
            self.chunk = Some(chunk);
            self.consume(consumed);
            piece
        };
        piece.truncate(range.end);
        piece.advance(range.start);
        piece
    }

    /// Takes everything.
    pub fn take(&mut self) -> Option<Chunk> {
        self.chunk.take()
    }
}
