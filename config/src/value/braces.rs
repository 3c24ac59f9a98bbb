//! Texts with names in braces: `https://{host}{path}`.

/// A part of a text with names in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BracePiece<'t> {
    /// Characters without braces.
    Text(&'t str),
    /// A doubled brace, which stands for a single one: `{` or `}`.
    Brace(&'t str),
    /// What stands between an opening brace and the next closing one.
    Name(&'t str),
}

impl BracePiece<'_> {
    /// The bytes that the piece takes in the text.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Brace(_) => 2,
            Self::Name(name) => name.len() + 2,
        }
    }
}

/// The pieces of `text`, each with its offset.
///
/// # Errors
/// The offset of a brace without a partner.
pub(crate) fn split_braces(text: &str) -> Result<Vec<(usize, BracePiece<'_>)>, usize> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let piece = match rest.find(['{', '}']) {
            None => BracePiece::Text(rest),
            Some(0) => read_brace(rest).ok_or(at)?,
            Some(end) => BracePiece::Text(&rest[..end]),
        };
        pieces.push((at, piece));
        rest = &rest[piece.length()..];
    }
    Ok(pieces)
}

/// The piece that begins with the brace in front of `text`.
fn read_brace(text: &str) -> Option<BracePiece<'_>> {
    if text.starts_with("{{") || text.starts_with("}}") {
        return Some(BracePiece::Brace(&text[..1]));
    }
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    Some(BracePiece::Name(name))
}

#[cfg(test)]
mod tests {
    use super::BracePiece::{Brace, Name, Text};
    use super::*;

    #[test]
    fn pieces() {
        for (text, expected) in [
            ("", vec![]),
            ("a", vec![(0, Text("a"))]),
            ("{a}", vec![(0, Name("a"))]),
            (
                "a{b}c{}",
                vec![
                    (0, Text("a")),
                    (1, Name("b")),
                    (4, Text("c")),
                    (5, Name("")),
                ],
            ),
            (
                "{{a}}",
                vec![(0, Brace("{")), (2, Text("a")), (3, Brace("}"))],
            ),
            (
                "{{{a}}}",
                vec![(0, Brace("{")), (2, Name("a")), (5, Brace("}"))],
            ),
        ] {
            assert_eq!(split_braces(text), Ok(expected), "{text}");
        }
        for (text, at) in [
            ("{", 0),
            ("a}", 1),
            ("{a", 0),
            ("}{", 0),
            ("{a{b}}", 5),
            ("{a}}", 3),
        ] {
            assert_eq!(split_braces(text), Err(at), "{text}");
        }
    }
}
