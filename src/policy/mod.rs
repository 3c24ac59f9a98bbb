//! Policies: what Weir does with a request beside sending it to its target.
//!
//! A policy is compiled to a [`Step`]. Steps are pure: they see the request, the facts about it and what the core keeps
//! for them ([`State`]), and they answer with data. The exchange does what they ask for. So `weir explain` and
//! `[[test]]` blocks run the same code as a core.
//!
//! Each policy is one file or folder here, and each function of [`Step`] is one `match` over all of them, without `_`,
//! so that the compiler names what a new policy has to decide. `src/ARCHITECTURE.md` has the steps ("Add a policy").
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod call;
mod certificate_fields;
mod claims;
mod compile;
pub mod compress;
pub mod cors;
pub mod errors;
mod facts;
pub mod filter;
mod flow;
pub mod form;
pub mod forward_auth;
mod headers;
pub mod ip;
pub mod json;
pub mod jwt;
mod kind;
pub mod limit;
mod mirror;
mod request;
mod security_headers;
mod state;
mod variables;
mod vary;
mod verdict;

pub use call::{AnswerBody, Call, CallAnswer, CallRequest};
pub use certificate_fields::{put_names, put_subject};
pub use claims::{ClaimValue, Claims};
pub use compile::{compile_listener, compile_route, compile_without_route};
pub use facts::{Facts, Notes};
pub use flow::{Flow, StepReply, Wait, Woken};
pub use kind::PolicyKind;
pub use mirror::{MIRROR_FIELD, Mirror};
pub use request::{AnswerView, AttemptFacts, StepRequest};
pub use state::{Registry, SharedByName, State, StateId, StatePlan, StatePlans};
pub use variables::{Template, Variables, segment};
pub use verdict::{StepVerdict, Verdict};

use std::rc::Rc;
use std::sync::Arc;

use filter::Filters;
use weir_proto_h1::Edits;

use compress::CoderPool;
use forward_auth::{ForwardAuth, Verdicts};
use headers::Headers;
use ip::CoreMap;
use jwt::{JwtState, JwtStep};
use limit::{ConcurrencyStep, CoreLimits, LimitStep};
use security_headers::SecurityHeaders;

/// One step of a route or listener, compiled from a policy of the file. Immutable; all cores share it.
#[derive(Clone, Debug)]
pub enum Step {
    /// `cors`.
    Cors(Arc<cors::Rules>),
    /// `ip`.
    Ip(Arc<ip::Rules>),
    /// `jwt`.
    Jwt(Arc<JwtStep>),
    /// `concurrency`.
    Concurrency(Arc<ConcurrencyStep>),
    /// `limit`: the limits that are known before authentication, or those by a claim.
    Limit(Arc<LimitStep>),
    /// `forward_auth`.
    ForwardAuth(Arc<ForwardAuth>),
    /// `security_headers`.
    SecurityHeaders(Arc<SecurityHeaders>),
    /// `headers`.
    Headers(Arc<Headers>),
    /// `compress`.
    Compress(Arc<compress::Rules>),
    /// `mirror`.
    Mirror(Arc<Mirror>),
    /// Filters that a unit test wants.
    #[cfg(test)]
    Probe(Arc<filter::probe::ProbeStep>),
}

/// A step, and the state that it uses.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// The core's state for it, if it has any.
    pub state: Option<StateId>,
}

