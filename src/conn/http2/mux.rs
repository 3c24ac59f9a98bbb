//! What the task of a connection and the tasks of its requests share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use weir_proto_h1::{BodyKind, Edits, Head, Request, Trailers};
use weir_proto_h2::{Connection, Error, ErrorCode, Event, Framing, StreamKey};

use super::streams::{Answered, End, Lost, Streams};
use super::turns::Turns;
use super::upgrade::as_upgrade;
use crate::conn::{Outbox, WireRx, WireTx};
use crate::core::{Share, Timer};
use crate::io::{Chunk, Instant, Net, Pool, Rx, Tx};
use crate::limits::{
    CONNECTION_REST_BYTES, COPY_BELOW_BYTES, H2_HEAD_STEP_BYTES, H2_INTERIM_WAITING_MAX,
    H2_QUEUED_BYTES_HIGH, H2_RECEIVES_MAX, H2_REQUESTS_AT_ONCE_MAX, H2_SHUT_QUEUED_BYTES_HIGH,
    H2_STREAM_QUEUED_BYTES_HIGH, H2_TINY_BYTES, KERNEL_QUEUED_BYTES, PIECE_SHARE_MIN,
    TLS_REST_BYTES,
};
use crate::obs::Http2Tally;
use crate::upstream::Endpoint;

/// One connection of HTTP/2, in either role.
pub struct Mux<N: Net> {
    pub(super) net: N,
    /// The endpoint that it leads to, which hears when a stream has ended. Clients only.
    pub(super) endpoint: Weak<Endpoint<N>>,
    pub(super) state: RefCell<State<N>>,
    made: Instant,
    /// It is to end when no request is on it. Clients only.
    is_leaving: Cell<bool>,
}

pub(super) struct State<N: Net> {
    pub(super) machine: Connection,
    pub(super) out: Outbox<WireTx<N>>,
    pub(super) streams: Streams,
    /// Requests that no task has taken yet. Servers only.
    pub(super) requests: VecDeque<Asked>,
    /// How many of them, the first ones, are given to tasks. Servers only.
    pub(super) released: usize,
    /// Requests for which a task is still to be started. Servers only.
    pub(super) unserved: usize,
    /// Tasks that wait for a request. Servers only.
    pub(super) workers: Vec<Idle>,
    /// Streams that no request holds any more, and until when the peer may end its message on them. Clients only.
    pub(super) parting: VecDeque<(Instant, StreamKey)>,
    /// Streams that may have something to frame.
    turns: Turns,
    /// Bytes of data that were framed, of all streams.
    pub(super) framed: u64,
    /// All streams may have room again.
    is_reopened: bool,
    /// Pieces wait that would be tiny, because a window lets no more through.
    has_tiny: bool,
    /// They have waited for long enough.
    takes_tiny: bool,
    /// The connection's task.
    task: Option<Waker>,
    /// The connection is gone.
    pub(super) is_gone: bool,
    /// A request was begun on it before.
    was_used: bool,
    /// When something was received last.
    pub(super) heard: Instant,
    /// Heads, pieces of data and ends of messages that were received.
    pub(super) messages: u64,
    /// Heads are decoded into these, and heads that are done with come back.
    head: Head,
    text: Vec<u8>,
    pub(super) heads: Vec<Head>,
    /// What is still to be counted.
    pub(super) tally: Http2Tally,
}

/// A task that waits for a request.
pub(super) struct Idle {
    pub(super) task: Waker,
    /// Whether it is on the list.
    pub(super) waits: Rc<Cell<bool>>,
}

impl Idle {
    /// Has it look, once it was taken off the list.
    fn call(self) {
        self.waits.set(false);
        self.task.wake();
    }
}

/// A request that has come.
pub(super) struct Asked {
    pub(super) slot: u32,
    pub(super) request: Request,
    pub(super) head: Head,
    pub(super) block: Chunk,
    /// It asks too much: it is to be answered with this.
    pub(super) refused: Option<Error>,
}

