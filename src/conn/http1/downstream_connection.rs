//! A client's connection over HTTP/1.1.

use std::future::Future;
use std::io;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{
    BodyKind, Edits, Error, Event, Framing, Head, Next, Received, Server, Span, Trailers,
    encode_response,
};

use super::{UpstreamConnection, upstream_connection};
use crate::conn::{BufferedWire, RequestPart, Wire};
use crate::core::{Admission, Core};
use crate::fault::{Fault, Phase, Reason, Retry};
use crate::io::{Chunk, Net, Rx, Tx};
use crate::limits::BLOCK_BYTES;

/// A client's connection while it is active.
pub struct DownstreamConnection<N: Net> {
    /// The connection and its buffers.
    pub wire: BufferedWire<N>,
    /// The protocol's state.
    pub machine: Server,
    /// The connection's right to be served.
    pub admission: Admission<N>,
    /// How many bytes of an incomplete head the machine has parsed already.
    parsed: usize,
    /// The largest head that the listener accepts.
    head_bytes_max: usize,
    /// The client has ended its direction.
    has_ended: bool,
}

impl<N: Net> DownstreamConnection<N> {
    /// Begins with the first bytes of a request.
    pub fn new(core: &Core<N>, wire: Wire<N>, admission: Admission<N>, first: Chunk) -> Self {
        let limits = admission.listener.plan.borrow().limits;
        let mut wire = BufferedWire::new(wire, core.net.pool());
        wire.inbox.add(first, core.net.pool());
        Self {
            wire,
            machine: Server::new(limits),
            admission,
            parsed: 0,
            head_bytes_max: limits.head_bytes_max as usize,
            has_ended: false,
        }
    }

    /// Keeps only what an idle connection needs.
    pub fn rest(mut self) -> (Wire<N>, Admission<N>) {
        self.wire.out.tx.rest();
        (self.wire.into_wire(), self.admission)
    }

    /// Whether bytes of another request wait.
    pub fn has_more(&self) -> bool {
        !self.wire.inbox.is_empty()
    }

    /// Waits until other tasks have run.
    pub fn let_others_run(&mut self) -> impl Future<Output = ()> {
        self.wire.rx.let_others_run()
    }

    /// Received bytes that are not parsed yet. A bad request begins with them.
    pub fn unread(&self) -> &[u8] {
        self.wire.inbox.bytes()
    }

    /// Makes the received bytes the block of an incomplete head, so that a refused request is logged with the parts that
    /// were parsed.
    pub fn show_unread(&self, head: &Head, block: &mut Chunk) {
        if block.is_empty() || !head.is_complete() {
            *block = self.wire.inbox.view();
        }
    }

