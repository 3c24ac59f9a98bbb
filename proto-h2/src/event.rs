//! What a connection reports to its caller.

use core::ops::Range;

use weir_proto_h1::{BodyKind, Request};

use crate::code::ErrorCode;
use crate::error::Error;
use crate::stream::StreamKey;

/// One step: what happened, and how much input it consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Consumed bytes at the front of the input. The next call starts after them.
    pub consumed: usize,
    /// What happened.
    pub event: Event,
}

/// What a connection found in its input.
///
/// A stream has a head ([`Event::Request`], or any number of [`Event::Interim`] and then
/// [`Event::Response`]), any number of [`Event::Data`], and an end: `is_end` in one of these,
/// [`Event::Trailers`] or [`Event::End`]. [`Event::Reset`] or [`Event::Failed`] may replace any of
/// them, after which the stream is gone in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All input is consumed. Call again with more.
    NeedMore,
    /// The connection has handled a frame that does not concern the caller. The event lets the
    /// caller limit its work for a peer, because a block of input may contain thousands of frames.
    Handled,
    /// A request. Its head is in the caller's `head`, over `text`. Servers only.
    Request {
        /// The new stream.
        stream: StreamKey,
        /// What the request asks for. [`Request::upgrade`] is the span in `text` of the `:protocol`
        /// of an extended CONNECT. [`BodyKind::Chunked`] is a body of unknown length. `keeps_alive`
        /// is always true.
        request: Request,
        /// The request has no body and no trailers.
        is_end: bool,
    },
    /// A valid request beyond a limit. The caller responds with [`Error::status`]. `head` holds the
    /// part of the head that was decoded. Servers only.
    Refused {
        /// The new stream.
        stream: StreamKey,
        /// Why.
        error: Error,
        /// The request is complete.
        is_end: bool,
    },
    /// The head of an interim response (1xx) is in `head`. The final response follows. Clients
    /// only.
    Interim {
        /// The stream.
        stream: StreamKey,
    },
    /// The head of the final response is in `head`. Clients only.
    Response {
        /// The stream.
        stream: StreamKey,
        /// How long the body is. [`BodyKind::Chunked`] is an unknown length.
        body: BodyKind,
        /// The response has no body and no trailers.
        is_end: bool,
    },
    /// These bytes of the input are data of a stream. The caller returns them with
    /// [`Connection::consume`](crate::Connection::consume).
    Data {
        /// The stream.
        stream: StreamKey,
        /// Where the data is. Never empty.
        range: Range<usize>,
        /// The message ends with this data.
        is_end: bool,
    },
    /// Trailers have ended the message. They are the fields of `head`, for
    /// [`Trailers::fill`](weir_proto_h1::Trailers::fill).
    Trailers {
        /// The stream.
        stream: StreamKey,
    },
    /// The message has ended.
    End {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer has reset a stream, or goes away and will not respond to it.
    Reset {
        /// The stream, which is gone.
        stream: StreamKey,
        /// The peer's error code.
        code: ErrorCode,
        /// The peer has not processed the stream, so any request may be repeated.
        is_unprocessed: bool,
    },
    /// This side has reset a stream for an error of the peer. There may be no earlier event for the
    /// stream: a malformed or refused request is only reported here.
    Failed {
        /// The stream, which is gone.
        stream: StreamKey,
        /// Why.
        error: Error,
    },
    /// A window has opened, so waiting data may have room. It needs room in both windows.
    WindowOpened {
        /// The stream whose window has opened; `None` for the window of the connection.
        stream: Option<StreamKey>,
    },
    /// A client has changed the priority of a response.
    Prioritized {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer opens no more streams and processes none after `last_stream`. Each of those gets an
    /// [`Event::Reset`].
    GoAway {
        /// The last stream that the peer may have processed.
        last_stream: u32,
        /// The peer's error code.
        code: ErrorCode,
    },
    /// The peer has answered a [`Connection::ping`](crate::Connection::ping).
    PingAck {
        /// The payload of the PING.
        payload: [u8; 8],
    },
    /// The peer has changed its settings, so more streams or more data may be possible.
    SettingsChanged,
    /// The peer has acknowledged this side's SETTINGS.
    SettingsAcked,
}
