//! The records of names and sources: the last good answer, the failures since, and the time of the next question.

use std::time::{Duration, Instant};

use crate::control::limits;

/// The record of one name or source.
#[derive(Debug)]
pub(super) struct Record<T> {
    /// The last good answer. It stays while later questions fail.
    pub(super) good: Option<T>,
    /// How the last question failed.
    pub(super) failure: Option<Failure>,
    /// All failures.
    pub(super) failures: u64,
    /// When to ask again.
    due: Instant,
    /// The ticket of the question under way.
    asked: Option<u64>,
}

/// A row of failed questions.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Why the last one failed.
    pub(super) why: String,
    /// When the first one failed.
    pub(super) since: Instant,
    /// How many failed.
    pub(super) tries: u32,
    /// When the log had one of them.
    logged: Instant,
}

/// What a good answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Success {
    /// It differs from the last good one.
    pub(super) is_new: bool,
    /// How long questions failed before it.
    pub(super) failed_for: Option<Duration>,
}

impl<T: PartialEq> Record<T> {
    /// A record of something that is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            good: None,
            failure: None,
            failures: 0,
            due: now,
            asked: None,
        }
    }

    /// Whether it is time to ask, and no question is under way.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.asked.is_none() && self.due <= now
    }

    /// The time until the next question.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Notes that the question `ticket` begins.
    pub(super) fn begin(&mut self, ticket: u64) {
        self.asked = Some(ticket);
    }

    /// Notes that the question `ticket` is over.
    pub(super) fn end(&mut self, ticket: u64) {
        self.asked.take_if(|asked| *asked == ticket);
    }

    /// Takes a good answer over. The next question is due after `age` and up to a tenth more, so that boxes that started
    /// together do not ask together.
    pub(super) fn succeed(&mut self, good: T, age: Duration, now: Instant) -> Success {
        let is_new = self.good.as_ref() != Some(&good);
        self.good = Some(good);
        self.due = now + age.mul_f64(1.0 + 0.1 * fastrand::f64());
        let failure = self.failure.take();
        Success {
            is_new,
            failed_for: failure.map(|failure| now - failure.since),
        }
    }

    /// Notes that nothing has changed since the last answer, good or bad, and when to ask again.
    pub(super) fn stay(&mut self, age: Duration, now: Instant) {
        self.due = now + age.mul_f64(1.0 + 0.1 * fastrand::f64());
    }

    /// Whether to log the failure again: the log has had it an hour ago.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<&Failure> {
        let is_overdue =
            |failure: &&mut Failure| now >= failure.logged + limits::DISCOVERY_LOG_INTERVAL;
        let failure = self.failure.as_mut().filter(is_overdue)?;
        failure.logged = now;
        Some(failure)
    }

    /// Notes a failure, and asks again after `age` at the latest. Returns whether to log it: the first of a row, and one
    /// an hour.
    pub(super) fn fail(&mut self, why: String, age: Option<Duration>, now: Instant) -> bool {
        self.failures += 1;
        let mut failure = self.failure.take().unwrap_or_else(|| Failure {
            why: String::new(),
            since: now,
            tries: 0,
            logged: now,
        });
        let is_logged =
            failure.tries == 0 || now >= failure.logged + limits::DISCOVERY_LOG_INTERVAL;
        if is_logged {
            failure.logged = now;
        }
        failure.tries = failure.tries.saturating_add(1);
        failure.why = why;
        let wait = backoff(failure.tries);
        self.due = now + age.map_or(wait, |age| age.min(wait));
        self.failure = Some(failure);
        is_logged
    }
}

/// The wait after so many failed questions. It doubles, with jitter so that boxes that started together do not ask
/// together.
fn backoff(tries: u32) -> Duration {
    let doubled = limits::NAMES_RETRY.saturating_mul(1 << (tries - 1).min(16));
    doubled
        .min(limits::NAMES_RETRY_MAX)
        .mul_f64(0.75 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_questions_back_off_with_jitter() {
        for (tries, seconds) in [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (40, 60.0)] {
            let pause = backoff(tries).as_secs_f64();
            assert!(
                (seconds * 0.74..seconds * 1.26).contains(&pause),
                "{tries}: {pause}"
            );
        }
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_and_is_logged_once_an_hour() {
        let begun = Instant::now();
        let mut record = Record::new(begun);
        assert!(record.is_due(begun));
        let success = record.succeed(1, Duration::from_secs(10), begun);
        assert!(success.is_new && success.failed_for.is_none());
        assert!(!record.is_due(begun + Duration::from_secs(9)));
        assert!(record.is_due(begun + Duration::from_secs(11)));
        assert!(record.fail("down".to_owned(), None, begun));
        assert!(!record.fail("down".to_owned(), None, begun + Duration::from_secs(3599)));
        assert!(record.fail("down".to_owned(), None, begun + Duration::from_secs(3600)));
        assert!(!record.fail("down".to_owned(), None, begun + Duration::from_secs(3601)));
        assert!(
            record
                .take_overdue(begun + Duration::from_secs(7100))
                .is_none()
        );
        assert!(
            record
                .take_overdue(begun + Duration::from_secs(7200))
                .is_some()
        );
        assert_eq!((record.good, record.failures), (Some(1), 4));
        let later = begun + Duration::from_secs(4000);
        let success = record.succeed(1, Duration::from_secs(10), later);
        assert!(!success.is_new);
        assert_eq!(success.failed_for, Some(Duration::from_secs(4000)));
    }

    #[test]
    fn only_the_question_that_is_under_way_can_end() {
        let now = Instant::now();
        let mut record = Record::<u8>::new(now);
        record.begin(1);
        assert!(!record.is_due(now));
        record.begin(2);
        record.end(1);
        assert!(!record.is_due(now));
        record.end(2);
        assert!(record.is_due(now));
    }
}
