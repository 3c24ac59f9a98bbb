//! Copies of requests (`mirror`), by the upstream that gets them.

use super::counters::{Counter, UpstreamCounts};
use super::metrics_page::{MetricKind, MetricsPage};

/// What has become of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// It was sent.
    Sent,
    /// The request's body is larger than those that are copied.
    TooLarge,
    /// The core has as many copies, or as many bytes of them, as it may.
    NoRoom,
    /// The request has ended before all of it had arrived.
    Incomplete,
}

/// Counts by outcome.
pub(super) type MirrorCounts = [Counter; 4];

/// The causes of dropped copies.
const CAUSES: [(MirrorOutcome, &str); 3] = [
    (MirrorOutcome::TooLarge, "body_too_large"),
    (MirrorOutcome::NoRoom, "no_room"),
    (MirrorOutcome::Incomplete, "incomplete"),
];

/// Adds the families with the copies for each upstream.
pub(super) fn upstreams(all: &[(&str, Vec<&UpstreamCounts>)], page: &mut MetricsPage) {
    let seen = |counts: &[&UpstreamCounts], outcome| -> u64 {
        let counts = counts.iter().map(|c| c.mirrored[outcome as usize].get());
        counts.sum()
    };
    page.family(
        "weir_upstream_mirrored_total",
        MetricKind::Counter,
        "Copies of requests that an upstream was sent.",
    );
    for (upstream, counts) in all {
        let sent = seen(counts, MirrorOutcome::Sent);
        page.sample(&[("upstream", upstream)], sent);
    }
    page.family(
        "weir_upstream_mirror_dropped_total",
        MetricKind::Counter,
        "Copies of requests that an upstream was not sent, by cause.",
    );
    for (upstream, counts) in all {
        for (outcome, cause) in CAUSES {
            let labels = [("upstream", *upstream), ("cause", cause)];
            page.sample(&labels, seen(counts, outcome));
        }
    }
}
