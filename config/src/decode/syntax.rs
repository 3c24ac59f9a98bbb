//! Files that are not TOML: the parser's errors in plain words. The parser goes on after a mistake and stumbles over the
//! consequences, so only the first error of each statement is reported.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use crate::decode::decoder::Decoder;
use crate::text::source::Span;

/// Reports the `errors` that the parser found on its way to `tree`.
pub(crate) fn report_syntax_errors(
    text: &str,
    errors: &[Error],
    tree: &DeTable<'_>,
    cx: &mut Decoder<'_>,
) {
    if errors.is_empty() {
        return;
    }
    let statements = split_statements(text);
    let mut keys = None;
    let mut last_reported = None;
    // The parser lists errors in the order in which it found them.
    let mut errors: Vec<_> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
    for error in errors {
        let Some(span) = error.span() else {
            cx.syntax_error(None, None, error.message());
            continue;
        };
        let index = statements.partition_point(|one| one.range.start <= span.start);
        let index = index.checked_sub(1);
        if last_reported.is_some() && last_reported == index {
            continue;
        }
        last_reported = index;
        let statement = index.and_then(|index| statements.get(index));
        let range = statement.map(|one| one.range.clone());
        if let Some(open) = statement.and_then(|one| one.unclosed) {
            let (noun, end) = match text.as_bytes().get(open) {
                Some(b'{') => ("table", "}"),
                Some(b'[') => ("list", "]"),
                _ => ("text", text.get(open..open + 3).unwrap_or("\"\"\"")),
            };
            let message = format!("this {noun} does not end: `{end}` is missing");
            cx.syntax_error(Some(open..open + 1), range, &message);
            continue;
        }
        if cx.is_full() {
            cx.syntax_error(Some(span), range, error.message());
            continue;
        }
        let written = range.clone().and_then(|range| text.get(range));
        let written = written.unwrap_or("");
        let mut first = None;
        if error.message() == "duplicate key" {
            first = if written.starts_with('[') {
                find_same_header(text, &statements, index.unwrap_or(0), written)
            } else {
                let keys = keys.get_or_insert_with(|| list_keys(tree));
                find_first(keys, text, &span)
            };
        }
        let first = first.map(|at| cx.line(&(at..at)));
        let (message, help) = explain(text, error.message(), &span, written);
        let diagnostic = cx.syntax_error(Some(span), range, &message);
        if let Some(line) = first {
            diagnostic.help(format!("the first one is in line {line}"));
        }
        if let Some(help) = help {
            diagnostic.help(help);
        }
    }
}

/// The first header before `index` that is written like this one.
fn find_same_header(
    text: &str,
    statements: &[Statement],
    index: usize,
    written: &str,
) -> Option<usize> {
    let bare = |header: &str| {
        header
            .split('#')
            .next()
            .map(|header| header.trim().to_owned())
    };
    let wanted = bare(written);
    let mut before = statements.get(..index)?.iter();
    let same = before.find(|one| {
        let found = text.get(one.range.clone());
        found.is_some_and(|found| found.starts_with('[') && bare(found) == wanted)
    });
    same.map(|one| one.range.start)
}

/// The message of an error, in plainer words than the parser's for frequent mistakes, and advice.
fn explain(text: &str, message: &str, span: &Span, header: &str) -> (String, Option<String>) {
    let rest = text.get(span.start..).unwrap_or("");
    let line = rest.lines().next().unwrap_or("").trim();
    let clear = match message {
        "duplicate key" => {
            let key = text.get(span.clone()).unwrap_or("");
            return (format!("{key} occurs twice", key = quote_key(key)), None);
        }
        _ if has_colon(header) => "write `=` between a key and its value, not `:`",
        _ if message.starts_with("unexpected key or value, expected newline") => {
            "a line has one key: begin a new line for the next one"
        }
        _ if message.starts_with("invalid unquoted key")
            || message.contains("keys cannot be empty") =>
        {
            return explain_unquoted(message, header);
        }
        _ if message.starts_with("string values must be quoted") => match line {
            "" => "a value is missing",
            _ => "a string must be in quotes",
        },
        "invalid basic string, expected `\"`" => "this string does not end: `\"` is missing",
        "invalid literal string, expected `'`" => "this string does not end: `'` is missing",
        _ if is_about_numbers(message) && !is_number(text, span) => "a string must be in quotes",
        _ if message.starts_with("unclosed table") => "`]` is missing",
        _ if message.starts_with("unclosed array table") => "`]]` is missing",
        other => other,
    };
    (clear.to_owned(), None)
}

/// Whether a statement is `key: value`, as in YAML.
fn has_colon(statement: &str) -> bool {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let rest = statement.trim_start_matches(is_key);
    rest.len() < statement.len() && rest.trim_start_matches(' ').starts_with(':')
}

fn is_about_numbers(message: &str) -> bool {
    let kinds = ["float", "integer", "boolean", "date", "time"];
    let rest = message.strip_prefix("invalid ");
    rest.is_some_and(|rest| kinds.iter().any(|kind| rest.starts_with(kind)))
}

