//! Case files, and the driver that runs them. The expected output is in the files.

use weir_proto_h1::FieldId;
use weir_proto_h2::hpack::*;

use crate::cases::{self, show, unescape};

/// A case: a list of steps.
pub(crate) type Case = cases::Case<Vec<Step>>;

/// A step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sets the list limit.
    List(u32),
    /// Sets the limit of the table's size.
    Setting(u32),
    /// Decodes a block.
    Block(Vec<u8>),
    /// Lists the entries of the decoder's table.
    Entries,
    /// Encodes fields: the indexing, name and value of each.
    Fields(Vec<(String, Vec<u8>, Vec<u8>)>),
}

/// Reads every case under `tests/hpack/cases`.
pub(crate) fn load() -> Vec<Case> {
    cases::load("tests/hpack/cases", |steps: &mut Vec<Step>, key, value| {
        let step = match key {
            "list" => Step::List(value.parse().unwrap()),
            "setting" => Step::Setting(value.parse().unwrap()),
            "block" => Step::Block(wire(value, 1)),
            "show" => Step::Entries,
            "fields" => Step::Fields(value.split(" | ").map(field).collect()),
            _ => match (key.strip_prefix("more*"), steps.last_mut()) {
                (Some(times), Some(Step::Block(block))) => {
                    block.extend(wire(value, times.parse().unwrap()));
                    return true;
                }
                _ => return false,
            },
        };
        steps.push(step);
        true
    })
}

/// `KIND NAME: VALUE`.
fn field(text: &str) -> (String, Vec<u8>, Vec<u8>) {
    let (kind, field) = text.split_once(' ').unwrap();
    let at = 1 + field[1..].find(": ").unwrap();
    (
        kind.into(),
        unescape(&field[..at]),
        unescape(&field[at + 2..]),
    )
}

/// Parses hexadecimal digits with optional spaces, and quoted text.
pub(crate) fn wire(text: &str, times: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, part) in text.split('"').enumerate() {
        if number % 2 == 1 {
            out.extend(unescape(part));
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).unwrap();
            out.push(u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{text}: {pair}")));
        }
    }
    out.repeat(times)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and value of a field.
pub(crate) type NameValue = (Vec<u8>, Vec<u8>);

/// The result of decoding a block.
pub(crate) type Verdict = Result<BlockOutcome<()>, Error>;

/// Decodes a block and checks what must hold for every field.
pub(crate) fn decode(
    decoder: &mut Decoder,
    block: &[u8],
    list_bytes_max: u32,
) -> (Verdict, Vec<(NameValue, DecodedField)>) {
    const BEFORE: &[u8] = b"what was there";
    let (mut text, mut fields) = (BEFORE.to_vec(), Vec::new());
    let outcome = decoder.decode(block, &mut text, list_bytes_max, |text, field| {
        assert_eq!(field.name.end, field.value.start);
        let (name, value) = (field.name.get(text), field.value.get(text));
        assert_eq!(field.pseudo, PseudoField::from_name(name));
        assert_eq!(field.id, FieldId::from_name(name));
        fields.push(((name.to_vec(), value.to_vec()), field));
        Ok(())
    });
    assert!(text.starts_with(BEFORE));
    if outcome.is_ok() {
        let stored: usize = fields.iter().map(|((n, v), _)| n.len() + v.len()).sum();
        assert_eq!(text.len(), BEFORE.len() + stored);
        assert!(stored + 32 * fields.len() <= list_bytes_max as usize);
    }
    (outcome, fields)
}

/// The entries of a decoder's table, decoded by index.
pub(crate) fn entries(decoder: &Decoder) -> Vec<NameValue> {
    let mut decoder = decoder.clone();
    let mut entries = Vec::new();
    for index in 62u32.. {
        let mut block = Vec::new();
        match index {
            ..127 => block.push(0x80 | index as u8),
            _ => {
                let rest = index - 127;
                block.extend([0xff, rest as u8 | 0x80, (rest >> 7) as u8]);
            }
        }
        let (outcome, fields) = decode(&mut decoder, &block, u32::MAX);
        match outcome {
            Ok(_) => entries.extend(fields.into_iter().map(|(plain, _)| plain)),
            Err(error) => {
                assert_eq!(error, Error::BadIndex);
                break;
            }
        }
    }
    entries
}

pub(crate) fn name(text: &[u8]) -> FieldName<'_> {
    match PseudoField::from_name(text) {
        Some(pseudo) => FieldName::PseudoField(pseudo),
        None => FieldName::of(FieldId::from_name(text), text),
    }
}

/// Runs a case. Returns decoded fields, and encoded blocks as hexadecimal digits.
pub(crate) fn run(case: &Case) -> Vec<String> {
    let mut out = Vec::new();
    let (mut decoder, mut encoder) = (Decoder::new(TABLE_BYTES), Encoder::new());
    let mut list_bytes_max = 16 * 1024;
    for step in &case.body {
        match step {
            Step::List(bytes) => list_bytes_max = *bytes,
            Step::Setting(bytes) => {
                decoder.set_table_bytes_max(*bytes);
                encoder.set_table_bytes_max(*bytes);
            }
            Step::Block(block) => {
                let (outcome, fields) = decode(&mut decoder, block, list_bytes_max);
                for ((name, value), field) in fields {
                    let kind = match (field.is_sensitive, field.is_valid) {
                        (false, true) => "field",
                        (false, false) => "invalid",
                        (true, true) => "sensitive",
                        (true, false) => "sensitive invalid",
                    };
                    out.push(format!("{kind} {}: {}", show(&name), show(&value)));
                }
                match outcome {
                    Ok(BlockOutcome::Complete { list_bytes }) => {
                        out.push(format!("end {list_bytes}"))
                    }
                    Ok(other) => out.push(format!("{other:?}")),
                    Err(error) => {
                        out.push(format!("error {error}"));
                        return out;
                    }
                }
            }
            Step::Entries => {
                for (name, value) in entries(&decoder) {
                    out.push(format!("entry {}: {}", show(&name), show(&value)));
                }
            }
            Step::Fields(fields) => {
                let mut block = Vec::new();
                for (kind, text, value) in fields {
                    let name = name(text);
                    let indexing = match kind.as_str() {
                        "index" => Indexing::Index,
                        "repeated" => Indexing::IfRepeated,
                        "no" => Indexing::NoIndex,
                        "never" => Indexing::Never,
                        "policy" => Indexing::of(name, value),
                        _ => panic!("unknown kind {kind}"),
                    };
                    encoder.encode(&mut block, name, value, indexing);
                }
                out.push(hex(&block));
                // The decoder reads every encoded block, so that it stays in step.
                let (outcome, read) = decode(&mut decoder, &block, u32::MAX);
                assert!(matches!(outcome, Ok(BlockOutcome::Complete { .. })));
                let read: Vec<_> = read.into_iter().map(|(plain, _)| plain).collect();
                let said: Vec<_> = fields
                    .iter()
                    .map(|(_, n, v)| (n.to_ascii_lowercase(), v.clone()))
                    .collect();
                assert_eq!(read, said);
            }
        }
    }
    out
}
