//! Filters change a body on its way, in either direction.
//!
//! A message has at most one [`Chain`] of filters. The exchange pushes the pieces that it receives into the chain, and
//! pulls the parts that it sends out of it. A message without a chain goes straight through.
//!
//! Filters do no I/O. Their work is measured: a chain works until its [`Budget`] is spent, then the exchange lets the
//! rest of the core run before it renews the budget.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use weir_proto_h1::{BodyKind, Edits, Head, Trailers};

use super::compress::Compressor;
use crate::fault::Fault;
use crate::io::{Chunk, Pool};
use crate::limits::{FILTER_BUDGET_US, FILTER_TURNS_IN_ROW};
use crate::work_queue::{Place, WorkTurn};

/// A change to a body.
pub enum Filter {
    /// Compresses.
    Compress(Box<Compressor>),
    /// Does what a test says.
    #[cfg(test)]
    Probe(probe::Probe),
}

/// What a filter does with the head of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// The head may leave. The changed body is framed like this.
    Now(BodyKind),
    /// The head waits for the body. Once the filter knows enough, it returns [`Part::Head`] and hears the head again.
    Later,
}

/// What comes out of a filter.
#[derive(Debug)]
pub enum Part {
    /// The head, which has waited, may leave.
    Head,
    /// A piece of the body.
    Data(Chunk),
    /// The end of the body.
    End,
}

/// The work that a chain may still do in its turn, in microseconds. Filters estimate the cost of their work by its size,
/// because reading a clock for every piece would cost more than it tells.
#[derive(Debug, Default)]
pub struct Budget {
    us: u32,
}

impl Budget {
    /// Counts work.
    pub fn spend(&mut self, us: u32) {
        self.us = self.us.saturating_sub(us);
    }

    /// Whether the chain must let others run.
    pub fn is_spent(&self) -> bool {
        self.us == 0
    }
}

/// What waits in front of a filter.
#[derive(Default)]
pub struct Input {
    pieces: VecDeque<Chunk>,
    /// The sender pauses: everything that has come must leave.
    must_flush: bool,
    /// No more pieces follow.
    has_ended: bool,
    /// The trailers of a message that has ended. A filter may change them before it returns [`Part::End`].
    pub trailers: Trailers,
}

impl Input {
    /// Takes up to `bytes_max` bytes.
    pub fn take(&mut self, bytes_max: usize) -> Option<Chunk> {
        let first = self.pieces.front_mut()?;
        if first.len() > bytes_max {
            return Some(first.split_to(bytes_max));
        }
        self.pieces.pop_front()
    }

    /// Whether no piece waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether everything that has come must leave now.
    pub fn must_flush(&self) -> bool {
        self.must_flush
    }

    /// Whether no more pieces follow those that wait.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn held(&self) -> usize {
        self.pieces.iter().map(Chunk::weight).sum()
    }
}

impl Filter {
    /// Hears the head of a message whose body is framed as `body`. May edit the head.
    fn head(&mut self, head: &Head, edits: &mut Edits, body: BodyKind) -> Framed {
        match self {
            Self::Compress(compressor) => compressor.head(head, edits, body),
            #[cfg(test)]
            Self::Probe(probe) => probe.head(head, edits, body),
        }
    }

    /// Works on the input until a part is ready, the input is used up, or the budget is spent. With a budget that is
    /// spent already, it returns only what is ready. `None` with an empty input and budget left means that all of it has
    /// left if it must flush. After [`Part::End`] nothing follows.
    fn pull(
        &mut self,
        input: &mut Input,
        pool: &Pool,
        budget: &mut Budget,
    ) -> Result<Option<Part>, Fault> {
        match self {
            Self::Compress(compressor) => compressor.pull(input, pool, budget),
            #[cfg(test)]
            Self::Probe(probe) => probe.pull(input, pool, budget),
        }
    }

