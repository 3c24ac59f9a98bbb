//! What Weir says about a file: errors and warnings, as text for people and JSON for editors.
//!
//! Purpose: one form for everything that a file can have wrong. A diagnostic is self-contained:
//! it carries the file's name and the line it is about, so it outlives the text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::text::json::Json;
use crate::text::source::{Source, Span};

/// Diagnostics kept; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Characters of a source line that are shown; longer lines are cut around the mark.
const SHOWN_CHARS_MAX: usize = 120;

/// Bytes of a line that a place keeps, of a longer one around the place.
const LINE_BYTES_KEPT: usize = 4096;

/// Characters before the place that are kept then.
const CHARS_KEPT_BEFORE: usize = 2 * SHOWN_CHARS_MAX;

/// One thing that is wrong, or worth a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// The kind of trouble.
    pub code: Code,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The file's name as given to [`crate::parse`]; empty when there is no file.
    pub file: String,
    /// Where; absent when it is about the file as a whole.
    pub excerpt: Option<Excerpt>,
    /// What to do about it, and what else to know; one entry a paragraph.
    pub help: Vec<String>,
}

/// Whether a file can be used in spite of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably says something else than was meant.
    Warning,
}

/// Kinds of trouble; their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not TOML.
    Syntax,
    /// A key that Weir does not know.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A value of another type, a number without its unit for example.
    WrongType,
    /// A value of the right type that means nothing or is out of bounds.
    BadValue,
    /// A name that nothing in the file has.
    UnknownName,
    /// Said twice.
    Duplicate,
    /// A route or limit that can never apply.
    Unreachable,
    /// Two settings that exclude each other.
    Conflict,
    /// A setting that does nothing where it stands.
    NoEffect,
    /// Something that nothing refers to.
    Unused,
    /// A file that the configuration names cannot be used, or not for long.
    NamedFile,
    /// A protection that is switched off.
    Unsafe,
    /// More diagnostics than are shown.
    TooMany,
    /// The file cannot be read.
    File,
    /// A host name without an address.
    Unresolved,
    /// Something that cannot be built as it is described.
    Plan,
    /// A `[[test]]` that fails.
    Test,
    /// Something that this machine does not have or allow.
    Machine,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters are meant, at least 1, all on this line.
    pub length: u32,
    /// The line itself, or what is around the place where the line is very long.
    pub text: String,
    /// Characters of the line before `text`.
    skipped: u32,
    /// What to say under the mark: what was expected. May be empty.
    pub label: String,
}

/// Where something stands in a file, for what is found out about it after the file was read: see
/// [`SourceFile`]. The default is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The line, from 1; 0 when there is no file.
    pub line: u32,
    pub(crate) span: Span,
}

impl Diagnostic {
    /// A diagnostic about the place `span` of `source`.
    pub(crate) fn new(
        severity: Severity,
        code: Code,
        source: &Source<'_>,
        span: Option<Span>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            file: source.name().to_owned(),
            excerpt: span.map(|span| Excerpt::new(source, &span)),
            help: Vec::new(),
        }
    }

    /// Says under the mark what was expected.
    pub(crate) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.label = label.into();
        }
        self
    }

    /// Adds a paragraph of advice.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help.push(help.into());
        self
    }

    /// The text without its severity, for a log whose lines have one.
    #[must_use]
    pub fn to_log(&self) -> String {
        let text = self.to_string();
        let severity = format!("{}: ", self.severity.as_str());
        text.strip_prefix(&severity).unwrap_or(&text).to_owned()
    }

    /// Whether the file cannot be used because of this.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn to_json(&self) -> Json {
        let mut members = vec![
            ("severity", Json::text(self.severity.as_str())),
            ("code", Json::text(self.code.as_str())),
            ("message", Json::text(&self.message)),
            ("file", Json::text(&self.file)),
        ];
        if let Some(excerpt) = &self.excerpt {
            members.extend([
                ("line", Json::Number(excerpt.line.into())),
                ("column", Json::Number(excerpt.column.into())),
                ("length", Json::Number(excerpt.length.into())),
                ("text", Json::text(&excerpt.text)),
                ("label", Json::text(&excerpt.label)),
            ]);
        }
        members.push((
            "help",
            Json::List(self.help.iter().map(Json::text).collect()),
        ));
        Json::object(members)
    }
}

