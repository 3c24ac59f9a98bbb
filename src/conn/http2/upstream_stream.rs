//! One request to an endpoint on an HTTP/2 stream.

use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{BodyKind, Edits, Head, Request, Trailers};
use weir_proto_h2::{Error, ErrorCode, Framing};

use super::mux::Mux;
use super::stream_handle::{StreamHandle, StreamPart};
use super::stream_table::StreamLoss;
use crate::conn::ResponsePart;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Net};

/// The stream that carries a request to an endpoint, and its response.
pub struct UpstreamStream<N: Net> {
    mux: Rc<Mux<N>>,
    /// `None` until the request's head is sent.
    handle: Option<StreamHandle<N>>,
    body: BodyKind,
    trailers: Trailers,
    /// The response's final head was received.
    is_answered: bool,
    /// Nothing was received on the stream.
    is_silent: bool,
    /// Why the stream was lost, if it was.
    loss: Option<StreamLoss>,
    /// The connection has carried requests before, so it may have ended while this request was on its way.
    is_reused: bool,
}

impl<N: Net> UpstreamStream<N> {
    /// Prepares a request on a connection that takes a stream.
    pub fn new(mux: Rc<Mux<N>>) -> Self {
        Self {
            is_reused: mux.has_served(),
            mux,
            handle: None,
            body: BodyKind::None,
            trailers: Trailers::default(),
            is_answered: false,
            is_silent: true,
            loss: None,
        }
    }

    /// Sends the request's head.
    pub fn request(
        &mut self,
        request: &Request,
        head: &Head,
        block: &[u8],
        edits: &Edits,
    ) -> Result<(), Fault> {
        if request.upgrade.is_some() {
            // Only HTTP/1.1 connections switch protocols, and the configuration says that this endpoint speaks HTTP/2
            // only.
            return Err(Fault::upstream(
                Phase::Send,
                Reason::BadUpgrade,
                Retry::Never,
            ));
        }
        let framing = Framing {
            body: request.body,
            accepts_trailers: request.accepts_trailers,
            ..Framing::default()
        };
        let opened = self
            .mux
            .state
            .borrow_mut()
            .open_stream(block, head, edits, &framing);
        let slot = opened.ok_or(Fault::upstream(
            Phase::Connect,
            Reason::UpstreamClosed,
            Retry::Always,
        ))?;
        self.handle = Some(StreamHandle {
            mux: self.mux.clone(),
            slot,
        });
        Ok(())
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        if let Some(handle) = &self.handle {
            handle.push(data);
        }
        Ok(())
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        if let Some(handle) = &self.handle {
            handle.end_message(trailers);
        }
        Ok(())
    }

    /// The request's access to its stream; `None` until the request's head is sent.
    pub fn handle(&self) -> Option<&StreamHandle<N>> {
        self.handle.as_ref()
    }

    /// Memory of the request's queued data and the response's received data.
    pub fn held_bytes(&self) -> usize {
        self.handle.as_ref().map_or(0, StreamHandle::held_bytes)
    }

    /// How long the body of the answer is.
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// The response's trailers, once it has ended.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Waits for the next part of the response.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
        block: &mut Chunk,
    ) -> Poll<Result<ResponsePart, Fault>> {
        let Some(handle) = &mut self.handle else {
            return Poll::Ready(Err(Fault::local(Phase::FirstByte, Reason::Internal)));
        };
        let part = match ready!(handle.poll_next(cx)) {
            Ok(part) => part,
            Err(lost) => {
                self.loss = Some(lost);
                return Poll::Ready(Err(self.loss_fault(lost)));
            }
        };
        self.is_silent = false;
        Poll::Ready(Ok(match part {
            StreamPart::Data(data) => ResponsePart::Data(data),
            StreamPart::End => {
                self.trailers = handle.take_trailers();
                ResponsePart::End
            }
            StreamPart::Head(response) => {
                let spare = mem::replace(head, response.head);
                self.mux.state.borrow_mut().spare_heads.push(spare);
                *block = response.block;
                match response.body {
                    None => ResponsePart::Interim,
                    Some(body) => {
                        self.is_answered = true;
                        self.body = body;
                        ResponsePart::Head
                    }
                }
            }
        }))
    }

    /// Releases a request whose response is complete. If the endpoint's END_STREAM is still missing, the connection
    /// waits for it a moment.
    pub fn finish(self) {
        if let Some(handle) = &self.handle {
            handle.detach();
        }
    }

    /// The fault for a lost stream.
    fn loss_fault(&self, loss: StreamLoss) -> Fault {
        let phase = match self.is_answered {
            true => Phase::Body,
            false => Phase::FirstByte,
        };
        let (reason, retry) = match loss {
            StreamLoss::Misbehaved(Error::HeadTooLarge | Error::TooManyFields) => {
                (Reason::ResponseHeadTooLarge, Retry::IfIdempotent)
            }
            StreamLoss::Misbehaved(Error::BodyTooShort) if self.is_answered => {
                (Reason::ResponseTruncated, Retry::Never)
            }
            _ if self.is_answered && !matches!(loss, StreamLoss::Misbehaved(_)) => {
                (Reason::ResponseTruncated, Retry::Never)
            }
            StreamLoss::Misbehaved(_) => (Reason::BadResponse, Retry::IfIdempotent),
            //= rfc9113#8.7
            // A request that the server says it has not processed may be repeated, whatever its method.
            StreamLoss::Reset {
                is_unprocessed: true,
                ..
            } => (Reason::UpstreamClosed, Retry::Always),
            StreamLoss::Reset {
                code: ErrorCode::HTTP_1_1_REQUIRED,
                ..
            } => (Reason::BadResponse, Retry::IfIdempotent),
            StreamLoss::Refused(why) => (Reason::from_tls(Some(why)), Retry::IfIdempotent),
            StreamLoss::Reset { .. } | StreamLoss::Disconnected => {
                (Reason::UpstreamClosed, Retry::IfIdempotent)
            }
        };
        Fault::upstream(phase, reason, retry)
    }

    /// Whether the connection may have been closed as idle while this request was on its way.
    pub fn was_stale(&self) -> bool {
        self.is_reused && self.is_silent && matches!(self.loss, Some(StreamLoss::Disconnected))
    }

    /// The code with which the endpoint reset the stream, if it did.
    pub fn reset_by(&self) -> Option<ErrorCode> {
        match self.loss {
            Some(StreamLoss::Reset { code, .. }) => Some(code),
            _ => None,
        }
    }
}
