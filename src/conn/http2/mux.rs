//! The state that the task of a connection shares with the tasks of its requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_proto_h1::{Head, Request};
use weir_proto_h2::{Connection, Error};

use super::mux_state::MuxState;
use super::stream_table::StreamLoss;
use crate::conn::{Outbox, WireRx, WireTx};
use crate::core::{Share, Timer};
use crate::io::{Chunk, Instant, Net, Rx, Tx};
use crate::limits::{
    H2_IDLE_WORKERS_MAX, H2_QUEUED_BYTES_HIGH, H2_RECEIVES_MAX, H2_REQUESTS_AT_ONCE_MAX,
};
use crate::obs::Http2Tally;

/// One HTTP/2 connection, as client or server.
pub struct Mux<N: Net> {
    pub(super) net: N,
    pub(super) state: RefCell<MuxState<N>>,
    opened_at: Instant,
    /// The connection takes no new streams and closes when the last one ends. Clients only.
    is_leaving: Cell<bool>,
}

/// The state of a task that serves requests one after the other with [`Mux::poll_request`].
#[derive(Default)]
pub struct Worker(Rc<Cell<WorkerState>>);

/// What a task that serves requests does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WorkerState {
    /// It serves a request, or was woken to take one.
    #[default]
    Busy,
    /// It waits on the list of idle workers. Whatever else wakes it does not concern it.
    Waits,
    /// It should end.
    Dismissed,
}

/// A task that waits for a request.
pub(super) struct IdleWorker {
    task: Waker,
    worker: Rc<Cell<WorkerState>>,
}

impl IdleWorker {
    /// Wakes a task that was taken off the list, to take a request.
    pub(super) fn call(self) {
        self.worker.set(WorkerState::Busy);
        self.task.wake();
    }

    /// Ends a task that was taken off the list.
    pub(super) fn dismiss(self) {
        self.worker.set(WorkerState::Dismissed);
        self.task.wake();
    }
}

/// A request that no task serves yet.
pub struct PendingRequest {
    pub(super) slot: u32,
    pub(super) request: Request,
    pub(super) head: Head,
    pub(super) block: Chunk,
    /// The request exceeds a limit; answer it with this error.
    pub refused: Option<Error>,
}

/// Why [`Mux::advance`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuxOutcome {
    /// Nothing more can be done until the task is woken.
    Waits,
    /// The peer closed its direction, or the connection broke.
    Closed,
    /// The peer violated the protocol. A GOAWAY is queued and must be flushed before the connection is closed.
    Failed,
}

impl<N: Net> Mux<N> {
    /// Wraps a connection that has its transport and protocol state.
    pub fn new(net: N, machine: Connection, out: Outbox<WireTx<N>>) -> Self {
        let heard = net.now();
        Self {
            net,
            opened_at: heard,
            is_leaving: Cell::new(false),
            state: RefCell::new(MuxState::new(machine, out, heard)),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.net.now().0 / 1_000_000
    }

    /// Whether a client may open a stream now. Returns false until the endpoint's SETTINGS arrive; only the exchange
    /// that opened the connection sends a request before that.
    pub fn can_open(&self) -> bool {
        let state = self.state.borrow();
        !self.is_leaving.get()
            && !state.is_gone
            && state.machine.has_peer_settings()
            && state.machine.can_open()
    }

    /// When the connection was opened.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Whether the connection takes no new streams and closes after the last one.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Sets [`Mux::is_leaving`].
    pub fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.set(is_leaving);
        self.wake();
    }

    /// How many streams the endpoint allows at a time; 0 before its SETTINGS arrive.
    pub fn streams_max(&self) -> u32 {
        let state = self.state.borrow();
        let machine = &state.machine;
        if machine.has_peer_settings() {
            machine.streams_max()
        } else {
            0
        }
    }

    /// Whether the connection has carried a request.
    pub fn has_served(&self) -> bool {
        self.state.borrow().has_served
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        self.state.borrow().wake();
    }

    /// Receives, frames and sends until nothing more can be done or the task has used up its share. `unread` holds
    /// bytes that were received and not parsed yet.
    pub fn advance(
        &self,
        cx: &mut Context<'_>,
        rx: &mut WireRx<N>,
        unread: &mut Option<Chunk>,
        share: &Share,
    ) -> MuxOutcome {
        let outcome = self.receive_and_send(cx, rx, unread, share);
        // When the connection ends, every pending request gets a task, which logs it.
        let most = match outcome {
            MuxOutcome::Waits => H2_REQUESTS_AT_ONCE_MAX,
            MuxOutcome::Closed | MuxOutcome::Failed => usize::MAX,
        };
        if self.state.borrow_mut().assign_requests(most) {
            rx.wake_later(cx);
        }
        outcome
    }

