//! A filter for tests.

use std::collections::VecDeque;

use weir_proto_h1::{BodyKind, Edits, Head, Trailers};

use super::{Budget, Filter, Filters, Framed, Input, Part};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Pool};

/// What a [`Probe`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Passes everything on.
    Pass,
    /// Doubles every byte.
    Double,
    /// Holds head and body back until the body has ended.
    Hold,
    /// Turns trailers into data behind the body.
    AppendTrailers,
    /// Fails once this many bytes have come.
    Fail(usize),
}

/// A filter that does something simple, at a cost.
pub struct Probe {
    action: Action,
    /// The most bytes that one step takes, and what it costs.
    step_bytes: usize,
    step_us: u32,
    /// Pieces that can leave, once `may_leave`.
    ready: VecDeque<Chunk>,
    may_leave: bool,
    taken: usize,
}

impl Probe {
    /// Makes a filter that takes at most `step_bytes` in a step of `step_us`.
    pub fn new(action: Action, step_bytes: usize, step_us: u32) -> Self {
        Self {
            action,
            step_bytes,
            step_us,
            ready: VecDeque::new(),
            may_leave: action != Action::Hold,
            taken: 0,
        }
    }

    pub(super) fn head(&self, _head: &Head, edits: &mut Edits, body: BodyKind) -> Framed {
        match (self.action, body) {
            (Action::Hold, _) if !self.may_leave => Framed::Later,
            (Action::Hold, _) => {
                let held = self.ready.iter().map(|piece| piece.len() as u64);
                Framed::Now(BodyKind::Length(held.sum()))
            }
            (Action::Double, BodyKind::Length(length)) => {
                edits.append("X-Doubled", "yes");
                Framed::Now(BodyKind::Length(2 * length))
            }
            (Action::AppendTrailers, _) => Framed::Now(BodyKind::Chunked),
            (_, body) => Framed::Now(body),
        }
    }

    pub(super) fn pull(
        &mut self,
        input: &mut Input,
        pool: &Pool,
        budget: &mut Budget,
    ) -> Result<Option<Part>, Fault> {
        loop {
            if self.may_leave
                && let Some(piece) = self.ready.pop_front()
            {
                return Ok(Some(Part::Data(piece)));
            }
            if budget.is_spent() {
                return Ok(None);
            }
            let Some(piece) = input.take(self.step_bytes) else {
                return Ok(match input.has_ended() {
                    true => self.end(input, pool),
                    false => None,
                });
            };
            budget.spend(self.step_us);
            self.taken += piece.len();
            match self.action {
                Action::Fail(at) if self.taken >= at => {
                    return Err(Fault::local(Phase::Body, Reason::Internal));
                }
                Action::Double => {
                    let twice: Vec<u8> = piece.iter().flat_map(|&byte| [byte, byte]).collect();
                    self.ready.push_back(pool.copy(&twice));
                }
                _ => self.ready.push_back(piece),
            }
        }
    }

    fn end(&mut self, input: &mut Input, pool: &Pool) -> Option<Part> {
        if self.action == Action::Hold && !self.may_leave {
            self.may_leave = true;
            return Some(Part::Head);
        }
        if self.action == Action::AppendTrailers && !input.trailers.is_empty() {
            let trailers = std::mem::take(&mut input.trailers);
            return Some(Part::Data(pool.copy(&in_words(&trailers))));
        }
        Some(Part::End)
    }

    pub(super) fn held(&self) -> usize {
        self.ready.iter().map(Chunk::weight).sum()
    }
}

/// Trailers as [`Action::AppendTrailers`] writes them.
pub fn in_words(trailers: &Trailers) -> Vec<u8> {
    let lines = trailers
        .iter()
        .map(|(name, value)| [name, b"=", value, b";"].concat());
    lines.collect::<Vec<_>>().concat()
}

/// A step that adds probes, each time in this order.
#[derive(Debug, Default)]
pub struct ProbeStep {
    /// For the request's body, each with the bytes and the cost of a step.
    pub request: Vec<(Action, usize, u32)>,
    /// For the answer's.
    pub answer: Vec<(Action, usize, u32)>,
}

impl ProbeStep {
    pub fn filter_request(&self, filters: &mut Filters) {
        add(&self.request, filters);
    }

    pub fn filter_answer(&self, filters: &mut Filters) {
        add(&self.answer, filters);
    }
}

fn add(probes: &[(Action, usize, u32)], filters: &mut Filters) {
    for &(action, step_bytes, step_us) in probes {
        filters.add(Filter::Probe(Probe::new(action, step_bytes, step_us)));
    }
}
