//! A request's access to its stream.

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

/// A stream, as the task of its request uses it. Dropping the handle resets the stream if it has not ended.
pub struct StreamHandle<N: Net> {
    pub(super) mux: Rc<Mux<N>>,
    pub(super) slot: u32,
}

/// What arrived on a stream.
pub(super) enum StreamPart {
    /// The head of a response. Clients only.
    Head(ResponseHead),
    /// A piece of the body.
    Data(Chunk),
    /// The end of the message.
    End,
}

impl<N: Net> StreamHandle<N> {
    /// Waits for the next part.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<StreamPart, StreamLoss>> {
        let now_ms = self.mux.now_ms();
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at_mut(self.slot);
        if let Some(head) = stream.heads.pop_front() {
            return Poll::Ready(Ok(StreamPart::Head(head)));
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

    /// Returns why the stream was lost. Otherwise registers the task to be woken when it is.
    pub(super) fn poll_loss(&self, cx: &Context<'_>) -> Option<StreamLoss> {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at_mut(self.slot);
        stream.watch(cx);
        stream.loss
    }

    /// Why the stream was lost, if it was.
    pub(super) fn loss(&self) -> Option<StreamLoss> {
        let state = self.mux.state.borrow();
        state.streams.at(self.slot).loss
    }

    /// Takes the trailers of a message that has ended.
    pub(super) fn take_trailers(&self) -> Trailers {
        mem::take(
            &mut self
                .mux
                .state
                .borrow_mut()
                .streams
                .at_mut(self.slot)
                .trailers,
        )
    }

    /// Waits for raw bytes after an upgrade. `None` is the orderly end.
    pub(in crate::conn) fn poll_raw(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Ok(StreamPart::Data(data)) => Ok(Some(data)),
            Ok(StreamPart::End | StreamPart::Head(_)) => Ok(None),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        })
    }

    /// Queues data.
    pub(in crate::conn) fn push(&self, data: Chunk) {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at_mut(self.slot);
        if data.is_empty() || stream.loss.is_some() {
            return;
        }
        stream.queued_bytes += data.len();
        stream.queued.push_back(data);
        state.give_turn(self.slot);
        state.wake();
    }

    /// Ends our message after the queued data.
    pub(in crate::conn) fn end_message(&self, trailers: &Trailers) {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at_mut(self.slot);
        if matches!(stream.end, MessageEnd::Done) || stream.loss.is_some() {
            return;
        }
        // The task that ends the message need not be woken when its end is framed here.
        let task = stream.task.take();
        if trailers.is_empty() {
            stream.end = MessageEnd::Data;
            if state.may_frame_out_of_turn(self.slot) {
                while state.frame_one(self.slot) {}
            }
        } else {
            // Usually the windows have room for all queued data. Then the trailers need not be copied.
            let key = stream.key;
            while state.frame_one(self.slot) {}
            let stream = state.streams.at_mut(self.slot);
            if stream.queued.is_empty() {
                stream.end = MessageEnd::Done;
                state.send_trailers(self.slot, key, trailers);
            } else {
                stream.end = MessageEnd::Trailers(Box::new(trailers.clone()));
            }
        }
        let stream = state.streams.at_mut(self.slot);
        stream.task = task;
        if matches!(stream.end, MessageEnd::Done) {
            state.drop_turn(self.slot);
        } else {
            state.give_turn(self.slot);
        }
        state.wake();
    }

    /// Waits until everything queued is framed.
    pub(in crate::conn) fn poll_framed(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.mux.state.borrow_mut();
        let stream = state.streams.at_mut(self.slot);
        if stream.loss.is_some() && !matches!(stream.end, MessageEnd::Done) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if stream.queued.is_empty() && matches!(stream.end, MessageEnd::Open | MessageEnd::Done) {
            return Poll::Ready(Ok(()));
        }
        stream.watch(cx);
        Poll::Pending
    }

    /// Bytes that are queued and not framed yet.
    pub(in crate::conn) fn queued_bytes(&self) -> usize {
        self.mux.state.borrow().streams.at(self.slot).queued_bytes
    }

    /// Memory of the stream's queued and received data.
    pub(super) fn held_bytes(&self) -> usize {
        self.mux.state.borrow().streams.at(self.slot).held_bytes()
    }

    /// From this many queued bytes on, the source must not be read.
    pub(in crate::conn) fn queued_bytes_high(&self) -> usize {
        let state = self.mux.state.borrow();
        state.queued_bytes_high(state.streams.at(self.slot).key)
    }

    /// Bytes that were framed.
    pub(in crate::conn) fn framed_bytes(&self) -> u64 {
        self.mux.state.borrow().streams.at(self.slot).framed
    }

    /// Grows while the peer reads as fast as it allows itself to: counts this stream's framed bytes, and the bytes
    /// that other streams sent while this one waited for its turn.
    pub(super) fn progress(&self) -> u64 {
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at_mut(self.slot);
        let past = state.framed - mem::replace(&mut stream.framed_at_count, state.framed);
        if !stream.queued.is_empty() && state.machine.has_stream_window(stream.key) {
            stream.bytes_let_past += past;
        }
        stream.framed + stream.bytes_let_past
    }

    /// Leaves the stream to the connection if only the end of the peer's message is missing. The peer has `H2_END_MS`
    /// to send it.
    pub(super) fn detach(&self) {
        let until = self.mux.net.now() + Duration::from_millis(H2_END_MS);
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at_mut(self.slot);
        if state.machine.is_sent(stream.key) && !state.machine.is_received(stream.key) {
            stream.is_detached = true;
            state.detached.push_back((until, stream.key));
        }
    }

    /// Resets the stream, so that the peer sees an incomplete message. Queued data is sent first, as far as the
    /// windows and the output queue allow.
    pub(super) fn reset(&self, code: ErrorCode) {
        let mut state = self.mux.state.borrow_mut();
        while state.out.queued() < H2_QUEUED_BYTES_HIGH && state.frame_one(self.slot) {}
        let key = state.streams.at(self.slot).key;
        state.machine.reset(key, code);
        state.wake();
    }
}

impl<N: Net> Drop for StreamHandle<N> {
    fn drop(&mut self) {
        let mut state = self.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.at_mut(self.slot);
        let key = stream.key;
        if !stream.is_detached {
            state.machine.release(key);
        }
        state.drop_turn(self.slot);
        state.streams.remove(self.slot);
        state.wake();
    }
}
