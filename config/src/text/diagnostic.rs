//! Diagnostics: errors and warnings about a file, as text for people and as JSON for editors. Each carries the file's name
//! and the line that it is about, so it outlives the file's text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::text::json::Json;
use crate::text::source::{Source, Span};

/// The most diagnostics to keep; the rest are counted.
pub const DIAGNOSTICS_MAX: usize = 100;

/// The most characters of a line to show, around the mark.
const SHOWN_CHARS_MAX: usize = 120;

/// The most bytes of a line that an excerpt keeps, around the mark.
const LINE_BYTES_KEPT: usize = 4096;

/// Characters before the mark in the excerpt of a longer line.
const CHARS_KEPT_BEFORE: usize = 2 * SHOWN_CHARS_MAX;

/// An error or a warning about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used.
    pub severity: Severity,
    /// The kind of mistake.
    pub code: Code,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// The file's name as given to [`crate::parse`]; empty without a file.
    pub file: String,
    /// The line that it is about; `None` for the file as a whole.
    pub excerpt: Option<Excerpt>,
    /// What to do; each entry is a paragraph.
    pub help: Vec<String>,
}

/// Whether a file with the diagnostic can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not do what it should.
    Warning,
}

/// Kinds of mistakes; their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not TOML.
    Syntax,
    /// A key that Weir does not know.
    UnknownKey,
    /// A required key that is absent.
    MissingKey,
    /// A value of the wrong type, such as a number without a unit.
    WrongType,
    /// A value of the right type that is malformed or out of bounds.
    BadValue,
    /// A name that the file does not define.
    UnknownName,
    /// Something that occurs twice.
    Duplicate,
    /// A route or limit that can never apply.
    Unreachable,
    /// Two settings that exclude each other.
    Conflict,
    /// A setting without effect where it is.
    NoEffect,
    /// Something that nothing uses.
    Unused,
    /// A file that the configuration names cannot be used, or not for much longer.
    NamedFile,
    /// A protection that is switched off.
    Unsafe,
    /// More diagnostics than are shown.
    TooMany,
    /// The file cannot be read.
    File,
    /// A host name without an address.
    Unresolved,
    /// Something that cannot be compiled as the file describes it.
    Plan,
    /// A `[[test]]` that fails.
    Test,
    /// Something that this machine lacks or forbids.
    Machine,
}

/// A marked part of a line, as a diagnostic shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The number of marked characters, at least 1.
    pub length: u32,
    /// The line, or the part around the mark if it is very long.
    pub text: String,
    /// Characters of the line before `text`.
    skipped: u32,
    /// The words beside the mark; may be empty.
    pub label: String,
}

/// A position in a file, for diagnostics that are made after the file was read: see [`SourceFile`]. The default is no
/// position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The line, from 1; 0 without a file.
    pub line: u32,
    pub(crate) span: Span,
}

impl Position {
    /// The position of the bytes `span` of a text, whose first one is in `line`, from 1.
    #[must_use]
    pub fn new(line: u32, span: std::ops::Range<usize>) -> Self {
        Self { line, span }
    }
}

impl Diagnostic {
    /// A diagnostic about `span` of `source`.
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

    /// Sets the words beside the mark.
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

    /// The text without the severity, for a log whose lines have one.
    #[must_use]
    pub fn to_log(&self) -> String {
        let text = self.to_string();
        let severity = format!("{}: ", self.severity.as_str());
        text.strip_prefix(&severity).unwrap_or(&text).to_owned()
    }

    /// Whether it makes the file unusable.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Whether this is the same warning as `other`, about another place of the same file.
    fn repeats(&self, other: &Self) -> bool {
        let label = |each: &Self| each.excerpt.as_ref().map(|at| at.label.clone());
        !self.is_error()
            && label(self).is_some()
            && label(self) == label(other)
            && (
                self.severity,
                self.code,
                &self.message,
                &self.file,
                &self.help,
            ) == (
                other.severity,
                other.code,
                &other.message,
                &other.file,
                &other.help,
            )
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

/// A file's text, for diagnostics that come after reading, such as a name without an address.
#[derive(Debug)]
pub struct SourceFile<'t>(Source<'t>);

impl<'t> SourceFile<'t> {
    /// The file `name` with this `text`.
    #[must_use]
    pub fn new(name: &'t str, text: &'t str) -> Self {
        Self(Source::new(name, text))
    }

    /// An error at `position`.
    #[must_use]
    pub fn error(&self, position: &Position, code: Code, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Error, position, code, message.into())
    }

    /// A warning at `position`.
    #[must_use]
    pub fn warning(
        &self,
        position: &Position,
        code: Code,
        message: impl Into<String>,
    ) -> Diagnostic {
        self.diagnostic(Severity::Warning, position, code, message.into())
    }

