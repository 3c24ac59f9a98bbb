//! What the outcomes of attempts say about endpoints: a core that sees several failures in a row stops using an endpoint
//! at once and reports it to control, which decides for all cores.
//!
//! The core's own ejection lasts until control answers, or for [`LOCAL_EJECTION_MS`]. A report can get lost in a full
//! queue. Then the next failure after that time ejects the endpoint and reports it again, so no core keeps unsent reports.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use weir_config::{Eject, FailureKind};

use super::{Endpoint, EndpointStatus, Upstream};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Instant, Net};
use crate::limits::{LOCAL_EJECTION_MS, SUSPICION_MS};
use crate::obs::{CoreReport, EjectionCause};

/// The recent outcomes of an endpoint on one core.
#[derive(Default)]
pub(super) struct Outcomes {
    /// Failures since the last good answer.
    failures: Cell<u32>,
    /// When the core last reported something other than an ejection.
    reported_at: Cell<Option<Instant>>,
}

impl Outcomes {
    /// Begins to count anew.
    pub(super) fn reset(&self) {
        self.failures.set(0);
    }
}

impl<N: Net> Upstream<N> {
    /// Notes a whole answer, by its status.
    #[inline]
    pub fn record_answer(&self, endpoint: &Endpoint<N>, eject: Option<&Eject>, status: u16) {
        let Some(eject) = eject else { return };
        if eject.success_rate.is_some() {
            endpoint
                .slot
                .count_outcome(!eject.errors.has_status(status));
        }
        if status >= 400 && eject.errors.has_status(status) {
            self.record_failure(endpoint, eject, EjectionCause::Status(status));
        } else if endpoint.outcomes.failures.get() > 0 || endpoint.is_on_trial() {
            self.record_success(endpoint);
        }
    }

    /// Notes a connection without HTTP on which the endpoint has sent bytes.
    pub fn record_service(&self, endpoint: &Endpoint<N>, eject: Option<&Eject>) {
        if eject.is_some_and(|eject| eject.success_rate.is_some()) {
            endpoint.slot.count_outcome(true);
        }
        if eject.is_some() && (endpoint.outcomes.failures.get() > 0 || endpoint.is_on_trial()) {
            self.record_success(endpoint);
        }
    }

    /// Notes an attempt that failed because of its endpoint.
    #[cold]
    pub fn record_fault(&self, endpoint: &Endpoint<N>, eject: Option<&Eject>, fault: Fault) {
        let Some(kind) = kind_of(fault) else { return };
        self.suspect(endpoint);
        if let Some(eject) = eject
            && eject.errors.has(kind)
        {
            if eject.success_rate.is_some() {
                endpoint.slot.count_outcome(false);
            }
            self.record_failure(endpoint, eject, EjectionCause::Fault(kind));
        }
    }

    #[cold]
    fn record_success(&self, endpoint: &Endpoint<N>) {
        endpoint.outcomes.reset();
        if endpoint.is_on_trial() && self.may_report(endpoint) {
            self.obs.borrow().report(CoreReport::EndpointAnswers {
                upstream: self.name.clone(),
                endpoint: endpoint.name.clone(),
            });
        }
    }

    #[cold]
    fn record_failure(&self, endpoint: &Endpoint<N>, eject: &Eject, cause: EjectionCause) {
        if EndpointStatus::unpack(endpoint.status_word.get()).is_ejected
            || endpoint.local_ejection.get().is_some()
        {
            return;
        }
        let failures = endpoint.outcomes.failures.get().saturating_add(1);
        endpoint.outcomes.failures.set(failures);
        if failures < eject.failures && !endpoint.is_on_trial() {
            return;
        }
        if !self.has_other_usable(endpoint) {
            // Without this endpoint, requests would have none.
            return;
        }
        let now = self.core.ticked_at();
        let end = now + Duration::from_millis(LOCAL_EJECTION_MS);
        endpoint.local_ejection.set(Some(end));
        self.obs.borrow().report(CoreReport::EndpointFailing {
            upstream: self.name.clone(),
            endpoint: endpoint.name.clone(),
            cause,
        });
        // Exchanges that run under a former plan have an upstream of their own.
        let queue = &self.queue;
        self.core
            .refresh_all(now, |upstream| Rc::ptr_eq(&upstream.queue, queue));
    }

    /// Brings the next check of an endpoint forward, if it has checks.
    fn suspect(&self, endpoint: &Endpoint<N>) {
        if self.is_checked && self.may_report(endpoint) {
            self.obs.borrow().report(CoreReport::EndpointSuspect {
                upstream: self.name.clone(),
                endpoint: endpoint.name.clone(),
            });
        }
    }

    /// Whether the last report about the endpoint was long enough ago.
    fn may_report(&self, endpoint: &Endpoint<N>) -> bool {
        let now = self.core.ticked_at();
        let last = &endpoint.outcomes.reported_at;
        let pause = Duration::from_millis(SUSPICION_MS);
        let is_due = last.get().is_none_or(|last| last + pause <= now);
        if is_due {
            last.set(Some(now));
        }
        is_due
    }

    /// Whether the balancer may choose another endpoint than this.
    fn has_other_usable(&self, endpoint: &Endpoint<N>) -> bool {
        let usable = self.usable.borrow();
        usable.endpoints.iter().any(|each| {
            let other = self.endpoints.get(each.index as usize);
            other.is_some_and(|other| !std::ptr::eq(&**other, endpoint))
        })
    }
}

impl<N: Net> Endpoint<N> {
    /// Whether the endpoint is on trial after an ejection, and gets few requests.
    #[inline]
    fn is_on_trial(&self) -> bool {
        EndpointStatus::unpack(self.status_word.get()).is_on_trial
    }
}

/// The kind of failure that a fault is (`eject.errors`). `None`: the endpoint is not to blame.
fn kind_of(fault: Fault) -> Option<FailureKind> {
    if fault.side != Side::Upstream {
        return None;
    }
    if fault.phase == Phase::Connect {
        return Some(FailureKind::Connect);
    }
    match fault.reason {
        Reason::FirstByteTimeout | Reason::UpstreamNotReading | Reason::UpstreamStalled => {
            Some(FailureKind::Timeout)
        }
        Reason::BadResponse | Reason::ResponseHeadTooLarge | Reason::BadUpgrade => {
            Some(FailureKind::Invalid)
        }
        // An endpoint that refuses a request unprocessed is about to restart, and serves the next one.
        _ => (fault.retry != Retry::Always).then_some(FailureKind::Reset),
    }
}
