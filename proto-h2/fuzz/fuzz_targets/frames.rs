#![no_main]

#[allow(dead_code)] // Each target runs one body.
#[path = "../../tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::frames(bytes));
