//! One request's hold on its stream.

use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_proto_h1::Trailers;
use weir_proto_h2::ErrorCode;

use super::mux::Mux;
use super::stream_table::{MessageEnd, ResponseHead, StreamLoss};
use crate::io::{Chunk, Net};
use crate::limits::{H2_END_MS, H2_QUEUED_BYTES_HIGH};

/// A stream as the task of its request has it. Dropping it ends the stream if it has not ended by itself.
pub struct StreamHandle<N: Net> {
    pub(super) mux: Rc<Mux<N>>,
    pub(super) slot: u32,
}

/// What came on a stream.
pub(super) enum StreamPart {
    /// The head of an answer. Clients only.
    Answer(ResponseHead),
    /// A piece of the body.
    Data(Chunk),
    /// The message has ended.
    End,
}

impl<N: Net> StreamHandle<N> {
    /// Waits for what comes next.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<StreamPart, StreamLoss>> {
        let now_ms = self.mux.now_ms();
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at(self.slot);
        if let Some(answer) = stream.answers.pop_front() {
            return Poll::Ready(Ok(StreamPart::Answer(answer)));
        }
        if let Some(data) = stream.received.pop_front() {
            state.machine.consume(stream.key, data.len(), now_ms);
            if state.machine.has_output() {
                state.wake();
            }
            return Poll::Ready(Ok(StreamPart::Data(data)));
        }
        if stream.has_peer_ended {
            return Poll::Ready(Ok(StreamPart::End));
        }
        if let Some(lost) = stream.loss {
            return Poll::Ready(Err(lost));
        }
        stream.watch(cx);
        Poll::Pending
    }

    /// Says whether the stream is gone, although it has not ended; hears of it if that happens later.
    pub(super) fn poll_loss(&self, cx: &Context<'_>) -> Option<StreamLoss> {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at(self.slot);
        stream.watch(cx);
        stream.loss
    }

    /// Why the stream is gone before both messages had ended, if it is.
    pub(super) fn loss(&self) -> Option<StreamLoss> {
        let state = self.mux.state.borrow();
        state.streams.peek(self.slot).loss
    }

    /// The trailers of a message that has ended.
    pub(super) fn take_trailers(&self) -> Trailers {
        mem::take(&mut self.mux.state.borrow_mut().streams.at(self.slot).trailers)
    }

    /// Waits for bytes of a stream that carries something else than a message. `None` is the orderly end.
    pub(in crate::conn) fn poll_raw(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Ok(StreamPart::Data(data)) => Ok(Some(data)),
            Ok(StreamPart::End | StreamPart::Answer(_)) => Ok(None),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        })
    }

    /// Leaves data to be sent.
    pub(in crate::conn) fn push(&self, data: Chunk) {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at(self.slot);
        if data.is_empty() || stream.loss.is_some() {
            return;
        }
        stream.queued_bytes += data.len();
        stream.queued.push_back(data);
        state.give_turn(self.slot);
        state.wake();
    }

    /// Ends our message behind the data that waits.
    pub(in crate::conn) fn end_message(&self, trailers: &Trailers) {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at(self.slot);
        if matches!(stream.end, MessageEnd::Done) || stream.loss.is_some() {
            return;
        }
        if trailers.is_empty() {
            stream.end = MessageEnd::Data;
        } else {
            // Most often there is room for all that waits: nothing is kept then.
            let key = stream.key;
            while state.frame_one(self.slot) {}
            let stream = state.streams.at(self.slot);
            if stream.queued.is_empty() {
                stream.end = MessageEnd::Done;
                state.send_trailers(self.slot, key, trailers);
                return;
            }
            stream.end = MessageEnd::Trailers(Box::new(trailers.clone()));
        }
        state.give_turn(self.slot);
        state.wake();
    }

    /// Waits until all that was left is framed.
    pub(in crate::conn) fn poll_framed(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at(self.slot);
        if stream.loss.is_some() && !matches!(stream.end, MessageEnd::Done) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if stream.queued.is_empty() && matches!(stream.end, MessageEnd::Open | MessageEnd::Done) {
            return Poll::Ready(Ok(()));
        }
        stream.watch(cx);
        Poll::Pending
    }

    /// Bytes that were left and not framed.
    pub(in crate::conn) fn queued_bytes(&self) -> usize {
        self.mux.state.borrow().streams.peek(self.slot).queued_bytes
    }

    /// Bytes of memory that what waits takes, in either direction.
    pub(super) fn held_bytes(&self) -> usize {
        self.mux.state.borrow().streams.peek(self.slot).held_bytes()
    }

    /// Bytes that may wait before their source is no longer read.
    pub(in crate::conn) fn queued_bytes_high(&self) -> usize {
        let state = self.mux.state.borrow();
        state.queued_bytes_high(state.streams.peek(self.slot).key)
    }

    /// Bytes that were framed.
    pub(in crate::conn) fn framed_bytes(&self) -> u64 {
        self.mux.state.borrow().streams.peek(self.slot).framed
    }

    /// Grows while the peer takes what it lets through: bytes of the stream that were framed, and those of others that
    /// went first while it only waited for its turn.
    pub(super) fn progress(&self) -> u64 {
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at(self.slot);
        let past = state.framed - mem::replace(&mut stream.framed_at_count, state.framed);
        if !stream.queued.is_empty() && state.machine.has_stream_window(stream.key) {
            stream.bytes_let_past += past;
        }
        stream.framed + stream.bytes_let_past
    }

    /// Leaves a stream to its connection, which waits a moment for the end of the peer's message. If ours has not ended,
    /// there is nothing to wait for.
    pub(super) fn detach(&self) {
        let until = self.mux.net.now() + Duration::from_millis(H2_END_MS);
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at(self.slot);
        if state.machine.is_sent(stream.key) && !state.machine.is_received(stream.key) {
            stream.is_detached = true;
            state.detached.push_back((until, stream.key));
        }
    }

    /// Ends the stream in both directions, so that the peer sees that something is missing. What waits goes before that,
    /// as far as there is room for it.
    pub(super) fn reset(&self, code: ErrorCode) {
        let mut state = self.mux.state.borrow_mut();
        while state.out.queued() < H2_QUEUED_BYTES_HIGH && state.frame_one(self.slot) {}
        let key = state.streams.peek(self.slot).key;
        state.machine.reset(key, code);
        state.wake();
    }
}

impl<N: Net> Drop for StreamHandle<N> {
    fn drop(&mut self) {
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at(self.slot);
        let key = stream.key;
        if !stream.is_detached {
            state.machine.release(key);
        }
        state.drop_turn(self.slot);
        state.streams.remove(self.slot);
        state.wake();
    }
}
