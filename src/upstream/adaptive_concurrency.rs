//! Measures how many requests an upstream can serve at once without growing slower. As in Envoy's gradient controller, the
//! ratio of the idle upstream's time to the first byte to the current one shows whether requests queue there.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::io::Instant;

/// The bounds of the limit, and where it begins.
const LIMIT_MIN: u32 = 3;
const LIMIT_MAX: u32 = 1_000;
const LIMIT_FIRST: u32 = 64;

/// How long the times of one sample are collected (Envoy `concurrency_update_interval` 100 ms).
const SAMPLE: Duration = Duration::from_millis(100);
/// The fewest times that a sample needs to change the limit.
const SAMPLE_MIN: usize = 5;
/// Times that a sample keeps. Later ones replace others at random.
const SAMPLE_MAX: usize = 256;

/// How often the time of the idle upstream is measured again (Envoy `min_rtt_calc_params.interval`, 60 s in its examples),
/// plus up to [`JITTER`] of it, so that the cores do not all measure at once.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
const JITTER: f64 = 0.15;
/// How many times make a measurement (Envoy `request_count` 50), and how long it waits for them.
const MEASURE_TIMES: usize = 50;
const MEASURE_FOR: Duration = Duration::from_secs(5);

/// By how much an upstream may be slower than an idle one before the limit falls (Envoy `buffer` 25 %).
const BUFFER: f64 = 1.25;

/// One upstream's limit of requests at once on one core.
pub(super) struct AdaptiveConcurrency {
    in_flight: Cell<u32>,
    gradient: RefCell<Gradient>,
}

impl AdaptiveConcurrency {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            in_flight: Cell::new(0),
            gradient: RefCell::new(Gradient::new(now)),
        }
    }

    /// Counts a request, unless as many are running as the limit allows.
    pub(super) fn admit(&self) -> bool {
        let in_flight = self.in_flight.get();
        let has_room = in_flight < self.gradient.borrow().limit;
        if has_room {
            self.in_flight.set(in_flight + 1);
        }
        has_room
    }

    /// Ends a request. `time` is how long its answer took to begin; `None` if that does not depend on the upstream's load.
    pub(super) fn end(&self, time: Option<Duration>, now: Instant) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if let Some(time) = time {
            self.gradient.borrow_mut().record(time, now);
        }
    }
}

/// Finds the limit.
struct Gradient {
    limit: u32,
    /// The median time to the first byte of the upstream when it is idle.
    idle_time: Option<f64>,
    /// The times of the current sample, in seconds.
    times: Vec<f64>,
    /// How many times came, with those that `times` does not keep.
    seen: usize,
    /// The end of the sample, or of the measurement.
    ends: Instant,
    /// The limit to return to after the measurement that is running.
    measured_from: Option<u32>,
    measures_next: Instant,
}

impl Gradient {
    fn new(now: Instant) -> Self {
        Self {
            limit: LIMIT_FIRST,
            idle_time: None,
            times: Vec::new(),
            seen: 0,
            ends: now + MEASURE_FOR,
            measured_from: Some(LIMIT_FIRST),
            measures_next: Instant::NEVER,
        }
    }

    fn record(&mut self, time: Duration, now: Instant) {
        self.keep(time.as_secs_f64());
        match self.measured_from {
            Some(limit) if self.seen >= MEASURE_TIMES || now >= self.ends => {
                self.end_measurement(limit, now);
            }
            None if now >= self.ends => self.end_sample(now),
            _ => {}
        }
    }

    fn keep(&mut self, time: f64) {
        self.seen += 1;
        if self.times.len() < SAMPLE_MAX {
            self.times.push(time);
        } else if let Some(other) = self.times.get_mut(fastrand::usize(0..self.seen)) {
            *other = time;
        }
    }

    /// The median of the times, or `None` if they are too few. Begins anew.
    fn take_median(&mut self) -> Option<f64> {
        self.times.sort_unstable_by(f64::total_cmp);
        let median = self.times.get(self.times.len() / 2).copied();
        let is_enough = self.times.len() >= SAMPLE_MIN;
        self.times.clear();
        self.seen = 0;
        median.filter(|_| is_enough)
    }

    fn end_measurement(&mut self, limit: u32, now: Instant) {
        self.idle_time = self.take_median().or(self.idle_time);
        self.limit = limit;
        self.measured_from = None;
        self.ends = now + SAMPLE;
        self.measures_next = now + MEASURE_EVERY.mul_f64(1.0 + JITTER * fastrand::f64());
    }

    fn end_sample(&mut self, now: Instant) {
        self.ends = now + SAMPLE;
        if now >= self.measures_next || self.idle_time.is_none() {
            self.begin_measurement(now);
            return;
        }
        let (Some(time), Some(idle)) = (self.take_median(), self.idle_time) else {
            return;
        };
        let gradient = (idle * BUFFER / time.max(f64::MIN_POSITIVE)).clamp(0.5, 2.0);
        let limit = f64::from(self.limit) * gradient;
        // Room for bursts, so that the limit can grow.
        let limit = (limit + limit.sqrt()) as u32;
        self.limit = limit.clamp(LIMIT_MIN, LIMIT_MAX);
    }

    /// Halves the limit for a moment: queues at the upstream get shorter, so the times come near to those of an idle one.
    /// (Envoy sets the limit to 3 and refuses nearly everything meanwhile. Halving refuses little, and comes as near after
    /// some measurements.)
    fn begin_measurement(&mut self, now: Instant) {
        self.take_median();
        self.measured_from = Some(self.limit);
        self.limit = (self.limit / 2).max(LIMIT_MIN);
        self.ends = now + MEASURE_FOR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upstream that serves `servers` requests at once in 10 ms each; further ones wait there. Sends `offered`
    /// requests at once for some seconds, refused ones again. Returns the limit at the end.
    fn settle(controller: &AdaptiveConcurrency, servers: u32, offered: u32, seconds: u64) -> u32 {
        fastrand::seed(7);
        for round in 0..seconds * 100 {
            let now = Instant(round * 10_000_000);
            let mut admitted = 0;
            while admitted < offered && controller.admit() {
                admitted += 1;
            }
            for place in 0..admitted {
                let turns = 1 + place / servers;
                controller.end(Some(Duration::from_millis(10) * turns), now);
            }
        }
        controller.gradient.borrow().limit
    }

    #[test]
    fn the_limit_follows_what_the_upstream_can_serve() {
        for servers in [10, 40] {
            let controller = AdaptiveConcurrency::new(Instant(0));
            // Measured while the upstream is idle.
            settle(&controller, servers, 1, 2);
            let limit = settle(&controller, servers, 400, 30);
            assert!(
                (servers..=servers * 4).contains(&limit),
                "{limit} for {servers}"
            );
        }
    }

    #[test]
    fn an_upstream_that_is_not_busy_is_not_limited() {
        let controller = AdaptiveConcurrency::new(Instant(0));
        assert_eq!(settle(&controller, 1_000, 20, 5), LIMIT_MAX);
        assert_eq!(controller.in_flight.get(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut gradient = Gradient::new(Instant(0));
        gradient.measured_from = None;
        gradient.ends = Instant::NEVER;
        (0..10_000).for_each(|_| gradient.record(Duration::from_millis(1), Instant(1)));
        assert_eq!(gradient.times.len(), SAMPLE_MAX);
    }
}
