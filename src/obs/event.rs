//! Events as plain data. One event feeds both the counters and the access log, so the two never disagree.

use std::net::IpAddr;

use crate::fault::Reason;
use crate::ids::RequestId;
use crate::plan::{ListenerId, RouteId, UpstreamId};
use crate::policy::PolicyKind;
use crate::tls::TlsParameters;

/// A completed exchange, however it ended. It borrows from the exchange, so reporting it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeEvent<'a> {
    /// When the request head was complete, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The request id sent upstream and to the client, unless a trusted proxy has given another.
    pub id: RequestId,
    /// The id that a trusted proxy has given; empty if none has.
    pub given_id: &'a [u8],
    /// The client's address as reported by trusted proxies, if any; `None` for a client on a Unix socket without one.
    pub client: Option<IpAddr>,
    /// The method as received; empty if the head was invalid.
    pub method: &'a [u8],
    /// The host without a port; empty if unknown.
    pub host: &'a [u8],
    /// The path as received; empty if unknown.
    pub path: &'a [u8],
    /// The query as received, without its question mark; `None` if the target has none.
    pub query: Option<&'a [u8]>,
    /// The client's protocol, such as `HTTP/1.1`; at most 8 bytes. `TCP` or `UDP` if Weir only passes bytes on.
    pub version: &'static str,
    /// The parameters of the client's TLS connection; `None` without TLS.
    pub tls: Option<TlsParameters>,
    /// The server name that the client requested by TLS; empty if it named none.
    pub sni: &'a [u8],
    /// The subject of the client's certificate; empty without one.
    pub client_cert: &'a [u8],
    /// The `sub` of the verified token; empty without one.
    pub subject: &'a [u8],
    /// The field User-Agent; empty without one.
    pub user_agent: &'a [u8],
    /// The field Referer; empty without one.
    pub referer: &'a [u8],
    /// The values of the configured fields, encoded by [`fields::put`](super::fields::put).
    pub fields: &'a [u8],
    /// The status sent to the client; 0 if none was.
    pub status: u16,
    /// The status of a gRPC call; `None` for other requests.
    pub grpc_status: Option<u32>,
    /// Bytes of the request body received from the client.
    pub bytes_in: u64,
    /// Bytes of the response body sent to the client.
    pub bytes_out: u64,
    /// The listener that accepted the connection.
    pub listener: ListenerId,
    /// The route that took the request, if any.
    pub route: Option<RouteId>,
    /// The upstream that got the request, if any.
    pub upstream: Option<UpstreamId>,
    /// The endpoint of the last attempt, as an index in the upstream's list.
    pub endpoint: Option<u32>,
    /// The number of attempts; 0 for a local answer.
    pub attempts: u32,
    /// From the complete head to the last byte of the answer, in microseconds.
    pub total_us: u64,
    /// Time spent waiting for a connection, in microseconds.
    pub queue_us: u64,
    /// Time spent connecting, in microseconds; 0 on a reused connection.
    pub connect_us: u64,
    /// From sending the request head to the first byte of the answer, in microseconds.
    pub first_byte_us: u64,
    /// The system error of the last connection that could not be opened or broke; 0 without one.
    pub errno: u16,
    /// Why Weir answered by itself or broke the exchange off.
    pub reason: Option<Reason>,
    /// The policy that answered, or that waited when the exchange failed.
    pub policy: Option<PolicyKind>,
    /// The policy that would have refused the request but for its `dry_run`.
    pub would_refuse: Option<PolicyKind>,
}

impl ExchangeEvent<'_> {
    /// The request id as text.
    pub fn id_text<'a>(&'a self, digits: &'a mut [u8; 32]) -> &'a [u8] {
        self.id.text(self.given_id, digits)
    }

    /// The status class to count in: 0 for none, 1 to 5 for the hundreds. A gRPC answer has status 200 however the call
    /// ended, so a call counts by the HTTP status that corresponds to its gRPC status.
    #[inline]
    pub fn class(&self) -> usize {
        let status = match (self.grpc_status, self.reason) {
            (Some(_), Some(reason)) if self.status == 200 => reason.status(),
            (Some(end), None) if self.status == 200 => HTTP_OF_GRPC[grpc_place(end)],
            _ => self.status,
        };
        let class = usize::from(status) / 100;
        if class < CLASSES { class } else { 0 }
    }
}

/// The number of status classes. Index 0 is "no answer", 1 to 5 are the hundreds.
pub(super) const CLASSES: usize = 6;

/// The number of gRPC statuses that are counted.
pub(super) const GRPC_STATUSES: usize = HTTP_OF_GRPC.len();

/// The index of a gRPC status. Like clients, this treats unknown numbers as `UNKNOWN`.
pub(super) fn grpc_place(status: u32) -> usize {
    let place = status as usize;
    if place < GRPC_STATUSES { place } else { 2 }
}

/// The HTTP status of each gRPC status, as `google/rpc/code.proto` maps them.
const HTTP_OF_GRPC: [u16; 17] = [
    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

/// The events on a client's HTTP/2 connection since the last report.
#[derive(Clone, Debug, Default)]
pub struct Http2Tally {
    /// Requests received.
    pub requests: u32,
    /// Streams that the client has reset.
    pub resets: u32,
    /// GOAWAY frames received.
    pub goaways: u32,
    /// The errors for which Weir has reset streams.
    pub failed: Vec<weir_proto_h2::Error>,
}

impl Http2Tally {
    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        (self.requests | self.resets | self.goaways) == 0 && self.failed.is_empty()
    }
}