/// What a turn of a connection's task came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// All is done that can be done now.
    Waits,
    /// The peer has closed its side, or the connection broke.
    Closed,
    /// The peer broke the rules: what waits says so, and is to be sent before the end.
    Failed,
}

impl<N: Net> Mux<N> {
    pub(super) fn new(
        net: N,
        endpoint: Weak<Endpoint<N>>,
        machine: Connection,
        out: Outbox<WireTx<N>>,
    ) -> Self {
        let heard = net.now();
        Self {
            net,
            endpoint,
            made: heard,
            is_leaving: Cell::new(false),
            state: RefCell::new(State {
                machine,
                out,
                streams: Streams::default(),
                requests: VecDeque::new(),
                released: 0,
                unserved: 0,
                workers: Vec::new(),
                parting: VecDeque::new(),
                turns: Turns::default(),
                framed: 0,
                is_reopened: false,
                has_tiny: false,
                takes_tiny: false,
                task: None,
                is_gone: false,
                was_used: false,
                heard,
                messages: 0,
                head: Head::new(),
                text: Vec::new(),
                heads: Vec::new(),
                tally: Http2Tally::default(),
            }),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.net.now().0 / 1_000_000
    }

    /// Whether a request may be begun: the endpoint has said how many it takes, and takes another. The one for which
    /// the connection was made does not wait for that.
    pub fn can_open(&self) -> bool {
        let state = self.state.borrow();
        !self.is_leaving.get()
            && !state.is_gone
            && state.machine.has_peer_settings()
            && state.machine.can_open()
    }

    /// When it was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// Whether it takes no more requests, and ends with the last that is on it.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Has that be so, or not any more.
    pub fn leave(&self, is_leaving: bool) {
        self.is_leaving.set(is_leaving);
        self.wake();
    }

    /// How many requests the endpoint takes at once; none before it has said so.
    pub(super) fn streams_max(&self) -> u32 {
        let state = self.state.borrow();
        let machine = &state.machine;
        if machine.has_peer_settings() {
            machine.streams_max()
        } else {
            0
        }
    }

    /// Whether the connection has served a request.
    pub fn was_used(&self) -> bool {
        self.state.borrow().was_used
    }

    /// Has the connection's task look at what has changed.
    pub fn wake(&self) {
        self.state.borrow().wake();
    }

    /// Receives, frames and sends whatever there is, as far as the task's share goes. `unread` is what was received and
    /// not looked at.
    pub(super) fn turn(
        &self,
        cx: &mut Context<'_>,
        rx: &mut WireRx<N>,
        unread: &mut Option<Chunk>,
        share: &Share,
    ) -> Turn {
        let turn = self.go_on(cx, rx, unread, share);
        // When the connection is over, each request hears of it.
        let most = match turn {
            Turn::Waits => H2_REQUESTS_AT_ONCE_MAX,
            Turn::Closed | Turn::Failed => usize::MAX,
        };
        if self.state.borrow_mut().release(most) {
            rx.wake_later(cx);
        }
        turn
    }

    fn go_on(
        &self,
        cx: &mut Context<'_>,
        rx: &mut WireRx<N>,
        unread: &mut Option<Chunk>,
        share: &Share,
    ) -> Turn {
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
                        Poll::Ready(Ok(None) | Err(_)) => return Turn::Closed,
                        Poll::Pending => {}
                    },
                }
            }
            let is_idle = chunk.is_none();
            if let Some(bytes) = chunk {
                received += 1;
                state.heard = self.net.now();
                match state.receive(bytes, self.now_ms(), self.net.pool(), share) {
                    Ok(left) => *unread = left,
                    Err(_) => return Turn::Failed,
                }
                if received < H2_RECEIVES_MAX {
                    continue;
                }
            }
            let had_room = state.out.queued() < H2_QUEUED_BYTES_HIGH;
            if state.send(cx).is_err() {
                return Turn::Closed;
            }
            let has_room = state.out.queued() < H2_QUEUED_BYTES_HIGH;
            if has_room && share.is_spent() {
                rx.wake_later(cx);
                return Turn::Waits;
            }
            if has_room && (!had_room || !is_idle || state.is_due()) {
                received = 0;
                continue;
            }
            return Turn::Waits;
        }
    }

    /// Sends what is left; for a connection that has nothing more to receive.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        state.flush_output();
        state.out.poll_send(cx)
    }

    /// Lets go of streams that have ended, or not ended in time, without a request that holds them: says how many.
    pub(super) fn part(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        let State {
            machine, parting, ..
        } = &mut *state;
        let (now, before) = (self.net.now(), parting.len());
        parting.retain(|&(until, key)| {
            if now >= until {
                machine.release(key);
            }
            machine.is_open(key)
        });
        (before - parting.len()) as u32
    }

    /// The connection is gone: all that wait for something hear of it. Requests that no task has taken yet are taken
    /// still, and end at once: each is told of.
    pub(super) fn lose(&self, lost: Lost) {
        let mut state = self.state.borrow_mut();
        state.is_gone = true;
        let slots: Vec<u32> = state.streams.slots().collect();
        for slot in slots {
            state.streams.at(slot).lose(lost);
        }
        state.workers.drain(..).for_each(Idle::call);
    }
}

