//! Runs the policies of listeners and routes: their steps, then their edits of requests and answers.

use std::rc::Rc;

use weir_proto_h1::{BodyKind, Edits, Head};

use super::Exchange;
use super::exchange_waiter::ExchangeWaiter;
use super::replay::Replay;
use crate::core::after;
use crate::fault::Fault;
use crate::io::{Address, Instant, Net};
use crate::plan::{RoutePlan, RouteTarget, UpstreamId};
use crate::policy::filter::{Chain, Filters};
use crate::policy::{
    AnswerView, AttemptFacts, Facts, Flow, PlannedStep, State, StepReply, StepRequest, Wait, Woken,
};
use crate::upstream::Waiter;

/// How many steps have begun. Their edits apply to the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepsBegun {
    listener: usize,
    pub(super) route: usize,
}

/// What steps work on.
struct StepContext<'c> {
    request: StepRequest<'c>,
    facts: &'c mut Facts,
    states: &'c [Rc<State>],
    to_upstream: &'c mut Edits,
    to_client: &'c mut Edits,
}

impl<'a, N: Net> Exchange<'a, N> {
    /// Runs the steps of the listener. `Some`: the client gets this answer. These steps never wait.
    pub(super) fn run_listener_steps(&mut self) -> Option<Box<StepReply>> {
        for step in self.listener_steps() {
            self.steps_begun.listener += 1;
            if let Some(reply) = self.run_at_once(step) {
                return Some(reply);
            }
        }
        None
    }

    /// Runs the steps for requests without a route, if this is one. `Some`: the client gets this answer. These steps
    /// never wait.
    pub(super) fn run_steps_without_route(&mut self) -> Option<Box<StepReply>> {
        if self.route.is_some() {
            return None;
        }
        let mut steps = self.plan.plan.steps_without_route.iter();
        steps.find_map(|step| self.run_at_once(step))
    }

    /// Runs a step that never waits. `Some`: the client gets this answer.
    fn run_at_once(&mut self, step: &PlannedStep) -> Option<Box<StepReply>> {
        let Flow::Reply(reply) = self.run_step(step) else {
            return None;
        };
        self.record.policy = Some(step.step.kind());
        Some(reply)
    }

