//! When the circuit breaker of an upstream refuses requests.

use std::time::Duration;

/// The settings of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPlan {
    /// The most requests at once, over all cores; `None` for no limit.
    pub requests_max: Option<u32>,
    /// The share of failed requests, in percent, at which the circuit opens.
    pub error_percent: u32,
    /// The time over which the share is measured.
    pub window: Duration,
    /// How many requests the window must have.
    pub requests_min: u32,
    /// How long the circuit stays open.
    pub open_for: Duration,
}

impl From<weir_config::Breaker> for BreakerPlan {
    fn from(breaker: weir_config::Breaker) -> Self {
        Self {
            requests_max: breaker.requests,
            error_percent: breaker.error_rate_percent,
            window: breaker.window,
            requests_min: breaker.requests_min,
            open_for: breaker.open_for,
        }
    }
}
