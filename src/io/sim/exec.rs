//! Records who wakes which task, and detects wakes that would fail on real cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::trace::Actor;

/// Identifies a task throughout a run.
pub(super) type TaskId = u64;

/// The state that wakers reach: the ready tasks, and the rules that a wake must keep.
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
    /// The current wake comes from a completion, not from a task.
    kernel: bool,
    /// The first wake that would fail on real cores.
    wrong: Option<String>,
}

impl WakeHub {
    /// Attributes the wakes of a closure to the kernel.
    pub(super) fn as_kernel(&self, wake: impl FnOnce()) {
        let before = std::mem::replace(&mut self.state().kernel, true);
        wake();
        self.state().kernel = before;
    }

    pub(super) fn ready(&self) -> usize {
        self.state().ready.len()
    }

    pub(super) fn take_ready(&self, which: usize) -> Option<TaskId> {
        let mut state = self.state();
        (which < state.ready.len()).then(|| state.ready.swap_remove(which))
    }

    pub(super) fn begin(&self, task: TaskId, actor: Actor) {
        let mut state = self.state();
        state.running = Some((task, actor));
        state.again = false;
    }

    /// Ends the running task's turn. Returns whether the task has woken itself.
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

pub(super) struct TaskWaker {
    pub(super) task: TaskId,
    pub(super) actor: Actor,
    pub(super) shared: Arc<super::kernel::SharedKernel>,
    /// The task is among the ready tasks already.
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
