//! What an upstream refuses before it chooses an endpoint: requests while its circuit is open, and requests beyond what
//! it can serve.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Upstream;
use super::adaptive_concurrency::AdaptiveConcurrency;
use super::breaker::{BreakerPass, CircuitChange};
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

/// The outcome of a request, as the breaker and adaptive concurrency count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardedOutcome {
    /// The upstream did not serve it.
    pub has_failed: bool,
    /// How long the answer took to begin; `None` if that does not depend on the upstream's load.
    pub time: Option<Duration>,
}

/// A connection without HTTP that the breaker has let pass. It counts as a request until it is dropped. Dropping it
/// unjudged counts no outcome.
pub struct GuardedConnection {
    guard: Rc<OverloadGuard>,
    pass: BreakerPass,
    is_judged: bool,
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
        let pass = self.pass_breaker(now).inspect_err(|_| {
            if let Some(adaptive) = &self.adaptive {
                adaptive.end(None, now);
            }
        })?;
        Ok(GuardedRequest {
            guard: self.clone(),
            pass,
            has_ended: false,
        })
    }

    fn pass_breaker(&self, now: Instant) -> Result<BreakerPass, Reason> {
        let admitted = self
            .breaker
            .as_ref()
            .map(|plan| self.count.breaker.admit(plan, now));
        let admitted = admitted.unwrap_or(Ok(BreakerPass::Closed));
        admitted.map_err(|_| Reason::CircuitOpen)
    }
}

impl<N: Net> Upstream<N> {
    /// Admits a request. `None`: the upstream has no rules.
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

    /// Admits a connection without HTTP. `None`: the upstream has no breaker. Adaptive concurrency does not apply, because
    /// it measures the times of answers to requests.
    ///
    /// # Errors
    /// The circuit is open.
    pub fn admit_connection(&self, now: Instant) -> Result<Option<GuardedConnection>, Reason> {
        let Some(guard) = self.guard.as_ref().filter(|guard| guard.breaker.is_some()) else {
            return Ok(None);
        };
        Ok(Some(GuardedConnection {
            guard: guard.clone(),
            pass: guard.pass_breaker(now)?,
            is_judged: false,
        }))
    }

    /// When a client that was refused may come again, in seconds.
    pub fn retry_after_secs(&self, now: Instant) -> u64 {
        let open_for = self.queue.count.breaker.open_for(now);
        open_for.as_millis().div_ceil(1_000).max(1) as u64
    }
}

impl GuardedRequest {
    /// Ends the request. Returns how its outcome changed the circuit, if it did.
    pub fn finish(mut self, outcome: GuardedOutcome, now: Instant) -> Option<CircuitChange> {
        self.has_ended = true;
        if let Some(adaptive) = &self.guard.adaptive {
            adaptive.end(outcome.time, now);
        }
        let breaker = &self.guard.count.breaker;
        let plan = self.guard.breaker.as_ref()?;
        breaker.finish(plan, self.pass, outcome.has_failed, now)
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

impl GuardedConnection {
    /// Counts whether an endpoint serves the connection. Only the first call counts. Returns how that changed the
    /// circuit, if it did.
    pub fn judge(&mut self, has_failed: bool, now: Instant) -> Option<CircuitChange> {
        let breaker = &self.guard.count.breaker;
        let plan = self.guard.breaker.as_ref().filter(|_| !self.is_judged);
        self.is_judged = true;
        breaker.judge(plan?, self.pass, has_failed, now)
    }
}

impl Drop for GuardedConnection {
    fn drop(&mut self) {
        let breaker = &self.guard.count.breaker;
        match (&self.guard.breaker, self.is_judged) {
            (Some(plan), true) => breaker.leave(plan),
            (Some(plan), false) => breaker.end(plan, self.pass),
            (None, _) => {}
        }
    }
}
