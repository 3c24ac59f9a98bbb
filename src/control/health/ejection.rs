//! Decides which endpoints of an upstream are ejected, and for how long. A pure state machine: it reads no clock.
//!
//! An endpoint is in use, ejected, or on trial. Cores report an endpoint that fails; it is ejected unless too many are.
//! After its time it gets few requests; one good answer ends the trial, one failure ejects it again, for longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use weir_config::Eject;

use crate::control::limits::EJECTION_MAX;

/// The ejections of one upstream. Times are durations since any fixed moment.
#[derive(Debug, Default)]
pub struct Ejections {
    endpoints: HashMap<Arc<str>, Ejection>,
}

/// The record of one endpoint that has been ejected.
#[derive(Clone, Copy, Debug)]
struct Ejection {
    /// How often it was ejected, less one for each `duration` that it has been in use since.
    times: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    InUse { since: Duration },
    Ejected { until: Duration },
    OnTrial,
}

/// The endpoints of the upstream that would get requests if none was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    /// All of them.
    pub all: usize,
    /// Those that are neither down nor ejected.
    pub healthy: usize,
}

/// The decision about an endpoint that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is ejected for so long.
    Ejected(Duration),
    /// It already was.
    AlreadyEjected,
    /// It stays, because it is the last one.
    Last,
    /// It stays, because as many as may be are ejected.
    TooMany,
}

impl Ejections {
    /// Decides about an endpoint that fails.
    pub fn fail(
        &mut self,
        endpoint: &Arc<str>,
        peers: Peers,
        rule: &Eject,
        now: Duration,
    ) -> Ruling {
        let known = self.endpoints.get(endpoint).copied();
        if self.is_ejected(endpoint) {
            return Ruling::AlreadyEjected;
        }
        if peers.healthy <= 1 {
            return Ruling::Last;
        }
        let ejected = self.ejected().count();
        let most = (peers.all * rule.max_percent as usize / 100).max(1);
        if ejected >= most {
            return Ruling::TooMany;
        }
        let before = known.map_or(0, |known| known.times_at(rule, now));
        let times = before.saturating_add(1);
        let longest = EJECTION_MAX.max(rule.duration);
        let lasts = rule.duration.saturating_mul(times).min(longest);
        let phase = Phase::Ejected { until: now + lasts };
        self.endpoints
            .insert(endpoint.clone(), Ejection { times, phase });
        Ruling::Ejected(lasts)
    }

    /// Notes that an endpoint gives good answers. Returns whether that ends its trial.
    pub fn answer(&mut self, endpoint: &str, now: Duration) -> bool {
        match self.endpoints.get_mut(endpoint) {
            Some(known) if known.phase == Phase::OnTrial => {
                known.phase = Phase::InUse { since: now };
                true
            }
            _ => false,
        }
    }

    /// Puts an ejected endpoint on trial before its time, because it passes its checks. Returns whether it was ejected.
    pub fn pass_checks(&mut self, endpoint: &str) -> bool {
        match self.endpoints.get_mut(endpoint) {
            Some(known) if matches!(known.phase, Phase::Ejected { .. }) => {
                known.phase = Phase::OnTrial;
                true
            }
            _ => false,
        }
    }

    /// Puts the endpoints on trial whose time is over. Returns them.
    pub fn end_due(&mut self, now: Duration) -> Vec<Arc<str>> {
        let mut ended = Vec::new();
        for (name, known) in &mut self.endpoints {
            if matches!(known.phase, Phase::Ejected { until } if until <= now) {
                known.phase = Phase::OnTrial;
                ended.push(name.clone());
            }
        }
        ended
    }

    /// Forgets endpoints that the upstream no longer has, and those whose ejections no longer count. Returns the former
    /// that were not simply in use.
    pub fn forget(
        &mut self,
        rule: Option<&Eject>,
        now: Duration,
        has: impl Fn(&str) -> bool,
    ) -> Vec<Arc<str>> {
        let mut dropped = Vec::new();
        self.endpoints.retain(|name, known| {
            let is_in_use = matches!(known.phase, Phase::InUse { .. });
            let stays = match rule {
                Some(rule) if has(name) => !is_in_use || known.times_at(rule, now) > 0,
                _ => false,
            };
            if !stays && !is_in_use {
                dropped.push(name.clone());
            }
            stays
        });
        dropped
    }

    /// Whether the endpoint is ejected.
    #[must_use]
    pub fn is_ejected(&self, endpoint: &str) -> bool {
        let phase = self.endpoints.get(endpoint).map(|known| known.phase);
        matches!(phase, Some(Phase::Ejected { .. }))
    }

