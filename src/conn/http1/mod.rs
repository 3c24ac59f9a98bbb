//! HTTP/1.1: a connection carries one request at a time.

mod downstream_connection;
mod upstream_connection;

pub use downstream_connection::DownstreamConnection;
pub use upstream_connection::UpstreamConnection;
