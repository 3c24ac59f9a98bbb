//! What a connection says to its caller.

use core::ops::Range;

use weir_proto_h1::{BodyKind, Request};

use crate::code::ErrorCode;
use crate::error::Error;
use crate::stream::StreamKey;

/// One step: what happened, and how much of the input it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the front of the input that are done with. The next call starts behind them.
    pub consumed: usize,
    /// What happened.
    pub event: Event,
}

/// What a connection found in its input.
///
/// For each stream: a head ([`Event::Request`], or any number of [`Event::Interim`] and then
/// [`Event::Response`]), any number of [`Event::Data`], and an end: `is_end` in one of these,
/// [`Event::Trailers`] or [`Event::End`]. [`Event::Reset`] or [`Event::Failed`] may come instead
/// of any of them; the stream is gone then, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All input is taken; call again when more has come.
    NeedMore,
    /// A frame was dealt with that the caller need not know of. It is said so that the caller can
    /// count what it does for the peer: a block of input may hold thousands of them.
    Handled,
    /// A request: its head is in the caller's `head`, over `text`. Servers only.
    Request {
        /// The new stream.
        stream: StreamKey,
        /// What it means. [`Request::upgrade`] is where `text` has the `:protocol` of an extended
        /// CONNECT; [`BodyKind::Chunked`] is a body of unknown length; `keeps_alive` is always true.
        request: Request,
        /// The request has no body and no trailers.
        is_end: bool,
    },
    /// A request that nothing is wrong with but that it asks too much: it is to be answered with
    /// [`Error::status`]. What was understood of its head is in `head`. Servers only.
    Refused {
        /// The new stream.
        stream: StreamKey,
        /// Why.
        error: Error,
        /// The request is complete.
        is_end: bool,
    },
    /// The head of an interim answer (1xx) is in `head`; the final one is still to come. Clients
    /// only.
    Interim {
        /// The stream.
        stream: StreamKey,
    },
    /// The head of the final answer is in `head`. Clients only.
    Response {
        /// The stream.
        stream: StreamKey,
        /// How long the body is; [`BodyKind::Chunked`] is unknown.
        body: BodyKind,
        /// The answer has no body and no trailers.
        is_end: bool,
    },
    /// The bytes of this range of the input are data of a stream. To be given back with
    /// [`Connection::consume`](crate::Connection::consume).
    Data {
        /// The stream.
        stream: StreamKey,
        /// Where the data is: never empty.
        range: Range<usize>,
        /// The message ends here.
        is_end: bool,
    },
    /// The message has ended with trailers: they are the fields of `head`, and
    /// [`Trailers::fill`](weir_proto_h1::Trailers::fill) takes them.
    Trailers {
        /// The stream.
        stream: StreamKey,
    },
    /// The message has ended.
    End {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer has reset a stream, or, as a server that goes away, will not answer it.
    Reset {
        /// The stream, which is gone.
        stream: StreamKey,
        /// What the peer said.
        code: ErrorCode,
        /// The peer says that it has done nothing with it: any request may be repeated.
        is_unprocessed: bool,
    },
    /// We have reset a stream for what the peer sent on it. It need not have been announced before:
    /// a malformed request, or one too many, is only heard of here.
    Failed {
        /// The stream, which is gone.
        stream: StreamKey,
        /// Why.
        error: Error,
    },
    /// Data that had no room may have some now: it needs both windows.
    WindowOpened {
        /// The stream whose window has opened; `None` is the connection's, which all share.
        stream: Option<StreamKey>,
    },
    /// A client has changed how urgent an answer is.
    Prioritized {
        /// The stream.
        stream: StreamKey,
    },
    /// The peer opens no more streams, and takes none after the last: those are reported by
    /// [`Event::Reset`], each by itself.
    GoAway {
        /// The last stream that the peer may have done something with.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// A [`Connection::ping`](crate::Connection::ping) was answered.
    PingAck {
        /// What it carried.
        payload: [u8; 8],
    },
    /// The peer's settings have changed: more streams may be open, more data may have room.
    SettingsChanged,
    /// The peer has taken our settings.
    SettingsAcked,
}
