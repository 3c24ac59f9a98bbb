//! Random messages, encoded by one implementation and decoded by the other, in both directions.

use weir_proto_h2::hpack::*;

use crate::replay::Random;
use crate::support::{NameValue, decode, name};

/// Random fields: a few names, repeated and new values of any length and bytes.
fn message(random: &mut Random) -> Vec<NameValue> {
    const NAMES: [&str; 20] = [
        ":method",
        ":path",
        ":authority",
        ":scheme",
        ":status",
        "accept",
        "accept-encoding",
        "cookie",
        "content-type",
        "date",
        "etag",
        "server",
        "via",
        "x-one",
        "x-two",
        "x-forwarded-for",
        "authorization",
        "set-cookie",
        "user-agent",
        "from",
    ];
    const VALUES: [&str; 9] = [
        "GET",
        "/",
        "/index.html",
        "200",
        "404",
        "gzip, deflate",
        "text/html; charset=utf-8",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "",
    ];
    (0..random.below(20))
        .map(|_| {
            let name = NAMES[random.below(NAMES.len())];
            let value = match random.below(4) {
                0 => text(random, 0, 256),
                1 => text(random, 0x20, 0x5f),
                _ => VALUES[random.below(VALUES.len())].into(),
            };
            (name.into(), value)
        })
        .collect()
}

fn text(random: &mut Random, lowest: usize, count: usize) -> Vec<u8> {
    let len = match random.below(20) {
        0 => random.below(6000),
        _ => random.below(60),
    };
    (0..len)
        .map(|_| (lowest + random.below(count)) as u8)
        .collect()
}

#[test]
fn we_decode_what_another_encoder_writes() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut theirs, mut ours) = (loona_hpack::Encoder::new(), Decoder::new(TABLE_BYTES));
    for _ in 0..2000 {
        let fields = message(&mut random);
        let block = theirs.encode(fields.iter().map(|(n, v)| (&n[..], &v[..])));
        let (outcome, read) = decode(&mut ours, &block, u32::MAX);
        assert!(matches!(outcome, Ok(BlockOutcome::Complete { .. })));
        let read: Vec<_> = read.into_iter().map(|(plain, _)| plain).collect();
        assert_eq!(read, fields);
    }
}

#[test]
fn another_decoder_reads_what_we_encode() {
    let mut random = Random(0xfedc_ba98_7654_3211);
    let (mut ours, mut theirs) = (Encoder::new(), loona_hpack::Decoder::new());
    let mut sizes = 0;
    for _ in 0..2000 {
        if random.below(20) == 0 {
            let size = random.below(5000) as u32;
            ours.set_table_bytes_max(size);
            theirs.set_max_allowed_table_size(size.min(TABLE_BYTES) as usize);
            sizes += 1;
        }
        let (fields, mut block) = (message(&mut random), Vec::new());
        for (text, value) in &fields {
            let name = name(text);
            let indexing = match random.below(3) {
                0 => Indexing::Index,
                _ => Indexing::of(name, value),
            };
            ours.encode(&mut block, name, value, indexing);
        }
        assert_eq!(theirs.decode(&block).unwrap(), fields);
    }
    assert!(sizes > 20);
}

/// Every pair of symbols, so that code words start at many bit offsets. Both implementations decode
/// what this one encodes.
#[test]
fn strings_of_every_symbol_survive_a_round_trip() {
    let mut ours = Decoder::new(TABLE_BYTES);
    for first in 0..=255u8 {
        let mut block = Vec::new();
        let mut encoder = Encoder::new();
        let mut said = Vec::new();
        for second in 0..=255u8 {
            let value = [b"00000000", &[first, second][..], b"0000"].concat();
            encoder.encode(&mut block, FieldName::Text(b"x"), &value, Indexing::NoIndex);
            said.push((b"x".to_vec(), value));
        }
        let (_, read) = decode(&mut ours, &block, u32::MAX);
        let read: Vec<_> = read.into_iter().map(|(plain, _)| plain).collect();
        assert_eq!(read, said);
        if first % 16 == 0 {
            assert_eq!(loona_hpack::Decoder::new().decode(&block).unwrap(), said);
        }
    }
}
