//! A request at an endpoint over HTTP/2.

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

/// A request's stream.
pub struct UpstreamStream<N: Net> {
    mux: Rc<Mux<N>>,
    /// `None` until the request was begun.
    handle: Option<StreamHandle<N>>,
    body: BodyKind,
    trailers: Trailers,
    /// The head of the answer has come.
    is_answered: bool,
    /// Not one byte has come for this request.
    is_silent: bool,
    /// How the stream was lost, if it was.
    loss: Option<StreamLoss>,
    /// The connection has served requests before: its end may have crossed this one on the way.
    is_reused: bool,
}

impl<N: Net> UpstreamStream<N> {
    /// For a request on a connection that takes one.
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

    /// Writes the request's head.
    pub fn request(
        &mut self,
        request: &Request,
        head: &Head,
        block: &[u8],
        edits: &Edits,
    ) -> Result<(), Fault> {
        if request.upgrade.is_some() {
            // Protocols are switched on connections of HTTP/1.1 only; this endpoint was said to speak no other than HTTP/2.
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
            .open(block, head, edits, &framing);
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

    /// The request's hold on its stream; `None` until the request has begun.
    pub fn handle(&self) -> Option<&StreamHandle<N>> {
        self.handle.as_ref()
    }

    /// Bytes of the request that wait for room, and of the answer that wait to be taken.
    pub fn held_bytes(&self) -> usize {
        self.handle.as_ref().map_or(0, StreamHandle::held_bytes)
    }

    /// How long the body of the answer is.
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// The trailers of an answer that has ended.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Waits for the next part of the answer.
    pub fn poll_answer(
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
                return Poll::Ready(Err(self.gone(lost)));
            }
        };
        self.is_silent = false;
        Poll::Ready(Ok(match part {
            StreamPart::Data(data) => ResponsePart::Data(data),
            StreamPart::End => {
                self.trailers = handle.take_trailers();
                ResponsePart::End
            }
            StreamPart::Answer(answered) => {
                let spare = mem::replace(head, answered.head);
                self.mux.state.borrow_mut().spare_heads.push(spare);
                *block = answered.block;
                match answered.body {
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

    /// Lets go of a request whose answer is whole. An endpoint that is still to say so has a moment for that.
    pub fn finish(self) {
        if let Some(handle) = &self.handle {
            handle.detach();
        }
    }

    /// What it means that the stream is gone.
    fn gone(&self, loss: StreamLoss) -> Fault {
        let (phase, silent) = if self.is_answered {
            (Phase::Body, false)
        } else {
            (Phase::FirstByte, self.is_silent)
        };
        let (reason, retry) = match loss {
            StreamLoss::Misbehaved(Error::HeadTooLarge | Error::TooManyFields) => {
                (Reason::ResponseHeadTooLarge, Retry::Never)
            }
            StreamLoss::Misbehaved(Error::BodyTooShort) if self.is_answered => {
                (Reason::ResponseTruncated, Retry::Never)
            }
            StreamLoss::Misbehaved(_) => (Reason::BadResponse, Retry::Never),
            _ if self.is_answered => (Reason::ResponseTruncated, Retry::Never),
            //= rfc9113#8.7
            // What a server says that it has not looked at may be repeated, whatever it is.
            StreamLoss::Reset {
                is_unprocessed: true,
                ..
            } => (Reason::UpstreamClosed, Retry::Always),
            StreamLoss::Reset {
                code: ErrorCode::HTTP_1_1_REQUIRED,
                ..
            } => (Reason::BadResponse, Retry::Never),
            StreamLoss::Refused(why) if silent => {
                (Reason::from_tls(Some(why)), Retry::IfIdempotent)
            }
            StreamLoss::Refused(why) => (Reason::from_tls(Some(why)), Retry::Never),
            StreamLoss::Reset { .. } | StreamLoss::Disconnected if silent => {
                (Reason::UpstreamClosed, Retry::IfIdempotent)
            }
            StreamLoss::Reset { .. } | StreamLoss::Disconnected => {
                (Reason::UpstreamClosed, Retry::Never)
            }
        };
        Fault::upstream(phase, reason, retry)
    }

    /// Whether a loss may be no more than the end of an idle connection that crossed the request on its way.
    pub fn was_stale(&self) -> bool {
        self.is_reused && self.is_silent && matches!(self.loss, Some(StreamLoss::Disconnected))
    }

    /// With which code the endpoint has reset the stream, if it has.
    pub fn reset_by(&self) -> Option<ErrorCode> {
        match self.loss {
            Some(StreamLoss::Reset { code, .. }) => Some(code),
            _ => None,
        }
    }
}
