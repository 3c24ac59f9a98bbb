//! The tasks of one core and the queue of those that are ready.
//!
//! A waker is a number that names an executor, a slot and one of the slot's successive owners. Making, cloning or
//! dropping a waker touches no memory, so a waker may go anywhere. Waking looks up the executor of the calling thread.
//! On any thread but its own, the wake finds another executor's number or none, and does nothing. Other threads reach a
//! core by its doorbell.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use crate::limits::TABLE_PLACES;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The task that the loop runs for. It lies on the caller's stack.
pub(super) const ROOT: u32 = 0;

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
const INDEX_MAX: u32 = (1 << INDEX_BITS) - 1;

thread_local! {
    /// The executor of this thread. It is thread-local because a waker, being a number, has no other way to find it.
    static HERE: RefCell<Option<Rc<Tasks>>> = const { RefCell::new(None) };
}

pub(super) struct Tasks {
    id: u16,
    slots: RefCell<Vec<TaskSlot>>,
    free: RefCell<Vec<u32>>,
    queue: RefCell<VecDeque<u32>>,
}

/// Room for a task.
struct TaskSlot {
    /// `None` while the task runs, and for the root.
    task: Option<Task>,
    /// Tells the present owner from former ones, which old wakers may still name.
    generation: u32,
    is_live: bool,
    is_queued: bool,
}

// Each connection has one: see "Idle connections by owner" in src/ARCHITECTURE.md.
const _: () = assert!(size_of::<TaskSlot>() <= 24);

impl Tasks {
    /// Makes an executor whose root is ready.
    pub(super) fn new() -> Rc<Self> {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let root = TaskSlot {
            task: None,
            generation: 0,
            is_live: true,
            is_queued: true,
        };
        let mut slots = Vec::with_capacity(TABLE_PLACES);
        slots.push(root);
        Rc::new(Self {
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            slots: RefCell::new(slots),
            free: RefCell::default(),
            queue: RefCell::new(VecDeque::from([ROOT])),
        })
    }

    /// Lets wakes on this thread find this executor until the returned guard is dropped.
    pub(super) fn enter(self: &Rc<Self>) -> Entered {
        Entered {
            before: HERE.replace(Some(self.clone())),
        }
    }

    /// Starts a task; it runs behind the tasks that are ready already.
    pub(super) fn spawn(&self, task: Task) {
        let index = self.free.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let index = index.unwrap_or_else(|| {
            slots.push(TaskSlot {
                task: None,
                generation: 0,
                is_live: false,
                is_queued: false,
            });
            u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
        });
        assert!(index <= INDEX_MAX, "more tasks than a waker can name");
        let slot = &mut slots[index as usize];
        slot.task = Some(task);
        slot.is_live = true;
        slot.is_queued = true;
        drop(slots);
        self.queue.borrow_mut().push_back(index);
    }

    /// How many tasks are ready.
    pub(super) fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Takes the next ready task, with its waker.
    pub(super) fn next(&self) -> Option<(u32, Waker)> {
        let index = self.queue.borrow_mut().pop_front()?;
        let slot = &mut self.slots.borrow_mut()[index as usize];
        slot.is_queued = false;
        Some((index, self.waker(index, slot.generation)))
    }

    /// Polls a task from [`Tasks::next`]. Frees its slot when it completes or panics.
    pub(super) fn run(&self, index: u32, waker: &Waker) {
        let Some(mut task) = self.slots.borrow_mut()[index as usize].task.take() else {
            return;
        };
        let mut running = Running {
            tasks: self,
            index,
            is_done: true,
        };
        if task
            .as_mut()
            .poll(&mut Context::from_waker(waker))
            .is_pending()
        {
            self.slots.borrow_mut()[index as usize].task = Some(task);
            running.is_done = false;
        }
    }

    /// Drops every task, and those that the dropped ones start.
    pub(super) fn clear(&self) {
        loop {
            let left = |slot: &mut TaskSlot| slot.task.take();
            let tasks: Vec<Task> = self
                .slots
                .borrow_mut()
                .iter_mut()
                .filter_map(left)
                .collect();
            if tasks.is_empty() {
                return;
            }
        }
    }

    fn free(&self, index: u32) {
        let slot = &mut self.slots.borrow_mut()[index as usize];
        slot.generation = (slot.generation + 1) % (1 << GENERATION_BITS);
        slot.is_live = false;
        self.free.borrow_mut().push(index);
    }

