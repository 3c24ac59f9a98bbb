//! Limits and options of a connection, with units and sources.

/// Configuration of one connection. Input beyond a limit is an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Concurrent streams. A server announces the limit and refuses more. A client opens no more,
    /// even if the server allows it. Default 100, the least that RFC 9113, section 6.5.2,
    /// recommends.
    pub streams_max: u32,
    /// Unconsumed bytes that a peer may send on a stream. Default 64 KiB. At least 65,535, because
    /// a peer may send that many before it receives the SETTINGS.
    pub stream_window_bytes: u32,
    /// Bytes up to which the window of a stream grows if the caller consumes quickly. Default 1
    /// MiB.
    pub stream_window_bytes_max: u32,
    /// Unconsumed bytes that a peer may send on the connection. Default 1 MiB. A client counts
    /// received bytes as consumed, so that a stream holds back only its own sender.
    pub connection_window_bytes: u32,
    /// Bytes up to which the window of a connection grows, and by which the windows of all its
    /// streams may grow in total. Default 16 MiB.
    pub connection_window_bytes_max: u32,
    /// Bytes of a decoded field section, with 32 extra for each field (RFC 9113, section 6.5.2).
    /// Default 16 KiB, as for HTTP/1.1. Beyond: 431.
    pub list_bytes_max: u32,
    /// Fields of a section; all Cookie crumbs count as one. Default 100, as for HTTP/1.1. Beyond:
    /// 431.
    pub fields_max: u32,
    /// Bytes of `:path`. Default 8 KiB, as for HTTP/1.1. Beyond: 414.
    pub target_bytes_max: u32,
    /// Whether CONNECT may have a `:protocol` (RFC 8441). Servers announce it. Default false.
    pub extended_connect: bool,
    /// Whether `:scheme` is `https`, for clients over TLS. Default false.
    pub is_https: bool,
    /// Limits on frames that cost more than they achieve.
    pub floods: FloodLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_bytes: 64 * 1024,
            stream_window_bytes_max: 1024 * 1024,
            connection_window_bytes: 1024 * 1024,
            connection_window_bytes_max: 16 * 1024 * 1024,
            list_bytes_max: 16 * 1024,
            fields_max: 100,
            target_bytes_max: 8 * 1024,
            extended_connect: false,
            is_https: false,
            floods: FloodLimits::default(),
        }
    }
}

/// How often a peer may send frames that cost more than they achieve. Beyond a limit the connection
/// ends with ENHANCE_YOUR_CALM.
///
/// Each limit applies to a period of [`FLOOD_WINDOW_MS`] unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Streams that end early: reset by the peer before the response ("rapid reset",
    /// CVE-2023-44487), or reset by this side for an error of the peer ("MadeYouReset",
    /// CVE-2025-8671), including refused streams and frames for closed ones. One more is allowed
    /// for every eight whole responses, because a proxy passes on the cancellations of all its
    /// clients. Default 100.
    pub resets_max: u32,
    /// SETTINGS frames (CVE-2019-9515). Default 50.
    pub settings_max: u32,
    /// PING frames beyond one for each DATA frame sent to the peer (CVE-2019-9512). Default 100.
    pub pings_max: u32,
    /// PRIORITY and PRIORITY_UPDATE frames beyond ten for each new stream (CVE-2019-9513). Default
    /// 200.
    pub priorities_max: u32,
    /// WINDOW_UPDATE frames beyond four for each new stream and each DATA frame sent to the peer.
    /// DATA frames that a window cut to less than [`TINY_DATA_BYTES`] do not count (CVE-2019-9511).
    /// Default 1,000.
    pub window_updates_max: u32,
    /// DATA frames without data or END_STREAM, beyond one for each new stream (CVE-2019-9518).
    /// Default 100.
    pub empty_data_max: u32,
    /// Unconsumed DATA frames under [`TINY_DATA_BYTES`] at any time. Default 32,768. The windows
    /// bound the bytes; this bounds the frames.
    pub tiny_data_max: u32,
    /// Frames of unknown types beyond one for each new stream. Default 100.
    pub unknown_max: u32,
    /// Frames without effect, beyond one for each new stream: RST_STREAM for streams that are gone,
    /// PING acknowledgements, GOAWAY. Default 100.
    pub idle_max: u32,
    /// CONTINUATION frames of one field block (CVE-2024-27316 and others). Default 20.
    pub continuations_max: u32,
    /// Bytes of one encoded field block, in all its frames. Default 64 KiB: four times the decoded
    /// list, as in the `h2` crate. A list that is too large ends only its stream if the block fits.
    pub block_bytes_max: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            resets_max: 100,
            settings_max: 50,
            pings_max: 100,
            priorities_max: 200,
            window_updates_max: 1_000,
            empty_data_max: 100,
            tiny_data_max: 32_768,
            unknown_max: 100,
            idle_max: 100,
            continuations_max: 20,
            block_bytes_max: 64 * 1024,
        }
    }
}

/// The period over which floods are counted, in milliseconds.
pub const FLOOD_WINDOW_MS: u64 = 10_000;

/// A DATA frame with fewer bytes of data is tiny.
pub const TINY_DATA_BYTES: u32 = 64;

/// Bytes of payload that a frame may have, in both directions. RFC 9113, section 6.5.2, requires at
/// least this, and most peers announce it. Larger frames would delay other streams.
pub const FRAME_BYTES_MAX: u32 = 16_384;

/// Bytes of queued responses to control frames. A peer that makes the queue grow further does not
/// read the responses.
pub(crate) const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// A window that is consumed within this time grows. If the round trip takes half of it or longer,
/// the window limits the sender.
pub(crate) const WINDOW_QUICK_MS: u64 = 100;

/// Interim responses to one request, as for HTTP/1.1.
pub(crate) const INTERIM_MAX: u32 = weir_proto_h1::limits::INTERIM_MAX;

/// The number of recently reset streams that a connection remembers, in addition to the limit of
/// open streams. Frames for them may still arrive and are ignored. The addition covers streams that
/// the peer has reset at the same time and no longer counts.
pub(crate) const RESETS_REMEMBERED: usize = 128;

/// Streams that a client may open before the server's SETTINGS arrive.
pub(crate) const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// The initial window before any SETTINGS (RFC 9113, section 6.9.2).
pub(crate) const WINDOW_BYTES: u32 = 65_535;

/// The largest window (RFC 9113, section 6.9.1), and the largest stream identifier.
pub(crate) const MAX_31_BITS: u32 = (1 << 31) - 1;
