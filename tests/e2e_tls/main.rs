//! TLS with independent peers: curl, OpenSSL's s_client, tokio-rustls and raw bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

#[path = "../e2e/mod.rs"]
mod e2e;
mod edge;

mod clients;
mod endpoints;
mod ends;
mod listener;
