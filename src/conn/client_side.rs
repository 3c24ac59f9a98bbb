//! The downstream side of an exchange, whatever protocol the client speaks.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Framing, Head, OddNamePolicy, Request, Span, Trailers};

use super::{Carrier, CarrierMut, TunnelEnd, Wire, http1, http2};
use crate::core::{Core, CoreListener, Timer};
use crate::fault::Fault;
use crate::io::{Chunk, Net};
use crate::limits::KERNEL_QUEUED_BYTES;
use crate::tls::{CertificateIdentity, TlsParameters};

/// What came from the client.
pub enum Piece {
    /// A piece of the request's body.
    Data(Chunk),
    /// The request is complete.
    End,
}

/// The facts of a client's connection, which all its requests share.
pub struct ConnectionContext {
    /// The listener that accepted the connection.
    pub listener: Rc<CoreListener>,
    /// The client's address and port; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// What the TLS handshake agreed on; `None` in the clear.
    pub agreed: Option<TlsParameters>,
    /// The identity in the client's certificate, if it showed one.
    pub identity: Option<Rc<CertificateIdentity>>,
    /// The server name that the client asked for in the TLS handshake.
    pub sni: Option<Rc<str>>,
}

impl ConnectionContext {
    /// Collects the facts of a connection that `listener` accepted. The handshake must be over.
    pub fn new<N: Net>(listener: Rc<CoreListener>, wire: &Wire<N>) -> Self {
        Self {
            listener,
            address: wire.peer,
            agreed: wire.rx.tls_parameters(),
            identity: wire.rx.identity(),
            sni: wire.rx.server_name(),
        }
    }

    /// The client's address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// The scheme of the client's requests.
    pub fn scheme(&self) -> &'static str {
        match self.agreed {
            Some(_) => "https",
            None => "http",
        }
    }
}

/// The head of the request that was received last. Its memory serves the next request.
#[derive(Default)]
pub struct HeadBuffer {
    /// The head; its spans point into the block.
    pub head: Head,
    /// The bytes of the head.
    pub block: Chunk,
}

/// The client's side of an exchange: one request and its answer, over either protocol.
pub struct ClientSide<'a, N: Net> {
    /// The facts of the client's connection.
    pub context: &'a ConnectionContext,
    /// The deadline of whatever the exchange waits for.
    pub timer: &'a Timer,
    /// The head of the request; its spans point into the block.
    pub head: &'a mut Head,
    /// The bytes of the head.
    pub block: &'a mut Chunk,
    transport: ClientTransport<'a, N>,
}

