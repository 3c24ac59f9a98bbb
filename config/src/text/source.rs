//! The text of a file, and the lines of offsets in it.

use std::ops::Range;

/// A range of byte offsets in the text.
pub(crate) type Span = Range<usize>;

/// A file's name and text, with an index of its lines.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    name: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(name: &'t str, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name,
            text,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    pub(crate) fn name(&self) -> &'t str {
        self.name
    }

    /// The text of `span`; empty if it is out of range or splits a character.
    pub(crate) fn slice(&self, span: Span) -> &'t str {
        self.text.get(span).unwrap_or("")
    }

    /// The line of `offset`, from 1.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// The text of the line that `offset` is in, without its end, and that line's first offset.
    pub(crate) fn line_text(&self, offset: usize) -> (usize, &'t str) {
        let index = self.line(offset).saturating_sub(1) as usize;
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let end = self.line_starts.get(index + 1).copied();
        let line = self.slice(start..end.unwrap_or(self.text.len()));
        (start, line.trim_end_matches(['\n', '\r']))
    }
}
