//! What the measuring programs share: just enough HTTP/1.1 to frame messages cheaply, and
//! non-blocking sockets behind epoll.
//!
//! Nothing here is part of the product, and nothing here comes from it: an endpoint and a load
//! generator that shared the proxy's parser would share its mistakes.

#![forbid(unsafe_code)]

pub mod http;
pub mod net;