    fn receive_and_send(
        &self,
        cx: &mut Context<'_>,
        rx: &mut WireRx<N>,
        unread: &mut Option<Chunk>,
        share: &Share,
    ) -> MuxOutcome {
        let mut state = self.state.borrow_mut();
        if !state
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            state.task = Some(cx.waker().clone());
        }
        let mut received = 0;
        loop {
            // If the peer does not read the replies that it provokes, the connection stops reading from it.
            let may_read = state.out.queued() < H2_QUEUED_BYTES_HIGH
                && received < H2_RECEIVES_MAX
                && self.net.pool().has_room()
                && !share.is_spent();
            let mut chunk = None;
            if may_read {
                match unread.take() {
                    Some(bytes) => chunk = Some(bytes),
                    None => match rx.poll_recv(cx) {
                        Poll::Ready(Ok(Some(bytes))) => chunk = Some(bytes),
                        Poll::Ready(Ok(None) | Err(_)) => return MuxOutcome::Closed,
                        Poll::Pending => {}
                    },
                }
            }
            let is_idle = chunk.is_none();
            if let Some(bytes) = chunk {
                received += 1;
                state.last_received = self.net.now();
                match state.receive(bytes, self.now_ms(), self.net.pool(), share) {
                    Ok(left) => *unread = left,
                    Err(_) => return MuxOutcome::Failed,
                }
                if received < H2_RECEIVES_MAX {
                    continue;
                }
            }
            let had_room = state.out.queued() < H2_QUEUED_BYTES_HIGH;
            if state.send(cx).is_err() {
                return MuxOutcome::Closed;
            }
            let has_room = state.out.queued() < H2_QUEUED_BYTES_HIGH;
            if has_room && share.is_spent() {
                rx.wake_later(cx);
                return MuxOutcome::Waits;
            }
            if has_room && (!had_room || !is_idle || state.is_due()) {
                received = 0;
                continue;
            }
            return MuxOutcome::Waits;
        }
    }

    /// Whether the peer's SETTINGS have arrived.
    pub fn has_peer_settings(&self) -> bool {
        self.state.borrow().machine.has_peer_settings()
    }

    /// The error that ended the connection.
    pub fn failure(&self) -> Option<Error> {
        self.state.borrow().machine.failure()
    }

    /// Whether the connection has sent GOAWAY.
    pub fn has_announced_end(&self) -> bool {
        self.state.borrow().machine.is_shutting_down()
    }

    /// Takes the counts since the last call.
    pub fn take_tally(&self) -> Http2Tally {
        mem::take(&mut self.state.borrow_mut().tally)
    }

    /// Takes the number of pending requests that need a new task.
    pub fn take_workers_needed(&self) -> usize {
        mem::take(&mut self.state.borrow_mut().workers_needed)
    }

    /// Charges the connection's memory to `timer`. If the core chooses this connection to free memory, it ends with a
    /// GOAWAY, or with a reset if bytes are already queued.
    pub fn charge_memory(&self, timer: &Timer) {
        self.state.borrow_mut().charge_memory(timer);
    }

    /// Waits for a pending request. Returns `None` if the task should end: the connection is gone or rests, or enough
    /// other tasks wait.
    pub fn poll_request(&self, cx: &Context<'_>, worker: &Worker) -> Poll<Option<PendingRequest>> {
        match worker.0.get() {
            WorkerState::Busy => {}
            WorkerState::Waits => return Poll::Pending,
            WorkerState::Dismissed => return Poll::Ready(None),
        }
        let mut state = self.state.borrow_mut();
        if let Some(request) = state.take_request() {
            return Poll::Ready(Some(request));
        }
        if state.is_gone || state.workers.len() >= H2_IDLE_WORKERS_MAX {
            return Poll::Ready(None);
        }
        worker.0.set(WorkerState::Waits);
        state.workers.push(IdleWorker {
            task: cx.waker().clone(),
            worker: worker.0.clone(),
        });
        Poll::Pending
    }

    /// Closes the sending direction after the queued bytes; ready when the peer can see it.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.borrow_mut().out.tx.poll_finish(cx)
    }

    /// Closes the sending direction if everything was sent. Otherwise dropping the connection resets it, so that the
    /// peer does not mistake what it received for the whole.
    pub fn finish(&self) {
        let out = &mut self.state.borrow_mut().out;
        if out.queued() == 0 {
            out.tx.finish();
        }
    }

    /// Sends the queued bytes of a connection that receives no more.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        state.flush_output();
        state.out.poll_send(cx)
    }

    /// Releases detached streams that have ended or run out of time. Returns how many.
    pub fn release_detached(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        let MuxState {
            machine, detached, ..
        } = &mut *state;
        let (now, before) = (self.net.now(), detached.len());
        detached.retain(|&(until, key)| {
            if now >= until {
                machine.release(key);
            }
            machine.is_open(key)
        });
        (before - detached.len()) as u32
    }

    /// Marks the connection as gone, and every stream as lost. Pending requests still go to a task, which ends them at
    /// once and logs each.
    pub fn lose(&self, loss: StreamLoss) {
        let mut state = self.state.borrow_mut();
        state.is_gone = true;
        let slots: Vec<u32> = state.streams.slots().collect();
        for slot in slots {
            state.streams.at_mut(slot).lose(loss);
        }
        state.workers.drain(..).for_each(IdleWorker::dismiss);
    }
}
