//! The records that a core puts into its ring for the log thread: a length, a kind, fixed fields and then the texts.
//!
//! This file writes and reads them. Records never leave the process.

use std::net::{IpAddr, Ipv6Addr};

use super::event::ExchangeEvent;
use super::limits::{
    CUT_MARK, LOG_AGENT_BYTES_MAX, LOG_HOST_BYTES_MAX, LOG_METHOD_BYTES_MAX, LOG_PATH_BYTES_MAX,
    LOG_REFERER_BYTES_MAX, LOG_SUBJECT_BYTES_MAX,
};
use super::process::LogLevel;
use crate::fault::Reason;
use crate::ids::RequestId;
use crate::limits::REQUEST_ID_BYTES_MAX;
use crate::plan::{ListenerId, RouteId, UpstreamId};
use crate::policy::PolicyKind;
use crate::shared::count_own_write;
use crate::tls::{AlpnProtocol, TlsParameters};

/// A record, as the log thread reads it.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it lives for one turn, on the stack"
)]
pub(super) enum LogRecord<'a> {
    /// An exchange, with the epoch of its plan's endpoint sets.
    Exchange(u64, ExchangeEvent<'a>),
    Message(LogLevel, &'a [u8]),
}

/// Writes an exchange to the ring. Returns false if the ring has no room for all of it.
pub(super) fn write(ring: &mut rtrb::Producer<u8>, epoch: u64, event: &ExchangeEvent<'_>) -> bool {
    let texts = [
        cut(event.given_id, REQUEST_ID_BYTES_MAX),
        cut(event.method, LOG_METHOD_BYTES_MAX),
        cut(event.host, LOG_HOST_BYTES_MAX),
        cut(event.path, LOG_PATH_BYTES_MAX),
        cut(event.query.unwrap_or_default(), LOG_PATH_BYTES_MAX),
        cut(event.sni, LOG_HOST_BYTES_MAX),
        cut(event.client_cert, LOG_SUBJECT_BYTES_MAX),
        cut(event.subject, LOG_SUBJECT_BYTES_MAX),
        cut(event.user_agent, LOG_AGENT_BYTES_MAX),
        cut(event.referer, LOG_REFERER_BYTES_MAX),
        // Each field is short enough on its own.
        (event.fields, &b""[..]),
    ];
    let text_bytes = |(text, mark): &(&[u8], &[u8])| text.len() + mark.len();
    let total = FIXED_BYTES + texts.iter().map(text_bytes).sum::<usize>();
    if ring.cached_slots() < total && ring.slots() < total {
        return false;
    }
    let mut head = RecordWriter::new();
    head.u32(total as u32);
    head.put(&[KIND_EXCHANGE]);
    head.u64(epoch);
    head.u64(event.time_ms);
    head.u64(event.id.0);
    head.u64(event.id.1);
    let (tag, octets) = match event.client {
        None => (0, [0; 16]),
        Some(IpAddr::V4(v4)) => (4, v4.to_ipv6_mapped().octets()),
        Some(IpAddr::V6(v6)) => (6, v6.octets()),
    };
    head.put(&[tag]);
    head.put(&octets);
    head.put(&[VERSIONS
        .iter()
        .position(|v| *v == event.version)
        .unwrap_or(0) as u8]);
    let (sort, suite) = event.tls.map_or((0, 0), |tls| {
        let sort = 1 | u8::from(tls.is_13) << 1 | u8::from(tls.is_resumed) << 2;
        (
            sort | u8::from(tls.protocol == AlpnProtocol::Http2) << 3,
            tls.suite,
        )
    });
    head.put(&[sort | u8::from(event.query.is_some()) << 4]);
    head.put(&suite.to_le_bytes());
    head.put(&event.status.to_le_bytes());
    head.u32(event.grpc_status.unwrap_or(NO_ID));
    head.put(&event.errno.to_le_bytes());
    head.put(&[event.reason.map_or(NO_REASON, |reason| reason as u8)]);
    for policy in [event.policy, event.would_refuse] {
        head.put(&[policy.map_or(NO_POLICY, |policy| policy as u8)]);
    }
    head.u32(event.listener.0);
    head.u32(event.route.map_or(NO_ID, |id| id.0));
    head.u32(event.upstream.map_or(NO_ID, |id| id.0));
    head.u32(event.endpoint.unwrap_or(NO_ID));
    head.u32(event.attempts);
    for n in [
        event.bytes_in,
        event.bytes_out,
        event.total_us,
        event.queue_us,
        event.connect_us,
        event.first_byte_us,
    ] {
        head.u64(n);
    }
    for text in &texts {
        head.put(&(text_bytes(text) as u16).to_le_bytes());
    }
    debug_assert_eq!(head.at, FIXED_BYTES);
    let texts = texts.into_iter().flat_map(|(text, mark)| [text, mark]);
    push(ring, [&head.bytes[..]].into_iter().chain(texts))
}

/// Writes a line for the process log to the ring. Returns false if the ring has no room for it.
pub(super) fn write_message(ring: &mut rtrb::Producer<u8>, level: LogLevel, text: &str) -> bool {
    let (text, mark) = cut(text.as_bytes(), LOG_PATH_BYTES_MAX);
    let total = MESSAGE_BYTES + text.len() + mark.len();
    if ring.slots() < total {
        return false;
    }
    let mut head = [0; MESSAGE_BYTES];
    head[..4].copy_from_slice(&(total as u32).to_le_bytes());
    head[4] = KIND_MESSAGE;
    head[5] = level as u8;
    push(ring, [&head[..], text, mark].into_iter())
}

/// Moves at most `max` bytes from the ring to `out`. Returns false if the ring is empty. The core writes a record in
/// parts, so the last record may be incomplete; its start stays in `out`.
pub(super) fn drain(ring: &mut rtrb::Consumer<u8>, out: &mut Vec<u8>, max: usize) -> bool {
    let n = ring.slots().min(max);
    let Ok(chunk) = ring.read_chunk(n) else {
        return false;
    };
    let (first, second) = chunk.as_slices();
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    chunk.commit_all();
    n > 0
}

/// Takes the next complete record off `bytes`.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Option<LogRecord<'a>> {
    let total = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let record = bytes.get(4..total)?;
    *bytes = bytes.get(total..)?;
    read(record)
}

