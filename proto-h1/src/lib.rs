//! HTTP/1.1 without I/O, for both sides of a proxy: bytes in, events out.
//!
//! # What is here
//!
//! | module | owns |
//! |---|---|
//! | [`head`], [`field`] | the neutral form of a message head: spans over the block that holds it |
//! | [`edits`] | what the proxy adds to a head or replaces in it |
//! | [`parse`] | bytes to [`Head`], strict and resumable |
//! | [`target`] | request targets, hosts |
//! | [`path`] | normal paths, and what in a path can be read in several ways |
//! | [`guard`] | which fields of a request a peer may send |
//! | [`framing`] | how long a body is, what belongs to this hop only |
//! | [`body`], [`trailers`] | [`BodyDecoder`] and [`BodyEncoder`] of bodies, chunked ones included |
//! | [`limits`] | what a peer may ask of memory and work |
//! | [`encode`] | [`Head`] and [`Edits`] to bytes |
//! | [`server`], [`client`], [`sender`], [`event`] | the machines that keep the order of things straight |
//!
//! # Contract
//!
//! Buffers belong to the caller. Nothing here reads a clock, draws a random number, does I/O or
//! panics on what came from the network, and a warm message allocates nothing: [`Head`], [`Edits`]
//! and the machines keep their capacity. What is ambiguous is an [`Error`], never repaired; after
//! an error in framing the connection has to end, because nothing says where the next message
//! begins.
//!
//! A request through a proxy, with all of it in one block:
//!
//! ```
//! use weir_proto_h1::{Client, Edits, Event, Head, Limits, Server, encode_request};
//!
//! # fn main() -> Result<(), weir_proto_h1::Error> {
//! let mut server = Server::new(Limits::default());
//! let mut client = Client::new(Limits::default());
//! let (mut head, mut edits, mut out) = (Head::new(), Edits::new(), Vec::new());
//!
//! let block = b"GET /x HTTP/1.1\r\nConnection: keep-alive\r\nHost: a.test\r\n\r\n";
//! let received = server.receive(block, &mut head)?;
//! assert_eq!((received.event, received.consumed), (Event::Head, block.len()));
//!
//! edits.append("Via", "1.1 weir");
//! let asked = server.request();
//! let framing =
//!     client.begin_request(asked.method, asked.body, asked.upgrade, asked.accepts_trailers)?;
//! encode_request(&mut out, block, &head, &edits, &framing);
//! out.extend_from_slice(client.sender().end()?);
//! assert_eq!(out, b"GET /x HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 weir\r\n\r\n");
//! # Ok(())
//! # }
//! ```
//!
//! A line of a head is judged when its end has arrived, so the verdict does not depend on how the
//! network cut the bytes.
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

mod auth;
pub mod body;
pub mod client;
pub mod edits;
pub mod encode;
mod error;
pub mod event;
pub mod field;
pub mod framing;
pub mod guard;
pub mod head;
pub mod limits;
pub mod parse;
pub mod path;
mod receiver;
mod scan;
pub mod sender;
pub mod server;
pub mod target;
pub mod trailers;

pub use auth::authenticates_connection;
pub use body::{BodyDecoder, BodyEncoder, ChunkPrefix, DecodedBody};
pub use client::{Client, Response};
pub use edits::{Decimal, Edits, EditsMark};
pub use encode::{ConnectionOption, Framing, Sink, encode_request, encode_response};
pub use error::Error;
pub use event::{Event, Next, Received};
pub use field::{FieldId, is_token};
pub use framing::{
    BodyKind, HopOptions, MessageKind, keep_alive, request_body, response_body, strip_hop_by_hop,
};
pub use guard::{Claim, Claims, FieldPolicy, OddNamePolicy, is_other_spelling};
pub use head::{Field, Head, Method, Span, TargetForm, Version};
pub use limits::Limits;
pub use parse::{
    HTTP2_PREFACE, Parsed, looks_like_h2_preface, looks_like_tls, parse_request, parse_response,
};
pub use sender::Sender;
pub use server::{Request, Server};
pub use target::is_authority;
pub use trailers::Trailers;
