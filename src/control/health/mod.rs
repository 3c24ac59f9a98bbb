//! The health of endpoints: hears what cores report, decides which endpoints are ejected, and posts the statuses that all
//! cores follow.

mod ejection;
mod success_rate;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use weir_config::Eject;

pub use ejection::{Ejections, Peers, Ruling};
use success_rate::{Tally, find_failing};

use super::{Control, State, limits};
use crate::obs::{CoreReport, EjectionCause, MetricKind, MetricsPage, process};
use crate::plan::{EndpointSet, EndpointState};
use crate::upstream::{EndpointHealth, EndpointStatus, UpstreamRegistry};

/// What control knows of the health of endpoints, by upstream. A reload keeps it.
pub(super) struct Health {
    upstreams: HashMap<Arc<str>, UpstreamHealth>,
    /// The moment from which the ejections count.
    began: Instant,
    ejections: BTreeMap<(Arc<str>, Arc<str>, String), u64>,
    /// When shares of good answers were last taken.
    rated_at: Instant,
}

/// What control knows of one upstream.
#[derive(Default)]
struct UpstreamHealth {
    ejections: Ejections,
    /// The verdicts of checks.
    verdicts: HashMap<Arc<str>, EndpointHealth>,
    /// The outcomes of each endpoint when shares were last taken.
    rated: HashMap<Arc<str>, (u64, u64)>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            upstreams: HashMap::new(),
            began: Instant::now(),
            ejections: BTreeMap::new(),
            rated_at: Instant::now(),
        }
    }
}

impl UpstreamHealth {
    fn status(&self, endpoint: &str) -> EndpointStatus {
        EndpointStatus {
            health: self.verdicts.get(endpoint).copied().unwrap_or_default(),
            is_ejected: self.ejections.is_ejected(endpoint),
            is_on_trial: self.ejections.is_on_trial(endpoint),
        }
    }

    fn peers(&self, set: &EndpointSet) -> Peers {
        let eligible = set.endpoints.iter().filter(|endpoint| {
            endpoint.state == EndpointState::Ready && endpoint.weight > 0 && !endpoint.backup
        });
        let all: Vec<_> = eligible.map(|endpoint| &endpoint.name).collect();
        Peers {
            all: all.len(),
            healthy: all
                .iter()
                .filter(|name| self.status(name).is_healthy())
                .count(),
        }
    }
}

impl Health {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn post(&self, registry: &UpstreamRegistry, upstream: &Arc<str>, endpoint: &Arc<str>) {
        let status = self.upstreams.get(upstream);
        let status = status.map_or_else(EndpointStatus::default, |known| known.status(endpoint));
        registry.set_status(upstream, endpoint, status);
    }

    /// Decides about an endpoint that fails.
    fn fail(
        &mut self,
        registry: &UpstreamRegistry,
        (upstream, set, rule): (&Arc<str>, &EndpointSet, &Eject),
        endpoint: &Arc<str>,
        cause: EjectionCause,
    ) {
        let now = self.now();
        let known = self.upstreams.entry(upstream.clone()).or_default();
        let peers = known.peers(set);
        let why = match cause {
            EjectionCause::Fault(kind) => format!("requests fail ({})", kind.word()),
            EjectionCause::Status(status) => format!("it answers {status}"),
            EjectionCause::SuccessRate => "too few of its answers are good".to_owned(),
        };
        let name = format_args!("endpoint {endpoint} of upstream {upstream}");
        match known.ejections.fail(endpoint, peers, rule, now) {
            Ruling::Ejected(lasts) => {
                let key = (upstream.clone(), endpoint.clone(), cause.to_string());
                *self.ejections.entry(key).or_default() += 1;
                process::warn(format_args!(
                    "{name} is ejected for {} s: {why}",
                    lasts.as_secs_f64()
                ));
            }
            Ruling::AlreadyEjected | Ruling::Last => {}
            Ruling::TooMany => process::warn(format_args!(
                "{name} stays although {why}: as many as `eject.max` allows are ejected"
            )),
        }
        // Also if nothing has changed: the core that has reported waits for an answer.
        self.post(registry, upstream, endpoint);
    }

    /// Adds the samples of ejections.
    pub(super) fn metrics(&self, page: &mut MetricsPage) {
        let help = "1 while failed requests keep an endpoint out of use.";
        page.family("weir_endpoint_ejected", MetricKind::Gauge, help);
        for (upstream, known) in &self.upstreams {
            for endpoint in known.ejections.ejected() {
                page.sample(&[("upstream", upstream), ("endpoint", endpoint)], 1);
            }
        }
        let help = "Ejections of an endpoint, by the last failure before.";
        page.family("weir_endpoint_ejections_total", MetricKind::Counter, help);
        for ((upstream, endpoint, cause), count) in &self.ejections {
            let labels = [
                ("upstream", &**upstream),
                ("endpoint", &**endpoint),
                ("cause", cause),
            ];
            page.sample(&labels, *count);
        }
    }
}

