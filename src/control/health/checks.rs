//! Checks the endpoints of upstreams with `health`: a task for each endpoint, on the control thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use weir_config::INTERVAL_MIN;

use super::check_state::CheckState;
use super::check_target::CheckTarget;
use super::checker::Checker;
use crate::control::handover::HandedVerdict;
use crate::control::limits;
use crate::plan::{EndpointSets, Plan};
use crate::tls::{CheckTls, TlsClient};
use crate::upstream::EndpointHealth;

/// The names of an upstream and of an endpoint of it.
pub(super) type EndpointKey = (Arc<str>, Arc<str>);

/// The checks of all endpoints.
#[derive(Default)]
pub(super) struct Checks {
    shared: Rc<Shared>,
    upstreams: HashMap<Arc<str>, HashMap<Arc<str>, CheckedEndpoint>>,
}

/// What all checks share.
struct Shared {
    /// As many checks as may run at once, of endpoints that are down and of all others. Endpoints that hang are checked
    /// often and until the timeout, and must not hold up the checks of the others.
    permits_of_down: Semaphore,
    permits: Semaphore,
    changes: RefCell<Vec<HealthChange>>,
    /// `changes` has something.
    has_changes: Notify,
    /// A check has decided about an endpoint for the first time.
    has_decided: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            permits_of_down: Semaphore::new(limits::CHECKS_OF_DOWN_AT_ONCE_MAX),
            permits: Semaphore::new(limits::CHECKS_AT_ONCE_MAX),
            changes: RefCell::default(),
            has_changes: Notify::new(),
            has_decided: Notify::new(),
        }
    }
}

/// A verdict that checks have changed.
pub(super) struct HealthChange {
    pub(super) key: EndpointKey,
    pub(super) from: EndpointHealth,
    pub(super) to: EndpointHealth,
    /// Why the last check has failed.
    pub(super) failure: Option<Arc<str>>,
}

/// One endpoint and the task that checks it.
struct CheckedEndpoint {
    target: Rc<CheckTarget>,
    record: Rc<CheckRecord>,
    task: JoinHandle<()>,
}

impl Drop for CheckedEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the checks of one endpoint have shown.
pub(super) struct CheckRecord {
    state: Cell<CheckState>,
    failure: RefCell<Option<Arc<str>>>,
    /// It has joined others at run time and has not passed a check yet.
    is_unproven: Cell<bool>,
    /// A check has passed since this was last cleared.
    has_passed: Cell<bool>,
    /// How often it became healthy, and down.
    ups: Cell<u64>,
    downs: Cell<u64>,
    /// Begins the next check at once.
    is_wanted: Notify,
    tls: RefCell<Option<CheckTls>>,
}

impl CheckRecord {
    /// What the endpoint counts as. One that has joined others waits for its first good check, however many have failed:
    /// if it were down, it would get requests in a panic.
    pub(super) fn health(&self) -> EndpointHealth {
        match self.is_unproven.get() {
            true => EndpointHealth::Unknown,
            false => self.state.get().health(),
        }
    }

    /// Why the last check has failed; `None` if it has passed.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.failure.borrow().clone()
    }

    /// How often the endpoint became healthy, and down.
    pub(super) fn changes(&self) -> (u64, u64) {
        (self.ups.get(), self.downs.get())
    }
}

impl Checks {
    /// Begins the checks that `plan` has of `endpoints` and that do not run yet; those that are the same go on. `guess`
    /// returns the verdict of an endpoint that was not checked before, until its first check has decided. Returns the
    /// verdicts of the new ones.
    pub(super) fn begin(
        &mut self,
        (plan, endpoints): (&Plan, &EndpointSets),
        tls_of: impl Fn(usize) -> Option<Arc<TlsClient>>,
        guess: impl Fn(&str, &str) -> EndpointHealth,
    ) -> Vec<(EndpointKey, EndpointHealth)> {
        let mut begun = Vec::new();
        for (number, (upstream, set)) in plan.upstreams.iter().zip(endpoints.iter()).enumerate() {
            let Some(health) = &upstream.health else {
                continue;
            };
            let tls = tls_of(number);
            let only_http2 = matches!(health.check.kind, weir_config::CheckKind::Grpc(_));
            let tls = tls.map(|tls| tls.for_checks(only_http2));
            let known = self.upstreams.entry(upstream.name.clone()).or_default();
            for endpoint in &set.endpoints {
                let Some(target) = CheckTarget::new(upstream, endpoint) else {
                    continue;
                };
                let old = known.get(&endpoint.name);
                if let Some(same) = old.filter(|old| *old.target == target) {
                    same.record.tls.borrow_mut().clone_from(&tls);
                    continue;
                }
                let guessed = old.map_or_else(
                    || guess(&upstream.name, &endpoint.name),
                    |old| old.record.health(),
                );
                let key = (upstream.name.clone(), endpoint.name.clone());
                let new = CheckedEndpoint::begin(&self.shared, target, tls.clone(), &key, guessed);
                known.insert(endpoint.name.clone(), new);
                begun.push((key, guessed));
            }
        }
        begun
    }

