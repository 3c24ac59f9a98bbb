//! A client's request over HTTP/2.

use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Edits, FieldId, Framing as Framed, Head, OddNamePolicy, Request, Trailers,
};
use weir_proto_h2::{Error, ErrorCode, Framing};

use super::mux::{Mux, PendingRequest};
use super::stream_handle::{StreamHandle, StreamPart};
use super::stream_table::{MessageEnd, StreamLoss};
use super::upgrade::convert_to_upgrade;
use crate::conn::{HeadBuffer, Piece};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Net};

/// A request's stream.
pub struct DownstreamStream<N: Net> {
    handle: StreamHandle<N>,
    request: Request,
    trailers: Trailers,
    is_received: bool,
    is_answered: bool,
}

impl<N: Net> DownstreamStream<N> {
    /// Takes a request over; its head goes into `into`.
    pub fn new(mux: Rc<Mux<N>>, pending: PendingRequest, into: &mut HeadBuffer) -> Self {
        let PendingRequest {
            slot, mut request, ..
        } = pending;
        into.block = pending.block;
        let spare = mem::replace(&mut into.head, pending.head);
        mux.state.borrow_mut().spare_heads.push(spare);
        if request.upgrade.is_some() {
            convert_to_upgrade(&mut into.head, &mut into.block, mux.net.pool());
            // What its data is, the answer tells.
            request.body = BodyKind::None;
        }
        Self {
            handle: StreamHandle { mux, slot },
            request,
            trailers: Trailers::default(),
            is_received: false,
            is_answered: false,
        }
    }

    /// What the head of the request means.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The trailers of a request that has ended.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Drops what may not stand in the trailers of a request.
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        self.trailers.enforce(odd_names, matches)
    }

    /// Whether the whole request has come.
    pub fn is_received(&self) -> bool {
        self.is_received
    }

    /// Whether the final answer has begun.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// What it means that the stream is gone, if it is.
    pub fn gone(&self) -> Option<Fault> {
        self.handle.loss().map(gone)
    }

    /// The request's hold on its stream.
    pub(in crate::conn) fn handle(&self) -> &StreamHandle<N> {
        &self.handle
    }

    /// Grows while the client takes what it can have of the answer.
    pub fn progress(&self) -> u64 {
        self.handle.progress()
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        if self.is_received || self.request.upgrade.is_some() {
            self.is_received = true;
            return Poll::Ready(Ok(Piece::End));
        }
        Poll::Ready(match ready!(self.handle.poll_next(cx)) {
            Ok(StreamPart::Data(data)) => Ok(Piece::Data(data)),
            Ok(StreamPart::End) => {
                self.is_received = true;
                self.trailers = self.handle.take_trailers();
                Ok(Piece::End)
            }
            // Servers get no answers.
            Ok(StreamPart::Answer(_)) => Err(internal()),
            Err(lost) => Err(gone(lost)),
        })
    }

    /// Looks after the client while nothing is to be read: it may have gone.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        match self.handle.poll_loss(cx) {
            Some(lost) => Err(gone(lost)),
            None => Ok(()),
        }
    }

    /// Writes the head of a response.
    pub fn respond(
        &mut self,
        head: &Head,
        block: &[u8],
        edits: &Edits,
        body: BodyKind,
    ) -> Result<Framed, Fault> {
        let framing = Framing {
            body,
            ..Framing::default()
        };
        let is_end = self.begin(head, block, edits, &framing)?;
        Ok(Framed {
            body: if is_end { BodyKind::None } else { body },
            ..Framed::default()
        })
    }

    fn begin(
        &mut self,
        head: &Head,
        block: &[u8],
        edits: &Edits,
        framing: &Framing<'_>,
    ) -> Result<bool, Fault> {
        let mut state = self.handle.mux.state.borrow_mut();
        let state = &mut *state;
        let stream = state.streams.peek(self.handle.slot);
        if let Some(lost) = stream.loss {
            return Err(gone(lost));
        }
        let key = stream.key;
        let begun = state
            .machine
            .respond(state.out.open(), key, block, head, edits, framing);
        state.wake();
        match begun {
            Ok(is_end) => {
                self.is_answered = true;
                if is_end {
                    state.streams.at(self.handle.slot).end = MessageEnd::Done;
                }
                Ok(is_end)
            }
            Err(Error::StreamGone) => {
                Err(Fault::downstream(Phase::FirstByte, Reason::ClientClosed))
            }
            Err(_) => Err(internal()),
        }
    }

    /// Passes an interim answer on.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        let mut state = self.handle.mux.state.borrow_mut();
        let state = &mut *state;
        let key = state.streams.peek(self.handle.slot).key;
        // A client that is gone is heard of soon.
        let _ = state
            .machine
            .send_interim(state.out.open(), key, block, head, &Edits::new());
        state.wake();
        Ok(())
    }

    /// Answers an extended CONNECT: what follows in both directions is not HTTP.
    //= rfc8441#5
    // What was 101 is a 200, and the handshake's proof of HTTP/1.1 is left out.
    pub fn respond_switch(
        &mut self,
        head: &mut Head,
        block: &[u8],
        edits: &Edits,
    ) -> Result<(), Fault> {
        head.remove(FieldId::SecWebSocketAccept);
        head.remove(FieldId::ContentLength);
        head.status = 200;
        let framing = Framing {
            body: BodyKind::Chunked,
            ..Framing::default()
        };
        self.begin(head, block, edits, &framing).map(|_| ())
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        self.handle.push(data);
        Ok(())
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        self.handle.end_message(trailers);
        Ok(())
    }

    /// Has the client see that something is missing, behind what there is room for.
    pub fn abort(&self) {
        self.handle.reset(ErrorCode::INTERNAL_ERROR);
    }
}

/// What it means that a client's stream is gone.
fn gone(lost: StreamLoss) -> Fault {
    let reason = match lost {
        StreamLoss::Misbehaved(error) => error.into(),
        StreamLoss::Reset { .. } | StreamLoss::Disconnected | StreamLoss::Refused(_) => {
            Reason::ClientClosed
        }
    };
    Fault::downstream(Phase::Body, reason)
}

fn internal() -> Fault {
    Fault::local(Phase::FirstByte, Reason::Internal)
}