    /// Receives the rest of a head. `Ok(false)`: the client has closed the connection between requests.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
        block: &mut Chunk,
    ) -> Poll<Result<bool, Error>> {
        loop {
            if self.is_worth_parsing() {
                self.parsed = self.wire.inbox.bytes().len();
                let Received { consumed, event } =
                    match self.machine.receive(self.wire.inbox.bytes(), head) {
                        Ok(received) => received,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                if event == Event::Head {
                    self.parsed = 0;
                    *block = self.wire.inbox.cut(consumed, 0..consumed);
                    return Poll::Ready(Ok(true));
                }
                self.wire.inbox.consume(consumed);
                self.parsed -= consumed;
            }
            if !ready!(self.poll_fill(cx, core)) {
                let unread = self.wire.inbox.bytes().len();
                return Poll::Ready(self.machine.receive_close(unread).map(|()| false));
            }
        }
    }

    /// Whether the received bytes may be a whole head, or a bad one. The machine parses from the first byte each time,
    /// so parsing after each byte of a trickled head would cost quadratic work. Parses when a line ends, when the bytes
    /// have doubled since the last time, and when they are more than a head may have.
    fn is_worth_parsing(&self) -> bool {
        let bytes = self.wire.inbox.bytes();
        !bytes.is_empty()
            && (bytes.len() >= 2 * self.parsed
                || bytes.len() > self.head_bytes_max
                || bytes.iter().skip(self.parsed).any(|&byte| byte == b'\n'))
    }

    /// Receives the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        head: &mut Head,
    ) -> Poll<Result<RequestPart, Fault>> {
        loop {
            ready!(self.wire.poll_step(cx, core));
            let Received { consumed, event } = match self
                .machine
                .receive(self.wire.inbox.bytes(), head)
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
                    return Poll::Ready(Ok(RequestPart::Data(
                        self.wire.inbox.cut(consumed, range),
                    )));
                }
                Event::End | Event::Blocked => {
                    self.wire.inbox.consume(consumed);
                    return Poll::Ready(Ok(RequestPart::End));
                }
                _ => self.wire.inbox.consume(consumed),
            }
            if !ready!(self.poll_fill(cx, core)) {
                // The machine reports the end in the next step.
                let unread = self.wire.inbox.bytes().len();
                if self.machine.receive_close(unread).is_err() {
                    return Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)));
                }
            }
        }
    }

    /// Splices bytes of a long request to its endpoint. Returns how many; 0: splicing is not possible now.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut UpstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        let body = (self.machine.request().body, self.machine.raw_body_left());
        let to = (&mut to.wire, to.machine.sender());
        let passed = ready!(self.wire.poll_pass(cx, &core.net, body, to));
        let passed = passed.map_err(|_| upstream_connection::internal())?;
        let counted = self.machine.skip_raw_body(passed as u64);
        Poll::Ready(counted.map(|()| passed).map_err(|_| internal()))
    }

    /// Watches the client while the exchange reads nothing from it. Receives up to a block of the body or of the next
    /// request, to notice an end behind them. Weir still serves a client that has only ended its direction.
    ///
    /// # Errors
    /// The connection has broken.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        while !self.has_ended && self.wire.inbox.bytes().len() < BLOCK_BYTES[0] {
            self.wire.rx.expect_silence();
            match self.wire.poll_fill(cx, core.net.pool()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(has_more)) => self.has_ended = !has_more,
                // TLS ended without close_notify, which does not matter behind a whole request.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.has_ended = true;
                }
                Poll::Ready(Err(_)) => {
                    return Err(Fault::downstream(Phase::FirstByte, Reason::ClientClosed));
                }
            }
            if self.has_ended && self.wire.inbox.is_empty() {
                self.machine.close_after_response();
            }
        }
        Ok(())
    }

    /// Receives more bytes. `false`: the client has ended its direction, or the connection has broken.
    fn poll_fill(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Poll<bool> {
        if !self.has_ended {
            let filled = ready!(self.wire.poll_fill(cx, core.net.pool()));
            self.has_ended = !filled.unwrap_or(false);
        }
        Poll::Ready(!self.has_ended)
    }

    /// Waits for the first bytes of the next request. `None`: the connection has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Poll<Option<()>> {
        if !self.wire.inbox.is_empty() {
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
        if self.admission.must_announce_end() {
            self.machine.close_after_response();
        }
        let framing = self
            .machine
            .begin_response(head.status, body)
            .map_err(|_| internal())?;
        encode_response(self.wire.out.open(), block, head, edits, &framing);
        Ok(framing)
    }

    /// Writes the head of an interim response, if the client's version of HTTP has those.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        if self
            .machine
            .begin_interim(head.status)
            .map_err(|_| internal())?
        {
            encode_response(
                self.wire.out.open(),
                block,
                head,
                &Edits::new(),
                &Framing::default(),
            );
        }
        Ok(())
    }

    /// Writes the head that switches protocols. The bytes behind that head are not HTTP.
    pub fn respond_switch(
        &mut self,
        head: &Head,
        block: &[u8],
        edits: &Edits,
        protocol: Span,
    ) -> Result<(), Fault> {
        let framing = self
            .machine
            .switch_protocols(protocol)
            .map_err(|_| Fault::upstream(Phase::FirstByte, Reason::BadUpgrade, Retry::Never))?;
        encode_response(self.wire.out.open(), block, head, edits, &framing);
        Ok(())
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        let sent = self.wire.out.send(self.machine.sender(), data);
        sent.map_err(|_| overrun())
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        if !self.machine.request().keeps_alive && self.machine.is_received() {
            self.wire.out.tx.hold_for_end();
        }
        let ended = self.wire.out.end(self.machine.sender(), trailers);
        ended.map_err(|_| overrun())
    }

    /// Ends the exchange. Returns whether the connection takes another request.
    pub fn finish(&mut self) -> bool {
        self.wire.rx.expect(0);
        self.machine.finish() == Next::Reuse
    }

    /// Whether the client has ended its direction in the middle of its request.
    pub fn is_cut_short(&self) -> bool {
        self.has_ended && self.wire.inbox.is_empty() && !self.machine.is_received()
    }

    /// Whether the connection is in the clear.
    pub fn is_plain(&self) -> bool {
        self.wire.is_plain()
    }

    /// Whether TLS has failed, on either side.
    pub fn is_refused(&self) -> bool {
        self.wire.rx.refusal().is_some()
    }

    /// Whether dropping the connection loses nothing: it is in the clear, the kernel has all answers, and Weir has
    /// received the last request in full and no bytes behind it.
    pub fn is_over(&mut self) -> bool {
        self.is_plain()
            && self.wire.inbox.is_empty()
            && self.machine.is_received()
            && self.wire.out.tx.has_sent_all()
    }
}

fn internal() -> Fault {
    Fault::local(Phase::FirstByte, Reason::Internal)
}

/// The endpoint's body is longer or shorter than its head said.
pub(super) fn overrun() -> Fault {
    Fault::upstream(Phase::Body, Reason::ResponseTruncated, Retry::Never)
}
