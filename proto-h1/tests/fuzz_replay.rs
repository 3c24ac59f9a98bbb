//! Replays the corpus of every fuzz target, and mutated inputs of all cases.

#![allow(clippy::unwrap_used)] // A panic fails the test.

mod fuzz_bodies;
mod support;

use fuzz_bodies::BODIES;
use support::replay::{Random, replay_corpus};

#[test]
fn every_corpus_holds() {
    replay_corpus(BODIES);
}

/// Runs every case through every body, unchanged and with a few bytes changed, moved or lost. The
/// seed is fixed, so failures are reproducible.
#[test]
fn mutated_cases_hold() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let cases = support::load();
    for case in &cases {
        for (name, body) in BODIES {
            // The bytes before the wire: a cut, or the number of steps and the steps.
            let front = match *name {
                "server" | "client" => {
                    let steps: Vec<u8> = (0..96).map(|_| random.next() as u8).collect();
                    [&[96][..], &steps[..]].concat()
                }
                "path" => Vec::new(),
                _ => vec![random.next() as u8],
            };
            body(&[&front[..], &case.input[..]].concat());
            for _ in 0..12 {
                let changed = change(case.input.clone(), &cases, &mut random);
                body(&[&front[..], &changed[..]].concat());
            }
        }
    }
}

fn change(mut bytes: Vec<u8>, cases: &[support::Case], random: &mut Random) -> Vec<u8> {
    const ODD: &[u8] = b"\r\n\0 \t:;,/%.#?-+09aFx\x7f\x80\xff";
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.insert(at, ODD[random.below(ODD.len())]),
            1 if at < bytes.len() => bytes[at] = ODD[random.below(ODD.len())],
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at),
            _ => {
                let other = &cases[random.below(cases.len())].input;
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}
