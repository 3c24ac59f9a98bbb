//! Which failures lead to another attempt, and what that costs. `config/retries.md` has the table.

use weir_config::FailureKind;

use crate::fault::{Fault, Phase, Reason, Retry};
use crate::plan::RetryPlan;

/// The kinds of failure that differ in whether and when Weir repeats the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Weir could not connect: refused, unreachable, too late, or the TLS handshake failed. The endpoint has got
    /// nothing of the request.
    NotConnected,
    /// The endpoint says that it has not processed the request (RFC 9113 section 8.7).
    Refused,
    /// A reused connection ended before the first byte of the answer, and the request may be repeated. The endpoint may
    /// have closed it before the request arrived.
    Stale,
    /// The connection ended, the attempt ran out of time, or the answer is invalid; none of it has passed, and the
    /// request may be repeated.
    Unanswered,
    /// The endpoint answered with a status that is retried, and the request may be repeated.
    Unwanted,
    /// Anything else. Weir does not repeat the attempt.
    Lasting,
}

impl Failure {
    /// Classifies a fault. `was_stale`: the connection was reused, and no byte of an answer arrived on it.
    /// `may_repeat`: the rules name the request's method.
    pub(super) fn classify(
        fault: Fault,
        was_stale: bool,
        may_repeat: bool,
        plan: &RetryPlan,
    ) -> Self {
        match (fault.retry, fault.phase) {
            (Retry::Always, Phase::Connect) => Self::NotConnected,
            (Retry::Always, _) => Self::Refused,
            (Retry::Never, _) => Self::Lasting,
            (Retry::IfIdempotent, _) if !may_repeat => Self::Lasting,
            (Retry::IfIdempotent, _) => match kind_of_unanswered(fault.reason) {
                Some(kind) if !plan.repeats_on(kind) => Self::Lasting,
                Some(FailureKind::Reset) if was_stale => Self::Stale,
                _ => Self::Unanswered,
            },
        }
    }

    /// Classifies an answer by its status. `None`: the client gets the answer.
    #[inline]
    pub(super) fn classify_status(status: u16, may_repeat: bool, plan: &RetryPlan) -> Option<Self> {
        (may_repeat && plan.on.has_status(status)).then_some(Self::Unwanted)
    }
}

/// The word for the failure of a request that was sent. `None` for a time limit: the relay has checked the rules.
fn kind_of_unanswered(reason: Reason) -> Option<FailureKind> {
    match reason {
        Reason::FirstByteTimeout | Reason::UpstreamNotReading => None,
        Reason::BadResponse | Reason::ResponseHeadTooLarge => Some(FailureKind::Invalid),
        _ => Some(FailureKind::Reset),
    }
}

/// How an attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// At once, because an endpoint was not tried yet, or because only a stale connection failed.
    AtOnce,
    /// After the route's backoff.
    AfterBackoff,
}

/// The failures of one exchange so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    /// How often Weir could not connect.
    connects: u32,
    /// Repeats that count against `retries_max`.
    repeats: u32,
    met_stale: bool,
}

impl Failures {
    /// Whether a reused connection was dead. If so, the next attempt opens a new one.
    pub(super) fn has_met_stale(self) -> bool {
        self.met_stale
    }

    /// Counts a second attempt beside the first as a retry, if one is left.
    pub(super) fn count_hedge(&mut self, plan: &RetryPlan) -> bool {
        let is_allowed = self.repeats < plan.retries_max;
        self.repeats += u32::from(is_allowed);
        is_allowed
    }

