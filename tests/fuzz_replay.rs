//! Replays the corpus of the fuzz targets, and random cases.

#![allow(clippy::unwrap_used)] // A panic fails the test.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

use fastrand::Rng;

#[test]
fn every_corpus_holds() {
    for (name, body) in bodies::BODIES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(name);
        let files = std::fs::read_dir(folder).unwrap();
        let mut count = 0;
        for file in files {
            body(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn random_steps_hold() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..150 {
        let mut bytes = vec![rng.u8(..), rng.u8(..)];
        for _ in 0..rng.usize(..14) {
            bytes.extend([rng.u8(..), rng.u8(..)]);
        }
        bodies::filters(&bytes);
    }
}

#[test]
fn random_fields_hold() {
    const WORDS: [&str; 20] = [
        "gzip", "x-gzip", "GZIP", "br", "zstd", "identity", "*", "deflate", ";q=", "; Q=", ";",
        "q=1", "0", "1", "0.5", ".", "0.001", "1.000", ",", ", ",
    ];
    let mut rng = Rng::with_seed(5);
    for _ in 0..20_000 {
        let mut bytes = vec![rng.u8(..)];
        for _ in 0..rng.usize(..12) {
            bytes.extend_from_slice(WORDS[rng.usize(..WORDS.len())].as_bytes());
            if rng.u8(..20) == 0 {
                bytes.push(rng.u8(..));
            }
        }
        bodies::accept_encoding(&bytes);
    }
}