    fn wake(&self, index: u32, generation: u32) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(index as usize) else {
            return;
        };
        if slot.is_live && !slot.is_queued && slot.generation == generation {
            slot.is_queued = true;
            drop(slots);
            self.queue.borrow_mut().push_back(index);
        }
    }

    fn waker(&self, index: u32, generation: u32) -> Waker {
        let name = usize::from(self.id) << (INDEX_BITS + GENERATION_BITS)
            | (generation as usize) << INDEX_BITS
            | index as usize;
        let data = ptr::without_provenance(name);
        // SAFETY: the pointer is a number, and the table's functions never follow it. So no memory can be freed too
        // early or touched by two threads.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }
}

static TABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &TABLE), wake, wake, |_| {});

/// Wakes the named task if its executor runs on this thread.
fn wake(data: *const ()) {
    let name = data.addr();
    // A thread that is ending has no executor any more.
    let _ = HERE.try_with(|here| {
        let here = here.borrow();
        let Some(tasks) = here.as_ref() else { return };
        if usize::from(tasks.id) == name >> (INDEX_BITS + GENERATION_BITS) {
            let generation = (name >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
            tasks.wake(name as u32 & INDEX_MAX, generation);
        }
    });
}

/// Restores the thread's former executor when dropped.
pub(super) struct Entered {
    before: Option<Rc<Tasks>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.before.take());
    }
}

/// A poll under way. Dropping it frees the slot unless the task is to stay.
struct Running<'a> {
    tasks: &'a Tasks,
    index: u32,
    is_done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.is_done {
            self.tasks.free(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// Runs all ready tasks and returns how many polls that took.
    fn drain(tasks: &Tasks) -> usize {
        let mut polls = 0;
        while let Some((index, waker)) = tasks.next() {
            tasks.run(index, &waker);
            polls += 1;
        }
        polls
    }

    /// A task that counts its polls and gives its waker out.
    fn counting(polls: &Rc<Cell<usize>>, left: &Rc<RefCell<Option<Waker>>>) -> Task {
        let (polls, left) = (polls.clone(), left.clone());
        Box::pin(poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            *left.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }))
    }

    #[test]
    fn a_wake_runs_its_task_once_and_the_next_owner_of_a_slot_never() {
        let tasks = Tasks::new();
        let _entered = tasks.enter();
        let left = Rc::new(RefCell::new(None));
        let (polls, copy) = (Rc::new(Cell::new(0)), left.clone());
        tasks.spawn(Box::pin(async move {
            let mut is_first = true;
            poll_fn(|cx| {
                *copy.borrow_mut() = Some(cx.waker().clone());
                if std::mem::take(&mut is_first) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }));
        assert_eq!(drain(&tasks), 2, "the root and the task");
        let stale = left.take().unwrap();
        stale.wake_by_ref();
        stale.wake_by_ref();
        assert_eq!(drain(&tasks), 1, "two wakes are one run");
        tasks.spawn(counting(&polls, &left));
        assert_eq!(tasks.slots.borrow().len(), 2, "the slot is reused");
        drain(&tasks);
        stale.wake();
        assert_eq!(drain(&tasks), 0, "its former owner has ended");
        left.borrow().as_ref().unwrap().wake_by_ref();
        drain(&tasks);
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn wakers_are_harmless_on_other_threads_and_after_their_executor() {
        let tasks = Tasks::new();
        let entered = tasks.enter();
        let (polls, left) = (Rc::default(), Rc::default());
        tasks.spawn(counting(&polls, &left));
        drain(&tasks);
        let waker = left.borrow().clone().unwrap();
        let copy = waker.clone();
        std::thread::spawn(move || {
            copy.wake_by_ref();
            // Another executor has a task in the same slot.
            let tasks = Tasks::new();
            let _entered = tasks.enter();
            tasks.spawn(Box::pin(std::future::pending()));
            drain(&tasks);
            copy.wake();
            assert_eq!(drain(&tasks), 0);
        })
        .join()
        .unwrap();
        assert_eq!(drain(&tasks), 0, "the wake came on another thread");
        drop(entered);
        waker.wake_by_ref();
        assert_eq!(drain(&tasks), 0);
        let _entered = tasks.enter();
        waker.wake();
        assert_eq!(drain(&tasks), 1);
    }

    #[test]
    fn a_panic_ends_its_task_alone() {
        let tasks = Tasks::new();
        let _entered = tasks.enter();
        let (polls, left) = (Rc::new(Cell::new(0)), Rc::default());
        tasks.spawn(Box::pin(async { panic!("wanted by the test") }));
        tasks.spawn(counting(&polls, &left));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drain(&tasks)));
        assert!(caught.is_err());
        assert_eq!((drain(&tasks), polls.get()), (1, 1));
        tasks.spawn(counting(&polls, &left));
        assert_eq!(tasks.slots.borrow().len(), 3, "its slot is reused");
        let held = Rc::downgrade(&polls);
        drop((polls, left.take()));
        tasks.clear();
        assert!(held.upgrade().is_none(), "nothing of a task remains");
    }
}
