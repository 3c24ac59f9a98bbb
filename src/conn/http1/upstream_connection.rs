//! A connection to an endpoint over HTTP/1.1: one request and its answer at a time.

use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Client, Edits, Error, Event, Head, Limits, Next, Received, Request, Span, Trailers,
    encode_request,
};

use super::DownstreamConnection;
use super::downstream_connection::overrun;
use crate::conn::{BufferedWire, ResponsePart, Wire, WireRx};
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Net, Pool, Rx, errno};

/// A connection to an endpoint, while it serves a request and between requests.
pub struct UpstreamConnection<N: Net> {
    /// The connection and its buffers.
    pub wire: BufferedWire<N>,
    pub(super) machine: Client,
    /// The connection has served a request before, so the endpoint may have closed it while this one was on its way.
    is_reused: bool,
    /// The endpoint has sent no byte for this request.
    is_silent: bool,
    /// The connection must not serve another request.
    is_forsaken: bool,
    /// The system's error number when the connection broke; 0 if there is none.
    errno: u16,
}

impl<N: Net> UpstreamConnection<N> {
    /// Takes over a connection that has served no request yet.
    pub fn new(wire: Wire<N>, pool: &Pool) -> Self {
        Self {
            wire: BufferedWire::new(wire, pool),
            machine: Client::new(Limits::default()),
            is_reused: false,
            is_silent: true,
            is_forsaken: false,
            errno: 0,
        }
    }

    /// Prepares for the next request.
    pub fn begin(&mut self, is_reused: bool, limits: Limits) {
        self.wire.out.restart_count();
        self.machine = Client::new(limits);
        self.is_reused = is_reused;
        self.is_silent = true;
    }

    /// The connection itself, for another protocol.
    pub fn into_wire(self) -> Wire<N> {
        self.wire.into_wire()
    }

    /// The receiving half.
    pub fn rx(&self) -> &WireRx<N> {
        &self.wire.rx
    }

    /// The receiving half.
    pub fn rx_mut(&mut self) -> &mut WireRx<N> {
        &mut self.wire.rx
    }

    /// Writes the request's head. `head` must have no fields that are for one hop only.
    pub fn request(
        &mut self,
        request: &Request,
        head: &Head,
        block: &[u8],
        edits: &Edits,
    ) -> Result<(), Fault> {
        let framing = self
            .machine
            .begin_request(
                request.method,
                request.body,
                request.upgrade,
                request.accepts_trailers,
            )
            .map_err(|_| internal())?;
        encode_request(self.wire.out.open(), block, head, edits, &framing);
        Ok(())
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        let sent = self.wire.out.send(self.machine.sender(), data);
        sent.map_err(|_| internal())
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        let ended = self.wire.out.end(self.machine.sender(), trailers);
        ended.map_err(|_| internal())
    }

    /// How the body of the answer is framed.
    pub fn body(&self) -> BodyKind {
        self.machine.response().body
    }

    /// Where the head of a 101 names the protocol.
    pub fn switched_to(&self) -> Option<Span> {
        self.machine.response().upgrade
    }

    /// The trailers of an answer that has ended.
    pub fn trailers(&self) -> &Trailers {
        self.machine.trailers()
    }

