//! What happened, as plain data. One event feeds the counters and the access log, so that they can never disagree.

use std::fmt;
use std::net::IpAddr;

use crate::fault::Reason;
use crate::plan::{ListenerId, RouteId, UpstreamId};
use crate::tls::TlsParameters;

/// One exchange that is over, however it ended. Borrowed from the exchange; reporting it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeEvent<'a> {
    /// When its head was complete: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Its id, as sent upstream and to the client, unless it was given another.
    pub id: RequestId,
    /// The id that a trusted proxy has given it; empty if none has.
    pub given_id: &'a [u8],
    /// The client's address, with trusted proxies looked through; `None` behind a Unix socket.
    pub client: Option<IpAddr>,
    /// The method as received; empty when the head was not understood.
    pub method: &'a [u8],
    /// The host without a port; empty when unknown.
    pub host: &'a [u8],
    /// The path as received; empty when unknown.
    pub path: &'a [u8],
    /// The query as received, without its question mark; `None` when the target has none.
    pub query: Option<&'a [u8]>,
    /// The client's protocol: `HTTP/1.1`. At most 8 bytes are kept.
    pub version: &'static str,
    /// What was agreed on in the client's TLS handshake; `None` in the clear.
    pub tls: Option<TlsParameters>,
    /// The name that the client asked for in the handshake; empty when it named none.
    pub sni: &'a [u8],
    /// The subject of the client's certificate; empty when it has shown none.
    pub client_cert: &'a [u8],
    /// The field User-Agent; empty when there is none.
    pub user_agent: &'a [u8],
    /// The field Referer; empty when there is none.
    pub referer: &'a [u8],
    /// The fields that the plan wants logged, as [`fields::put`](super::fields::put) writes them.
    pub fields: &'a [u8],
    /// The status that the client got; 0 when it got none.
    pub status: u16,
    /// How a call of gRPC has ended; `None` for other requests.
    pub grpc_status: Option<u32>,
    /// Bytes of request body taken from the client.
    pub bytes_in: u64,
    /// Bytes of response body given to the client.
    pub bytes_out: u64,
    /// Where it came in.
    pub listener: ListenerId,
    /// The route that took it, if any.
    pub route: Option<RouteId>,
    /// The upstream it was sent to, if any.
    pub upstream: Option<UpstreamId>,
    /// The endpoint of the last attempt, an index in the upstream's list.
    pub endpoint: Option<u32>,
    /// How often it was tried; 0 when Weir answered by itself.
    pub attempts: u32,
    /// From the complete head to the last byte of the answer, microseconds.
    pub total_us: u64,
    /// Waiting for a connection that the upstream's limit allows, microseconds.
    pub queue_us: u64,
    /// Connecting; 0 on a reused connection, microseconds.
    pub connect_us: u64,
    /// From sending the request's head to the first byte of the answer, microseconds.
    pub first_byte_us: u64,
    /// What the system said of the connection to the endpoint that could not be made last; 0 if nothing.
    pub errno: u16,
    /// Why Weir answered by itself or broke the exchange off.
    pub reason: Option<Reason>,
}

impl ExchangeEvent<'_> {
    /// Its id as text.
    pub fn id_text<'a>(&'a self, digits: &'a mut [u8; 32]) -> &'a [u8] {
        self.id.text(self.given_id, digits)
    }

    /// The class of status that it counts in: 0 for none, 1 to 5 for the hundreds. An answer of gRPC is a 200 whatever
    /// has become of the call, so that a call counts by the status that HTTP has for its end.
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

/// Classes of status: index 0 is "no answer", 1 to 5 the hundreds.
pub(super) const CLASSES: usize = 6;

/// Places of a count by gRPC status.
pub(super) const GRPC_STATUSES: usize = HTTP_OF_GRPC.len();

/// The place of a gRPC status: clients take a number that the protocol does not have for `UNKNOWN`.
pub(super) fn grpc_place(status: u32) -> usize {
    let place = status as usize;
    if place < GRPC_STATUSES { place } else { 2 }
}

/// The status of HTTP for each of gRPC, as `google/rpc/code.proto` has them.
const HTTP_OF_GRPC: [u16; 17] = [
    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

/// The id of an exchange: 128 bits, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64, pub u64);

impl RequestId {
    /// The id as text: its digits, unless the request was given another.
    pub fn text<'a>(self, given: &'a [u8], digits: &'a mut [u8; 32]) -> &'a [u8] {
        if given.is_empty() {
            self.write_hex(digits);
            digits
        } else {
            given
        }
    }

    /// Writes the 32 hex digits.
    pub fn write_hex(self, out: &mut [u8; 32]) {
        let (words, _) = out.as_chunks_mut::<8>();
        let halves = [self.0 >> 32, self.0, self.1 >> 32, self.1];
        for (word, half) in words.iter_mut().zip(halves) {
            *word = hex_digits(half as u32);
        }
    }
}

/// The digits of a number, all in one word: each of its bytes becomes two.
#[inline]
fn hex_digits(number: u32) -> [u8; 8] {
    const LOW: u64 = u64::from_le_bytes([1; 8]);
    // The first digit comes from the highest bits and stands in the lowest.
    let mut bytes = u64::from(number.swap_bytes());
    bytes = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
    bytes = (bytes | bytes << 8) & 0x00ff_00ff_00ff_00ff;
    let values = (bytes >> 4 & 0x000f_000f_000f_000f) | (bytes & 0x000f_000f_000f_000f) << 8;
    let are_letters = (values + LOW * 6) >> 4 & LOW;
    let beyond_digits = u64::from(b'a' - 10 - b'0');
    (values + LOW * u64::from(b'0') + are_letters * beyond_digits).to_le_bytes()
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

/// What has happened on a client's connection of HTTP/2 since it was last told.
#[derive(Clone, Debug, Default)]
pub struct Http2Tally {
    /// Requests that have come.
    pub requests: u32,
    /// Streams that the client has reset.
    pub resets: u32,
    /// GOAWAY that have come.
    pub goaways: u32,
    /// Why streams were reset for what the client did on them.
    pub failed: Vec<weir_proto_h2::Error>,
}

impl Http2Tally {
    /// Whether there is nothing to be told.
    pub fn is_empty(&self) -> bool {
        (self.requests | self.resets | self.goaways) == 0 && self.failed.is_empty()
    }
}
