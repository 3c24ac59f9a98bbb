//! The decoder: it knows the table at hand, and collects every mistake of the file. It never stops at the first: kinds
//! report what they cannot read and leave it out, so that the rest of the file is still checked.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::decode::shape::TableInfo;
use crate::text::diagnostic::{
    self, Code, DIAGNOSTICS_MAX, Diagnostic, Excerpt, Position, Severity,
};
use crate::text::problem::Problem;
use crate::text::source::{Source, Span};
use crate::text::suggest::nearest;

/// A value of the TOML tree, with its span.
pub(crate) type Value<'i> = toml::Spanned<DeValue<'i>>;

/// A value with its span in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// Reads a file and collects its diagnostics.
#[derive(Debug)]
pub(crate) struct Decoder<'t> {
    source: &'t Source<'t>,
    /// The table of the whole file.
    root: fn() -> TableInfo,
    /// Statements that are not TOML, in file order; other errors in them are noise.
    broken: Vec<Span>,
    is_broken: bool,
    /// The keys from the root to the value at hand.
    path: Vec<String>,
    /// Diagnostics that are kept, each with its offset in the file.
    diagnostics: Vec<(usize, Diagnostic)>,
    /// Problems that a setting has in several places.
    in_places: Vec<InPlaces>,
    /// What was suggested for unknown keys, by table; a suggested key is not reported as missing too.
    suggested: Vec<(Span, String)>,
    /// The last diagnostic that is not kept, so that callers may add to it.
    overflow: Option<Diagnostic>,
    errors: DiagnosticCount,
    warnings: DiagnosticCount,
}

/// Diagnostics of one severity: how many are kept, and how many are only counted.
#[derive(Debug, Default)]
struct DiagnosticCount {
    kept: usize,
    left_out: usize,
}

/// A problem that a setting has in several places.
#[derive(Debug)]
struct InPlaces {
    /// The offset of the setting.
    at: usize,
    problem: String,
    /// The first places, with commas between them.
    names: String,
    count: usize,
    /// The place of the diagnostic among those that are kept.
    index: usize,
}

/// The most places that a diagnostic names.
const PLACES_NAMED_MAX: usize = 5;

impl<'t> Decoder<'t> {
    /// A decoder of the file `source`, whose top level is the table `root`.
    pub(crate) fn new(source: &'t Source<'t>, root: fn() -> TableInfo) -> Self {
        Self {
            source,
            root,
            broken: Vec::new(),
            is_broken: false,
            path: Vec::new(),
            diagnostics: Vec::new(),
            in_places: Vec::new(),
            suggested: Vec::new(),
            overflow: None,
            errors: DiagnosticCount::default(),
            warnings: DiagnosticCount::default(),
        }
    }

    /// Reports that the file is not TOML at `span`, in the statement `broken`. Callers report statements in file order.
    pub(crate) fn syntax_error(
        &mut self,
        span: Option<Span>,
        broken: Option<Span>,
        message: &str,
    ) -> &mut Diagnostic {
        self.is_broken = true;
        self.broken.extend(broken);
        self.report(Severity::Error, Code::Syntax, span, message.to_owned())
    }