    /// Bytes of memory that the filter itself holds.
    fn held(&self) -> usize {
        match self {
            Self::Compress(compressor) => compressor.held(),
            #[cfg(test)]
            Self::Probe(probe) => probe.held(),
        }
    }
}

/// The filters that a message has got so far. Policies add theirs.
#[derive(Default)]
pub struct Filters {
    chain: Option<Box<Chain>>,
    is_memory_short: bool,
}

impl Filters {
    /// Begins without filters.
    #[must_use]
    pub fn new(is_memory_short: bool) -> Self {
        Self {
            chain: None,
            is_memory_short,
        }
    }

    /// Whether the core is short of memory, so that filters which take much of it should be left out.
    #[must_use]
    pub fn is_memory_short(&self) -> bool {
        self.is_memory_short
    }

    /// Adds a filter behind those that are there.
    pub fn add(&mut self, filter: Filter) {
        let chain = self.chain.get_or_insert_default();
        chain.stages.push(Stage {
            filter,
            input: Input::default(),
            is_active: false,
            is_done: false,
        });
    }

    /// The chain; `None` without filters.
    #[must_use]
    pub fn into_chain(self) -> Option<Box<Chain>> {
        self.chain
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.chain.as_ref().map_or(0, |chain| chain.stages.len());
        write!(f, "Filters({count})")
    }
}

/// The filters of one message, in the order in which they see its body.
#[derive(Default)]
pub struct Chain {
    stages: Vec<Stage>,
    /// The first filter that has not agreed to the head, and the framing in front of it.
    head_at: usize,
    body: BodyKind,
    budget: Budget,
    /// The chain's place in the queue of costly work.
    pub turn: Option<Rc<WorkTurn>>,
    /// Turns that the chain has had.
    turns: u32,
    /// Bytes that have come in, and how many the head has announced.
    received: u64,
    announced: Option<u64>,
    /// Bytes have come in since the last flush.
    is_unflushed: bool,
    /// The trailers, once the message has ended.
    trailers: Trailers,
}

/// One filter with its input.
struct Stage {
    filter: Filter,
    input: Input,
    /// The filter may have more parts ready.
    is_active: bool,
    /// The filter has ended the body.
    is_done: bool,
}

impl Stage {
    fn has_work(&self) -> bool {
        let input = &self.input;
        !self.is_done
            && (self.is_active || !input.is_empty() || input.must_flush || input.has_ended)
    }
}

impl Chain {
    /// Passes the head of a message along the filters. Call it when the head arrives, and again for each
    /// [`Part::Head`]; `body` counts only in the first call.
    pub fn head(&mut self, head: &Head, edits: &mut Edits, body: BodyKind) -> Framed {
        if self.head_at == 0 && self.received == 0 {
            self.body = body;
            self.announced = match body {
                BodyKind::Length(length) => Some(length),
                _ => None,
            };
        }
        while let Some(stage) = self.stages.get_mut(self.head_at) {
            match stage.filter.head(head, edits, self.body) {
                Framed::Now(body) => self.body = body,
                Framed::Later => return Framed::Later,
            }
            self.head_at += 1;
        }
        Framed::Now(self.body)
    }

    /// Adds a piece of the body.
    pub fn push(&mut self, piece: Chunk) {
        self.received += piece.len() as u64;
        if let Some(first) = self.stages.first_mut()
            && !piece.is_empty()
        {
            first.input.pieces.push_back(piece);
            self.is_unflushed = true;
        }
    }

    /// Says that the sender pauses. If the receiver may be waiting for what has come in, as it does for events, that
    /// goes out now. Returns whether there is something to go out. A body whose length is known is not flushed: its
    /// receiver waits for the whole, and small pieces compress badly.
    pub fn flush(&mut self) -> bool {
        let must_flush = self.is_unflushed && self.announced.is_none();
        if let Some(first) = self.stages.first_mut()
            && must_flush
        {
            first.input.must_flush = true;
            self.is_unflushed = false;
        }
        must_flush
    }

