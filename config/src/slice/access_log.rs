//! `access_log`.

use std::path::PathBuf;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kind::WritableKind;
use crate::decode::kinds::{
    Choice, Keywords, LongForm, NamedEntry, OneOrMany, OrOff, PlainText, ShortOrLong, SpannedKind,
    TextKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::value::field::header_names;

/// Where the access log goes and what a line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The destination.
    pub to: LogTarget,
    /// The form of a line.
    pub format: LogFormat,
    /// Parameters whose values are replaced besides those that are known to hold secrets; `None` replaces none.
    pub redact: Option<Vec<String>>,
    /// Fields of the request that lines have too, in lower case.
    pub request_headers: Vec<String>,
    /// Fields of the answer that lines have too, in lower case.
    pub response_headers: Vec<String>,
}

impl From<LogTarget> for AccessLog {
    /// A log with defaults only.
    fn from(to: LogTarget) -> Self {
        Self {
            to,
            format: LOG_FORMAT.value,
            redact: Some(Vec::new()),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }
}

/// The destination of log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file that is appended to; an absolute path.
    File(PathBuf),
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One readable line.
    Text,
    /// What Apache and nginx call `combined`.
    Combined,
    /// Names and values.
    Logfmt,
}

/// Where a line about every exchange goes.
pub(crate) const ACCESS_LOG: Preset<Option<AccessLog>> =
    preset(None, "HAProxy, Envoy and Caddy log no requests unless told");

/// The form of a log line.
const LOG_FORMAT: Preset<LogFormat> = preset(LogFormat::Json, "Caddy: JSON");

/// Fields of a request, and of an answer, that lines of the access log may have.
pub const LOG_HEADERS_MAX: usize = 16;

impl Keywords for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        ("text", Self::Text),
        ("combined", Self::Combined),
        ("logfmt", Self::Logfmt),
    ];
}

table! {
    /// The long form of `access_log`.
    RawAccessLog, "access_log", "[access_log]" {
        /// The destination: standard output, a file that is appended to, or a FIFO that somebody reads.
        required to: LogTarget = "to" as LogTargetText;
        /// The form of a line.
        preset(LOG_FORMAT) format: LogFormat = "format" as Choice<LogFormat>;
        /// Query parameters whose values are replaced, also in `Referer`, besides those that are known to
        /// hold secrets, such as `token`, `password`, `api_key` and `signature`. Neither case, nor
        /// punctuation, nor percent-encoding of a name matters. `"off"` shows all.
        optional redact: Option<Vec<String>> = "redact" as OrOff<OneOrMany<ParameterNameText>>;
        /// Fields of the request that lines have too, at most 16. Of credentials and cookies only
        /// their kind or name is shown.
        optional request_headers: Spanned<Vec<Spanned<String>>> =
            "request_headers" as SpannedKind<OneOrMany<SpannedKind<PlainText>>>;
        /// The same of the answer, as the client gets it.
        optional response_headers: Spanned<Vec<Spanned<String>>> =
            "response_headers" as SpannedKind<OneOrMany<SpannedKind<PlainText>>>;
    }
}

/// Where log lines go.
pub(crate) struct LogTargetText;

impl TextKind for LogTargetText {
    type Value = LogTarget;
    const NOUN: &'static str = "a destination";
    const PATTERN: Option<&'static str> = Some("^(stdout|/.+)$");
    const EXAMPLES: &'static [&'static str] = &["stdout", "/var/log/weir/access.log"];

    fn parse(text: &str) -> Result<LogTarget, Problem> {
        if text == "stdout" {
            return Ok(LogTarget::Stdout);
        }
        let problem = Problem::new(format!("`{text}` is no destination"));
        if !text.starts_with('/') {
            return Err(problem.help("\"stdout\" or an absolute path"));
        }
        if text.ends_with('/') || text.contains('\0') {
            return Err(problem.help("the path of a file"));
        }
        Ok(LogTarget::File(PathBuf::from(text)))
    }
}

impl LongForm for RawAccessLog {
    type Out = AccessLog;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<AccessLog> {
        let mut chosen = |key: &str, names: Option<Spanned<Vec<Spanned<String>>>>| match names {
            None => Some(Vec::new()),
            Some(names) => log_headers(key, names, table.format, cx),
        };
        let request_headers = chosen("request_headers", table.request_headers);
        let response_headers = chosen("response_headers", table.response_headers);
        Some(AccessLog {
            to: table.to,
            format: table.format,
            redact: table.redact.unwrap_or_else(|| Some(Vec::new())),
            request_headers: request_headers?,
            response_headers: response_headers?,
        })
    }
}

/// Checks which fields lines are to have besides.
fn log_headers(
    key: &str,
    names: Spanned<Vec<Spanned<String>>>,
    format: LogFormat,
    cx: &mut Decoder<'_>,
) -> Option<Vec<String>> {
    if format == LogFormat::Combined && !names.value.is_empty() {
        let message = format!("lines in the format `combined` have no place for `{key}`");
        cx.error(Code::Conflict, names.span, message)
            .help("take the format \"json\", \"logfmt\" or \"text\"");
        return None;
    }
    if names.value.len() > LOG_HEADERS_MAX {
        let (count, span) = (names.value.len(), names.span);
        let message = format!("`{key}` has {count} names, at most {LOG_HEADERS_MAX}");
        cx.error(Code::BadValue, span, message);
        return None;
    }
    let entries = names.value.into_iter().map(|name| NamedEntry {
        name,
        value: Some(()),
    });
    let checked = header_names(entries.collect(), cx);
    Some(checked.into_iter().map(|(name, ())| name).collect())
}

/// The name of a query parameter.
pub(crate) struct ParameterNameText;

impl TextKind for ParameterNameText {
    type Value = String;
    const NOUN: &'static str = "the name of a query parameter";
    const PATTERN: Option<&'static str> = Some("[A-Za-z0-9]");
    const EXAMPLES: &'static [&'static str] = &["reset_code"];

    fn parse(text: &str) -> Result<String, Problem> {
        if text.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(text.to_owned());
        }
        Err(Problem::new(format!("`{text}` has no letter or digit"))
            .help("names are compared by these alone"))
    }
}

impl WritableKind for ShortOrLong<LogTargetText, RawAccessLog> {
    fn to_json(value: &AccessLog) -> Json {
        match &value.to {
            LogTarget::Stdout => Json::text("stdout"),
            LogTarget::File(path) => Json::Text(path.display().to_string()),
        }
    }
}
