//! The filter that compresses a body.

use std::rc::Rc;

use weir_proto_h1::{BodyKind, Edits, Head};

use super::super::filter::{Budget, Framed, Input, Part};
use super::Coding;
use super::coder::{CoderError, Operation};
use super::coder_pool::{CoderPool, PooledCoder};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, OutBlock, Pool};
use crate::limits::BLOCK_BYTES;

/// Compresses one body.
///
/// Left alone, a coder collects a block of up to 128 KiB and codes it at once, which takes milliseconds at higher levels.
/// So the filter hands it a step at a time and flushes each step, unless the coder works as it goes. Measured, the
/// flushes make the result four to six percent longer.
pub struct Compressor {
    coding: Coding,
    level: u8,
    /// How long the body is, if that is known.
    length: Option<u64>,
    /// Bytes of the body that the coder has got.
    taken: u64,
    /// `None` before the first step and after the last.
    coder: Option<PooledCoder>,
    /// Where the coder comes from, and where it goes after the body.
    coders: Rc<CoderPool>,
    /// The rest of the piece that is being coded, and what the coder does behind it.
    piece: Chunk,
    operation: Operation,
    /// The coder has not finished the operation.
    is_busy: bool,
    /// Bytes that the coder still takes before it is flushed.
    step_left: usize,
    /// The coder may hold bytes that it has not written.
    is_unflushed: bool,
    out: Option<OutBlock>,
    /// The output must leave, however short it is.
    must_leave: bool,
}

impl Compressor {
    /// Makes the filter. It takes memory when it begins to work.
    #[must_use]
    pub fn new(coding: Coding, level: u8, coders: Rc<CoderPool>) -> Self {
        Self {
            coding,
            level,
            length: None,
            taken: 0,
            coder: None,
            coders,
            piece: Chunk::default(),
            operation: Operation::More,
            is_busy: false,
            step_left: coding.step_bytes(level),
            is_unflushed: false,
            out: None,
            must_leave: false,
        }
    }

    /// Notes how long the body is. How long the result will be is not known. [`Rules`](super::Rules) has edited the
    /// head.
    pub(in crate::policy) fn head(
        &mut self,
        _head: &Head,
        _edits: &mut Edits,
        body: BodyKind,
    ) -> Framed {
        if let BodyKind::Length(length) = body {
            self.length = Some(length);
        }
        Framed::Now(BodyKind::Chunked)
    }

    /// Codes the input step by step, until some output can leave or the budget is spent.
    pub(in crate::policy) fn pull(
        &mut self,
        input: &mut Input,
        pool: &Pool,
        budget: &mut Budget,
    ) -> Result<Option<Part>, Fault> {
        loop {
            if !self.is_busy && self.operation == Operation::End {
                if let Some(coder) = self.coder.take() {
                    self.coders.put(coder, pool);
                }
                if !input.is_empty() {
                    // The body is longer than its head has said.
                    return Err(broken());
                }
                let rest = self.take_output();
                return Ok(rest.or(input.has_ended().then_some(Part::End)));
            }
            if !self.is_busy && !self.begin_step(input, budget) {
                self.must_leave |= input.is_empty() && input.must_flush();
                return Ok(match self.must_leave {
                    true => self.take_output(),
                    false => None,
                });
            }
            self.code(pool).map_err(|CoderError| broken())?;
            let out = self.out.as_ref();
            let is_full = out.is_some_and(|out| out.left() < ROOM_BYTES_MIN);
            let is_long = out.is_some_and(|out| out.len() >= LEAVE_BYTES);
            if is_full || is_long && !self.is_busy {
                return Ok(self.take_output());
            }
        }
    }

    /// Chooses what the coder does next. `false`: nothing, or nothing within the budget.
    fn begin_step(&mut self, input: &mut Input, budget: &mut Budget) -> bool {
        if budget.is_spent() {
            return false;
        }
        self.piece = input.take(self.step_left).unwrap_or_default();
        self.step_left -= self.piece.len();
        self.taken += self.piece.len() as u64;
        self.is_unflushed |= !self.piece.is_empty();
        let is_last = input.is_empty();
        let must_flush =
            is_last && input.must_flush() || self.step_left == 0 && !self.coding.works_as_it_goes();
        self.operation = match () {
            // The last byte may come some time before the end.
            () if is_last && (input.has_ended() || self.length == Some(self.taken)) => {
                Operation::End
            }
            () if self.is_unflushed && must_flush => Operation::Flush,
            () => Operation::More,
        };
        if self.operation != Operation::More {
            self.is_unflushed = false;
        }
        if self.step_left == 0 {
            self.step_left = self.coding.step_bytes(self.level);
        }
        self.is_busy = !self.piece.is_empty() || self.operation != Operation::More;
        if self.is_busy {
            budget.spend(self.coding.cost_us(self.level, self.piece.len()));
        }
        self.is_busy
    }

    /// Lets the coder work until its operation is complete or the output is full.
    fn code(&mut self, pool: &Pool) -> Result<(), CoderError> {
        let coder = match &mut self.coder {
            Some(coder) => coder,
            None => {
                let kind = (self.coding, self.level);
                self.coder
                    .insert(self.coders.take(kind, self.length, pool)?)
            }
        };
        let out = self.out.get_or_insert_with(|| pool.out(BLOCK_BYTES[1]));
        let room = out.left();
        let progress = coder
            .coder
            .code(&self.piece, out.room(room), self.operation)?;
        out.wrote(progress.written);
        self.piece.advance(progress.taken);
        self.is_busy = !progress.is_complete;
        Ok(())
    }

    fn take_output(&mut self) -> Option<Part> {
        self.must_leave = false;
        let out = self.out.take().filter(|out| !out.is_empty());
        out.map(|out| Part::Data(out.freeze()))
    }

    /// Bytes of memory that the filter holds.
    pub(in crate::policy) fn held(&self) -> usize {
        let state = self.coder.as_ref().map_or(0, PooledCoder::bytes);
        let out = self.out.as_ref().map_or(0, |_| BLOCK_BYTES[1]);
        state + out + self.piece.weight()
    }
}

fn broken() -> Fault {
    Fault::local(Phase::Body, Reason::Internal)
}

/// Output of this length leaves, so that the client has something to read while more is coded.
const LEAVE_BYTES: usize = 4 * 1024;

/// A block with less room is full. The framing that follows takes the rest.
const ROOM_BYTES_MIN: usize = 64;