/// The places of a file, for what shows after it was read: that a name has no address, say.
#[derive(Debug)]
pub struct SourceFile<'t>(Source<'t>);

impl<'t> SourceFile<'t> {
    /// Those of the file `name` with this `text`.
    #[must_use]
    pub fn new(name: &'t str, text: &'t str) -> Self {
        Self(Source::new(name, text))
    }

    /// An error at `position`.
    #[must_use]
    pub fn error(&self, position: &Position, code: Code, message: impl Into<String>) -> Diagnostic {
        self.later(Severity::Error, position, code, message.into())
    }

    /// A warning at `position`.
    #[must_use]
    pub fn warning(
        &self,
        position: &Position,
        code: Code,
        message: impl Into<String>,
    ) -> Diagnostic {
        self.later(Severity::Warning, position, code, message.into())
    }

    fn later(
        &self,
        severity: Severity,
        position: &Position,
        code: Code,
        message: String,
    ) -> Diagnostic {
        let span = (position.line > 0).then(|| position.span.clone());
        Diagnostic::new(severity, code, &self.0, span, message)
    }
}

/// At most [`DIAGNOSTICS_MAX`] of `all`, errors before warnings but in the order that they have, and one that counts the
/// rest.
#[must_use]
pub fn bounded(mut all: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let errors = all.iter().filter(|each| each.is_error()).count();
    let warnings = all.len() - errors;
    let errors_kept = errors.min(DIAGNOSTICS_MAX);
    let warnings_kept = warnings.min(DIAGNOSTICS_MAX - errors_kept);
    let mut left = [errors_kept, warnings_kept];
    all.retain(|each| {
        let left = &mut left[usize::from(!each.is_error())];
        let is_kept = *left > 0;
        *left = left.saturating_sub(1);
        is_kept
    });
    let file = all
        .first()
        .map_or_else(String::new, |first| first.file.clone());
    all.extend(more(&file, errors - errors_kept, warnings - warnings_kept));
    all
}

/// Says how many diagnostics are not shown, if any.
pub(crate) fn more(file: &str, errors: usize, warnings: usize) -> Option<Diagnostic> {
    let counted = counted(errors, warnings, " more");
    if counted.is_empty() {
        return None;
    }
    let verb = if errors + warnings == 1 { "is" } else { "are" };
    let severity = if errors > 0 {
        Severity::Error
    } else {
        Severity::Warning
    };
    let message = format!("{} {verb} not shown", counted.join(" and "));
    let source = Source::new(file, "");
    Some(Diagnostic::new(
        severity,
        Code::TooMany,
        &source,
        None,
        message,
    ))
}

/// `2 more errors`, `1 more warning`.
fn counted(errors: usize, warnings: usize, more: &str) -> Vec<String> {
    [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| format!("{count}{more} {noun}{}", if count == 1 { "" } else { "s" }))
        .collect()
}

/// Renders diagnostics as a JSON array, one object each, for editors and scripts.
///
/// Members: `severity`, `code`, `message`, `file`, `help` (list), and, when there is a place,
/// `line`, `column` (both from 1), `length` (characters), `text`, `label`.
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> String {
    Json::List(diagnostics.iter().map(Diagnostic::to_json).collect()).to_string()
}

/// Renders diagnostics as text, an empty line between them and a count at the end.
#[must_use]
pub fn to_text(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{diagnostic}");
    }
    let errors = diagnostics.iter().filter(|each| each.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let counted = counted(errors, warnings, "");
    if !counted.is_empty() {
        let _ = writeln!(text, "{}", counted.join(", "));
    }
    text
}

