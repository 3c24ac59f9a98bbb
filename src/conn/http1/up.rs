//! A connection to an endpoint over HTTP/1.1: one request and its answer at a time.

use std::io;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Client, Edits, Error, Event, Head, Limits, Next, Received, Request, Span, Trailers,
    encode_request,
};

use super::DownstreamConnection;
use super::down::overrun;
use crate::conn::ResponsePart;
use crate::conn::inbox::Inbox;
use crate::conn::outbox::Outbox;
use crate::conn::wire::{Wire, WireRx, WireTx};
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Net, Rx, errno};

/// A connection to an endpoint while it serves a request.
pub struct UpstreamConnection<N: Net> {
    /// Where requests go.
    pub out: Outbox<WireTx<N>>,
    rx: WireRx<N>,
    peer: Option<std::net::SocketAddr>,
    inbox: Inbox,
    pub(super) machine: Client,
    /// The connection has served a request before: its end may have crossed ours on the way.
    reused: bool,
    /// Not one byte has come for this request.
    silent: bool,
    /// The connection is not to serve another request.
    forsaken: bool,
    /// What the system said when the connection broke; 0 if nothing.
    errno: u16,
}

impl<N: Net> UpstreamConnection<N> {
    /// Takes a connection for one request.
    pub fn new(core: &Core<N>, wire: Wire<N>, reused: bool, limits: Limits) -> Self {
        Self {
            out: Outbox::new(wire.tx, core.net.pool().clone()),
            rx: wire.rx,
            peer: wire.peer,
            inbox: Inbox::default(),
            machine: Client::new(limits),
            reused,
            silent: true,
            forsaken: false,
            errno: 0,
        }
    }

    /// Writes the request's head. `head` must have been rid of the fields that are for one hop only.
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
        encode_request(self.out.open(), block, head, edits, &framing);
        Ok(())
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        let sent = self.out.send(self.machine.sender(), data);
        sent.map_err(|_| internal())
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        let ended = self.out.end(self.machine.sender(), trailers);
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
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
        block: &mut Chunk,
    ) -> Poll<Result<ResponsePart, Fault>> {
        loop {
            if core.share.is_spent() {
                self.rx.wake_later(cx);
                return Poll::Pending;
            }
            core.share.spend(1);
            let Received { consumed, event } = match self.machine.receive(self.inbox.bytes(), head)
            {
                Ok(received) => received,
                Err(error) => return Poll::Ready(Err(self.misbehaved(error, head))),
            };
            let answer = match event {
                Event::Data(range) => {
                    return Poll::Ready(Ok(ResponsePart::Data(self.inbox.cut(consumed, range))));
                }
                Event::End => {
                    self.inbox.consume(consumed);
                    return Poll::Ready(Ok(ResponsePart::End));
                }
                Event::Head => Some(ResponsePart::Head),
                Event::Interim => Some(ResponsePart::Interim),
                Event::Switch => Some(ResponsePart::Switch),
                Event::NeedMore | Event::Blocked => None,
            };
            if let Some(answer) = answer {
                *block = self.inbox.cut(consumed, 0..consumed);
                return Poll::Ready(Ok(answer));
            }
            self.inbox.consume(consumed);
            match ready!(self.rx.poll_recv(cx)) {
                Ok(Some(chunk)) => {
                    self.silent = false;
                    self.inbox.add(chunk, core.net.pool());
                }
                Ok(None) => {
                    if let Err(error) = self.machine.receive_close(self.inbox.bytes().len()) {
                        return Poll::Ready(Err(self.misbehaved(error, head)));
                    }
                }
                Err(error) => {
                    self.errno = errno(&error);
                    self.rx.report_refusal(core, "an endpoint");
                    return Poll::Ready(Err(self.misbehaved(Error::Truncated, head)));
                }
            }
        }
    }

    /// Lets what comes of a long answer go to the client unseen, where nothing is framed around it.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &Head,
        to: &mut DownstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.body(), self.machine.raw_body_left());
        let from = (&mut self.rx, &self.inbox);
        let sender = to.machine.sender();
        let passed = ready!(to.out.poll_pass(cx, &core.net, from, body, sender));
        let passed = passed.map_err(|_| overrun())?;
        let counted = self.machine.skip_raw_body(passed as u64);
        Poll::Ready(
            counted
                .map(|()| passed)
                .map_err(|error| self.misbehaved(error, head)),
        )
    }

    /// Whether the answer asks for authentication that holds for the connection, or goes on with it.
    pub fn challenges_connection(&self) -> bool {
        self.machine.response().challenges_connection
    }

    /// A hint that the rest of the body is large.
    pub fn expect(&mut self, bytes: usize) {
        self.rx.expect(bytes);
    }

    /// What a broken answer or a lost connection means.
    fn misbehaved(&self, error: Error, head: &Head) -> Fault {
        match error {
            Error::Truncated if head.is_complete() && self.machine.response().status >= 200 => {
                Fault::upstream(Phase::Body, Reason::ResponseTruncated, Retry::Never)
            }
            Error::Truncated => self.lost(),
            Error::HeadTooLarge | Error::TooManyFields => {
                Fault::upstream(Phase::FirstByte, Reason::ResponseHeadTooLarge, Retry::Never)
            }
            Error::UnexpectedSwitch => {
                Fault::upstream(Phase::FirstByte, Reason::BadUpgrade, Retry::Never)
            }
            _ => Fault::upstream(Phase::FirstByte, Reason::BadResponse, Retry::Never),
        }
    }

    /// The connection ended before an answer.
    pub fn lost(&self) -> Fault {
        let retry = if self.silent {
            Retry::IfIdempotent
        } else {
            Retry::Never
        };
        let refused = self.rx.refusal();
        let reason = refused.map_or(Reason::UpstreamClosed, |why| Reason::from_tls(Some(why)));
        Fault::upstream(Phase::FirstByte, reason, retry)
    }

    /// What the system said when the connection broke; 0 if nothing.
    pub fn errno(&self) -> u16 {
        self.errno
    }

    /// Whether a loss may be no more than the end of an idle connection that crossed the request on its way.
    pub fn was_stale(&self) -> bool {
        self.reused && self.silent
    }

    /// Has the connection end with this exchange.
    pub fn forsake(&mut self) {
        self.forsaken = true;
    }

    /// Ends the exchange. Gives the connection back if the request was sent and the answer read in full, and it may serve
    /// another request.
    pub fn finish(mut self) -> Option<Wire<N>> {
        let unread = self.inbox.bytes().len();
        let may_serve =
            !self.forsaken && self.out.queued() == 0 && self.machine.finish(unread) == Next::Reuse;
        may_serve.then_some(Wire {
            rx: self.rx,
            tx: self.out.tx,
            peer: self.peer,
        })
    }

    /// Waits for bytes once HTTP is given up, beginning with what was received behind the head.
    pub fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self.inbox.take() {
            Some(rest) => Poll::Ready(Ok(Some(rest))),
            None => self.rx.poll_recv(cx),
        }
    }
}

/// A step that the request does not allow.
pub(super) fn internal() -> Fault {
    Fault::local(Phase::Send, Reason::Internal)
}
