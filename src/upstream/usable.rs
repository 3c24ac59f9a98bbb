//! Which endpoints of an upstream may get requests, and with which weights: priorities, backups, panic, slow start.
//!
//! A pure function of the endpoints' settings and statuses. It runs when one of them changes, never for a request. Cores,
//! the admin API, metrics and `weir explain` call it, so they cannot differ.

use std::time::Duration;

use super::balance::stable_hash;
use super::endpoint_status::{EndpointHealth, EndpointStatus};
use crate::plan::{EndpointSpec, EndpointState};

/// How much healthier than needed a priority may be before it shares its load: Envoy's overprovisioning factor, in
/// percent. A priority overflows once less than 100 / 140 = 72 % of its endpoints are healthy.
const OVERPROVISIONING_PERCENT: u64 = 140;

/// The least share of its weight that an endpoint gets during slow start, per mille.
const RAMP_FLOOR: u64 = 100;

/// The parts that a full weight has, so that ramps and overflow do not round small weights to nothing.
const WEIGHT_UNIT: u64 = 1_000;

/// What decides whether an endpoint is usable.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its settings.
    pub spec: &'a EndpointSpec,
    /// What control has decided.
    pub status: EndpointStatus,
    /// Control checks it, so it gets nothing before its first check has passed.
    pub is_checked: bool,
    /// For how long it has been usable; `None` for an endpoint that needs no slow start.
    pub usable_for: Option<Duration>,
}

/// An endpoint that may get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsableEndpoint {
    /// Its number in the upstream.
    pub index: u32,
    /// Its share of requests in proportion to the others', above 0.
    pub weight: u64,
    /// The hash of its name.
    pub hash: u64,
}

/// The endpoints of an upstream that may get requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsableEndpoints {
    /// Those that may, in the order of their priorities, then of the file.
    pub endpoints: Vec<UsableEndpoint>,
    /// Too few are healthy, so health is ignored.
    pub is_panic: bool,
    /// Weights of endpoints in slow start change with time.
    pub is_ramping: bool,
}

/// Why an endpoint gets no requests now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It drains: its weight is 0 or its state is `drain`.
    Draining,
    /// It is under maintenance.
    Maintenance,
    /// It fails its checks.
    Down,
    /// Its first check has not decided yet.
    Unchecked,
    /// Failed requests have ejected it.
    Ejected,
    /// Enough endpoints of a higher priority are healthy, or it is a backup.
    Spare,
}

impl Unusable {
    /// The word for it in metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Ejected => "ejected",
            Self::Spare => "spare",
        }
    }
}

impl Candidate<'_> {
    /// Why the endpoint's own settings and status keep requests away; `None` if they do not.
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        match self.spec.state {
            EndpointState::Drain => return Some(Unusable::Draining),
            EndpointState::Maintenance => return Some(Unusable::Maintenance),
            EndpointState::Ready if self.spec.weight == 0 => return Some(Unusable::Draining),
            EndpointState::Ready => {}
        }
        if self.status.health == EndpointHealth::Down {
            return Some(Unusable::Down);
        }
        if self.is_unchecked() {
            return Some(Unusable::Unchecked);
        }
        self.status.is_ejected.then_some(Unusable::Ejected)
    }

    /// Whether clients whose session it has may still use it. A drained endpoint keeps them until they are done.
    pub(super) fn keeps_sessions(&self) -> bool {
        self.spec.state != EndpointState::Maintenance
            && self.status.is_healthy()
            && !self.is_unchecked()
    }

    /// Whether it may get requests in a panic: neither checks nor failed requests count.
    fn is_eligible(&self) -> bool {
        self.is_ready() && !self.is_unchecked()
    }

    /// Whether the administrator lets it have requests.
    fn is_ready(&self) -> bool {
        self.spec.weight > 0 && self.spec.state == EndpointState::Ready
    }

    /// Whether it waits for its first check.
    fn is_unchecked(&self) -> bool {
        self.is_checked && self.status.health == EndpointHealth::Unknown
    }

    fn is_healthy(&self) -> bool {
        self.is_eligible() && self.status.is_healthy()
    }

    /// Its weight, and whether it changes with time.
    fn weight(&self, slow_start: Option<Duration>) -> (u64, bool) {
        let full = u64::from(self.spec.weight) * WEIGHT_UNIT;
        if self.status.is_on_trial {
            return (full * RAMP_FLOOR / 1_000, false);
        }
        let ramp = self.usable_for.zip(slow_start);
        let Some((age, ramp)) = ramp.filter(|(age, ramp)| age < ramp) else {
            return (full, false);
        };
        let share = (age.as_millis() * 1_000 / ramp.as_millis().max(1)) as u64;
        (full * share.max(RAMP_FLOOR) / 1_000, true)
    }
}

/// Endpoints of one priority.
struct Priority {
    number: u32,
    eligible: u64,
    healthy: u64,
    /// Its share of the load, per mille.
    load: u64,
}

