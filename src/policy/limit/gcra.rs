//! Buckets of tokens as one word: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A bucket's word is the time at which it will be full again. Taking a token moves that time by one interval. A bucket
//! holds as many tokens as there are intervals between that time and the time at which an empty bucket would be full.

use std::time::Duration;

/// Ticks of a nanosecond. Finer than nanoseconds, so that rounding an interval to ticks costs less than 0.13 % of the
/// highest rate; 63 bits of ticks last for 36 years.
const TICKS_PER_NS: u64 = 8;
const TICKS_PER_SECOND: u64 = TICKS_PER_NS * 1_000_000_000;
/// The longest that an empty bucket takes to fill: 4 years, so that sums of times do not overflow.
const FILL_TICKS_MAX: u64 = 1 << 60;

/// How late the clock of a core may be, in ticks, without any effect; but never more than half a token's interval, so
/// that a bucket never gives a token more.
const PATIENCE_TICKS: u64 = TICKS_PER_SECOND / 100;

/// How a bucket of one limit fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Ticks between two tokens.
    interval: u64,
    /// Tokens of a full bucket.
    burst: u64,
}

impl Gcra {
    /// Buckets that get `count` tokens in each `window` and hold `burst`. The interval is rounded up, so a bucket never
    /// gets more.
    #[must_use]
    pub(super) fn new(count: u32, window: Duration, burst: u32) -> Self {
        let ticks = window.as_nanos() * u128::from(TICKS_PER_NS);
        let interval = ticks.div_ceil(u128::from(count.max(1)));
        let interval = interval.clamp(1, FILL_TICKS_MAX.into()) as u64;
        Self {
            interval,
            burst: u64::from(burst).clamp(1, FILL_TICKS_MAX / interval),
        }
    }

    /// Tokens of a full bucket.
    #[cfg(test)]
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// The tokens that a client may count on: while a core keeps some, the bucket fills again, and the kept ones are
    /// then more than it holds.
    #[must_use]
    pub(super) fn at_most_full(&self, tokens: u64) -> u64 {
        tokens.min(self.burst)
    }

    /// How long an empty bucket takes to fill, in ticks.
    #[must_use]
    pub(super) fn fill_ticks(&self) -> u64 {
        self.interval * self.burst
    }

    /// The most tokens that one of `cores` cores takes at a time: an eighth of its part of the bucket, and what the
    /// rate gives in 20 ms.
    #[must_use]
    pub(super) fn batch(&self, cores: usize) -> u64 {
        let of_burst = self.burst / (8 * cores.max(1) as u64);
        let of_rate = TICKS_PER_SECOND / 50 / self.interval;
        of_burst.min(of_rate).max(1)
    }

    /// Tokens in a bucket. `now` is in ticks, here as everywhere.
    ///
    /// A core's clock may be late: it stands still while the core handles what has arrived. Without some patience, a
    /// bucket from which another core has just taken a token would seem to lack a little more than that one.
    #[must_use]
    pub(super) fn tokens(&self, word: u64, now: u64) -> u64 {
        if word <= now {
            return self.burst;
        }
        let patience = (self.interval / 2).min(PATIENCE_TICKS);
        let filled = (self.fill_ticks() + patience).saturating_sub(word - now);
        (filled / self.interval).min(self.burst)
    }

    /// The word once `tokens` have been taken from a bucket that has them.
    #[must_use]
    pub(super) fn take(&self, word: u64, now: u64, tokens: u64) -> u64 {
        word.max(now) + tokens * self.interval
    }

    /// The word once `tokens` that were taken have been given back.
    #[must_use]
    pub(super) fn give_back(&self, word: u64, tokens: u64) -> u64 {
        word.saturating_sub(tokens * self.interval).max(1)
    }

    /// The time until a bucket has `tokens`.
    #[must_use]
    pub(super) fn ready_in(&self, word: u64, now: u64, tokens: u64) -> Duration {
        let missing = self.burst.saturating_sub(tokens) * self.interval;
        Duration::from_nanos(
            word.saturating_sub(now.saturating_add(missing))
                .div_ceil(TICKS_PER_NS),
        )
    }

    /// The time until a bucket is full.
    #[must_use]
    pub(super) fn full_in(&self, word: u64, now: u64) -> Duration {
        Duration::from_nanos(word.saturating_sub(now).div_ceil(TICKS_PER_NS))
    }

    /// The word, in buckets of this limit, of a bucket that lacks as many tokens as one of `old` with `word`.
    #[must_use]
    pub(super) fn converted(&self, old: &Self, word: u64, now: u64) -> u64 {
        let lacks = (old.burst - old.tokens(word, now)).min(self.burst);
        if lacks == 0 {
            0
        } else {
            self.take(0, now, lacks)
        }
    }
}

/// A time in ticks.
#[must_use]
pub(super) const fn ticks(ns: u64) -> u64 {
    ns.saturating_mul(TICKS_PER_NS)
}
