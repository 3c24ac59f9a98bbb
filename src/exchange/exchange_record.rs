//! The data that an exchange collects for its event.

use std::time::Duration;

use weir_proto_h1::Span;

use super::grpc;
use crate::fault::Reason;
use crate::io::Instant;
use crate::obs::{ExchangeEvent, RequestId};
use crate::plan::{ListenerId, UpstreamId};
use crate::policy::PolicyKind;

/// The data that one exchange has collected so far.
pub(super) struct ExchangeRecord {
    /// Weir's id of the request.
    pub(super) id: RequestId,
    /// The id that a trusted proxy has given the request, in the block of the request's head; empty if none has. It
    /// replaces Weir's id.
    pub(super) given_id: Span,
    /// The wall clock when the head was complete, in milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    /// How many fields were dropped for their odd names.
    pub(super) fields_dropped: u32,
    /// When the head was complete.
    pub(super) began: Instant,
    /// The status that the client got; 0 if none.
    pub(super) status: u16,
    /// Bytes of the body from the client.
    pub(super) bytes_in: u64,
    /// Bytes of the body to the client.
    pub(super) bytes_out: u64,
    /// The upstream that got the request.
    pub(super) upstream: Option<UpstreamId>,
    /// The index of the endpoint that was tried last.
    pub(super) endpoint: Option<u32>,
    /// How many attempts were made.
    pub(super) attempts: u32,
    /// Time spent waiting for a free connection, over all attempts.
    pub(super) queue_time: Duration,
    /// Time spent connecting, over all attempts.
    pub(super) connect_time: Duration,
    /// Time from the end of the request to the head of the answer, in the last attempt.
    pub(super) first_byte_time: Duration,
    /// The system's error for the attempt that failed last; 0 if none.
    pub(super) errno: u16,
    /// The answer is the endpoint's. Its head is in the buffers.
    pub(super) is_relayed: bool,
    /// Why Weir answered with an error, or cut the answer short.
    pub(super) reason: Option<Reason>,
    /// The policy that answered, or that waited when the exchange failed.
    pub(super) policy: Option<PolicyKind>,
    /// The `grpc-status` of the answer, or the one in the trailers with which Weir ends a truncated answer.
    pub(super) grpc_status: Option<u32>,
}

impl ExchangeRecord {
    /// Begins the record of an exchange.
    pub(super) fn new(id: RequestId, began: Instant, time_ms: u64) -> Self {
        Self {
            id,
            given_id: Span::EMPTY,
            time_ms,
            fields_dropped: 0,
            began,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            endpoint: None,
            attempts: 0,
            queue_time: Duration::ZERO,
            connect_time: Duration::ZERO,
            first_byte_time: Duration::ZERO,
            errno: 0,
            is_relayed: false,
            reason: None,
            policy: None,
            grpc_status: None,
        }
    }

    /// The id as text: the given one in `block`, else Weir's, as digits.
    pub(super) fn id_text<'a>(&self, block: &'a [u8], digits: &'a mut [u8; 32]) -> &'a [u8] {
        self.id.text(self.given_id.get(block), digits)
    }

    /// The status with which a gRPC call ended.
    pub(super) fn grpc_outcome(&self) -> u32 {
        self.grpc_status
            .unwrap_or_else(|| grpc::implied_status(self.reason, self.status))
    }

    /// The event of an exchange that ends at `now`. The caller adds the data of the request and the facts.
    #[inline(always)] // The caller fills in the rest, and a call would copy the whole event.
    pub(super) fn event(&self, now: Instant, listener: ListenerId) -> ExchangeEvent<'static> {
        let microseconds = |time: Duration| time.as_micros() as u64;
        ExchangeEvent {
            time_ms: self.time_ms,
            id: self.id,
            given_id: b"",
            client: None,
            method: b"",
            host: b"",
            path: b"",
            query: None,
            version: "HTTP/1.1",
            tls: None,
            sni: b"",
            client_cert: b"",
            subject: b"",
            user_agent: b"",
            referer: b"",
            fields: b"",
            status: self.status,
            grpc_status: None,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            listener,
            route: None,
            upstream: self.upstream,
            endpoint: self.endpoint,
            attempts: self.attempts,
            total_us: microseconds(now.since(self.began)),
            queue_us: microseconds(self.queue_time),
            connect_us: microseconds(self.connect_time),
            first_byte_us: microseconds(self.first_byte_time),
            errno: self.errno,
            reason: self.reason,
            policy: self.policy,
            would_refuse: None,
        }
    }
}
