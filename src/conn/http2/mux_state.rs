//! The state of a connection of HTTP/2, as its tasks leave it to each other.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::task::{Context, Poll, Waker};

use weir_proto_h1::{BodyKind, Edits, Head, Request, Trailers};
use weir_proto_h2::{Connection, Error, ErrorCode, Event, Framing, StreamKey};

use super::mux::{IdleWorker, PendingRequest};
use super::stream_table::{MessageEnd, ResponseHead, StreamLoss, StreamTable};
use super::turns::Turns;
use crate::conn::{Outbox, WireTx};
use crate::core::{Share, Timer};
use crate::io::{Chunk, Instant, Net, Pool, Tx};
use crate::limits::{
    COPY_BELOW_BYTES, H2_BLOCKED_QUEUED_BYTES_HIGH, H2_HEAD_STEP_BYTES, H2_INTERIM_WAITING_MAX,
    H2_QUEUED_BYTES_HIGH, H2_STREAM_QUEUED_BYTES_HIGH, H2_TINY_WINDOW_BYTES, IDLE_CONNECTION_BYTES,
    IDLE_TLS_BYTES, KERNEL_QUEUED_BYTES, PIECE_SHARE_MIN,
};
use crate::obs::Http2Tally;

/// What the tasks of a connection share, behind the one cell of their [`Mux`].
pub(super) struct MuxState<N: Net> {
    pub(super) machine: Connection,
    pub(super) out: Outbox<WireTx<N>>,
    pub(super) streams: StreamTable,
    /// Requests that no task has taken yet. Servers only.
    pub(super) requests: VecDeque<PendingRequest>,
    /// How many of them, the first ones, are given to tasks. Servers only.
    pub(super) assigned: usize,
    /// Requests for which a task is still to be started. Servers only.
    pub(super) workers_needed: usize,
    /// Tasks that wait for a request. Servers only.
    pub(super) workers: Vec<IdleWorker>,
    /// StreamTable that no request holds any more, and until when the peer may end its message on them. Clients only.
    pub(super) detached: VecDeque<(Instant, StreamKey)>,
    /// StreamTable that may have something to frame.
    pub(super) turns: Turns,
    /// Bytes of data that were framed, of all streams.
    pub(super) framed: u64,
    /// All streams may have room again.
    pub(super) has_windows_opened: bool,
    /// Pieces wait that would be tiny, because a window lets no more through.
    pub(super) has_tiny: bool,
    /// They have waited for long enough.
    pub(super) may_frame_tiny: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// The connection is gone.
    pub(super) is_gone: bool,
    /// A request was begun on it before.
    pub(super) has_served: bool,
    /// When something was received last.
    pub(super) last_received: Instant,
    /// Heads, pieces of data and ends of messages that were received.
    pub(super) message_parts: u64,
    /// Heads are decoded into these, and heads that are done with come back.
    pub(super) head: Head,
    pub(super) text: Vec<u8>,
    pub(super) spare_heads: Vec<Head>,
    /// What is still to be counted.
    pub(super) tally: Http2Tally,
}

