//! The state that the tasks of one connection share.

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

/// The state behind the [`Mux`](super::Mux): the protocol's state, the data that waits in both directions, and the
/// waiting tasks.
pub(super) struct MuxState<N: Net> {
    pub(super) machine: Connection,
    pub(super) out: Outbox<WireTx<N>>,
    pub(super) streams: StreamTable,
    /// Requests that no task serves yet. Servers only.
    pub(super) requests: VecDeque<PendingRequest>,
    /// How many of `requests`, from the front, tasks may take now. Servers only.
    pub(super) assigned: usize,
    /// How many assigned requests need a new task. Servers only.
    pub(super) workers_needed: usize,
    /// Tasks that wait for a request. Servers only.
    pub(super) workers: Vec<IdleWorker>,
    /// Streams without a request, whose peer has until the given time to end its message. Clients only.
    pub(super) detached: VecDeque<(Instant, StreamKey)>,
    /// Streams that may have something to frame.
    pub(super) turns: Turns,
    /// Data bytes framed on all streams.
    pub(super) framed: u64,
    /// A window has opened on any stream, so each must be checked.
    pub(super) has_windows_opened: bool,
    /// Some stream has only a tiny window left and data to send.
    pub(super) has_tiny_pieces: bool,
    /// Tiny pieces have waited long enough and may be framed.
    pub(super) may_frame_tiny: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// The connection has ended.
    pub(super) is_gone: bool,
    /// The connection has carried a request.
    pub(super) has_served: bool,
    /// When bytes last arrived.
    pub(super) last_received: Instant,
    /// How many heads, data frames and ends of messages arrived.
    pub(super) message_parts: u64,
    /// The decoder fills `head` and `text`. Used heads return to `spare_heads`.
    pub(super) head: Head,
    pub(super) text: Vec<u8>,
    pub(super) spare_heads: Vec<Head>,
    /// Counts for metrics since the last [`Mux::take_tally`](super::Mux::take_tally).
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
            has_tiny_pieces: false,
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