impl Step {
    /// The kind of policy. It decides when the step runs.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        match self {
            Self::Cors(_) => PolicyKind::Cors,
            Self::Ip(_) => PolicyKind::Ip,
            Self::Jwt(_) => PolicyKind::Jwt,
            Self::Concurrency(_) => PolicyKind::Concurrency,
            Self::Limit(step) => step.kind(),
            Self::ForwardAuth(_) => PolicyKind::ForwardAuth,
            Self::SecurityHeaders(_) => PolicyKind::SecurityHeaders,
            Self::Headers(_) => PolicyKind::Headers,
            Self::Compress(_) => PolicyKind::Compress,
            Self::Mirror(_) => PolicyKind::Mirror,
            #[cfg(test)]
            Self::Probe(_) => PolicyKind::Compress,
        }
    }

    /// Whether both steps do the same with every request. Steps that never run before the route is known say `false`.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(one), Self::Ip(other)) => Arc::ptr_eq(one, other),
            (Self::Limit(one), Self::Limit(other)) => one.is_same(other),
            (
                Self::Ip(_)
                | Self::Limit(_)
                | Self::Cors(_)
                | Self::Concurrency(_)
                | Self::Jwt(_)
                | Self::ForwardAuth(_)
                | Self::SecurityHeaders(_)
                | Self::Headers(_)
                | Self::Compress(_)
                | Self::Mirror(_),
                _,
            ) => false,
            #[cfg(test)]
            (Self::Probe(_), _) => false,
        }
    }

    /// Decides whether the request goes on. Does no I/O, and allocates nothing for a request that passes.
    pub fn run(&self, state: Option<&State>, request: &StepRequest<'_>, facts: &mut Facts) -> Flow {
        match self {
            Self::Cors(rules) => rules.run(state, request),
            Self::Ip(rules) => rules.run(core_map(state), facts),
            Self::Jwt(jwt) => jwt.run(tokens(state), request, facts),
            Self::Concurrency(step) => step.run(limits(state), request, facts),
            Self::Limit(step) => step.run(limits(state), request, facts),
            Self::ForwardAuth(auth) => auth.run(verdicts(state), request, facts),
            Self::SecurityHeaders(_) | Self::Headers(_) => Flow::Next,
            Self::Compress(_) => Flow::Next,
            Self::Mirror(mirror) => {
                mirror.run(request, facts);
                Flow::Next
            }
            #[cfg(test)]
            Self::Probe(_) => Flow::Next,
        }
    }

    /// Goes on after [`Flow::Wait`].
    pub fn resume(
        &self,
        state: Option<&State>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        woken: Woken,
    ) -> Flow {
        match self {
            Self::Ip(_) | Self::Cors(_) => Flow::Next,
            Self::Jwt(jwt) => jwt.resume(tokens(state), request, facts),
            Self::Concurrency(_) | Self::Limit(_) => Flow::Next,
            Self::ForwardAuth(auth) => auth.resume(verdicts(state), request, facts, woken),
            Self::SecurityHeaders(_) | Self::Headers(_) => Flow::Next,
            Self::Compress(_) | Self::Mirror(_) => Flow::Next,
            #[cfg(test)]
            Self::Probe(_) => Flow::Next,
        }
    }

    /// Whether the step ever edits requests. If no step of a route does, requests cost nothing more.
    #[must_use]
    pub fn edits_requests(&self) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.edits_requests(),
            Self::ForwardAuth(_) | Self::Headers(_) => true,
            Self::Ip(_)
            | Self::Cors(_)
            | Self::Concurrency(_)
            | Self::Limit(_)
            | Self::SecurityHeaders(_)
            | Self::Compress(_)
            | Self::Mirror(_) => false,
            #[cfg(test)]
            Self::Probe(_) => false,
        }
    }

    /// Changes the request on its way to an endpoint, once for each attempt. The fields that Weir itself adds are
    /// there already.
    pub fn edit_request(
        &self,
        request: &StepRequest<'_>,
        facts: &Facts,
        attempt: &AttemptFacts<'_>,
        edits: &mut Edits,
    ) {
        match self {
            Self::Ip(_) | Self::Cors(_) => {}
            Self::Jwt(jwt) => jwt.edit_request(request, facts, edits),
            Self::Concurrency(_) | Self::Limit(_) => {}
            Self::ForwardAuth(auth) => auth.edit_request(request, facts, edits),
            Self::SecurityHeaders(_) => {}
            Self::Headers(headers) => headers.edit_request(request, facts, *attempt, edits),
            Self::Compress(_) | Self::Mirror(_) => {}
            #[cfg(test)]
            Self::Probe(_) => {}
        }
    }

    /// Whether the step edits every answer of its route, also one that Weir gives before the step has run. `answered` is
    /// the policy that answers. Pages may not read what policies before `cors` answer. If this is `false`, the step edits
    /// only the answers to requests that it has run for.
    #[must_use]
    pub fn edits_every_answer(&self, answered: Option<PolicyKind>) -> bool {
        match self {
            Self::SecurityHeaders(_) | Self::Headers(_) => true,
            Self::Cors(_) => answered.is_none_or(|kind| kind >= PolicyKind::Cors),
            Self::Ip(_)
            | Self::Concurrency(_)
            | Self::Limit(_)
            | Self::Jwt(_)
            | Self::ForwardAuth(_)
            | Self::Compress(_)
            | Self::Mirror(_) => false,
            #[cfg(test)]
            Self::Probe(_) => false,
        }
    }

    /// Whether the step ever edits answers. If no step of a route does, answers cost nothing more.
    #[must_use]
    pub fn edits_answers(&self) -> bool {
        match self {
            Self::Ip(_) | Self::Jwt(_) | Self::Concurrency(_) | Self::Mirror(_) => false,
            Self::Cors(_)
            | Self::Limit(_)
            | Self::ForwardAuth(_)
            | Self::SecurityHeaders(_)
            | Self::Headers(_)
            | Self::Compress(_) => true,
            #[cfg(test)]
            Self::Probe(_) => true,
        }
    }

    /// Changes an answer before its head leaves. Called for each step that has run and for those that edit every
    /// answer, the last first, also when Weir itself answers.
    pub fn edit_answer(
        &self,
        state: Option<&State>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
        answer: &mut AnswerView<'_>,
    ) {
        match self {
            Self::Cors(rules) => rules.edit_answer(state, request, answer),
            Self::Ip(_) | Self::Jwt(_) => {}
            Self::Concurrency(_) | Self::Mirror(_) => {}
            Self::Limit(step) => step.edit_answer(facts, answer),
            Self::ForwardAuth(auth) => auth.edit_answer(facts, answer),
            Self::SecurityHeaders(fields) => fields.edit_answer(facts, answer),
            Self::Headers(headers) => headers.edit_answer(request, facts, answer),
            Self::Compress(rules) => rules.edit_answer(coders(state), request, facts, answer),
            #[cfg(test)]
            Self::Probe(probe) => probe.filter_answer(answer.filters),
        }
    }

    /// Adds the filters that the step has for the body of a request, once for each attempt. Not called for a request
    /// without a body.
    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "no policy filters requests yet")
    )]
    pub fn filter_request(
        &self,
        _request: &StepRequest<'_>,
        _facts: &Facts,
        filters: &mut Filters,
    ) {
        match self {
            Self::Ip(_)
            | Self::Concurrency(_)
            | Self::Cors(_)
            | Self::Limit(_)
            | Self::Jwt(_)
            | Self::ForwardAuth(_)
            | Self::SecurityHeaders(_)
            | Self::Headers(_)
            | Self::Compress(_)
            | Self::Mirror(_) => {}
            #[cfg(test)]
            Self::Probe(probe) => probe.filter_request(filters),
        }
    }

    /// Whether the step alone decides what endpoints get in a field, so that no client may send it in trailers.
    pub fn sets_request_field(&self, name: &[u8]) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.sets_field(name),
            Self::ForwardAuth(auth) => auth.sets_field(name),
            Self::Headers(headers) => headers.sets_request_field(name),
            Self::Ip(_)
            | Self::Concurrency(_)
            | Self::Cors(_)
            | Self::Limit(_)
            | Self::SecurityHeaders(_)
            | Self::Compress(_)
            | Self::Mirror(_) => false,
            #[cfg(test)]
            Self::Probe(_) => false,
        }
    }

    /// The mirror, if this is one.
    #[must_use]
    pub fn as_mirror(&self) -> Option<&Arc<Mirror>> {
        let Self::Mirror(mirror) = self else {
            return None;
        };
        Some(mirror)
    }

    /// Says what the step would do with a request, for `weir explain` and `[[test]]` blocks.
    pub fn explain(&self, request: &StepRequest<'_>, facts: &mut Facts) -> Verdict {
        match self {
            Self::Cors(rules) => rules.explain(request),
            Self::Ip(rules) => rules.explain(facts.client),
            Self::Jwt(jwt) => jwt.explain(request, facts),
            Self::Concurrency(step) => step.explain(request, facts),
            Self::Limit(step) => step.explain(request, facts),
            Self::ForwardAuth(auth) => auth.explain(),
            Self::SecurityHeaders(fields) => fields.explain(facts),
            Self::Headers(headers) => headers.explain(),
            Self::Compress(rules) => rules.explain(request, facts),
            Self::Mirror(mirror) => mirror.explain(request),
            #[cfg(test)]
            Self::Probe(_) => Verdict::Does("nothing".into()),
        }
    }

    /// Says what the step does with an answer that Weir gives before the step has run; `None` for nothing. Asked only of
    /// steps that edit every answer.
    pub fn explain_answer(&self, request: &StepRequest<'_>, facts: &Facts) -> Option<String> {
        match self {
            Self::Cors(rules) => rules.explain_answer(request),
            Self::SecurityHeaders(fields) => Some(fields.explain_answer(facts)),
            Self::Headers(headers) => headers.explain_answer(),
            Self::Ip(_)
            | Self::Concurrency(_)
            | Self::Limit(_)
            | Self::Jwt(_)
            | Self::ForwardAuth(_)
            | Self::Compress(_)
            | Self::Mirror(_) => None,
            #[cfg(test)]
            Self::Probe(_) => None,
        }
    }
}

