//! The reference of all keys, as Markdown.

use std::fmt::Write as _;

use crate::decode::kind::TableKind;
use crate::decode::shape::{FieldInfo, Shape, TableInfo, list_tables};
use crate::file::RawFile;
use crate::text::json::Json;

/// The reference of every key: its values, its default, what it does, and the reason for the default. Markdown, with a
/// newline at the end.
#[must_use]
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for table in list_tables(RawFile::info()) {
        section(&mut text, &table);
    }
    text
}

const INTRODUCTION: &str = "\
# Configuration reference

Generated from the declarations that the decoder runs (`weir reference`). Do not edit.

A file is TOML. Some keys have a short form, which is a string, a number or a list, and a long \
form, which is a table. Unknown keys are errors.

- Durations: `5s`, `250ms`, `1m30s`; whole numbers with the units d, h, m, s, ms.
- Sizes: `16KiB`, `10MiB`, `1MB`; whole numbers with the units B, KB, MB, GB, TB (powers of 1000), \
KiB, MiB, GiB, TiB (powers of 1024).
- Rates: a size per second, `240B/s`. Shares: whole percent, `20%`.
- `\"off\"` switches a feature or a limit off, where the table lists it.

Settings merge: `timeouts`, `limits` and `retries` of the top level hold unless a listener, an \
upstream or a route overrides single keys; a route goes before its upstream.
";

fn section(text: &mut String, table: &TableInfo) {
    let title = match table.header {
        header if header.starts_with('[') => format!("`{header}`"),
        header => header.to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n## {title}\n\n{}\n\n", words(table.doc));
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let is_own = |field: &&FieldInfo| field.home_outside(table).is_none();
    for field in table.fields.iter().filter(is_own) {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            field.key,
            value(&field.shape),
            default(field),
            words(field.doc)
        );
    }
    if let Some(home) = table.shared_home() {
        let _ = writeln!(text, "\nAlso all keys of `{home}`.");
    }
    let sources: Vec<_> = table
        .fields
        .iter()
        .filter_map(|field| Some((field.key, field.default.as_ref()?.source)))
        .collect();
    if !sources.is_empty() {
        text.push_str("\nReasons for the defaults:\n\n");
        for (key, source) in sources {
            let _ = writeln!(text, "- `{key}`: {}.", source.trim_end_matches('.'));
        }
    }
}

fn default(field: &FieldInfo) -> String {
    match &field.default {
        Some(default) => format!("`{}`", json_line(&default.value)),
        None if field.required => "required".to_owned(),
        None => String::new(),
    }
}

fn json_line(json: &Json) -> String {
    match json {
        Json::List(items) => {
            let items: Vec<_> = items.iter().map(json_line).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// The valid values, for a table cell.
fn value(shape: &Shape) -> String {
    match shape {
        Shape::Text { noun, examples, .. } => match examples.first() {
            Some(example) => format!("{noun}: `\"{}\"`", example.replace('|', "\\|")),
            None => (*noun).to_owned(),
        },
        Shape::Integer { min, max } if min == max => min.to_string(),
        Shape::Integer { min, max } => format!("{min} to {max}"),
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Shape::List(each) => format!("list of: {}", value(each)),
        Shape::AnyOf(shapes) => {
            let shapes: Vec<_> = shapes.iter().map(value).collect();
            match shapes.as_slice() {
                [one, list] if *list == format!("list of: {one}") => format!("{one}; or a list"),
                shapes => shapes.join("; or "),
            }
        }
        Shape::Named { key, value: each } => format!("table, for each {key}: {}", value(each)),
        Shape::Table(info) => format!("table `{}`", info().name),
    }
}

/// A doc comment of several lines as one line, for a table cell.
fn words(doc: &str) -> String {
    let line = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|")
}
