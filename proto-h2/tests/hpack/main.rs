//! Field compression: case files, an independent implementation, the corpus of the fuzz targets,
//! allocations.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic fails the test.

mod allocations;
#[path = "../../../proto-h1/tests/support/cases.rs"]
mod cases;
mod corpus;
mod fuzz_bodies;
mod peer;
#[path = "../../../proto-h1/tests/support/replay.rs"]
mod replay;
mod support;
mod table;
