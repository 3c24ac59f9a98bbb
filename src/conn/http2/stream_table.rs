//! The streams of one connection, as the tasks of their requests see them.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use weir_proto_h1::{BodyKind, Head, Trailers};
use weir_proto_h2::{Error, ErrorCode, StreamKey};

use super::turns::Turn;
use crate::io::Chunk;
use crate::tls::TlsFailure;

/// One stream: what was received and not taken yet, and what is queued and not framed yet.
pub(super) struct Stream {
    /// The protocol's key for the stream.
    pub(super) key: StreamKey,
    /// The task of the stream's request.
    pub(super) task: Option<Waker>,
    /// Heads of responses. Clients only.
    pub(super) heads: VecDeque<ResponseHead>,
    /// Received data.
    pub(super) received: VecDeque<Chunk>,
    /// The peer's message ends after `received`.
    pub(super) has_peer_ended: bool,
    /// The trailers of the peer's message.
    pub(super) trailers: Trailers,
    /// Why the stream ended before both messages did.
    pub(super) loss: Option<StreamLoss>,
    /// Data to be framed, and its length.
    pub(super) queued: VecDeque<Chunk>,
    pub(super) queued_bytes: usize,
    /// Data bytes framed.
    pub(super) framed: u64,
    /// Bytes that other streams framed while this one waited for its turn, and what the connection had framed when
    /// they were last counted.
    pub(super) bytes_let_past: u64,
    pub(super) framed_at_count: u64,
    /// How our message ends.
    pub(super) end: MessageEnd,
    /// The stream's turn while it is queued for one.
    pub(super) turn: Option<Turn>,
    /// The request has finished, and left the stream to the connection.
    pub(super) is_detached: bool,
}

/// The head of a response.
pub(super) struct ResponseHead {
    pub(super) head: Head,
    pub(super) block: Chunk,
    /// The body's length; `None` for an interim response.
    pub(super) body: Option<BodyKind>,
}

/// How our message ends.
pub(super) enum MessageEnd {
    /// More may follow.
    Open,
    /// It ends after the queued data.
    Data,
    /// It ends with trailers after the queued data.
    Trailers(Box<Trailers>),
    /// It has ended.
    Done,
}

/// Why a stream was lost.
#[derive(Clone, Copy, Debug)]
pub enum StreamLoss {
    /// The peer reset the stream, or sent GOAWAY without having processed it.
    Reset {
        code: ErrorCode,
        is_unprocessed: bool,
    },
    /// The peer violated the protocol on the stream.
    Misbehaved(Error),
    /// The connection is gone.
    Disconnected,
    /// The connection is gone because TLS failed.
    Refused(TlsFailure),
}

impl Stream {
    pub(super) fn new(key: StreamKey) -> Self {
        Self {
            key,
            task: None,
            heads: VecDeque::new(),
            received: VecDeque::new(),
            has_peer_ended: false,
            trailers: Trailers::default(),
            loss: None,
            queued: VecDeque::new(),
            queued_bytes: 0,
            framed: 0,
            bytes_let_past: 0,
            framed_at_count: 0,
            end: MessageEnd::Open,
            turn: None,
            is_detached: false,
        }
    }

    /// Takes `len` bytes from the first queued piece. Wakes the request's task when it can queue more: when nothing is
    /// queued any more, or less than half of `high`.
    pub(super) fn take_queued(&mut self, len: usize, high: usize) -> Option<Chunk> {
        let first = self.queued.front_mut()?;
        let piece = if len < first.len() {
            Some(first.split_to(len))
        } else {
            self.queued.pop_front()
        };
        let before = self.queued_bytes;
        self.queued_bytes -= len;
        self.framed += len as u64;
        let is_half = before > high / 2 && self.queued_bytes <= high / 2;
        if is_half || self.queued.is_empty() {
            self.wake();
        }
        piece
    }

    /// Memory of the queued and received data.
    pub(super) fn held_bytes(&self) -> usize {
        let waiting = self.queued.iter().chain(&self.received);
        waiting.map(Chunk::weight).sum()
    }