/// The core's map of networks of a step of `ip`.
fn core_map(state: Option<&State>) -> Option<&CoreMap> {
    match state {
        Some(State::Ip(map)) => Some(map),
        _ => None,
    }
}

/// The keys and tokens that a step of `jwt` keeps.
fn tokens(state: Option<&State>) -> Option<&JwtState> {
    match state {
        Some(State::Jwt(tokens)) => Some(tokens),
        _ => None,
    }
}

/// The verdicts that a step of `forward_auth` keeps.
fn verdicts(state: Option<&State>) -> Option<&Verdicts> {
    match state {
        Some(State::ForwardAuth(verdicts)) => Some(verdicts),
        _ => None,
    }
}

/// The idle coders of a core.
fn coders(state: Option<&State>) -> Option<&Rc<CoderPool>> {
    match state {
        Some(State::Coders(coders)) => Some(coders),
        _ => None,
    }
}

/// What the core keeps for limits.
fn limits(state: Option<&State>) -> Option<&CoreLimits> {
    match state {
        Some(State::Limits(limits)) => limits.as_ref(),
        _ => None,
    }
}

impl PlannedStep {
    /// Whether a request needs only one of both steps, because they do the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.state == other.state && self.step.is_same(&other.step)
    }

    /// The state of the step among those of a core.
    pub fn state<'s>(&self, states: &'s [Rc<State>]) -> Option<&'s State> {
        let StateId(index) = self.state?;
        states.get(index as usize).map(Rc::as_ref)
    }
}
