//! The part of a request's body that is kept for another attempt.

use crate::io::{Chunk, Pool};
use crate::limits::{COPY_BELOW_BYTES, REPLAY_BYTES_MAX};

/// The part of the request's body that was sent, kept for another attempt. A body longer than [`REPLAY_BYTES_MAX`] is
/// not kept, and its request is not repeated.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) pieces: Vec<Chunk>,
    bytes: usize,
    /// The body has ended.
    pub(super) has_end: bool,
    /// A part of the body was not kept.
    is_lost: bool,
}

impl Replay {
    /// Keeps a piece.
    pub(super) fn keep(&mut self, piece: &Chunk, pool: &Pool) {
        self.bytes += piece.len();
        self.is_lost |= self.bytes > REPLAY_BYTES_MAX;
        if self.is_lost {
            self.pieces.clear();
        } else {
            self.keep_all(piece, pool);
        }
    }

    /// Keeps a piece, however much that is together. Small pieces share a block. Returns how many bytes of memory that
    /// takes.
    pub(super) fn keep_all(&mut self, piece: &Chunk, pool: &Pool) -> usize {
        let last = self.pieces.last_mut();
        let kept = if piece.len() >= COPY_BELOW_BYTES {
            piece.clone()
        } else if last.is_some_and(|last| last.append(piece)) {
            return 0;
        } else {
            pool.copy(piece)
        };
        let weight = kept.weight();
        self.pieces.push(kept);
        weight
    }

    /// Drops all pieces: no other attempt follows.
    pub(super) fn forget(&mut self) {
        self.pieces.clear();
        self.is_lost = true;
    }

    /// Bytes of memory that the pieces hold.
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(Chunk::weight).sum()
    }

    /// Whether every byte of the body received so far was kept.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_lost
    }
}