    /// Registers the task that is woken on changes.
    pub(super) fn watch(&mut self, cx: &Context<'_>) {
        if !self
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Wakes the request's task.
    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Prepares the entry for the next stream and keeps its capacity.
    fn clear(&mut self) {
        self.task = None;
        self.heads.clear();
        self.received.clear();
        self.has_peer_ended = false;
        // If the last request did not take its trailers, the next one must not get them.
        self.trailers = Trailers::default();
        self.loss = None;
        self.queued.clear();
        self.queued_bytes = 0;
        self.framed = 0;
        self.bytes_let_past = 0;
        self.framed_at_count = 0;
        self.end = MessageEnd::Open;
        self.turn = None;
        self.is_detached = false;
    }

    /// Marks the stream as lost. Received data stays, because it may be the whole response.
    pub(super) fn lose(&mut self, loss: StreamLoss) {
        self.loss.get_or_insert(loss);
        self.queued.clear();
        self.queued_bytes = 0;
        self.wake();
    }
}

/// The streams of a connection whose requests still have a task.
///
/// The protocol's [`Connection`](weir_proto_h2::Connection) has a table of its own, because streams live there for
/// another time. The protocol forgets a stream when both messages have ended or one side resets it. Only then may the
/// peer open another, so the protocol's memory stays bounded. This table keeps the stream until its task has taken
/// what was received: a request still finds its response after the endpoint has ended or reset the stream. Both tables
/// know a stream by its [`StreamKey`].
///
/// Only [`StreamTable::add`] makes slots. One request owns a slot: first in its `PendingRequest`, then in its
/// `StreamHandle`, which removes the stream when it is dropped. The table shrinks only when it is empty, so the owner
/// may index with its slot. No number from a peer is ever a slot.
#[derive(Default)]
pub(super) struct StreamTable {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// Stream numbers in ascending order, with their slots. A new stream has the highest number.
    order: Vec<(u32, u32)>,
}

impl StreamTable {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a stream. Returns its slot.
    pub(super) fn add(&mut self, key: StreamKey) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.at_mut(slot).key = key;
                slot
            }
            None => {
                self.slots.push(Stream::new(key));
                (self.slots.len() - 1) as u32
            }
        };
        self.order.push((key.id(), slot));
        slot
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, slot: u32) {
        let id = self.at(slot).key.id();
        if let Ok(at) = self.order.binary_search_by_key(&id, |entry| entry.0) {
            self.order.remove(at);
            self.at_mut(slot).clear();
            self.free.push(slot);
        }
    }

    /// The stream in a slot that was not removed.
    #[expect(clippy::indexing_slicing, reason = "slots are ours: see the type")]
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "slots are ours: see the type")]
    pub(super) fn at(&self, slot: u32) -> &Stream {
        &self.slots[slot as usize]
    }

    /// Finds a stream by the protocol's key.
    pub(super) fn find(&mut self, key: StreamKey) -> Option<(u32, &mut Stream)> {
        let at = self.order.binary_search_by_key(&key.id(), |entry| entry.0);
        let &(_, slot) = self.order.get(at.ok()?)?;
        Some((slot, self.at_mut(slot)))
    }

    /// Memory of the queued and received data of all streams.
    pub(super) fn held_bytes(&self) -> usize {
        self.slots().map(|slot| self.at(slot).held_bytes()).sum()
    }

    /// The slots of all streams.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|entry| entry.1)
    }

    /// Frees memory if no stream is open.
    pub(super) fn release_memory(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Edits, Head};
    use weir_proto_h2::{Config, Connection, Framing};

    use super::*;
    use crate::io::Pool;
    use crate::io::wake_counter::WakeCounter;

    #[test]
    fn a_task_is_woken_when_it_can_queue_more_and_not_for_each_byte() {
        let mut machine = Connection::client(Config::default());
        let head = Head::new();
        let key = machine.open(
            &mut Vec::new(),
            b"",
            &head,
            &Edits::new(),
            &Framing::default(),
        );
        let mut stream = Stream::new(key.expect("a stream"));
        let (wakes, waker) = WakeCounter::new();
        stream.watch(&Context::from_waker(&waker));
        for _ in 0..8 {
            stream.queued.push_back(Pool::new().copy(&[0; 1_000]));
            stream.queued_bytes += 1_000;
        }
        let mut woken_at = Vec::new();
        while let Some(piece) = stream.take_queued(1, 8_000) {
            assert_eq!(piece.len(), 1);
            if wakes.take() > 0 {
                woken_at.push(stream.queued_bytes);
            }
        }
        assert_eq!(woken_at, [4_000, 0]);
        assert_eq!(stream.framed, 8_000);
    }
}
