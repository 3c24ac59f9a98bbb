//! Runs every case of `cases`, and every truncated block.

use weir_proto_h2::hpack::*;

use crate::cases::{check_all, compare};
use crate::support::*;

#[test]
fn every_case_gives_what_its_file_says() {
    check_all(&load(), |case| compare(case, &run(case)));
}

/// A truncated block is an error, or it ends between two fields and has the first fields of the
/// whole block.
#[test]
fn a_truncated_block_is_noticed() {
    for case in load() {
        let mut decoder = Decoder::new(TABLE_BYTES);
        for step in &case.body {
            match step {
                Step::Setting(bytes) => decoder.set_table_bytes_max(*bytes),
                Step::Block(block) if block.len() < 2000 => {
                    let (outcome, whole) = decode(&mut decoder.clone(), block, u32::MAX);
                    for cut in 0..block.len() {
                        let (cut_outcome, part) =
                            decode(&mut decoder.clone(), &block[..cut], u32::MAX);
                        assert!(whole.starts_with(&part), "{}: at {cut}", case.name);
                        let expected = match cut_outcome {
                            Ok(BlockOutcome::Complete { .. }) => true,
                            Err(Error::Truncated | Error::MissingTableSize) => true,
                            other => other == outcome,
                        };
                        assert!(expected, "{}: at {cut}: {cut_outcome:?}", case.name);
                    }
                    if decode(&mut decoder, block, u32::MAX).0.is_err() {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
}

/// After a refused field, no more fields are passed on, but decoding continues.
#[test]
fn the_table_stays_in_step_when_a_field_is_refused() {
    let (mut decoder, mut text) = (Decoder::new(TABLE_BYTES), Vec::new());
    let block = wire(r#"82 40 01 "a" 01 "b" 40 01 "c" 01 "d""#, 1);
    let mut count = 0;
    let outcome = decoder.decode(&block, &mut text, 1000, |_, field| {
        count += 1;
        match field.pseudo {
            Some(_) => Ok(()),
            None => Err("not this one"),
        }
    });
    assert_eq!(outcome, Ok(BlockOutcome::Refused("not this one")));
    assert_eq!(count, 2);
    let plain = |name: &str, value: &str| (name.into(), value.into());
    assert_eq!(entries(&decoder), [plain("c", "d"), plain("a", "b")]);
}

/// Memory and work for a bomb are bounded.
#[test]
fn a_bomb_costs_bounded_memory() {
    let (mut decoder, mut text) = (Decoder::new(TABLE_BYTES), Vec::new());
    let block = wire(&format!(r#"40 01 "a" 7f a1 1e {}"#, "61".repeat(4000)), 1);
    let indexed = [block, vec![0xbe; 60_000]].concat();
    let mut longest = 0;
    let outcome = decoder.decode(&indexed, &mut text, 16_384, |text, _| {
        longest = longest.max(text.len());
        Ok::<(), ()>(())
    });
    assert_eq!(outcome, Err(Error::Bomb));
    assert!(longest <= 16_384 && text.capacity() <= 32_768);
}

#[test]
fn large_values_are_not_indexed() {
    let policy = |len| Indexing::of(FieldName::Text(b"x"), &vec![b'a'; len]);
    assert_eq!(policy(512), Indexing::IfRepeated);
    assert_eq!(policy(513), Indexing::NoIndex);
}
