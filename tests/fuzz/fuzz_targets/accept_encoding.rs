#![no_main]

#[allow(dead_code)] // Each target runs one body.
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::accept_encoding(bytes));