    /// Whether the endpoint is on trial.
    #[must_use]
    pub fn is_on_trial(&self, endpoint: &str) -> bool {
        let phase = self.endpoints.get(endpoint).map(|known| known.phase);
        phase == Some(Phase::OnTrial)
    }

    /// The ejected endpoints.
    pub fn ejected(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.endpoints.iter();
        all.filter(|(_, known)| matches!(known.phase, Phase::Ejected { .. }))
            .map(|(name, _)| name)
    }
}

impl Ejection {
    fn times_at(&self, rule: &Eject, now: Duration) -> u32 {
        let Phase::InUse { since } = self.phase else {
            return self.times;
        };
        let quiet = now.saturating_sub(since).as_millis() / rule.duration.as_millis().max(1);
        self.times
            .saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Eject = Eject {
        failures: 5,
        errors: weir_config::FailureSet::of(&[], &[503]),
        success_rate: None,
        duration: Duration::from_secs(30),
        max_percent: 50,
    };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peers(all: usize, healthy: usize) -> Peers {
        Peers { all, healthy }
    }

    #[test]
    fn an_endpoint_is_ejected_tried_and_back() {
        let (mut ejections, a): (Ejections, Arc<str>) = (Ejections::default(), "a".into());
        let first = ejections.fail(&a, peers(3, 3), &RULE, s(0));
        assert_eq!(first, Ruling::Ejected(s(30)));
        assert_eq!(
            ejections.fail(&a, peers(3, 2), &RULE, s(1)),
            Ruling::AlreadyEjected
        );
        assert!(!ejections.answer("a", s(2)), "it is not on trial");
        assert!(ejections.end_due(s(29)).is_empty());
        assert_eq!(ejections.end_due(s(30)), std::slice::from_ref(&a));
        assert!(ejections.is_on_trial("a") && !ejections.is_ejected("a"));
        assert!(ejections.answer("a", s(31)));
        assert!(!ejections.is_on_trial("a") && !ejections.answer("a", s(32)));
    }

    #[test]
    fn times_grow_with_the_count_up_to_a_limit_and_shrink_in_peace() {
        let (mut ejections, a): (Ejections, Arc<str>) = (Ejections::default(), "a".into());
        let mut now = s(0);
        for times in 1..15 {
            let lasts = s(30 * times).min(s(300));
            let ruling = ejections.fail(&a, peers(3, 3), &RULE, now);
            assert_eq!(ruling, Ruling::Ejected(lasts));
            now += lasts;
            assert_eq!(ejections.end_due(now).len(), 1);
        }
        ejections.answer("a", now);
        // Fourteen times, less one for each thirty seconds.
        now += s(30 * 12);
        let ruling = ejections.fail(&a, peers(3, 3), &RULE, now);
        assert_eq!(ruling, Ruling::Ejected(s(90)));
        assert!(ejections.pass_checks("a") && ejections.answer("a", now));
        assert!(ejections.forget(Some(&RULE), now, |_| true).is_empty());
        assert_eq!(ejections.endpoints.len(), 1);
        assert!(
            ejections
                .forget(Some(&RULE), now + s(90), |_| true)
                .is_empty()
        );
        assert!(ejections.endpoints.is_empty());
    }

    #[test]
    fn the_last_one_and_those_above_the_share_stay() {
        for (all, percent, most) in [
            (1, 100, 0),
            (2, 100, 1),
            (2, 50, 1),
            (3, 50, 1),
            (3, 100, 2),
            (10, 50, 5),
            (10, 0, 1),
        ] {
            let rule = Eject {
                max_percent: percent,
                ..RULE
            };
            let mut ejections = Ejections::default();
            for n in 0..all {
                let healthy = all - ejections.ejected().count();
                ejections.fail(&n.to_string().into(), peers(all, healthy), &rule, s(0));
            }
            assert_eq!(ejections.ejected().count(), most, "{all} {percent}");
        }
        // Those that checks hold down leave no room either.
        let ruling = Ejections::default().fail(&"a".into(), peers(5, 1), &RULE, s(0));
        assert_eq!(ruling, Ruling::Last);
    }

    #[test]
    fn endpoints_that_are_gone_are_forgotten() {
        let mut ejections = Ejections::default();
        ejections.fail(&"a".into(), peers(3, 3), &RULE, s(0));
        ejections.fail(&"b".into(), peers(5, 3), &RULE, s(0));
        let dropped = ejections.forget(Some(&RULE), s(1), |name| name == "b");
        assert_eq!(dropped, ["a".into()]);
        assert!(ejections.is_ejected("b"));
        assert_eq!(ejections.forget(None, s(1), |_| true), ["b".into()]);
    }
}
