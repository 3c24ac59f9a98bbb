//! HTTP/2 without I/O, for both sides of a proxy: bytes in, events out.
//!
//! # What is here
//!
//! | module | owns |
//! |---|---|
//! | [`Connection`] | one connection with its streams, as server or as client |
//! | [`Event`] | what it says to its caller |
//! | [`Framing`] | what a head that is sent says about this hop |
//! | [`config`] | limits of memory and work; what floods |
//! | [`hpack`] | field blocks: compression of names and values (RFC 7541) |
//! | [`Error`], [`ErrorCode`] | what was wrong, and what the peer is told |
//! | [`Priority`] | how urgent an answer is (RFC 9218) |
//!
//! Heads are those of `weir-proto-h1`: spans over bytes that the caller holds, with `Edits` laid
//! over them when they are sent.
//!
//! # Contract
//!
//! Buffers belong to the caller. Nothing here reads a clock, draws a random number, does I/O or
//! panics on what came from the network, and a warm message allocates nothing. What is ambiguous is
//! an [`Error`], never repaired. Memory is bounded: frames are kept only while a field block or a
//! frame of the connection is in parts, data never.
//!
//! # Call order
//!
//! A connection is one [`Connection`] that the caller's tasks share: one that reads and writes the
//! socket, and one a stream. In each turn of the former:
//!
//! 1. [`Connection::receive`] with what has come, event by event, until [`Event::NeedMore`]. A head
//!    or trailers lie in the caller's `head` and `text`, data in the input: they are taken out
//!    before the next call. An `Err` ends the connection, after step 2.
//! 2. [`Connection::take_output`], at the start of a connection too, and whenever streams have been
//!    at work.
//!
//! For a stream of a server, between [`Event::Request`] and the end:
//!
//! 1. [`Connection::consume`] for each piece of data that was passed on.
//! 2. [`Connection::send_interim`] for each 1xx, then [`Connection::respond`].
//! 3. As long as there is data: [`Connection::data_room`], then [`Connection::data_frame`] for no
//!    more than that, whose nine bytes go before the data. No room: wait for
//!    [`Event::WindowOpened`], [`Event::SettingsChanged`], or the end of the stream.
//! 4. The last piece of data says so, or [`Connection::end`] or [`Connection::send_trailers`] ends
//!    the message.
//! 5. [`Connection::release`] when the caller is done, however far things are.
//!
//! For a stream of a client: [`Connection::open`] when [`Connection::can_open`], then steps 3 and 4
//! for the request while [`Event::Interim`], [`Event::Response`] and data come, and steps 1 and 5.
//!
//! After [`Event::Reset`] and [`Event::Failed`], and once both sides have ended, a stream is gone:
//! steps on it are [`Error::StreamGone`] or do nothing.
//!
//! A connection goes away with [`Connection::shut_down`], and can be closed when
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
//! // A request, here with a head made by hand: mostly it is one that came in.
//! let block = b"example.com/x";
//! let mut request = Head::new();
//! request.method = Method::Get;
//! request.authority = Span::new(0, 11);
//! request.path = Span::new(11, 13);
//! let asked = client.open(&mut to_server, block, &request, &edits, &Framing::default())?;
//!
//! // The server hears of it and answers.
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
//! // The client gets the answer.
//! let (mut at, mut body) = (0, Vec::new());
//! loop {
//!     let received = client.receive(&to_client[at..], 0, &mut head, &mut text)?;
//!     match received.event {
//!         Event::Response { stream, body, .. } => {
//!             assert_eq!((stream, head.status, body), (asked, 200, BodyKind::Length(2)));
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
//! # What is an error of what
//!
//! | what | error of | told the peer |
//! |---|---|---|
//! | a malformed message: pseudo-fields, fields, lengths, statuses (RFC 9113, section 8) | the stream | RST_STREAM PROTOCOL_ERROR, [`Event::Failed`] |
//! | a request that asks too much: section, fields, target, method, expectation | nothing | an answer by the caller, [`Event::Refused`] |
//! | the same in a response or in trailers | the stream | RST_STREAM PROTOCOL_ERROR |
//! | more streams than announced | the stream | RST_STREAM REFUSED_STREAM |
//! | HEADERS or DATA for a stream whose sender has ended it | the stream | RST_STREAM STREAM_CLOSED |
//! | more data than a stream's window, or a window beyond its bounds | the stream | RST_STREAM FLOW_CONTROL_ERROR |
//! | the same of the connection's window | the connection | GOAWAY FLOW_CONTROL_ERROR |
//! | WINDOW_UPDATE by nothing | its stream or the connection | PROTOCOL_ERROR |
//! | a field block that cannot be decoded | the connection | GOAWAY COMPRESSION_ERROR |
//! | frames out of order, on the wrong stream, of the wrong length; bad padding; bad settings; pushes | the connection | GOAWAY PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR |
//! | frames for streams that nobody has opened | the connection | GOAWAY PROTOCOL_ERROR |
//! | floods, see [`FloodLimits`] | the connection | GOAWAY ENHANCE_YOUR_CALM |
//!
//! What comes for a stream that we have reset is passed over. [`Error::name`] is the stable word
//! for each.
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