    /// Counts a failure, and returns how to repeat the attempt. `None`: no attempt follows. `has_untried`: some
    /// endpoint was not tried.
    pub(super) fn repeat_after(
        &mut self,
        failure: Failure,
        plan: &RetryPlan,
        has_untried: bool,
        take_from_budget: impl FnOnce() -> bool,
    ) -> Option<Repeat> {
        let pause = if has_untried {
            Repeat::AtOnce
        } else {
            Repeat::AfterBackoff
        };
        let is_allowed = self.repeats < plan.retries_max;
        let repeat = match failure {
            Failure::NotConnected => {
                self.connects += 1;
                let may_try_again = plan.repeats_on(FailureKind::Connect)
                    && self.connects + self.repeats <= plan.retries_max;
                let may_connect =
                    self.connects < plan.connects_max && (has_untried || may_try_again);
                return may_connect.then_some(pause);
            }
            Failure::Refused => is_allowed.then_some(pause),
            Failure::Stale => {
                if !std::mem::replace(&mut self.met_stale, true) && plan.retries_max > 0 {
                    return Some(Repeat::AtOnce);
                }
                is_allowed.then_some(Repeat::AtOnce)
            }
            // Without another endpoint, an error that an endpoint explains is better than another one.
            Failure::Unwanted => {
                (is_allowed && has_untried && take_from_budget()).then_some(Repeat::AtOnce)
            }
            Failure::Unanswered => {
                (is_allowed && take_from_budget()).then_some(Repeat::AfterBackoff)
            }
            Failure::Lasting => None,
        }?;
        self.repeats += 1;
        Some(repeat)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use weir_config::FailureSet;

    use Failure::{Lasting, NotConnected, Refused, Stale, Unanswered, Unwanted};
    use Repeat::{AfterBackoff, AtOnce};

    fn plan(retries: Option<u32>) -> RetryPlan {
        RetryPlan {
            retries_max: retries.unwrap_or(0),
            connects_max: retries.map_or(1, |_| 3),
            budget_percent: 20,
            budget_min: 3,
            backoff: Duration::ZERO,
            per_try: None,
            ..RetryPlan::new(weir_config::Retries::default())
        }
    }

    /// Checks what follows each of `failures` at an upstream with this many endpoints.
    #[track_caller]
    fn assert_repeats(
        retries: Option<u32>,
        endpoints: usize,
        failures: &[Failure],
        want: &[Option<Repeat>],
    ) {
        let (plan, mut so_far) = (plan(retries), Failures::default());
        let mut asked = 0;
        let got: Vec<_> = failures
            .iter()
            .map(|&failure| {
                asked += 1;
                so_far.repeat_after(failure, &plan, asked < endpoints, || true)
            })
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_connection_that_cannot_be_made_goes_to_the_next_endpoint() {
        let three = [NotConnected; 3];
        for retries in [0, 1, 10] {
            let want = [Some(AtOnce), Some(AtOnce), None];
            assert_repeats(Some(retries), 5, &three, &want);
        }
        assert_repeats(None, 5, &three[..1], &[None]);
        // When every endpoint was tried, `retries_max` decides whether one is tried again.
        assert_repeats(Some(1), 2, &three[..2], &[Some(AtOnce), None]);
        let want = [Some(AtOnce), Some(AfterBackoff), None];
        assert_repeats(Some(2), 2, &three, &want);
        assert_repeats(Some(0), 1, &three[..1], &[None]);
        assert_repeats(Some(1), 1, &three[..2], &[Some(AfterBackoff), None]);
        let want = [Some(AfterBackoff), Some(AfterBackoff), None];
        assert_repeats(Some(9), 1, &three, &want);
        // It does not count against the repeats of requests that were sent.
        let mixed = [NotConnected, Unanswered, NotConnected, Unanswered];
        let want = [Some(AtOnce), Some(AfterBackoff), Some(AtOnce), None];
        assert_repeats(Some(1), 5, &mixed, &want);
    }

    #[test]
    fn a_sent_request_is_repeated_as_often_as_the_file_says() {
        for retries in [None, Some(0)] {
            for failure in [Refused, Stale, Unanswered, Lasting] {
                assert_repeats(retries, 5, &[failure], &[None]);
            }
        }
        assert_repeats(Some(1), 5, &[Refused; 2], &[Some(AtOnce), None]);
        assert_repeats(Some(1), 1, &[Refused; 2], &[Some(AfterBackoff), None]);
        assert_repeats(Some(1), 5, &[Unanswered; 2], &[Some(AfterBackoff), None]);
        assert_repeats(Some(1), 5, &[Lasting], &[None]);
        // The first dead connection costs nothing.
        let want = [Some(AtOnce), Some(AfterBackoff), None];
        assert_repeats(Some(1), 1, &[Stale, Unanswered, Unanswered], &want);
        assert_repeats(Some(1), 1, &[Stale; 3], &[Some(AtOnce), Some(AtOnce), None]);
    }

    #[test]
    fn only_sent_and_unanswered_requests_take_from_the_budget() {
        let plan = plan(Some(5));
        for failure in [NotConnected, Refused, Stale] {
            let refused = || panic!("{failure:?} takes from the budget");
            let next = Failures::default().repeat_after(failure, &plan, true, refused);
            assert_eq!(next, Some(AtOnce));
        }
        let next = Failures::default().repeat_after(Unanswered, &plan, true, || false);
        assert_eq!(next, None);
    }

    #[test]
    fn an_answer_is_heard_before_it_passes() {
        let on = |statuses| RetryPlan {
            on: FailureSet::of(&[], statuses),
            ..plan(Some(1))
        };
        let two = on(&[502, 503]);
        assert_eq!(Failure::classify_status(503, true, &two), Some(Unwanted));
        assert_eq!(Failure::classify_status(503, false, &two), None);
        assert_eq!(Failure::classify_status(500, true, &two), None);
        assert_eq!(Failure::classify_status(200, true, &two), None);
        assert_eq!(Failure::classify_status(503, true, &on(&[])), None);
        for retries in [None, Some(0)] {
            assert_repeats(retries, 5, &[Unwanted], &[None]);
        }
        assert_repeats(Some(1), 5, &[Unwanted; 2], &[Some(AtOnce), None]);
        assert_repeats(Some(9), 2, &[Unwanted; 2], &[Some(AtOnce), None]);
        assert_repeats(Some(9), 1, &[Unwanted], &[None]);
        let next = Failures::default().repeat_after(Unwanted, &plan(Some(5)), true, || false);
        assert_eq!(next, None, "the budget is spent");
    }

    #[test]
    fn faults_are_classified() {
        let fault = |phase, reason, retry| Fault::upstream(phase, reason, retry);
        let closed = fault(
            Phase::FirstByte,
            Reason::UpstreamClosed,
            Retry::IfIdempotent,
        );
        let by_default = plan(Some(1));
        let classify = |fault, was_stale, may_repeat| {
            Failure::classify(fault, was_stale, may_repeat, &by_default)
        };
        assert_eq!(classify(closed, true, true), Stale);
        assert_eq!(classify(closed, false, true), Unanswered);
        assert_eq!(classify(closed, true, false), Lasting);
        let late = fault(Phase::FirstByte, Reason::FirstByteTimeout, Retry::Never);
        assert_eq!(classify(late, true, true), Lasting);
        let refused = fault(Phase::FirstByte, Reason::UpstreamClosed, Retry::Always);
        assert_eq!(classify(refused, true, false), Refused);
        let invalid = fault(Phase::FirstByte, Reason::BadResponse, Retry::IfIdempotent);
        assert_eq!(classify(invalid, false, true), Unanswered);
        assert_eq!(classify(invalid, false, false), Lasting);
        // `on` names only statuses.
        let statuses = RetryPlan {
            on: FailureSet::of(&[], &[503]),
            ..by_default
        };
        for fault in [closed, invalid] {
            let class = Failure::classify(fault, true, true, &statuses);
            assert_eq!(class, Lasting);
        }
        assert_eq!(Failure::classify(refused, true, false, &statuses), Refused);
        for reason in [
            Reason::ConnectFailed,
            Reason::ConnectTimeout,
            Reason::UpstreamTlsCertificate,
        ] {
            let failed = fault(Phase::Connect, reason, Retry::Always);
            assert_eq!(classify(failed, false, false), NotConnected);
        }
    }
}
