//! The upstream side of an exchange: one request to an endpoint and its response, over HTTP/1.1 or HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Head, Limits, Request, Span, Trailers};
use weir_proto_h2::ErrorCode;

use super::{BindingToken, ConnectionOwner, Endpoint, LeasedConnection, StreamReservation};
use crate::conn::{Carrier, CarrierMut, ResponsePart, TunnelEnd, http1, http2};
use crate::core::Core;
use crate::fault::Fault;
use crate::io::{Chunk, Net};

/// A request to an endpoint, as the exchange sees it.
pub struct EndpointSide<N: Net> {
    /// The response's head, in [`EndpointSide::block`].
    pub head: Head,
    /// The bytes that the head refers to.
    pub block: Chunk,
    transport: EndpointTransport<N>,
}

/// The connection or stream that carries the request, and the lease of it.
enum EndpointTransport<N: Net> {
    Http1(Box<LeasedConnection<N>>),
    Http2(http2::UpstreamStream<N>, StreamReservation<N>),
}

impl<N: Net> EndpointTransport<N> {
    fn finish(self, core: &Rc<Core<N>>, endpoint: &Rc<Endpoint<N>>) {
        match self {
            Self::Http1(mut leased) => {
                if leased.connection.finish() {
                    endpoint.check_in(leased, core.net.now());
                }
            }
            Self::Http2(stream, _reservation) => stream.finish(),
        }
    }
}

impl<N: Net> EndpointSide<N> {
    /// Uses an HTTP/1.1 connection for one request.
    #[inline(always)] // A call would copy the whole side.
    pub fn http1(
        mut leased: Box<LeasedConnection<N>>,
        is_reused: bool,
        limits: Limits,
        head: Head,
    ) -> Self {
        leased.connection.begin(is_reused, limits);
        Self {
            head,
            block: Chunk::default(),
            transport: EndpointTransport::Http1(leased),
        }
    }

    /// Uses a reserved stream of an HTTP/2 connection.
    pub fn http2(reservation: StreamReservation<N>, head: Head) -> Self {
        let stream = http2::UpstreamStream::new(reservation.mux().clone());
        Self {
            head,
            block: Chunk::default(),
            transport: EndpointTransport::Http2(stream, reservation),
        }
    }

    /// The connection and the response's head, if the request uses HTTP/1.1. Long bodies can pass directly between two
    /// such connections.
    pub fn http1_connection(&mut self) -> Option<(&mut http1::UpstreamConnection<N>, &Head)> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => Some((&mut leased.connection, &self.head)),
            EndpointTransport::Http2(..) => None,
        }
    }

    /// Sends the request's head. The caller has removed hop-by-hop fields from `head`.
    pub fn request(
        &mut self,
        request: &Request,
        head: &Head,
        block: &[u8],
        edits: &Edits,
    ) -> Result<(), Fault> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => {
                leased.connection.request(request, head, block, edits)
            }
            EndpointTransport::Http2(wire, _) => wire.request(request, head, block, edits),
        }
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => leased.connection.send_data(data),
            EndpointTransport::Http2(wire, _) => wire.send_data(data),
        }
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => leased.connection.send_end(trailers),
            EndpointTransport::Http2(wire, _) => wire.send_end(trailers),
        }
    }

    /// The memory that the request's queued data and the response's received data hold.
    pub fn held(&self) -> usize {
        match &self.transport {
            EndpointTransport::Http1(..) => self.queued(),
            EndpointTransport::Http2(wire, _) => wire.held_bytes(),
        }
    }

    /// Waits for the next part of the response.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<ResponsePart, Fault>> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => {
                leased
                    .connection
                    .poll_response(cx, core, &mut self.head, &mut self.block)
            }
            EndpointTransport::Http2(wire, _) => {
                wire.poll_response(cx, &mut self.head, &mut self.block)
            }
        }
    }

    /// How the response's body is framed.
    pub fn body(&self) -> BodyKind {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.body(),
            EndpointTransport::Http2(wire, _) => wire.body(),
        }
    }

    /// The protocol that the endpoint switched to, as a span of a 101's head.
    pub fn switched_to(&self) -> Option<Span> {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.switched_to(),
            EndpointTransport::Http2(..) => None,
        }
    }

    /// The response's trailers, once it has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.trailers(),
            EndpointTransport::Http2(wire, _) => wire.trailers(),
        }
    }

    /// Announces that about `bytes` of the body follow, so that receives use blocks of a fitting size.
    pub fn expect(&mut self, bytes: usize) {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => leased.connection.expect(bytes),
            EndpointTransport::Http2(..) => {}
        }
    }

    /// Whether the connection may have been closed as idle while the request was on its way.
    pub fn was_stale(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.was_stale(),
            EndpointTransport::Http2(wire, _) => wire.was_stale(),
        }
    }

    /// The system's error when the connection broke; 0 without one.
    pub fn errno(&self) -> u16 {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.errno(),
            EndpointTransport::Http2(..) => 0,
        }
    }

    /// The code with which the endpoint reset the stream, if it did.
    pub fn reset_by(&self) -> Option<ErrorCode> {
        match &self.transport {
            EndpointTransport::Http1(..) => None,
            EndpointTransport::Http2(wire, _) => wire.reset_by(),
        }
    }

    /// Whether the endpoint can say that it has not processed the request, so that any request may be repeated.
    pub fn may_refuse(&self) -> bool {
        matches!(self.transport, EndpointTransport::Http2(..))
    }

    /// Whether the connection could be bound to the client's. A shared connection cannot be.
    pub fn is_unbound(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(leased) => !leased.is_bound(),
            EndpointTransport::Http2(..) => false,
        }
    }

    /// Whether the response begins or continues authentication that holds for the connection.
    pub fn challenges_connection(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(leased) => leased.connection.challenges_connection(),
            EndpointTransport::Http2(..) => false,
        }
    }

    /// Makes the connection serve only its client from now on.
    pub fn bind(&mut self, bound: Rc<BindingToken>) {
        if let EndpointTransport::Http1(leased) = &mut self.transport {
            leased.owner = Some(ConnectionOwner::Bound(bound));
        }
    }

    /// Closes the connection after this exchange.
    pub fn forsake(&mut self) {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => leased.connection.forsake(),
            // Other requests use the connection.
            EndpointTransport::Http2(..) => {}
        }
    }

    /// Ends the exchange. The connection stays for others if both messages are complete.
    #[inline(always)] // A call would copy the whole side.
    pub fn finish(self, core: &Rc<Core<N>>, endpoint: &Rc<Endpoint<N>>) {
        self.transport.finish(core, endpoint);
    }
}

impl<N: Net> TunnelEnd<N> for EndpointSide<N> {
    #[inline]
    fn carrier(&self) -> Carrier<'_, N> {
        match &self.transport {
            EndpointTransport::Http1(leased) => Carrier::Http1(&leased.connection.wire),
            EndpointTransport::Http2(stream, _) => Carrier::Http2(stream.handle()),
        }
    }

    #[inline]
    fn carrier_mut(&mut self) -> CarrierMut<'_, N> {
        match &mut self.transport {
            EndpointTransport::Http1(leased) => CarrierMut::Http1(&mut leased.connection.wire),
            EndpointTransport::Http2(stream, _) => CarrierMut::Http2(stream.handle()),
        }
    }
}
