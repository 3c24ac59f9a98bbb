//! Text with placeholders that requests fill in.

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;

/// Placeholders that every pattern text may use; parameters of a match cannot have these names.
pub(crate) const RESERVED: [&str; 4] = ["host", "path", "query", "rest"];

/// Text with placeholders, filled from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceholderText(pub Vec<TextPiece>);

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
    /// `{rest}`: what the star of the match took.
    Rest,
    /// `{name}`: what this parameter of the match took.
    Parameter(String),
}

/// A text with placeholders: where a redirect leads, or a path built anew.
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
                return Err(Problem::new("only visible ASCII characters make up a URL")
                    .at(
                        at + bad,
                        plain[bad..].chars().next().map_or(1, char::len_utf8),
                    )
                    .help("encode others with a percent sign: \"%20\" is a space"));
            }
            if !plain.is_empty() {
                pieces.push(TextPiece::Text(plain.to_owned()));
            }
            if after.is_empty() {
                break;
            }
            let close = after.find('}').filter(|_| after.starts_with('{'));
            let Some(close) = close else {
                return Err(Problem::new("a brace without its partner")
                    .at(at + plain_end, 1)
                    .help(
                        "braces hold placeholders: {host}, {path}, {query}, {rest} or a parameter",
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
                    return Err(Problem::new(format!("`{{{name}}}` is no placeholder"))
                        .at(at + plain_end, close + 1)
                        .help("{host}, {path}, {query}, {rest} or a parameter of the match"));
                }
            });
            rest = &after[close + 1..];
        }
        if pieces.is_empty() {
            return Err(Problem::new("an empty text"));
        }
        Ok(PlaceholderText(pieces))
    }
}

/// A path with placeholders, on its way upstream.
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
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Whether what a file says itself, without what requests fill in, has a dot segment.
pub(crate) fn has_dot_segment(pattern: &PlaceholderText) -> bool {
    let text = pattern.0.iter().map(|piece| match piece {
        TextPiece::Text(text) => text.as_str(),
        _ => "{}",
    });
    let text = text
        .collect::<String>()
        .replace("%2e", ".")
        .replace("%2E", ".");
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests;
