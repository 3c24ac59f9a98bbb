//! The downstream side of an exchange, whatever protocol the client speaks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Framing, Head, OddNamePolicy, Request, Span, Trailers};

use super::tunnel::End;
use super::{ClientBindings, http1, http2};
use crate::core::{Core, CoreListener, Timer};
use crate::exchange::Added;
use crate::fault::Fault;
use crate::io::{Chunk, Net};
use crate::limits::{KERNEL_QUEUED_BYTES, QUEUED_BYTES_HIGH};
use crate::plan::DecisionBuffers;
use crate::tls::{CertificateIdentity, TlsParameters};

/// What came from the client.
pub enum Piece {
    /// A piece of the request's body.
    Data(Chunk),
    /// The request is complete.
    End,
}

/// What a request needs and the next one uses again.
pub struct Kit {
    /// The head of the request, over [`Kit::block`].
    pub head: Head,
    /// What the head lies in.
    pub block: Chunk,
    /// The deadline of whatever is waited for.
    pub timer: Timer,
    /// Where the connection came in.
    pub door: Rc<CoreListener>,
    /// The client's address, as far as the connection tells.
    pub peer: Option<IpAddr>,
    /// The same with its port.
    pub address: Option<SocketAddr>,
    /// What was agreed on with the client in a TLS handshake; `None` in the clear.
    pub agreed: Option<TlsParameters>,
    /// Whose certificate the client has shown, if any.
    pub identity: Option<Rc<CertificateIdentity>>,
    /// The name that the client asked for in a TLS handshake.
    pub sni: Option<Rc<str>>,
    /// What is added to the request.
    pub added: Added,
    /// What is added to an answer of ours.
    pub edits: Edits,
    /// The memory that the plan decides in, and the path that it sends upstream.
    pub paths: DecisionBuffers,
    /// The fields of request and answer for the log, at the end.
    pub logged: Vec<u8>,
    /// The endpoint's head, over [`Kit::up_block`].
    pub up_head: Head,
    /// What it lies in, until it is logged.
    pub up_block: Chunk,
    /// The connections to endpoints that belong to the client's connection; made when there is one.
    pub bindings: Option<Rc<ClientBindings>>,
}

/// Who a client is, as far as its connection tells.
pub struct Client {
    pub address: Option<SocketAddr>,
    agreed: Option<TlsParameters>,
    identity: Option<Rc<CertificateIdentity>>,
    sni: Option<Rc<str>>,
}

impl Client {
    /// The client of a connection.
    pub fn of<N: Net>(wire: &super::Wire<N>) -> Self {
        Self {
            address: wire.peer,
            agreed: wire.rx.tls_parameters(),
            identity: wire.rx.identity(),
            sni: wire.rx.server_name(),
        }
    }
}

impl Kit {
    /// Makes a kit for requests that come in by `door`.
    pub fn new(timer: Timer, door: Rc<CoreListener>, client: &Client) -> Self {
        Self {
            head: Head::new(),
            block: Chunk::default(),
            timer,
            door,
            peer: client.address.map(|address| address.ip()),
            address: client.address,
            agreed: client.agreed,
            identity: client.identity.clone(),
            sni: client.sni.clone(),
            added: Added::default(),
            edits: Edits::new(),
            paths: DecisionBuffers::default(),
            logged: Vec::new(),
            up_head: Head::new(),
            up_block: Chunk::default(),
            bindings: None,
        }
    }
}

impl Kit {
    /// Says how much is held, when that matters; whether it is too much.
    #[inline]
    pub fn holds_too_much<N: Net>(&self, core: &Core<N>, held: impl FnOnce() -> usize) -> bool {
        core.is_tight() && {
            self.timer.hold(held());
            self.timer.is_told()
        }
    }

    /// The scheme of the client's requests.
    pub fn scheme(&self) -> &'static str {
        if self.agreed.is_some() {
            "https"
        } else {
            "http"
        }
    }
}

/// A request on its way through, as the exchange sees its client.
pub struct Down<'a, N: Net> {
    /// What the request needs.
    pub kit: &'a mut Kit,
    wire: Wire<'a, N>,
}