impl UsableEndpoints {
    /// Finds the endpoints that may get requests. `panic_percent` is the share of healthy endpoints below which health
    /// is ignored, if no priority has it; 0 never ignores it.
    #[must_use]
    pub fn select(
        candidates: &[Candidate<'_>],
        slow_start: Option<Duration>,
        panic_percent: u32,
    ) -> Self {
        let mut priorities = priorities_of(candidates);
        let healthy: u64 = priorities.iter().map(|each| each.healthy).sum();
        let is_healthy_backup = |each: &Candidate<'_>| each.spec.backup && each.is_healthy();
        if healthy == 0 && candidates.iter().any(is_healthy_backup) {
            return Self::collect(candidates, slow_start, |each| {
                u64::from(is_healthy_backup(each))
            });
        }
        let has_enough =
            |each: &Priority| each.healthy * 100 >= u64::from(panic_percent) * each.eligible;
        let eligible: u64 = priorities.iter().map(|each| each.eligible).sum();
        if panic_percent > 0
            && (healthy == 0
                || !priorities
                    .iter()
                    .any(|each| each.healthy > 0 && has_enough(each)))
        {
            // With no other endpoint at all, backups are better than none.
            let mut panic = Self::collect(candidates, slow_start, |each| {
                u64::from(each.is_eligible() && (eligible == 0 || !each.spec.backup))
            });
            if panic.endpoints.is_empty() {
                panic = Self::collect(candidates, slow_start, |each| u64::from(each.is_ready()));
            }
            panic.is_panic = !panic.endpoints.is_empty();
            return panic;
        }
        share_load(&mut priorities);
        if let [_] = &priorities[..] {
            return Self::collect(candidates, slow_start, |each| {
                u64::from(each.is_healthy() && !each.spec.backup)
            });
        }
        Self::collect_shared(candidates, slow_start, &priorities)
    }

    /// The healthy endpoints of several priorities. Each priority gets its share of the load, and its endpoints divide that
    /// by their weights.
    fn collect_shared(
        candidates: &[Candidate<'_>],
        slow_start: Option<Duration>,
        priorities: &[Priority],
    ) -> Self {
        let sums: Vec<u64> = priorities
            .iter()
            .map(|priority| {
                let members = candidates
                    .iter()
                    .filter(|each| !each.spec.backup && each.spec.priority == priority.number);
                members
                    .filter(|each| each.is_healthy())
                    .map(|each| each.weight(slow_start).0)
                    .sum()
            })
            .collect();
        let total: u64 = sums.iter().sum();
        Self::collect(candidates, slow_start, |each| {
            let at = priorities
                .iter()
                .position(|one| one.number == each.spec.priority);
            let found = at.and_then(|at| Some((priorities.get(at)?, sums.get(at)?)));
            match found {
                Some((priority, sum)) if each.is_healthy() && !each.spec.backup => {
                    priority.load * total / sum.max(&1)
                }
                _ => 0,
            }
        })
    }

    /// The endpoints whose weight times `factor` is above 0, by priority.
    fn collect(
        candidates: &[Candidate<'_>],
        slow_start: Option<Duration>,
        factor: impl Fn(&Candidate<'_>) -> u64,
    ) -> Self {
        let mut found = Self::default();
        let mut order: Vec<_> = candidates.iter().zip(0u32..).collect();
        order.sort_by_key(|(each, _)| (each.spec.backup, each.spec.priority));
        for (each, index) in order {
            let factor = factor(each);
            if factor == 0 {
                continue;
            }
            let (weight, is_ramping) = each.weight(slow_start);
            found.is_ramping |= is_ramping;
            found.endpoints.push(UsableEndpoint {
                index,
                weight: (weight * factor).max(1),
                hash: stable_hash(each.spec.name.as_bytes()),
            });
        }
        reduce(&mut found.endpoints);
        found
    }
}

/// The priorities of endpoints that are no backups, the first first.
fn priorities_of(candidates: &[Candidate<'_>]) -> Vec<Priority> {
    let mut priorities: Vec<Priority> = Vec::new();
    for each in candidates
        .iter()
        .filter(|each| !each.spec.backup && each.is_eligible())
    {
        let number = each.spec.priority;
        let at = match priorities.binary_search_by_key(&number, |one| one.number) {
            Ok(at) => at,
            Err(at) => {
                let new = Priority {
                    number,
                    eligible: 0,
                    healthy: 0,
                    load: 0,
                };
                priorities.insert(at, new);
                at
            }
        };
        if let Some(priority) = priorities.get_mut(at) {
            priority.eligible += 1;
            priority.healthy += u64::from(each.is_healthy());
        }
    }
    priorities
}

/// Gives each priority the load that it can carry and those before it cannot.
fn share_load(priorities: &mut [Priority]) {
    let strength = |each: &Priority| {
        (each.healthy * OVERPROVISIONING_PERCENT * 10 / each.eligible.max(1)).min(1_000)
    };
    let all: u64 = priorities.iter().map(strength).sum();
    // If all together are too weak, they share the whole load in proportion.
    let whole = all.clamp(1, 1_000);
    let mut left = 1_000;
    for priority in priorities {
        priority.load = (strength(priority) * 1_000 / whole).min(left);
        left -= priority.load;
    }
}

/// Divides all weights by what divides them all, so that equal weights stay 1.
fn reduce(endpoints: &mut [UsableEndpoint]) {
    let divisor = endpoints.iter().fold(0, |all, each| gcd(all, each.weight));
    for each in endpoints {
        each.weight /= divisor.max(1);
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
