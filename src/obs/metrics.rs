//! Renders the cores' counters as Prometheus metrics: sums over cores by name, and some counters by core.

use std::sync::Arc;

use super::CoreShared;
use super::counters::{
    Counter, Detail, HANDSHAKES, Histogram, HistogramTotal, ListenerCounts, REASONS, UpstreamCounts,
};
use super::event::{CLASSES, GRPC_STATUSES};
use super::metrics_page::{MetricKind, MetricsPage};
use super::plan_counters::{NameTable, PlanCounters};
use super::{http2, mirrors, relays, sessions};
use crate::fault::Reason;
use crate::plan::{ListenerId, RouteId, UpstreamId};
use crate::policy::PolicyKind;
use crate::tls::TlsFailure;

/// Active exchanges and open client connections.
pub(super) fn load(cores: &[Arc<CoreShared>]) -> (u64, u64) {
    let sum = |read: fn(&CoreShared) -> u64| cores.iter().map(|core| read(core)).sum::<u64>();
    let started = sum(|core| core.counts.exchanges_started.get());
    let ended = sum(|core| core.counts.exchanges_ended.get());
    let opened = sum(|core| core.counts.connections_opened.get());
    let closed = sum(|core| core.counts.connections_closed.get());
    (started.saturating_sub(ended), opened.saturating_sub(closed))
}

/// Adds all counters of the cores.
pub(super) fn render(cores: &[Arc<CoreShared>], page: &mut MetricsPage) {
    let all_counters: Vec<Arc<PlanCounters>> = cores
        .iter()
        .map(|core| core.plan_counters().clone())
        .collect();
    let Some(newest) = all_counters.iter().max_by_key(|counters| counters.epoch()) else {
        return;
    };
    let view = CoreView {
        newest,
        all_counters: &all_counters,
    };
    listeners(&view, page);
    routes(&view, page);
    upstreams(&view, page);
    endpoints(&view, page);
    by_core(cores, page);
}

/// The counters of all cores, indexed by the ids of the newest plan.
struct CoreView<'a> {
    newest: &'a PlanCounters,
    all_counters: &'a [Arc<PlanCounters>],
}

impl CoreView<'_> {
    /// The counters of one part on each core, whichever plan the core uses.
    fn each<'s, C: 's>(
        &'s self,
        id: u32,
        named: impl Fn(&PlanCounters) -> Option<&NameTable>,
        get: impl Fn(&'s PlanCounters, u32) -> Option<&'s C>,
    ) -> Vec<&'s C> {
        let name = named(self.newest).and_then(|named| named.get(id));
        let find = |counters: &'s Arc<PlanCounters>| {
            let here = if counters.epoch() == self.newest.epoch() {
                id
            } else {
                named(counters)?.find(name?)?
            };
            get(counters, here)
        };
        self.all_counters.iter().filter_map(find).collect()
    }
}

/// The counters of every listener, by name.
fn listener_counts<'v>(view: &'v CoreView<'_>) -> Vec<(&'v str, Vec<&'v ListenerCounts>)> {
    let counts = |id| {
        view.each(
            id,
            |s| Some(&s.names.listeners),
            |s, id| s.listener(ListenerId(id)),
        )
    };
    let all = view.newest.names.listeners.unique();
    all.map(|(id, name)| (&**name, counts(id))).collect()
}

