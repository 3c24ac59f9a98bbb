//! Wires: a connection's bytes, in the clear or over TLS, and the messages of HTTP/1.1 and HTTP/2 on it.

// Bytes and indices come from the network: none may panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod buffered_wire;
mod client_bindings;
mod client_side;
pub mod http1;
pub mod http2;
mod inbox;
mod inner;
mod outbox;
mod peer_address;
pub mod proxy_protocol;
mod response_part;
mod tunnel;
mod tunnel_end;
mod wire;

pub use buffered_wire::BufferedWire;
pub use client_bindings::ClientBindings;
pub use client_side::{ClientSide, ConnectionContext, HeadBuffer, RequestPart};
pub use inbox::Inbox;
pub use inner::InnerStream;
pub use outbox::Outbox;
pub use peer_address::PeerAddress;
pub use response_part::ResponsePart;
pub use tunnel::tunnel;
pub use tunnel_end::{Carrier, CarrierMut, TunnelEnd};
pub use wire::{Wire, WireRx, WireTx};
