//! The Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

use super::counters::{Detail, Histogram, HistogramTotal};

/// A page of metrics under construction.
#[derive(Default)]
pub(crate) struct MetricsPage {
    text: String,
    family: &'static str,
}

/// The type of a metric family.
#[derive(Clone, Copy)]
pub(crate) enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    Gauge,
    Histogram,
}

impl MetricsPage {
    /// A page with room for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            family: "",
        }
    }

    /// Starts a family. The samples up to the next family belong to it. Call this once for each name.
    pub(crate) fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        debug_assert!(kind != "counter" || name.ends_with("_total"));
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.family = name;
    }

    /// Adds a sample.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// Adds a sample given in microseconds and shown in seconds.
    pub(crate) fn seconds(&mut self, labels: &[(&str, &str)], us: u64) {
        self.line("", labels, None);
        let _ = writeln!(self.text, " {}", Seconds(us));
    }

    /// Adds a histogram of durations. A bucket whose bound is not shown counts in the next one.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        total: &HistogramTotal,
        detail: Detail,
    ) {
        let mut below = 0;
        for (bucket, count) in total.buckets.iter().enumerate() {
            below += count;
            if Histogram::shows(bucket, detail) {
                let bound = Histogram::bound_us(bucket).unwrap_or(u64::MAX);
                self.line("_bucket", labels, Some(Seconds(bound)));
                let _ = writeln!(self.text, " {below}");
            }
        }
        self.line("_sum", labels, None);
        let _ = writeln!(self.text, " {}", Seconds(total.sum_us));
        self.line("_count", labels, None);
        let _ = writeln!(self.text, " {below}");
    }

    /// Returns the page's text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<Seconds>) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        if labels.is_empty() && bound.is_none() {
            return;
        }
        self.text.push('{');
        for (name, value) in labels {
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push_str("\",");
        }
        if let Some(bound) = bound {
            let _ = write!(self.text, "le=\"{bound}\"");
        } else {
            self.text.pop();
        }
        self.text.push('}');
    }
}

/// Microseconds shown as seconds without trailing zeros. The largest number is infinity.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == u64::MAX {
            return f.write_str("+Inf");
        }
        let (whole, us) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if us == 0 {
            return write!(f, "{whole}");
        }
        f.write_str(format!("{whole}.{us:06}").trim_end_matches('0'))
    }
}
