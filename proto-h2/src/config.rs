//! What a connection is set up with: limits with their units and sources.

/// Settings of one connection. Beyond each limit is an [`Error`](crate::Error), never more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Streams open at a time. A server announces it and refuses more; a client opens no more, be
    /// the server's own limit higher. Default 100, the least that RFC 9113, section 6.5.2, advises.
    pub streams_max: u32,
    /// Bytes that a peer may send on a stream before any of them was consumed. Default 64 KiB;
    /// less than 65,535 counts as that, since a peer may use so many before it knows better.
    pub stream_window_bytes: u32,
    /// Bytes up to which the window of a stream grows that is read quickly. Default 1 MiB.
    pub stream_window_bytes_max: u32,
    /// The same for the whole connection. Default 1 MiB. A client counts what has come as read: its
    /// streams hold back each its own sender, and none those of others.
    pub connection_window_bytes: u32,
    /// Bytes up to which the window of a connection grows, and by which the windows of all its
    /// streams may grow together. Default 16 MiB.
    pub connection_window_bytes_max: u32,
    /// Bytes of a field section, decoded, with 32 for each field (RFC 9113, section 6.5.2).
    /// Default 16 KiB, as for HTTP/1.1. Beyond: 431.
    pub list_bytes_max: u32,
    /// Fields of a section, all Cookie crumbs as one. Default 100, as for HTTP/1.1. Beyond: 431.
    pub fields_max: u32,
    /// Bytes of `:path`. Default 8 KiB, as for HTTP/1.1. Beyond: 414.
    pub target_bytes_max: u32,
    /// Takes CONNECT with a `:protocol` (RFC 8441). Servers announce it. Default no.
    pub extended_connect: bool,
    /// Says `https` in `:scheme`: for clients over TLS. Default no.
    pub is_https: bool,
    /// What wears the connection out.
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

/// How often a peer may do what costs more than it brings. Beyond any of them the connection ends
/// with ENHANCE_YOUR_CALM.
///
/// Counts are for [`FLOOD_WINDOW_MS`], but where something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Streams that end early: reset by the peer before they were answered ("rapid reset",
    /// CVE-2023-44487), or by us for what the peer did ("MadeYouReset", CVE-2025-8671), refused
    /// streams and frames for closed ones included. One more for every eight whole answers: a proxy
    /// passes on what all its clients give up. Default 100.
    pub resets_max: u32,
    /// SETTINGS frames (CVE-2019-9515). Default 50.
    pub settings_max: u32,
    /// PING frames beyond one for each DATA frame that was sent to the peer (CVE-2019-9512).
    /// Default 100.
    pub pings_max: u32,
    /// PRIORITY and PRIORITY_UPDATE frames beyond ten for each new stream (CVE-2019-9513).
    /// Default 200.
    pub priorities_max: u32,
    /// WINDOW_UPDATE frames beyond four for each new stream and each DATA frame that was sent to
    /// the peer, but for those that a window cut to less than [`TINY_DATA_BYTES`] (CVE-2019-9511).
    /// Default 1,000.
    pub window_updates_max: u32,
    /// DATA frames that neither carry nor end anything, beyond one for each new stream
    /// (CVE-2019-9518). Default 100.
    pub empty_data_max: u32,
    /// DATA frames under [`TINY_DATA_BYTES`] at a time that wait to be consumed. Default 32,768:
    /// the windows bound bytes, this bounds pieces.
    pub tiny_data_max: u32,
    /// Frames of unknown types beyond one for each new stream. Default 100.
    pub unknown_max: u32,
    /// Frames that say nothing, beyond one for each new stream: RST_STREAM for streams that are
    /// gone, answers to PING, GOAWAY. Default 100.
    pub idle_max: u32,
    /// CONTINUATION frames of one field block (CVE-2024-27316 and others). Default 20.
    pub continuations_max: u32,
    /// Bytes of one field block as it is sent, all its frames together. Default 64 KiB: four times
    /// the decoded list, as the `h2` crate has it. Up to here a block that is too large costs no
    /// more than its stream.
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

/// For how long what floods is counted, milliseconds.
pub const FLOOD_WINDOW_MS: u64 = 10_000;

/// Bytes of data under which a DATA frame is tiny.
pub const TINY_DATA_BYTES: u32 = 64;

/// Bytes of a frame's payload that are taken: the least that RFC 9113, section 6.5.2, allows, and
/// what everyone announces. We send no larger ones either, so that streams take turns.
pub const FRAME_BYTES_MAX: u32 = 16_384;

/// Bytes of our answers to control frames that wait to be sent: who makes us queue more does not
/// read what it provokes.
pub(crate) const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// A window that is consumed within so many milliseconds grows: over a path whose round trip takes
/// half of that, it would be the window that holds the sender back.
pub(crate) const WINDOW_QUICK_MS: u64 = 100;

/// Interim answers to one request, as for HTTP/1.1.
pub(crate) const INTERIM_MAX: u32 = weir_proto_h1::limits::INTERIM_MAX;

/// Streams that we have reset and of which frames may still be on their way are remembered, so that
/// these are passed over: as many as may be open, and this many more for those that the peer has
/// reset at the same time, which it no longer counts.
pub(crate) const RESETS_REMEMBERED: usize = 128;

/// Streams that a client opens while the server has not said how many it takes.
pub(crate) const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// The window of RFC 9113, section 6.9.2, before any SETTINGS.
pub(crate) const WINDOW_BYTES: u32 = 65_535;

/// The largest window (RFC 9113, section 6.9.1), and the largest stream identifier.
pub(crate) const MAX_31_BITS: u32 = (1 << 31) - 1;
