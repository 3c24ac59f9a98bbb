//! `http2`: what one HTTP/2 connection may ask of Weir.

use crate::decode::amounts::SizeText;
use crate::decode::kinds::Count;
use crate::decode::preset::preset;
use crate::decode::table::{frame, layer, table};

const KIB: u64 = 1024;
const STREAMS_MAX: u32 = 10_000;
/// RFC 9113 section 6.9.2: a peer may use this much before it has received SETTINGS.
const WINDOW_MIN: u64 = 65_535;
const WINDOW_MAX: u64 = 1 << 30;
const FRAMES_MAX: u32 = 1_000_000;

layer! {
    /// What one HTTP/2 connection, a client's or an endpoint's, may ask of Weir. `[limits]` bounds its heads.
    Http2, Http2Patch, "http2", "[http2]" {
        /// Concurrent requests on one connection. Raise it for clients that send many small requests over few
        /// connections.
        streams: u32 = "streams" as Count<1, STREAMS_MAX>,
            preset(100, "the least that RFC 9113 section 6.5.2 advises; HAProxy 100");
        /// Bytes that a peer may send on one stream before Weir has passed any on. It grows up to sixteenfold while the
        /// peer uses it up quickly. Raise it for fast uploads over long distances.
        stream_window: u64 = "stream_window" as SizeText<WINDOW_MIN, WINDOW_MAX>,
            preset(64 * KIB, "RFC 9113's own 65,535; grows with use");
        /// Bytes that a peer may send on all streams of a connection together before Weir has passed any on.
        connection_window: u64 = "connection_window" as SizeText<WINDOW_MIN, WINDOW_MAX>,
            preset(KIB * KIB, "sixteen streams' worth; hyper 1 MiB");
        /// Requests that a client cancels, or has Weir cancel, in ten seconds. Above this and the limits below, Weir
        /// closes the connection.
        resets: u32 = "resets" as Count<1, FRAMES_MAX>,
            preset(
                100,
                "as many as streams may be open; Envoy and Go reset the connection at like figures",
            );
        /// SETTINGS frames in ten seconds.
        settings: u32 = "settings" as Count<1, FRAMES_MAX>,
            preset(50, "a client changes them once or twice");
        /// PING frames in ten seconds, not counting those sent along with data.
        pings: u32 = "pings" as Count<1, FRAMES_MAX>,
            preset(100, "gRPC clients send one in ten seconds");
        /// DATA frames in ten seconds that neither carry data nor end a message.
        empty_data: u32 = "empty_data" as Count<1, FRAMES_MAX>,
            preset(100, "no client or endpoint needs one");
        /// CONTINUATION frames of one head.
        continuations: u32 = "continuations" as Count<1, FRAMES_MAX>,
            preset(20, "a head of 16 KiB needs none; Envoy limits their size alone");
    }
}
