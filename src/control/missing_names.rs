//! Endpoints' names that were not found: control looks them up again until they resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use weir_config::{Config, EndpointAddress};

use super::phrases::{count, seconds, summary};
use super::reload::Reloader;
use super::resolver::{ResolvedHosts, hosts};
use super::{Control, limits};
use crate::obs::{MetricKind, MetricsPage, process};

/// Names that were not found, and when to look them up again.
#[derive(Default)]
pub(super) struct MissingNames(BTreeMap<String, MissingName>);

struct MissingName {
    why: String,
    /// The addresses that the name had before. Its endpoints keep them.
    kept: Vec<IpAddr>,
    since: Instant,
    tries: u32,
    due: Instant,
}

/// A name that was missing and now resolves.
struct FoundName {
    host: String,
    addresses: Vec<IpAddr>,
    /// The addresses differ from those that its endpoints kept.
    is_new: bool,
    took: Duration,
}

impl MissingNames {
    /// The missing names among those that a start or a reload has looked up.
    pub(super) fn new(resolved: ResolvedHosts) -> Self {
        let mut names = Self::default();
        let now = Instant::now();
        for (host, resolved) in resolved.0 {
            if let Some(why) = resolved.failure {
                let missing = MissingName {
                    why,
                    kept: resolved.addresses,
                    since: now,
                    tries: 1,
                    due: now + backoff(1),
                };
                names.0.insert(host, missing);
            }
        }
        names
    }

    fn due(&self, now: Instant) -> BTreeSet<String> {
        let due = self.0.iter().filter(|(_, missing)| missing.due <= now);
        due.map(|(host, _)| host.clone()).collect()
    }

    /// Notes the outcome of another lookup. Returns the names that resolve now.
    fn take_found(&mut self, resolved: ResolvedHosts, now: Instant) -> Vec<FoundName> {
        let mut found = Vec::new();
        for (host, resolved) in resolved.0 {
            // A reload may have dropped the name meanwhile.
            let Some(missing) = self.0.get_mut(&host) else {
                continue;
            };
            if let Some(why) = resolved.failure {
                missing.tries += 1;
                missing.due = now + backoff(missing.tries);
                missing.why = why;
            } else if let Some(missing) = self.0.remove(&host) {
                found.push(FoundName {
                    host,
                    is_new: resolved.addresses != missing.kept,
                    addresses: resolved.addresses,
                    took: now - missing.since,
                });
            }
        }
        found
    }

    /// Adds one sample for each endpoint that is a name.
    pub(super) fn metrics(&self, config: &Config, page: &mut MetricsPage) {
        let help =
            "1 while the name of an endpoint is not found; Weir looks it up again and again.";
        page.family("weir_endpoint_unresolved", MetricKind::Gauge, help);
        for upstream in &config.upstreams {
            for endpoint in &upstream.endpoints {
                if let EndpointAddress::Name { host, .. } = &endpoint.address {
                    let name = endpoint.to_string();
                    let labels = [("upstream", &*upstream.name), ("endpoint", &*name)];
                    page.sample(&labels, self.0.contains_key(host).into());
                }
            }
        }
    }

    /// Adds one line for each missing name.
    pub(super) fn health(&self, out: &mut String) {
        let now = Instant::now();
        for (host, missing) in self.0.iter().take(limits::NAMES_SHOWN_MAX) {
            let (why, next) = (&missing.why, missing.due.saturating_duration_since(now));
            let next = next.as_secs();
            let tries = count(missing.tries as usize, "look-up");
            let _ = writeln!(
                out,
                "{host} is not found: {why} ({tries}, the next in {next} s)"
            );
        }
        if self.0.len() > limits::NAMES_SHOWN_MAX {
            let more = self.0.len() - limits::NAMES_SHOWN_MAX;
            let _ = writeln!(out, "{more} more names are not found");
        }
    }
}

/// The wait after so many failed lookups. It doubles, with jitter so that boxes that started together do not ask
/// together.
fn backoff(tries: u32) -> Duration {
    let doubled = limits::NAMES_RETRY.saturating_mul(1 << (tries - 1).min(16));
    doubled
        .min(limits::NAMES_RETRY_MAX)
        .mul_f64(0.75 + 0.5 * fastrand::f64())
}

impl Control {
    /// Looks up missing names again, until the process drains.
    pub(super) async fn watch_names(self: Rc<Self>, reloader: Rc<Reloader>) {
        while !self.draining.get() {
            sleep(limits::NAMES_WATCH).await;
            let due = self.state.borrow().missing_names.due(Instant::now());
            if due.is_empty() {
                continue;
            }
            let resolver = self.resolver.clone();
            let looked_up = tokio::task::spawn_blocking(move || resolver.look_up(&due));
            let Ok(resolved) = looked_up.await else {
                continue;
            };
            let mut state = self.state.borrow_mut();
            let found = state.missing_names.take_found(resolved, Instant::now());
            drop(state);
            for name in &found {
                let addresses: Vec<_> = name.addresses.iter().map(IpAddr::to_string).collect();
                process::info(format_args!(
                    "found {} after {}: {}",
                    name.host,
                    seconds(name.took),
                    addresses.join(", ")
                ));
            }
            if found.iter().any(|name| name.is_new) {
                reloader.request_endpoints();
            }
        }
    }

    /// Sends cores endpoints with the addresses that were found since the last ones. The [`Reloader`] calls it, never
    /// during a reload.
    pub(super) async fn refresh_endpoints(self: &Rc<Self>) {
        let _turn = self.turn.lock().await;
        let (config, resolver) = (self.state.borrow().config.clone(), self.resolver.clone());
        let compile = move || resolver.recall(&hosts(&config)).endpoints(&config);
        let endpoints = match tokio::task::spawn_blocking(compile).await {
            Ok(Ok(endpoints)) => endpoints,
            Ok(Err(problems)) => {
                for problem in problems {
                    process::error(format_args!(
                        "cannot use the names that were found: {problem}"
                    ));
                }
                return;
            }
            Err(_) => return,
        };
        if self.draining.get() {
            return;
        }
        let overrides = self.state.borrow().overrides.clone();
        self.use_endpoints(Arc::new(endpoints), overrides).await;
        let state = self.state.borrow();
        process::info(summary(&state.plan, &state.endpoints));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_lookups_back_off_with_jitter() {
        for (tries, seconds) in [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (40, 60.0)] {
            let pause = backoff(tries).as_secs_f64();
            assert!(
                (seconds * 0.74..seconds * 1.26).contains(&pause),
                "{tries}: {pause}"
            );
        }
    }
}
