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
    /// Keeps a piece. Small pieces share a block.
    pub(super) fn keep(&mut self, piece: &Chunk, pool: &Pool) {
        self.bytes += piece.len();
        self.is_lost |= self.bytes > REPLAY_BYTES_MAX;
        if self.is_lost {
            self.pieces.clear();
        } else if piece.len() >= COPY_BELOW_BYTES {
            self.pieces.push(piece.clone());
        } else if !self
            .pieces
            .last_mut()
            .is_some_and(|last| last.append(piece))
        {
            self.pieces.push(pool.copy(piece));
        }
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
