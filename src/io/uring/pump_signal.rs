//! Which of a task's operations has news.
//!
//! A task waits on several operations at once and is woken by any of them. Asking all of them again would cost more
//! than the news is worth, so each half of a connection is woken through a [`PumpSignal`] of its own, which notes that
//! something is due and wakes the task behind it. A half without news answers from one flag.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// The state that a half shares with its pump, and the bell between them.
pub(super) struct PumpSignal<S> {
    due: Cell<bool>,
    task: RefCell<Option<Waker>>,
    state: S,
}

impl<S> Deref for PumpSignal<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S> PumpSignal<S> {
    pub(super) fn new(state: S) -> Rc<Self> {
        Rc::new(Self {
            due: Cell::new(false),
            task: RefCell::new(None),
            state,
        })
    }

    /// Lets the task of `cx` be the one that is woken, and says whether there are news.
    #[inline]
    pub(super) fn is_due(&self, cx: &Context<'_>) -> bool {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.due.get()
    }

    /// Takes note of the news and gives the waker that tells of the next.
    pub(super) fn listen(self: &Rc<Self>) -> Waker {
        self.due.set(false);
        let data = Rc::into_raw(self.clone()).cast();
        // SAFETY: the table's functions treat the pointer as what it is, one count of an `Rc<PumpSignal<S>>`. The waker is
        // only handed to operations of this thread's own ring, so no other thread ever touches the count.
        unsafe { Waker::from_raw(RawWaker::new(data, Self::TABLE)) }
    }

    const TABLE: &'static RawWakerVTable = &RawWakerVTable::new(
        |data| {
            // SAFETY: `data` is an `Rc<PumpSignal<S>>` that lives; one more count is taken for the clone.
            unsafe { Rc::increment_strong_count(data.cast::<Self>()) };
            RawWaker::new(data, Self::TABLE)
        },
        |data| {
            // SAFETY: waking by value gives the waker's count back.
            let signal = unsafe { Rc::from_raw(data.cast::<Self>()) };
            signal.ring();
        },
        |data| {
            // SAFETY: waking by reference leaves the count alone; the waker keeps the slot alive meanwhile.
            let signal = unsafe { &*data.cast::<Self>() };
            signal.ring();
        },
        |data| {
            // SAFETY: the waker's own count goes with it.
            unsafe { Rc::decrement_strong_count(data.cast::<Self>()) };
        },
    );

    fn ring(&self) {
        self.due.set(true);
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn news_wake_the_task_that_asked_last_and_counts_come_out_even() {
        let counts = [0, 0].map(|n| Arc::new(Count(AtomicUsize::new(n))));
        let wakers = counts.clone().map(Waker::from);
        let signal = PumpSignal::new(7);
        assert_eq!(**signal, 7);
        let [first, second] = &wakers;
        assert!(!signal.is_due(&Context::from_waker(first)));
        let bell = signal.listen();
        let copy = bell.clone();
        copy.wake_by_ref();
        assert!(
            signal.is_due(&Context::from_waker(second)),
            "news stay until they are listened to"
        );
        copy.wake();
        drop(signal.listen());
        assert!(!signal.is_due(&Context::from_waker(second)));
        drop(bell);
        assert_eq!(Rc::strong_count(&signal), 1);
        assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [1, 1]);
    }
}
