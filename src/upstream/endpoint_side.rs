//! The upstream side of an exchange: one request to an endpoint and its answer, whatever protocol it speaks.

use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Head, Limits, Request, Span, Trailers};
use weir_proto_h2::ErrorCode;

use super::{
    BindingToken, ConnectionOwner, ConnectionPermit, Endpoint, LeasedConnection, StreamReservation,
};
use crate::conn::{Carrier, CarrierMut, ResponsePart, TunnelEnd, http1, http2};
use crate::core::Core;
use crate::fault::Fault;
use crate::io::{Chunk, Net};

/// A request at an endpoint, as the exchange sees it.
pub struct EndpointSide<N: Net> {
    /// The head of the answer, over [`EndpointSide::block`].
    pub head: Head,
    /// What the head lies in.
    pub block: Chunk,
    transport: EndpointTransport<N>,
}

/// What carries the request, and what this core has leased for it. The transport ends before its lease: what others are
/// given when a lease is dropped is free then.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives in each exchange, where a box would be an allocation a request"
)]
enum EndpointTransport<N: Net> {
    Http1(
        http1::UpstreamConnection<N>,
        ConnectionPermit<N>,
        Option<ConnectionOwner>,
    ),
    Http2(http2::UpstreamStream<N>, StreamReservation<N>),
}

impl<N: Net> EndpointSide<N> {
    /// Takes a connection of HTTP/1.1 for one request.
    pub fn http1(
        core: &Core<N>,
        held: LeasedConnection<N>,
        reused: bool,
        limits: Limits,
        head: Head,
    ) -> Self {
        let connection = http1::UpstreamConnection::new(core, held.wire, reused, limits);
        Self {
            head,
            block: Chunk::default(),
            transport: EndpointTransport::Http1(connection, held.permit, held.owner),
        }
    }

    /// Uses a stream that was reserved on a connection of HTTP/2.
    pub fn http2(reservation: StreamReservation<N>, head: Head) -> Self {
        let stream = http2::UpstreamStream::new(reservation.mux().clone());
        Self {
            head,
            block: Chunk::default(),
            transport: EndpointTransport::Http2(stream, reservation),
        }
    }

    /// The connection that carries the request, if it is of HTTP/1.1, and the head of the answer: long bodies may pass
    /// from connection to connection unseen.
    pub fn http1_connection(&mut self) -> Option<(&mut http1::UpstreamConnection<N>, &Head)> {
        match &mut self.transport {
            EndpointTransport::Http1(connection, ..) => Some((connection, &self.head)),
            EndpointTransport::Http2(..) => None,
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
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => wire.request(request, head, block, edits),
            EndpointTransport::Http2(wire, _) => wire.request(request, head, block, edits),
        }
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => wire.send_data(data),
            EndpointTransport::Http2(wire, _) => wire.send_data(data),
        }
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => wire.send_end(trailers),
            EndpointTransport::Http2(wire, _) => wire.send_end(trailers),
        }
    }

    /// Bytes of memory that the request takes: what has not left, and what has come and was not taken.
    pub fn held(&self) -> usize {
        match &self.transport {
            EndpointTransport::Http1(..) => self.queued(),
            EndpointTransport::Http2(wire, _) => wire.held_bytes(),
        }
    }

    /// Waits for the next part of the answer.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<ResponsePart, Fault>> {
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => {
                wire.poll_response(cx, core, &mut self.head, &mut self.block)
            }
            EndpointTransport::Http2(wire, _) => {
                wire.poll_response(cx, &mut self.head, &mut self.block)
            }
        }
    }

    /// How the body of the answer is framed.
    pub fn body(&self) -> BodyKind {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.body(),
            EndpointTransport::Http2(wire, _) => wire.body(),
        }
    }

    /// Where the head of a 101 names the protocol.
    pub fn switched_to(&self) -> Option<Span> {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.switched_to(),
            EndpointTransport::Http2(..) => None,
        }
    }

    /// The trailers of an answer that has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.trailers(),
            EndpointTransport::Http2(wire, _) => wire.trailers(),
        }
    }

    /// A hint that the rest of the body is large.
    pub fn expect(&mut self, bytes: usize) {
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => wire.expect(bytes),
            EndpointTransport::Http2(..) => {}
        }
    }

    /// Whether a loss may be no more than the end of an idle connection that crossed the request on its way.
    pub fn was_stale(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.was_stale(),
            EndpointTransport::Http2(wire, _) => wire.was_stale(),
        }
    }

    /// What the system said of a connection that broke; 0 if nothing.
    pub fn errno(&self) -> u16 {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.errno(),
            EndpointTransport::Http2(..) => 0,
        }
    }

    /// With which code the endpoint has reset the request, if that is how it ended.
    pub fn reset_by(&self) -> Option<ErrorCode> {
        match &self.transport {
            EndpointTransport::Http1(..) => None,
            EndpointTransport::Http2(wire, _) => wire.reset_by(),
        }
    }

    /// Whether the endpoint may say that it has not looked at the request: then any request may be sent again.
    pub fn may_refuse(&self) -> bool {
        matches!(self.transport, EndpointTransport::Http2(..))
    }

    /// Whether the connection may be bound to its client's, and is not. One that requests share cannot be.
    pub fn is_unbound(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(_, _, owner) => {
                !matches!(owner, Some(ConnectionOwner::Bound(_)))
            }
            EndpointTransport::Http2(..) => false,
        }
    }

    /// Whether the endpoint asks in its answer for authentication that holds for the connection, or goes on with it.
    pub fn challenges_connection(&self) -> bool {
        match &self.transport {
            EndpointTransport::Http1(wire, ..) => wire.challenges_connection(),
            EndpointTransport::Http2(..) => false,
        }
    }

    /// Has the connection serve its client alone from now on.
    pub fn bind(&mut self, bound: Rc<BindingToken>) {
        if let EndpointTransport::Http1(_, _, owner) = &mut self.transport {
            *owner = Some(ConnectionOwner::Bound(bound));
        }
    }

    /// Has the connection serve no other request.
    pub fn forsake(&mut self) {
        match &mut self.transport {
            EndpointTransport::Http1(wire, ..) => wire.forsake(),
            // Its connection has other requests.
            EndpointTransport::Http2(..) => {}
        }
    }

    /// Ends the exchange; what carried it is kept for others if all of it was sent and read.
    pub fn finish(self, core: &Rc<Core<N>>, endpoint: &Rc<Endpoint<N>>) {
        match self.transport {
            EndpointTransport::Http1(connection, permit, owner) => {
                if let Some(wire) = connection.finish() {
                    let held = LeasedConnection {
                        wire,
                        permit,
                        owner,
                    };
                    endpoint.check_in(held, core.net.now());
                }
            }
            EndpointTransport::Http2(stream, _reservation) => stream.finish(),
        }
    }
}

impl<N: Net> TunnelEnd<N> for EndpointSide<N> {
    #[inline]
    fn carrier(&self) -> Carrier<'_, N> {
        match &self.transport {
            EndpointTransport::Http1(connection, ..) => Carrier::Http1(&connection.wire),
            EndpointTransport::Http2(stream, _) => Carrier::Http2(stream.handle()),
        }
    }

    #[inline]
    fn carrier_mut(&mut self) -> CarrierMut<'_, N> {
        match &mut self.transport {
            EndpointTransport::Http1(connection, ..) => CarrierMut::Http1(&mut connection.wire),
            EndpointTransport::Http2(stream, _) => CarrierMut::Http2(stream.handle()),
        }
    }
}
