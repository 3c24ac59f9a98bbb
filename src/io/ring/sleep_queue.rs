//! Sleeps. There are only a few a core, because connections use the core's own timers.
//!
//! The driver arms a kernel timeout only for a time earlier than all armed ones. Most sleeps are a tick that comes
//! again and again, and arming and cancelling a timeout for every wait would cost more than the tick.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::Instant;
use super::driver::Driver;

/// Sleeping tasks by the time at which they wake.
#[derive(Default)]
pub(super) struct SleepQueue {
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    count: Cell<u64>,
    /// The armed kernel timeouts, each earlier than the one before.
    armed: RefCell<Vec<Instant>>,
}

impl SleepQueue {
    /// How long from `now` until the next sleep ends or until `other`, if that needs a new kernel timeout.
    pub(super) fn next_timeout(&self, now: Instant, other: Option<Instant>) -> Option<Duration> {
        let sleepers = self.sleepers.borrow();
        let first = sleepers.first_key_value().map(|(&(at, _), _)| at);
        let at = first.into_iter().chain(other).min()?;
        let mut armed = self.armed.borrow_mut();
        if at == Instant::NEVER || armed.last().is_some_and(|&last| last <= at) {
            return None;
        }
        armed.push(at);
        Some(at.since(now))
    }

    /// Removes the earliest timeout, which has fired.
    pub(super) fn timeout_fired(&self) {
        self.armed.borrow_mut().pop();
    }

    /// Wakes the tasks whose time has come. Returns whether there were any.
    pub(super) fn fire(&self, now: Instant) -> bool {
        let mut has_fired = false;
        loop {
            let mut sleepers = self.sleepers.borrow_mut();
            let Some(first) = sleepers.first_entry().filter(|first| first.key().0 <= now) else {
                return has_fired;
            };
            let waker = first.remove();
            drop(sleepers);
            waker.wake();
            has_fired = true;
        }
    }

    pub(super) fn clear(&self) {
        let sleepers = self.sleepers.take();
        drop(sleepers);
    }
}

/// Completes at a given time.
pub(super) struct Sleep {
    driver: Rc<Driver>,
    at: Instant,
    count: Option<u64>,
}

impl Sleep {
    pub(super) fn new(driver: Rc<Driver>, at: Instant) -> Self {
        Self {
            driver,
            at,
            count: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (driver, at) = (self.driver.clone(), self.at);
        if driver.clock.now() >= at {
            return Poll::Ready(());
        }
        let sleeps = &driver.sleeps;
        let count = *self.count.get_or_insert_with(|| {
            sleeps.count.set(sleeps.count.get() + 1);
            sleeps.count.get()
        });
        let waker = cx.waker().clone();
        sleeps.sleepers.borrow_mut().insert((at, count), waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(count) = self.count {
            let mut sleepers = self.driver.sleeps.sleepers.borrow_mut();
            let waker = sleepers.remove(&(self.at, count));
            drop(sleepers);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_sleeps_arm_a_new_timeout() {
        let sleeps = SleepQueue::default();
        let sleep = |at| {
            let mut sleepers = sleeps.sleepers.borrow_mut();
            sleepers.insert((Instant(at), 0), Waker::noop().clone());
        };
        assert_eq!(sleeps.next_timeout(Instant(0), None), None);
        sleep(u64::MAX);
        assert_eq!(
            sleeps.next_timeout(Instant(0), None),
            None,
            "a sleep without an end needs no timeout"
        );
        sleep(500);
        assert_eq!(
            sleeps.next_timeout(Instant(100), None),
            Some(Duration::from_nanos(400))
        );
        assert_eq!(
            sleeps.next_timeout(Instant(100), None),
            None,
            "already armed"
        );
        sleep(300);
        assert_eq!(
            sleeps.next_timeout(Instant(100), None),
            Some(Duration::from_nanos(200))
        );
        assert!(!sleeps.fire(Instant(299)));
        sleeps.timeout_fired();
        assert!(sleeps.fire(Instant(300)));
        assert_eq!(
            sleeps.next_timeout(Instant(300), None),
            None,
            "500 is still armed"
        );
        sleeps.timeout_fired();
        assert_eq!(
            sleeps.next_timeout(Instant(499), None),
            Some(Duration::from_nanos(1)),
            "it fired too early, so it is armed again"
        );
    }
}
