//! HTTP/1.1 without I/O, for both sides of a proxy: bytes in, events out.
//!
//! # What is here
//!
//! | module | owns |
//! |---|---|
//! | [`head`], [`field`] | message heads, in a form that HTTP/1.1 and HTTP/2 share: spans over a block of bytes |
//! | [`edits`] | what the proxy adds to a head and replaces in it |
//! | [`parse`] | bytes to [`Head`], strict and resumable |
//! | [`target`] | request targets and hosts |
//! | [`path`] | path normalization, and the parts of a path that programs read in different ways |
//! | [`guard`] | which fields a peer may send in a request |
//! | [`framing`] | how long a body is; hop-by-hop fields |
//! | [`body`], [`trailers`] | [`BodyDecoder`] and [`BodyEncoder`], chunked bodies included |
//! | [`limits`] | limits on memory and work |
//! | [`encode`] | [`Head`] and [`Edits`] to bytes |
//! | [`server`], [`client`], [`sender`], [`event`] | the state machines of a connection |
//!
//! # Contract
//!
//! The caller owns all buffers. The crate reads no clock, draws no random numbers, does no I/O, and
//! does not panic on input from the network. Once warm, a message allocates nothing: [`Head`],
//! [`Edits`] and the machines keep their capacity. The crate refuses ambiguous input with an
//! [`Error`] and never repairs it. After a framing error the caller closes the connection, because
//! nothing says where the next message begins.
//!
//! A request through a proxy, with the whole request in one block:
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
//! let request = server.request();
//! let framing =
//!     client.begin_request(request.method, request.body, request.upgrade, request.accepts_trailers)?;
//! encode_request(&mut out, block, &head, &edits, &framing);
//! out.extend_from_slice(client.sender().end()?);
//! assert_eq!(out, b"GET /x HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 weir\r\n\r\n");
//! # Ok(())
//! # }
//! ```
//!
//! The parser judges a line when its end has arrived, so the verdict does not depend on how the
//! network splits the bytes.
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
pub use field::{FieldId, FieldSet, is_token};
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
