//! The text of a file without its secrets, to show it to operators and programs.

use toml::de::{DeTable, DeValue};

use crate::decode::decoder::Value;
use crate::text::source::Span;

/// Parts of the names of keys whose values are secret, without case and punctuation.
const SECRET_NAMES: [&str; 13] = [
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "keys",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "session",
    "token",
    "users",
];

/// Ends of the names of keys that say where a secret is, not what it is.
const PLACE_NAMES: [&str; 3] = ["file", "files", "url"];

const REDACTED: &str = "\"REDACTED\"";

/// The text of a valid file without comments and without the values that may be secret: those of keys with names such as
/// `password` and `authorization`, credentials in URLs, and keys in PEM form. It errs on the side of hiding.
#[must_use]
pub fn redact(text: &str) -> String {
    let (tree, _) = DeTable::parse_recoverable(text);
    let mut found = Strings::default();
    found.read_table(tree.get_ref(), false);
    found.all.sort_by_key(|string| string.span.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for string in found.all {
        // A key of a dotted name comes once for each of its tables.
        if string.span.start < at {
            continue;
        }
        let between = text.get(at..string.span.start).unwrap_or_default();
        push_without_comments(&mut out, between);
        let own = text.get(string.span.clone()).unwrap_or_default();
        out.push_str(if string.is_secret { REDACTED } else { own });
        at = string.span.end;
    }
    push_without_comments(&mut out, text.get(at..).unwrap_or_default());
    out
}

/// Copies text that has no strings, without its comments.
fn push_without_comments(out: &mut String, text: &str) {
    for line in text.split_inclusive('\n') {
        match line.split_once('#') {
            None => out.push_str(line),
            Some((code, _)) => {
                out.push_str(if code.trim().is_empty() {
                    code
                } else {
                    code.trim_end()
                });
                if line.ends_with('\n') {
                    out.push('\n');
                }
            }
        }
    }
}

/// The keys and strings of a file.
#[derive(Default)]
struct Strings {
    all: Vec<FoundString>,
}

struct FoundString {
    span: Span,
    is_secret: bool,
}

impl Strings {
    fn read_table(&mut self, table: &DeTable<'_>, is_secret: bool) {
        for (key, value) in table {
            self.all.push(FoundString {
                span: key.span(),
                is_secret: false,
            });
            self.read(value, is_secret || names_secret(key.get_ref()));
        }
    }

    fn read(&mut self, value: &Value<'_>, is_secret: bool) {
        match value.get_ref() {
            DeValue::Table(table) => self.read_table(table, is_secret),
            DeValue::Array(list) => list.iter().for_each(|each| self.read(each, is_secret)),
            DeValue::String(text) => self.all.push(FoundString {
                span: value.span(),
                is_secret: is_secret || is_secret_text(text),
            }),
            _ => {}
        }
    }
}

fn fold(name: &str) -> String {
    let plain = name.chars().filter(char::is_ascii_alphanumeric);
    plain.map(|c| c.to_ascii_lowercase()).collect()
}

fn names_secret(name: &str) -> bool {
    let name = fold(name);
    SECRET_NAMES.iter().any(|part| name.contains(part))
        && !PLACE_NAMES.iter().any(|end| name.ends_with(end))
}

/// Whether a string looks secret by itself: credentials, a URL with a user or a secret parameter, a key.
fn is_secret_text(text: &str) -> bool {
    let lower = text.trim_start().to_ascii_lowercase();
    let begins = ["bearer ", "basic ", "-----begin"];
    if begins.iter().any(|start| lower.starts_with(start)) {
        return true;
    }
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let authority = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return true;
    }
    let query = text.split_once('?').map(|(_, query)| query);
    let mut parameters = query.into_iter().flat_map(|query| query.split('&'));
    parameters.any(|parameter| {
        let name = parameter.split_once('=').map(|(name, _)| name);
        name.is_some_and(names_secret)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_comments_are_hidden() {
        let text = r##"
# password = "hunter1"
admin = { address = "127.0.0.1:9901", token_file = "/etc/weir/token" } # hunter2
[upstream."a#b"]
servers = ["10.0.0.1:80"] # hunter3
[[route]]
match = { path = "/#x", cookies = { id = "hunter4" } }
headers.set = { Authorization = "hunter5", x-api-key = ["hunter6"], x-note = "it's # no comment", x-old = "Basic hunter7" }
forward_auth = "http://user:hunter8@10.0.0.1/check"
redirect = "https://example.com/?a=1&api_key=hunter9"
secret = """
hunter10 # hunter11
"""
"##;
        let shown = redact(text);
        assert!(!shown.contains("hunter"), "{shown}");
        for kept in [
            "token_file = \"/etc/weir/token\"",
            "[upstream.\"a#b\"]\nservers = [\"10.0.0.1:80\"]\n",
            "path = \"/#x\"",
            "x-note = \"it's # no comment\"",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(shown.lines().count(), text.lines().count() - 2);
    }

    #[test]
    fn a_file_without_secrets_stays_as_it_is() {
        let text =
            "cores = 2\n\n[upstream]\na = ['10.0.0.1:80']\n[[route]]\nmatch = \"/*\"\nto = \"a\"\n";
        assert_eq!(redact(text), text);
    }
}
