//! Connections and datagrams that Weir passes on without reading HTTP in them: `tcp`, `passthrough` and `udp` of a
//! listener.
//!
//! [`RelayConnection`] has the whole life of a connection: the steps of its listener, the choice of an upstream (by the
//! server name of a ClientHello if the listener passes TLS on), a connection to an endpoint, and a relay in both
//! directions.
//! The connection to the endpoint comes from the same [`Upstream`](crate::upstream::Upstream) as those of exchanges, so
//! limits, queues and counts hold for both.

// Bytes and indices come from the network: none may panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod client_hello;
mod connection;
mod connection_verdict;
mod endpoint_attempts;
mod flow_table;
mod relay;
mod relay_record;
mod steps;
mod udp;

pub use client_hello::{ClientHello, HelloError, read_client_hello};
pub use connection::{AcceptedConnection, RelayConnection};
pub use steps::explain_steps;
pub use udp::UdpListener;