impl<N: Net> MuxState<N> {
    pub(super) fn new(machine: Connection, out: Outbox<WireTx<N>>, now: Instant) -> Self {
        Self {
            machine,
            out,
            streams: StreamTable::default(),
            requests: VecDeque::new(),
            assigned: 0,
            workers_needed: 0,
            workers: Vec::new(),
            detached: VecDeque::new(),
            turns: Turns::default(),
            framed: 0,
            has_windows_opened: false,
            has_tiny: false,
            may_frame_tiny: false,
            task: None,
            is_gone: false,
            has_served: false,
            last_received: now,
            message_parts: 0,
            head: Head::new(),
            text: Vec::new(),
            spare_heads: Vec::new(),
            tally: Http2Tally::default(),
        }
    }

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
        (self.spare_heads, self.turns) = (Vec::new(), Turns::default());
        self.has_windows_opened = false;
        self.requests = VecDeque::new();
        mem::take(&mut self.workers)
            .into_iter()
            .for_each(IdleWorker::wake);
    }

    /// Says what the connection holds. One that holds too much ends: with a word, if there is room for it.
    pub(super) fn charge_memory(&mut self, timer: &Timer) {
        let queued = self.out.queued();
        let kernel = if queued > 0 { KERNEL_QUEUED_BYTES } else { 0 };
        let rest = if self.streams.is_empty() {
            IDLE_CONNECTION_BYTES + IDLE_TLS_BYTES
        } else {
            0
        };
        timer.report_held(rest + queued + kernel + self.streams.held_bytes());
        if timer.take_shed_request() {
            self.machine.abort(Error::HoldsTooMuch);
            if self.out.queued() > 0 {
                self.out.tx.abort();
            }
        }
    }

    /// Gives a stream a turn: it may have something to frame.
    pub(super) fn give_turn(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        if stream.turn.is_none() {
            let (key, priority) = (stream.key, self.machine.priority(stream.key));
            stream.turn = Some(self.turns.add(slot, key.id(), priority));
        }
    }

    /// Says whether it had one.
    pub(super) fn drop_turn(&mut self, slot: u32) -> bool {
        let turn = self.streams.at(slot).turn.take();
        turn.inspect(|&turn| self.turns.remove(turn)).is_some()
    }

    /// Takes in what has come. What is left when the share is used up is returned.
    pub(super) fn receive(
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
                    self.has_windows_opened |= self.has_tiny;
                    return Ok(None);
                }
                Event::Data {
                    stream,
                    range,
                    is_end,
                } => {
                    self.message_parts += 1;
                    let piece = bytes.slice(start + range.start, start + range.end);
                    self.add_data(stream, piece, is_end, now_ms, pool);
                }
                event => self.handle(event, pool),
            }
        }
    }

    fn add_data(&mut self, key: StreamKey, piece: Chunk, is_end: bool, now_ms: u64, pool: &Pool) {
        let Some((_, stream)) = self.streams.find(key) else {
            // Its request was answered and forgotten.
            self.machine.consume(key, piece.len(), now_ms);
            return;
        };
        // Small pieces are put together: each would hold a block of its own otherwise. So would larger ones in a block
        // that is mostly other streams'.
        if piece.len() >= COPY_BELOW_BYTES && piece.len() * PIECE_SHARE_MIN >= piece.held_bytes() {
            stream.received.push_back(piece);
        } else if !stream
            .received
            .back_mut()
            .is_some_and(|last| last.append(&piece))
        {
            stream.received.push_back(pool.copy(&piece));
        }
        stream.has_peer_ended |= is_end;
        stream.wake();
    }

    fn handle(&mut self, event: Event, pool: &Pool) {
        match event {
            Event::Interim { .. }
            | Event::Response { .. }
            | Event::Trailers { .. }
            | Event::End { .. } => self.message_parts += 1,
            _ => {}
        }
        match event {
            Event::Request {
                stream,
                request,
                is_end,
            } => self.add_request(stream, request, is_end, None, pool),
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
                self.add_request(stream, request, is_end, Some(error), pool);
            }
            Event::Interim { stream } => self.add_response_head(stream, None, false, pool),
            Event::Response {
                stream,
                body,
                is_end,
            } => self.add_response_head(stream, Some(body), is_end, pool),
            Event::Trailers { stream } => {
                if let Some((_, stream)) = self.streams.find(stream) {
                    stream.trailers.fill(&self.head, &self.text);
                    stream.has_peer_ended = true;
                    stream.wake();
                }
            }
            Event::End { stream } => {
                if let Some((_, stream)) = self.streams.find(stream) {
                    stream.has_peer_ended = true;
                    stream.wake();
                }
            }
            Event::Reset {
                stream,
                code,
                is_unprocessed,
            } => {
                self.tally.resets += 1;
                let lost = StreamLoss::Reset {
                    code,
                    is_unprocessed,
                };
                self.lose_stream(stream, lost);
            }
            Event::Failed { stream, error } => {
                self.tally.failed.push(error);
                self.lose_stream(stream, StreamLoss::Misbehaved(error));
            }
            Event::WindowOpened {
                stream: Some(stream),
            } => {
                if let Some((slot, _)) = self.streams.find(stream) {
                    self.give_turn(slot);
                }
            }
            Event::Prioritized { stream } => {
                if let Some((slot, _)) = self.streams.find(stream)
                    && self.drop_turn(slot)
                {
                    self.give_turn(slot);
                }
            }
            Event::SettingsChanged => self.has_windows_opened = true,
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

    fn lose_stream(&mut self, key: StreamKey, loss: StreamLoss) {
        if let Some((_, stream)) = self.streams.find(key) {
            stream.lose(loss);
        }
    }

    fn take_head(&mut self, pool: &Pool) -> (Head, Chunk) {
        let spare = self.spare_heads.pop().unwrap_or_default();
        let head = mem::replace(&mut self.head, spare);
        (head, pool.copy(&self.text))
    }

    fn add_request(
        &mut self,
        key: StreamKey,
        request: Request,
        is_end: bool,
        refused: Option<Error>,
        pool: &Pool,
    ) {
        self.tally.requests += 1;
        let (head, block) = self.take_head(pool);
        let slot = self.streams.add(key);
        self.streams.at(slot).has_peer_ended = is_end;
        self.requests.push_back(PendingRequest {
            slot,
            request,
            head,
            block,
            refused,
        });
    }

    /// Gives so many of the requests that have come to tasks. Says whether there are more.
    pub(super) fn release(&mut self, most: usize) -> bool {
        let left = self.requests.len() - self.assigned;
        for _ in 0..left.min(most) {
            self.assigned += 1;
            match self.workers.pop() {
                Some(worker) => worker.wake(),
                None => self.workers_needed += 1,
            }
        }
        left > most
    }

    /// Takes the first of the requests that were given to tasks.
    pub(super) fn take_request(&mut self) -> Option<PendingRequest> {
        self.assigned = self.assigned.checked_sub(1)?;
        self.requests.pop_front()
    }

    fn add_response_head(
        &mut self,
        key: StreamKey,
        body: Option<BodyKind>,
        is_end: bool,
        pool: &Pool,
    ) {
        let (head, block) = self.take_head(pool);
        let Some((_, stream)) = self.streams.find(key) else {
            return;
        };
        if body.is_none() && stream.answers.len() >= H2_INTERIM_WAITING_MAX {
            // No window holds heads back.
            stream.lose(StreamLoss::Misbehaved(Error::TooManyInterim));
            return self.machine.reset(key, ErrorCode::ENHANCE_YOUR_CALM);
        }
        stream.answers.push_back(ResponseHead { head, block, body });
        stream.has_peer_ended |= is_end;
        stream.wake();
    }

    /// Frames what there is room for and sends it.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.flush_output();
        if mem::take(&mut self.has_windows_opened) {
            let slots: Vec<u32> = self.streams.slots().collect();
            slots.into_iter().for_each(|slot| self.give_turn(slot));
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
                self.give_turn(slot);
            }
        }
        self.may_frame_tiny = false;
        self.flush_output();
        match self.out.poll_send(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn flush_output(&mut self) {
        if self.machine.has_output() {
            self.machine.take_output(self.out.open());
        }
    }

    /// Whether there is something that can be framed. While the connection's window is shut, that is a message that ends
    /// without data.
    pub(super) fn is_due(&self) -> bool {
        let mut slots = self.turns.slots();
        match self.machine.has_connection_window() {
            true => slots.next().is_some(),
            false => slots.any(|slot| self.streams.peek(slot).queued.is_empty()),
        }
    }

    /// Ends the messages that end without data.
    fn frame_ends(&mut self) {
        let no_data = |&slot: &u32| self.streams.peek(slot).queued.is_empty();
        let slots: Vec<u32> = self.turns.slots().filter(no_data).collect();
        for slot in slots {
            self.drop_turn(slot);
            self.frame_one(slot);
        }
    }

    /// Bytes that may wait on a stream before their source is no longer read: some while frames go out, less while a
    /// window is as good as shut or the peer does not read. What a peer can make wait is all its streams together.
    pub(super) fn queued_bytes_high(&self, key: StreamKey) -> usize {
        let is_shut = self.has_tiny || self.machine.is_send_blocked(key);
        if is_shut || self.out.queued() >= H2_QUEUED_BYTES_HIGH {
            H2_BLOCKED_QUEUED_BYTES_HIGH
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
        (self.may_frame_tiny, self.has_windows_opened) = (true, true);
        self.wake();
    }

    /// Frames one piece of a stream. Says whether there may be another.
    pub(super) fn frame_one(&mut self, slot: u32) -> bool {
        let stream = self.streams.at(slot);
        if stream.loss.is_some() {
            return false;
        }
        let key = stream.key;
        let Some(first) = stream.queued.front() else {
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
        if room < H2_TINY_WINDOW_BYTES.min(stream.queued_bytes) && !self.may_frame_tiny {
            self.has_tiny = true;
            return false;
        }
        let is_last = len == first_len && stream.queued.len() == 1;
        let is_end = is_last && matches!(stream.end, MessageEnd::Data);
        let head = match self.machine.data_frame(key, len, is_end) {
            Ok(head) => head,
            Err(error) => {
                self.fail(slot, error);
                return false;
            }
        };
        let high = self.queued_bytes_high(key);
        self.framed += len as u64;
        let stream = self.streams.at(slot);
        let piece = stream.take_queued(len, high);
        if is_end {
            stream.end = MessageEnd::Done;
        }
        let is_more = !stream.queued.is_empty() || matches!(stream.end, MessageEnd::Trailers(_));
        if let Some(piece) = piece {
            self.out.data(&head, piece, &[]);
        }
        is_more
    }

    /// Ends our message, when all its data was framed and it is to end.
    fn frame_end(&mut self, slot: u32) -> bool {
        let stream = self.streams.at(slot);
        let key = stream.key;
        let ended = match mem::replace(&mut stream.end, MessageEnd::Done) {
            MessageEnd::Data => self.machine.end(self.out.open(), key),
            MessageEnd::Trailers(trailers) => {
                self.machine.send_trailers(self.out.open(), key, &trailers)
            }
            MessageEnd::Open => {
                stream.end = MessageEnd::Open;
                return false;
            }
            MessageEnd::Done => return false,
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
        stream.lose(StreamLoss::Misbehaved(error));
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
            self.streams.at(slot).end = MessageEnd::Done;
        }
        self.has_served = true;
        self.wake();
        Some(slot)
    }
}
