//! HTTP/2: one connection carries many requests.
//!
//! A connection has one task, which receives, frames and sends; each request has one of its own, which runs its
//! exchange. Both meet in a [`Mux`]: tasks of requests leave there what is to be sent and take out what has
//! come; the connection's task runs after them and sends what all of them have left in one go.

#![warn(clippy::indexing_slicing)]

mod downstream_stream;
mod mux;
mod mux_state;
mod peer_watch;
mod stream_handle;
mod stream_table;
#[cfg(test)]
mod tests;
mod turns;
mod upgrade;
mod upstream_stream;

pub use downstream_stream::DownstreamStream;
pub use mux::{Mux, MuxOutcome, PendingRequest, Worker};
pub use peer_watch::{PeerLimits, PeerWatch};
pub use stream_handle::StreamHandle;
pub use stream_table::StreamLoss;
pub use upstream_stream::UpstreamStream;
