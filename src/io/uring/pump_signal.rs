//! Tells a task which half of its connection has news.
//!
//! A task waits on several operations at once, and any of them may wake it. Polling all of them on every wake would
//! cost more than the news is worth. So each half wakes through a [`PumpSignal`] of its own, which records the news and
//! wakes the task. A half without news answers after reading one flag.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// The state that a half shares with its pump, and the signal from the pump to the half.
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

    /// Registers the task of `cx` as the one to wake. Returns whether there is news.
    #[inline]
    pub(super) fn is_due(&self, cx: &Context<'_>) -> bool {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.due.get()
    }

    /// Clears the news and returns a waker that signals the next.
    pub(super) fn listen(self: &Rc<Self>) -> Waker {
        self.due.set(false);
        let data = Rc::into_raw(self.clone()).cast();
        // SAFETY: the table's functions treat the pointer as one count of an `Rc<PumpSignal<S>>`, which it is. The
        // waker goes only to operations of this thread's own ring, so no other thread touches the count.
        unsafe { Waker::from_raw(RawWaker::new(data, Self::TABLE)) }
    }

    const TABLE: &'static RawWakerVTable = &RawWakerVTable::new(
        |data| {
            // SAFETY: `data` is a live `Rc<PumpSignal<S>>`; this adds a count for the clone.
            unsafe { Rc::increment_strong_count(data.cast::<Self>()) };
            RawWaker::new(data, Self::TABLE)
        },
        |data| {
            // SAFETY: waking by value takes the waker's own count back.
            let signal = unsafe { Rc::from_raw(data.cast::<Self>()) };
            signal.ring();
        },
        |data| {
            // SAFETY: waking by reference leaves the count alone; the waker keeps the signal alive meanwhile.
            let signal = unsafe { &*data.cast::<Self>() };
            signal.ring();
        },
        |data| {
            // SAFETY: this drops the waker's own count.
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
    use super::*;
    use crate::io::wake_counter::WakeCounter;

    #[test]
    fn a_signal_wakes_the_last_task_and_leaks_no_count() {
        let ((first_wakes, first), (second_wakes, second)) =
            (WakeCounter::new(), WakeCounter::new());
        let signal = PumpSignal::new(7);
        assert_eq!(**signal, 7);
        assert!(!signal.is_due(&Context::from_waker(&first)));
        let bell = signal.listen();
        let copy = bell.clone();
        copy.wake_by_ref();
        assert!(
            signal.is_due(&Context::from_waker(&second)),
            "news stays until listen clears it"
        );
        copy.wake();
        drop(signal.listen());
        assert!(!signal.is_due(&Context::from_waker(&second)));
        drop(bell);
        assert_eq!(Rc::strong_count(&signal), 1);
        assert_eq!((first_wakes.count(), second_wakes.count()), (1, 1));
    }
}
