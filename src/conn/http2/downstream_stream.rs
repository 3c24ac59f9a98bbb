//! One client request on an HTTP/2 stream.

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
use crate::conn::{HeadBuffer, RequestPart};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Net};

/// The stream that carries a client's request and its response.
pub struct DownstreamStream<N: Net> {
    handle: StreamHandle<N>,
    request: Request,
    trailers: Trailers,
    is_received: bool,
    is_answered: bool,
}

impl<N: Net> DownstreamStream<N> {
    /// Takes over a pending request and moves its head into `into`.
    pub fn new(mux: Rc<Mux<N>>, pending: PendingRequest, into: &mut HeadBuffer) -> Self {
        let PendingRequest {
            slot, mut request, ..
        } = pending;
        into.block = pending.block;
        let spare = mem::replace(&mut into.head, pending.head);
        mux.state.borrow_mut().spare_heads.push(spare);
        if request.upgrade.is_some() {
            convert_to_upgrade(&mut into.head, &mut into.block, mux.net.pool());
            // The response tells how long the upgraded stream's data is.
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

    /// What the request's head says about this hop.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The request's trailers, once it has ended.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Removes fields that a request's trailers must not contain. Returns how many of them had odd names.
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        self.trailers.enforce(odd_names, matches)
    }

    /// Whether the whole request was received.
    pub fn is_received(&self) -> bool {
        self.is_received
    }

    /// Whether the final response has begun.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// The fault to report if the stream is lost.
    pub fn loss_fault(&self) -> Option<Fault> {
        self.handle.loss().map(loss_fault)
    }

    /// The request's access to its stream.
    pub(in crate::conn) fn handle(&self) -> &StreamHandle<N> {
        &self.handle
    }

    /// Grows while the client reads as much of the response as its windows and the other streams allow.
    pub fn progress(&self) -> u64 {
        self.handle.progress()
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestPart, Fault>> {
        if self.is_received || self.request.upgrade.is_some() {
            self.is_received = true;
            return Poll::Ready(Ok(RequestPart::End));
        }
        Poll::Ready(match ready!(self.handle.poll_next(cx)) {
            Ok(StreamPart::Data(data)) => Ok(RequestPart::Data(data)),
            Ok(StreamPart::End) => {
                self.is_received = true;
                self.trailers = self.handle.take_trailers();
                Ok(RequestPart::End)
            }
            // Only clients receive responses.
            Ok(StreamPart::Head(_)) => Err(internal()),
            Err(lost) => Err(loss_fault(lost)),
        })
    }

    /// Checks for a lost stream while the exchange reads nothing from the client.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        match self.handle.poll_loss(cx) {
            Some(lost) => Err(loss_fault(lost)),
            None => Ok(()),
        }
    }

    /// Sends the response's head.
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
        let stream = state.streams.at(self.handle.slot);
        if let Some(lost) = stream.loss {
            return Err(loss_fault(lost));
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
                    state.streams.at_mut(self.handle.slot).end = MessageEnd::Done;
                }
                Ok(is_end)
            }
            Err(Error::StreamGone) => {
                Err(Fault::downstream(Phase::FirstByte, Reason::ClientClosed))
            }
            Err(_) => Err(internal()),
        }
    }

    /// Sends an interim response (1xx).
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        let mut state = self.handle.mux.state.borrow_mut();
        let state = &mut *state;
        let key = state.streams.at(self.handle.slot).key;
        // If the client is gone, the next poll reports it.
        let _ = state
            .machine
            .send_interim(state.out.open(), key, block, head, &Edits::new());
        state.wake();
        Ok(())
    }

    /// Answers an extended CONNECT. Afterwards both directions carry raw bytes.
    //= rfc8441#5
    // HTTP/2 answers with 200 instead of 101, and has no `Sec-WebSocket-Accept`.
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

    /// Resets the stream so that the client sees an incomplete response. What the windows allow is sent first.
    pub fn abort(&self) {
        self.handle.reset(ErrorCode::INTERNAL_ERROR);
    }
}

/// The fault for a lost client stream.
fn loss_fault(lost: StreamLoss) -> Fault {
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
