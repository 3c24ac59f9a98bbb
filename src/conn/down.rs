//! The downstream side: a client's connection while it is busy, over HTTP/1.1.

use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Edits, Error, Event, Framing, Head, Next, Received, Request, Server, Span, Trailers,
    encode_response,
};

use super::inbox::Inbox;
use super::line::Line;
use super::outbox::Outbox;
use super::up::{self, Up};
use crate::core::{Core, Pass, Timer};
use crate::exchange::Added;
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Connection, Net, Rx, Tx};
use crate::route::Scratch;

/// What came from the client.
pub enum Piece {
    /// A piece of the request's body.
    Data(Chunk),
    /// The request is complete.
    End,
}

/// A client's connection with a request on it.
pub struct Down<N: Net> {
    /// The head of the request, over [`Down::block`].
    pub head: Head,
    /// What the head lies in.
    pub block: Chunk,
    /// The connection's deadline.
    pub timer: Timer,
    /// Where it came in.
    pub pass: Pass<N>,
    /// Reused from request to request: what is added to the request.
    pub added: Added,
    /// Reused: what is added to an answer of ours.
    pub edits: Edits,
    /// Reused: where hosts and paths are brought into normal form.
    pub scratch: Scratch,
    /// Reused: a rewritten path.
    pub text: Vec<u8>,
    /// Reused: the endpoint's head.
    pub up_head: Head,
    pub(super) out: Outbox<N::Tx>,
    pub(super) machine: Server,
    rx: N::Rx,
    peer: Option<std::net::SocketAddr>,
    inbox: Inbox,
    /// The client has closed its side.
    ended: bool,
}

impl<N: Net> Down<N> {
    /// Wakes a connection up with the first bytes of a request.
    pub fn new(core: &Core<N>, line: Line<N>, first: Chunk) -> Self {
        let limits = line.pass.door.plan.borrow().limits;
        let mut inbox = Inbox::default();
        inbox.add(first, core.net.pool());
        Self {
            out: Outbox::new(line.connection.tx, core.net.pool().clone()),
            machine: Server::new(limits),
            head: Head::new(),
            block: Chunk::default(),
            timer: line.timer,
            pass: line.pass,
            added: Added::default(),
            edits: Edits::new(),
            scratch: Scratch::default(),
            text: Vec::new(),
            up_head: Head::new(),
            rx: line.connection.rx,
            peer: line.connection.peer,
            inbox,
            ended: false,
        }
    }

    /// Puts the connection to rest: only what an idle connection needs is kept.
    pub fn rest(mut self) -> Line<N> {
        self.out.tx.rest();
        Line {
            connection: Connection {
                rx: self.rx,
                tx: self.out.tx,
                peer: self.peer,
            },
            timer: self.timer,
            pass: self.pass,
            is_new: false,
        }
    }

