//! HTTP/2 end to end with independent clients and endpoints, and HTTP/1.1 on either side.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

#[path = "../e2e/mod.rs"]
mod e2e;
#[path = "../peers/mod.rs"]
mod peers;

mod endings;
mod endpoints;
mod flow;
mod leaving;
mod pairs;
mod process;
mod uploads;