fn read(record: &[u8]) -> Option<LogRecord<'_>> {
    let mut rest = RecordReader(record);
    if rest.u8()? == KIND_MESSAGE {
        return Some(LogRecord::Message(LogLevel::from_u8(rest.u8()?), rest.0));
    }
    let epoch = rest.u64()?;
    let time_ms = rest.u64()?;
    let id = RequestId(rest.u64()?, rest.u64()?);
    let tag = rest.u8()?;
    let v6 = Ipv6Addr::from(rest.array::<16>()?);
    let client = match tag {
        0 => None,
        4 => v6.to_ipv4_mapped().map(IpAddr::V4),
        _ => Some(IpAddr::V6(v6)),
    };
    let version = VERSIONS.get(usize::from(rest.u8()?)).copied().unwrap_or("");
    let (sort, suite) = (rest.u8()?, rest.u16()?);
    let tls = (sort & 1 != 0).then_some(TlsParameters {
        is_13: sort & 2 != 0,
        is_resumed: sort & 4 != 0,
        protocol: if sort & 8 != 0 {
            AlpnProtocol::Http2
        } else {
            AlpnProtocol::Http1
        },
        suite,
    });
    let status = rest.u16()?;
    let grpc_status = rest.id()?;
    let errno = rest.u16()?;
    let reason = Reason::ALL.get(usize::from(rest.u8()?)).copied();
    let policy = PolicyKind::ALL.get(usize::from(rest.u8()?)).copied();
    let would_refuse = PolicyKind::ALL.get(usize::from(rest.u8()?)).copied();
    let listener = ListenerId(rest.u32()?);
    let route = rest.id()?.map(RouteId);
    let upstream = rest.id()?.map(UpstreamId);
    let endpoint = rest.id()?;
    let attempts = rest.u32()?;
    let [bytes_in, bytes_out, total_us] = [rest.u64()?, rest.u64()?, rest.u64()?];
    let [queue_us, connect_us, first_byte_us] = [rest.u64()?, rest.u64()?, rest.u64()?];
    let mut lengths = [0; TEXTS];
    for length in &mut lengths {
        *length = usize::from(rest.u16()?);
    }
    let mut texts: [&[u8]; TEXTS] = [b""; TEXTS];
    for (text, length) in texts.iter_mut().zip(lengths) {
        *text = rest.take(length)?;
    }
    let [
        given_id,
        method,
        host,
        path,
        query,
        sni,
        client_cert,
        subject,
        user_agent,
        referer,
        fields,
    ] = texts;
    let event = ExchangeEvent {
        time_ms,
        id,
        given_id,
        client,
        method,
        host,
        path,
        query: (sort & 16 != 0).then_some(query),
        version,
        tls,
        sni,
        client_cert,
        subject,
        user_agent,
        referer,
        fields,
        status,
        grpc_status,
        bytes_in,
        bytes_out,
        listener,
        route,
        upstream,
        endpoint,
        attempts,
        total_us,
        queue_us,
        connect_us,
        first_byte_us,
        errno,
        reason,
        policy,
        would_refuse,
    };
    Some(LogRecord::Exchange(epoch, event))
}

