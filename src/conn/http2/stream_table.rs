//! The streams of one connection, as the tasks of their requests left them.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use weir_proto_h1::{BodyKind, Head, Trailers};
use weir_proto_h2::{Error, ErrorCode, StreamKey};

use super::turns::Turn;
use crate::io::Chunk;
use crate::tls::TlsFailure;

/// One stream: what has come on it and was not taken yet, what is to be sent on it and was not framed yet.
pub(super) struct Stream {
    /// Its name in the protocol's state.
    pub(super) key: StreamKey,
    /// The task of its request.
    pub(super) task: Option<Waker>,
    /// Heads of answers. Clients only.
    pub(super) answers: VecDeque<ResponseHead>,
    /// Data that has come.
    pub(super) received: VecDeque<Chunk>,
    /// The peer's message ends behind what has come.
    pub(super) has_peer_ended: bool,
    /// The trailers that it ended with.
    pub(super) trailers: Trailers,
    /// The stream is gone before both messages had ended.
    pub(super) loss: Option<StreamLoss>,
    /// Data that waits to be framed, and how much of it there is.
    pub(super) queued: VecDeque<Chunk>,
    pub(super) queued_bytes: usize,
    /// Bytes of data that were framed.
    pub(super) framed: u64,
    /// Bytes of other streams that had their turn before it, and what the connection had framed when that was counted.
    pub(super) bytes_let_past: u64,
    pub(super) framed_at_count: u64,
    /// How our message ends.
    pub(super) end: MessageEnd,
    /// Its turn among those that have something to frame.
    pub(super) turn: Option<Turn>,
    /// Its request is done with it, and leaves it to the connection.
    pub(super) is_detached: bool,
}

/// The head of an answer.
pub(super) struct ResponseHead {
    pub(super) head: Head,
    pub(super) block: Chunk,
    /// How long the body is; `None` for an interim answer.
    pub(super) body: Option<BodyKind>,
}

/// How a message of ours ends.
pub(super) enum MessageEnd {
    /// There is more to come.
    Open,
    /// With the last of the data that waits.
    Data,
    /// With trailers behind the data that waits.
    Trailers(Box<Trailers>),
    /// It has ended.
    Done,
}

/// Why a stream is gone.
#[derive(Clone, Copy, Debug)]
pub enum StreamLoss {
    /// The peer has reset it, or goes away without having looked at it.
    Reset {
        code: ErrorCode,
        is_unprocessed: bool,
    },
    /// The peer broke the rules on it.
    Misbehaved(Error),
    /// The connection is gone.
    Disconnected,
    /// The same, because TLS was given up.
    Refused(TlsFailure),
}

impl Stream {
    pub(super) fn new(key: StreamKey) -> Self {
        Self {
            key,
            task: None,
            answers: VecDeque::new(),
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

    /// Takes `len` bytes to be framed, of the first piece that waits. The request's task hears of it when that is of use
    /// to it: when nothing waits any more, or half of the `high` that may.
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

    /// Bytes of memory that what waits takes, in either direction.
    pub(super) fn held_bytes(&self) -> usize {
        let waiting = self.queued.iter().chain(&self.received);
        waiting.map(Chunk::weight).sum()
    }

    /// Has this task be the one that hears of news.
    pub(super) fn watch(&mut self, cx: &Context<'_>) {
        if !self
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Has the request's task look again.
    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Empties it for the next request and keeps its capacity.
    fn clear(&mut self) {
        self.task = None;
        self.answers.clear();
        self.received.clear();
        self.has_peer_ended = false;
        // They may be there without having been taken, and are nobody else's.
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

    /// Notes that nothing more comes or goes. What has come stays: it may be the whole answer.
    pub(super) fn lose(&mut self, loss: StreamLoss) {
        self.loss.get_or_insert(loss);
        self.queued.clear();
        self.queued_bytes = 0;
        self.wake();
    }
}

/// The streams of a connection that a request's task still holds.
///
/// The protocol's own table, inside [`Connection`](weir_proto_h2::Connection), is another one, because a stream lives
/// there for another time. The protocol forgets a stream when both messages have ended or either side resets it; only
/// then may the peer open another, and what it can make the protocol store stays bounded. Here the stream stays until
/// its task is done with what was received, and a request that the endpoint has answered early or reset still finds its
/// answer. Each table finds its own entries; [`StreamKey`] is what both know a stream by.
///
/// Only [`StreamTable::add`] makes slots, and one request holds each: first as a `PendingRequest`, then as a
/// `StreamHandle`, which removes it when it is dropped. The table shrinks only when no stream is left, so the holder of
/// a slot may index with it. Nothing that a peer sends is a slot.
#[derive(Default)]
pub(super) struct StreamTable {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// Numbers of streams, in their order, and their slots. StreamTable are opened in that order, so that a new one goes to
    /// the end.
    order: Vec<(u32, u32)>,
}

impl StreamTable {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes a stream in; says where it is.
    pub(super) fn add(&mut self, key: StreamKey) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.at(slot).key = key;
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

    /// Lets go of a stream.
    pub(super) fn remove(&mut self, slot: u32) {
        let id = self.peek(slot).key.id();
        if let Ok(at) = self.order.binary_search_by_key(&id, |entry| entry.0) {
            self.order.remove(at);
            self.at(slot).clear();
            self.free.push(slot);
        }
    }

    /// The stream in a slot, which its holder has not removed.
    #[expect(clippy::indexing_slicing, reason = "slots are ours: see the type")]
    pub(super) fn at(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "slots are ours: see the type")]
    pub(super) fn peek(&self, slot: u32) -> &Stream {
        &self.slots[slot as usize]
    }

    /// Finds a stream by its name in the protocol's state.
    pub(super) fn find(&mut self, key: StreamKey) -> Option<(u32, &mut Stream)> {
        let at = self.order.binary_search_by_key(&key.id(), |entry| entry.0);
        let &(_, slot) = self.order.get(at.ok()?)?;
        Some((slot, self.at(slot)))
    }

    /// Bytes of memory that what waits on all streams takes, in either direction.
    pub(super) fn held_bytes(&self) -> usize {
        self.slots().map(|slot| self.peek(slot).held_bytes()).sum()
    }

    /// The slots of all streams.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|entry| entry.1)
    }

    /// Gives back what only a busy connection needs.
    pub(super) fn rest(&mut self) {
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
    fn a_task_hears_of_room_when_that_is_of_use_and_not_of_each_byte() {
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
        let mut heard_at = Vec::new();
        while let Some(piece) = stream.take_queued(1, 8_000) {
            assert_eq!(piece.len(), 1);
            if wakes.take() > 0 {
                heard_at.push(stream.queued_bytes);
            }
        }
        assert_eq!(heard_at, [4_000, 0]);
        assert_eq!(stream.framed, 8_000);
    }
}
