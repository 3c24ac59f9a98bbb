//! The health of endpoints: takes the verdicts of checks and the reports of cores, decides which endpoints are ejected, and
//! posts the statuses that all cores read.

mod check_state;
mod check_target;
mod checker;
mod checks;
mod ejection;
mod grpc_health;
mod http1_connection;
mod success_rate;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use weir_config::Eject;

use checks::{CheckRecord, Checks, EndpointKey, HealthChange};
use success_rate::{Tally, find_failing};

use super::handover::HandedVerdict;
use super::{Control, State, limits};
use crate::obs::{CoreReport, EjectionCause, MetricKind, MetricsPage, process};
use crate::plan::{EndpointSet, EndpointSets, EndpointState, Plan};
use crate::tls::TlsClient;
use crate::upstream::{EndpointHealth, EndpointStatus, UpstreamRegistry};

pub use ejection::{Ejections, Peers, Ruling};

/// The verdicts and ejections of all endpoints, by upstream. A reload keeps them.
pub(super) struct Health {
    upstreams: HashMap<Arc<str>, UpstreamHealth>,
    /// The moment from which the ejections count.
    began: Instant,
    ejections: BTreeMap<(Arc<str>, Arc<str>, String), u64>,
    /// When shares of good answers were last taken.
    rated_at: Instant,
    checks: Checks,
}

