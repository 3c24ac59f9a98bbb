//! `http2`: what one connection of HTTP/2 may ask of Weir.

use crate::decode::amounts::SizeText;
use crate::decode::kinds::Count;
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, layer, table};
use crate::slice::limits::KIB;

/// Requests at once on one connection.
const H2_STREAMS: Preset<u32> = preset(
    100,
    "the least that RFC 9113 section 6.5.2 advises; HAProxy 100",
);

/// The most streams a file may allow.
const H2_STREAMS_MAX: u32 = 10_000;

/// Bytes on one stream.
const H2_STREAM_WINDOW: Preset<u64> = preset(64 * KIB, "RFC 9113's own 65,535; grows with use");

/// Bytes on one connection.
const H2_CONNECTION_WINDOW: Preset<u64> = preset(KIB * KIB, "sixteen streams' worth; hyper 1 MiB");

/// The smallest window a file may ask for: clients may use so much before they know better.
const H2_WINDOW_MIN: u64 = 65_535;

/// The largest window a file may ask for.
const H2_WINDOW_MAX: u64 = 1 << 30;

/// Requests given up in ten seconds.
const H2_RESETS: Preset<u32> = preset(
    100,
    "as many as streams may be open; Envoy and Go reset the connection at like figures",
);

/// SETTINGS frames in ten seconds.
const H2_SETTINGS: Preset<u32> = preset(50, "a client changes them once or twice");

/// PING frames in ten seconds.
const H2_PINGS: Preset<u32> = preset(100, "gRPC clients ask once in ten seconds");

/// Empty DATA frames in ten seconds.
const H2_EMPTY_DATA: Preset<u32> = preset(100, "no client needs one that ends nothing");

/// CONTINUATION frames of one head.
const H2_CONTINUATIONS: Preset<u32> = preset(
    20,
    "a head of 16 KiB needs none; Envoy has limits by size alone",
);

/// The most frames of a kind a file may allow.
const H2_FRAMES_MAX: u32 = 1_000_000;

layer! {
    /// HTTP/2: what one connection may ask of Weir, be it a client's or an endpoint's. Sizes of heads are those of `[limits]`.
    Http2, Http2Patch, "http2", "[http2]" {
        /// Requests at once on one connection.
        streams: u32 = "streams" as Count<1, H2_STREAMS_MAX>, H2_STREAMS;
        /// Bytes that may come on one stream before any was passed on; grows to sixteen times as much where it is used up quickly.
        stream_window: u64 = "stream_window" as SizeText<H2_WINDOW_MIN, H2_WINDOW_MAX>, H2_STREAM_WINDOW;
        /// The same for all streams of a connection.
        connection_window: u64 = "connection_window" as SizeText<H2_WINDOW_MIN, H2_WINDOW_MAX>, H2_CONNECTION_WINDOW;
        /// Requests that a client gives up, or makes Weir give up, in ten seconds.
        resets: u32 = "resets" as Count<1, H2_FRAMES_MAX>, H2_RESETS;
        /// SETTINGS frames in ten seconds.
        settings: u32 = "settings" as Count<1, H2_FRAMES_MAX>, H2_SETTINGS;
        /// PING frames in ten seconds, beyond those that go with data.
        pings: u32 = "pings" as Count<1, H2_FRAMES_MAX>, H2_PINGS;
        /// DATA frames without data in ten seconds.
        empty_data: u32 = "empty_data" as Count<1, H2_FRAMES_MAX>, H2_EMPTY_DATA;
        /// CONTINUATION frames of one head.
        continuations: u32 = "continuations" as Count<1, H2_FRAMES_MAX>, H2_CONTINUATIONS;
    }
}
