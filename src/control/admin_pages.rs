//! The pages of the admin listener: metrics, health and the running plan.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::endpoint_metrics::endpoint_metrics;
use super::phrases::summary;
use super::{Control, State, system};
use crate::io::Address;
use crate::obs::{MetricKind, MetricsPage, text};
use crate::plan::{ListenerTarget, Plan, RouteTarget};
use crate::policy::limit::{LimitCounts, LimitRegistry};
use crate::shared::{AtomicU64, Ordering};

/// The page of metrics. `length` is that of the last page, to allocate once.
pub(super) fn metrics(control: &Control, length: usize) -> String {
    let mut page = MetricsPage::with_capacity(length + length / 16);
    let state = control.state.borrow();
    page.family(
        "weir_build_info",
        MetricKind::Gauge,
        "The version that is running.",
    );
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family(
        "weir_draining",
        MetricKind::Gauge,
        "1 while draining before the end.",
    );
    page.sample(&[], u64::from(control.draining.get()));
    page.family("weir_cores", MetricKind::Gauge, "Cores that serve.");
    page.sample(&[], control.cores.count() as u64);
    page.family(
        "weir_plan_epoch",
        MetricKind::Gauge,
        "The number of the plan that is running; each reload adds one.",
    );
    page.sample(&[], state.plan.epoch);
    page.family(
        "weir_endpoints_epoch",
        MetricKind::Gauge,
        "The number of the endpoint sets in use; each reload adds one, and so do names that are found.",
    );
    page.sample(&[], state.endpoints.epoch);
    page.family(
        "weir_reload_total",
        MetricKind::Counter,
        "Reloads that took effect.",
    );
    page.sample(&[], state.reloads.done);
    page.family(
        "weir_reload_failed_total",
        MetricKind::Counter,
        "Reloads that were refused and changed nothing.",
    );
    page.sample(&[], state.reloads.failed);
    state.certificates.metrics(&mut page);
    state.ip_lists.metrics(&mut page);
    state.issuer_keys.metrics(&mut page);
    unverified(&state.config, &mut page);
    breakers(control, &state.config, &mut page);
    control.resolver.metrics(&state.config, &mut page);
    endpoint_metrics(control, &state, &mut page);
    state.health.metrics(&mut page);
    control.obs.metrics(&mut page);
    limits(&state.policies.limits, &mut page);
    process_metrics(control, &mut page);
    page.finish()
}

/// What `limit` and `concurrency` have done.
fn limits(limits: &LimitRegistry, page: &mut MetricsPage) {
    type Count = fn(&LimitCounts) -> &AtomicU64;
    let counters: [(&str, &str, Count); 3] = [
        (
            "weir_limit_refused_total",
            "Requests that a limit refused.",
            |counts| &counts.refused,
        ),
        (
            "weir_limit_dry_run_total",
            "Requests that a limit would have refused but for its `dry_run`.",
            |counts| &counts.let_through,
        ),
        (
            "weir_limit_overflowed_total",
            "Requests whose key found no place in the table of keys.",
            |counts| &counts.overflowed,
        ),
    ];
    let reports = limits.reports();
    for (name, help, count) in counters {
        page.family(name, MetricKind::Counter, help);
        for report in &reports {
            let labels = [("policy", report.kind.key()), ("limit", &report.name)];
            page.sample(&labels, count(&report.counts).load(Ordering::Relaxed));
        }
    }
    if let Some(keys) = limits.keys() {
        let help = "Places of the table of keys that have been used.";
        page.family("weir_limit_keys", MetricKind::Gauge, help);
        page.sample(&[], keys);
    }
}

/// Upstreams that do not verify their endpoints' certificates.
fn unverified(config: &weir_config::Config, page: &mut MetricsPage) {
    page.family(
        "weir_upstream_tls_unverified",
        MetricKind::Gauge,
        "1 for an upstream whose endpoints' certificates are not verified (`verify = \"off\"`).",
    );
    for upstream in &config.upstreams {
        let speaks = upstream.endpoints.iter().any(|endpoint| endpoint.tls);
        if speaks && upstream.tls.verify == weir_config::Verify::Off {
            page.sample(&[("upstream", &upstream.name)], 1);
        }
    }
}

