//! Shared by the end-to-end tests: the real binary as a child process, endpoints that follow a script, and connections
//! on which the test chooses every byte. Nothing here uses Weir's own parser or encoder.
//!
//! Every wait has a deadline. Declare endpoints before the [`Weir`] that uses them: Rust then drops Weir first, and the
//! scripts of the endpoints see its connections end.
// Each test binary uses a part of this module.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certs;
mod conn;
mod dns;
mod endpoint;
mod issuer;
mod lines;
mod load;
mod message;
mod tls;
mod weir;

use std::time::{Duration, Instant};

pub use certs::{Authority, Issued};
pub use conn::{Conn, End};
pub use dns::{DnsName, DnsRecord, DnsServer};
pub use endpoint::{Endpoint, ok};
pub use issuer::{Issuer, TokenKey, key_set};
pub use lines::Lines;
pub use load::Load;
pub use message::Message;
pub use tls::{tls_config, tls_connect, tls_roots, tls_to};
pub use weir::{Entry, Weir, binary, free_address, route_to, run_weir};

/// The deadline of everything that a test expects to happen. Generous, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A GET request for `path`.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\n\r\n")
}

/// A POST request with a body and its Content-Length.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: weir.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Calls `ask` until it returns a value. Panics after [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
