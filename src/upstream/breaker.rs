//! The circuit breaker of an upstream. All cores share its state, so it opens and closes for the whole process, and the
//! limit of requests at once holds over all cores.
//!
//! The circuit is closed at first. When too many of the recent requests have failed, it opens: requests are refused at
//! once. After a time it is half open: a few requests try the upstream, and their outcomes close the circuit or open it
//! again. Only upstreams with a breaker pay for it: two writes of shared memory a request.

use std::sync::Arc;
use std::time::Duration;

use crate::io::Instant;
use crate::obs::CoreReport;
use crate::plan::BreakerPlan;
use crate::shared::AtomicU64;
use crate::shared::Ordering::{AcqRel, Acquire, Relaxed};

/// How many requests may try an upstream at once while the circuit is half open, and how many have to succeed to close
/// it. (Resilience4j permits ten, Polly one. One success may be chance, three are a recovery.)
const TRIALS: u64 = 3;

/// The state of one upstream's breaker, over all cores.
#[derive(Default)]
pub(super) struct BreakerState {
    /// The circuit: 0 if closed; else when it is half open, in milliseconds, above the counts of trials.
    circuit: AtomicU64,
    /// Requests at once. Counted only if they have a limit.
    requests: AtomicU64,
    /// The outcomes of the current half of the window, and of the half before.
    current: AtomicU64,
    former: AtomicU64,
}

/// The place of a request under the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerPass {
    /// The circuit is closed.
    Closed,
    /// The request tries an upstream whose circuit is half open since this time, in milliseconds.
    Trial(u64),
}

/// A refused request. [`BreakerState::open_for`] has the time for which the circuit stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitOpen;

/// The counts of trials in the low bits of a circuit that is not closed.
const RUNNING: u64 = 1;
const PASSED: u64 = 1 << 8;
const TIME_SHIFT: u32 = 16;

fn running(circuit: u64) -> u64 {
    circuit & 0xff
}

fn passed(circuit: u64) -> u64 {
    (circuit >> 8) & 0xff
}

/// How an outcome has changed a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitChange {
    /// Too many requests have failed, or a trial has.
    Opened,
    /// The trials have succeeded.
    Closed,
}

impl CircuitChange {
    /// What the process log says about it.
    #[must_use]
    pub fn report(self, upstream: Arc<str>) -> CoreReport {
        match self {
            Self::Opened => CoreReport::CircuitOpened { upstream },
            Self::Closed => CoreReport::CircuitClosed { upstream },
        }
    }
}

fn millis(now: Instant) -> u64 {
    now.0 / 1_000_000
}

impl BreakerState {
    /// Lets a request pass, or refuses it.
    pub(super) fn admit(
        &self,
        plan: &BreakerPlan,
        now: Instant,
    ) -> Result<BreakerPass, CircuitOpen> {
        let pass = match self.circuit.load(Acquire) {
            0 => BreakerPass::Closed,
            circuit => self.try_upstream(circuit, millis(now))?,
        };
        if let Some(max) = plan.requests_max {
            let one_more = |requests| (requests < u64::from(max)).then_some(requests + 1);
            if self
                .requests
                .fetch_update(AcqRel, Acquire, one_more)
                .is_err()
            {
                self.give_up(pass);
                // The circuit stays closed: the requests over the limit are refused, and no others.
                return Err(CircuitOpen);
            }
        }
        Ok(pass)
    }

    /// Takes a place among the trials, if the circuit is half open and has one.
    fn try_upstream(&self, circuit: u64, now: u64) -> Result<BreakerPass, CircuitOpen> {
        let since = circuit >> TIME_SHIFT;
        if now < since {
            return Err(CircuitOpen);
        }
        let one_more = |circuit: u64| {
            let has_place = circuit >> TIME_SHIFT == since && running(circuit) < TRIALS;
            has_place.then_some(circuit + RUNNING)
        };
        match self.circuit.fetch_update(AcqRel, Acquire, one_more) {
            Ok(_) => Ok(BreakerPass::Trial(since)),
            Err(0) => Ok(BreakerPass::Closed),
            Err(_) => Err(CircuitOpen),
        }
    }

    /// Ends a request without an outcome: its client has left.
    pub(super) fn end(&self, plan: &BreakerPlan, pass: BreakerPass) {
        self.give_up(pass);
        self.leave(plan);
    }

    /// Ends a request that the upstream has served, or failed to serve. Returns how that changed the
    /// circuit, if it did.
    pub(super) fn finish(
        &self,
        plan: &BreakerPlan,
        pass: BreakerPass,
        has_failed: bool,
        now: Instant,
    ) -> Option<CircuitChange> {
        self.leave(plan);
        self.judge(plan, pass, has_failed, now)
    }

