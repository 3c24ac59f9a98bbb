//! Texts with placeholders that requests fill in.

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;

/// Names of placeholders; no parameter of a match may have one.
pub(crate) const RESERVED: [&str; 4] = ["host", "path", "query", "rest"];

/// Text with placeholders that a request fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceholderText(pub Vec<TextPiece>);

impl PlaceholderText {
    /// Whether the text begins with one of these prefixes, whatever the request. They include `/`, because a path
    /// begins with it.
    pub(crate) fn begins_with_any(&self, prefixes: &[&str]) -> bool {
        match self.0.first() {
            Some(TextPiece::Text(text)) => prefixes.iter().any(|prefix| text.starts_with(prefix)),
            Some(TextPiece::Path) => true,
            _ => false,
        }
    }
}

/// A part of a [`PlaceholderText`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPiece {
    /// These characters.
    Text(String),
    /// `{host}`: the request's host without a port.
    Host,
    /// `{path}`: the request's path, with its leading slash.
    Path,
    /// `{query}`: the request's query with its question mark, or nothing.
    Query,
    /// `{rest}`: the part of the path that the star of the match takes.
    Rest,
    /// `{name}`: the segment of the path that this parameter of the match takes.
    Parameter(String),
}

/// A text with placeholders: the location of a redirect.
pub(crate) struct PlaceholderTextKind;

impl TextKind for PlaceholderTextKind {
    type Value = PlaceholderText;
    const NOUN: &'static str = "a text with placeholders";
    const EXAMPLES: &'static [&'static str] = &["https://{host}{path}{query}", "/v2/{rest}"];

    fn parse(text: &str) -> Result<PlaceholderText, Problem> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let plain_end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(plain_end);
            if let Some(bad) = plain.find(|c: char| !c.is_ascii_graphic()) {
                return Err(Problem::new("a URL consists of visible ASCII characters")
                    .at(
                        at + bad,
                        plain[bad..].chars().next().map_or(1, char::len_utf8),
                    )
                    .help("write others with a percent sign: \"%20\" is a space"));
            }
            if !plain.is_empty() {
                pieces.push(TextPiece::Text(plain.to_owned()));
            }
            if after.is_empty() {
                break;
            }
            let close = after.find('}').filter(|_| after.starts_with('{'));
            let Some(close) = close else {
                return Err(Problem::new("a brace is missing its partner")
                    .at(at + plain_end, 1)
                    .help(
                        "use braces for {host}, {path}, {query}, {rest} or a parameter of the match",
                    ));
            };
            let name = &after[1..close];
            pieces.push(match name {
                "host" => TextPiece::Host,
                "path" => TextPiece::Path,
                "query" => TextPiece::Query,
                "rest" => TextPiece::Rest,
                name if is_parameter_name(name) => TextPiece::Parameter(name.to_owned()),
                _ => {
                    return Err(Problem::new(format!("`{{{name}}}` is not a placeholder"))
                        .at(at + plain_end, close + 1)
                        .help("use {host}, {path}, {query}, {rest} or a parameter of the match"));
                }
            });
            rest = &after[close + 1..];
        }
        if pieces.is_empty() {
            return Err(Problem::new("the text is empty"));
        }
        Ok(PlaceholderText(pieces))
    }
}

/// A path with placeholders: the path that endpoints get.
pub(crate) struct PlaceholderPathKind;

impl TextKind for PlaceholderPathKind {
    type Value = PlaceholderText;
    const NOUN: &'static str = "a path with placeholders";
    const EXAMPLES: &'static [&'static str] = &["/v2/{rest}", "/users/{id}"];

    fn parse(text: &str) -> Result<PlaceholderText, Problem> {
        PlaceholderTextKind::parse(text)
    }
}

/// Whether a parameter may have this name.
pub(crate) fn is_parameter_name(name: &str) -> bool {
    let may_begin = |c: char| c.is_ascii_lowercase() || c == '_';
    name.starts_with(may_begin) && name.chars().all(|c| may_begin(c) || c.is_ascii_digit())
}

/// Whether the text has a dot segment, whatever requests fill in.
pub(crate) fn has_dot_segment(text: &PlaceholderText) -> bool {
    let pieces = text.0.iter().map(|piece| match piece {
        TextPiece::Text(text) => text.as_str(),
        _ => "{}",
    });
    let text = pieces
        .collect::<String>()
        .replace("%2e", ".")
        .replace("%2E", ".");
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests;
