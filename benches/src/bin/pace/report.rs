//! The result of a run, as one line.

use hdrhistogram::{AdditionError, Histogram};

/// Longer latencies count as this long.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

#[derive(Debug)]
pub(crate) struct Report {
    /// Good responses that ended in the measured time.
    pub(crate) requests: u64,
    /// Good responses in the whole run.
    pub(crate) answers: u64,
    /// Bad statuses, lost connections and missing responses in the whole run.
    pub(crate) errors: u64,
    /// Requests that were due but not sent when the measured time ended (open loop).
    pub(crate) unsent: u64,
    /// Connections that the server closed between two requests.
    pub(crate) reconnects: u64,
    /// Idle connections that were lost.
    pub(crate) idle_lost: u64,
    pub(crate) seconds: f64,
    latencies_ns: Histogram<u64>,
}

impl Report {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            requests: 0,
            answers: 0,
            errors: 0,
            unsent: 0,
            reconnects: 0,
            idle_lost: 0,
            seconds: 0.0,
            latencies_ns: Histogram::new_with_bounds(100, LATENCY_NS_MAX, 3)?,
        })
    }

    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.latencies_ns.saturating_record(latency_ns);
    }

    /// Adds what another thread measured at the same time.
    ///
    /// # Errors
    /// None, as all histograms have the same bounds.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.requests += other.requests;
        self.answers += other.answers;
        self.errors += other.errors;
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.idle_lost += other.idle_lost;
        self.seconds = self.seconds.max(other.seconds);
        self.latencies_ns.add(&other.latencies_ns)
    }

    /// The result as a line of JSON, with latencies in microseconds.
    pub(crate) fn line(&self) -> String {
        let us = |quantile: f64| self.latencies_ns.value_at_quantile(quantile) as f64 / 1e3;
        format!(
            concat!(
                "{{\"event\":\"result\",\"requests\":{},\"answers\":{},\"errors\":{},\"unsent\":{},\"reconnects\":{},",
                "\"idle_lost\":{},\"seconds\":{:.3},\"rate\":{:.1},\"mean_us\":{:.1},",
                "\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}"
            ),
            self.requests,
            self.answers,
            self.errors,
            self.unsent,
            self.reconnects,
            self.idle_lost,
            self.seconds,
            self.requests as f64 / self.seconds.max(1e-9),
            self.latencies_ns.mean() / 1e3,
            us(0.5),
            us(0.9),
            us(0.99),
            us(0.999),
            self.latencies_ns.max() as f64 / 1e3,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_quantiles_apart() {
        let mut report = Report::new().unwrap();
        report.seconds = 1.0;
        for us in 1..=1000 {
            report.requests += 1;
            report.record(us * 1000);
        }
        report.record(u64::MAX);
        let line = report.line();
        assert!(line.contains("\"requests\":1000,"), "{line}");
        assert!(line.contains("\"p50_us\":50"), "{line}");
        assert!(line.contains("\"p99_us\":99"), "{line}");
    }
}