    /// Counts the outcome of a request that goes on counting as running. Returns how that changed the circuit, if it did.
    pub(super) fn judge(
        &self,
        plan: &BreakerPlan,
        pass: BreakerPass,
        has_failed: bool,
        now: Instant,
    ) -> Option<CircuitChange> {
        let half_open_at = || millis(now) + plan.open_for.as_millis() as u64;
        match pass {
            BreakerPass::Trial(since) => {
                let next = |circuit: u64| {
                    if circuit >> TIME_SHIFT != since {
                        return None;
                    }
                    Some(match has_failed {
                        true => half_open_at() << TIME_SHIFT,
                        false if passed(circuit) + 1 >= TRIALS => 0,
                        false => circuit - RUNNING + PASSED,
                    })
                };
                if !has_failed {
                    // Former failures must not open the circuit at once when it closes.
                    self.current.store(0, Relaxed);
                    self.former.store(0, Relaxed);
                }
                let former = self.circuit.fetch_update(AcqRel, Acquire, next).ok()?;
                match has_failed {
                    true => Some(CircuitChange::Opened),
                    false => (passed(former) + 1 >= TRIALS).then_some(CircuitChange::Closed),
                }
            }
            BreakerPass::Closed => {
                if !(self.count(plan, has_failed, millis(now)) && has_failed) {
                    return None;
                }
                let open = half_open_at() << TIME_SHIFT;
                let opened = self.circuit.compare_exchange(0, open, AcqRel, Relaxed);
                opened.ok().map(|_| CircuitChange::Opened)
            }
        }
    }

    /// Whether the circuit is open or half open.
    pub(super) fn is_open(&self) -> bool {
        self.circuit.load(Relaxed) != 0
    }

    /// How long the circuit stays open at least.
    pub(super) fn open_for(&self, now: Instant) -> Duration {
        let since = self.circuit.load(Relaxed) >> TIME_SHIFT;
        Duration::from_millis(since.saturating_sub(millis(now)))
    }

    /// Ends a request whose outcome is counted already.
    pub(super) fn leave(&self, plan: &BreakerPlan) {
        if plan.requests_max.is_some() {
            let one_less = |requests: u64| requests.checked_sub(1);
            let _ = self.requests.fetch_update(AcqRel, Relaxed, one_less);
        }
    }

    fn give_up(&self, pass: BreakerPass) {
        let BreakerPass::Trial(since) = pass else {
            return;
        };
        let one_less = |circuit: u64| {
            let is_same = circuit >> TIME_SHIFT == since && running(circuit) > 0;
            is_same.then(|| circuit - RUNNING)
        };
        let _ = self.circuit.fetch_update(AcqRel, Relaxed, one_less);
    }

    /// Counts an outcome. Returns whether too many of the recent ones were failures.
    fn count(&self, plan: &BreakerPlan, has_failed: bool, now: u64) -> bool {
        let half_ms = (plan.window.as_millis() as u64 / 2).max(1);
        let epoch = now / half_ms % (1 << 16);
        let add = |word: u64| {
            let own = match OutcomeCounts::unpack(word) {
                own if own.epoch == epoch => own,
                _ => OutcomeCounts {
                    epoch,
                    ..OutcomeCounts::default()
                },
            };
            Some(own.with(has_failed).pack())
        };
        let before = self.current.fetch_update(AcqRel, Acquire, add);
        let before = before.unwrap_or_else(|word| word);
        let mut former = OutcomeCounts::unpack(self.former.load(Relaxed));
        if OutcomeCounts::unpack(before).epoch != epoch {
            self.former.store(before, Relaxed);
            former = OutcomeCounts::unpack(before);
        }
        let current = OutcomeCounts::unpack(self.current.load(Relaxed));
        if (former.epoch + 1) % (1 << 16) != epoch {
            former = OutcomeCounts::default();
        }
        let total = current.total + former.total;
        let failed = current.failed + former.failed;
        total >= u64::from(plan.requests_min)
            && failed * 100 >= total * u64::from(plan.error_percent)
    }
}

/// The outcomes of half a window, packed into a word.
#[derive(Clone, Copy, Default)]
struct OutcomeCounts {
    /// The number of the half window, modulo 2^16.
    epoch: u64,
    failed: u64,
    total: u64,
}

/// The largest count of a half window, so that both counts fit into a word. Later outcomes of the half do not count.
const COUNT_MAX: u64 = (1 << 24) - 1;

impl OutcomeCounts {
    fn unpack(word: u64) -> Self {
        Self {
            epoch: word >> 48,
            failed: (word >> 24) & COUNT_MAX,
            total: word & COUNT_MAX,
        }
    }

    fn pack(self) -> u64 {
        (self.epoch << 48) | (self.failed << 24) | self.total
    }

