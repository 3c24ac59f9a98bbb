//! A queue of tasks that wait to do costly work: a signature, or a piece of compression. Such work costs as much as many
//! requests, so without a limit a storm of it would starve the rest of the core.
//!
//! A core allows a few steps and then runs everything else that is waiting before it allows more. The other tasks wait
//! in order of arrival. To learn when the rest has run, the queue rings the core's own doorbell: the ring arrives behind
//! everything that came before it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The tasks of one core that wait for a step of costly work.
pub struct WorkQueue {
    /// How many steps the core allows before it runs everything else.
    steps_max: usize,
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<WorkTurn>>>,
    rung: Cell<bool>,
    ring: Box<dyn Fn()>,
}

/// A task's place in the queue. Dropping it leaves the queue.
#[derive(Default)]
pub struct WorkTurn {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Where a task enters the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In front of all others: the task goes on with what it has begun.
    Front,
    /// Behind all others.
    Back,
}

impl WorkQueue {
    /// Makes a queue that allows `steps_max` steps at a time. `ring` must make the core call [`WorkQueue::grant_next`]
    /// once it has run everything else.
    pub fn new(steps_max: usize, ring: impl Fn() + 'static) -> Rc<Self> {
        Rc::new(Self {
            steps_max,
            taken: Cell::new(0),
            waiting: RefCell::default(),
            rung: Cell::new(false),
            ring: Box::new(ring),
        })
    }

    /// Lets the next tasks step, because the core has run everything else.
    pub fn grant_next(&self) {
        if !self.rung.replace(false) {
            return;
        }
        self.taken.set(0);
        while self.taken.get() < self.steps_max {
            let Some(turn) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            // The task holds the other count.
            if Rc::strong_count(&turn) > 1 {
                turn.granted.set(true);
                let waker = turn.waker.take();
                self.take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// Waits for the right to take one step. `turn` keeps the place in the queue.
    pub fn poll_turn(&self, cx: &Context<'_>, turn: &mut Option<Rc<WorkTurn>>) -> Poll<()> {
        self.poll_turn_from(cx, turn, Place::Back)
    }

    /// Like [`WorkQueue::poll_turn`], but a place that is new in the queue may be the first one.
    pub fn poll_turn_from(
        &self,
        cx: &Context<'_>,
        turn: &mut Option<Rc<WorkTurn>>,
        place: Place,
    ) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        match turn {
            Some(own) if own.granted.get() => {}
            Some(own) => {
                *own.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            None if waiting.is_empty() && self.taken.get() < self.steps_max => {
                drop(waiting);
                self.take();
                return Poll::Ready(());
            }
            None => {
                let own = Rc::new(WorkTurn::default());
                *own.waker.borrow_mut() = Some(cx.waker().clone());
                match place {
                    Place::Front => waiting.push_front(own.clone()),
                    Place::Back => waiting.push_back(own.clone()),
                }
                *turn = Some(own);
                return Poll::Pending;
            }
        }
        *turn = None;
        Poll::Ready(())
    }

    fn take(&self) {
        self.taken.set(self.taken.get() + 1);
        if self.taken.get() >= self.steps_max && !self.rung.replace(true) {
            (self.ring)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS_MAX: usize = 4;

    #[test]
    fn tasks_step_up_to_the_limit_and_then_in_order() {
        let rings = Rc::new(Cell::new(0));
        let counted = rings.clone();
        let queue = WorkQueue::new(STEPS_MAX, move || counted.set(counted.get() + 1));
        let cx = Context::from_waker(Waker::noop());
        let mut turns: Vec<Option<Rc<WorkTurn>>> = vec![None; 3 * STEPS_MAX];
        let go = |turns: &mut Vec<Option<Rc<WorkTurn>>>| -> Vec<usize> {
            let ready = |(i, turn): (usize, &mut Option<Rc<WorkTurn>>)| {
                queue.poll_turn(&cx, turn).is_ready().then_some(i)
            };
            turns.iter_mut().enumerate().filter_map(ready).collect()
        };
        let first: Vec<_> = (0..STEPS_MAX).collect();
        assert_eq!(go(&mut turns), first);
        assert_eq!(rings.get(), 1, "one ring for all waiting tasks");
        // The first ones have stepped. One of the waiting ones gives up.
        let mut waiting = turns.split_off(STEPS_MAX);
        assert!(go(&mut waiting).is_empty());
        drop(waiting.remove(0));
        queue.grant_next();
        assert_eq!(go(&mut waiting), first);
        let mut newcomer = vec![None];
        assert!(go(&mut newcomer).is_empty(), "a newcomer does not overtake");
    }

    #[test]
    fn a_task_that_goes_on_is_the_next() {
        let queue = WorkQueue::new(1, || ());
        let cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (None, None);
        assert!(queue.poll_turn(&cx, &mut first).is_ready());
        assert!(queue.poll_turn(&cx, &mut second).is_pending());
        let mut go_on = || queue.poll_turn_from(&cx, &mut first, Place::Front);
        assert!(go_on().is_pending());
        queue.grant_next();
        assert!(queue.poll_turn(&cx, &mut second).is_pending());
        assert!(go_on().is_ready());
        queue.grant_next();
        assert!(queue.poll_turn(&cx, &mut second).is_ready());
    }
}
