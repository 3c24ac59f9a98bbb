//! From the tree of a TOML file to values, collecting every mistake on the way.
//!
//! Purpose: [`Kind`] says for each sort of value how it is read and how it is described; the
//! [`Decoder`] collects diagnostics. Nothing here stops at the first mistake: what cannot be read
//! is reported and left out, so that the rest of the file is still checked.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{self, Code, Diagnostic, Place, Severity, Spot};
use crate::limits::DIAGNOSTICS_MAX;
use crate::shape::{FieldInfo, Shape, TableInfo};
use crate::source::{Source, Span};
use crate::suggest::nearest;
use crate::units::Problem;

/// A value in the tree, with its place.
pub(crate) type Value<'i> = toml::Spanned<DeValue<'i>>;

/// A sort of value: how it is read from the tree, and how it is described to people and editors.
pub(crate) trait Kind {
    /// What comes out.
    type Value;

    /// Reads `value`. `None` means that the reason has been reported.
    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value>;

    /// Describes what may be written.
    fn shape() -> Shape;
}

/// A kind whose values can be written back, which defaults need.
pub(crate) trait Spell: Kind {
    /// Writes `value` as a file would.
    fn spell(value: &Self::Value) -> crate::json::Json;
}

/// A kind that is a table with known keys.
pub(crate) trait Table: Kind {
    /// Its keys and what they mean.
    fn info() -> TableInfo;
}

/// A value with the place where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// Collects what is wrong while a file is read.
#[derive(Debug)]
pub(crate) struct Decoder<'t> {
    source: &'t Source<'t>,
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
    errors: Tally,
    warnings: Tally,
}

/// Diagnostics of one severity: how many are kept, and how many are only counted.
#[derive(Debug, Default)]
struct Tally {
    kept: usize,
    left_out: usize,
}

