//! Reports from cores to control, in a bounded queue.
//!
//! A core reports an event about which control decides or logs for the whole process. Counters say how often it
//! happened; a report says at once what happened, and why. If the queue is full, the core drops the report and counts
//! it, so a report never blocks a core.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use weir_config::FailureKind;

use super::limits::REPORTS_MAX;
use super::{CoreObs, LogLevel, Obs};
use crate::shared::count_shared_write;

/// An event that a core has seen and control handles.
#[derive(Debug)]
pub enum CoreReport {
    /// A core cannot listen on a socket that control has bound.
    ListenFailed {
        core: usize,
        listener: Arc<str>,
        error: io::Error,
    },
    /// TLS with an endpoint has failed, in the handshake or by an alert after it.
    EndpointTlsFailed {
        /// The endpoint as the process log names it.
        endpoint: String,
        cause: String,
    },
    /// The circuit breaker of an upstream has opened.
    CircuitOpened { upstream: Arc<str> },
    /// It has closed again.
    CircuitClosed { upstream: Arc<str> },
    /// A core has stopped using an endpoint, because its last attempts have failed. Control decides for all cores.
    EndpointFailing {
        upstream: Arc<str>,
        endpoint: Arc<str>,
        /// The last of the failures.
        cause: EjectionCause,
    },
    /// An endpoint that comes back from an ejection has given a good answer.
    EndpointAnswers {
        upstream: Arc<str>,
        endpoint: Arc<str>,
    },
    /// An attempt has failed. Control may check the endpoint before its time.
    EndpointSuspect {
        upstream: Arc<str>,
        endpoint: Arc<str>,
    },
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionCause {
    /// Attempts have failed.
    Fault(FailureKind),
    /// The endpoint has answered with this status.
    Status(u16),
    /// Too few of its answers are good.
    SuccessRate,
}

impl fmt::Display for EjectionCause {
    /// The word for it in metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(kind) => f.write_str(kind.word()),
            Self::Status(status) => status.fmt(f),
            Self::SuccessRate => f.write_str("success_rate"),
        }
    }
}

impl CoreReport {
    /// The level of the report in the process log.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        match self {
            Self::ListenFailed { .. } => LogLevel::Error,
            Self::EndpointTlsFailed { .. }
            | Self::CircuitOpened { .. }
            | Self::EndpointFailing { .. } => LogLevel::Warn,
            Self::CircuitClosed { .. }
            | Self::EndpointAnswers { .. }
            | Self::EndpointSuspect { .. } => LogLevel::Info,
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
            Self::CircuitOpened { upstream } => {
                write!(
                    f,
                    "the circuit of upstream {upstream} has opened: too many requests failed"
                )
            }
            Self::CircuitClosed { upstream } => {
                write!(
                    f,
                    "the circuit of upstream {upstream} has closed: requests succeed again"
                )
            }
            Self::EndpointFailing {
                upstream,
                endpoint,
                cause,
            } => write!(
                f,
                "endpoint {endpoint} of upstream {upstream} fails: {cause}"
            ),
            Self::EndpointAnswers { upstream, endpoint } => {
                write!(
                    f,
                    "endpoint {endpoint} of upstream {upstream} answers again"
                )
            }
            Self::EndpointSuspect { upstream, endpoint } => {
                write!(f, "endpoint {endpoint} of upstream {upstream} may fail")
            }
        }
    }
}

/// The reports of all cores that control has not read.
#[derive(Clone, Debug)]
pub(super) struct ReportQueue(Arc<ArrayQueue<CoreReport>>);

impl ReportQueue {
    pub(super) fn pop(&self) -> Option<CoreReport> {
        self.0.pop()
    }
}

impl Default for ReportQueue {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(REPORTS_MAX)))
    }
}

impl CoreObs {
    /// Reports to control. If the queue is full, drops the report and counts it.
    #[cold]
    pub fn report(&self, report: CoreReport) {
        count_shared_write();
        if self.shared.reports.0.push(report).is_err() {
            self.shared.counts.reports_dropped.add(1);
        }
    }
}

impl Obs {
    /// Takes the reports since the last call, at most as many as the queue holds. Equal reports of several cores become
    /// one.
    pub fn take_reports(&self) -> Vec<CoreReport> {
        let mut texts = HashSet::new();
        let reports = std::iter::from_fn(|| self.reports.0.pop());
        reports
            .take(REPORTS_MAX)
            .filter(|report| texts.insert(report.to_string()))
            .collect()
    }
}
