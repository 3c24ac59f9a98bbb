//! What a file is read with: it knows where in the file the reader is, and collects every mistake.

use std::path::{Path, PathBuf};
use toml::de::DeValue;

use crate::decode::shape::TableInfo;
use crate::text::diagnostic::{
    self, Code, DIAGNOSTICS_MAX, Diagnostic, Excerpt, Position, Severity,
};
use crate::text::problem::Problem;
use crate::text::source::{Source, Span};
use crate::text::suggest::nearest;

/// A value in the tree, with its place.
pub(crate) type Value<'i> = toml::Spanned<DeValue<'i>>;

/// A value with the place where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// Collects what is wrong while a file is read.
#[derive(Debug)]
pub(crate) struct Decoder<'t> {
    source: &'t Source<'t>,
    /// The table that the whole file is.
    root: fn() -> TableInfo,
    /// Statements that are not even TOML, in file order: what else seems wrong with them is noise.
    broken: Vec<Span>,
    is_broken: bool,
    /// Keys from the root to the value at hand.
    path: Vec<String>,
    diagnostics: Vec<(usize, Diagnostic)>,
    /// Tables with an unknown key, and what was suggested for it: that this is missing then is said already.
    suggested: Vec<(Span, String)>,
    /// Takes what is beyond the bound, so that callers need not care.
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

impl<'t> Decoder<'t> {
    /// Begins with the file `source`, whose top level is the table `root`.
    pub(crate) fn new(source: &'t Source<'t>, root: fn() -> TableInfo) -> Self {
        Self {
            source,
            root,
            broken: Vec::new(),
            is_broken: false,
            path: Vec::new(),
            diagnostics: Vec::new(),
            suggested: Vec::new(),
            overflow: None,
            errors: DiagnosticCount::default(),
            warnings: DiagnosticCount::default(),
        }
    }

    /// Reports that the file is no TOML at `span`, which is in the statement `broken`; the statements in file order.
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

    /// Whether the file is not even TOML, so that missing things mean little.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn is_in_broken(&self, span: &Span) -> bool {
        let before = self.broken.partition_point(|one| one.start <= span.start);
        let last = before.checked_sub(1).and_then(|at| self.broken.get(at));
        last.is_some_and(|one| span.start < one.end)
    }

    /// Whether further errors are only counted, so that nobody need look for what was meant.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.kept >= DIAGNOSTICS_MAX
    }

    /// Whether anything has been found that makes the file unusable.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors.kept > 0
    }

    /// The path of another file that the file names: what is relative is so to its folder.
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
        // What a file that cannot be read whole does not have may be in the part that cannot be read.
        if self.is_in_broken(&span) || code == Code::MissingKey && self.is_broken {
            return self.spare(Severity::Error, code, message.into());
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

    /// Reports an error about the file as a whole.
    pub(crate) fn file_error(&mut self, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        self.report(Severity::Error, code, None, message.into())
    }

    /// Reports a problem inside the text of `value`.
    pub(crate) fn problem(&mut self, span: Span, text: &str, problem: Problem) -> &mut Diagnostic {
        // Offsets in the value are offsets in the file when the string is written without escapes.
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

    /// Reports that no `noun` of the file is called `name`; the names in `known` are.
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

    /// The place of `span`, for what is found out about it later.
    pub(crate) fn excerpt(&self, span: &Span) -> Excerpt {
        Excerpt::new(self.source, span)
    }

    /// The place of `span`, for what is only found out later.
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
        // Errors keep warnings out.
        let warnings_max = DIAGNOSTICS_MAX - self.errors.kept;
        let mut warnings = 0;
        all.retain(|each| {
            warnings += usize::from(!each.is_error());
            each.is_error() || warnings <= warnings_max
        });
        let warnings_left_out = self.warnings.left_out + warnings.saturating_sub(warnings_max);
        all.extend(diagnostic::more(
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
        let tally = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if tally.kept >= DIAGNOSTICS_MAX {
            tally.left_out += 1;
            return self.spare(severity, code, message);
        }
        tally.kept += 1;
        let offset = span.as_ref().map_or(usize::MAX, |span| span.start);
        let diagnostic = Diagnostic::new(severity, code, self.source, span, message);
        self.diagnostics.push((offset, diagnostic));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last].1
    }

    /// One that is thrown away; without its place, because there may be very many in a very long line.
    fn spare(&mut self, severity: Severity, code: Code, message: String) -> &mut Diagnostic {
        let diagnostic = Diagnostic::new(severity, code, self.source, None, message);
        self.overflow.insert(diagnostic)
    }

    /// The header of a table that is named, where `value` stands in its place.
    pub(crate) fn header_for(&self, value: &Value<'_>, placeholder: &str) -> String {
        let name = value.get_ref().as_str().unwrap_or(placeholder);
        format!("[{}.\"{name}\"]", self.path.join("."))
    }

    /// The header that was meant where a key in it at `span` is part of a name with dots in it.
    pub(crate) fn dotted_name(&self, span: &Span) -> Option<String> {
        let (_, line) = self.source.line_text(span.start);
        let inner = line.trim().strip_prefix('[')?.split(']').next()?;
        let (table, name) = inner.split_once('.')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_named = matches!(table, "listen" | "upstream");
        (is_named && name.contains('.') && name.chars().all(is_name))
            .then(|| format!("[{table}.\"{name}\"]"))
    }

    /// Whether `key` was suggested for an unknown key of the table that begins there.
    pub(crate) fn has_suggested(&self, table: &Span, key: &str) -> bool {
        let key = format!("`{key}`");
        let mut suggested = self.suggested.iter();
        suggested.any(|(at, ours)| at == table && ours.contains(&key))
    }

    /// Notes that `ours` was suggested for an unknown key of `table`.
    pub(crate) fn note_suggestion(&mut self, table: Span, ours: String) {
        self.suggested.push((table, ours));
    }

    /// The table that the whole file is.
    pub(crate) fn root(&self) -> TableInfo {
        (self.root)()
    }

    /// How many diagnostics there are so far.
    pub(crate) fn diagnostics_count(&self) -> usize {
        self.diagnostics.len()
    }

    /// Puts `help` in place of what the last diagnostic advises.
    pub(crate) fn replace_last_help(&mut self, help: String) {
        if let Some((_, last)) = self.diagnostics.last_mut() {
            last.help = vec![help];
        }
    }

    /// The table at hand as its header would be written.
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
