//! The plan, its endpoints, and the state that one core keeps for them.

use std::rc::Rc;
use std::sync::Arc;

use crate::io::Net;
use crate::limits::POLICIES_SHARE;
use crate::plan::{EndpointSets, Plan, UpstreamId};
use crate::policy::State;
use crate::upstream::{CoreUpstreams, Upstream};

/// The plan, its endpoints, and the state that one core keeps for them. An exchange keeps the one that it began with.
pub struct CorePlan<N: Net> {
    /// The plan that all cores run.
    pub plan: Arc<Plan>,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
    /// This core's upstreams, by [`UpstreamId`].
    pub upstreams: Vec<Rc<Upstream<N>>>,
    /// This core's states of the plan's policies.
    pub states: Vec<Rc<State>>,
}

impl<N: Net> CorePlan<N> {
    /// Makes the core's state of `plan`. Upstreams and policies take over what those of the same name have in `old`.
    pub fn new(
        plan: Arc<Plan>,
        endpoints: Arc<EndpointSets>,
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Self {
        let planned = plan.upstreams.iter().zip(endpoints.iter());
        let upstreams = planned.zip(0..).map(|(planned, id)| {
            let old = old.and_then(|old| old.upstream(&planned.0.name));
            Upstream::new(UpstreamId(id), planned, old, seed, core)
        });
        let states = old.map(|old| (&old.plan.states, &old.states[..]));
        let states = plan.states.make_states(states);
        State::bound(&states, plan.capacity.memory_per_core_max / POLICIES_SHARE);
        Self {
            upstreams: upstreams.collect(),
            states,
            plan,
            endpoints,
        }
    }

    /// The core's state of the same plan with other endpoints. Upstreams whose endpoints stay are the same.
    pub fn with_endpoints(&self, endpoints: Arc<EndpointSets>, seed: u64) -> Self {
        let planned = self.plan.upstreams.iter().zip(endpoints.iter());
        let upstreams = self.upstreams.iter().zip(planned);
        let upstreams = upstreams.map(|(upstream, (plan, set))| match upstream.has_set(set) {
            true => upstream.clone(),
            false => upstream.with_endpoints(plan, set, seed),
        });
        Self {
            upstreams: upstreams.collect(),
            states: self.states.clone(),
            plan: self.plan.clone(),
            endpoints,
        }
    }

    /// Retires the upstreams and endpoints that `new` no longer has.
    pub fn retire_missing(&self, new: &Self) {
        for upstream in &self.upstreams {
            let successor = new.upstream(&upstream.name);
            if !successor.is_some_and(|new| std::ptr::eq(new, &**upstream)) {
                upstream.retire_missing(successor);
            }
        }
    }

    fn upstream(&self, name: &str) -> Option<&Upstream<N>> {
        let mut upstreams = self.upstreams.iter().map(Rc::as_ref);
        upstreams.find(|upstream| *upstream.name == *name)
    }
}
