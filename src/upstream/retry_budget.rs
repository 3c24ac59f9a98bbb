//! The retry budget: it limits retries to a share of the requests, so that retries do not overload a failing upstream.

use std::cell::Cell;
use std::time::Duration;

use crate::io::Instant;
use crate::plan::RetryPlan;

/// The window over which the budget counts requests and retries. (Envoy counts active requests instead; a window needs
/// no bookkeeping when a request ends.)
const WINDOW: Duration = Duration::from_secs(10);

/// One upstream's requests and retries on one core.
#[derive(Default)]
pub struct RetryBudget {
    began: Cell<Instant>,
    requests: Cell<u64>,
    retries: Cell<u64>,
}

impl RetryBudget {
    /// Counts a request.
    #[inline]
    pub fn count_request(&self, now: Instant) {
        if now.since(self.began.get()) >= WINDOW {
            // Half of the last window counts on, so that a budget does not start from zero every ten seconds.
            self.began.set(now);
            self.requests.set(self.requests.get() / 2);
            self.retries.set(self.retries.get() / 2);
        }
        self.requests.set(self.requests.get() + 1);
    }

    /// Grants a retry while retries are below the share of the window's requests, or below the minimum.
    pub fn take_retry(&self, plan: &RetryPlan) -> bool {
        let share = self.requests.get() * u64::from(plan.budget_percent) / 100;
        let granted = self.retries.get() < share.max(u64::from(plan.budget_min));
        if granted {
            self.retries.set(self.retries.get() + 1);
        }
        granted
    }
}