    fn diagnostic(
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

/// The first [`DIAGNOSTICS_MAX`] of `all`, in their order, with room for errors first; and one that counts the rest.
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
    all.extend(count_more(
        &file,
        errors - errors_kept,
        warnings - warnings_kept,
    ));
    all
}

/// A diagnostic that counts the diagnostics left out, if any.
pub(crate) fn count_more(file: &str, errors: usize, warnings: usize) -> Option<Diagnostic> {
    let counted = count_words(errors, warnings, " more");
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
fn count_words(errors: usize, warnings: usize, more: &str) -> Vec<String> {
    [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| format!("{count}{more} {noun}{}", if count == 1 { "" } else { "s" }))
        .collect()
}

/// Renders diagnostics as a JSON array, one object each, for editors and scripts.
///
/// Members: `severity`, `code`, `message`, `file`, `help` (a list); and, unless it is about the file as a whole, `line`
/// and `column` (from 1), `length` (in characters), `text`, `label`.
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> String {
    Json::List(diagnostics.iter().map(Diagnostic::to_json).collect()).to_string()
}

/// Says where else the same was found.
fn more_places(lines: &[u32]) -> Option<String> {
    const LISTED_MAX: usize = 10;
    let listed = lines.iter().take(LISTED_MAX).map(u32::to_string);
    let listed = listed.collect::<Vec<_>>().join(", ");
    let more = if lines.len() > LISTED_MAX {
        ", ..."
    } else {
        ""
    };
    match lines.len() {
        0 => None,
        1 => Some(format!("and 1 more place: line {listed}")),
        count => Some(format!("and {count} more places: lines {listed}{more}")),
    }
}

/// Renders diagnostics as text, with empty lines between them and a count at the end. Warnings that differ only in their
/// place are shown once.
#[must_use]
pub fn to_text(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        let (before, after) = (
            diagnostics.iter().take(index),
            diagnostics.iter().skip(index),
        );
        if before.clone().any(|other| diagnostic.repeats(other)) {
            continue;
        }
        let places = after.skip(1).filter(|other| other.repeats(diagnostic));
        let more: Vec<u32> = places
            .filter_map(|other| Some(other.excerpt.as_ref()?.line))
            .collect();
        let mut shown = diagnostic.clone();
        shown.help.extend(more_places(&more));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{shown}");
    }
    let errors = diagnostics.iter().filter(|each| each.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let counted = count_words(errors, warnings, "");
    if !counted.is_empty() {
        let _ = writeln!(text, "{}", counted.join(", "));
    }
    text
}

impl fmt::Display for Diagnostic {
    /// Writes the message, the position, the line with the mark, and the advice, each on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {}",
            self.severity.as_str(),
            escape_hidden(&self.message)
        )?;
        let gutter = self
            .excerpt
            .as_ref()
            .map_or(0, |excerpt| excerpt.line.to_string().len());
        match &self.excerpt {
            None if self.file.is_empty() => {}
            None => writeln!(f, " --> {}", escape_hidden(&self.file))?,
            Some(excerpt) => {
                let pad = " ".repeat(gutter);
                let at = format!(
                    "{}:{}:{}",
                    escape_hidden(&self.file),
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
            writeln!(f, "{pad} = {}", escape_hidden(lines.next().unwrap_or("")))?;
            for line in lines {
                writeln!(
                    f,
                    "{}",
                    format!("{pad}   {}", escape_hidden(line)).trim_end()
                )?;
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
            // The whole file may be one line, and a file may have thousands of excerpts.
            _ => {
                let mut nearby = before.char_indices().rev();
                let from = nearby.nth(CHARS_KEPT_BEFORE).map_or(0, |(at, _)| at);
                let rest = text.get(from..).unwrap_or("");
                let mut ends = (0..=LINE_BYTES_KEPT).rev();
                let kept = ends.find_map(|end| rest.get(..end)).unwrap_or(rest);
                (kept, count_chars(before.get(..from).unwrap_or("")))
            }
        };
        Self {
            line: source.line(span.start),
            column: count_chars(before).saturating_add(1),
            length: count_chars(marked).max(1),
            text: text.to_owned(),
            skipped,
            label: String::new(),
        }
    }

    /// Writes the line and the mark below it; of a long line, the part around the mark.
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
            escape_hidden(&self.label)
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

/// `text` with escapes in place of characters that a terminal would act on instead of showing.
fn escape_hidden(text: &str) -> Cow<'_, str> {
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

/// Whether `c` is a control character or changes the direction of text.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn count_chars(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}
