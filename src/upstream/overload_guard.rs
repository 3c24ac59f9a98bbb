//! What an upstream refuses before it chooses an endpoint: requests while its circuit is open, and requests beyond what
//! it can serve.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::adaptive_concurrency::AdaptiveConcurrency;
use super::breaker::BreakerPass;
use super::upstream_registry::UpstreamCount;
use crate::fault::Reason;
use crate::io::{Instant, Net};
use crate::plan::{BreakerPlan, UpstreamPlan};

/// The rules by which one upstream refuses requests on one core.
pub(super) struct OverloadGuard {
    breaker: Option<BreakerPlan>,
    adaptive: Option<Rc<AdaptiveConcurrency>>,
    /// The state of the breaker, which all cores share.
    count: Arc<UpstreamCount>,
}

/// A request that the guard has let pass. Dropping it ends the request without an outcome.
pub struct GuardedRequest {
    guard: Rc<OverloadGuard>,
    pass: BreakerPass,
    has_ended: bool,
}

/// How a request ended, as far as it tells how the upstream fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardedOutcome {
    /// The upstream did not serve it.
    pub has_failed: bool,
    /// How long the answer took to begin; `None` if that says nothing about the upstream's load.
    pub time: Option<Duration>,
}

impl OverloadGuard {
    /// The guard of an upstream that has rules, else `None`. Keeps what the `old` one has learned.
    pub(super) fn new(
        plan: &UpstreamPlan,
        count: &Arc<UpstreamCount>,
        old: Option<&Self>,
        now: Instant,
    ) -> Option<Rc<Self>> {
        let adaptive = plan.has_adaptive_concurrency.then(|| {
            let kept = old.and_then(|old| old.adaptive.clone());
            kept.unwrap_or_else(|| Rc::new(AdaptiveConcurrency::new(now)))
        });
        (adaptive.is_some() || plan.breaker.is_some()).then(|| {
            Rc::new(Self {
                breaker: plan.breaker,
                adaptive,
                count: count.clone(),
            })
        })
    }

    fn admit(self: &Rc<Self>, now: Instant) -> Result<GuardedRequest, Reason> {
        if let Some(adaptive) = &self.adaptive
            && !adaptive.admit()
        {
            return Err(Reason::UpstreamOverloaded);
        }
        let admitted = self
            .breaker
            .as_ref()
            .map(|plan| self.count.breaker.admit(plan, now));
        let pass = admitted.unwrap_or(Ok(BreakerPass::Closed)).map_err(|_| {
            if let Some(adaptive) = &self.adaptive {
                adaptive.end(None, now);
            }
            Reason::CircuitOpen
        })?;
        Ok(GuardedRequest {
            guard: self.clone(),
            pass,
            has_ended: false,
        })
    }
}

impl<N: Net> Upstream<N> {
    /// Lets a request pass, or says why not. `None`: the upstream has no rules.
    ///
    /// # Errors
    /// The circuit is open, or as many requests are running as the upstream can serve.
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<Option<GuardedRequest>, Reason> {
        match &self.guard {
            None => Ok(None),
            Some(guard) => guard.admit(now).map(Some),
        }
    }

    /// When a client that was refused may come again, in seconds.
    pub fn retry_after_secs(&self, now: Instant) -> u64 {
        let open_for = self.queue.count.breaker.open_for(now);
        open_for.as_millis().div_ceil(1_000).max(1) as u64
    }
}

impl GuardedRequest {
    /// Ends the request. Returns whether its failure opened the circuit.
    pub fn finish(mut self, outcome: GuardedOutcome, now: Instant) -> bool {
        self.has_ended = true;
        if let Some(adaptive) = &self.guard.adaptive {
            adaptive.end(outcome.time, now);
        }
        let breaker = &self.guard.count.breaker;
        self.guard
            .breaker
            .as_ref()
            .is_some_and(|plan| breaker.finish(plan, self.pass, outcome.has_failed, now))
    }
}

impl Drop for GuardedRequest {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        if let Some(adaptive) = &self.guard.adaptive {
            adaptive.end(None, Instant::default());
        }
        if let Some(plan) = &self.guard.breaker {
            self.guard.count.breaker.end(plan, self.pass);
        }
    }
}