/// What carries the request.
enum Wire<'a, N: Net> {
    Http1(&'a mut http1::DownstreamConnection<N>),
    Http2(&'a mut http2::Downstream<N>),
}

impl<'a, N: Net> Down<'a, N> {
    /// A request over HTTP/1.1.
    pub fn http1(kit: &'a mut Kit, wire: &'a mut http1::DownstreamConnection<N>) -> Self {
        Self {
            kit,
            wire: Wire::Http1(wire),
        }
    }

    /// A request over HTTP/2.
    pub fn http2(kit: &'a mut Kit, wire: &'a mut http2::Downstream<N>) -> Self {
        Self {
            kit,
            wire: Wire::Http2(wire),
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.wire, Wire::Http2(_))
    }

    /// What the head of the request means for this hop.
    pub fn request(&self) -> &Request {
        match &self.wire {
            Wire::Http1(wire) => wire.machine.request(),
            Wire::Http2(wire) => wire.request(),
        }
    }

    /// The trailers of a request that has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.wire {
            Wire::Http1(wire) => wire.machine.trailers(),
            Wire::Http2(wire) => wire.trailers(),
        }
    }

    /// Drops what may not stand in the trailers of a request. Says how many of these had odd names.
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        match &mut self.wire {
            Wire::Http1(wire) => wire.machine.enforce_trailers(odd_names, matches),
            Wire::Http2(wire) => wire.enforce_trailers(odd_names, matches),
        }
    }

    /// Whether the whole request has come.
    pub fn is_received(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.machine.is_received(),
            Wire::Http2(wire) => wire.is_received(),
        }
    }

    /// Whether the final answer has begun: then no other is possible.
    pub fn is_answered(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.machine.is_answered(),
            Wire::Http2(wire) => wire.is_answered(),
        }
    }

    /// Whether not one byte of a request has come.
    pub fn is_idle(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.machine.is_idle(),
            Wire::Http2(_) => false,
        }
    }

    /// Why nobody waits for the answer, if that is known by now. Looks at nothing new.
    pub fn gone(&self) -> Option<Fault> {
        match &self.wire {
            Wire::Http1(_) => None,
            Wire::Http2(wire) => wire.gone(),
        }
    }

    /// Whether the client can tell that it has all of the answer, before that was ended: nothing more can follow. Over
    /// HTTP/2 there may be trailers.
    pub fn is_whole(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(wire) => wire.machine.sender().is_whole(),
            Wire::Http2(_) => false,
        }
    }

    /// Has the connection end with the answer to come.
    pub fn close_after(&mut self) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.machine.close_after_response(),
            // Its connection has other requests.
            Wire::Http2(_) => {}
        }
    }

    /// Grows while the client takes what it can have of the answer: an answer that others go before stands still for no
    /// fault of the client's.
    pub fn progress(&self) -> u64 {
        match &self.wire {
            Wire::Http1(wire) => wire.out.sent(),
            Wire::Http2(wire) => wire.progress(),
        }
    }

    /// Bytes of memory that the request takes by itself: what waits on its stream of HTTP/2 is its connection's.
    pub fn held(&self) -> usize {
        let waiting = match &self.wire {
            Wire::Http1(wire) => {
                let queued = wire.out.queued();
                let kernel = if queued > 0 { KERNEL_QUEUED_BYTES } else { 0 };
                queued + kernel + wire.unread().len()
            }
            Wire::Http2(_) => 0,
        };
        self.kit.block.weight() + waiting
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<Piece, Fault>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_body(cx, core, &mut self.kit.head),
            Wire::Http2(wire) => wire.poll_body(cx),
        }
    }

    /// Lets what comes of a long request go to the endpoint unseen, and says how many bytes did. 0: not now or not this
    /// request; [`Down::poll_body`] goes on.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut http1::UpstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        match &mut self.wire {
            Wire::Http1(from) => from.poll_pass(cx, core, to),
            Wire::Http2(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Lets what comes of a long answer go to the client unseen, and says how many bytes did. 0: not now or not this
    /// answer: its parts are to be polled.
    pub fn poll_pass_back(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut http1::UpstreamConnection<N>,
        head: &Head,
    ) -> Poll<Result<usize, Fault>> {
        match &mut self.wire {
            Wire::Http1(to) => from.poll_pass(cx, core, head, to),
            Wire::Http2(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Looks after the client while there is nothing to be read for this exchange.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_watch(cx, core),
            Wire::Http2(wire) => wire.poll_watch(cx),
        }
    }

    /// Whether the client is gone in the middle of its request.
    pub fn is_cut_short(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.is_cut_short(),
            // That is an error of its own there.
            Wire::Http2(_) => false,
        }
    }

    /// Writes the head of a response.
    pub fn respond(&mut self, head: &Head, block: &[u8], body: BodyKind) -> Result<Framing, Fault> {
        let edits = &self.kit.edits;
        match &mut self.wire {
            Wire::Http1(wire) => wire.respond(head, block, edits, body),
            Wire::Http2(wire) => wire.respond(head, block, edits, body),
        }
    }

    /// Passes an interim answer on, if this client takes them.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.respond_interim(head, block),
            Wire::Http2(wire) => wire.respond_interim(head, block),
        }
    }

    /// Answers an upgrade. What follows in both directions is not HTTP.
    pub fn respond_switch(
        &mut self,
        head: &mut Head,
        block: &[u8],
        protocol: Span,
    ) -> Result<(), Fault> {
        let edits = &self.kit.edits;
        match &mut self.wire {
            Wire::Http1(wire) => wire.respond_switch(head, block, edits, protocol),
            Wire::Http2(wire) => wire.respond_switch(head, block, edits),
        }
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.send_data(data),
            Wire::Http2(wire) => wire.send_data(data),
        }
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.send_end(trailers),
            Wire::Http2(wire) => wire.send_end(trailers),
        }
    }

    /// Ends the exchange: says whether the connection takes another request.
    pub fn finish(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(wire) => wire.finish(),
            Wire::Http2(_) => true,
        }
    }
}

impl<N: Net> End for Down<'_, N> {
    fn queued(&self) -> usize {
        match &self.wire {
            Wire::Http1(wire) => wire.out.queued(),
            Wire::Http2(wire) => wire.queued(),
        }
    }

    fn queued_high(&self) -> usize {
        match &self.wire {
            Wire::Http1(_) => QUEUED_BYTES_HIGH,
            Wire::Http2(wire) => wire.queued_high(),
        }
    }

    fn sent(&self) -> u64 {
        match &self.wire {
            Wire::Http1(wire) => wire.out.sent(),
            Wire::Http2(wire) => wire.sent(),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.out.poll_send(cx),
            Wire::Http2(wire) => wire.poll_send(cx),
        }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_raw(cx),
            Wire::Http2(wire) => wire.poll_raw(cx),
        }
    }

    fn send_raw(&mut self, bytes: Chunk) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.out.raw(bytes),
            Wire::Http2(wire) => wire.send_raw(bytes),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.out.tx.poll_finish(cx),
            Wire::Http2(wire) => {
                wire.finish_raw();
                // Whoever lets go of a stream before its end was framed resets it.
                wire.poll_send(cx).map(|_| ())
            }
        }
    }
}
