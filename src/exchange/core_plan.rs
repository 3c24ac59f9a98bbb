//! The plan with one core's own state of it.

use std::rc::Rc;
use std::sync::Arc;

use crate::io::Net;
use crate::plan::{Plan, UpstreamId};
use crate::upstream::{CoreUpstreams, Upstream};

/// The plan with one core's own state of it. An exchange keeps the one that it began with.
pub struct CorePlan<N: Net> {
    /// The plan that all cores run.
    pub plan: Arc<Plan>,
    /// This core's upstreams, by [`UpstreamId`].
    pub upstreams: Vec<Rc<Upstream<N>>>,
}

impl<N: Net> CorePlan<N> {
    /// Makes the core's state of `plan`. Upstreams take over what those of the same name have in `old`.
    pub fn new(
        plan: Arc<Plan>,
        old: Option<&Self>,
        seed: u64,
        core: &Rc<CoreUpstreams<N>>,
    ) -> Self {
        let upstreams = plan.upstreams.iter().zip(0..).map(|(upstream, id)| {
            let old = old.and_then(|old| old.upstream(&upstream.name));
            Rc::new(Upstream::new(UpstreamId(id), upstream, old, seed, core))
        });
        Self {
            upstreams: upstreams.collect(),
            plan,
        }
    }

    /// Retires the upstreams and endpoints that `new` no longer has.
    pub fn retire_missing(&self, new: &Self) {
        for upstream in &self.upstreams {
            upstream.retire_missing(new.upstream(&upstream.name));
        }
    }

    fn upstream(&self, name: &str) -> Option<&Upstream<N>> {
        let mut upstreams = self.upstreams.iter().map(Rc::as_ref);
        upstreams.find(|upstream| *upstream.name == *name)
    }
}
