//! What the task of a connection and the tasks of its requests share.

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

/// One connection of HTTP/2, in either role.
pub struct Mux<N: Net> {
    pub(super) net: N,
    pub(super) state: RefCell<MuxState<N>>,
    opened_at: Instant,
    /// It is to end when no request is on it. Clients only.
    is_leaving: Cell<bool>,
}

/// A task that serves requests one after the other, as [`Mux::poll_request`] knows it.
#[derive(Default)]
pub struct Worker {
    /// Whether the task is on the list of those that wait.
    is_listed: Rc<Cell<bool>>,
    /// Whether it has waited since its last request.
    has_waited: bool,
}

/// A task that waits for a request.
pub(super) struct IdleWorker {
    task: Waker,
    is_listed: Rc<Cell<bool>>,
}

impl IdleWorker {
    /// Has it look, once it was taken off the list.
    pub(super) fn wake(self) {
        self.is_listed.set(false);
        self.task.wake();
    }
}

/// A request that has come.
pub struct PendingRequest {
    pub(super) slot: u32,
    pub(super) request: Request,
    pub(super) head: Head,
    pub(super) block: Chunk,
    /// It asks too much: it is to be answered with this.
    pub refused: Option<Error>,
}

/// How far a connection's task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuxOutcome {
    /// All is done that can be done now.
    Waits,
    /// The peer has closed its side, or the connection broke.
    Closed,
    /// The peer broke the rules: what waits says so, and is to be sent before the end.
    Failed,
}

impl<N: Net> Mux<N> {
    /// Takes a connection over.
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

    /// Whether a request may be begun: the endpoint has said how many it takes, and takes another. The one for which
    /// the connection was opened_at does not wait for that.
    pub fn can_open(&self) -> bool {
        let state = self.state.borrow();
        !self.is_leaving.get()
            && !state.is_gone
            && state.machine.has_peer_settings()
            && state.machine.can_open()
    }

    /// When it was opened_at.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Whether it takes no more requests, and ends with the last that is on it.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Has that be so, or not any more.
    pub fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.set(is_leaving);
        self.wake();
    }

    /// How many requests the endpoint takes at once; none before it has said so.
    pub fn streams_max(&self) -> u32 {
        let state = self.state.borrow();
        let machine = &state.machine;
        if machine.has_peer_settings() {
            machine.streams_max()
        } else {
            0
        }
    }

    /// Whether the connection has served a request.
    pub fn has_served(&self) -> bool {
        self.state.borrow().has_served
    }

    /// Has the connection's task look at what has changed.
    pub fn wake(&self) {
        self.state.borrow().wake();
    }

    /// Receives, frames and sends whatever there is, as far as the task's share goes. `unread` is what was received and
    /// not looked at.
    pub fn advance(
        &self,
        cx: &mut Context<'_>,
        rx: &mut WireRx<N>,
        unread: &mut Option<Chunk>,
        share: &Share,
    ) -> MuxOutcome {
        let outcome = self.receive_and_send(cx, rx, unread, share);
        // When the connection is over, each request hears of it.
        let most = match outcome {
            MuxOutcome::Waits => H2_REQUESTS_AT_ONCE_MAX,
            MuxOutcome::Closed | MuxOutcome::Failed => usize::MAX,
        };
        if self.state.borrow_mut().release(most) {
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
            // Who does not read what it provokes is not read either.
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

    /// Whether the peer's SETTINGS have come.
    pub fn is_met(&self) -> bool {
        self.state.borrow().machine.has_peer_settings()
    }

    /// Why the connection failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.state.borrow().machine.failure()
    }

    /// Whether the peer was told that the connection ends.
    pub fn has_announced_end(&self) -> bool {
        self.state.borrow().machine.is_shutting_down()
    }

    /// Takes what is still to be counted.
    pub fn take_tally(&self) -> Http2Tally {
        mem::take(&mut self.state.borrow_mut().tally)
    }

    /// Takes the number of requests for which a task is still to be started.
    pub fn take_workers_needed(&self) -> usize {
        mem::take(&mut self.state.borrow_mut().workers_needed)
    }

    /// Charges what the connection holds to its timer. A connection that holds too much ends, after a GOAWAY if that
    /// can be sent.
    pub fn charge_memory(&self, timer: &Timer) {
        self.state.borrow_mut().charge_memory(timer);
    }

    /// Waits for a request that no task has taken. `None`: the task is to end, because the connection is gone, because
    /// enough others wait, or because it was woken for no request.
    pub fn poll_request(
        &self,
        cx: &Context<'_>,
        worker: &mut Worker,
    ) -> Poll<Option<PendingRequest>> {
        let mut state = self.state.borrow_mut();
        let listed = &worker.is_listed;
        if listed.replace(false) {
            // Something else than a request woke the task: no request must be given to it now.
            let other = |idle: &IdleWorker| !Rc::ptr_eq(&idle.is_listed, listed);
            state.workers.retain(other);
        }
        if let Some(request) = state.take_request() {
            worker.has_waited = false;
            return Poll::Ready(Some(request));
        }
        let enough = state.workers.len() >= H2_IDLE_WORKERS_MAX;
        if mem::replace(&mut worker.has_waited, true) || state.is_gone || enough {
            return Poll::Ready(None);
        }
        listed.set(true);
        state.workers.push(IdleWorker {
            task: cx.waker().clone(),
            is_listed: listed.clone(),
        });
        Poll::Pending
    }

    /// Ends our direction once everything is sent; ready when the peer can see that.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state.borrow_mut().out.tx.poll_finish(cx)
    }

    /// Ends our direction if everything was sent. Otherwise the connection is reset when it is dropped, so that the
    /// peer does not take what it got for all there was.
    pub fn finish(&self) {
        let out = &mut self.state.borrow_mut().out;
        if out.queued() == 0 {
            out.tx.finish();
        }
    }

    /// Sends what is left; for a connection that has nothing more to receive.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        state.flush_output();
        state.out.poll_send(cx)
    }

    /// Lets go of streams that have ended, or not ended in time, without a request that holds them: says how many.
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

    /// The connection is gone: all that wait for something hear of it. Requests that no task has taken yet are taken
    /// still, and end at once: each is told of.
    pub fn lose(&self, loss: StreamLoss) {
        let mut state = self.state.borrow_mut();
        state.is_gone = true;
        let slots: Vec<u32> = state.streams.slots().collect();
        for slot in slots {
            state.streams.at(slot).lose(loss);
        }
        state.workers.drain(..).for_each(IdleWorker::wake);
    }
}
