//! Wires: a connection's bytes, in the clear or over TLS, and the messages of HTTP/1.1 and HTTP/2 on it.

mod down;
pub mod http1;
pub mod http2;
mod inbox;
mod outbox;
pub mod proxy_protocol;
mod tunnel;
mod up;
mod wire;

pub use down::{Client, Down, Kit, Piece};
pub use inbox::Inbox;
pub use outbox::Outbox;
pub use tunnel::{End, tunnel};
pub use up::{Answer, Up};
pub use wire::{Wire, WireRx, WireTx};
