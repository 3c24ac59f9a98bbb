//! Independent clients and endpoints for both protocols: hyper where the protocol must make no difference, the h2 crate
//! where a test controls frames. All peers of a test run on one thread.
//!
//! A test binary that declares this module declares `e2e` too.
// Each test binary uses a part of this module.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_ref_mut
)]

mod body;
mod client;
pub mod frames;
mod server;
mod tls;

use std::future::Future;

use tokio::task::LocalSet;

use crate::e2e::DEADLINE;

pub use body::{Body, pattern, sum};
pub use client::{Client, FullResponse, request};
pub use server::{Server, answer, serve};
pub use tls::Tls;

/// The HTTP version on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Every pairing of a client's and an endpoint's protocol.
pub const PAIRS: [(Protocol, Protocol); 4] = [
    (Protocol::Http1, Protocol::Http1),
    (Protocol::Http1, Protocol::Http2),
    (Protocol::Http2, Protocol::Http1),
    (Protocol::Http2, Protocol::Http2),
];

/// Runs a test and its peers.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(8 * DEADLINE, test)
            .await
            .expect("the test ends in time")
    });
    // tokio may still look up names on its blocking threads. Don't wait for them.
    runtime.shutdown_background();
    done
}

/// Waits for `future`. Panics after [`DEADLINE`] and names the caller.
#[track_caller]
pub fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        tokio::time::timeout(DEADLINE, future)
            .await
            .unwrap_or_else(|_| panic!("timed out at {place}"))
    }
}

/// A configuration that routes everything to these servers, with further top-level keys and keys of the upstream.
pub fn routed(keys: &str, servers: &[String], upstream: &str) -> String {
    format!(
        "{keys}\n[upstream.up]\nservers = {servers:?}\n{upstream}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    )
}
