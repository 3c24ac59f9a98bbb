//! Reading tables with known keys, and reporting keys that a table does not know.

use toml::de::{DeTable, DeValue};

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::{TableKind, ValueKind};
use crate::decode::shape::{FieldInfo, Shape, TableInfo, list_tables_with_key};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::text::suggest::nearest;

/// Reads the keys of one table.
pub(crate) struct TableReader<'v, 'i> {
    table: &'v DeTable<'i>,
    known: Vec<FieldInfo>,
    span: Span,
}

impl<'v, 'i> TableReader<'v, 'i> {
    /// A reader of `value`; reports a value that is not a table, and keys that `T` does not know.
    pub(crate) fn new<T: TableKind>(value: &'v Value<'i>, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            cx.wrong_type(value, "a table");
            return None;
        };
        let known = T::info();
        for (key, _) in table {
            let name: &str = key.get_ref();
            let is_known = known.fields.iter().any(|field| field.key == name);
            if !is_known && let Some(ours) = report_unknown_key(cx, key.span(), name, &known) {
                cx.note_suggestion(value.span(), ours);
            }
        }
        let span = value.span();
        Some(Self {
            table,
            known: known.fields,
            span,
        })
    }

    /// The span of the table.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Reads a key that may be absent. A value that cannot be read is reported and counts as absent, so that the rest of
    /// the table is still checked.
    pub(crate) fn optional<K: ValueKind>(
        &self,
        key: &str,
        cx: &mut Decoder<'_>,
    ) -> Option<K::Value> {
        let value = self.table.get(key)?;
        let before = cx.diagnostics_count();
        let found = cx.within(key, |cx| K::decode(value, cx));
        if cx.diagnostics_count() > before && means_off(value) {
            self.advise_off::<K>(key, cx);
        }
        if cx.diagnostics_count() > before && means_on(value) {
            advise_on(key, &K::shape(), cx);
        }
        found
    }

    /// Says how to switch `key` off, if its value was something like "none".
    fn advise_off<K: ValueKind>(&self, key: &str, cx: &mut Decoder<'_>) {
        let help = match K::shape() {
            shape if shape.takes("off") => "write \"off\"".to_owned(),
            shape if shape.takes_booleans() => "write false".to_owned(),
            shape if shape.has_example("0s") => "write \"0s\"".to_owned(),
            shape if shape.has_example("0%") => "write \"0%\"".to_owned(),
            shape => match self.known.iter().find(|field| field.key == key) {
                Some(field) if field.is_optional() => {
                    format!("for none, leave out `{key}`")
                }
                Some(field) if field.default.is_some() && !shape.is_integer() => {
                    format!("`{key}` cannot be switched off")
                }
                _ => return,
            },
        };
        cx.replace_last_help(help);
    }

    /// Reads a key that must be there, and reports its absence.
    pub(crate) fn required<K: ValueKind>(
        &self,
        key: &str,
        cx: &mut Decoder<'_>,
    ) -> Option<K::Value> {
        let found = self.optional::<K>(key, cx);
        if !self.table.contains_key(key) && !cx.has_suggested(&self.span, key) {
            let here = cx.here();
            cx.error(
                Code::MissingKey,
                self.span(),
                format!("`{key}` is missing {here}"),
            )
            .label(format!("expected {}", K::shape().in_words()));
        }
        found
    }
}

/// Says how to switch `key` on, if its value was something like "yes".
fn advise_on(key: &str, shape: &Shape, cx: &mut Decoder<'_>) {
    if shape.takes_booleans() {
        cx.replace_last_help(format!("write {key} = true"));
    } else if let Some(example) = shape.first_example() {
        cx.replace_last_help(format!("write a value of your own: {key} = \"{example}\""));
    }
}

/// Whether a value means "on" in other programs.
fn means_on(value: &Value<'_>) -> bool {
    const WORDS: [&str; 5] = ["on", "yes", "true", "enable", "enabled"];
    match value.get_ref() {
        DeValue::String(text) => WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)),
        DeValue::Boolean(is_on) => *is_on,
        _ => false,
    }
}

/// Whether a value means "off" in other programs.
fn means_off(value: &Value<'_>) -> bool {
    const WORDS: [&str; 16] = [
        "off",
        "none",
        "no",
        "never",
        "null",
        "nil",
        "false",
        "disable",
        "disabled",
        "unlimited",
        "infinite",
        "infinity",
        "inf",
        "0",
        "0s",
        "-1",
    ];
    match value.get_ref() {
        DeValue::String(text) => WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)),
        DeValue::Boolean(is_on) => !is_on,
        DeValue::Integer(number) => matches!(number.as_str(), "0" | "-1"),
        _ => false,
    }
}

/// Keys that Weir plans to have. A file that uses one has no slip in it, so nothing is suggested.
const PLANNED_KEYS: [&str; 8] = [
    "api_key",
    "api_keys",
    "cache",
    "oauth2",
    "oidc",
    "proxy_cache",
    "tcp",
    "udp",
];

/// Reports an unknown key; returns what was suggested in its place.
fn report_unknown_key(
    cx: &mut Decoder<'_>,
    span: Span,
    name: &str,
    known: &TableInfo,
) -> Option<String> {
    if cx.is_full() {
        cx.error(Code::UnknownKey, span, "unknown key");
        return None;
    }
    let here = cx.here();
    let keys = || known.fields.iter().map(|field| field.key);
    let all = known.list_keys();
    let home = list_tables_with_key(cx.root(), name);
    let dotted = cx.dotted_name(&span);
    let diagnostic = cx.error(
        Code::UnknownKey,
        span,
        format!("unknown key `{name}` {here}"),
    );
    if let Some(header) = dotted {
        diagnostic.help(format!("put a name with dots in quotes: {header}"));
        return None;
    }
    if PLANNED_KEYS.contains(&name) {
        diagnostic.label("this version of Weir does not have it yet");
        return None;
    }
    if let Some(ours) = known.written_here(name) {
        diagnostic.label(format!("write {ours}"));
        return Some(ours.to_owned());
    }
    if let Some(near) = nearest(name, keys()) {
        diagnostic.label(format!("did you mean `{near}`?"));
        return Some(format!("`{near}`"));
    }
    if !home.is_empty() {
        diagnostic.help(format!("`{name}` is a key of {}", home.join(", ")));
    }
    diagnostic.help(format!("known keys here: {all}"));
    None
}

/// The span of the value at `path`, if there is one.
pub(crate) fn find_span(root: &DeTable<'_>, path: &[&str]) -> Option<Span> {
    let (last, parents) = path.split_last()?;
    let mut table = root;
    for key in parents {
        table = table.get(*key)?.get_ref().as_table()?;
    }
    table.get(*last).map(toml::Spanned::span)
}

/// Whether there is no value, or only an empty table or list.
pub(crate) fn is_empty(value: Option<&Value<'_>>) -> bool {
    value.is_none_or(|value| match value.get_ref() {
        DeValue::Table(table) => table.is_empty(),
        DeValue::Array(list) => list.is_empty(),
        _ => false,
    })
}
