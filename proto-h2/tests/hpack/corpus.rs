//! Replays the corpus of the fuzz targets, and mutated blocks of the cases.

use crate::fuzz_bodies::{self, BODIES};
use crate::replay::{Random, replay_corpus};
use crate::support::{Step, load};

#[test]
fn every_corpus_holds() {
    replay_corpus(BODIES);
}

/// Decodes the blocks of all cases with a few bytes changed or lost. The seed is fixed, so failures
/// are reproducible.
#[test]
fn mutated_cases_hold() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for case in load() {
        let mut wire = Vec::new();
        for step in &case.body {
            if let Step::Block(block) = step {
                let block = &block[..block.len().min(255)];
                wire.push(block.len() as u8);
                wire.extend_from_slice(block);
            }
        }
        fuzz_bodies::decode(&wire);
        for _ in 0..40 {
            let mut changed = wire.clone();
            for _ in 0..=random.below(3) {
                change(&mut changed, &mut random);
            }
            fuzz_bodies::decode(&changed);
        }
    }
}

#[test]
fn random_operations_hold() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..random.below(600))
            .map(|_| match random.below(3) {
                0 => random.next() as u8,
                _ => random.below(24) as u8,
            })
            .collect();
        fuzz_bodies::identity(&bytes);
    }
}

fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    const ODD: &[u8] = &[
        0x00, 0x01, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7e, 0x7f, 0x80, 0x81, 0xbe, 0xbf, 0xc0,
        0xfe, 0xff,
    ];
    let at = random.below(bytes.len() + 1);
    match random.below(4) {
        0 => bytes.insert(at, ODD[random.below(ODD.len())]),
        1 if at < bytes.len() => bytes[at] = ODD[random.below(ODD.len())],
        2 if at < bytes.len() => {
            bytes.remove(at);
        }
        _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => bytes.truncate(bytes.len() / 2),
    }
}
