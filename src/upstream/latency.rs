//! How long answers of an upstream take to begin, in a histogram of fixed size.

use std::time::Duration;

/// Buckets of each doubling of the time. A bucket's bounds are 19 % apart.
const STEPS: f64 = 4.0;
const BUCKETS: usize = 96;
/// The upper bound of the first bucket. The last one ends after about 28 minutes.
const FIRST: f64 = 0.000_1;

/// When this many times are counted, all counts are halved: older times count less and less.
const COUNTED_MAX: u32 = 1_000;
/// The fewest times that a percentile needs; with fewer, requests are not hedged.
const COUNTED_MIN: u32 = 50;

/// The times to the first byte of one upstream on one core.
pub struct LatencyHistogram {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
        }
    }
}

impl LatencyHistogram {
    /// Counts a time.
    pub fn record(&mut self, time: Duration) {
        let bucket = ((time.as_secs_f64() / FIRST).log2() * STEPS)
            .ceil()
            .max(0.0) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= COUNTED_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
    }

    /// The time within which `percent` of the answers begin, rounded up to the bound of a bucket. `None`: too few times
    /// are known.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.total < COUNTED_MIN {
            return None;
        }
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|&count| {
            seen += u32::from(count);
            seen >= wanted
        })?;
        let bound = FIRST * (bucket as f64 / STEPS).exp2();
        Some(Duration::from_secs_f64(bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_bucket() {
        let mut histogram = LatencyHistogram::default();
        for ms in 1..=49 {
            histogram.record(Duration::from_millis(ms));
        }
        assert_eq!(histogram.percentile(95), None, "too few");
        for round in 0..30 {
            for ms in 1..=100 {
                histogram.record(Duration::from_millis(ms));
            }
            assert!(histogram.total < COUNTED_MAX, "{round}");
        }
        for (percent, ms) in [(50, 50.0), (95, 95.0), (99, 99.0)] {
            let found = histogram.percentile(percent).expect("enough").as_secs_f64() * 1_000.0;
            assert!((ms..ms * 1.25).contains(&found), "p{percent}: {found} ms");
        }
    }

    #[test]
    fn the_percentile_follows_the_upstream() {
        let mut histogram = LatencyHistogram::default();
        (0..1_000).for_each(|_| histogram.record(Duration::from_millis(200)));
        (0..3_000).for_each(|_| histogram.record(Duration::from_millis(2)));
        let now = histogram.percentile(75).expect("enough");
        assert!(now < Duration::from_millis(3), "{now:?}");
        // No time is out of range.
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            histogram.record(time);
        }
    }
}
