//! Replays the corpus of the fuzz targets for connections, mutated cases and random steps.

#![allow(clippy::unwrap_used)] // A panic fails the test.

mod fuzz_bodies;
mod support;

use fuzz_bodies::BODIES;
use support::replay::{Random, replay_corpus};

#[test]
fn every_corpus_holds() {
    replay_corpus(BODIES);
}

/// Receives the input of every case, unchanged and with a few bytes changed, moved or lost. The
/// seed is fixed, so failures are reproducible.
#[test]
fn mutated_cases_hold() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let wires: Vec<Vec<u8>> = support::load().iter().map(|case| case.wire()).collect();
    for wire in wires.iter().filter(|wire| wire.len() < 2_000) {
        for round in 0..8 {
            let mut bytes = vec![random.next() as u8];
            bytes.extend_from_slice(wire);
            if round > 0 {
                change(&mut bytes, &wires, &mut random);
            }
            fuzz_bodies::frames(&bytes);
        }
    }
}

#[test]
fn random_steps_hold() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..1_500 {
        let bytes: Vec<u8> = (0..4 * random.below(120))
            .map(|at| match (at % 4, random.below(3)) {
                // Mostly steps that have an effect.
                (0, 0..=1) => [0, 0, 1, 3, 7, 8, 9, 14, 21, 18][random.below(10)],
                (1, 0..=1) => random.below(8) as u8,
                _ => random.next() as u8,
            })
            .collect();
        fuzz_bodies::server(&bytes);
        fuzz_bodies::client(&bytes);
    }
}

fn change(bytes: &mut Vec<u8>, wires: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.insert(at, random.next() as u8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => {
                bytes.remove(at);
            }
            4 => bytes.truncate(at),
            _ => {
                let other = &wires[random.below(wires.len())];
                bytes.extend_from_slice(&other[..other.len().min(500)]);
            }
        }
    }
}
