//! The JSON schema of a configuration file, for editors.

use crate::decode::kind::TableKind;
use crate::decode::shape::{FieldInfo, Shape, TableInfo, list_tables};
use crate::file::RawFile;
use crate::text::json::Json;

/// The JSON schema (draft 2020-12) of a configuration file, indented, with a newline at the end.
///
/// It accepts every file that [`crate::parse`] accepts. It refuses unknown keys, wrong types and most malformed values,
/// but does not check names that refer to each other.
#[must_use]
pub fn schema() -> String {
    let tables = list_tables(RawFile::info());
    let mut members = vec![
        (
            "$schema".to_owned(),
            Json::text("https://json-schema.org/draft/2020-12/schema"),
        ),
        ("title".to_owned(), Json::text("Weir configuration")),
    ];
    let (file, rest) = match tables.split_first() {
        Some((file, rest)) => (Some(file), rest),
        None => (None, [].as_slice()),
    };
    members.extend(file.into_iter().flat_map(table_members));
    let definitions = rest
        .iter()
        .map(|table| (table.name, Json::Object(table_members(table))));
    members.push(("$defs".to_owned(), Json::object(definitions)));
    format!("{}\n", Json::Object(members))
}

fn table_members(table: &TableInfo) -> Vec<(String, Json)> {
    let properties = table
        .fields
        .iter()
        .map(|field| (field.key, property(field)));
    let required = table.fields.iter().filter(|field| field.required);
    let required: Vec<_> = required.map(|field| Json::text(field.key)).collect();
    let mut members = vec![
        ("description".to_owned(), Json::text(table.doc.trim())),
        ("type".to_owned(), Json::text("object")),
        ("properties".to_owned(), Json::object(properties)),
        ("additionalProperties".to_owned(), Json::Bool(false)),
    ];
    if !required.is_empty() {
        members.push(("required".to_owned(), Json::List(required)));
    }
    members
}

fn property(field: &FieldInfo) -> Json {
    let mut members = vec![("description".to_owned(), Json::text(field.doc.trim()))];
    if let Some(default) = &field.default {
        members.push(("default".to_owned(), default.value.clone()));
    }
    members.extend(shape_members(&field.shape));
    Json::Object(members)
}

fn shape_members(shape: &Shape) -> Vec<(String, Json)> {
    let members = match shape {
        Shape::Text {
            pattern, examples, ..
        } => {
            let mut members = vec![("type", Json::text("string"))];
            members.extend(pattern.map(|pattern| ("pattern", Json::text(pattern))));
            if !examples.is_empty() {
                let examples = examples.iter().map(Json::text).collect();
                members.push(("examples", Json::List(examples)));
            }
            members
        }
        Shape::Integer { min, max } => vec![
            ("type", Json::text("integer")),
            ("minimum", number(*min)),
            ("maximum", number(*max)),
        ],
        Shape::Boolean => vec![("type", Json::text("boolean"))],
        Shape::Choice(words) => {
            vec![("enum", Json::List(words.iter().map(Json::text).collect()))]
        }
        Shape::List(each) => vec![("type", Json::text("array")), ("items", shape_json(each))],
        Shape::AnyOf(shapes) => {
            vec![("anyOf", Json::List(shapes.iter().map(shape_json).collect()))]
        }
        Shape::Named { value, .. } => vec![
            ("type", Json::text("object")),
            ("additionalProperties", shape_json(value)),
        ],
        Shape::Table(info) => {
            vec![("$ref", Json::Text(format!("#/$defs/{}", info().name)))]
        }
    };
    members
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn shape_json(shape: &Shape) -> Json {
    Json::Object(shape_members(shape))
}

fn number(number: u64) -> Json {
    Json::Number(i64::try_from(number).unwrap_or(i64::MAX))
}
