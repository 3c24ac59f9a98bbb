//! How long an endpoint takes to begin an answer, as a moving average.

use std::cell::Cell;
use std::time::Duration;

use crate::io::Instant;

/// In this time an old peak loses 63 % of its height (Finagle's peak EWMA has 10 s too).
const DECAY: Duration = Duration::from_secs(10);

/// From this age on, readers let the average fall, so that an endpoint that was slow once is tried again.
const FRESH: Duration = Duration::from_secs(1);

/// From this age on, nothing is known: one request at a time tries the endpoint again. A peak of seconds beside others'
/// milliseconds would keep all requests away for more than a minute (nginx tries again after `fail_timeout`, 10 s).
const FORGOTTEN: Duration = Duration::from_secs(10);

/// What a failed attempt counts as, at least: else an endpoint that fails at once would look fast.
const FAILURE: Duration = Duration::from_secs(1);

/// The average of one endpoint's latencies on one core. It rises to a longer one at once and falls slowly.
#[derive(Default)]
pub(super) struct PeakLatency {
    average_us: Cell<f32>,
    at: Cell<Instant>,
}

impl PeakLatency {
    /// Counts an answer that began after this time.
    pub(super) fn observe(&self, latency: Duration, now: Instant) {
        // Never 0, which means that nothing is known.
        let latency_us = (latency.as_micros() as f32).max(1.0);
        let age = now.since(self.at.replace(now));
        let old = if age < FORGOTTEN {
            self.average_us.get()
        } else {
            0.0
        };
        let rest = (-age.as_secs_f32() / DECAY.as_secs_f32()).exp();
        let average = match latency_us >= old {
            true => latency_us,
            false => old * rest + latency_us * (1.0 - rest),
        };
        self.average_us.set(average);
    }

    /// Counts a failed attempt.
    pub(super) fn observe_failure(&self, now: Instant) {
        let decayed = Duration::from_micros(self.average_us(now) as u64);
        self.observe(decayed.max(FAILURE), now);
    }

    /// Forgets everything, because the endpoint is healthy again.
    pub(super) fn forget(&self) {
        self.average_us.set(0.0);
    }

    /// The average in microseconds; 0 if there is none.
    #[inline]
    pub(super) fn average_us(&self, now: Instant) -> f32 {
        let age = now.since(self.at.get());
        if age < FRESH {
            return self.average_us.get();
        }
        if age >= FORGOTTEN {
            return 0.0;
        }
        self.average_us.get() * (-age.as_secs_f32() / DECAY.as_secs_f32()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_falls_and_is_forgotten() {
        let latency = PeakLatency::default();
        let start = Instant::default() + Duration::from_secs(100);
        let after = |seconds| latency.average_us(start + Duration::from_secs(seconds));
        assert_eq!(after(0), 0.0);
        latency.observe_failure(start);
        assert_eq!(after(0), 1_000_000.0);
        assert!(after(9) > 1_000.0 && after(9) < after(2));
        assert_eq!(after(10), 0.0);
        latency.observe(Duration::from_millis(2), start + FORGOTTEN);
        assert_eq!(after(10), 2_000.0);
        latency.observe(Duration::from_millis(2), start);
        latency.forget();
        assert_eq!(after(0), 0.0);
    }
}