    /// Takes over the verdicts of the process that this one replaces, before the first check has ended.
    pub(super) fn adopt(&self, verdicts: &[HandedVerdict]) {
        for verdict in verdicts {
            if let Some(record) = self.find(&verdict.upstream, &verdict.endpoint) {
                record.state.set(CheckState::decided(match verdict.is_up {
                    true => EndpointHealth::Up,
                    false => EndpointHealth::Down,
                }));
            }
        }
    }

    /// The verdicts of checks, for a process that replaces this one.
    pub(super) fn verdicts(&self) -> Vec<HandedVerdict> {
        let decided = |(upstream, endpoint, record): (&Arc<str>, &Arc<str>, &CheckRecord)| {
            let is_up = match record.health() {
                EndpointHealth::Up => true,
                EndpointHealth::Down => false,
                EndpointHealth::Unknown => return None,
            };
            Some(HandedVerdict {
                upstream: upstream.to_string(),
                endpoint: endpoint.to_string(),
                is_up,
            })
        };
        self.all().filter_map(decided).collect()
    }

    /// Ends the checks of endpoints that `endpoints` no longer has, or that `plan` does not check. Returns them.
    pub(super) fn end_others(&mut self, plan: &Plan, endpoints: &EndpointSets) -> Vec<EndpointKey> {
        let mut ended = Vec::new();
        let checked: HashMap<_, _> = plan
            .upstreams
            .iter()
            .zip(endpoints.iter())
            .filter(|(upstream, _)| upstream.health.is_some())
            .map(|(upstream, set)| {
                let names: HashSet<_> = set.endpoints.iter().map(|each| &*each.name).collect();
                (&*upstream.name, names)
            })
            .collect();
        for (upstream, known) in &mut self.upstreams {
            let names = checked.get(&**upstream);
            known.retain(|name, _| {
                let stays = names.is_some_and(|names| names.contains(&**name));
                if !stays {
                    ended.push((upstream.clone(), name.clone()));
                }
                stays
            });
        }
        self.upstreams.retain(|_, known| !known.is_empty());
        ended
    }

    /// Uses these certificates and keys for new connections of checks.
    pub(super) fn set_tls(&self, plan: &Plan, tls_of: impl Fn(usize) -> Option<Arc<TlsClient>>) {
        for (number, upstream) in plan.upstreams.iter().enumerate() {
            let (Some(health), Some(known)) =
                (&upstream.health, self.upstreams.get(&upstream.name))
            else {
                continue;
            };
            let only_http2 = matches!(health.check.kind, weir_config::CheckKind::Grpc(_));
            let tls = tls_of(number).map(|tls| tls.for_checks(only_http2));
            for endpoint in known.values() {
                endpoint.record.tls.borrow_mut().clone_from(&tls);
            }
        }
    }

    /// Waits until a check has decided about every endpoint, but no longer than a check may take. Endpoints without a
    /// verdict count as healthy from then on.
    pub(super) async fn wait_for_first(&self) {
        let all = || self.upstreams.values().flat_map(HashMap::values);
        let longest = all().map(|endpoint| endpoint.target.timeout()).max();
        let Some(longest) = longest else { return };
        let wait = async {
            while !all().all(|endpoint| endpoint.record.state.get().is_decided()) {
                self.shared.has_decided.notified().await;
            }
        };
        // A check that times out now is still a verdict.
        drop(timeout(longest + limits::FIRST_CHECKS_GRACE, wait).await);
        for endpoint in all() {
            endpoint.record.is_unproven.set(false);
            let state = &endpoint.record.state;
            if !state.get().is_decided() {
                state.set(CheckState::guessed(EndpointHealth::Up));
            }
        }
    }