    /// Whether the file is not TOML: anything missing may be in the part that cannot be read.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn is_in_broken(&self, span: &Span) -> bool {
        let before = self.broken.partition_point(|one| one.start <= span.start);
        let last = before.checked_sub(1).and_then(|at| self.broken.get(at));
        last.is_some_and(|one| span.start < one.end)
    }

    /// Whether further errors are only counted, so that callers need not look for suggestions.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.kept >= DIAGNOSTICS_MAX
    }

    /// Whether there are errors so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors.kept > 0
    }

    /// The path of a file that this file names: a relative one begins at this file's folder.
    pub(crate) fn beside(&self, path: PathBuf) -> PathBuf {
        match Path::new(self.source.name()).parent() {
            Some(folder) => folder.join(path),
            None => path,
        }
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        // A missing key may be in the part of the file that is not TOML.
        if self.is_in_broken(&span) || code == Code::MissingKey && self.is_broken {
            return self.discarded(Severity::Error, code, message.into());
        }
        self.report(Severity::Error, code, Some(span), message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.report(Severity::Warning, code, Some(span), message.into())
    }

    /// Reports an error of the file as a whole.
    pub(crate) fn file_error(&mut self, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        self.report(Severity::Error, code, None, message.into())
    }

    /// Reports a problem that the setting at `span` has in `place`. Several places make one diagnostic, which names them
    /// behind `problem`.
    pub(crate) fn error_of(&mut self, span: Span, problem: &str, place: &str) -> &mut Diagnostic {
        let mut known = self.in_places.iter_mut();
        let known = known.find(|each| each.at == span.start && each.problem == problem);
        if let Some(each) = known {
            each.count += 1;
            each.names.push_str(&match each.count {
                ..=PLACES_NAMED_MAX => format!(", {place}"),
                _ => String::new(),
            });
            let mut message = format!("{problem} {}", each.names);
            let more = each.count.saturating_sub(PLACES_NAMED_MAX);
            if more > 0 {
                message.push_str(&format!(" and {more} more"));
            }
            let index = each.index;
            if let Some((_, diagnostic)) = self.diagnostics.get_mut(index) {
                diagnostic.message = message;
            }
            return self.discarded(Severity::Error, Code::MissingKey, String::new());
        }
        let before = self.diagnostics.len();
        let at = span.start;
        self.error(Code::MissingKey, span, format!("{problem} {place}"));
        if self.diagnostics.len() == before {
            return self.discarded(Severity::Error, Code::MissingKey, String::new());
        }
        self.in_places.push(InPlaces {
            at,
            problem: problem.to_owned(),
            names: place.to_owned(),
            count: 1,
            index: before,
        });
        &mut self.diagnostics[before].1
    }

    /// Reports a problem of the string `text` at `span`.
    pub(crate) fn problem(&mut self, span: Span, text: &str, problem: Problem) -> &mut Diagnostic {
        // In a string without escapes, offsets in the text are offsets in the file.
        let written = self.source.slice(span.clone());
        let first = if written == text {
            Some(span.start)
        } else {
            let verbatim = written.get(1..text.len() + 1) == Some(text);
            verbatim.then_some(span.start + 1)
        };
        let span = match (problem.at, first) {
            (Some(at), Some(first)) => first + at.start..first + at.end,
            _ => span,
        };
        let diagnostic = self.error(Code::BadValue, span, problem.message);
        if let Some(help) = problem.help {
            diagnostic.help(help);
        }
        diagnostic
    }

    /// Reports a value of the wrong type.
    pub(crate) fn wrong_type(&mut self, value: &Value<'_>, expected: &str) -> &mut Diagnostic {
        let found = describe(value.get_ref());
        self.error(
            Code::WrongType,
            value.span(),
            format!("expected {expected}, found {found}"),
        )
    }

    /// Reports that the file has no `noun` with this name, only those that are `known`.
    pub(crate) fn unknown_name<'n>(
        &mut self,
        name: &Spanned<String>,
        noun: &str,
        known: impl Iterator<Item = &'n str>,
    ) -> &mut Diagnostic {
        const LISTED_MAX: usize = 10;
        let message = format!("there is no {noun} `{}`", name.value);
        if self.is_full() {
            return self.error(Code::UnknownName, name.span.clone(), message);
        }
        let known: Vec<&str> = known.collect();
        let near = nearest(&name.value, known.iter().copied());
        let diagnostic = self.error(Code::UnknownName, name.span.clone(), message);
        if let Some(near) = near {
            diagnostic.label(format!("did you mean `{near}`?"));
        } else if !known.is_empty() {
            let more = if known.len() > LISTED_MAX {
                ", ..."
            } else {
                ""
            };
            let listed = known.iter().take(LISTED_MAX).copied().collect::<Vec<_>>();
            diagnostic.help(format!("there are: {}{more}", listed.join(", ")));
        }
        diagnostic
    }

    /// Runs `read` with `key` added to the path.
    pub(crate) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let out = read(self);
        self.path.pop();
        out
    }

    /// The line of `span`, from 1.
    pub(crate) fn line(&self, span: &Span) -> u32 {
        self.source.line(span.start)
    }

    /// The excerpt at `span`, for diagnostics that are made without the file's text.
    pub(crate) fn excerpt(&self, span: &Span) -> Excerpt {
        Excerpt::new(self.source, span)
    }

    /// The position of `span`, for diagnostics that are made later.
    pub(crate) fn position(&self, span: &Span) -> Position {
        Position {
            line: self.line(span),
            span: span.clone(),
        }
    }

    /// All diagnostics in file order, and whether one of them is an error.
    pub(crate) fn finish(mut self) -> (Vec<Diagnostic>, bool) {
        self.diagnostics.sort_by_key(|(offset, _)| *offset);
        let mut all: Vec<_> = self.diagnostics.into_iter().map(|(_, each)| each).collect();
        // Errors take the room of warnings.
        let warnings_max = DIAGNOSTICS_MAX - self.errors.kept;
        let mut warnings = 0;
        all.retain(|each| {
            warnings += usize::from(!each.is_error());
            each.is_error() || warnings <= warnings_max
        });
        let warnings_left_out = self.warnings.left_out + warnings.saturating_sub(warnings_max);
        all.extend(diagnostic::count_more(
            self.source.name(),
            self.errors.left_out,
            warnings_left_out,
        ));
        let failed = self.errors.kept > 0;
        (all, failed)
    }

    fn report(
        &mut self,
        severity: Severity,
        code: Code,
        span: Option<Span>,
        message: String,
    ) -> &mut Diagnostic {
        let offset = span.as_ref().map_or(usize::MAX, |span| span.start);
        // A value that several routes share is checked with each of them.
        let mut kept = self.diagnostics.iter();
        if kept.any(|(at, one)| *at == offset && one.severity == severity && one.message == message)
        {
            return self.discarded(severity, code, message);
        }
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if count.kept >= DIAGNOSTICS_MAX {
            count.left_out += 1;
            return self.discarded(severity, code, message);
        }
        count.kept += 1;
        let diagnostic = Diagnostic::new(severity, code, self.source, span, message);
        self.diagnostics.push((offset, diagnostic));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last].1
    }

    /// A diagnostic that is not kept. It has no excerpt: there may be very many in a very long line.
    fn discarded(&mut self, severity: Severity, code: Code, message: String) -> &mut Diagnostic {
        let diagnostic = Diagnostic::new(severity, code, self.source, None, message);
        self.overflow.insert(diagnostic)
    }

    /// The header to write for a named table that the file has as `value`.
    pub(crate) fn header_for(&self, value: &Value<'_>, placeholder: &str) -> String {
        let name = value.get_ref().as_str().unwrap_or(placeholder);
        format!("[{}.\"{name}\"]", self.path.join("."))
    }

    /// The header to write if the key at `span` is the rest of a name with dots in it.
    pub(crate) fn dotted_name(&self, span: &Span) -> Option<String> {
        let (_, line) = self.source.line_text(span.start);
        let inner = line.trim().strip_prefix('[')?.split(']').next()?;
        let (table, name) = inner.split_once('.')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_named = matches!(table, "listen" | "upstream" | "policy");
        (is_named && name.contains('.') && name.chars().all(is_name))
            .then(|| format!("[{table}.\"{name}\"]"))
    }

    /// Whether `key` was suggested for an unknown key of `table`.
    pub(crate) fn has_suggested(&self, table: &Span, key: &str) -> bool {
        let key = format!("`{key}`");
        let mut suggested = self.suggested.iter();
        suggested.any(|(at, ours)| at == table && ours.contains(&key))
    }

    /// Notes that `ours` was suggested for an unknown key of `table`.
    pub(crate) fn note_suggestion(&mut self, table: Span, ours: String) {
        self.suggested.push((table, ours));
    }

    /// The table of the whole file.
    pub(crate) fn root(&self) -> TableInfo {
        (self.root)()
    }

    /// How many diagnostics there are so far.
    pub(crate) fn diagnostics_count(&self) -> usize {
        self.diagnostics.len()
    }

    /// Replaces the advice of the last diagnostic.
    pub(crate) fn replace_last_help(&mut self, help: String) {
        if let Some((_, last)) = self.diagnostics.last_mut() {
            last.help = vec![help];
        }
    }

    /// The key whose value is at hand.
    pub(crate) fn key(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// The table at hand, by its header.
    pub(crate) fn here(&self) -> String {
        match self.path.as_slice() {
            [] => "at the top level".to_owned(),
            [list, _number] if list == "route" || list == "test" => format!("in [[{list}]]"),
            path => format!("in [{}]", path.join(".")),
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
