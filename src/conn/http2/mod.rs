//! HTTP/2: one connection carries many requests.
//!
//! A connection has one task, which receives, frames and sends; each request has one of its own, which runs its
//! exchange. Both meet in a [`Mux`]: tasks of requests leave there what is to be sent and take out what has
//! come; the connection's task runs after them and sends what all of them have left in one go.

mod down;
mod mux;
mod mux_state;
mod peer_watch;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod turns;
mod up;
mod upgrade;

pub use down::Downstream;
pub use mux::{Mux, MuxOutcome, PendingRequest, Worker};
pub use peer_watch::{PeerLimits, PeerWatch};
pub use streams::StreamLoss;
pub use up::Upstream;
