//! Steps that run before the route is known, where routes ask for claims: the address steps that all candidates share,
//! then the verification of the token.

use std::rc::Rc;

use super::Exchange;
use crate::fault::{Fault, Phase, Reason};
use crate::ids::{JwtId, RouteId};
use crate::io::Net;
use crate::plan::{Decision, KnownClaims, RoutePlan, VerifiedClaims};
use crate::policy::{Flow, PlannedStep, PolicyKind, StepReply};

/// The steps that have run before the route was known.
#[derive(Default)]
pub(super) struct EarlySteps<'a> {
    /// Those that let the request pass, except `jwt`.
    passed: Vec<&'a PlannedStep>,
    /// What tokens say by the rules that have verified them.
    claims: Vec<VerifiedClaims>,
    /// What the `jwt` steps have answered, in the same order.
    outcomes: Vec<TokenOutcome>,
}

/// What follows from a token by the rules of some routes.
struct TokenOutcome {
    /// The place of the token's issuer among those of the rules.
    issuer: u32,
    /// The answer on a route with these rules, if the token does not suffice.
    reply: Option<Box<StepReply>>,
}

/// What becomes of a request.
pub(super) enum Decided {
    /// What the plan says.
    ByPlan(Decision),
    /// A policy answers.
    Answer(Box<StepReply>),
}

impl EarlySteps<'_> {
    /// What is known of claims, for the decision.
    pub(super) fn claims(&self) -> KnownClaims<'_> {
        KnownClaims::Verified(&self.claims)
    }
}

impl<'a, N: Net> Exchange<'a, N> {
    /// Decides on a request whose route depends on claims, first by those of this route's rules.
    pub(super) async fn decide_by_claims(&mut self, mut id: RouteId) -> Result<Decided, Fault> {
        // Each turn makes the claims by other rules known.
        loop {
            if let Some(reply) = self.verify_early(id).await? {
                return Ok(Decided::Answer(reply));
            }
            match self.decide() {
                Decision::NeedsClaims(next) => id = next,
                decision => return Ok(Decided::ByPlan(decision)),
            }
        }
    }

    /// Verifies the client's token by the rules of a route, after the address steps that all routes share that may take
    /// the request. `Some`: one of these answers.
    async fn verify_early(&mut self, id: RouteId) -> Result<Option<Box<StepReply>>, Fault> {
        let internal = || Fault::local(Phase::Route, Reason::Internal);
        let plan = &self.plan.plan;
        let route = plan.route(id).ok_or_else(internal)?;
        let rules = route.jwt.ok_or_else(internal)?;
        let candidates = self.claim_candidates();
        let has = |other: &&RoutePlan, step: &PlannedStep| {
            other.steps.iter().any(|theirs| theirs.is_same(step))
        };
        self.route = Some(id);
        for step in &route.steps {
            self.steps_begun.route += 1;
            let kind = step.step.kind();
            let is_shared = || candidates.iter().all(|other| has(other, step));
            match kind {
                PolicyKind::Ip | PolicyKind::Limit if is_shared() => {
                    if let Flow::Reply(reply) = self.finish_step(route, step).await? {
                        self.record.policy = Some(kind);
                        return Ok(Some(reply));
                    }
                    self.early.get_or_insert_default().passed.push(step);
                }
                PolicyKind::Jwt => {
                    let flow = self.finish_step(route, step).await?;
                    self.keep_outcome(rules, flow);
                    break;
                }
                _ => {}
            }
        }
        self.route = None;
        self.steps_begun.route = 0;
        Ok(None)
    }

    /// The routes that may take the request, depending on claims.
    fn claim_candidates(&mut self) -> Vec<&'a RoutePlan> {
        let plan = &self.plan.plan;
        let ids =
            self.ask_plan(|plan, _, request, buffers| plan.claim_candidates(request, buffers));
        ids.into_iter().filter_map(|id| plan.route(id)).collect()
    }

    /// Keeps what follows from the token for the decision, and for the step of the route that takes the request.
    fn keep_outcome(&mut self, jwt: JwtId, flow: Flow) {
        let (claims, issuer) = self.facts.take_token();
        let reply = match flow {
            Flow::Reply(reply) => Some(reply),
            Flow::Next | Flow::Wait(_) => None,
        };
        let early = self.early.get_or_insert_default();
        early.claims.push(VerifiedClaims { jwt, claims });
        early.outcomes.push(TokenOutcome { issuer, reply });
    }

    /// What a step of the route has done before the route was known; `None` if it has not run.
    #[cold]
    pub(super) fn take_early(&mut self, route: &RoutePlan, step: &PlannedStep) -> Option<Flow> {
        let early = self.early.as_deref_mut()?;
        if step.step.kind() != PolicyKind::Jwt {
            let has_run = early.passed.iter().any(|passed| passed.is_same(step));
            return has_run.then_some(Flow::Next);
        }
        let mut known = early.claims.iter();
        let index = known.position(|known| Some(known.jwt) == route.jwt)?;
        let outcome = early.outcomes.get_mut(index)?;
        if let Some(reply) = outcome.reply.take() {
            return Some(Flow::Reply(reply));
        }
        self.facts.token_issuer = outcome.issuer;
        let claims = early.claims.get(index)?.claims.as_ref();
        self.facts.claims = claims.map(Rc::clone);
        Some(Flow::Next)
    }
}
