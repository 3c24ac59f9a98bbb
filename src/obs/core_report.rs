//! What cores report to control: a bounded queue upward.
//!
//! A report is evidence from one core about something that control decides or tells for the whole process. Counters are
//! the truth about how often it happened; a report says at once what happened, and why. A full queue never blocks a
//! core: the core drops the report and counts it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::limits::REPORTS_MAX;
use super::{CoreObs, LogLevel, Obs};

/// What one core has seen and control acts on.
#[derive(Debug)]
pub enum CoreReport {
    /// A core cannot listen on a socket that control has bound.
    ListenFailed {
        /// The core's index.
        core: usize,
        /// The listener's name.
        listener: Arc<str>,
        /// What the system said.
        error: io::Error,
    },
    /// TLS with an endpoint has failed, in the handshake or by an alert after it.
    EndpointTlsFailed {
        /// The endpoint, as the process log names it.
        endpoint: String,
        /// Why.
        cause: String,
    },
}

impl CoreReport {
    /// How urgent it is in the process log.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        match self {
            Self::ListenFailed { .. } => LogLevel::Error,
            Self::EndpointTlsFailed { .. } => LogLevel::Warn,
        }
    }
}

impl fmt::Display for CoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListenFailed {
                core,
                listener,
                error,
            } => write!(f, "core {core} cannot listen on {listener}: {error}"),
            Self::EndpointTlsFailed { endpoint, cause } => {
                write!(f, "TLS to {endpoint} failed: {cause}")
            }
        }
    }
}

/// The reports that control has not read yet, of all cores.
#[derive(Clone, Debug)]
pub(super) struct ReportQueue(Arc<ArrayQueue<CoreReport>>);

impl Default for ReportQueue {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(REPORTS_MAX)))
    }
}

impl CoreObs {
    /// Reports to control. If the queue is full, the report is dropped and counted.
    #[cold]
    pub fn report(&self, report: CoreReport) {
        if self.shared.reports.0.push(report).is_err() {
            self.shared.counts.reports_dropped.add(1);
        }
    }
}

impl Obs {
    /// Takes the reports that cores have sent since the last call, at most as many as the queue holds. Several cores
    /// that report the same are one.
    pub fn take_reports(&self) -> Vec<CoreReport> {
        let mut texts = HashSet::new();
        let reports = std::iter::from_fn(|| self.reports.0.pop());
        reports
            .take(REPORTS_MAX)
            .filter(|report| texts.insert(report.to_string()))
            .collect()
    }
}
