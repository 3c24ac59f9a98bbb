//! A simulated connection: two ends, and in each direction the bytes under way and the bytes that have arrived.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use super::faults::Faults;
use super::kernel::{Env, KernelEvent};
use super::trace::{Actor, What};
use crate::limits::SEND_BATCH_BYTES_MAX;

/// Identifies a connection throughout a run.
pub(super) type ConnId = u64;

/// 0 is the end that connected, 1 the end that accepted.
pub(super) type Side = usize;

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) client: Option<SocketAddr>,
    /// The connection carries rings: it meets no faults, and leaving it open is no leak.
    pub(super) bell: bool,
    faults: Faults,
    ends: [ConnEnd; 2],
    /// Indexed by the side that writes.
    pipes: [SimPipe; 2],
}

struct ConnEnd {
    /// The holder of this end; `None` while the connection waits in a listener's queue.
    actor: Option<Actor>,
    open: bool,
    /// A reset has arrived.
    reset: bool,
    /// Closing this end sends a reset.
    abort: bool,
    /// This end receives nothing more and answers bytes with a reset.
    deaf: bool,
    recv: EndOp<usize, Vec<u8>>,
    send: EndOp<Vec<u8>, usize>,
}

#[derive(Default)]
struct SimPipe {
    /// The sender's driver still holds what is more than the sender's socket takes.
    wire: VecDeque<u8>,
    /// The driver hands its last batch to the socket after this time.
    batched_at: u64,
    arrived: VecDeque<u8>,
    fin: Fin,
    /// The next arrival is scheduled.
    moving: bool,
    /// The bytes on the wire wait for the end.
    held_back: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    Open,
    Sent,
    Arrived,
}

/// An operation in flight. It belongs to the socket and needs no future that waits for it.
struct EndOp<A, R> {
    stage: Stage<A, R>,
    /// The completion is scheduled.
    due: bool,
    waker: Option<Waker>,
}

enum Stage<A, R> {
    Idle,
    Armed(A),
    Done(io::Result<R>),
}

impl Conn {
    pub(super) fn new(id: ConnId, client: Option<SocketAddr>, faults: Faults) -> Self {
        Self {
            id,
            client,
            bell: false,
            faults,
            ends: [ConnEnd::new(), ConnEnd::new()],
            pipes: [SimPipe::default(), SimPipe::default()],
        }
    }

    pub(super) fn set_actor(&mut self, side: Side, actor: Actor) {
        self.ends[side].actor = Some(actor);
    }

    /// Whether the actor holds an end open.
    pub(super) fn held_by(&self, actor: Actor) -> bool {
        self.ends
            .iter()
            .any(|end| end.open && end.actor == Some(actor))
    }

