//! The upstream side of an exchange: one request to an endpoint and its answer, whatever protocol it speaks.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use weir_proto_h1::{BodyKind, Edits, Head, Limits, Request, Span, Trailers};
use weir_proto_h2::ErrorCode;

use super::tunnel::End;
use super::{http1, http2};
use crate::core::Core;
use crate::fault::Fault;
use crate::io::{Chunk, Net};
use crate::limits::QUEUED_BYTES_HIGH;
use crate::upstream::{Bound, Endpoint, Held};

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

/// A request at an endpoint, as the exchange sees it.
pub struct Up<N: Net> {
    /// The head of the answer, over [`Up::block`].
    pub head: Head,
    /// What the head lies in.
    pub block: Chunk,
    pub(super) wire: UpWire<N>,
}

/// What carries the request.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives in each exchange, where a box would be an allocation a request"
)]
pub(super) enum UpWire<N: Net> {
    Http1(http1::UpstreamConnection<N>),
    Http2(http2::Upstream<N>),
}

impl<N: Net> Up<N> {
    /// Takes a connection of HTTP/1.1 for one request.
    pub fn http1(core: &Core<N>, held: Held<N>, reused: bool, limits: Limits, head: Head) -> Self {
        Self {
            head,
            block: Chunk::default(),
            wire: UpWire::Http1(http1::UpstreamConnection::new(core, held, reused, limits)),
        }
    }

    /// Takes a place on a connection of HTTP/2.
    pub fn http2(mux: Rc<http2::Mux<N>>, reused: bool, head: Head) -> Self {
        Self {
            head,
            block: Chunk::default(),
            wire: UpWire::Http2(http2::Upstream::new(mux, reused)),
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
        match &mut self.wire {
            UpWire::Http1(wire) => wire.request(request, head, block, edits),
            UpWire::Http2(wire) => wire.request(request, head, block, edits),
        }
    }

    /// Sends a piece of the request's body.
    pub fn send_data(&mut self, data: Chunk) -> Result<(), Fault> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.send_data(data),
            UpWire::Http2(wire) => wire.send_data(data),
        }
    }

    /// Ends the request.
    pub fn send_end(&mut self, trailers: &Trailers) -> Result<(), Fault> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.send_end(trailers),
            UpWire::Http2(wire) => wire.send_end(trailers),
        }
    }

    /// Bytes of memory that the request takes: what has not left, and what has come and was not taken.
    pub fn held(&self) -> usize {
        match &self.wire {
            UpWire::Http1(_) => self.queued(),
            UpWire::Http2(wire) => wire.held(),
        }
    }

    /// Waits for the next part of the answer.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
    ) -> Poll<Result<Answer, Fault>> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.poll_answer(cx, core, &mut self.head, &mut self.block),
            UpWire::Http2(wire) => wire.poll_answer(cx, &mut self.head, &mut self.block),
        }
    }

    /// How the body of the answer is framed.
    pub fn body(&self) -> BodyKind {
        match &self.wire {
            UpWire::Http1(wire) => wire.body(),
            UpWire::Http2(wire) => wire.body(),
        }
    }

    /// Where the head of a 101 names the protocol.
    pub fn switched_to(&self) -> Option<Span> {
        match &self.wire {
            UpWire::Http1(wire) => wire.switched_to(),
            UpWire::Http2(_) => None,
        }
    }

    /// The trailers of an answer that has ended.
    pub fn trailers(&self) -> &Trailers {
        match &self.wire {
            UpWire::Http1(wire) => wire.trailers(),
            UpWire::Http2(wire) => wire.trailers(),
        }
    }

    /// A hint that the rest of the body is large.
    pub fn expect(&mut self, bytes: usize) {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.expect(bytes),
            UpWire::Http2(_) => {}
        }
    }

    /// Whether a loss may be no more than the end of an idle connection that crossed the request on its way.
    pub fn was_stale(&self) -> bool {
        match &self.wire {
            UpWire::Http1(wire) => wire.was_stale(),
            UpWire::Http2(wire) => wire.was_stale(),
        }
    }

    /// What the system said of a connection that broke; 0 if nothing.
    pub fn errno(&self) -> u16 {
        match &self.wire {
            UpWire::Http1(wire) => wire.errno(),
            UpWire::Http2(_) => 0,
        }
    }

    /// With which code the endpoint has reset the request, if that is how it ended.
    pub fn reset_by(&self) -> Option<ErrorCode> {
        match &self.wire {
            UpWire::Http1(_) => None,
            UpWire::Http2(wire) => wire.reset_by(),
        }
    }

    /// Whether the endpoint may say that it has not looked at the request: then any request may be sent again.
    pub fn may_refuse(&self) -> bool {
        matches!(self.wire, UpWire::Http2(_))
    }

    /// Whether the connection may be bound to its client's, and is not. One that requests share cannot be.
    pub fn is_unbound(&self) -> bool {
        match &self.wire {
            UpWire::Http1(wire) => wire.is_unbound(),
            UpWire::Http2(_) => false,
        }
    }

    /// Whether the endpoint asks in its answer for authentication that holds for the connection, or goes on with it.
    pub fn challenges_connection(&self) -> bool {
        match &self.wire {
            UpWire::Http1(wire) => wire.machine.response().challenges_connection,
            UpWire::Http2(_) => false,
        }
    }

    /// Has the connection serve its client alone from now on.
    pub fn bind(&mut self, bound: Rc<Bound>) {
        if let UpWire::Http1(wire) = &mut self.wire {
            wire.bind(bound);
        }
    }

    /// Has the connection serve no other request.
    pub fn forsake(&mut self) {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.forsake(),
            // Its connection has other requests.
            UpWire::Http2(_) => {}
        }
    }

    /// Ends the exchange; what carried it is kept for others if all of it was sent and read.
    pub fn finish(self, core: &Rc<Core<N>>, endpoint: &Rc<Endpoint<N>>) {
        match self.wire {
            UpWire::Http1(wire) => wire.finish(core, endpoint),
            UpWire::Http2(wire) => wire.finish(),
        }
    }
}

impl<N: Net> End for Up<N> {
    fn queued(&self) -> usize {
        match &self.wire {
            UpWire::Http1(wire) => wire.out.queued(),
            UpWire::Http2(wire) => wire.queued(),
        }
    }

    fn queued_high(&self) -> usize {
        match &self.wire {
            UpWire::Http1(_) => QUEUED_BYTES_HIGH,
            UpWire::Http2(wire) => wire.queued_high(),
        }
    }

    fn sent(&self) -> u64 {
        match &self.wire {
            UpWire::Http1(wire) => wire.out.sent(),
            UpWire::Http2(wire) => wire.sent(),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.out.poll_send(cx),
            UpWire::Http2(wire) => wire.poll_send(cx),
        }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.poll_raw(cx),
            UpWire::Http2(wire) => wire.poll_raw(cx),
        }
    }

    fn send_raw(&mut self, bytes: Chunk) {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.out.raw(bytes),
            UpWire::Http2(wire) => wire.send_raw(bytes),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.wire {
            UpWire::Http1(wire) => wire.out.tx.poll_finish(cx),
            UpWire::Http2(wire) => {
                wire.finish_raw();
                wire.poll_send(cx).map(|_| ())
            }
        }
    }
}
