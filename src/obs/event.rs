//! What happened, as plain data. One event feeds the counters and the access log, so that they can never disagree.

use std::fmt;
use std::net::IpAddr;

use crate::fault::Reason;
use crate::plan::{ListenerId, RouteId, UpstreamId};
use crate::tls::Agreed;

/// One exchange that is over, however it ended. Borrowed from the exchange; reporting it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// When its head was complete: milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Its id, as sent upstream and in local answers.
    pub id: RequestId,
    /// The client's address, with trusted proxies looked through; `None` behind a Unix socket.
    pub client: Option<IpAddr>,
    /// The method as received; empty when the head was not understood.
    pub method: &'a [u8],
    /// The host without a port; empty when unknown.
    pub host: &'a [u8],
    /// Path and query as received; empty when unknown.
    pub path: &'a [u8],
    /// The client's protocol: `HTTP/1.1`. At most 8 bytes are kept.
    pub version: &'static str,
    /// What was agreed on in the client's TLS handshake; `None` in the clear.
    pub tls: Option<Agreed>,
    /// The subject of the client's certificate; empty when it has shown none.
    pub client_cert: &'a [u8],
    /// The status that the client got; 0 when it got none.
    pub status: u16,
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
    /// Why Weir answered by itself or broke the exchange off.
    pub reason: Option<Reason>,
}

/// The id of an exchange: 128 bits, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64, pub u64);

impl RequestId {
    /// Writes the 32 hex digits.
    pub fn write_hex(self, out: &mut [u8; 32]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = (u128::from(self.0) << 64) | u128::from(self.1);
        for (at, digit) in out.iter_mut().enumerate() {
            *digit = DIGITS[(bits >> (124 - 4 * at)) as usize & 15];
        }
    }
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