impl<N: Net> State<N> {
    /// Has the connection's task run, after the tasks that are due already.
    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Whether there is nothing left to be done on the connection.
    pub(super) fn is_over(&self) -> bool {
        self.machine.failure().is_some() || (self.machine.is_finished() && self.streams.is_empty())
    }

    /// Gives back what only a busy connection needs: no stream is open.
    pub(super) fn rest(&mut self) {
        self.machine.release_memory();
        self.streams.rest();
        self.out.tx.rest();
        (self.head, self.text) = (Head::new(), Vec::new());
        (self.heads, self.turns) = (Vec::new(), Turns::default());
        self.is_reopened = false;
        self.requests = VecDeque::new();
        mem::take(&mut self.workers)
            .into_iter()
            .for_each(Idle::call);
    }

    /// Says what the connection holds. One that holds too much ends: with a word, if there is room for it.
    pub(super) fn weigh(&mut self, timer: &Timer) {
        let queued = self.out.queued();
        let kernel = if queued > 0 { KERNEL_QUEUED_BYTES } else { 0 };
        let rest = if self.streams.is_empty() {
            CONNECTION_REST_BYTES + TLS_REST_BYTES
        } else {
            0
        };
        timer.hold(rest + queued + kernel + self.streams.held());
        if timer.is_told() {
            self.machine.abort(Error::HoldsTooMuch);
            if self.out.queued() > 0 {
                self.out.tx.abort();
            }
        }
    }

    /// Gives a stream a turn: it may have something to frame.
    pub(super) fn list(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        if stream.turn.is_none() {
            let (key, priority) = (stream.key, self.machine.priority(stream.key));
            stream.turn = Some(self.turns.add(slot, key.id(), priority));
        }
    }

    /// Says whether it had one.
    pub(super) fn unlist(&mut self, slot: u32) -> bool {
        let turn = self.streams.at(slot).turn.take();
        turn.inspect(|&turn| self.turns.remove(turn)).is_some()
    }

