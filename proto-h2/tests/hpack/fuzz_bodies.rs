//! The bodies of the fuzz targets, which also run in the test that replays the corpus. A body
//! panics if a property does not hold.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic reports a violated property.

use weir_proto_h1::FieldId;
use weir_proto_h2::hpack::*;

/// The body of a fuzz target. The target, its corpus and its body have the same name.
pub(crate) type Body = fn(&[u8]);

pub(crate) const BODIES: &[(&str, Body)] =
    &[("hpack_decode", decode), ("hpack_identity", identity)];

/// Name and value of a field.
type NameValue = (Vec<u8>, Vec<u8>);

/// The list limit of the second decoder, in bytes.
const SHORT: u32 = 512;

/// Decodes length-prefixed blocks, and compares with another implementation and with a decoder that
/// has a lower limit.
pub(crate) fn decode(bytes: &[u8]) {
    let mut theirs = loona_hpack::Decoder::new();
    theirs.set_max_allowed_table_size(TABLE_BYTES as usize);
    let (mut ours, mut short) = (Decoder::new(TABLE_BYTES), Decoder::new(TABLE_BYTES));
    let mut rest = bytes;
    while let Some((&len, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        let (outcome, fields) = run(&mut ours, block, u32::MAX);
        let expected = theirs.decode(block);
        match outcome {
            Ok(outcome) => {
                let list_bytes: usize = fields.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
                let list_bytes = list_bytes as u32;
                assert_eq!(outcome, BlockOutcome::Complete { list_bytes });
                match expected {
                    Ok(expected) => assert_eq!(fields, expected),
                    // The RFC does not require a field after a table size.
                    Err(error) => assert!(format!("{error:?}").contains("SizeUpdateAtEnd")),
                }
            }
            Err(error) => {
                // The other implementation accepts table sizes anywhere.
                assert!(
                    expected.is_err() || error == Error::UnexpectedTableSize,
                    "{error}"
                );
            }
        }
        let (held, part) = run(&mut short, block, SHORT);
        assert!(fields.starts_with(&part));
        match (outcome, held) {
            (Ok(_), Ok(BlockOutcome::Complete { .. })) => assert_eq!(fields, part),
            (Ok(_), Ok(other)) => assert_eq!(other, BlockOutcome::TooLarge),
            (Ok(_), Err(error)) => {
                assert_eq!(error, Error::Bomb);
                return;
            }
            (Err(error), Err(other)) => {
                assert!(error == other || other == Error::Bomb);
                return;
            }
            (Err(error), Ok(_)) => panic!("{error} is not noticed"),
        }
    }
}

fn run(
    decoder: &mut Decoder,
    block: &[u8],
    list_bytes_max: u32,
) -> (Result<BlockOutcome<()>, Error>, Vec<NameValue>) {
    let (mut text, mut fields) = (Vec::new(), Vec::new());
    let outcome = decoder.decode(block, &mut text, list_bytes_max, |text, field| {
        let (name, value) = (field.name.get(text), field.value.get(text));
        assert_eq!(field.pseudo, PseudoField::from_name(name));
        assert_eq!(field.id, FieldId::from_name(name));
        assert_eq!(field.is_valid, is_valid(name, value));
        fields.push((name.to_vec(), value.to_vec()));
        Ok(())
    });
    (outcome, fields)
}

/// The rule for valid fields, written in another way.
fn is_valid(name: &[u8], value: &[u8]) -> bool {
    let is_token = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte)
    };
    let is_name = !name.is_empty() && name.iter().all(is_token);
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    (is_name || PseudoField::from_name(name).is_some())
        && !value.iter().any(is_control)
        && value.trim_ascii().len() == value.len()
}

/// Encodes fields and changes of the table's size. Both this and another implementation decode the
/// same fields.
pub(crate) fn identity(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES));
    let mut theirs = loona_hpack::Decoder::new();
    while !input.0.is_empty() {
        let operation = input.byte();
        if operation & 0xc0 == 0xc0 {
            // The decoder only learns the last of several settings between two blocks.
            let setting = u32::from(operation & 0x3f) * 130;
            encoder.set_table_bytes_max(setting);
            if input.0.first().is_some_and(|next| next & 0xc0 == 0xc0) {
                continue;
            }
            decoder.set_table_bytes_max(setting);
        }
        let (mut block, mut said) = (Vec::new(), Vec::new());
        for _ in 0..=operation & 7 {
            let (text, value) = (input.name(), input.value());
            let name = match PseudoField::from_name(&text) {
                Some(pseudo) => FieldName::PseudoField(pseudo),
                None => FieldName::of(FieldId::from_name(&text), &text),
            };
            let indexing = match input.byte() % 5 {
                0 => Indexing::Index,
                1 => Indexing::IfRepeated,
                2 => Indexing::NoIndex,
                3 => Indexing::Never,
                _ => Indexing::of(name, &value),
            };
            encoder.encode(&mut block, name, &value, indexing);
            said.push((text.to_ascii_lowercase(), value));
        }
        let (outcome, fields) = run(&mut decoder, &block, u32::MAX);
        assert!(
            matches!(outcome, Ok(BlockOutcome::Complete { .. })),
            "{outcome:?}"
        );
        assert_eq!(fields, said);
        assert_eq!(theirs.decode(&block).unwrap(), said);
    }
}

/// Takes values from the front of the input; zeros at its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    fn name(&mut self) -> Vec<u8> {
        const NAMES: [&str; 24] = [
            ":method",
            ":path",
            ":status",
            ":authority",
            ":protocol",
            ":scheme",
            "Host",
            "Content-Type",
            "x-a",
            "X-A",
            "x-b",
            "Cookie",
            "Authorization",
            "set-cookie",
            "via",
            "from",
            "Refresh",
            "access-control-allow-origin",
            "strict-transport-security",
            "accept-encoding",
            "x-request-id",
            "traceparent",
            "content-length",
            "date",
        ];
        let byte = self.byte();
        match NAMES.get(usize::from(byte)) {
            Some(name) => name.as_bytes().to_vec(),
            None => self.text(usize::from(byte) % 16 + 1),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        const VALUES: [&str; 8] = [
            "GET",
            "/",
            "200",
            "https",
            "gzip, deflate",
            "a",
            "",
            "text/html",
        ];
        let byte = self.byte();
        match VALUES.get(usize::from(byte)) {
            Some(value) => value.as_bytes().to_vec(),
            None if byte < 0xe0 => self.text(usize::from(byte) % 40),
            None => self.text(2).repeat(usize::from(byte & 0x1f) * 40),
        }
    }

    fn text(&mut self, len: usize) -> Vec<u8> {
        let (text, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        text.to_vec()
    }
}