/// The circuits of upstreams with a breaker.
fn breakers(control: &Control, config: &weir_config::Config, page: &mut MetricsPage) {
    page.family(
        "weir_upstream_breaker_open",
        MetricKind::Gauge,
        "1 while the circuit of an upstream with a `breaker` is open or half open.",
    );
    let registry = control.cores.upstreams();
    for upstream in &config.upstreams {
        if upstream.breaker.is_some() {
            let is_open = registry.is_circuit_open(&upstream.name);
            page.sample(&[("upstream", &upstream.name)], is_open.into());
        }
    }
}

/// Metrics of the process, under the names that Prometheus clients use.
fn process_metrics(control: &Control, page: &mut MetricsPage) {
    if let Some(us) = system::cpu_us() {
        page.family(
            "process_cpu_seconds_total",
            MetricKind::Counter,
            "CPU time spent.",
        );
        page.seconds(&[], us);
    }
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory in use.",
            system::resident_bytes(),
        ),
        ("process_open_fds", "Open files.", system::open_files()),
        (
            "process_max_fds",
            "The limit of open files.",
            system::open_files_max(),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.family(name, MetricKind::Gauge, help);
            page.sample(&[], value);
        }
    }
    page.family(
        "process_start_time_seconds",
        MetricKind::Gauge,
        "When the process began to serve, since the Unix epoch.",
    );
    page.seconds(&[], control.started_ms * 1_000);
}

/// The state in words. The first line is `serving` or `draining`; `verbose` adds details.
pub(super) fn health(control: &Control, verbose: bool) -> String {
    let mut out = String::from(if control.draining.get() {
        "draining\n"
    } else {
        "serving\n"
    });
    if verbose {
        let state = control.state.borrow();
        let (exchanges, connections) = control.obs.load();
        let _ = writeln!(out, "{}", summary(&state.plan, &state.endpoints));
        let _ = writeln!(
            out,
            "{connections} connections, {exchanges} exchanges under way"
        );
        let _ = writeln!(
            out,
            "reloads: {} done, {} failed",
            state.reloads.done, state.reloads.failed
        );
        state.certificates.health(&mut out);
        state.ip_lists.health(&mut out);
        state.issuer_keys.health(&mut out);
        control.resolver.health(&state.config, &mut out);
        if let Some(error) = &state.reloads.last_error {
            let mut when = String::new();
            text::time(&mut when, state.reloads.last_ms);
            let _ = writeln!(
                out,
                "the last reload failed at {when}:\n{}",
                error.trim_end()
            );
        }
    }
    out
}

