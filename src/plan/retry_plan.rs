//! When Weir repeats a failed attempt.

use std::time::Duration;

use weir_config::{FailureKind, FailureSet, RetryMethod, RetryMethods};
use weir_proto_h1::Method;

use crate::limits::CONNECTS_MAX;

/// When Weir repeats a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// How often Weir may repeat a request that it has sent.
    pub retries_max: u32,
    /// How many connects may fail before the exchange fails. Each goes to another endpoint, if there is one.
    pub connects_max: u32,
    /// How many retries Weir allows, in percent of the upstream's requests of the last ten seconds on a core.
    pub budget_percent: u32,
    /// How many retries within ten seconds Weir always allows.
    pub budget_min: u32,
    /// The mean wait before a retry.
    pub backoff: Duration,
    /// The time limit of one attempt.
    pub per_try: Option<Duration>,
    /// The failures after which Weir repeats an attempt.
    pub on: FailureSet,
    /// The methods of requests that Weir repeats although the endpoint may have processed them.
    pub methods: RetryMethods,
    /// When a second attempt starts beside the first.
    pub hedge: Option<weir_config::Hedge>,
}

impl RetryPlan {
    /// No attempt is repeated.
    pub const NEVER: Self = Self {
        retries_max: 0,
        connects_max: 1,
        budget_percent: 0,
        budget_min: 0,
        backoff: Duration::ZERO,
        per_try: None,
        on: FailureSet::of(&[], &[]),
        methods: RetryMethods::of(&[]),
        hedge: None,
    };

    /// Compiles the retry rules `merged`.
    pub fn new(merged: weir_config::Retries) -> Self {
        Self {
            retries_max: merged.count.unwrap_or(0),
            connects_max: merged.count.map_or(1, |_| CONNECTS_MAX),
            budget_percent: merged.budget_percent,
            budget_min: merged.budget_floor,
            backoff: merged.backoff,
            per_try: merged.per_try,
            on: merged.on,
            methods: merged.methods,
            hedge: merged.hedge,
        }
    }

    /// Whether Weir may repeat a request with this method that the endpoint may have processed.
    #[inline]
    pub const fn may_repeat(&self, method: Method) -> bool {
        let named = match method {
            Method::Get => RetryMethod::Get,
            Method::Head => RetryMethod::Head,
            Method::Options => RetryMethod::Options,
            Method::Put => RetryMethod::Put,
            Method::Delete => RetryMethod::Delete,
            Method::Post => RetryMethod::Post,
            Method::Patch => RetryMethod::Patch,
            Method::Connect | Method::Trace | Method::Other => return false,
        };
        self.methods.has(named)
    }

    /// Whether Weir repeats attempts that end with this kind of failure.
    #[inline]
    pub const fn repeats_on(&self, kind: FailureKind) -> bool {
        self.on.has(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotent_methods_are_repeated_by_default() {
        let plan = RetryPlan::new(weir_config::Retries::default());
        for method in [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Delete,
            Method::Options,
            Method::Patch,
            Method::Connect,
            Method::Other,
        ] {
            assert_eq!(
                plan.may_repeat(method),
                method.is_idempotent(),
                "{method:?}"
            );
        }
    }
}
