//! Field blocks of HTTP/2.

use std::hint::black_box;

use weir_proto_h1::{FieldId, Head};
use weir_proto_h2::hpack::{Decoder, Encoder, FieldName, Indexing, PseudoField, TABLE_BYTES};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "hpack-decode-request",
        run: |times| decode(&REQUEST, None, times),
        base: None,
    },
    Case {
        name: "hpack-decode-request-spelt-out",
        run: |times| decode(&REQUEST, Some(Indexing::NoIndex), times),
        base: None,
    },
    Case {
        name: "hpack-decode-response",
        run: |times| decode(&RESPONSE, None, times),
        base: None,
    },
    Case {
        name: "hpack-encode-request",
        run: |times| encode(&REQUEST, 0, times),
        base: None,
    },
    Case {
        name: "hpack-encode-response",
        run: |times| encode(&RESPONSE, 0, times),
        base: None,
    },
    Case {
        name: "hpack-encode-response-new",
        run: |times| encode(&RESPONSE, 256, times),
        base: None,
    },
];

type Fields<const N: usize> = [(&'static str, &'static str); N];

/// The 18 fields of a browser's request.
const REQUEST: Fields<18> = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "shop.example.com"),
    (":path", "/api/v1/users/42/orders?page=3&sort=date"),
    ("sec-ch-ua", r#""Chromium";v="140", "Not=A?Brand";v="24""#),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", r#""Linux""#),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://shop.example.com/orders"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes",
    ),
    ("priority", "u=0, i"),
];

/// The 12 fields of its response.
const RESPONSE: Fields<12> = [
    (":status", "200"),
    ("server", "origin"),
    ("date", "Sun, 22 Nov 2026 00:00:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", "1024"),
    ("cache-control", "private, max-age=60"),
    ("etag", "\"5f3e-61a2c9d4b8f01\""),
    ("last-modified", "Sat, 21 Nov 2026 10:20:30 GMT"),
    ("vary", "Accept-Encoding"),
    ("via", "1.1 weir"),
    ("x-content-type-options", "nosniff"),
    ("strict-transport-security", "max-age=31536000"),
];

fn named<const N: usize>(fields: &Fields<N>) -> [(FieldName<'static>, &'static [u8]); N] {
    fields.map(|(name, value)| {
        let name = match PseudoField::from_name(name.as_bytes()) {
            Some(pseudo) => FieldName::PseudoField(pseudo),
            None => FieldName::of(FieldId::from_name(name.as_bytes()), name.as_bytes()),
        };
        (name, value.as_bytes())
    })
}

/// Decodes the same head repeatedly, when the tables contain it.
fn decode<const N: usize>(fields: &Fields<N>, indexing: Option<Indexing>, times: u64) {
    let fields = named(fields);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES));
    let (mut head, mut block, mut text) = (Head::new(), Vec::new(), Vec::new());
    for time in 0..times + 3 {
        if time < 3 {
            block.clear();
            for (name, value) in fields {
                let indexing = indexing.unwrap_or_else(|| Indexing::of(name, value));
                encoder.encode(&mut block, name, value, indexing);
            }
        }
        text.clear();
        head.clear();
        let outcome = decoder.decode(black_box(&block), &mut text, 16 * 1024, |_, field| {
            head.push(field.id, field.name, field.value);
            if field.is_valid { Ok(()) } else { Err(()) }
        });
        let _ = black_box(outcome);
        black_box(&head);
    }
}

/// Encodes the same head repeatedly. With `changes`, Date, ETag and Last-Modified cycle through
/// that many values.
fn encode<const N: usize>(fields: &Fields<N>, changes: usize, times: u64) {
    let fields = named(fields);
    let mut encoder = Encoder::new();
    let mut out = Vec::with_capacity(4096);
    let others: Vec<String> = (0..changes)
        .map(|number| format!("Sun, 22 Nov 2026 {number:08} GMT"))
        .collect();
    let changed = |(name, value), other| match name {
        FieldName::Known(FieldId::Date | FieldId::Etag | FieldId::LastModified) => (name, other),
        _ => (name, value),
    };
    let messages: Vec<[(FieldName<'_>, &[u8]); N]> = match changes {
        0 => vec![fields],
        _ => others
            .iter()
            .map(|other| fields.map(|field| changed(field, other.as_bytes())))
            .collect(),
    };
    for message in messages.iter().cycle().take(times as usize) {
        out.clear();
        for &(name, value) in black_box(message) {
            encoder.encode(&mut out, name, value, Indexing::of(name, value));
        }
        black_box(&out);
    }
}
