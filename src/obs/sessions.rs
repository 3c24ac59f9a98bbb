//! What becomes of the sessions of sticky upstreams.

use super::counters::{Counter, UpstreamCounts};
use super::metrics_page::{MetricKind, MetricsPage};

/// What has become of a client's session when an endpoint has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The client had none.
    New,
    /// The client's own endpoint has answered.
    Kept,
    /// Another endpoint has answered, because the client's own could not.
    Moved,
}

/// Counts by outcome.
pub(super) type SessionCounts = [Counter; SessionOutcome::ALL.len()];

impl SessionOutcome {
    pub(super) const ALL: [Self; 3] = [Self::New, Self::Kept, Self::Moved];

    const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Moved => "moved",
        }
    }
}

/// Adds the family with the sessions of each upstream.
pub(super) fn upstreams(all: &[(&str, Vec<&UpstreamCounts>)], page: &mut MetricsPage) {
    page.family(
        "weir_upstream_sessions_total",
        MetricKind::Counter,
        "Answers of sticky upstreams: to clients without a session, by the client's own endpoint, by another one.",
    );
    for (upstream, counts) in all {
        for outcome in SessionOutcome::ALL {
            let seen = counts.iter().map(|c| c.sessions[outcome as usize].get());
            let labels = [("upstream", *upstream), ("outcome", outcome.word())];
            page.sample(&labels, seen.sum());
        }
    }
}