fn listeners(view: &CoreView<'_>, page: &mut MetricsPage) {
    let all = listener_counts(view);
    page.family(
        "weir_exchanges_total",
        MetricKind::Counter,
        "Completed exchanges, by listener and status class.",
    );
    for (name, counts) in &all {
        classes(page, &[("listener", name)], counts, |c| &c.exchanges);
    }
    sums(
        page,
        "listener",
        &all,
        (
            "weir_request_body_bytes_total",
            "Bytes of request bodies received from clients.",
        ),
        |c| &c.bytes_in,
    );
    sums(
        page,
        "listener",
        &all,
        (
            "weir_response_body_bytes_total",
            "Bytes of response bodies sent to clients.",
        ),
        |c| &c.bytes_out,
    );
    sums(
        page,
        "listener",
        &all,
        ("weir_connections_total", "Client connections accepted."),
        |c| &c.opened,
    );
    differences(
        page,
        "listener",
        &all,
        ("weir_connections_open", "Open client connections."),
        |c| &c.opened,
        |c| &c.closed,
    );
    page.family(
        "weir_tls_handshakes_total",
        MetricKind::Counter,
        "Successful TLS handshakes with clients, by version and resumption.",
    );
    for (name, counts) in &all {
        for (at, (version, resumed)) in HANDSHAKE_LABELS.iter().enumerate() {
            let labels = [
                ("listener", *name),
                ("version", *version),
                ("resumed", *resumed),
            ];
            page.sample(&labels, sum(counts, |c| &c.handshakes[at]));
        }
    }
    page.family(
        "weir_tls_failures_total",
        MetricKind::Counter,
        "TLS handshakes with clients that failed, by kind.",
    );
    for (name, counts) in &all {
        for (at, failure) in TlsFailure::ALL.iter().enumerate() {
            let labels = [("listener", *name), ("failure", failure.code())];
            page.sample(&labels, sum(counts, |c| &c.tls_failures[at]));
        }
    }
    http2::listeners(&all, page);
    relays::listeners(&all, page);
    page.family(
        "weir_grpc_calls_total",
        MetricKind::Counter,
        "Completed gRPC calls, by listener and gRPC status.",
    );
    for (name, counts) in &all {
        grpc(page, ("listener", name), counts, |c| &c.grpc);
    }
    let help = "Local answers, broken exchanges and refused connections, by reason.";
    page.family("weir_reasons_total", MetricKind::Counter, help);
    for (name, counts) in &all {
        reasons(page, ("listener", name), counts, |c| &c.reasons);
    }
    let help = "Requests that a policy answered, or that failed while it waited.";
    page.family("weir_policy_answers_total", MetricKind::Counter, help);
    for (name, counts) in &all {
        for kind in PolicyKind::ALL {
            let seen = sum(counts, |c| &c.policies[*kind as usize]);
            page.sample(&[("listener", name), ("policy", kind.key())], seen);
        }
    }
}

/// Version and resumption, indexed like `ListenerCounts::handshakes`.
const HANDSHAKE_LABELS: [(&str, &str); HANDSHAKES] =
    [("1.2", "no"), ("1.2", "yes"), ("1.3", "no"), ("1.3", "yes")];

/// A route without requests shows only its exchanges, because thousands of empty histograms would be useless.
fn routes(view: &CoreView<'_>, page: &mut MetricsPage) {
    let counts = |id| view.each(id, |s| Some(&s.names.routes), |s, id| s.route(RouteId(id)));
    let all = view.newest.names.routes.unique();
    let all: Vec<(&str, Vec<_>)> = all.map(|(id, name)| (&**name, counts(id))).collect();
    page.family(
        "weir_route_exchanges_total",
        MetricKind::Counter,
        "Completed exchanges, by route and status class.",
    );
    for (name, counts) in &all {
        classes(page, &[("route", name)], counts, |c| &c.exchanges);
    }
    let used: Vec<_> = all
        .into_iter()
        .filter(|(_, counts)| {
            counts
                .iter()
                .any(|c| c.exchanges.iter().any(|count| count.get() > 0))
        })
        .collect();
    sums(
        page,
        "route",
        &used,
        (
            "weir_route_request_body_bytes_total",
            "Bytes of request bodies by route.",
        ),
        |c| &c.bytes_in,
    );
    sums(
        page,
        "route",
        &used,
        (
            "weir_route_response_body_bytes_total",
            "Bytes of response bodies by route.",
        ),
        |c| &c.bytes_out,
    );
    let help = "Time from the complete request head to the last byte of the answer.";
    page.family("weir_route_duration_seconds", MetricKind::Histogram, help);
    for (name, counts) in &used {
        let total = total(counts, |c| &c.total);
        page.histogram(&[("route", name)], &total, Detail::Half);
    }
}

