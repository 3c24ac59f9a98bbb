//! The verdict of the checks of one endpoint, and when to check it again. A pure state machine: it reads no clock.

use std::time::Duration;

use weir_config::{HealthCheck, INTERVAL_MIN};

use crate::upstream::EndpointHealth;

/// By how much an interval may differ from the one in the file, per mille of it.
const JITTER: u32 = 200;

/// While an endpoint fails, or its state is unclear, checks are this many times as frequent.
const HURRY: u32 = 5;

/// What the checks of one endpoint have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckState {
    health: EndpointHealth,
    /// How many checks in a row contradict `health`.
    against: u32,
    /// `health` is a guess, and the next check decides.
    is_guess: bool,
}

impl CheckState {
    /// The state of an endpoint that counts as `health` until its first check decides.
    pub(super) fn guessed(health: EndpointHealth) -> Self {
        Self {
            health,
            against: 0,
            is_guess: true,
        }
    }

    /// The state of an endpoint about which earlier checks have decided.
    pub(super) fn decided(health: EndpointHealth) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// The verdict.
    pub(super) fn health(&self) -> EndpointHealth {
        self.health
    }

    /// Whether a check has decided.
    pub(super) fn is_decided(&self) -> bool {
        !self.is_guess && self.health != EndpointHealth::Unknown
    }

    /// Notes the outcome of a check. Returns whether `health` has changed.
    pub(super) fn note(&mut self, has_passed: bool, rule: &HealthCheck) -> bool {
        let before = self.health;
        let (found, needed) = match has_passed {
            true => (EndpointHealth::Up, rule.rise),
            false => (EndpointHealth::Down, rule.fall),
        };
        if !self.is_decided() {
            self.health = found;
        } else if found == self.health {
            self.against = 0;
        } else {
            self.against += 1;
            if self.against >= needed {
                self.health = found;
            }
        }
        self.is_guess = false;
        if self.health == found {
            self.against = 0;
        }
        self.health != before
    }

    /// The time from the beginning of a check to the next one. `random` is uniform from 0 to 1.
    pub(super) fn pause(&self, rule: &HealthCheck, random: f64) -> Duration {
        let is_settled = self.health == EndpointHealth::Up && self.against == 0;
        let pause = match is_settled {
            true => rule.interval,
            false => (rule.interval / HURRY).max(INTERVAL_MIN),
        };
        let jitter = f64::from(JITTER) / 1_000.0 * (2.0 * random - 1.0);
        pause.mul_f64(1.0 + jitter)
    }
}

#[cfg(test)]
mod tests {
    use weir_config::CheckKind;

    use super::*;

    fn rule(fall: u32, rise: u32) -> HealthCheck {
        HealthCheck {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fall,
            rise,
            port: None,
            tls: None,
            host: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_first_check_decides() {
        for state in [
            CheckState::default(),
            CheckState::guessed(EndpointHealth::Up),
            CheckState::guessed(EndpointHealth::Down),
        ] {
            for has_passed in [true, false] {
                let mut state = state;
                let (before, wanted) = match has_passed {
                    true => (state.health(), EndpointHealth::Up),
                    false => (state.health(), EndpointHealth::Down),
                };
                assert!(!state.is_decided());
                assert_eq!(state.note(has_passed, &rule(3, 2)), before != wanted);
                assert!(state.is_decided() && state.health() == wanted);
            }
        }
    }

    #[test]
    fn pauses_are_short_while_an_endpoint_fails_or_its_state_is_unclear() {
        let (rule, mut state) = (rule(3, 2), CheckState::default());
        let pause = |state: CheckState| state.pause(&rule, 0.5).as_millis();
        assert_eq!(pause(state), 1_000);
        let mut step = |has_passed| {
            state.note(has_passed, &rule);
            pause(state)
        };
        assert_eq!((step(true), step(true)), (5_000, 5_000));
        assert_eq!((step(false), step(false)), (1_000, 1_000));
        assert_eq!((step(true), step(false)), (5_000, 1_000));
        assert_eq!((step(false), step(false)), (1_000, 1_000), "down");
        assert_eq!((step(true), step(true)), (1_000, 5_000), "up again");
        assert_eq!(CheckState::default().pause(&rule, 0.0).as_millis(), 800);
        assert_eq!(CheckState::default().pause(&rule, 1.0).as_millis(), 1_200);
        let often = HealthCheck {
            interval: Duration::from_millis(200),
            ..rule.clone()
        };
        assert_eq!(pause(CheckState::default()), 1_000);
        assert_eq!(CheckState::default().pause(&often, 0.5).as_millis(), 100);
    }

    /// Compares the machine with the words of the documentation: an endpoint changes when the last `fall` or `rise`
    /// outcomes agree, and only then.
    #[test]
    fn random_outcomes_change_the_verdict_by_their_last_run_alone() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..2_000 {
            let rule = rule(random.u32(1..5), random.u32(1..5));
            let mut state = CheckState::default();
            let mut outcomes = Vec::new();
            let mut wanted = EndpointHealth::Unknown;
            for _ in 0..40 {
                let has_passed = random.u32(0..3) > 0;
                outcomes.push(has_passed);
                let last = |count: u32, outcome: bool| {
                    let run = outcomes.iter().rev().take_while(|each| **each == outcome);
                    run.count() >= count as usize
                };
                let before = wanted;
                wanted = match before {
                    EndpointHealth::Unknown if has_passed => EndpointHealth::Up,
                    EndpointHealth::Unknown => EndpointHealth::Down,
                    EndpointHealth::Up if last(rule.fall, false) => EndpointHealth::Down,
                    EndpointHealth::Down if last(rule.rise, true) => EndpointHealth::Up,
                    same => same,
                };
                assert_eq!(state.note(has_passed, &rule), wanted != before);
                assert_eq!(state.health(), wanted);
                let shares = [0.0, random.f64(), 1.0];
                for pause in shares.map(|share| state.pause(&rule, share)) {
                    assert!(pause >= INTERVAL_MIN && pause <= rule.interval.mul_f64(1.2));
                }
            }
        }
    }
}
