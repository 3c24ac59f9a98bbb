//! HTTP/2 without I/O, for both sides of a proxy: bytes in, events out.
//!
//! # What is here
//!
//! | module | owns |
//! |---|---|
//! | [`Connection`] | one connection and its streams, as server or as client |
//! | [`Event`] | what a connection reports to its caller |
//! | [`Framing`] | how to frame an outgoing message |
//! | [`config`] | limits on memory and work, flood limits included |
//! | [`hpack`] | field blocks: compression of names and values (RFC 7541) |
//! | [`Error`], [`ErrorCode`] | what went wrong, and the code that the peer gets |
//! | [`Priority`] | how urgent a response is (RFC 9218) |
//!
//! Heads are those of `weir-proto-h1`: spans over bytes that the caller holds. The encoder applies
//! `Edits` to them.
//!
//! # Contract
//!
//! The caller owns all buffers. The crate reads no clock, draws no random numbers, does no I/O, and
//! does not panic on input from the network. Once warm, a message allocates nothing. The crate
//! refuses ambiguous input with an [`Error`] and never repairs it. Memory is bounded: the crate
//! stores an incomplete field block or control frame until the rest arrives, and never stores data.
//!
//! # Call order
//!
//! The caller's tasks share one [`Connection`]: a task for the socket, and one for each stream. The
//! socket's task repeats:
//!
//! 1. [`Connection::receive`] with the bytes that have arrived, event by event, until
//!    [`Event::NeedMore`]. Heads and trailers lie in the caller's `head` and `text`, data in the
//!    input; the caller takes them before the next call. An `Err` ends the connection after step 2.
//! 2. [`Connection::take_output`]: also when a connection begins, and after streams have made steps.
//!
//! For a stream of a server, from [`Event::Request`] on:
//!
//! 1. [`Connection::consume`] for each piece of data that was passed on.
//! 2. [`Connection::send_interim`] for each 1xx, then [`Connection::respond`].
//! 3. While there is data: [`Connection::data_room`], then [`Connection::data_frame`] for at most that
//!    many bytes. Its nine bytes go before the data. If there is no room, wait for
//!    [`Event::WindowOpened`], [`Event::SettingsChanged`], or the end of the stream.
//! 4. Mark the last piece of data, or end the message with [`Connection::end`] or
//!    [`Connection::send_trailers`].
//! 5. [`Connection::release`] when the caller is done, in any state of the stream.
//!
//! For a stream of a client: [`Connection::open`] if [`Connection::can_open`], then steps 3 and 4
//! for the request while [`Event::Interim`], [`Event::Response`] and data arrive, then steps 1 and
//! 5.
//!
//! A stream is gone after [`Event::Reset`] and [`Event::Failed`], and when both sides have ended
//! it. Steps on it fail with [`Error::StreamGone`] or do nothing.
//!
//! [`Connection::shut_down`] ends a connection gracefully. The caller closes it when
//! [`Connection::is_finished`].
//!
//! ```
//! use weir_proto_h1::{BodyKind, Edits, FieldId, Head, Method, Span};
//! use weir_proto_h2::{Config, Connection, Error, Event, Framing};
//!
//! # fn main() -> Result<(), Error> {
//! let (mut client, mut server) = (
//!     Connection::client(Config::default()),
//!     Connection::server(Config::default()),
//! );
//! let (mut head, mut text, edits) = (Head::new(), Vec::new(), Edits::new());
//! let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
//!
//! // A request. A proxy usually has a parsed head; this one is made by hand.
//! let block = b"example.com/x";
//! let mut request = Head::new();
//! request.method = Method::Get;
//! request.authority = Span::new(0, 11);
//! request.path = Span::new(11, 13);
//! let key = client.open(&mut to_server, block, &request, &edits, &Framing::default())?;
//!
//! // The server receives it and responds.
//! let mut input = &to_server[..];
//! let stream = loop {
//!     let received = server.receive(input, 0, &mut head, &mut text)?;
//!     input = &input[received.consumed..];
//!     if let Event::Request { stream, request, is_end } = received.event {
//!         assert_eq!((request.body, is_end), (BodyKind::None, true));
//!         break stream;
//!     }
//! };
//! assert_eq!(head.authority.get(&text), b"example.com");
//! assert_eq!(head.path.get(&text), b"/x");
//! let framing = Framing { body: BodyKind::Length(2), ..Framing::default() };
//! server.respond(&mut to_client, stream, b"", &Head::with_status(200), &edits, &framing)?;
//! assert!(server.data_room(stream) >= 2);
//! to_client.extend_from_slice(&server.data_frame(stream, 2, true)?);
//! to_client.extend_from_slice(b"ok");
//! assert!(!server.is_open(stream));
//!
//! // The client receives the response.
//! let (mut at, mut body) = (0, Vec::new());
//! loop {
//!     let received = client.receive(&to_client[at..], 0, &mut head, &mut text)?;
//!     match received.event {
//!         Event::Response { stream, body, .. } => {
//!             assert_eq!((stream, head.status, body), (key, 200, BodyKind::Length(2)));
//!             assert_eq!(head.value(FieldId::ContentLength, &text), Some(&b"2"[..]));
//!         }
//!         Event::Data { stream, range, is_end } => {
//!             body.extend_from_slice(&to_client[at..][range.clone()]);
//!             client.consume(stream, range.len(), 0);
//!             assert!(is_end);
//!         }
//!         Event::NeedMore => break,
//!         _ => {} // SETTINGS and their acknowledgement.
//!     }
//!     at += received.consumed;
//! }
//! assert_eq!(body, b"ok");
//! # Ok(())
//! # }
//! ```
//!
//! # What an error ends
//!
//! | error | ends | the peer gets |
//! |---|---|---|
//! | a malformed message: pseudo-fields, fields, lengths, statuses (RFC 9113, section 8) | the stream | RST_STREAM PROTOCOL_ERROR; the caller gets [`Event::Failed`] |
//! | a request beyond a limit: section, fields, target, method, expectation | nothing | a response from the caller, which gets [`Event::Refused`] |
//! | a response or trailers beyond a limit | the stream | RST_STREAM PROTOCOL_ERROR |
//! | more streams than announced | the stream | RST_STREAM REFUSED_STREAM |
//! | HEADERS or DATA on a stream that their sender has ended | the stream | RST_STREAM STREAM_CLOSED |
//! | a stream's window exceeded, or too large | the stream | RST_STREAM FLOW_CONTROL_ERROR |
//! | the connection's window exceeded, or too large | the connection | GOAWAY FLOW_CONTROL_ERROR |
//! | WINDOW_UPDATE with an increment of 0 | its stream or the connection | RST_STREAM or GOAWAY PROTOCOL_ERROR |
//! | a field block that cannot be decoded | the connection | GOAWAY COMPRESSION_ERROR |
//! | frames out of order, on the wrong stream, of the wrong length; bad padding; bad settings; pushes | the connection | GOAWAY PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR |
//! | frames for streams that were never opened | the connection | GOAWAY PROTOCOL_ERROR |
//! | floods, see [`FloodLimits`] | the connection | GOAWAY ENHANCE_YOUR_CALM |
//!
//! Frames for a stream that this side has reset are ignored. [`Error::name`] is a stable name for
//! each error.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;

mod code;
pub mod config;
mod connection;
mod encode;
mod error;
mod event;
mod flood;
mod flow;
mod frame;
pub mod hpack;
mod message;
mod priority;
mod settings;
mod stream;

pub use code::ErrorCode;
pub use config::{Config, FloodLimits};
pub use connection::Connection;
pub use encode::Framing;
pub use error::Error;
pub use event::{Event, Received};
pub use priority::Priority;
pub use stream::StreamKey;
