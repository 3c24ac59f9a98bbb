//! What a step answers with, and what the exchange tells a step that has waited.

use super::{Call, CallAnswer};
use crate::fault::Reason;

/// How a request goes on after a step.
#[derive(Debug)]
pub enum Flow {
    /// The next step follows.
    Next,
    /// The client gets this answer.
    Reply(Box<StepReply>),
    /// The step needs something first. Its `resume` follows.
    Wait(Wait),
}

impl Flow {
    /// Refuses the request with the usual answer for `reason`.
    #[must_use]
    pub fn refuse(reason: Reason) -> Self {
        Self::Reply(Box::new(StepReply::problem(reason)))
    }
}

/// An answer of a step.
#[derive(Debug, Default)]
pub struct StepReply {
    /// If there is one, the client gets the usual answer for it, and `status` and `body` have no effect.
    pub reason: Option<Reason>,
    /// The status of an answer without a reason.
    pub status: u16,
    /// Fields of the answer.
    pub fields: Vec<(Box<str>, Vec<u8>)>,
    /// The body of an answer without a reason.
    pub body: Vec<u8>,
}

impl StepReply {
    /// The usual answer for a reason.
    #[must_use]
    pub fn problem(reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            status: reason.status(),
            ..Self::default()
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }
}

/// What a step waits for.
#[derive(Debug)]
pub enum Wait {
    /// A turn for work that costs as much as many requests. The core runs everything else between two such works.
    Turn,
    /// The answer to a sub-request.
    Call(Box<Call>),
}

/// What a step gets that has waited.
#[derive(Debug)]
pub enum Woken {
    /// Its turn has come.
    Turn,
    /// Its sub-request was answered.
    Answered(Box<CallAnswer>),
    /// Its sub-request failed before the head of an answer arrived.
    CallFailed(Reason),
}