/// The running plan as JSON. `length` is that of the last page, to allocate once.
pub(super) fn plan(control: &Control, length: usize) -> String {
    let state = control.state.borrow();
    let State {
        plan,
        endpoints,
        config,
        reloads,
        certificates,
        ..
    } = &*state;
    let mut out = String::with_capacity(length + length / 16);
    out.push('{');
    let _ = write!(
        out,
        "\"version\":\"{}\",\"epoch\":{}",
        env!("CARGO_PKG_VERSION"),
        plan.epoch
    );
    let _ = write!(
        out,
        ",\"draining\":{},\"cores\":{}",
        control.draining.get(),
        control.cores.count()
    );
    let _ = write!(
        out,
        ",\"reloads\":{{\"done\":{},\"failed\":{},\"last_error\":",
        reloads.done, reloads.failed
    );
    match &reloads.last_error {
        Some(error) => text::json(&mut out, error.as_bytes()),
        None => out.push_str("null"),
    }
    out.push('}');
    let listeners = config.listeners.iter();
    let listeners: HashMap<_, _> = listeners
        .zip(&plan.listeners)
        .map(|(one, planned)| (planned.name.clone(), one))
        .collect();
    let upstreams = config.upstreams.iter();
    let upstreams: HashMap<_, _> = upstreams.map(|one| (one.name.as_str(), one)).collect();
    let clients_max = plan.client_connections_max(endpoints);
    list(&mut out, "listeners", &plan.listeners, |out, listener| {
        string(out, "address", &listener.name);
        let max = clients_max.min(listener.connections_max);
        let per_client = listener.connections_per_client_max.min(max);
        let _ = write!(
            out,
            ",\"connections_max\":{max},\"connections_per_client_max\":{per_client}"
        );
        let _ = write!(
            out,
            ",\"http2\":{},\"proxy_protocol\":{},\"redirect_https\":",
            listener.takes_http2,
            listener.proxy_protocol.is_some()
        );
        let _ = match listener.redirect_https {
            Some(port) => write!(out, "{port}"),
            None => write!(out, "null"),
        };
        out.push_str(",\"target\":");
        listener_target(out, plan, &listener.target);
        out.push_str(",\"tls\":");
        let named = listeners.get(&listener.name);
        certificates.listener(out, named.and_then(|one| one.tls.as_ref()));
    });
    list(&mut out, "routes", &plan.routes, |out, route| {
        string(out, "name", &route.name);
        let _ = write!(out, ",\"line\":{},", route.line);
        target(out, plan, &route.target);
    });
    let planned: Vec<_> = plan.upstreams.iter().zip(endpoints.iter()).collect();
    list(&mut out, "upstreams", &planned, |out, (upstream, set)| {
        string(out, "name", &upstream.name);
        list(out, "endpoints", &set.endpoints, |out, endpoint| {
            string(out, "name", &endpoint.name);
            out.push(',');
            string(out, "address", &shown(&endpoint.address));
            let is_tls = endpoint.tls_name.is_some();
            let _ = write!(out, ",\"weight\":{},\"tls\":{is_tls}", endpoint.weight);
        });
        list(out, "sources", &set.sources, |out, source| {
            string(out, "name", &source.name);
            let _ = write!(out, ",\"endpoints\":{}", source.endpoints);
        });
        list(out, "unresolved", &set.unresolved, |out, endpoint| {
            string(out, "name", &endpoint.name);
            out.push(',');
            string(out, "error", &endpoint.why);
        });
        out.push_str(",\"tls\":");
        let named = upstreams.get(&*upstream.name);
        let secure = set.endpoints.iter().any(|one| one.tls_name.is_some());
        certificates.upstream(out, named.filter(|_| secure).map(|one| &one.tls));
    });
    out.push_str("}\n");
    out
}

/// What becomes of a listener's connections or datagrams: a kind, and the names of upstreams.
fn listener_target(out: &mut String, plan: &Plan, target: &ListenerTarget) {
    let name = |id| plan.upstream(id).map_or("", |upstream| &*upstream.name);
    out.push('{');
    match target {
        ListenerTarget::Http => string(out, "kind", "http"),
        ListenerTarget::Tcp(id) => string(out, "tcp", name(*id)),
        ListenerTarget::Udp(udp) => string(out, "udp", name(udp.upstream)),
        ListenerTarget::Passthrough(names) => {
            let mut entries: Vec<_> = names.entries().collect();
            entries.sort();
            out.push_str("\"passthrough\":{");
            for (at, (server, id)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                string(out, server, name(*id));
            }
            out.push('}');
        }
    }
    out.push('}');
}

/// Writes a list of strings.
pub(super) fn strings<T: std::fmt::Display>(out: &mut String, items: &[T]) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        text::json(out, item.to_string().as_bytes());
    }
    out.push(']');
}

/// Writes what a route does with its requests.
pub(super) fn target(out: &mut String, plan: &Plan, target: &RouteTarget) {
    match target {
        RouteTarget::Upstream(id) => string(
            out,
            "upstream",
            plan.upstream(*id).map_or("", |upstream| &upstream.name),
        ),
        RouteTarget::Split(split) => {
            out.push_str("\"upstreams\":[");
            for (at, share) in split.shares.iter().enumerate() {
                out.push_str(if at == 0 { "{" } else { ",{" });
                string(out, "upstream", &share.name);
                let _ = write!(out, ",\"share\":{}}}", share.weight);
            }
            out.push(']');
        }
        RouteTarget::Redirect(_) => string(out, "target", "redirect"),
        RouteTarget::Respond(respond) => {
            let _ = write!(out, "\"respond\":{}", respond.status);
        }
    }
}

fn shown(address: &Address) -> String {
    address.to_string()
}

pub(super) fn string(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, "\"{name}\":");
    text::json(out, value.as_bytes());
}

pub(super) fn list<T>(
    out: &mut String,
    name: &str,
    items: &[T],
    mut each: impl FnMut(&mut String, &T),
) {
    let _ = write!(out, ",\"{name}\":[");
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at == 0 { "{" } else { ",{" });
        each(out, item);
        out.push('}');
    }
    out.push(']');
}