    /// Whether the actor has accepted the connection and holds it open.
    pub(super) fn accepted_by(&self, actor: Actor) -> bool {
        self.ends[1].open && self.ends[1].actor == Some(actor)
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| !end.open)
    }

    /// Receives at most `limit` bytes; no bytes mean the orderly end.
    pub(super) fn poll_recv(
        &mut self,
        env: &mut Env,
        side: Side,
        limit: usize,
        waker: &Waker,
    ) -> Poll<io::Result<Vec<u8>>> {
        if let Stage::Idle = self.ends[side].recv.stage {
            env.begun += 1;
            self.ends[side].recv.stage = Stage::Armed(limit);
            if env.rng.chance(self.faults.immediate_permille) {
                self.complete_recv(env, side);
            } else {
                self.kick_recv(env, side);
            }
        }
        self.ends[side].recv.take(waker)
    }

    /// Sends some of the bytes, at least one. Calls `bytes` only when no send is in flight.
    pub(super) fn poll_send(
        &mut self,
        env: &mut Env,
        side: Side,
        bytes: impl FnOnce() -> Vec<u8>,
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        if let Stage::Idle = self.ends[side].send.stage {
            env.begun += 1;
            self.ends[side].send.stage = Stage::Armed(bytes());
            self.pipes[side].held_back = false;
            self.kick_wire(env, side);
            if env.rng.chance(self.faults.immediate_permille) {
                self.complete_send(env, side);
            } else {
                self.kick_send(env, side);
            }
        }
        self.ends[side].send.take(waker)
    }

    /// Whether a driver may hold bytes that the sender's socket has not taken.
    pub(super) fn has_driver(&self) -> bool {
        self.faults.batched_permille > 0
    }

    /// Whether chance leaves so many bytes to the driver's next batch.
    pub(super) fn may_batch(&self, env: &mut Env, side: Side, bytes: usize) -> bool {
        let is_core = matches!(self.ends[side].actor, Some(Actor::Core(_)));
        let is_idle = matches!(self.ends[side].send.stage, Stage::Idle);
        is_core
            && is_idle
            && bytes <= SEND_BATCH_BYTES_MAX
            && self.pipes[side].fin == Fin::Open
            && self.pipes[side].wire.len() < self.faults.send_buffer_bytes
            && env.rng.chance(self.faults.batched_permille)
    }

    /// Leaves bytes to the driver's next batch. If the connection has broken, later calls report it.
    pub(super) fn batch(&mut self, env: &mut Env, side: Side, bytes: &[u8]) {
        env.begun += 1;
        env.note(self.actor(side), What::Sent, self.id, bytes.len() as u64);
        let pipe = &mut self.pipes[side];
        if self.ends[side].reset {
            // The driver has met the error, so it takes no more.
            pipe.fin = Fin::Sent;
            return;
        }
        pipe.wire.extend(bytes);
        pipe.batched_at = env.now;
        self.kick_wire(env, side);
    }

    /// Hands the batch to the socket at once.
    pub(super) fn leave_batch(&mut self, side: Side) {
        self.pipes[side].batched_at = 0;
    }

    /// Bytes that the driver holds because the socket has not taken them from the batch.
    pub(super) fn left(&self, now: u64, side: Side) -> usize {
        let pipe = &self.pipes[side];
        let is_sent = now > pipe.batched_at || pipe.batched_at == 0;
        let left = pipe
            .wire
            .len()
            .saturating_sub(self.faults.send_buffer_bytes);
        if is_sent { left } else { 0 }
    }

    /// The most bytes that one send looks at.
    pub(super) fn send_bytes_max(&self) -> usize {
        self.faults.send_buffer_bytes
    }

    pub(super) fn on_recv(&mut self, env: &mut Env, side: Side) {
        self.ends[side].recv.due = false;
        self.complete_recv(env, side);
    }

    pub(super) fn on_send(&mut self, env: &mut Env, side: Side) {
        self.ends[side].send.due = false;
        self.complete_send(env, side);
    }

    /// Delivers some of the bytes that `side` has sent.
    pub(super) fn on_arrive(&mut self, env: &mut Env, side: Side) {
        let peer = 1 - side;
        self.pipes[side].moving = false;
        let pipe = &mut self.pipes[side];
        if pipe.fin == Fin::Arrived || pipe.held_back || self.ends[peer].reset {
            return;
        }
        if !pipe.wire.is_empty() && (!self.ends[peer].open || self.ends[peer].deaf) {
            pipe.wire.clear();
            self.send_reset(env, peer);
            return;
        }
        let room = self
            .faults
            .receive_buffer_bytes
            .saturating_sub(pipe.arrived.len());
        let most = room.min(pipe.wire.len());
        if most > 0 {
            let n = self.faults.part(&mut env.rng, most);
            move_bytes(&mut pipe.wire, n, |bytes| pipe.arrived.extend(bytes));
        }
        if pipe.wire.is_empty() && pipe.fin == Fin::Sent {
            pipe.fin = Fin::Arrived;
        }
        self.kick_wire(env, side);
        self.kick_send(env, side);
        self.kick_recv(env, peer);
    }

    /// Delivers a reset to `side`. Bytes that have arrived there stay readable; bytes under way are lost.
    pub(super) fn on_reset(&mut self, env: &mut Env, side: Side) {
        let end = &mut self.ends[side];
        if end.reset {
            return;
        }
        end.reset = true;
        let lost = self.pipes[1 - side].wire.len();
        self.pipes.iter_mut().for_each(|pipe| pipe.wire.clear());
        if let Some(actor) = self.ends[side].actor {
            env.note(actor, What::ResetSeen, self.id, lost as u64);
        }
        self.kick_recv(env, side);
        self.kick_send(env, side);
    }

    /// Ends the sending direction. The peer reads the remaining bytes and then the end.
    pub(super) fn finish(&mut self, env: &mut Env, side: Side) {
        self.pipes[side].held_back = false;
        self.leave_batch(side);
        if self.pipes[side].fin == Fin::Open && !self.ends[side].reset {
            self.pipes[side].fin = Fin::Sent;
            env.note(self.actor(side), What::Finished, self.id, 0);
            self.kick_wire(env, side);
            self.kick_send(env, side);
        }
    }

    /// Keeps the bytes on the wire until the next send or the end. A caller that forgets to end leaves its peer waiting.
    pub(super) fn hold_back(&mut self, side: Side) {
        self.pipes[side].held_back = true;
    }

    /// Stops receiving. A receive in flight ends.
    pub(super) fn deafen(&mut self, env: &mut Env, side: Side) {
        self.ends[side].deaf = true;
        self.kick_recv(env, side);
    }

    pub(super) fn set_abort(&mut self, side: Side) {
        self.ends[side].abort = true;
    }

    pub(super) fn aborts(&self, side: Side) -> bool {
        self.ends[side].abort
    }

    /// Closes an end. Unread bytes or `abort` turn the close into a reset.
    pub(super) fn close(&mut self, env: &mut Env, side: Side) {
        if !self.ends[side].open {
            return;
        }
        let unread = self.pipes[1 - side].arrived.len();
        let actor = self.actor(side);
        env.note(actor, What::Closed, self.id, unread as u64);
        self.leave_batch(side);
        // No driver goes on for a socket that is gone.
        if unread > 0 || self.ends[side].abort || self.left(env.now, side) > 0 {
            self.send_reset(env, side);
        } else {
            self.finish(env, side);
        }
        let end = &mut self.ends[side];
        end.open = false;
        end.recv = EndOp::new();
        end.send = EndOp::new();
    }

    /// Delivers a ring at once, whatever the faults say.
    pub(super) fn ring(&mut self, env: &mut Env) {
        self.pipes[1].arrived.push_back(1);
        if let Some(actor) = self.ends[0].actor {
            env.note(actor, What::Rung, self.id, 0);
        }
        self.kick_recv(env, 0);
    }

    pub(super) fn actor(&self, side: Side) -> Actor {
        self.ends[side].actor.unwrap_or(Actor::Script(u32::MAX))
    }

    fn send_reset(&mut self, env: &mut Env, side: Side) {
        if self.ends[side].reset {
            return;
        }
        env.note(self.actor(side), What::ResetSent, self.id, 0);
        self.pipes[side].wire.clear();
        self.ends[side].reset = true;
        let at = env.now + self.faults.delay(&mut env.rng);
        env.events.push(at, KernelEvent::Reset(self.id, 1 - side));
    }

    /// Breaks the connection for both ends.
    fn break_off(&mut self, env: &mut Env) {
        self.on_reset(env, 0);
        self.on_reset(env, 1);
    }

    fn complete_recv(&mut self, env: &mut Env, side: Side) {
        let Stage::Armed(limit) = self.ends[side].recv.stage else {
            return;
        };
        if !self.receivable(side) {
            return;
        }
        let actor = self.actor(side);
        let pipe = &mut self.pipes[1 - side];
        let result = if !pipe.arrived.is_empty() && !self.ends[side].deaf {
            if !self.ends[side].reset && env.rng.chance(self.faults.reset_permille) {
                return self.break_off(env);
            }
            let n = self
                .faults
                .part(&mut env.rng, limit.min(pipe.arrived.len()));
            let mut bytes = Vec::with_capacity(n);
            move_bytes(&mut pipe.arrived, n, |part| bytes.extend_from_slice(part));
            env.note(actor, What::Received, self.id, n as u64);
            Ok(bytes)
        } else if pipe.fin == Fin::Arrived || self.ends[side].deaf {
            env.note(actor, What::Eof, self.id, 0);
            Ok(Vec::new())
        } else {
            Err(ErrorKind::ConnectionReset.into())
        };
        self.ends[side].recv.finish(env, result);
        self.kick_wire(env, 1 - side);
    }

    fn complete_send(&mut self, env: &mut Env, side: Side) {
        let Stage::Armed(bytes) = &self.ends[side].send.stage else {
            return;
        };
        let pipe = &mut self.pipes[side];
        let result = if self.ends[side].reset {
            // The first operation after a reset reports it, and either kind of error may come first.
            let heard = env.rng.chance(500);
            Err(if heard {
                ErrorKind::BrokenPipe
            } else {
                ErrorKind::ConnectionReset
            }
            .into())
        } else if pipe.fin != Fin::Open && !bytes.is_empty() {
            Err(ErrorKind::BrokenPipe.into())
        } else {
            let room = self
                .faults
                .send_buffer_bytes
                .saturating_sub(pipe.wire.len());
            if room == 0 {
                return;
            }
            if env.rng.chance(self.faults.reset_permille) {
                return self.break_off(env);
            }
            let n = self.faults.part(&mut env.rng, room.min(bytes.len()));
            pipe.wire.extend(&bytes[..n]);
            env.note(self.actor(side), What::Sent, self.id, n as u64);
            Ok(n)
        };
        self.ends[side].send.finish(env, result);
        self.kick_wire(env, side);
    }

    fn receivable(&self, side: Side) -> bool {
        let (end, pipe) = (&self.ends[side], &self.pipes[1 - side]);
        !pipe.arrived.is_empty() || pipe.fin == Fin::Arrived || end.deaf || end.reset
    }

    fn sendable(&self, side: Side) -> bool {
        let (end, pipe) = (&self.ends[side], &self.pipes[side]);
        end.reset || pipe.fin != Fin::Open || pipe.wire.len() < self.faults.send_buffer_bytes
    }

    fn kick_recv(&mut self, env: &mut Env, side: Side) {
        let ready = self.receivable(side);
        let op = &mut self.ends[side].recv;
        if ready && !op.due && matches!(op.stage, Stage::Armed(_)) {
            op.due = true;
            let at = env.now + self.faults.delay(&mut env.rng);
            env.events.push(at, KernelEvent::Recv(self.id, side));
        }
    }

    fn kick_send(&mut self, env: &mut Env, side: Side) {
        let ready = self.sendable(side);
        let op = &mut self.ends[side].send;
        if ready && !op.due && matches!(op.stage, Stage::Armed(_)) {
            op.due = true;
            let at = env.now + self.faults.delay(&mut env.rng);
            env.events.push(at, KernelEvent::Send(self.id, side));
        }
    }

    fn kick_wire(&mut self, env: &mut Env, side: Side) {
        let pipe = &mut self.pipes[side];
        let refused = !self.ends[1 - side].open || self.ends[1 - side].deaf;
        let room = pipe.arrived.len() < self.faults.receive_buffer_bytes;
        let bytes = !pipe.wire.is_empty() && (room || refused) && !pipe.held_back;
        let end = pipe.wire.is_empty() && pipe.fin == Fin::Sent;
        if !pipe.moving && (bytes || end) {
            pipe.moving = true;
            let at = env.now + self.faults.delay(&mut env.rng);
            env.events.push(at, KernelEvent::Arrive(self.id, side));
        }
    }
}

impl ConnEnd {
    fn new() -> Self {
        Self {
            actor: None,
            open: true,
            reset: false,
            abort: false,
            deaf: false,
            recv: EndOp::new(),
            send: EndOp::new(),
        }
    }
}

impl<A, R> EndOp<A, R> {
    fn new() -> Self {
        Self {
            stage: Stage::Idle,
            due: false,
            waker: None,
        }
    }

    fn finish(&mut self, env: &mut Env, result: io::Result<R>) {
        self.stage = Stage::Done(result);
        env.wakes.extend(self.waker.take());
    }

    fn take(&mut self, waker: &Waker) -> Poll<io::Result<R>> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Done(result) => Poll::Ready(result),
            waiting => {
                self.stage = waiting;
                self.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// Takes `n` bytes off the front, in at most two pieces.
fn move_bytes(from: &mut VecDeque<u8>, n: usize, mut to: impl FnMut(&[u8])) {
    let (first, second) = from.as_slices();
    let split = n.min(first.len());
    to(&first[..split]);
    to(&second[..n - split]);
    from.drain(..n);
}