impl<'t> Decoder<'t> {
    pub(crate) fn new(source: &'t Source<'t>) -> Self {
        Self {
            source,
            broken: Vec::new(),
            is_broken: false,
            path: Vec::new(),
            diagnostics: Vec::new(),
            suggested: Vec::new(),
            overflow: None,
            errors: Tally::default(),
            warnings: Tally::default(),
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
    pub(crate) fn place(&self, span: &Span) -> Place {
        Place::new(self.source, span)
    }

    /// The place of `span`, for what is only found out later.
    pub(crate) fn spot(&self, span: &Span) -> Spot {
        Spot {
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

    /// The table at hand as its header would be written.
    /// Whether `key` was suggested for an unknown key of the table that begins there.
    pub(crate) fn has_suggested(&self, table: &Span, key: &str) -> bool {
        let key = format!("`{key}`");
        let mut suggested = self.suggested.iter();
        suggested.any(|(at, ours)| at == table && ours.contains(&key))
    }

    fn here(&self) -> String {
        match self.path.as_slice() {
            [] => "at the top level".to_owned(),
            [list, _number] if list == "route" || list == "test" => format!("in [[{list}]]"),
            path => format!("in [{}]", path.join(".")),
        }
    }
}

/// Reads the keys of one table.
pub(crate) struct Reader<'v, 'i> {
    table: &'v DeTable<'i>,
    known: Vec<FieldInfo>,
    span: Span,
}

impl<'v, 'i> Reader<'v, 'i> {
    /// Starts on `value`, which must be a table, and reports keys that `T` does not know.
    pub(crate) fn new<T: Table>(value: &'v Value<'i>, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            cx.wrong_type(value, "a table");
            return None;
        };
        let known = T::info();
        for (key, _) in table {
            let name: &str = key.get_ref();
            let is_known = known.fields.iter().any(|field| field.key == name);
            if !is_known && let Some(ours) = unknown_key(cx, key.span(), name, &known) {
                cx.suggested.push((value.span(), ours));
            }
        }
        let span = value.span();
        Some(Self {
            table,
            known: known.fields,
            span,
        })
    }

    /// Where the table begins.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Reads a key that may be absent. A value that cannot be read is reported and counts as
    /// absent: the file is refused anyway, and the rest of the table can still be checked.
    pub(crate) fn optional<K: Kind>(&self, key: &str, cx: &mut Decoder<'_>) -> Option<K::Value> {
        let value = self.table.get(key)?;
        let before = cx.diagnostics.len();
        let found = cx.within(key, |cx| K::decode(value, cx));
        if cx.diagnostics.len() > before && means_off(value) {
            self.advise_off::<K>(key, cx);
        }
        found
    }

    /// Says what to write where "none" or the like was not understood.
    fn advise_off<K: Kind>(&self, key: &str, cx: &mut Decoder<'_>) {
        let help = match K::shape() {
            shape if shape.takes("off") => "write \"off\"".to_owned(),
            shape if shape.takes_booleans() => "write false".to_owned(),
            shape if shape.has_example("0s") => "write \"0s\"".to_owned(),
            shape => match self.known.iter().find(|field| field.key == key) {
                Some(field) if field.is_optional() => {
                    format!("to have none, leave out `{key}`")
                }
                Some(field) if field.default.is_some() && !shape.is_integer() => {
                    format!("`{key}` cannot be off")
                }
                _ => return,
            },
        };
        if let Some((_, last)) = cx.diagnostics.last_mut() {
            last.help = vec![help];
        }
    }

    /// Reads a key that must be there.
    pub(crate) fn required<K: Kind>(&self, key: &str, cx: &mut Decoder<'_>) -> Option<K::Value> {
        let found = self.optional::<K>(key, cx);
        if !self.table.contains_key(key) && !cx.has_suggested(&self.span, key) {
            let here = cx.here();
            cx.error(
                Code::MissingKey,
                self.span(),
                format!("`{key}` is missing {here}"),
            )
            .label(format!("expected {}", K::shape().in_words()));
        }
        found
    }
}

/// Whether a value is what people write for "off" elsewhere.
fn means_off(value: &Value<'_>) -> bool {
    const WORDS: [&str; 16] = [
        "off",
        "none",
        "no",
        "never",
        "null",
        "nil",
        "false",
        "disable",
        "disabled",
        "unlimited",
        "infinite",
        "infinity",
        "inf",
        "0",
        "0s",
        "-1",
    ];
    match value.get_ref() {
        DeValue::String(text) => WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)),
        DeValue::Boolean(is_on) => !is_on,
        DeValue::Integer(number) => matches!(number.as_str(), "0" | "-1"),
        _ => false,
    }
}

/// Keys that are planned and known to be missing. Nothing near them is suggested: a file that
/// asks for them is not a file with a typing slip.
const LATER: [&str; 7] = ["health", "jwt", "limit", "tcp", "udp", "cache", "cors"];

/// Reports it, and tells what was suggested in its place.
fn unknown_key(cx: &mut Decoder<'_>, span: Span, name: &str, known: &TableInfo) -> Option<String> {
    if cx.is_full() {
        cx.error(Code::UnknownKey, span, "unknown key");
        return None;
    }
    let here = cx.here();
    let keys = || known.fields.iter().map(|field| field.key);
    let all = keys().collect::<Vec<_>>().join(", ");
    let home = crate::shape::tables_with_key(name);
    let dotted = cx.dotted_name(&span);
    let diagnostic = cx.error(
        Code::UnknownKey,
        span,
        format!("unknown key `{name}` {here}"),
    );
    if let Some(header) = dotted {
        diagnostic.help(format!("a name with dots stands in quotes: {header}"));
        return None;
    }
    if LATER.contains(&name) {
        diagnostic.label("this version of Weir does not have it");
        return None;
    }
    if let Some(ours) = crate::foreign::written_here(name, known) {
        diagnostic.label(format!("write {ours}"));
        return Some(ours.to_owned());
    }
    if let Some(near) = nearest(name, keys()) {
        diagnostic.label(format!("did you mean `{near}`?"));
        return Some(format!("`{near}`"));
    }
    if !home.is_empty() {
        diagnostic.help(format!("`{name}` is a key of {}", home.join(", ")));
    }
    diagnostic.help(format!("known keys here: {all}"));
    None
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
