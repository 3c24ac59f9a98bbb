//! HTTP/2 without I/O: bytes in, events out.
//!
//! | module | owns |
//! |---|---|
//! | [`hpack`] | field blocks: compression of names and values (RFC 7541) |
//!
//! Buffers belong to the caller. Nothing here reads a clock, draws a random number, does I/O or
//! panics on what came from the network, and a warm message allocates nothing.
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

pub mod hpack;