    /// Ends the body.
    pub fn end(&mut self, trailers: &Trailers) {
        if let Some(first) = self.stages.first_mut() {
            first.input.has_ended = true;
            if !trailers.is_empty() {
                first.input.trailers = trailers.clone();
            }
        }
    }

    /// Works until a part is ready to leave. `None`: the filters wait for input, or, if [`Chain::has_work`], for another
    /// budget.
    ///
    /// # Errors
    /// A filter cannot go on. The message must then be broken off.
    pub fn pull(&mut self, pool: &Pool) -> Result<Option<Part>, Fault> {
        // The last filter that can work goes first, so that nothing piles up between two filters.
        let mut at = self.stages.len();
        while at > 0 {
            let (before, behind) = self.stages.split_at_mut(at);
            let Some(stage) = before.last_mut() else {
                break;
            };
            if !stage.has_work() {
                at -= 1;
                continue;
            }
            let next = behind.first_mut().map(|next| &mut next.input);
            let pulled = stage.filter.pull(&mut stage.input, pool, &mut self.budget);
            let part = pulled?;
            stage.is_active = part.is_some();
            match (part, next) {
                (None, _) if !stage.input.is_empty() || stage.input.has_ended => {
                    // The filter waits for another budget.
                    self.budget = Budget::default();
                    return Ok(None);
                }
                (None, _) if stage.input.must_flush && self.budget.is_spent() => return Ok(None),
                (None, next) => {
                    stage.input.must_flush = false;
                    if let Some(next) = next {
                        next.must_flush = true;
                        at += 1;
                    }
                }
                (Some(Part::Head), _) => return Ok(Some(Part::Head)),
                (Some(part), None) => {
                    if let Part::End = part {
                        stage.is_done = true;
                        self.trailers = std::mem::take(&mut stage.input.trailers);
                    }
                    return Ok(Some(part));
                }
                (Some(Part::Data(data)), Some(next)) => {
                    next.pieces.push_back(data);
                    at += 1;
                }
                (Some(Part::End), Some(next)) => {
                    stage.is_done = true;
                    next.has_ended = true;
                    next.trailers = std::mem::take(&mut stage.input.trailers);
                    at += 1;
                }
            }
        }
        Ok(None)
    }

    /// Whether a filter could go on with what it has.
    pub fn has_work(&self) -> bool {
        self.stages.iter().any(Stage::has_work)
    }

    /// Where the chain waits for its next turn. It has some turns in a row, so that a short body ends before another
    /// begins: then few coders are in use at a time, and they stay in the cache.
    pub fn place(&self) -> Place {
        match self.turns.is_multiple_of(FILTER_TURNS_IN_ROW) {
            true => Place::Back,
            false => Place::Front,
        }
    }

    /// Gives the chain a new budget, because it is its turn.
    pub fn renew_budget(&mut self) {
        self.budget.us = FILTER_BUDGET_US;
        self.turns = self.turns.wrapping_add(1);
    }

    /// Whether no more input comes.
    pub fn has_ended(&self) -> bool {
        self.stages
            .first()
            .is_none_or(|first| first.input.has_ended)
    }

    /// Bytes that have come in.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether as many bytes have come in as the head has announced.
    pub fn has_whole_body(&self) -> bool {
        self.announced == Some(self.received)
    }

    /// The trailers of the message, once it has ended.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Bytes in front of filters that have not taken them yet, for tests.
    pub fn unread_bytes(&self) -> usize {
        let pieces = self.stages.iter().flat_map(|stage| &stage.input.pieces);
        pieces.map(Chunk::len).sum()
    }

    /// Bytes of memory that the chain holds.
    pub fn held(&self) -> usize {
        let held = |stage: &Stage| stage.filter.held() + stage.input.held();
        self.stages.iter().map(held).sum()
    }
}

#[cfg(test)]
pub mod probe;

#[cfg(test)]
mod tests;