/// What carries the request.
enum ClientTransport<'a, N: Net> {
    Http1(&'a mut http1::DownstreamConnection<N>),
    Http2(&'a mut http2::DownstreamStream<N>),
}

impl<'a, N: Net> ClientSide<'a, N> {
    /// The side of a client that asks over HTTP/1.1.
    pub fn http1(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        HeadBuffer { head, block }: &'a mut HeadBuffer,
        connection: &'a mut http1::DownstreamConnection<N>,
    ) -> Self {
        Self {
            context,
            timer,
            head,
            block,
            transport: ClientTransport::Http1(connection),
        }
    }

    /// The side of a client that asks over HTTP/2.
    pub fn http2(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        HeadBuffer { head, block }: &'a mut HeadBuffer,
        stream: &'a mut http2::DownstreamStream<N>,
    ) -> Self {
        Self {
            context,
            timer,
            head,
            block,
            transport: ClientTransport::Http2(stream),
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.transport, ClientTransport::Http2(_))
    }

    /// What the head of the request means for this hop.
    pub fn request(&self) -> &Request {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.machine.request(),
            ClientTransport::Http2(wire) => wire.request(),
        }
    }

    /// The trailers of a request that has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.machine.trailers(),
            ClientTransport::Http2(wire) => wire.trailers(),
        }
    }

    /// Drops what may not stand in the trailers of a request. Says how many of these had odd names.
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.machine.enforce_trailers(odd_names, matches),
            ClientTransport::Http2(wire) => wire.enforce_trailers(odd_names, matches),
        }
    }

    /// Whether the whole request has come.
    pub fn is_received(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.machine.is_received(),
            ClientTransport::Http2(wire) => wire.is_received(),
        }
    }

    /// Whether the final answer has begun: then no other is possible.
    pub fn is_answered(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.machine.is_answered(),
            ClientTransport::Http2(wire) => wire.is_answered(),
        }
    }

    /// Whether not one byte of a request has come.
    pub fn is_idle(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.machine.is_idle(),
            ClientTransport::Http2(_) => false,
        }
    }

    /// Why nobody waits for the answer, if that is known by now. Looks at nothing new.
    pub fn gone(&self) -> Option<Fault> {
        match &self.transport {
            ClientTransport::Http1(_) => None,
            ClientTransport::Http2(wire) => wire.gone(),
        }
    }

    /// Whether the client can tell that it has all of the answer, before that was ended: nothing more can follow. Over
    /// HTTP/2 there may be trailers.
    pub fn is_whole(&mut self) -> bool {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.machine.sender().is_whole(),
            ClientTransport::Http2(_) => false,
        }
    }

    /// Has the connection end with the answer to come.
    pub fn close_after(&mut self) {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.machine.close_after_response(),
            // Its connection has other requests.
            ClientTransport::Http2(_) => {}
        }
    }

    /// Grows while the client takes what it can have of the answer: an answer that others go before stands still for no
    /// fault of the client's.
    pub fn progress(&self) -> u64 {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.wire.out.sent(),
            ClientTransport::Http2(wire) => wire.progress(),
        }
    }

    /// Bytes of memory that the request takes by itself: what waits on its stream of HTTP/2 is its connection's.
    pub fn held(&self) -> usize {
        let waiting = match &self.transport {
            ClientTransport::Http1(wire) => {
                let queued = wire.wire.out.queued();
                let kernel = if queued > 0 { KERNEL_QUEUED_BYTES } else { 0 };
                queued + kernel + wire.unread().len()
            }
            ClientTransport::Http2(_) => 0,
        };
        self.block.weight() + waiting
    }

    /// Reports the bytes that the request holds, if memory is tight. Says whether the request has to end because of them.
    #[inline]
    pub fn holds_too_much(&self, core: &Core<N>, held: impl FnOnce() -> usize) -> bool {
        core.holds_too_much(self.timer, held)
    }

    /// Waits for the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<Piece, Fault>> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.poll_body(cx, core, self.head),
            ClientTransport::Http2(wire) => wire.poll_body(cx),
        }
    }

    /// Lets what comes of a long request go to the endpoint unseen, and says how many bytes did. 0: not now or not this
    /// request; [`ClientSide::poll_body`] goes on.
    pub fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut http1::UpstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        match &mut self.transport {
            ClientTransport::Http1(from) => from.poll_pass(cx, core, to),
            ClientTransport::Http2(_) => Poll::Ready(Ok(0)),
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
        match &mut self.transport {
            ClientTransport::Http1(to) => from.poll_pass(cx, core, head, to),
            ClientTransport::Http2(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Looks after the client while there is nothing to be read for this exchange.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.poll_watch(cx, core),
            ClientTransport::Http2(wire) => wire.poll_watch(cx),
        }
    }

    /// Whether the client is gone in the middle of its request.
    pub fn is_cut_short(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(wire) => wire.is_cut_short(),
            // That is an error of its own there.
            ClientTransport::Http2(_) => false,
        }
    }

    /// Writes the head of a response.
    pub fn respond(
        &mut self,
        head: &Head,
        block: &[u8],
        edits: &Edits,
        body: BodyKind,
    ) -> Result<Framing, Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.respond(head, block, edits, body),
            ClientTransport::Http2(wire) => wire.respond(head, block, edits, body),
        }
    }

    /// Passes an interim answer on, if this client takes them.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.respond_interim(head, block),
            ClientTransport::Http2(wire) => wire.respond_interim(head, block),
        }
    }

    /// Answers an upgrade. What follows in both directions is not HTTP.
    pub fn respond_switch(
        &mut self,
        head: &mut Head,
        block: &[u8],
        edits: &Edits,
        protocol: Span,
    ) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.respond_switch(head, block, edits, protocol),
            ClientTransport::Http2(wire) => wire.respond_switch(head, block, edits),
        }
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.send_data(data),
            ClientTransport::Http2(wire) => wire.send_data(data),
        }
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.send_end(trailers),
            ClientTransport::Http2(wire) => wire.send_end(trailers),
        }
    }

    /// Ends the exchange: says whether the connection takes another request.
    pub fn finish(&mut self) -> bool {
        match &mut self.transport {
            ClientTransport::Http1(wire) => wire.finish(),
            ClientTransport::Http2(_) => true,
        }
    }
}

impl<N: Net> TunnelEnd<N> for ClientSide<'_, N> {
    #[inline]
    fn carrier(&self) -> Carrier<'_, N> {
        match &self.transport {
            ClientTransport::Http1(connection) => Carrier::Http1(&connection.wire),
            ClientTransport::Http2(stream) => Carrier::Http2(Some(stream.handle())),
        }
    }

    #[inline]
    fn carrier_mut(&mut self) -> CarrierMut<'_, N> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => CarrierMut::Http1(&mut connection.wire),
            ClientTransport::Http2(stream) => CarrierMut::Http2(Some(stream.handle())),
        }
    }
}
