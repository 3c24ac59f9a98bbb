//! What the end-to-end tests share: the real binary as a child process, endpoints that follow a script, and
//! connections on which a test says and hears every byte. Nothing here knows Weir's own parser or encoder.
//!
//! Everything that waits has a deadline, and nothing waits without one. Declare endpoints before the [`Weir`] that
//! asks them: it is dropped first then, and their scripts see its connections end.
// Each binary uses a part of it, and what fails here fails the test.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certs;
mod conn;
mod endpoint;
mod lines;
mod message;
mod tls;
mod weir;

use std::time::{Duration, Instant};

pub use certs::{Authority, Issued};
pub use conn::{Conn, End};
pub use endpoint::{Endpoint, ok};
pub use lines::Lines;
pub use message::Message;
pub use tls::tls_to;
pub use weir::{Entry, Weir, route_to};

/// How long anything may take that is expected to happen. Generous: a machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A request without a body, for the path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\n\r\n")
}

/// A request with a body of known length.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: weir.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Asks again until there is an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
