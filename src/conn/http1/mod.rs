//! HTTP/1.1: the connection is the request's, one at a time.

mod down;
mod up;

pub use down::DownstreamConnection;
pub use up::UpstreamConnection;