    /// Waits for the next part of the answer.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
        block: &mut Chunk,
    ) -> Poll<Result<ResponsePart, Fault>> {
        loop {
            ready!(self.wire.poll_step(cx, core));
            let Received { consumed, event } =
                match self.machine.receive(self.wire.inbox.bytes(), head) {
                    Ok(received) => received,
                    Err(error) => return Poll::Ready(Err(self.misbehaved(error, head))),
                };
            let answer = match event {
                Event::Data(range) => {
                    return Poll::Ready(Ok(ResponsePart::Data(
                        self.wire.inbox.cut(consumed, range),
                    )));
                }
                Event::End => {
                    self.wire.inbox.consume(consumed);
                    return Poll::Ready(Ok(ResponsePart::End));
                }
                Event::Head => Some(ResponsePart::Head),
                Event::Interim => Some(ResponsePart::Interim),
                Event::Switch => Some(ResponsePart::Switch),
                Event::NeedMore | Event::Blocked => None,
            };
            if let Some(answer) = answer {
                *block = self.wire.inbox.cut(consumed, 0..consumed);
                return Poll::Ready(Ok(answer));
            }
            self.wire.inbox.consume(consumed);
            match ready!(self.wire.poll_fill(cx, core.net.pool())) {
                Ok(true) => self.is_silent = false,
                Ok(false) => {
                    if let Err(error) = self.machine.receive_close(self.wire.inbox.bytes().len()) {
                        return Poll::Ready(Err(self.misbehaved(error, head)));
                    }
                }
                Err(error) => {
                    self.errno = errno(&error);
                    self.wire.rx.report_refusal(core, "an endpoint");
                    return Poll::Ready(Err(self.misbehaved(Error::Truncated, head)));
                }
            }
        }
    }

    /// Splices bytes of a long answer to the client. Returns how many; 0: splicing is not possible now.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &Head,
        to: &mut DownstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.body(), self.machine.raw_body_left());
        let to = (&mut to.wire, to.machine.sender());
        let passed = ready!(self.wire.poll_pass(cx, &core.net, body, to));
        let passed = passed.map_err(|_| overrun())?;
        let counted = self.machine.skip_raw_body(passed as u64);
        Poll::Ready(
            counted
                .map(|()| passed)
                .map_err(|error| self.misbehaved(error, head)),
        )
    }

    /// Whether the answer begins or continues an authentication that holds for the connection.
    pub fn challenges_connection(&self) -> bool {
        self.machine.response().challenges_connection
    }

    /// Hints how many bytes of the body are still to come.
    pub fn expect(&mut self, bytes: usize) {
        self.wire.rx.expect(bytes);
    }

    /// The fault for a broken answer or a lost connection.
    fn misbehaved(&self, error: Error, head: &Head) -> Fault {
        match error {
            Error::Truncated if head.is_complete() && self.machine.response().status >= 200 => {
                Fault::upstream(Phase::Body, Reason::ResponseTruncated, Retry::Never)
            }
            Error::Truncated => self.lost(),
            Error::HeadTooLarge | Error::TooManyFields => invalid(Reason::ResponseHeadTooLarge),
            Error::UnexpectedSwitch => {
                Fault::upstream(Phase::FirstByte, Reason::BadUpgrade, Retry::Never)
            }
            _ => invalid(Reason::BadResponse),
        }
    }

    /// The fault for a connection that ended before its answer.
    pub fn lost(&self) -> Fault {
        let refused = self.wire.rx.refusal();
        let reason = refused.map_or(Reason::UpstreamClosed, |why| Reason::from_tls(Some(why)));
        Fault::upstream(Phase::FirstByte, reason, Retry::IfIdempotent)
    }

    /// The system's error number when the connection broke; 0 if there is none.
    pub fn errno(&self) -> u16 {
        self.errno
    }

    /// Whether the endpoint may have closed the connection as idle while the request was on its way.
    pub fn was_stale(&self) -> bool {
        self.is_reused && self.is_silent
    }

    /// Ends the connection after this exchange.
    pub fn forsake(&mut self) {
        self.is_forsaken = true;
    }

    /// Ends the exchange. Returns whether the connection may serve another request: Weir has sent the request and
    /// received the answer in full.
    pub fn finish(&mut self) -> bool {
        let unread = self.wire.inbox.bytes().len();
        !self.is_forsaken
            && self.wire.out.queued() == 0
            && self.machine.finish(unread) == Next::Reuse
    }
}

/// The fault for an answer that is not valid HTTP.
fn invalid(reason: Reason) -> Fault {
    Fault::upstream(Phase::FirstByte, reason, Retry::IfIdempotent)
}

/// A bug in Weir: the machine does not allow the step.
pub(super) fn internal() -> Fault {
    Fault::local(Phase::Send, Reason::Internal)
}