fn upstreams(view: &CoreView<'_>, page: &mut MetricsPage) {
    let counts = |id| {
        view.each(
            id,
            |s| Some(&s.names.upstreams),
            |s, id| s.upstream(UpstreamId(id)),
        )
    };
    let all = view.newest.names.upstreams.unique();
    let all: Vec<(&str, Vec<_>)> = all.map(|(id, name)| (&**name, counts(id))).collect();
    page.family(
        "weir_upstream_exchanges_total",
        MetricKind::Counter,
        "Completed exchanges, by upstream and status class.",
    );
    for (name, counts) in &all {
        classes(page, &[("upstream", name)], counts, |c| &c.exchanges);
    }
    attempts(&all, page);
    sums(
        page,
        "upstream",
        &all,
        (
            "weir_upstream_queued_total",
            "Attempts that waited for a free connection or stream.",
        ),
        |c| &c.queue_entered,
    );
    differences(
        page,
        "upstream",
        &all,
        (
            "weir_upstream_queue_waiting",
            "Attempts waiting for a free connection or stream.",
        ),
        |c| &c.queue_entered,
        |c| &c.queue_left,
    );
    page.family(
        "weir_upstream_queue_seconds_total",
        MetricKind::Counter,
        "Time that attempts spent waiting for a free connection or stream.",
    );
    for (name, counts) in &all {
        page.seconds(&[("upstream", name)], sum(counts, |c| &c.queued_us));
    }
    page.family(
        "weir_upstream_reasons_total",
        MetricKind::Counter,
        "Failed exchanges, by upstream and reason.",
    );
    for (name, counts) in &all {
        reasons(page, ("upstream", name), counts, |c| &c.reasons);
    }
    page.family(
        "weir_upstream_grpc_calls_total",
        MetricKind::Counter,
        "Completed gRPC calls, by upstream and gRPC status.",
    );
    for (name, counts) in &all {
        grpc(page, ("upstream", name), counts, |c| &c.grpc);
    }
    http2::upstreams(&all, page);
    sessions::upstreams(&all, page);
    mirrors::upstreams(&all, page);
    page.family(
        "weir_upstream_connect_seconds",
        MetricKind::Histogram,
        "Time to open a connection to an endpoint.",
    );
    for (name, counts) in &all {
        let total = total(counts, |c| &c.connect);
        page.histogram(&[("upstream", name)], &total, Detail::Full);
    }
    page.family(
        "weir_upstream_first_byte_seconds",
        MetricKind::Histogram,
        "Time from sending the request head to the first byte of the endpoint's answer.",
    );
    for (name, counts) in &all {
        let total = total(counts, |c| &c.first_byte);
        page.histogram(&[("upstream", name)], &total, Detail::Full);
    }
}

/// The attempts after the first one of an exchange.
fn attempts(all: &[(&str, Vec<&UpstreamCounts>)], page: &mut MetricsPage) {
    sums(
        page,
        "upstream",
        all,
        (
            "weir_upstream_retries_total",
            "Attempts after the first one of an exchange.",
        ),
        |c| &c.retries,
    );
    sums(
        page,
        "upstream",
        all,
        (
            "weir_upstream_hedges_total",
            "Second attempts that started because the first was late.",
        ),
        |c| &c.hedges,
    );
    sums(
        page,
        "upstream",
        all,
        (
            "weir_upstream_hedges_won_total",
            "Second attempts whose answer came before the first's.",
        ),
        |c| &c.hedges_won,
    );
}

