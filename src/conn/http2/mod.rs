//! HTTP/2: one connection carries many requests.
//!
//! The connection has one task, which receives, frames and sends. Each request has a task of its own, which runs the
//! exchange. They share a [`Mux`]: request tasks queue data there and take what was received; the connection's task
//! runs after them and sends all their data together.

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
