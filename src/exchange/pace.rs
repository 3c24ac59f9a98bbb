//! Detects bodies that stand still or crawl.

use std::time::Duration;

use crate::io::Instant;

/// The progress of one direction.
pub(super) struct Pace {
    stall: Duration,
    rate_bytes_min: u64,
    /// A count that grows with every byte that moves.
    count: u64,
    /// When it last grew.
    last: Instant,
    /// When the window began over which the rate is measured. A window lasts as long as a stall may.
    window: Instant,
    window_count: u64,
}

impl Pace {
    /// Begins to watch a direction. The direction may stand still for `stall`, and must move `rate_bytes_min` bytes a
    /// second over each window of that length; 0 allows any rate.
    pub(super) fn new(now: Instant, stall: Duration, rate_bytes_min: u64) -> Self {
        Self {
            stall,
            rate_bytes_min,
            count: 0,
            last: now,
            window: now,
            window_count: 0,
        }
    }

    /// Notes how many bytes have moved so far.
    pub(super) fn record_progress(&mut self, now: Instant, count: u64) {
        if count == self.count {
            return;
        }
        (self.count, self.last) = (count, now);
        let window_ms = self.stall.as_millis() as u64;
        if (count.saturating_sub(self.window_count)) * 1_000 >= self.rate_bytes_min * window_ms {
            (self.window, self.window_count) = (now, count);
        }
    }

    /// Notes that no byte has to move now. The stall and the window begin anew.
    pub(super) fn restart(&mut self, now: Instant) {
        self.last = now;
        (self.window, self.window_count) = (now, self.count);
    }

    /// Whether the direction stands still, rather than crawls.
    pub(super) fn is_standing_still(&self, now: Instant) -> bool {
        now >= self.last + self.stall
    }

    /// The time at which the direction fails unless more bytes move: it has then stood still for too long or, if
    /// `rated`, moved too slowly.
    pub(super) fn deadline(&mut self, now: Instant, rated: bool) -> Instant {
        let still = self.last + self.stall;
        if rated && self.rate_bytes_min > 0 {
            return still.min(self.window + 2 * self.stall);
        }
        (self.window, self.window_count) = (now, self.count);
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn standing_still_ends_after_the_stall_and_crawling_after_two() {
        let mut pace = Pace::new(at(0), Duration::from_secs(30), 240);
        assert_eq!(pace.deadline(at(0), true), at(30));
        for second in 1..60 {
            pace.record_progress(at(second), second);
            assert!(at(second) < pace.deadline(at(second), true));
        }
        assert_eq!(
            pace.deadline(at(59), true),
            at(60),
            "a byte a second is too little"
        );
        pace.record_progress(at(59), 240 * 30 + 59);
        assert_eq!(
            pace.deadline(at(59), true),
            at(89),
            "enough came within the window"
        );
    }

    #[test]
    fn only_a_rated_wait_needs_a_rate() {
        let mut pace = Pace::new(at(0), Duration::from_secs(30), 240);
        for second in 1..600 {
            pace.record_progress(at(second), second);
            assert_eq!(pace.deadline(at(second), false), at(second + 30));
        }
        assert_eq!(
            pace.deadline(at(600), true),
            at(629),
            "the window begins when it is rated"
        );
    }
}