    /// Wakes the connection's task, which then runs after the tasks that are already due.
    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Whether the connection has nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        self.machine.failure().is_some() || (self.machine.is_finished() && self.streams.is_empty())
    }

    /// Frees the memory that only a busy connection needs. Call it when no stream is open.
    pub(super) fn release_memory(&mut self) {
        self.machine.release_memory();
        self.streams.release_memory();
        self.out.tx.rest();
        (self.head, self.text) = (Head::new(), Vec::new());
        (self.spare_heads, self.turns) = (Vec::new(), Turns::default());
        self.has_windows_opened = false;
        self.requests = VecDeque::new();
        mem::take(&mut self.workers)
            .into_iter()
            .for_each(IdleWorker::dismiss);
    }

    /// Charges the connection's memory to `timer`. If the core chooses this connection to free memory, it ends with a
    /// GOAWAY, or with a reset if bytes are already queued.
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

    /// Queues a stream for a turn, because it may have something to frame.
    pub(super) fn give_turn(&mut self, slot: u32) {
        let stream = self.streams.at_mut(slot);
        if stream.turn.is_none() {
            let (key, priority) = (stream.key, self.machine.priority(stream.key));
            stream.turn = Some(self.turns.add(slot, key.id(), priority));
        }
    }

    /// Takes a stream out of the queue. Returns whether it was there.
    pub(super) fn drop_turn(&mut self, slot: u32) -> bool {
        let turn = self.streams.at_mut(slot).turn.take();
        turn.inspect(|&turn| self.turns.remove(turn)).is_some()
    }

    /// Whether a stream may frame its last piece without a turn: no other stream waits for one.
    pub(super) fn may_frame_out_of_turn(&self, slot: u32) -> bool {
        self.streams.at(slot).queued.len() <= 1
            && self.turns.slots().all(|waits| waits == slot)
            && self.out.queued() < H2_QUEUED_BYTES_HIGH
    }

    /// Parses received bytes. Returns the rest if the task's share is used up.
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
                    // The tiny window of some stream may have grown.
                    self.has_windows_opened |= self.has_tiny_pieces;
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
            // No request waits for this data: it was answered and its stream released.
            self.machine.consume(key, piece.len(), now_ms);
            return;
        };
        // The stream copies a small piece, or one from a block that other streams use too, so that no piece keeps a
        // whole block alive.
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
            // Streams that wait for the connection's window still have their turn.
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
        self.streams.at_mut(slot).has_peer_ended = is_end;
        self.requests.push_back(PendingRequest {
            slot,
            request,
            head,
            block,
            refused,
        });
    }

    /// Assigns up to `most` pending requests to tasks. Returns whether more are pending.
    pub(super) fn assign_requests(&mut self, most: usize) -> bool {
        let left = self.requests.len() - self.assigned;
        for _ in 0..left.min(most) {
            self.assigned += 1;
            match self.workers.pop() {
                Some(worker) => worker.call(),
                None => self.workers_needed += 1,
            }
        }
        left > most
    }

    /// Takes the first assigned request.
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
        if body.is_none() && stream.heads.len() >= H2_INTERIM_WAITING_MAX {
            // No flow control limits heads.
            stream.lose(StreamLoss::Misbehaved(Error::TooManyInterim));
            return self.machine.reset(key, ErrorCode::ENHANCE_YOUR_CALM);
        }
        stream.heads.push_back(ResponseHead { head, block, body });
        stream.has_peer_ended |= is_end;
        stream.wake();
    }

    /// Frames as much as the windows and the output queue allow, and sends it.
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
            self.streams.at_mut(slot).turn = None;
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

    /// Whether any stream has something to frame. While the connection's window is closed, only messages that end
    /// without data count.
    pub(super) fn is_due(&self) -> bool {
        let mut slots = self.turns.slots();
        match self.machine.has_connection_window() {
            true => slots.next().is_some(),
            false => slots.any(|slot| self.streams.at(slot).queued.is_empty()),
        }
    }

    /// Ends the messages that have no more data.
    fn frame_ends(&mut self) {
        let no_data = |&slot: &u32| self.streams.at(slot).queued.is_empty();
        let slots: Vec<u32> = self.turns.slots().filter(no_data).collect();
        for slot in slots {
            self.drop_turn(slot);
            self.frame_one(slot);
        }
    }

    /// From this many queued bytes on, the source of a stream must not be read. The limit is lower while a window is
    /// nearly closed or the peer does not read, because a peer can do that on all its streams at once.
    pub(super) fn queued_bytes_high(&self, key: StreamKey) -> usize {
        let is_shut = self.has_tiny_pieces || self.machine.is_send_blocked(key);
        if is_shut || self.out.queued() >= H2_QUEUED_BYTES_HIGH {
            H2_BLOCKED_QUEUED_BYTES_HIGH
        } else {
            H2_STREAM_QUEUED_BYTES_HIGH
        }
    }

    /// Whether some stream has data but only a tiny window.
    pub(super) fn has_tiny_pieces(&self) -> bool {
        self.has_tiny_pieces
    }

    /// Lets tiny pieces be framed: they have waited long enough.
    pub(super) fn allow_tiny_frames(&mut self) {
        self.has_tiny_pieces = false;
        (self.may_frame_tiny, self.has_windows_opened) = (true, true);
        self.wake();
    }

    /// Frames one piece of a stream. Returns whether there may be another.
    pub(super) fn frame_one(&mut self, slot: u32) -> bool {
        let stream = self.streams.at_mut(slot);
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
        // Wait a moment for a window of a few bytes to grow. Otherwise a peer that opens its window byte by byte would
        // get a frame for each.
        if room < H2_TINY_WINDOW_BYTES.min(stream.queued_bytes) && !self.may_frame_tiny {
            self.has_tiny_pieces = true;
            return false;
        }
        let is_last = len == first_len && stream.queued.len() == 1;
        let is_end = is_last && matches!(stream.end, MessageEnd::Data);
        let head = match self.machine.data_frame(key, len, is_end) {
            Ok(head) => head,
            Err(error) => {
                self.fail_stream(slot, error);
                return false;
            }
        };
        let high = self.queued_bytes_high(key);
        self.framed += len as u64;
        let stream = self.streams.at_mut(slot);
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

    /// Ends our message if all its data was framed and no more follows.
    fn frame_end(&mut self, slot: u32) -> bool {
        let stream = self.streams.at_mut(slot);
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
            Ok(()) => self.streams.at(slot).wake(),
            Err(error) => self.fail_stream(slot, error),
        }
        false
    }

    /// Ends our message with trailers. All its data must have been framed.
    pub(super) fn send_trailers(&mut self, slot: u32, key: StreamKey, trailers: &Trailers) {
        let sent = self.machine.send_trailers(self.out.open(), key, trailers);
        match sent {
            Ok(()) => self.wake(),
            Err(error) => self.fail_stream(slot, error),
        }
    }

    /// Resets a stream whose message does not match what its head announced, so that it never looks complete.
    fn fail_stream(&mut self, slot: u32, error: Error) {
        let stream = self.streams.at_mut(slot);
        let key = stream.key;
        stream.lose(StreamLoss::Misbehaved(error));
        self.machine.reset(key, ErrorCode::INTERNAL_ERROR);
    }

    /// Opens a stream for a request. `None`: the connection takes no stream now.
    pub(super) fn open_stream(
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
        if self.machine.is_sent(self.streams.at(slot).key) {
            self.streams.at_mut(slot).end = MessageEnd::Done;
        }
        self.has_served = true;
        self.wake();
        Some(slot)
    }
}
