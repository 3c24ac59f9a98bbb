//! Connections and flows that Weir only passes on: their events, counters and metrics.

use super::CoreObs;
use super::counters::{Counter, Detail, Histogram, HistogramTotal, ListenerCounts};
use super::event::ExchangeEvent;
use super::metrics_page::{MetricKind, MetricsPage};
use crate::plan::{EndpointSets, ListenerId, Plan, UpstreamId};
use crate::shared::Ordering;

/// A core's counters for the connections and flows of a listener without HTTP.
#[derive(Debug, Default)]
pub(super) struct RelayCounts {
    /// How long connections and flows have lasted.
    durations: Histogram,
    datagrams_in: Counter,
    datagrams_out: Counter,
    /// Datagrams that Weir has dropped, by cause.
    dropped: [Counter; DropCause::ALL.len()],
}

/// Why Weir has dropped a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// A policy or limit refuses its flow, the listener is closing, or the core has no room for a flow.
    Refused,
    /// No endpoint can take its flow.
    NoEndpoint,
    /// The system did not take it: a send buffer is full, or the peer refuses it.
    Unsent,
}

impl DropCause {
    const ALL: [Self; 3] = [Self::Refused, Self::NoEndpoint, Self::Unsent];

    const fn code(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoEndpoint => "no_endpoint",
            Self::Unsent => "unsent",
        }
    }
}

/// Datagrams since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatagramTally {
    /// From clients.
    pub received: u32,
    /// To clients.
    pub sent: u32,
    /// Dropped, by cause.
    pub dropped: [u32; DropCause::ALL.len()],
}

impl DatagramTally {
    /// Counts dropped datagrams.
    pub fn drop_for(&mut self, cause: DropCause, datagrams: u32) {
        if let Some(count) = self.dropped.get_mut(cause as usize) {
            *count += datagrams;
        }
    }
}

impl CoreObs {
    /// Counts and logs a connection or flow that has ended, and that ran under `plan` and `endpoints`. If the core has
    /// changed to others since, it counts by name.
    pub fn relayed(&self, plan: &Plan, endpoints: &EndpointSets, event: &ExchangeEvent<'_>) {
        let counters = &self.plan_counters;
        let (listener, upstream, endpoint) = if endpoints.epoch == counters.epoch() {
            (Some(event.listener), event.upstream, event.endpoint)
        } else {
            let find = |id| counters.find_upstream(plan, id);
            let at = event.upstream.zip(event.endpoint);
            (
                counters.find_listener(plan, event.listener),
                event.upstream.and_then(find),
                at.and_then(|(id, at)| counters.find_endpoint((plan, endpoints), id, at)),
            )
        };
        if let Some(counts) = listener.and_then(|id| counters.listener(id)) {
            counts.count_relay(event);
        }
        if let Some(id) = upstream {
            self.count_relay_upstream(event, id, endpoint);
        }
        if self.shared.logging.load(Ordering::Relaxed) {
            self.log(endpoints.epoch, event);
        }
    }

    fn count_relay_upstream(&self, event: &ExchangeEvent<'_>, id: UpstreamId, at: Option<u32>) {
        if let Some(counts) = self.plan_counters.upstream(id) {
            counts.queued_us.add(event.queue_us);
            if event.connect_us > 0 {
                counts.connect.record(event.connect_us);
            }
            if let Some(reason) = event.reason {
                counts.reasons[reason as usize].add(1);
            }
        }
        if event.reason.is_none()
            && let Some(counts) = at.and_then(|at| self.plan_counters.endpoint(id, at))
        {
            counts.answered.add(1);
        }
    }

    /// Counts datagrams of a listener.
    pub fn datagrams(&self, listener: ListenerId, tally: &DatagramTally) {
        if let Some(counts) = self.plan_counters.listener(listener) {
            let relays = &counts.relays;
            relays.datagrams_in.add(tally.received.into());
            relays.datagrams_out.add(tally.sent.into());
            for (counter, dropped) in relays.dropped.iter().zip(tally.dropped) {
                counter.add(dropped.into());
            }
        }
    }
}

impl ListenerCounts {
    fn count_relay(&self, event: &ExchangeEvent<'_>) {
        self.bytes_in.add(event.bytes_in);
        self.bytes_out.add(event.bytes_out);
        self.relays.durations.record(event.total_us);
        if let Some(reason) = event.reason {
            self.reasons[reason as usize].add(1);
        }
        if let Some(policy) = event.policy {
            self.policies[policy as usize].add(1);
        }
    }
}

/// Adds the metrics of listeners that have passed something on.
pub(super) fn listeners(all: &[(&str, Vec<&ListenerCounts>)], page: &mut MetricsPage) {
    let sum = |counts: &[&ListenerCounts], read: fn(&RelayCounts) -> &Counter| {
        counts
            .iter()
            .map(|each| read(&each.relays).get())
            .sum::<u64>()
    };
    let total = |counts: &[&ListenerCounts]| {
        let mut total = HistogramTotal::default();
        for each in counts {
            each.relays.durations.add_to(&mut total);
        }
        total
    };
    let help = "How long connections and flows that were passed on have lasted.";
    page.family("weir_relay_duration_seconds", MetricKind::Histogram, help);
    for (name, counts) in all {
        let total = total(counts);
        if total.buckets.iter().any(|count| *count > 0) {
            page.histogram(&[("listener", name)], &total, Detail::Half);
        }
    }
    let has_datagrams = |counts: &[&ListenerCounts]| sum(counts, |c| &c.datagrams_in) > 0;
    let help = "Datagrams received from clients and sent to them.";
    page.family("weir_udp_datagrams_total", MetricKind::Counter, help);
    for (name, counts) in all.iter().filter(|(_, counts)| has_datagrams(counts)) {
        let received = sum(counts, |c| &c.datagrams_in);
        page.sample(&[("listener", name), ("direction", "in")], received);
        let sent = sum(counts, |c| &c.datagrams_out);
        page.sample(&[("listener", name), ("direction", "out")], sent);
    }
    let help = "Datagrams that were dropped, by cause.";
    page.family("weir_udp_dropped_total", MetricKind::Counter, help);
    for (name, counts) in all.iter().filter(|(_, counts)| has_datagrams(counts)) {
        for cause in DropCause::ALL {
            let dropped = counts
                .iter()
                .filter_map(|each| each.relays.dropped.get(cause as usize));
            let dropped = dropped.map(Counter::get).sum::<u64>();
            page.sample(&[("listener", name), ("cause", cause.code())], dropped);
        }
    }
}
