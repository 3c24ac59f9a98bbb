//! Texts with placeholders that requests fill in.

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::braces::{BracePiece, split_braces};

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
        let no_partner = |at| {
            Problem::new("a brace is missing its partner")
                .at(at, 1)
                .help("use braces for {host}, {path}, {query}, {rest} or a parameter of the match")
        };
        let mut pieces = Vec::new();
        for (at, piece) in split_braces(text).map_err(no_partner)? {
            pieces.push(match piece {
                BracePiece::Text(plain) => {
                    check_graphic(plain, at)?;
                    TextPiece::Text(plain.to_owned())
                }
                // A URL contains no braces.
                BracePiece::Brace(_) => return Err(no_partner(at)),
                BracePiece::Name("host") => TextPiece::Host,
                BracePiece::Name("path") => TextPiece::Path,
                BracePiece::Name("query") => TextPiece::Query,
                BracePiece::Name("rest") => TextPiece::Rest,
                BracePiece::Name(name) if is_parameter_name(name) => {
                    TextPiece::Parameter(name.to_owned())
                }
                BracePiece::Name(name) => {
                    return Err(Problem::new(format!("`{{{name}}}` is not a placeholder"))
                        .at(at, piece.length())
                        .help("use {host}, {path}, {query}, {rest} or a parameter of the match"));
                }
            });
        }
        if pieces.is_empty() {
            return Err(Problem::new("the text is empty"));
        }
        Ok(PlaceholderText(pieces))
    }
}

/// Finds characters in `plain`, which begins at `at`, that a URL does not contain.
fn check_graphic(plain: &str, at: usize) -> Result<(), Problem> {
    match plain.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        None => Ok(()),
        Some((offset, bad)) => Err(Problem::new("a URL consists of visible ASCII characters")
            .at(at + offset, bad.len_utf8())
            .help("write others with a percent sign: \"%20\" is a space")),
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
