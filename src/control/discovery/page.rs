//! The metrics of names and sources, and their lines of `/healthz?verbose`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use weir_config::Config;

use super::records::Failure;
use super::resolver::{Resolver, host};
use crate::control::limits;
use crate::control::phrases::count;
use crate::obs::{MetricKind, MetricsPage};

impl Resolver {
    /// Adds the samples of names and sources.
    pub(in crate::control) fn metrics(&self, config: &Config, page: &mut MetricsPage) {
        let help =
            "1 while the name of an endpoint is not found; Weir looks it up again and again.";
        page.family("weir_endpoint_unresolved", MetricKind::Gauge, help);
        self.with(|memory| {
            for upstream in &config.upstreams {
                for endpoint in &upstream.endpoints {
                    let Some(host) = host(endpoint) else { continue };
                    let name = endpoint.to_string();
                    let labels = [("upstream", &*upstream.name), ("endpoint", &*name)];
                    let known = memory.names.get(host);
                    let fails = known.is_some_and(|known| known.failure.is_some());
                    page.sample(&labels, fails.into());
                }
            }
            let help = "Endpoints in the last good answer of a source.";
            page.family("weir_discovery_endpoints", MetricKind::Gauge, help);
            for upstream in &config.upstreams {
                for source in &upstream.sources {
                    let name = source.kind.to_string();
                    let known = memory.sources.get(&name);
                    let found = known.and_then(|known| known.record.good.as_ref());
                    let found = found.map_or(0, |found| found.len() as u64);
                    page.sample(&[("upstream", &*upstream.name), ("source", &*name)], found);
                }
            }
            let help = "Questions to a source of endpoints, or lookups of a name, that failed and changed nothing.";
            page.family("weir_discovery_failures_total", MetricKind::Counter, help);
            for upstream in &config.upstreams {
                let mut hosts: BTreeSet<_> = upstream.endpoints.iter().filter_map(host).collect();
                for source in &upstream.sources {
                    let name = source.kind.to_string();
                    let known = memory.sources.get(&name);
                    let failures = known.map_or(0, |known| known.record.failures);
                    page.sample(&[("upstream", &*upstream.name), ("source", &*name)], failures);
                    let found = known.and_then(|known| known.record.good.as_ref());
                    let found = found.into_iter().flat_map(|found| found.iter());
                    hosts.extend(found.filter_map(host));
                }
                for host in hosts {
                    let failures = memory.names.get(host).map_or(0, |known| known.failures);
                    let name = format!("dns:{host}");
                    page.sample(&[("upstream", &*upstream.name), ("source", &*name)], failures);
                }
            }
        });
    }

    /// Adds one line for each name or source that fails.
    pub(in crate::control) fn health(&self, config: &Config, out: &mut String) {
        let now = Instant::now();
        let wanted = self.wanted(config);
        let failing = self.with(|memory| {
            let hosts = wanted.hosts.iter().filter_map(|host| {
                let known = memory.names.get(host)?;
                let failure = known.failure.clone()?;
                let what = format!("{host} is not found");
                Some((what, failure, known.due_in(now)))
            });
            let sources = wanted.sources.keys().filter_map(|name| {
                let known = &memory.sources.get(name)?.record;
                let failure = known.failure.clone()?;
                let what = format!("{name} gives no endpoints");
                Some((what, failure, known.due_in(now)))
            });
            hosts.chain(sources).collect::<Vec<_>>()
        });
        for (what, Failure { why, tries, .. }, next) in failing.iter().take(limits::NAMES_SHOWN_MAX)
        {
            let (tries, next) = (count(*tries as usize, "look-up"), next.as_secs());
            let _ = writeln!(out, "{what}: {why} ({tries}, the next in {next} s)");
        }
        let more = failing.len().saturating_sub(limits::NAMES_SHOWN_MAX);
        if more > 0 {
            let _ = writeln!(out, "{more} more names and sources are not found");
        }
    }
}
