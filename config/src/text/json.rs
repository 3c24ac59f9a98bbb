//! JSON output for the schema, the reference and the diagnostics.

use std::fmt;

/// A JSON value. Members keep the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().to_owned())
    }

    pub(crate) fn object<K: Into<String>>(members: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Object(members.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write_text(f, text),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                write_group(f, ('[', ']'), items, depth)
            }
            Self::Object(members) => {
                let members = members.iter().map(|(key, value)| (Some(key), value));
                write_group(f, ('{', '}'), members, depth)
            }
        }
    }
}

impl fmt::Display for Json {
    /// Writes it indented by two spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

fn write_group<'j>(
    f: &mut fmt::Formatter<'_>,
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = (Option<&'j String>, &'j Json)>,
    depth: usize,
) -> fmt::Result {
    if items.len() == 0 {
        return write!(f, "{open}{close}");
    }
    let mut lead = open;
    for (key, value) in items {
        write!(f, "{lead}\n{:1$}", "", 2 * (depth + 1))?;
        lead = ',';
        if let Some(key) = key {
            write_text(f, key)?;
            f.write_str(": ")?;
        }
        value.write(f, depth + 1)?;
    }
    write!(f, "\n{:1$}{close}", "", 2 * depth)
}

//= rfc8259#7: quotation mark, reverse solidus and control characters must be escaped.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