    /// The client's address, as far as the connection tells.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip())
    }

    /// What the head of the request means for this hop.
    pub fn request(&self) -> &Request {
        self.machine.request()
    }

    /// The trailers of a request that has ended.
    pub fn trailers(&self) -> &Trailers {
        self.machine.trailers()
    }

    /// Whether the whole request has come.
    pub fn is_received(&self) -> bool {
        self.machine.is_received()
    }

    /// Whether the final answer has begun: then no other is possible.
    pub fn is_answered(&self) -> bool {
        self.machine.is_answered()
    }

    /// Whether not one byte of a request has come.
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// Gives up a head that has begun; it can still be answered.
    pub fn give_up_head(&mut self) {
        self.machine.give_up_head();
    }

    /// Has the connection end with the answer to come.
    pub fn close_after(&mut self) {
        self.machine.close_after();
    }

    /// Bytes of the answer that have not left yet.
    pub fn queued(&self) -> usize {
        self.out.queued()
    }

    /// Bytes that have left since the connection began: how progress is told from standing still.
    pub fn sent(&self) -> u64 {
        self.out.sent()
    }

    /// Sends what was written; ready when all of it has left.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_send(cx)
    }

    /// Ends our direction in an orderly way, when all that was written has left.
    pub fn end(&mut self) {
        self.out.tx.finish();
    }

    /// Makes the end visible as a failure: what was sent is not whole.
    pub fn abort(&mut self) {
        self.out.tx.abort();
    }

    /// Whether bytes of another request wait.
    pub fn has_more(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Bytes that wait to be understood: what a bad request began with.
    pub fn unread(&self) -> &[u8] {
        self.inbox.bytes()
    }

    /// Lets the head, as far as it was understood, be looked up in the bytes that wait: a request that is refused is
    /// to be known by what it said.
    pub fn show_unread(&mut self) {
        if self.block.is_empty() || !self.head.is_complete() {
            self.block = self.inbox.view();
        }
    }

    /// Waits for the rest of the head. `Ok(false)`: the client closed between requests.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Poll<Result<bool, Error>> {
        loop {
            if !self.inbox.is_empty() {
                let Received { consumed, event } =
                    match self.machine.receive(self.inbox.bytes(), &mut self.head) {
                        Ok(received) => received,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                if event == Event::Head {
                    self.block = self.inbox.cut(consumed, 0..consumed);
                    return Poll::Ready(Ok(true));
                }
                self.inbox.consume(consumed);
            }
            if !ready!(self.poll_fill(cx, core)) {
                let unread = self.inbox.bytes().len();
                return Poll::Ready(self.machine.peer_closed(unread).map(|()| false));
            }
        }
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<Piece, Fault>> {
        loop {
            let Received { consumed, event } = match self
                .machine
                .receive(self.inbox.bytes(), &mut self.head)
            {
                Ok(received) => received,
                Err(Error::Truncated) => {
                    return Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)));
                }
                Err(error) => {
                    return Poll::Ready(Err(Fault::downstream(
                        Phase::Body,
                        Reason::from_request(error),
                    )));
                }
            };
            match event {
                Event::Data(range) => {
                    return Poll::Ready(Ok(Piece::Data(self.inbox.cut(consumed, range))));
                }
                Event::End | Event::Blocked => {
                    self.inbox.consume(consumed);
                    return Poll::Ready(Ok(Piece::End));
                }
                _ => self.inbox.consume(consumed),
            }
            if !ready!(self.poll_fill(cx, core)) {
                // The next look at the machine reports what that means.
                let unread = self.inbox.bytes().len();
                if self.machine.peer_closed(unread).is_err() {
                    return Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)));
                }
            }
        }
    }

    /// Lets what comes of a long request go to the endpoint unseen, where nothing is framed around it, and says how many
    /// bytes did. 0: not now or not this request; [`Down::poll_body`] goes on.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut Up<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.machine.request().body, self.machine.bare());
        let from = (&mut self.rx, &self.inbox);
        let sender = to.machine.sender();
        let passed = ready!(to.out.poll_pass(cx, &core.net, from, body, sender));
        let passed = passed.map_err(|_| up::internal())?;
        let counted = self.machine.receive_unseen(passed as u64);
        Poll::Ready(counted.map(|()| passed).map_err(|_| internal()))
    }

    /// Looks after the client while there is nothing to be read for this exchange: an early byte of the next request
    /// is kept, a half-closed connection is served to the end, a broken one is an error.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        if self.ended || !self.inbox.is_empty() {
            return Ok(());
        }
        match self.rx.poll_recv(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(Some(chunk))) => self.inbox.add(chunk, core.net.pool()),
            Poll::Ready(Ok(None)) => {
                self.ended = true;
                self.machine.close_after();
            }
            Poll::Ready(Err(_)) => {
                return Err(Fault::downstream(Phase::FirstByte, Reason::ClientClosed));
            }
        }
        Ok(())
    }

    /// Takes more bytes in. `false`: the client has closed its side, or the connection broke.
    fn poll_fill(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Poll<bool> {
        if self.ended {
            return Poll::Ready(false);
        }
        Poll::Ready(match ready!(self.rx.poll_recv(cx)) {
            Ok(Some(chunk)) => {
                self.inbox.add(chunk, core.net.pool());
                true
            }
            Ok(None) | Err(_) => {
                self.ended = true;
                false
            }
        })
    }

    /// Waits for bytes of a next request on a connection that is kept alive. `None`: it has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Poll<Option<()>> {
        if !self.inbox.is_empty() {
            return Poll::Ready(Some(()));
        }
        Poll::Ready(ready!(self.poll_fill(cx, core)).then_some(()))
    }

    /// Writes the head of a response.
    pub fn respond(
        &mut self,
        head: &Head,
        block: &[u8],
        edits: &Edits,
        body: BodyKind,
    ) -> Result<Framing, Fault> {
        if self.pass.is_unwanted() {
            self.machine.close_after();
        }
        let framing = self
            .machine
            .begin_response(head.status, body)
            .map_err(|_| internal())?;
        encode_response(self.out.open(), block, head, edits, &framing);
        Ok(framing)
    }

    /// Passes an interim answer on, if this client takes them.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        if self.machine.interim(head.status).map_err(|_| internal())? {
            encode_response(
                self.out.open(),
                block,
                head,
                &Edits::new(),
                &Framing::default(),
            );
        }
        Ok(())
    }

    /// Answers an upgrade. What follows in both directions is not HTTP.
    pub fn respond_switch(
        &mut self,
        head: &Head,
        block: &[u8],
        protocol: Span,
    ) -> Result<(), Fault> {
        let framing = self.machine.switch(protocol).map_err(|_| {
            Fault::upstream(
                Phase::FirstByte,
                Reason::BadUpgrade,
                crate::fault::Retry::Never,
            )
        })?;
        encode_response(self.out.open(), block, head, &Edits::new(), &framing);
        Ok(())
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        let sent = self.out.send(self.machine.sender(), data);
        sent.map_err(|_| overrun())
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        let ended = self.out.end(self.machine.sender(), trailers);
        ended.map_err(|_| overrun())
    }

    /// Ends the exchange: says whether the connection takes another request.
    pub fn finish(&mut self) -> bool {
        self.rx.expect(0);
        self.machine.finish() == Next::Reuse
    }

    /// Whether the client has closed its side in the middle of its request.
    pub fn is_cut_short(&self) -> bool {
        self.ended && !self.machine.is_received()
    }

    /// Whether the client has closed its side.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What a tunnel works with once HTTP is given up; the last is what was received behind the request.
    pub fn tunnel_parts(&mut self) -> (&mut N::Rx, &mut Outbox<N::Tx>, &Timer, Option<Chunk>) {
        let rest = self.inbox.take();
        (&mut self.rx, &mut self.out, &self.timer, rest)
    }
}

fn internal() -> Fault {
    Fault::local(Phase::FirstByte, Reason::Internal)
}

/// The endpoint's body is not as long as it said: too much, or too little.
pub(super) fn overrun() -> Fault {
    Fault::upstream(
        Phase::Body,
        Reason::ResponseTruncated,
        crate::fault::Retry::Never,
    )
}
