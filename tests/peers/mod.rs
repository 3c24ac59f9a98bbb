//! Independent peers of both protocols, for tests from the outside: hyper where the protocol is to make no difference,
//! the h2 crate where a test decides about frames. All of a test's peers live on one thread.
//!
//! Whoever uses this declares the module `e2e` as well.
// Each binary uses a part of it, and what fails here fails the test.
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
pub use client::{Client, request};
pub use server::{Server, answer, serve};
pub use tls::Tls;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// What clients and endpoints may speak.
pub const PAIRS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

/// Runs a test with its peers.
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
    // Names may be looked up on threads that nobody waits for.
    runtime.shutdown_background();
    done
}

/// Waits for what has to come.
#[track_caller]
pub fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        tokio::time::timeout(DEADLINE, future)
            .await
            .unwrap_or_else(|_| panic!("it did not come in time, waited for at {place}"))
    }
}

/// A configuration: everything to these endpoints, with more keys of the upstream and the top level before.
pub fn routed(keys: &str, servers: &[String], upstream: &str) -> String {
    format!(
        "{keys}\n[upstream.up]\nservers = {servers:?}\n{upstream}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    )
}