fn endpoints(view: &CoreView<'_>, page: &mut MetricsPage) {
    let names = &view.newest.names;
    let mut all = Vec::new();
    for (id, upstream) in names.upstreams.unique() {
        let Some(named) = names.endpoints.get(id as usize) else {
            continue;
        };
        for (at, endpoint) in named.unique() {
            // If the core uses other endpoint sets, finds the upstream first and then its endpoint.
            let find = |counters: &PlanCounters| {
                let up = counters.names.upstreams.find(upstream)?;
                Some((
                    up,
                    counters.names.endpoints.get(up as usize)?.find(endpoint)?,
                ))
            };
            let counts = view.all_counters.iter().filter_map(|counters| {
                let here = if counters.epoch() == names.epoch {
                    (id, at)
                } else {
                    find(counters)?
                };
                counters.endpoint(UpstreamId(here.0), here.1)
            });
            all.push((
                [
                    ("upstream", upstream.as_ref()),
                    ("endpoint", endpoint.as_ref()),
                ],
                counts.collect::<Vec<_>>(),
            ));
        }
    }
    let help = "Completed exchanges whose last attempt used an endpoint, by status class.";
    page.family("weir_endpoint_exchanges_total", MetricKind::Counter, help);
    for (labels, counts) in &all {
        classes(page, labels, counts, |c| &c.exchanges);
    }
    page.family(
        "weir_endpoint_connections_total",
        MetricKind::Counter,
        "Connections opened to an endpoint.",
    );
    for (labels, counts) in &all {
        page.sample(labels, sum(counts, |c| &c.opened));
    }
    page.family(
        "weir_endpoint_connections_open",
        MetricKind::Gauge,
        "Open connections to an endpoint, in use or idle.",
    );
    for (labels, counts) in &all {
        page.sample(labels, difference(counts, |c| &c.opened, |c| &c.closed));
    }
    page.family(
        "weir_endpoint_reuses_total",
        MetricKind::Counter,
        "Attempts on a connection that was open already.",
    );
    for (labels, counts) in &all {
        page.sample(labels, sum(counts, |c| &c.reused));
    }
    page.family(
        "weir_endpoint_connect_failures_total",
        MetricKind::Counter,
        "Connections to an endpoint that could not be opened.",
    );
    for (labels, counts) in &all {
        page.sample(labels, sum(counts, |c| &c.failed));
    }
    page.family(
        "weir_endpoint_failures_total",
        MetricKind::Counter,
        "Failed attempts, by endpoint and reason.",
    );
    for (labels, counts) in &all {
        for reason in Reason::ALL {
            let seen = sum(counts, |c| &c.reasons[*reason as usize]);
            if seen > 0 || reason.is_of_endpoint() {
                let [upstream, endpoint] = *labels;
                page.sample(&[upstream, endpoint, ("reason", reason.code())], seen);
            }
        }
    }
    page.family(
        "weir_endpoint_first_byte_seconds",
        MetricKind::Histogram,
        "Time from sending the request head to the first byte of the endpoint's answer.",
    );
    for (labels, counts) in &all {
        let total = total(counts, |c| &c.first_byte);
        page.histogram(labels, &total, Detail::Round);
    }
}

/// A family with one sample for each core: name, kind, help, value.
type CoreFamily = (
    &'static str,
    MetricKind,
    &'static str,
    fn(&CoreShared) -> u64,
);

const CORE_FAMILIES: [CoreFamily; 16] = [
    (
        "weir_core_exchanges_total",
        MetricKind::Counter,
        "Exchanges that a core has completed.",
        |c| c.counts.exchanges_ended.get(),
    ),
    (
        "weir_core_exchanges_active",
        MetricKind::Gauge,
        "Exchanges that a core is running.",
        |c| {
            c.counts
                .exchanges_started
                .get()
                .saturating_sub(c.counts.exchanges_ended.get())
        },
    ),
    (
        "weir_core_connections_open",
        MetricKind::Gauge,
        "Client connections that a core serves.",
        |c| {
            c.counts
                .connections_opened
                .get()
                .saturating_sub(c.counts.connections_closed.get())
        },
    ),
    (
        "weir_core_handed_on_total",
        MetricKind::Counter,
        "Fresh connections that a core has handed to another.",
        |c| c.counts.handed_on.get(),
    ),
    (
        "weir_core_taken_over_total",
        MetricKind::Counter,
        "Fresh connections that a core has taken over from another.",
        |c| c.counts.taken_over.get(),
    ),
    (
        "weir_core_mailbox_full_total",
        MetricKind::Counter,
        "Messages that found another core's mailbox full.",
        |c| c.counts.mailbox_full.get(),
    ),
    (
        "weir_core_accept_errors_total",
        MetricKind::Counter,
        "Failed accepts.",
        |c| c.counts.accept_errors.get(),
    ),
    (
        "weir_core_shed_total",
        MetricKind::Counter,
        "Connections and requests that a core has ended because they used the most of its memory.",
        |c| c.counts.shed.get(),
    ),
    (
        "weir_core_calls_dropped_total",
        MetricKind::Counter,
        "Sub-requests that a core did not make because it makes as many as it may.",
        |c| c.counts.calls_dropped.get(),
    ),
    (
        "weir_core_fields_dropped_total",
        MetricKind::Counter,
        "Request fields dropped because of their names.",
        |c| c.counts.fields_dropped.get(),
    ),
    (
        "weir_core_panics_total",
        MetricKind::Counter,
        "Exchanges that panicked; please report these bugs.",
        |c| c.counts.panics.get(),
    ),
    (
        "weir_core_log_dropped_total",
        MetricKind::Counter,
        "Log lines dropped because the log thread was behind.",
        |c| c.counts.log_dropped.get(),
    ),
    (
        "weir_core_reports_dropped_total",
        MetricKind::Counter,
        "Reports to control dropped because it was behind.",
        |c| c.counts.reports_dropped.get(),
    ),
    (
        "weir_core_pool_used_bytes",
        MetricKind::Gauge,
        "Bytes of buffers in use.",
        |c| c.counts.pool_used_bytes.get(),
    ),
    (
        "weir_core_plan_epoch",
        MetricKind::Gauge,
        "The epoch of the plan that a core counts by.",
        |c| c.counts.plan_epoch.get(),
    ),
    (
        "weir_core_endpoints_epoch",
        MetricKind::Gauge,
        "The endpoint sets that a core counts by.",
        |c| c.counts.endpoints_epoch.get(),
    ),
];

