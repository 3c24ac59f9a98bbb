//! Who is woken, by whom, and whether that would have worked on real cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::trace::Actor;

/// Names a task for the whole run.
pub(super) type TaskId = u64;

/// What wakers reach: the tasks that can run, and what they may not do.
#[derive(Default)]
pub(super) struct WakeHub {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<TaskId>,
    running: Option<(TaskId, Actor)>,
    /// The running task has woken itself.
    again: bool,
    /// A wake comes from a completion, not from a task.
    kernel: bool,
    /// The first wake that would not work on real cores.
    wrong: Option<String>,
}

impl WakeHub {
    /// Wakes that happen within are the kernel's.
    pub(super) fn as_kernel(&self, wake: impl FnOnce()) {
        let before = std::mem::replace(&mut self.state().kernel, true);
        wake();
        self.state().kernel = before;
    }

    pub(super) fn ready(&self) -> usize {
        self.state().ready.len()
    }

    /// Takes one of the tasks that can run.
    pub(super) fn take_ready(&self, which: usize) -> Option<TaskId> {
        let mut state = self.state();
        (which < state.ready.len()).then(|| state.ready.swap_remove(which))
    }

    pub(super) fn begin(&self, task: TaskId, actor: Actor) {
        let mut state = self.state();
        state.running = Some((task, actor));
        state.again = false;
    }

    /// Ends the running task's turn. Says whether it has woken itself.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        state.running = None;
        std::mem::take(&mut state.again)
    }

    pub(super) fn take_wrong(&self) -> Option<String> {
        self.state().wrong.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one task.
pub(super) struct TaskWaker {
    pub(super) task: TaskId,
    pub(super) actor: Actor,
    pub(super) shared: Arc<super::kernel::SharedKernel>,
    /// It lies among the ready tasks already.
    pub(super) queued: AtomicBool,
}

impl TaskWaker {
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.shared.hub.state();
        if let Some((task, actor)) = state.running.filter(|_| !state.kernel) {
            state.again |= task == self.task;
            if matches!(self.actor, Actor::Core(_)) && actor != self.actor && state.wrong.is_none()
            {
                let wrong = format!(
                    "{actor} woke a task of {} without ringing its bell",
                    self.actor
                );
                state.wrong = Some(wrong);
            }
        }
        if !self.queued.swap(true, Ordering::Relaxed) {
            state.ready.push(self.task);
        }
    }
}
