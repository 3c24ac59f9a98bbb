//! HTTP/2 from the outside, with clients and endpoints that are not of this project, beside HTTP/1.1 on either side.
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
