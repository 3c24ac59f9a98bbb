//! The upstream side of an exchange: one request to an endpoint and its answer, over HTTP/1.1.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Client, Edits, Error, Event, Head, Limits, Next, Received, Request, Span, Trailers,
    encode_request,
};

use super::down::{Down, overrun};
use super::inbox::Inbox;
use super::outbox::Outbox;
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Connection, Net, Rx};
use crate::upstream::{Endpoint, Held, Permit};

/// What came from the endpoint.
pub enum Answer {
    /// An interim head (1xx) is in [`Up::head`]; the final one is still to come.
    Interim,
    /// The final head is in [`Up::head`].
    Head,
    /// The protocol changes with the head in [`Up::head`]: what follows is not HTTP.
    Switch,
    /// A piece of the body.
    Data(Chunk),
    /// The answer is complete.
    End,
}

/// A connection to an endpoint while it serves a request.
pub struct Up<N: Net> {
    /// The head of the answer, over [`Up::block`].
    pub head: Head,
    /// What the head lies in.
    pub block: Chunk,
    pub(super) out: Outbox<N::Tx>,
    rx: N::Rx,
    peer: Option<std::net::SocketAddr>,
    permit: Permit<N>,
    inbox: Inbox,
    pub(super) machine: Client,
    /// The connection has served a request before: its end may have crossed ours on the way.
    reused: bool,
    /// Not one byte has come for this request.
    silent: bool,
    /// The connection is not to serve another request.
    forsaken: bool,
}

impl<N: Net> Up<N> {
    /// Takes a connection for one request.
    pub fn new(core: &Core<N>, held: Held<N>, reused: bool, limits: Limits, head: Head) -> Self {
        let Held { connection, permit } = held;
        Self {
            out: Outbox::new(connection.tx, core.net.pool().clone()),
            head,
            block: Chunk::default(),
            rx: connection.rx,
            peer: connection.peer,
            permit,
            inbox: Inbox::default(),
            machine: Client::new(limits),
            reused,
            silent: true,
            forsaken: false,
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
                request.te_trailers,
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

    /// Bytes of the request that have not left yet.
    pub fn queued(&self) -> usize {
        self.out.queued()
    }

    /// Bytes that have left since this request began.
    pub fn sent(&self) -> u64 {
        self.out.sent()
    }

    /// Sends what was written; ready when all of it has left.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_send(cx)
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
    ) -> Poll<Result<Answer, Fault>> {
        loop {
            let Received { consumed, event } =
                match self.machine.receive(self.inbox.bytes(), &mut self.head) {
                    Ok(received) => received,
                    Err(error) => return Poll::Ready(Err(self.misbehaved(error))),
                };
            let head = match event {
                Event::Data(range) => {
                    return Poll::Ready(Ok(Answer::Data(self.inbox.cut(consumed, range))));
                }
                Event::End => {
                    self.inbox.consume(consumed);
                    return Poll::Ready(Ok(Answer::End));
                }
                Event::Head => Some(Answer::Head),
                Event::Interim => Some(Answer::Interim),
                Event::Switch => Some(Answer::Switch),
                Event::NeedMore | Event::Blocked => None,
            };
            if let Some(answer) = head {
                self.block = self.inbox.cut(
                    consumed,
                    Range {
                        start: 0,
                        end: consumed,
                    },
                );
                return Poll::Ready(Ok(answer));
            }
            self.inbox.consume(consumed);
            match ready!(self.rx.poll_recv(cx)) {
                Ok(Some(chunk)) => {
                    self.silent = false;
                    self.inbox.add(chunk, core.net.pool());
                }
                Ok(None) => {
                    if let Err(error) = self.machine.peer_closed(self.inbox.bytes().len()) {
                        return Poll::Ready(Err(self.misbehaved(error)));
                    }
                }
                Err(_) => return Poll::Ready(Err(self.misbehaved(Error::Truncated))),
            }
        }
    }

    /// Lets what comes of a long answer go to the client unseen, where nothing is framed around it, and says how many
    /// bytes did. 0: not now or not this answer; [`Up::poll_answer`] goes on.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut Down<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.body(), self.machine.bare());
        let from = (&mut self.rx, &self.inbox);
        let sender = to.machine.sender();
        let passed = ready!(to.out.poll_pass(cx, &core.net, from, body, sender));
        let passed = passed.map_err(|_| overrun())?;
        let counted = self.machine.receive_unseen(passed as u64);
        Poll::Ready(counted.map(|()| passed).map_err(|e| self.misbehaved(e)))
    }

    /// A hint that the rest of the body is large.
    pub fn expect(&mut self, bytes: usize) {
        self.rx.expect(bytes);
    }

    /// What a broken answer or a lost connection means.
    fn misbehaved(&self, error: Error) -> Fault {
        match error {
            Error::Truncated
                if self.head.is_complete() && self.machine.response().status >= 200 =>
            {
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
        Fault::upstream(Phase::FirstByte, Reason::UpstreamClosed, retry)
    }

    /// Whether a loss may be no more than the end of an idle connection that crossed the request on its way.
    pub fn was_stale(&self) -> bool {
        self.reused && self.silent
    }

    /// Has the connection end with this exchange.
    pub fn forsake(&mut self) {
        self.forsaken = true;
    }

    /// Method and framing of the request must have been sent and answered in full for the connection to be kept.
    pub fn finish(mut self, core: &Rc<Core<N>>, endpoint: &Rc<Endpoint<N>>) {
        let unread = self.inbox.bytes().len();
        if !self.forsaken && self.out.queued() == 0 && self.machine.finish(unread) == Next::Reuse {
            let connection = Connection {
                rx: self.rx,
                tx: self.out.tx,
                peer: self.peer,
            };
            let held = Held {
                connection,
                permit: self.permit,
            };
            endpoint.checkin(held, core.net.now(), &core.reaper);
        }
    }

    /// What a tunnel works with once HTTP is given up; the last is what was received behind the head.
    pub fn tunnel_parts(&mut self) -> (&mut N::Rx, &mut Outbox<N::Tx>, Option<Chunk>) {
        let rest = self.inbox.take();
        (&mut self.rx, &mut self.out, rest)
    }
}

pub(super) fn internal() -> Fault {
    Fault::local(Phase::Send, Reason::Internal)
}
