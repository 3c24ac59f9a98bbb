//! Once warm, field blocks allocate nothing, and the tables of an idle connection are small.

use weir_proto_h2::hpack::*;

use crate::support::name;

const REQUEST: [(&str, &str); 10] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "shop.example.com"),
    (":path", "/api/v1/users/42/orders?page=3&sort=date"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101",
    ),
    ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("authorization", "Basic dXNlcjpwYXNzd29yZA=="),
    ("X-Unlisted", "some value"),
    ("x-request-id", "4bf92f35"),
];

/// Encodes and decodes a message that differs from the last one in one field.
fn exchange(
    number: u32,
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    block: &mut Vec<u8>,
    text: &mut Vec<u8>,
) {
    block.clear();
    text.clear();
    for (text, value) in REQUEST {
        let name = name(text.as_bytes());
        let indexing = Indexing::of(name, value.as_bytes());
        encoder.encode(block, name, value.as_bytes(), indexing);
    }
    // A new entry each time, so that old ones are evicted and texts move.
    let number = number.to_le_bytes();
    encoder.encode(
        block,
        FieldName::Text(b"x-number"),
        &number,
        Indexing::Index,
    );
    let mut count = 0;
    let outcome = decoder.decode(block, text, 16 * 1024, |_, _| {
        count += 1;
        Ok::<(), ()>(())
    });
    assert!(matches!(outcome, Ok(BlockOutcome::Complete { .. })));
    assert_eq!(count, REQUEST.len() + 1);
}

#[test]
fn warm_blocks_allocate_nothing() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES));
    let (mut block, mut text) = (Vec::new(), Vec::new());
    for number in 0..400 {
        exchange(number, &mut encoder, &mut decoder, &mut block, &mut text);
    }
    let counted = allocation_counter::measure(|| {
        for number in 400..1400 {
            exchange(number, &mut encoder, &mut decoder, &mut block, &mut text);
        }
    });
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

#[test]
fn tables_are_small_and_start_empty() {
    let counted = allocation_counter::measure(|| {
        let _encoder = Encoder::new();
        let _decoder = Decoder::new(TABLE_BYTES);
    });
    assert_eq!(counted.count_total, 0);
    assert!(size_of::<Encoder>() <= 768 && size_of::<Decoder>() <= 128);
    // Full tables: texts up to twice the table's size, because of dropped ones, and the entries.
    let counted = allocation_counter::measure(|| {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES));
        for number in 0..5000u32 {
            let (mut block, mut text) = (Vec::new(), Vec::new());
            let value = number.to_le_bytes().repeat(number as usize % 50);
            encoder.encode(&mut block, FieldName::Text(b"x"), &value, Indexing::Index);
            decoder
                .decode(&block, &mut text, 16 * 1024, |_, _| Ok::<(), ()>(()))
                .unwrap();
        }
    });
    assert!(counted.bytes_max < 24 * 1024, "{}", counted.bytes_max);
}
