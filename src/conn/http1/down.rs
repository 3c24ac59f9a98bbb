//! A client's connection over HTTP/1.1.

use std::future::Future;
use std::io;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Edits, Error, Event, Framing, Head, Next, Received, Server, Span, Trailers,
    encode_response,
};

use super::{UpstreamConnection, up};
use crate::conn::client_side::Piece;
use crate::conn::inbox::Inbox;
use crate::conn::outbox::Outbox;
use crate::conn::wire::{Wire, WireRx, WireTx};
use crate::core::{Admission, Core};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Net, Rx, Tx};
use crate::limits::BLOCK_BYTES;

/// A client's connection while it is busy.
pub struct DownstreamConnection<N: Net> {
    /// Where answers go.
    pub out: Outbox<WireTx<N>>,
    /// The protocol's state.
    pub machine: Server,
    /// Where it came in.
    pub admission: Admission<N>,
    rx: WireRx<N>,
    peer: Option<std::net::SocketAddr>,
    inbox: Inbox,
    /// Bytes of a head that were looked at, and were not all of it.
    looked_at: usize,
    /// More of a head is too much.
    head_bytes_max: usize,
    /// The client has closed its side.
    ended: bool,
}

impl<N: Net> DownstreamConnection<N> {
    /// Wakes a connection up with the first bytes of a request.
    pub fn new(core: &Core<N>, wire: Wire<N>, admission: Admission<N>, first: Chunk) -> Self {
        let limits = admission.listener.plan.borrow().limits;
        let mut inbox = Inbox::default();
        inbox.add(first, core.net.pool());
        Self {
            out: Outbox::new(wire.tx, core.net.pool().clone()),
            machine: Server::new(limits),
            admission,
            rx: wire.rx,
            peer: wire.peer,
            inbox,
            looked_at: 0,
            head_bytes_max: limits.head_bytes_max as usize,
            ended: false,
        }
    }

    /// Keeps only what an idle connection needs.
    pub fn rest(mut self) -> (Wire<N>, Admission<N>) {
        self.out.tx.rest();
        let wire = Wire {
            rx: self.rx,
            tx: self.out.tx,
            peer: self.peer,
        };
        (wire, self.admission)
    }

    /// Whether bytes of another request wait.
    pub fn has_more(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Waits until the others have had their turn.
    pub fn let_others_run(&mut self) -> impl Future<Output = ()> {
        self.rx.let_others_run()
    }

    /// Bytes that wait to be understood: what a bad request began with.
    pub fn unread(&self) -> &[u8] {
        self.inbox.bytes()
    }

    /// Lets the head, as far as it was understood, be looked up in the bytes that wait: a request that is refused is
    /// to be known by what it said.
    pub fn show_unread(&self, head: &Head, block: &mut Chunk) {
        if block.is_empty() || !head.is_complete() {
            *block = self.inbox.view();
        }
    }

    /// Waits for the rest of the head. `Ok(false)`: the client closed between requests.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
        block: &mut Chunk,
    ) -> Poll<Result<bool, Error>> {
        loop {
            if self.is_worth_a_look() {
                self.looked_at = self.inbox.bytes().len();
                let Received { consumed, event } =
                    match self.machine.receive(self.inbox.bytes(), head) {
                        Ok(received) => received,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                if event == Event::Head {
                    self.looked_at = 0;
                    *block = self.inbox.cut(consumed, 0..consumed);
                    return Poll::Ready(Ok(true));
                }
                self.inbox.consume(consumed);
                self.looked_at -= consumed;
            }
            if !ready!(self.poll_fill(cx, core)) {
                let unread = self.inbox.bytes().len();
                return Poll::Ready(self.machine.receive_close(unread).map(|()| false));
            }
        }
    }

    /// Whether what has come of a head may be all of it, or wrong. Each look begins at the first byte, so that a head in
    /// pieces of one byte is not looked at with each: only with those that end a line, when there is twice as much, and
    /// when there is too much.
    fn is_worth_a_look(&self) -> bool {
        let bytes = self.inbox.bytes();
        !bytes.is_empty()
            && (bytes.len() >= 2 * self.looked_at
                || bytes.len() > self.head_bytes_max
                || bytes.iter().skip(self.looked_at).any(|&byte| byte == b'\n'))
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
    ) -> Poll<Result<Piece, Fault>> {
        loop {
            if core.share.is_spent() {
                self.rx.wake_later(cx);
                return Poll::Pending;
            }
            core.share.spend(1);
            let Received { consumed, event } = match self.machine.receive(self.inbox.bytes(), head)
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
                if self.machine.receive_close(unread).is_err() {
                    return Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)));
                }
            }
        }
    }

    /// Lets what comes of a long request go to the endpoint unseen, where nothing is framed around it.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut UpstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.machine.request().body, self.machine.raw_body_left());
        let from = (&mut self.rx, &self.inbox);
        let sender = to.machine.sender();
        let passed = ready!(to.out.poll_pass(cx, &core.net, from, body, sender));
        let passed = passed.map_err(|_| up::internal())?;
        let counted = self.machine.skip_raw_body(passed as u64);
        Poll::Ready(counted.map(|()| passed).map_err(|_| internal()))
    }

    /// Looks after the client while there is nothing to be read for this exchange: bytes of its body or of the next
    /// request are kept, a few, so that what comes behind them is seen; a half-closed connection is served to the end,
    /// a broken one is an error.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        while !self.ended && self.inbox.bytes().len() < BLOCK_BYTES[0] {
            match self.rx.poll_recv(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(chunk))) => self.inbox.add(chunk, core.net.pool()),
                Poll::Ready(Ok(None)) => self.ended = true,
                // The request is here; that its sender did not say goodbye takes nothing from it.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                }
                Poll::Ready(Err(_)) => {
                    return Err(Fault::downstream(Phase::FirstByte, Reason::ClientClosed));
                }
            }
            if self.ended && self.inbox.is_empty() {
                self.machine.close_after_response();
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
        if self.admission.is_last_answer() {
            self.machine.close_after_response();
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
        if self
            .machine
            .begin_interim(head.status)
            .map_err(|_| internal())?
        {
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
        edits: &Edits,
        protocol: Span,
    ) -> Result<(), Fault> {
        let framing = self.machine.switch_protocols(protocol).map_err(|_| {
            Fault::upstream(
                Phase::FirstByte,
                Reason::BadUpgrade,
                crate::fault::Retry::Never,
            )
        })?;
        encode_response(self.out.open(), block, head, edits, &framing);
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
        self.ended && self.inbox.is_empty() && !self.machine.is_received()
    }

    /// Whether the connection is in the clear.
    pub fn is_plain(&self) -> bool {
        matches!(self.rx, WireRx::Plain(_))
    }

    /// Whether TLS was given up, by either side.
    pub fn is_refused(&self) -> bool {
        self.rx.refusal().is_some()
    }

    /// Whether all of the last request was read, and nothing came behind it, on a connection that can end without a word.
    pub fn is_over(&self) -> bool {
        self.is_plain() && self.inbox.is_empty() && self.machine.is_received()
    }

    /// Waits for bytes once HTTP is given up, beginning with what was received behind the request.
    pub fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self.inbox.take() {
            Some(rest) => Poll::Ready(Ok(Some(rest))),
            None => self.rx.poll_recv(cx),
        }
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