    /// Runs the steps of a route. `Some`: the client gets this answer.
    pub(super) async fn run_route_steps(
        &mut self,
        route: &'a RoutePlan,
    ) -> Result<Option<Box<StepReply>>, Fault> {
        for step in &route.steps {
            self.steps_begun.route += 1;
            if let Flow::Reply(reply) = self.finish_step(route, step).await? {
                self.record.policy = Some(step.step.kind());
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Runs a step to its end, unless it has run before the route was known.
    pub(super) async fn finish_step(
        &mut self,
        route: &RoutePlan,
        step: &PlannedStep,
    ) -> Result<Flow, Fault> {
        if self.early.is_some()
            && let Some(flow) = self.take_early(route, step)
        {
            return Ok(flow);
        }
        let mut flow = self.run_step(step);
        while let Flow::Wait(wait) = flow {
            // In a box: few steps wait, and every exchange would hold the memory.
            let woken = Box::pin(self.wait_for(route, wait)).await;
            let woken = woken.inspect_err(|_| self.record.policy = Some(step.step.kind()))?;
            flow = self.with_steps(|on| {
                let state = step.state(on.states);
                step.step.resume(state, &on.request, on.facts, woken)
            });
        }
        Ok(flow)
    }

    fn run_step(&mut self, step: &PlannedStep) -> Flow {
        self.with_steps(|on| {
            let state = step.state(on.states);
            step.step.run(state, &on.request, on.facts)
        })
    }

    /// Gets what a step waits for.
    async fn wait_for(&mut self, route: &RoutePlan, wait: Wait) -> Result<Woken, Fault> {
        self.deadline = after(self.record.began, route.timeouts.total);
        match wait {
            Wait::Turn => {
                let queue = self.core.work_queue.clone();
                let (mut turn, replay) = (None, Replay::default());
                let mut waiter = ExchangeWaiter {
                    exchange: self,
                    replay: &replay,
                };
                let waited = waiter.until(Instant::NEVER, |cx| queue.poll_turn(cx, &mut turn));
                waited.await.map(|_| Woken::Turn)
            }
            Wait::Call(call) => Ok(match self.call(call).await? {
                Ok(answer) => Woken::Answered(Box::new(answer)),
                Err(reason) => Woken::CallFailed(reason),
            }),
        }
    }

    /// Applies the edits of the route's steps to the request, for an attempt at this endpoint. Drops those for an
    /// earlier attempt.
    pub(super) fn edit_request(&mut self, route: &RoutePlan, upstream: &str, endpoint: &Address) {
        self.buffers.to_upstream.edits.rewind(self.request_end);
        if route.steps.iter().any(|step| step.step.edits_requests()) {
            let attempt = AttemptFacts { upstream, endpoint };
            self.with_steps(|on| {
                for step in &route.steps {
                    step.step
                        .edit_request(&on.request, on.facts, &attempt, on.to_upstream);
                }
            });
        }
        self.replace_target(route);
    }

    /// Lets the steps of a route add their filters for the body of a request, in order.
    pub(super) fn add_request_filters(&mut self, route: &RoutePlan, filters: &mut Filters) {
        self.with_steps(|on| {
            for step in &route.steps {
                step.step.filter_request(&on.request, on.facts, filters);
            }
        });
    }

    /// Applies the edits of the steps to an answer, those of the last step first. Returns the filters that they have
    /// for the body.
    pub(super) fn edit_answer(
        &mut self,
        head: &mut Head,
        block: &[u8],
        body: BodyKind,
    ) -> Option<Box<Chain>> {
        let (begun, answered) = (self.steps_begun.route, self.record.policy);
        let of_route = self.answer_steps().iter().enumerate();
        let of_route = of_route
            .filter(|(place, step)| *place < begun || step.step.edits_every_answer(answered))
            .map(|(_, step)| step);
        let of_listener = self.listener_steps().iter();
        let of_listener = of_listener.take(self.steps_begun.listener);
        let is_local = !self.record.is_relayed;
        let mut filters = Filters::new(self.core.is_memory_short());
        let attempt = self.last_attempt();
        self.with_steps(|on| {
            let mut answer = AnswerView {
                head,
                block,
                edits: on.to_client,
                is_local,
                attempt,
                body,
                filters: &mut filters,
            };
            for step in of_listener.chain(of_route).rev() {
                let state = step.state(on.states);
                step.step
                    .edit_answer(state, &on.request, on.facts, &mut answer);
            }
        });
        filters.into_chain()
    }

    /// Whether some step may edit the answer.
    pub(super) fn has_answer_steps(&self) -> bool {
        let of_listener = self.listener_steps().iter();
        let begun = of_listener.take(self.steps_begun.listener);
        begun
            .chain(self.answer_steps())
            .any(|step| step.step.edits_answers())
    }

    /// The steps of the route, or those for answers of Weir's own without a route. The answer to a sub-request is
    /// relayed and has no route.
    fn answer_steps(&self) -> &'a [PlannedStep] {
        let plan = &self.plan.plan;
        match self.route {
            Some(id) => plan.route(id).map_or(&[], |route| &route.steps),
            None if self.record.is_relayed => &[],
            None => &plan.steps_without_route,
        }
    }

    /// The endpoint that was tried last.
    fn last_attempt(&self) -> Option<AttemptFacts<'a>> {
        let UpstreamId(upstream) = self.record.upstream?;
        let upstream = self.plan.upstreams.get(upstream as usize)?;
        let endpoint = upstream.endpoints.get(self.record.endpoint? as usize)?;
        Some(AttemptFacts {
            upstream: &upstream.name,
            endpoint: &endpoint.address,
        })
    }

    fn listener_steps(&self) -> &'a [PlannedStep] {
        let listener = self.plan.plan.listener(self.listener);
        listener.map_or(&[], |listener| &listener.steps)
    }

    /// Calls `act` with the request as steps see it.
    pub(super) fn with_request<T>(&mut self, act: impl FnOnce(&StepRequest<'_>) -> T) -> T {
        self.with_steps(|context| act(&context.request))
    }

    /// Calls `act` with what steps work on.
    fn with_steps<T>(&mut self, act: impl FnOnce(StepContext<'_>) -> T) -> T {
        let (down, decision) = (&self.down, &self.buffers.decision);
        let (head, block) = (&*down.head, &down.block[..]);
        let route = self.route.and_then(|id| self.plan.plan.route(id));
        let target = route.map(|route| &route.target);
        let is_sent = target.is_some_and(RouteTarget::is_upstream);
        act(StepContext {
            request: StepRequest {
                head,
                block,
                hop: down.request(),
                peer: down.context.address,
                tls: down.context.tls,
                listener: self.listener,
                route: self.route,
                pattern: decision.pattern,
                path: match route {
                    Some(_) => decision.matched_path(head, block),
                    None => &[],
                },
                sent_path: match decision.sent.is_empty() || !is_sent {
                    true => head.effective_path(block),
                    false => &decision.sent,
                },
                id: self.record.id,
                given_id: self.record.given_id.get(block),
                now: self.core.net.now(),
                wall_ms: self.core.net.wall_ms(),
            },
            facts: &mut self.facts,
            states: &self.plan.states,
            to_upstream: &mut self.buffers.to_upstream.edits,
            to_client: &mut self.buffers.to_client,
        })
    }
}