impl fmt::Display for Diagnostic {
    /// Several lines: the message, the place, the line with a mark under it, the advice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity.as_str(), visible(&self.message))?;
        let gutter = self
            .excerpt
            .as_ref()
            .map_or(0, |excerpt| excerpt.line.to_string().len());
        match &self.excerpt {
            None if self.file.is_empty() => {}
            None => writeln!(f, " --> {}", visible(&self.file))?,
            Some(excerpt) => {
                let pad = " ".repeat(gutter);
                let at = format!(
                    "{}:{}:{}",
                    visible(&self.file),
                    excerpt.line,
                    excerpt.column
                );
                writeln!(f, "{pad} --> {at}")?;
                writeln!(f, "{pad} |")?;
                excerpt.draw(f, &pad)?;
            }
        }
        for help in &self.help {
            let pad = " ".repeat(gutter);
            let mut lines = help.lines();
            writeln!(f, "{pad} = {}", visible(lines.next().unwrap_or("")))?;
            for line in lines {
                writeln!(f, "{}", format!("{pad}   {}", visible(line)).trim_end())?;
            }
        }
        Ok(())
    }
}

impl Excerpt {
    pub(crate) fn new(source: &Source<'_>, span: &Span) -> Self {
        let (line_start, text) = source.line_text(span.start);
        let line_end = line_start + text.len();
        let before = source.slice(line_start..span.start.min(line_end));
        let marked = source.slice(span.start.min(line_end)..span.end.clamp(line_start, line_end));
        let (text, skipped) = match text.len() {
            0..=LINE_BYTES_KEPT => (text, 0),
            // A line may be the whole file, and each of thousands of places keeps its text.
            _ => {
                let mut nearby = before.char_indices().rev();
                let from = nearby.nth(CHARS_KEPT_BEFORE).map_or(0, |(at, _)| at);
                let rest = text.get(from..).unwrap_or("");
                let mut ends = (0..=LINE_BYTES_KEPT).rev();
                let kept = ends.find_map(|end| rest.get(..end)).unwrap_or(rest);
                (kept, count(before.get(..from).unwrap_or("")))
            }
        };
        Self {
            line: source.line(span.start),
            column: count(before).saturating_add(1),
            length: count(marked).max(1),
            text: text.to_owned(),
            skipped,
            label: String::new(),
        }
    }

    /// Draws the line and the mark, a window of it when it is long.
    fn draw(&self, f: &mut fmt::Formatter<'_>, pad: &str) -> fmt::Result {
        let column = self.column.saturating_sub(1).saturating_sub(self.skipped) as usize;
        let skipped = if column + 20 > SHOWN_CHARS_MAX {
            column - 40
        } else {
            0
        };
        let total = self.text.chars().count();
        let mut shown: String = self
            .text
            .chars()
            .skip(skipped)
            .take(SHOWN_CHARS_MAX)
            .map(|c| if is_hidden(c) { ' ' } else { c })
            .collect();
        let mut indent = column - skipped;
        if skipped > 0 {
            shown.insert_str(0, "...");
            indent += 3;
        }
        let room = SHOWN_CHARS_MAX.saturating_sub(column - skipped).max(1);
        if total > skipped + SHOWN_CHARS_MAX {
            shown.push_str("...");
        }
        writeln!(f, "{} | {}", self.line, shown.trim_end())?;
        let mark = "^".repeat((self.length as usize).min(room));
        let line = format!(
            "{pad} | {}{mark} {}",
            " ".repeat(indent),
            visible(&self.label)
        );
        writeln!(f, "{}", line.trim_end())
    }
}

impl Severity {
    /// Its name: `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Code {
    /// Its stable name, words joined by hyphens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::MissingKey => "missing-key",
            Self::WrongType => "wrong-type",
            Self::BadValue => "bad-value",
            Self::UnknownName => "unknown-name",
            Self::Duplicate => "duplicate",
            Self::Unreachable => "unreachable",
            Self::Conflict => "conflict",
            Self::NoEffect => "no-effect",
            Self::Unused => "unused",
            Self::NamedFile => "named-file",
            Self::Unsafe => "unsafe",
            Self::TooMany => "too-many",
            Self::File => "file",
            Self::Unresolved => "unresolved",
            Self::Plan => "plan",
            Self::Test => "test",
            Self::Machine => "machine",
        }
    }
}

/// `text` with escapes in place of characters that a terminal would obey instead of showing.
fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Control characters, and those that change the direction of text.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}
