//! What a step would do with a request, in words.

use super::PolicyKind;
use crate::fault::Reason;

/// What a step would do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request passes.
    Passes(String),
    /// Weir refuses the request.
    Refuses(Reason, String),
    /// Weir answers the request with this status.
    Answers(u16, String),
    /// Only a running Weir can tell: the step needs state or the network.
    WouldCheck(String),
    /// The step changes the request or the answer.
    Does(String),
}

/// The verdict of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepVerdict {
    /// The kind of policy.
    pub kind: PolicyKind,
    /// The verdict.
    pub verdict: Verdict,
}

impl Verdict {
    /// The status that the step answers with, if it does not let the request pass.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refuses(reason, _) => Some(reason.status()),
            Self::Answers(status, _) => Some(*status),
            Self::Passes(_) | Self::WouldCheck(_) | Self::Does(_) => None,
        }
    }
}