/// The verdicts and ejections of one upstream's endpoints.
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
            checks: Checks::default(),
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
        let waits = |name: &str| self.verdicts.get(name) == Some(&EndpointHealth::Unknown);
        let eligible = set.endpoints.iter().filter(|endpoint| {
            endpoint.state == EndpointState::Ready
                && endpoint.weight > 0
                && !endpoint.backup
                // It waits for its first good check.
                && !waits(&endpoint.name)
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
    /// Begins the checks of a start, and waits for the first of them. `known` has the verdicts of the process that this one replaces.
    pub(super) async fn start(
        plan: &Plan,
        endpoints: &EndpointSets,
        known: &[HandedVerdict],
    ) -> Self {
        let mut health = Self::default();
        let tls_of = |number: usize| plan.upstreams.get(number)?.tls.clone();
        let nothing = |_: &str, _: &str| EndpointHealth::Unknown;
        health.checks.begin((plan, endpoints), tls_of, nothing);
        health.checks.adopt(known);
        health.checks.wait_for_first().await;
        health
    }

    /// The verdicts of checks, for a process that replaces this one.
    pub(super) fn verdicts(&self) -> Vec<HandedVerdict> {
        self.checks.verdicts()
    }

    /// Posts the verdicts of the first checks.
    pub(super) fn post_first(&mut self, registry: &UpstreamRegistry) {
        self.apply_verdicts(registry);
        let all = self.checks.all();
        let guessed: Vec<_> = all
            .map(|(upstream, name, record)| ((upstream.clone(), name.clone()), record.health()))
            .collect();
        self.note_verdicts(registry, guessed);
    }

    /// Begins the checks of a new plan or of new endpoints, before cores have them. Endpoints of `old` that had no checks
    /// count as healthy until their first check has decided; new ones get nothing before it.
    pub(super) fn begin_checks(
        &mut self,
        registry: &UpstreamRegistry,
        new: (&Plan, &EndpointSets),
        old: (&Plan, &EndpointSets),
        tls_of: impl Fn(usize) -> Option<Arc<TlsClient>>,
    ) {
        let guess = |upstream: &str, endpoint: &str| {
            let mut all = old.0.upstreams.iter().zip(old.1.iter());
            let is_old = all.any(|(plan, set)| {
                let mut names = set.endpoints.iter().map(|each| &*each.name);
                *plan.name == *upstream && names.any(|name| name == endpoint)
            });
            match is_old {
                true => EndpointHealth::Up,
                false => EndpointHealth::Unknown,
            }
        };
        let begun = self.checks.begin(new, tls_of, guess);
        self.note_verdicts(registry, begun);
    }

    /// Ends the checks that a plan and its endpoints no longer have, once cores have them.
    pub(super) fn end_checks(
        &mut self,
        registry: &UpstreamRegistry,
        plan: &Plan,
        endpoints: &EndpointSets,
    ) {
        for (upstream, endpoint) in self.checks.end_others(plan, endpoints) {
            if let Some(known) = self.upstreams.get_mut(&upstream) {
                known.verdicts.remove(&endpoint);
            }
            self.post(registry, &upstream, &endpoint);
        }
    }

    /// Uses these certificates and keys, by upstream, for new connections of checks.
    pub(super) fn renew_tls(&self, plan: &Plan, clients: &[Option<Arc<TlsClient>>]) {
        let tls_of = |number: usize| clients.get(number).cloned().flatten();
        self.checks.set_tls(plan, tls_of);
    }

    fn note_verdicts(
        &mut self,
        registry: &UpstreamRegistry,
        verdicts: Vec<(EndpointKey, EndpointHealth)>,
    ) {
        for ((upstream, endpoint), health) in verdicts {
            let known = self.upstreams.entry(upstream.clone()).or_default();
            known.verdicts.insert(endpoint.clone(), health);
            self.post(registry, &upstream, &endpoint);
        }
    }

    /// Posts and logs the verdicts that checks have changed. Returns whether there were any.
    fn apply_verdicts(&mut self, registry: &UpstreamRegistry) -> bool {
        let changes = self.checks.take_changes();
        let has_changed = !changes.is_empty();
        for HealthChange {
            key: (upstream, endpoint),
            from,
            to,
            failure,
        } in changes
        {
            // The endpoint may have gone meanwhile.
            let Some(health) = self
                .checks
                .find(&upstream, &endpoint)
                .map(CheckRecord::health)
            else {
                continue;
            };
            let name = format_args!("endpoint {endpoint} of upstream {upstream}");
            match (to, failure) {
                (EndpointHealth::Down, Some(why)) => {
                    process::warn(format_args!("{name} is down: {why}"));
                }
                (EndpointHealth::Up, _) if from == EndpointHealth::Down => {
                    process::info(format_args!("{name} passes its checks and is in use again"));
                }
                _ => {}
            }
            self.note_verdicts(registry, vec![((upstream, endpoint), health)]);
        }
        has_changed
    }

    /// Why the last check of an endpoint has failed; `None` if it has passed or there was none.
    pub(super) fn failure(&self, upstream: &str, endpoint: &str) -> Option<Arc<str>> {
        self.checks.find(upstream, endpoint)?.failure()
    }

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
                // Only a check that passes from now on counts.
                self.checks.take_pass(upstream, endpoint);
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
        let help = "Changes of the verdict of checks of an endpoint, by what it became.";
        let name = "weir_endpoint_health_changes_total";
        page.family(name, MetricKind::Counter, help);
        for (upstream, endpoint, record) in self.checks.all() {
            let (ups, downs) = record.changes();
            for (to, count) in [("up", ups), ("down", downs)] {
                let labels = [
                    ("upstream", &**upstream),
                    ("endpoint", &**endpoint),
                    ("to", to),
                ];
                page.sample(&labels, count);
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
            let changed = self.state.borrow().health.checks.changed();
            tokio::select! {
                () = sleep(limits::HEALTH_WATCH) => {}
                () = changed => {}
            }
            let has_changed =
                (self.state.borrow_mut().health).apply_verdicts(self.cores.upstreams());
            if has_changed {
                self.cores.ring_all();
            }
            self.handle_reports();
            self.rate_endpoints();
            self.end_ejections();
        }
    }

    /// Obeys or logs what cores have reported since the last call.
    pub(super) fn handle_reports(&self) {
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
                CoreReport::EndpointSuspect { upstream, endpoint } => {
                    self.state
                        .borrow()
                        .health
                        .checks
                        .check_soon(upstream, endpoint);
                }
                CoreReport::ListenFailed { .. }
                | CoreReport::EndpointTlsFailed { .. }
                | CoreReport::CircuitOpened { .. }
                | CoreReport::CircuitClosed { .. } => {
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
            let ejected: Vec<_> = known.ejections.ejected().cloned().collect();
            for endpoint in ejected {
                if state.health.checks.take_pass(upstream, &endpoint)
                    && known.ejections.pass_checks(&endpoint)
                {
                    process::info(format_args!(
                        "endpoint {endpoint} of upstream {upstream} passes its check and is tried again"
                    ));
                    changed.push((upstream.clone(), endpoint));
                }
            }
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