    /// Brings the next check of an endpoint forward, because a request to it has failed.
    pub(super) fn check_soon(&self, upstream: &str, endpoint: &str) {
        if let Some(record) = self.find(upstream, endpoint) {
            record.is_wanted.notify_one();
        }
    }

    /// What the checks of an endpoint have shown; `None` if it has none.
    pub(super) fn find(&self, upstream: &str, endpoint: &str) -> Option<&CheckRecord> {
        let known = self.upstreams.get(upstream)?.get(endpoint)?;
        Some(&known.record)
    }

    /// All endpoints that are checked.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &CheckRecord)> {
        self.upstreams.iter().flat_map(|(upstream, known)| {
            known
                .iter()
                .map(move |(name, endpoint)| (upstream, name, &*endpoint.record))
        })
    }

    /// Whether a check of the endpoint has passed since the last call.
    pub(super) fn take_pass(&self, upstream: &str, endpoint: &str) -> bool {
        self.find(upstream, endpoint)
            .is_some_and(|record| record.has_passed.replace(false))
    }

    /// The verdicts that have changed since the last call.
    pub(super) fn take_changes(&self) -> Vec<HealthChange> {
        self.shared.changes.take()
    }

    /// Ends when there are changes.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + 'static {
        let shared = self.shared.clone();
        async move { shared.has_changes.notified().await }
    }
}

impl CheckedEndpoint {
    fn begin(
        shared: &Rc<Shared>,
        target: CheckTarget,
        tls: Option<CheckTls>,
        key: &EndpointKey,
        guess: EndpointHealth,
    ) -> Self {
        let target = Rc::new(target);
        let record = Rc::new(CheckRecord {
            state: Cell::new(CheckState::guessed(guess)),
            is_unproven: Cell::new(guess == EndpointHealth::Unknown),
            failure: RefCell::default(),
            has_passed: Cell::new(false),
            ups: Cell::new(0),
            downs: Cell::new(0),
            is_wanted: Notify::new(),
            tls: RefCell::new(tls),
        });
        let checks = check_endpoint(shared.clone(), target.clone(), record.clone(), key.clone());
        Self {
            target,
            record,
            task: tokio::task::spawn_local(checks),
        }
    }
}

/// Checks an endpoint for as long as the task lives.
async fn check_endpoint(
    shared: Rc<Shared>,
    target: Rc<CheckTarget>,
    record: Rc<CheckRecord>,
    key: EndpointKey,
) {
    let mut checker = Checker::new(target.clone());
    let rule = &target.plan.check;
    // Endpoints that begin together do not stay together.
    let mut spread = fastrand::f64();
    loop {
        let permits = match record.state.get().health() {
            EndpointHealth::Down => &shared.permits_of_down,
            _ => &shared.permits,
        };
        let Ok(permit) = permits.acquire().await else {
            return;
        };
        let begun = Instant::now();
        let tls = record.tls.borrow().clone();
        let outcome = checker.check(tls.as_ref()).await;
        drop(permit);
        let mut state = record.state.get();
        let (before, was_decided) = (state.health(), state.is_decided());
        let has_passed = outcome.is_ok();
        let has_changed = state.note(has_passed, rule);
        record.state.set(state);
        if state.health() == EndpointHealth::Up {
            record.is_unproven.set(false);
        }
        record.has_passed.set(record.has_passed.get() || has_passed);
        let failure: Option<Arc<str>> = outcome.err().map(Into::into);
        record.failure.borrow_mut().clone_from(&failure);
        if has_changed {
            let count = match state.health() {
                EndpointHealth::Down => &record.downs,
                _ => &record.ups,
            };
            count.set(count.get() + 1);
            shared.changes.borrow_mut().push(HealthChange {
                key: key.clone(),
                from: before,
                to: state.health(),
                failure,
            });
            shared.has_changes.notify_one();
        }
        if !was_decided {
            shared.has_decided.notify_one();
        }
        let pause = state.pause(rule, fastrand::f64()).mul_f64(spread.max(0.2));
        spread = 1.0;
        wait(&record, begun, pause.max(INTERVAL_MIN)).await;
    }
}

/// Waits until `pause` is over, or the next check is wanted.
async fn wait(record: &CheckRecord, begun: Instant, pause: Duration) {
    tokio::select! {
        () = sleep_until(begun + pause) => {}
        () = record.is_wanted.notified() => sleep_until(begun + INTERVAL_MIN).await,
    }
}
