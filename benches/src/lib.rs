//! What the measuring programs share: enough HTTP/1.1 to frame messages cheaply, and non-blocking
//! sockets with epoll.
//!
//! This crate shares no code with the product. An endpoint and a load generator that used the
//! proxy's parser would share its mistakes.

#![forbid(unsafe_code)]

pub mod http;
pub mod net;
pub mod tls;
