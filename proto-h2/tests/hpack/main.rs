//! Field compression: cases in files, an independent implementation, the corpus of the fuzz
//! targets, allocations.

#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod allocations;
mod cases;
mod fuzz_bodies;
mod peer;
mod random;
mod replay;
mod support;