/// Whether the value around `span` looks like a number, not like an address or a word.
fn is_number(text: &str, span: &Span) -> bool {
    let ends = [' ', '\t', '\n', ',', '=', '[', ']', '{', '}', '#'];
    let before = text.get(..span.start).unwrap_or("");
    let begin = before.rfind(ends).map_or(0, |at| at + 1);
    let value = text.get(begin..).unwrap_or("");
    let value = value.split(ends).next().unwrap_or("");
    let digits = |c: char| c.is_ascii_digit() || "_+-.eExXoObB".contains(c);
    value.chars().all(digits) && value.matches('.').count() < 2
}

/// The message for a key that must be in quotes, which is usually an address.
fn explain_unquoted(message: &str, header: &str) -> (String, Option<String>) {
    let inner = header.trim().trim_start_matches('[').trim_end_matches(']');
    match inner.split_once('.') {
        Some((table, name)) if header.starts_with('[') && !name.contains(['"', '\'', '\n']) => (
            format!("`{name}` must be in quotes"),
            Some(format!("write [{table}.\"{name}\"]")),
        ),
        _ => (
            message.to_owned(),
            Some("put a key with other characters in quotes".to_owned()),
        ),
    }
}

fn quote_key(key: &str) -> String {
    format!("`{}`", key.trim_matches(['"', '\'']))
}

/// All keys of a tree with their offsets, in file order.
fn list_keys<'t>(tree: &'t DeTable<'_>) -> Vec<(usize, &'t str)> {
    fn add<'t>(table: &'t DeTable<'_>, keys: &mut Vec<(usize, &'t str)>) {
        for (key, value) in table {
            keys.push((key.span().start, key.get_ref()));
            add_value(value.get_ref(), keys);
        }
    }
    fn add_value<'t>(value: &'t DeValue<'_>, keys: &mut Vec<(usize, &'t str)>) {
        match value {
            DeValue::Table(table) => add(table, keys),
            DeValue::Array(list) => list.iter().for_each(|each| add_value(each.get_ref(), keys)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    add(tree, &mut keys);
    keys.sort_unstable();
    keys
}

/// The last key before `second` with the same name: keys of a table are close together.
fn find_first(keys: &[(usize, &str)], text: &str, second: &Span) -> Option<usize> {
    let name = text.get(second.clone())?.trim_matches(['"', '\'']);
    let before = keys.partition_point(|(at, _)| *at < second.start);
    let mut before = keys.get(..before)?.iter().rev();
    before.find(|(_, key)| *key == name).map(|(at, _)| *at)
}

/// A header or an assignment.
struct Statement {
    range: Range<usize>,
    /// The offset of a bracket or quote that nothing closes.
    unclosed: Option<usize>,
}

/// Splits a text into statements by its brackets and quotes.
fn split_statements(text: &str) -> Vec<Statement> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_whitespace() {
            at += 1;
        } else if byte == b'#' {
            at = line_end(bytes, at);
        } else {
            let (end, unclosed) = find_statement_end(bytes, at);
            found.push(Statement {
                range: at..end,
                unclosed,
            });
            at = end;
        }
    }
    found
}

/// The end of the statement that begins at `start`, which is the end of the line that closes its brackets; and the offset
/// of a bracket or quote that nothing closes.
fn find_statement_end(bytes: &[u8], start: usize) -> (usize, Option<usize>) {
    let is_header = bytes.get(start) == Some(&b'[');
    let mut open: Vec<usize> = Vec::new();
    // A bracket that a bracket of the other kind closes.
    let mut wrong = None;
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            // After a wrong bracket, the parser's reading of the rest is unpredictable.
            b'\n' if wrong.is_some() && open.is_empty() => return (bytes.len(), wrong),
            b'\n' if is_header || open.is_empty() => return (at + 1, None),
            b'#' => at = line_end(bytes, at),
            b'"' | b'\'' => match find_string_end(bytes, at) {
                Some(end) => at = end,
                None => return (bytes.len(), Some(at)),
            },
            b'[' | b'{' => {
                open.push(at);
                at += 1;
            }
            b']' | b'}' => {
                let opening = if byte == b']' { b'[' } else { b'{' };
                let last = open.pop().filter(|_| !is_header);
                let is_right = last.and_then(|last| bytes.get(last)) == Some(&opening);
                if !is_right {
                    wrong = wrong.or(last);
                    // `[{ ]` closes the outer one too.
                    let outer = open.last().and_then(|last| bytes.get(*last));
                    if outer == Some(&opening) {
                        open.pop();
                    }
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    let first = open.first().copied().filter(|_| !is_header);
    (bytes.len(), wrong.or(first))
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or(&[]);
    at + rest
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len())
}

/// The end of the string that begins at `at`, which is at most the end of its line unless it has triple quotes; with these it
/// may have none.
fn find_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = *bytes.get(at)?;
    let is_long = bytes.get(at..at + 3) == Some(&[quote; 3]);
    let mut end = at + if is_long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'\n' if !is_long => return Some(end),
            b'\\' if quote == b'"' && bytes.get(end + 1) != Some(&b'\n') => end += 2,
            byte if byte == quote && !is_long => return Some(end + 1),
            byte if byte == quote && bytes.get(end..end + 3) == Some(&[quote; 3]) => {
                return Some(end + 3);
            }
            _ => end += 1,
        }
    }
    (!is_long).then_some(bytes.len())
}
