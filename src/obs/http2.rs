//! Metrics of HTTP/2: by listener, and errors by upstream.

use weir_proto_h2::Error;

use super::Http2Tally;
use super::counters::{Counter, ListenerCounts, UpstreamCounts};
use super::metrics_page::{MetricKind, MetricsPage};

/// Kinds of errors, indexed by [`Error::place`].
pub(super) const ERRORS: usize = Error::ALL.len();

/// A core's HTTP/2 counters for one listener.
#[derive(Debug)]
pub(super) struct Http2Counts {
    pub(super) connections: Counter,
    requests: Counter,
    resets: Counter,
    goaways_received: Counter,
    goaways_sent: Counter,
    errors: [Counter; ERRORS],
    stream_errors: [Counter; ERRORS],
}

impl Default for Http2Counts {
    fn default() -> Self {
        Self {
            connections: Counter::default(),
            requests: Counter::default(),
            resets: Counter::default(),
            goaways_received: Counter::default(),
            goaways_sent: Counter::default(),
            errors: std::array::from_fn(|_| Counter::default()),
            stream_errors: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Http2Counts {
    /// Adds the events of a connection.
    pub(super) fn add(&self, tally: &Http2Tally) {
        self.requests.add(tally.requests.into());
        self.resets.add(tally.resets.into());
        self.goaways_received.add(tally.goaways.into());
        for error in &tally.failed {
            self.stream_errors[error.index()].add(1);
        }
    }

    /// Counts the end of a connection.
    pub(super) fn end(&self, failure: Option<Error>, has_sent_goaway: bool) {
        self.goaways_sent.add(has_sent_goaway.into());
        if let Some(error) = failure {
            self.errors[error.index()].add(1);
        }
    }
}

/// A listener's name, and its counters on each core.
pub(super) type NamedListener<'a> = (&'a str, Vec<&'a ListenerCounts>);

/// Adds the metrics of listeners.
pub(super) fn listeners(all: &[NamedListener<'_>], page: &mut MetricsPage) {
    type Read = fn(&Http2Counts) -> &Counter;
    let families: [(&'static str, &str, Read); 3] = [
        (
            "weir_http2_connections_total",
            "Client connections that speak HTTP/2.",
            |c| &c.connections,
        ),
        (
            "weir_http2_requests_total",
            "Requests received over HTTP/2.",
            |c| &c.requests,
        ),
        (
            "weir_http2_resets_total",
            "Streams that clients have reset.",
            |c| &c.resets,
        ),
    ];
    for (name, help, read) in families {
        page.family(name, MetricKind::Counter, help);
        for (listener, counts) in all {
            page.sample(&[("listener", listener)], sum(counts, |c| read(&c.http2)));
        }
    }
    page.family(
        "weir_http2_goaways_total",
        MetricKind::Counter,
        "GOAWAY frames, by sender; Weir's count once a connection.",
    );
    for (listener, counts) in all {
        let by = |who| [("listener", *listener), ("by", who)];
        page.sample(&by("client"), sum(counts, |c| &c.http2.goaways_received));
        page.sample(&by("weir"), sum(counts, |c| &c.http2.goaways_sent));
    }
    page.family(
        "weir_http2_errors_total",
        MetricKind::Counter,
        "HTTP/2 client connections that ended in an error, by error.",
    );
    for (listener, counts) in all {
        errors(page, ("listener", listener), |at| {
            sum(counts, |c| &c.http2.errors[at])
        });
    }
    page.family(
        "weir_http2_stream_errors_total",
        MetricKind::Counter,
        "Streams that Weir has reset because of the client, by error.",
    );
    for (listener, counts) in all {
        errors(page, ("listener", listener), |at| {
            sum(counts, |c| &c.http2.stream_errors[at])
        });
    }
}

/// Adds the metrics of upstreams.
pub(super) fn upstreams(all: &[(&str, Vec<&UpstreamCounts>)], page: &mut MetricsPage) {
    page.family(
        "weir_upstream_http2_errors_total",
        MetricKind::Counter,
        "HTTP/2 connections to endpoints that ended in an error, by error.",
    );
    for (upstream, counts) in all {
        errors(page, ("upstream", upstream), |at| {
            sum(counts, |c| &c.http2_errors[at])
        });
    }
}

/// Adds a sample for each error.
fn errors(page: &mut MetricsPage, label: (&str, &str), read: impl Fn(usize) -> u64) {
    for error in Error::ALL {
        page.sample(&[label, ("error", error.name())], read(error.index()));
    }
}

fn sum<C>(counts: &[&C], read: impl Fn(&C) -> &Counter) -> u64 {
    counts.iter().map(|c| read(c).get()).sum()
}