    fn with(self, has_failed: bool) -> Self {
        if self.total == COUNT_MAX {
            return self;
        }
        Self {
            total: self.total + 1,
            failed: self.failed + u64::from(has_failed),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> BreakerPlan {
        BreakerPlan {
            requests_max: None,
            error_percent: 50,
            window: Duration::from_secs(10),
            requests_min: 20,
            open_for: Duration::from_secs(5),
        }
    }

    fn at(ms: u64) -> Instant {
        Instant((1_000_000 + ms) * 1_000_000)
    }

    /// Sends requests with these outcomes, one after the other. Returns how many passed.
    fn send(state: &BreakerState, plan: &BreakerPlan, ms: u64, failures: &[bool]) -> usize {
        let mut passed = 0;
        for &has_failed in failures {
            if let Ok(pass) = state.admit(plan, at(ms)) {
                passed += 1;
                state.finish(plan, pass, has_failed, at(ms));
            }
        }
        passed
    }

    #[test]
    fn it_opens_at_the_rate_and_not_before() {
        let (state, plan) = (BreakerState::default(), plan());
        assert_eq!(send(&state, &plan, 0, &[true; 19]), 19);
        assert!(!state.is_open(), "too few requests");
        assert_eq!(send(&state, &plan, 1, &[true; 5]), 1);
        assert!(state.is_open());
        assert_eq!(state.admit(&plan, at(1_001)), Err(CircuitOpen));
        assert_eq!(state.open_for(at(1_001)), Duration::from_secs(4));

        let state = BreakerState::default();
        assert_eq!(send(&state, &plan, 0, &[false; 30]), 30);
        assert_eq!(send(&state, &plan, 0, &[true; 29]), 29);
        assert!(!state.is_open(), "29 of 59");
        send(&state, &plan, 0, &[true; 2]);
        assert!(state.is_open());
    }

    #[test]
    fn failures_are_forgotten_after_the_window() {
        let (state, plan) = (BreakerState::default(), plan());
        send(&state, &plan, 0, &[true; 19]);
        send(&state, &plan, 10_001, &[true; 19]);
        assert!(!state.is_open(), "the first 19 are over");
        send(&state, &plan, 14_000, &[true]);
        assert!(state.is_open(), "both halves of the window count");
    }

    #[test]
    fn a_half_open_circuit_lets_few_requests_try() {
        let (state, plan) = (BreakerState::default(), plan());
        send(&state, &plan, 0, &[true; 20]);
        assert!(state.admit(&plan, at(4_999)).is_err());
        let trials: Vec<_> = (0..10)
            .filter_map(|_| state.admit(&plan, at(5_000)).ok())
            .collect();
        assert_eq!(trials.len(), 3);
        // One that leaves makes room for another.
        state.end(&plan, trials[0]);
        let again = state.admit(&plan, at(5_001)).expect("a place");
        assert!(state.admit(&plan, at(5_001)).is_err());
        for (trial, change) in [
            (trials[1], None),
            (trials[2], None),
            (again, Some(CircuitChange::Closed)),
        ] {
            assert!(state.is_open());
            assert_eq!(state.finish(&plan, trial, false, at(5_100)), change);
        }
        assert!(!state.is_open());
        assert_eq!(send(&state, &plan, 5_200, &[true; 19]), 19);
        assert!(!state.is_open(), "it begins to count anew");
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let (state, plan) = (BreakerState::default(), plan());
        send(&state, &plan, 0, &[true; 20]);
        let first = state.admit(&plan, at(5_000)).expect("a trial");
        let second = state.admit(&plan, at(5_000)).expect("a trial");
        let change = state.finish(&plan, first, true, at(6_000));
        assert_eq!(change, Some(CircuitChange::Opened));
        assert!(state.admit(&plan, at(10_999)).is_err());
        // An outcome of the former trials decides nothing.
        assert_eq!(state.finish(&plan, second, true, at(7_000)), None);
        let third = state.admit(&plan, at(11_000)).expect("a trial");
        assert_eq!(third, BreakerPass::Trial(1_011_000));
    }

    #[test]
    fn requests_at_once_are_bounded_over_all_cores() {
        let plan = BreakerPlan {
            requests_max: Some(4),
            ..plan()
        };
        let (state, most) = (BreakerState::default(), AtomicU64::new(0));
        let now = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Ok(pass) = state.admit(&plan, at(0)) else {
                            continue;
                        };
                        most.fetch_max(now.fetch_add(1, AcqRel) + 1, AcqRel);
                        now.fetch_sub(1, AcqRel);
                        state.finish(&plan, pass, false, at(0));
                    }
                });
            }
        });
        assert!((1..=4).contains(&most.load(Acquire)));
        assert_eq!(state.requests.load(Acquire), 0);
        assert!(
            !state.is_open(),
            "a full upstream does not open the circuit"
        );
    }

    /// With real threads: whatever the timing, a circuit that opened can close again.
    #[test]
    fn no_trial_is_lost() {
        let plan = BreakerPlan {
            open_for: Duration::from_millis(1),
            requests_min: 1,
            ..plan()
        };
        let (state, clock) = (BreakerState::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (state, clock, plan) = (&state, &clock, &plan);
                scope.spawn(move || {
                    for n in 0..5_000_u64 {
                        let now = at(clock.fetch_add(1, Relaxed) / 8);
                        let Ok(pass) = state.admit(plan, now) else {
                            continue;
                        };
                        match (n + thread) % 5 {
                            0 => state.end(plan, pass),
                            1 => _ = state.finish(plan, pass, true, now),
                            _ => _ = state.finish(plan, pass, false, now),
                        }
                    }
                });
            }
        });
        let later = 1_000_000;
        send(&state, &plan, later, &[false; 10]);
        assert!(!state.is_open());
    }
}
