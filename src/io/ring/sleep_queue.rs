//! Sleeps: a handful a core, since connections use the core's own timers.
//!
//! The kernel is told of a time only if it is earlier than all that it has been told of: what is waited for most is a
//! tick that comes again and again, and a timer set and taken back with every wait would cost more than the tick.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::Instant;
use super::driver::Driver;

/// Who sleeps until when.
#[derive(Default)]
pub(super) struct SleepQueue {
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    count: Cell<u64>,
    /// The times that the kernel has been told of, each earlier than the one before.
    told: RefCell<Vec<Instant>>,
}

impl SleepQueue {
    /// How long from `now` to the next wake-up, if the kernel has to be told of it.
    pub(super) fn wanted(&self, now: Instant) -> Option<Duration> {
        let (&(at, _), _) = self.sleepers.borrow().first_key_value()?;
        let mut told = self.told.borrow_mut();
        if at == Instant::NEVER || told.last().is_some_and(|&last| last <= at) {
            return None;
        }
        told.push(at);
        Some(at.since(now))
    }

    /// The earliest of the times that the kernel was told of has come.
    pub(super) fn came(&self) {
        self.told.borrow_mut().pop();
    }

    /// Wakes those whose time has come. Says whether there were any.
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

/// Waits until a time has come.
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
        if driver.now.get() >= at {
            return Poll::Ready(());
        }
        let timers = &driver.timers;
        let count = *self.count.get_or_insert_with(|| {
            timers.count.set(timers.count.get() + 1);
            timers.count.get()
        });
        let waker = cx.waker().clone();
        timers.sleepers.borrow_mut().insert((at, count), waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(count) = self.count {
            let mut sleepers = self.driver.timers.sleepers.borrow_mut();
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
    fn the_kernel_is_told_of_earlier_times_only() {
        let timers = SleepQueue::default();
        let sleep = |at| {
            let mut sleepers = timers.sleepers.borrow_mut();
            sleepers.insert((Instant(at), 0), Waker::noop().clone());
        };
        assert_eq!(timers.wanted(Instant(0)), None);
        sleep(u64::MAX);
        assert_eq!(timers.wanted(Instant(0)), None, "never comes");
        sleep(500);
        assert_eq!(timers.wanted(Instant(100)), Some(Duration::from_nanos(400)));
        assert_eq!(timers.wanted(Instant(100)), None, "it knows");
        sleep(300);
        assert_eq!(timers.wanted(Instant(100)), Some(Duration::from_nanos(200)));
        assert!(!timers.fire(Instant(299)));
        timers.came();
        assert!(timers.fire(Instant(300)));
        assert_eq!(timers.wanted(Instant(300)), None, "500 is still known");
        timers.came();
        assert_eq!(
            timers.wanted(Instant(499)),
            Some(Duration::from_nanos(1)),
            "it came too early, so it is told again"
        );
    }
}
