//! Runs the bodies of fuzz targets without a fuzzer, for both crates.

#![allow(dead_code)] // Each test uses a part.

use std::path::Path;

/// The body of a fuzz target.
type Body = fn(&[u8]);

/// Runs every body over the corpus of its target.
pub(crate) fn replay_corpus(bodies: &[(&str, Body)]) {
    for (name, body) in bodies {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            body(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has a corpus");
    }
}

/// A xorshift generator, which varies inputs in the same way on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