impl State {
    /// The name, the endpoints and the ejection rule of an upstream.
    fn ejection_rule(&self, upstream: &str) -> Option<(Arc<str>, Arc<EndpointSet>, Eject)> {
        let mut upstreams = self.plan.upstreams.iter().zip(self.endpoints.iter());
        let (plan, set) = upstreams.find(|(plan, _)| *plan.name == *upstream)?;
        Some((plan.name.clone(), set.clone(), plan.eject?))
    }
}

impl Control {
    /// Obeys what cores report, and ends ejections, for as long as the process lives.
    pub(super) async fn watch_health(self: Rc<Self>) {
        loop {
            sleep(limits::HEALTH_WATCH).await;
            self.hear_reports();
            self.rate_endpoints();
            self.end_ejections();
        }
    }

    /// Obeys or logs what cores have reported since the last call.
    pub(super) fn hear_reports(&self) {
        let registry = self.cores.upstreams();
        let mut has_changed = false;
        for report in self.obs.take_reports() {
            match &report {
                CoreReport::EndpointFailing {
                    upstream,
                    endpoint,
                    cause,
                } => {
                    let state = &mut *self.state.borrow_mut();
                    has_changed = true;
                    match state.ejection_rule(upstream) {
                        Some((upstream, set, rule)) => {
                            let rule = (&upstream, &*set, &rule);
                            state.health.fail(registry, rule, endpoint, *cause);
                        }
                        None => state.health.post(registry, upstream, endpoint),
                    }
                }
                CoreReport::EndpointAnswers { upstream, endpoint } => {
                    let health = &mut self.state.borrow_mut().health;
                    let now = health.now();
                    let known = health.upstreams.get_mut(upstream);
                    if known.is_some_and(|known| known.ejections.answer(endpoint, now)) {
                        health.post(registry, upstream, endpoint);
                        has_changed = true;
                        process::info(format_args!(
                            "endpoint {endpoint} of upstream {upstream} answers and is in use again"
                        ));
                    }
                }
                CoreReport::EndpointSuspect { .. } => {}
                CoreReport::ListenFailed { .. }
                | CoreReport::EndpointTlsFailed { .. }
                | CoreReport::CircuitOpened { .. } => {
                    process::say(report.level(), report);
                }
            }
        }
        if has_changed {
            self.cores.ring_all();
        }
    }

    /// Ejects endpoints whose share of good answers is too low.
    fn rate_endpoints(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.health.rated_at.elapsed() < limits::SUCCESS_RATE_WINDOW {
            return;
        }
        state.health.rated_at = Instant::now();
        let registry = self.cores.upstreams();
        let mut has_changed = false;
        for (plan, set) in state.plan.upstreams.iter().zip(state.endpoints.iter()) {
            let Some((rule, share)) = plan.eject.and_then(|rule| Some((rule, rule.success_rate?)))
            else {
                continue;
            };
            let now = self.obs.outcomes(&plan.name);
            let known = state.health.upstreams.entry(plan.name.clone()).or_default();
            let before = std::mem::replace(&mut known.rated, now.clone());
            let tally = |name: &Arc<str>| {
                let (good, bad) = now.get(name).copied().unwrap_or_default();
                let (good_before, bad_before) = before.get(name).copied().unwrap_or_default();
                Tally {
                    good: good.saturating_sub(good_before),
                    bad: bad.saturating_sub(bad_before),
                }
            };
            let endpoints: Vec<_> = set.endpoints.iter().map(|each| &each.name).collect();
            let tallies: Vec<_> = endpoints.iter().map(|name| tally(name)).collect();
            for at in find_failing(&tallies, share) {
                let Some(endpoint) = endpoints.get(at) else {
                    continue;
                };
                let rule = (&plan.name, &**set, &rule);
                let cause = EjectionCause::SuccessRate;
                state.health.fail(registry, rule, endpoint, cause);
                has_changed = true;
            }
        }
        if has_changed {
            self.cores.ring_all();
        }
    }

    /// Puts endpoints on trial whose ejection is over, and forgets those that are gone.
    fn end_ejections(&self) {
        let state = &mut *self.state.borrow_mut();
        let registry = self.cores.upstreams();
        let now = state.health.now();
        let mut changed = Vec::new();
        for (upstream, known) in &mut state.health.upstreams {
            let ended = known.ejections.end_due(now);
            for endpoint in &ended {
                process::info(format_args!(
                    "endpoint {endpoint} of upstream {upstream} is tried again after its ejection"
                ));
            }
            let mut upstreams = state.plan.upstreams.iter().zip(state.endpoints.iter());
            let found = upstreams.find(|(plan, _)| plan.name == *upstream);
            let has = |name: &str| {
                found.is_some_and(|(_, set)| set.endpoints.iter().any(|each| *each.name == *name))
            };
            let rule = found.and_then(|(plan, _)| plan.eject.as_ref());
            let gone = known.ejections.forget(rule, now, has);
            changed.extend(
                ended
                    .into_iter()
                    .chain(gone)
                    .map(|endpoint| (upstream.clone(), endpoint)),
            );
        }
        for (upstream, endpoint) in &changed {
            state.health.post(registry, upstream, endpoint);
        }
        if !changed.is_empty() {
            self.cores.ring_all();
        }
    }
}
