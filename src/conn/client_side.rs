//! The client's side of an exchange: over HTTP/1.1, over HTTP/2, or a sub-request of Weir's own.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Framing, Head, OddNamePolicy, Request, Span, Trailers};

use super::{Carrier, CarrierMut, InnerStream, TunnelEnd, Wire, http1, http2};
use crate::core::{Core, CoreListener, Timer};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Net};
use crate::limits::KERNEL_QUEUED_BYTES;
use crate::tls::{CertificateIdentity, TlsParameters};

/// A part of the request's body.
pub enum RequestPart {
    /// Some bytes.
    Data(Chunk),
    /// The request is complete.
    End,
}

/// The facts of a client's connection, which all its requests share.
#[derive(Clone)]
pub struct ConnectionContext {
    /// The listener that accepted the connection.
    pub listener: Rc<CoreListener>,
    /// The client's address and port; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// What the TLS handshake agreed on; `None` in the clear.
    pub tls: Option<TlsParameters>,
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
            address: wire.peer.get(),
            tls: wire.rx.tls_parameters(),
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
        match self.tls {
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
    /// The deadline of the exchange's current wait.
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
    /// A sub-request: no client waits for its answer.
    Inner(&'a mut InnerStream),
}

impl<'a, N: Net> ClientSide<'a, N> {
    /// Serves a request over HTTP/1.1.
    pub fn http1(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        request: &'a mut HeadBuffer,
        connection: &'a mut http1::DownstreamConnection<N>,
    ) -> Self {
        Self::new(context, timer, request, ClientTransport::Http1(connection))
    }

    /// Serves a request over HTTP/2.
    pub fn http2(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        request: &'a mut HeadBuffer,
        stream: &'a mut http2::DownstreamStream<N>,
    ) -> Self {
        Self::new(context, timer, request, ClientTransport::Http2(stream))
    }

    /// Sends a sub-request on behalf of a client.
    pub fn inner(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        request: &'a mut HeadBuffer,
        stream: &'a mut InnerStream,
    ) -> Self {
        Self::new(context, timer, request, ClientTransport::Inner(stream))
    }

    fn new(
        context: &'a ConnectionContext,
        timer: &'a Timer,
        HeadBuffer { head, block }: &'a mut HeadBuffer,
        transport: ClientTransport<'a, N>,
    ) -> Self {
        Self {
            context,
            timer,
            head,
            block,
            transport,
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.transport, ClientTransport::Http2(_))
    }

    /// What the head of the request means for this hop.
    pub fn request(&self) -> &Request {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.machine.request(),
            ClientTransport::Http2(stream) => stream.request(),
            ClientTransport::Inner(stream) => stream.request(),
        }
    }

    /// The trailers of a request that has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.machine.trailers(),
            ClientTransport::Http2(stream) => stream.trailers(),
            ClientTransport::Inner(stream) => stream.trailers(),
        }
    }

    /// Drops the fields that a request may not have in its trailers. Returns how many had odd names.
    pub fn enforce_trailers(
        &mut self,
        odd_names: OddNamePolicy,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> u32 {
        match &mut self.transport {
            ClientTransport::Http1(connection) => {
                connection.machine.enforce_trailers(odd_names, matches)
            }
            ClientTransport::Http2(stream) => stream.enforce_trailers(odd_names, matches),
            ClientTransport::Inner(_) => 0,
        }
    }

    /// Whether the whole request has arrived.
    pub fn is_received(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.machine.is_received(),
            ClientTransport::Http2(stream) => stream.is_received(),
            ClientTransport::Inner(_) => true,
        }
    }

    /// Whether the final answer has begun. No other is possible then.
    pub fn is_answered(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.machine.is_answered(),
            ClientTransport::Http2(stream) => stream.is_answered(),
            ClientTransport::Inner(stream) => stream.is_answered(),
        }
    }

    /// Whether no byte of a request has arrived.
    pub fn is_idle(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.machine.is_idle(),
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => false,
        }
    }

    /// Why the client no longer waits for the answer, if a receive has already shown that. Receives nothing itself.
    pub fn why_gone(&self) -> Option<Fault> {
        match &self.transport {
            ClientTransport::Http1(_) | ClientTransport::Inner(_) => None,
            ClientTransport::Http2(stream) => stream.loss_fault(),
        }
    }

    /// Whether Weir has written as many bytes of the answer as its head announced, so that the client needs no end.
    /// Always false over HTTP/2, where trailers may follow.
    pub fn has_whole_answer(&mut self) -> bool {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.machine.sender().is_whole(),
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => false,
        }
    }

    /// Closes the connection after the answer.
    pub fn close_after(&mut self) {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.machine.close_after_response(),
            // The connection has other requests, or there is none.
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => {}
        }
    }

    /// A count that grows while the client reads. Over HTTP/2 the count also grows while the connection sends other
    /// streams first, because the client does not stall then.
    pub fn progress(&self) -> u64 {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.wire.out.sent(),
            ClientTransport::Http2(stream) => stream.progress(),
            ClientTransport::Inner(_) => 0,
        }
    }

    /// Bytes of memory that the request holds. An HTTP/2 connection itself reports the bytes queued on its streams.
    pub fn held(&self) -> usize {
        let waiting = match &self.transport {
            ClientTransport::Http1(connection) => {
                let queued = connection.wire.out.queued();
                let kernel = if queued > 0 { KERNEL_QUEUED_BYTES } else { 0 };
                queued + kernel + connection.unread().len()
            }
            ClientTransport::Http2(_) => 0,
            ClientTransport::Inner(stream) => stream.held(),
        };
        self.block.weight() + waiting
    }

    /// If memory is short, reports the bytes that the request holds. Returns whether the request must end because of
    /// them.
    #[inline]
    pub fn holds_too_much(&self, core: &Core<N>, held: impl FnOnce() -> usize) -> bool {
        core.holds_too_much(self.timer, held)
    }

    /// Receives the next piece of the request's body.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<RequestPart, Fault>> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.poll_body(cx, core, self.head),
            ClientTransport::Http2(stream) => stream.poll_body(cx),
            ClientTransport::Inner(stream) => Poll::Ready(Ok(match stream.next_piece() {
                Some(piece) => RequestPart::Data(piece),
                None => RequestPart::End,
            })),
        }
    }

    /// Splices bytes of a long request to the endpoint, and returns how many. 0: splicing is not possible now;
    /// [`ClientSide::poll_body`] goes on.
    pub fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        to: &mut http1::UpstreamConnection<N>,
    ) -> Poll<Result<usize, Fault>> {
        match &mut self.transport {
            ClientTransport::Http1(from) => from.poll_pass(cx, core, to),
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Splices bytes of a long answer to the client, and returns how many. 0: splicing is not possible now; the caller
    /// receives the next part instead.
    pub fn poll_splice_back(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut http1::UpstreamConnection<N>,
        head: &Head,
    ) -> Poll<Result<usize, Fault>> {
        match &mut self.transport {
            ClientTransport::Http1(to) => from.poll_pass(cx, core, head, to),
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => Poll::Ready(Ok(0)),
        }
    }

    /// Checks for the client's departure while the exchange reads nothing from it.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, core: &Core<N>) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.poll_watch(cx, core),
            ClientTransport::Http2(stream) => stream.poll_watch(cx),
            ClientTransport::Inner(_) => Ok(()),
        }
    }

    /// Whether the client has ended its direction in the middle of its request.
    pub fn is_cut_short(&self) -> bool {
        match &self.transport {
            ClientTransport::Http1(connection) => connection.is_cut_short(),
            // `poll_watch` reports that as an error.
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => false,
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
            ClientTransport::Http1(connection) => connection.respond(head, block, edits, body),
            ClientTransport::Http2(stream) => stream.respond(head, block, edits, body),
            // The caller wants the endpoint's own fields.
            ClientTransport::Inner(stream) => stream.respond(head, block, body),
        }
    }

    /// Writes the head of an interim response, if the client accepts them.
    pub fn respond_interim(&mut self, head: &Head, block: &[u8]) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.respond_interim(head, block),
            ClientTransport::Http2(stream) => stream.respond_interim(head, block),
            ClientTransport::Inner(_) => Ok(()),
        }
    }

    /// Writes the head of a response that switches protocols. The bytes after it are not HTTP, in both directions.
    pub fn respond_switch(
        &mut self,
        head: &mut Head,
        block: &[u8],
        edits: &Edits,
        protocol: Span,
    ) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => {
                connection.respond_switch(head, block, edits, protocol)
            }
            ClientTransport::Http2(stream) => stream.respond_switch(head, block, edits),
            // Sub-requests ask for no upgrade.
            ClientTransport::Inner(_) => Err(Fault::local(Phase::FirstByte, Reason::Internal)),
        }
    }

    /// Sends a piece of the response's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.send_data(data),
            ClientTransport::Http2(stream) => stream.send_data(data),
            ClientTransport::Inner(stream) => stream.send_data(&data),
        }
    }

    /// Ends the response.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.send_end(trailers),
            ClientTransport::Http2(stream) => stream.send_end(trailers),
            ClientTransport::Inner(_) => Ok(()),
        }
    }

    /// Ends the exchange. Returns whether the connection takes another request.
    pub fn finish(&mut self) -> bool {
        match &mut self.transport {
            ClientTransport::Http1(connection) => connection.finish(),
            ClientTransport::Http2(_) | ClientTransport::Inner(_) => true,
        }
    }
}

impl<N: Net> TunnelEnd<N> for ClientSide<'_, N> {
    #[inline]
    fn carrier(&self) -> Carrier<'_, N> {
        match &self.transport {
            ClientTransport::Http1(connection) => Carrier::Http1(&connection.wire),
            ClientTransport::Http2(stream) => Carrier::Http2(Some(stream.handle())),
            ClientTransport::Inner(_) => Carrier::Memory,
        }
    }

    #[inline]
    fn carrier_mut(&mut self) -> CarrierMut<'_, N> {
        match &mut self.transport {
            ClientTransport::Http1(connection) => CarrierMut::Http1(&mut connection.wire),
            ClientTransport::Http2(stream) => CarrierMut::Http2(Some(stream.handle())),
            ClientTransport::Inner(_) => CarrierMut::Memory,
        }
    }
}