fn by_core(cores: &[Arc<CoreShared>], page: &mut MetricsPage) {
    for (name, kind, help, read) in CORE_FAMILIES {
        page.family(name, kind, help);
        for (index, core) in cores.iter().enumerate() {
            page.sample(&[("core", &index.to_string())], read(core));
        }
    }
}

/// Adds a counter family with one sample for each part: its sum over cores.
fn sums<C>(
    page: &mut MetricsPage,
    label: &str,
    all: &[(&str, Vec<&C>)],
    (name, help): (&'static str, &str),
    read: impl Fn(&C) -> &Counter,
) {
    page.family(name, MetricKind::Counter, help);
    for (part, counts) in all {
        page.sample(&[(label, part)], sum(counts, &read));
    }
}

/// Adds a gauge family with one sample for each part: how many items have started and not ended.
fn differences<C>(
    page: &mut MetricsPage,
    label: &str,
    all: &[(&str, Vec<&C>)],
    (name, help): (&'static str, &str),
    begun: impl Fn(&C) -> &Counter,
    ended: impl Fn(&C) -> &Counter,
) {
    page.family(name, MetricKind::Gauge, help);
    for (part, counts) in all {
        page.sample(&[(label, part)], difference(counts, &begun, &ended));
    }
}

fn sum<C>(counts: &[&C], read: impl Fn(&C) -> &Counter) -> u64 {
    counts.iter().map(|c| read(c).get()).sum()
}

/// Items that have started and not ended. The cores go on while this reads, so an end may appear before its start.
fn difference<C>(
    counts: &[&C],
    begun: impl Fn(&C) -> &Counter,
    ended: impl Fn(&C) -> &Counter,
) -> u64 {
    let ended = sum(counts, ended);
    sum(counts, begun).saturating_sub(ended)
}

/// A histogram summed over cores.
fn total<C>(counts: &[&C], read: impl Fn(&C) -> &Histogram) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    counts.iter().for_each(|c| read(c).add_to(&mut total));
    total
}

/// Adds a sample for each class, also for classes that never occurred: a rate misses the first increase of a series
/// that starts at 1.
fn classes<C>(
    page: &mut MetricsPage,
    labels: &[(&str, &str)],
    counts: &[&C],
    read: impl Fn(&C) -> &[Counter; CLASSES],
) {
    const NAMES: [&str; CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
    for (class, name) in NAMES.into_iter().enumerate() {
        let labels: Vec<_> = labels.iter().copied().chain([("class", name)]).collect();
        page.sample(&labels, sum(counts, |c| &read(c)[class]));
    }
}

/// Adds a sample for each gRPC status, labelled with its number.
fn grpc<C>(
    page: &mut MetricsPage,
    label: (&str, &str),
    counts: &[&C],
    read: impl Fn(&C) -> &[Counter; GRPC_STATUSES],
) {
    for status in 0..GRPC_STATUSES {
        let seen = sum(counts, |c| &read(c)[status]);
        page.sample(&[label, ("grpc_status", &status.to_string())], seen);
    }
}

/// Adds a sample for each reason.
fn reasons<C>(
    page: &mut MetricsPage,
    label: (&str, &str),
    counts: &[&C],
    read: impl Fn(&C) -> &[Counter; REASONS],
) {
    for reason in Reason::ALL {
        let seen = sum(counts, |c| &read(c)[*reason as usize]);
        page.sample(&[label, ("reason", reason.code())], seen);
    }
}