    /// Takes in what has come. What is left when the share is used up is returned.
    fn receive(
        &mut self,
        mut bytes: Chunk,
        now_ms: u64,
        pool: &Pool,
        share: &Share,
    ) -> Result<Option<Chunk>, Error> {
        let mut at = 0;
        loop {
            if share.is_spent() {
                bytes.advance(at);
                return Ok(Some(bytes));
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let received = self
                .machine
                .receive(rest, now_ms, &mut self.head, &mut self.text)?;
            let start = at;
            at += received.consumed;
            let more = match received.event {
                Event::Request { .. }
                | Event::Refused { .. }
                | Event::Interim { .. }
                | Event::Response { .. }
                | Event::Trailers { .. }
                | Event::Failed { .. } => received.consumed / H2_HEAD_STEP_BYTES,
                _ => 0,
            };
            share.spend(1 + more as u32);
            match received.event {
                Event::NeedMore => {
                    // A window that was too small may not be so any more.
                    self.is_reopened |= self.has_tiny;
                    return Ok(None);
                }
                Event::Data {
                    stream,
                    range,
                    is_end,
                } => {
                    self.messages += 1;
                    let piece = bytes.slice(start + range.start, start + range.end);
                    self.take_data(stream, piece, is_end, now_ms, pool);
                }
                event => self.take(event, pool),
            }
        }
    }

    fn take_data(&mut self, key: StreamKey, piece: Chunk, is_end: bool, now_ms: u64, pool: &Pool) {
        let Some((_, stream)) = self.streams.find(key) else {
            // Its request was answered and forgotten.
            self.machine.consume(key, piece.len(), now_ms);
            return;
        };
        // Small pieces are put together: each would hold a block of its own otherwise. So would larger ones in a block
        // that is mostly other streams'.
        if piece.len() >= COPY_BELOW_BYTES && piece.len() * PIECE_SHARE_MIN >= piece.held_bytes() {
            stream.came.push_back(piece);
        } else if !stream
            .came
            .back_mut()
            .is_some_and(|last| last.append(&piece))
        {
            stream.came.push_back(pool.copy(&piece));
        }
        stream.has_ended |= is_end;
        stream.wake();
    }

    fn take(&mut self, event: Event, pool: &Pool) {
        match event {
            Event::Interim { .. }
            | Event::Response { .. }
            | Event::Trailers { .. }
            | Event::End { .. } => self.messages += 1,
            _ => {}
        }
        match event {
            Event::Request {
                stream,
                request,
                is_end,
            } => self.asked(stream, request, is_end, None, pool),
            Event::Refused {
                stream,
                error,
                is_end,
            } => {
                let request = Request {
                    method: self.head.method,
                    version: self.head.version,
                    ..Request::default()
                };
                self.asked(stream, request, is_end, Some(error), pool);
            }
            Event::Interim { stream } => self.answered(stream, None, false, pool),
            Event::Response {
                stream,
                body,
                is_end,
            } => self.answered(stream, Some(body), is_end, pool),
            Event::Trailers { stream } => {
                if let Some((_, stream)) = self.streams.find(stream) {
                    stream.trailers.fill(&self.head, &self.text);
                    stream.has_ended = true;
                    stream.wake();
                }
            }
            Event::End { stream } => {
                if let Some((_, stream)) = self.streams.find(stream) {
                    stream.has_ended = true;
                    stream.wake();
                }
            }
            Event::Reset {
                stream,
                code,
                is_unprocessed,
            } => {
                self.tally.resets += 1;
                let lost = Lost::Reset {
                    code,
                    is_unprocessed,
                };
                self.lost(stream, lost);
            }
            Event::Failed { stream, error } => {
                self.tally.failed.push(error);
                self.lost(stream, Lost::Misbehaved(error));
            }
            Event::WindowOpened {
                stream: Some(stream),
            } => {
                if let Some((slot, _)) = self.streams.find(stream) {
                    self.list(slot);
                }
            }
            Event::Prioritized { stream } => {
                if let Some((slot, _)) = self.streams.find(stream)
                    && self.unlist(slot)
                {
                    self.list(slot);
                }
            }
            Event::SettingsChanged => self.is_reopened = true,
            Event::GoAway { .. } => self.tally.goaways += 1,
            // Who waits for the connection's window alone still has a turn.
            Event::WindowOpened { stream: None }
            | Event::NeedMore
            | Event::Handled
            | Event::Data { .. }
            | Event::PingAck { .. }
            | Event::SettingsAcked => {}
        }
    }

    fn lost(&mut self, key: StreamKey, lost: Lost) {
        if let Some((_, stream)) = self.streams.find(key) {
            stream.lose(lost);
        }
    }

    fn take_head(&mut self, pool: &Pool) -> (Head, Chunk) {
        let spare = self.heads.pop().unwrap_or_default();
        let head = mem::replace(&mut self.head, spare);
        (head, pool.copy(&self.text))
    }

    fn asked(
        &mut self,
        key: StreamKey,
        mut request: Request,
        is_end: bool,
        refused: Option<Error>,
        pool: &Pool,
    ) {
        if request.upgrade.is_some() {
            as_upgrade(&mut self.head, &mut self.text);
            // What its data is, the answer tells.
            request.body = BodyKind::None;
        }
        self.tally.requests += 1;
        let (head, block) = self.take_head(pool);
        let slot = self.streams.add(key);
        self.streams.at(slot).has_ended = is_end;
        self.requests.push_back(Asked {
            slot,
            request,
            head,
            block,
            refused,
        });
    }

    /// Gives so many of the requests that have come to tasks. Says whether there are more.
    fn release(&mut self, most: usize) -> bool {
        let left = self.requests.len() - self.released;
        for _ in 0..left.min(most) {
            self.released += 1;
            match self.workers.pop() {
                Some(worker) => worker.call(),
                None => self.unserved += 1,
            }
        }
        left > most
    }

    /// Takes the first of the requests that were given to tasks.
    pub(super) fn take_request(&mut self) -> Option<Asked> {
        self.released = self.released.checked_sub(1)?;
        self.requests.pop_front()
    }

    fn answered(&mut self, key: StreamKey, body: Option<BodyKind>, is_end: bool, pool: &Pool) {
        let (head, block) = self.take_head(pool);
        let Some((_, stream)) = self.streams.find(key) else {
            return;
        };
        if body.is_none() && stream.answers.len() >= H2_INTERIM_WAITING_MAX {
            // No window holds heads back.
            stream.lose(Lost::Misbehaved(Error::TooManyInterim));
            return self.machine.reset(key, ErrorCode::ENHANCE_YOUR_CALM);
        }
        stream.answers.push_back(Answered { head, block, body });
        stream.has_ended |= is_end;
        stream.wake();
    }

    /// Frames what there is room for and sends it.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.flush_output();
        if mem::take(&mut self.is_reopened) {
            let slots: Vec<u32> = self.streams.slots().collect();
            slots.into_iter().for_each(|slot| self.list(slot));
        }
        while self.out.queued() < H2_QUEUED_BYTES_HIGH {
            if !self.machine.has_connection_window() {
                self.frame_ends();
                break;
            }
            let Some(slot) = self.turns.take() else {
                break;
            };
            self.streams.at(slot).turn = None;
            if self.frame_one(slot) {
                self.list(slot);
            }
        }
        self.takes_tiny = false;
        self.flush_output();
        match self.out.poll_send(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn flush_output(&mut self) {
        if self.machine.has_output() {
            self.machine.take_output(self.out.open());
        }
    }

    /// Whether there is something that can be framed. While the connection's window is shut, that is a message that ends
    /// without data.
    fn is_due(&self) -> bool {
        let mut slots = self.turns.slots();
        match self.machine.has_connection_window() {
            true => slots.next().is_some(),
            false => slots.any(|slot| self.streams.peek(slot).waiting.is_empty()),
        }
    }

    /// Ends the messages that end without data.
    fn frame_ends(&mut self) {
        let no_data = |&slot: &u32| self.streams.peek(slot).waiting.is_empty();
        let slots: Vec<u32> = self.turns.slots().filter(no_data).collect();
        for slot in slots {
            self.unlist(slot);
            self.frame_one(slot);
        }
    }

    /// Bytes that may wait on a stream before their source is no longer read: some while frames go out, less while a
    /// window is as good as shut or the peer does not read. What a peer can make wait is all its streams together.
    pub(super) fn waiting_high(&self, key: StreamKey) -> usize {
        let is_shut = self.has_tiny || self.machine.is_send_blocked(key);
        if is_shut || self.out.queued() >= H2_QUEUED_BYTES_HIGH {
            H2_SHUT_QUEUED_BYTES_HIGH
        } else {
            H2_STREAM_QUEUED_BYTES_HIGH
        }
    }

    /// Whether tiny pieces wait.
    pub(super) fn has_tiny(&self) -> bool {
        self.has_tiny
    }

    /// Has tiny pieces framed, too: they have waited for long enough.
    pub(super) fn take_tiny(&mut self) {
        self.has_tiny = false;
        (self.takes_tiny, self.is_reopened) = (true, true);
        self.wake();
    }

    /// Frames one piece of a stream. Says whether there may be another.
    pub(super) fn frame_one(&mut self, slot: u32) -> bool {
        let stream = self.streams.at(slot);
        if stream.lost.is_some() {
            return false;
        }
        let key = stream.key;
        let Some(first) = stream.waiting.front() else {
            return self.frame_end(slot);
        };
        let first_len = first.len();
        let room = self.machine.data_room(key);
        let len = first_len.min(room);
        if len == 0 {
            return false;
        }
        // A window of a few bytes is waited for a moment, in which it may open further: else each byte that a peer
        // lets through would be a frame.
        if room < H2_TINY_BYTES.min(stream.waiting_bytes) && !self.takes_tiny {
            self.has_tiny = true;
            return false;
        }
        let is_last = len == first_len && stream.waiting.len() == 1;
        let is_end = is_last && matches!(stream.end, End::Data);
        let head = match self.machine.data_frame(key, len, is_end) {
            Ok(head) => head,
            Err(error) => {
                self.fail(slot, error);
                return false;
            }
        };
        let high = self.waiting_high(key);
        self.framed += len as u64;
        let stream = self.streams.at(slot);
        let piece = stream.take_waiting(len, high);
        if is_end {
            stream.end = End::Done;
        }
        let is_more = !stream.waiting.is_empty() || matches!(stream.end, End::Trailers(_));
        if let Some(piece) = piece {
            self.out.data(&head, piece, &[]);
        }
        is_more
    }

    /// Ends our message, when all its data was framed and it is to end.
    fn frame_end(&mut self, slot: u32) -> bool {
        let stream = self.streams.at(slot);
        let key = stream.key;
        let ended = match mem::replace(&mut stream.end, End::Done) {
            End::Data => self.machine.end(self.out.open(), key),
            End::Trailers(trailers) => self.machine.send_trailers(self.out.open(), key, &trailers),
            End::Open => {
                stream.end = End::Open;
                return false;
            }
            End::Done => return false,
        };
        match ended {
            Ok(()) => self.streams.peek(slot).wake(),
            Err(error) => self.fail(slot, error),
        }
        false
    }

    /// Ends our message with trailers, behind data that was all framed.
    pub(super) fn send_trailers(&mut self, slot: u32, key: StreamKey, trailers: &Trailers) {
        let sent = self.machine.send_trailers(self.out.open(), key, trailers);
        match sent {
            Ok(()) => self.wake(),
            Err(error) => self.fail(slot, error),
        }
    }

    /// A message of ours is not what was announced: it must not look whole.
    fn fail(&mut self, slot: u32, error: Error) {
        let stream = self.streams.at(slot);
        let key = stream.key;
        stream.lose(Lost::Misbehaved(error));
        self.machine.reset(key, ErrorCode::INTERNAL_ERROR);
    }

    /// Opens a stream with a request. `None`: no stream can be opened now.
    pub(super) fn open(
        &mut self,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
    ) -> Option<u32> {
        let opened = self
            .machine
            .open(self.out.open(), block, head, edits, framing);
        let slot = self.streams.add(opened.ok()?);
        if self.machine.is_sent(self.streams.peek(slot).key) {
            self.streams.at(slot).end = End::Done;
        }
        self.was_used = true;
        self.wake();
        Some(slot)
    }
}