const KIND_EXCHANGE: u8 = 0;
const KIND_MESSAGE: u8 = 1;
const NO_REASON: u8 = u8::MAX;
const NO_POLICY: u8 = u8::MAX;
const NO_ID: u32 = u32::MAX;
const MESSAGE_BYTES: usize = 6;
/// How many texts a record has.
const TEXTS: usize = 11;
const FIXED_BYTES: usize = 2 + 4 + 1 + 4 * 8 + 17 + 1 + 3 + 2 + 3 + 6 * 4 + 6 * 8 + TEXTS * 2;

/// The protocol names that a record can hold; the first stands for all others.
const VERSIONS: [&str; 7] = ["", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3", "TCP", "UDP"];

const _: () = assert!(Reason::ALL.len() < NO_REASON as usize);
const _: () = assert!(PolicyKind::ALL.len() < NO_POLICY as usize);

/// The start of a text, and a mark if it was cut.
#[inline]
fn cut(text: &[u8], max: usize) -> (&[u8], &'static [u8]) {
    match text.get(..max) {
        Some(start) if text.len() > max => (start, CUT_MARK),
        _ => (text, b""),
    }
}

fn push<'a>(ring: &mut rtrb::Producer<u8>, mut parts: impl Iterator<Item = &'a [u8]>) -> bool {
    parts.all(|part| {
        if part.is_empty() {
            return true;
        }
        count_own_write();
        ring.push_entire_slice(part).is_ok()
    })
}

/// Writes the fixed part of a record.
struct RecordWriter {
    bytes: [u8; FIXED_BYTES],
    at: usize,
}

impl RecordWriter {
    fn new() -> Self {
        Self {
            bytes: [0; FIXED_BYTES],
            at: 0,
        }
    }

    #[inline]
    fn put(&mut self, part: &[u8]) {
        let end = self.at + part.len();
        self.bytes[self.at..end].copy_from_slice(part);
        self.at = end;
    }

    #[inline]
    fn u32(&mut self, n: u32) {
        self.put(&n.to_le_bytes());
    }

    #[inline]
    fn u64(&mut self, n: u64) {
        self.put(&n.to_le_bytes());
    }
}

/// Reads a record.
struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Option<Option<u32>> {
        self.u32().map(|id| (id != NO_ID).then_some(id))
    }
}
