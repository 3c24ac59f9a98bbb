//! `access_log`: a line for every exchange.

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
use crate::value::field::check_header_names;

/// Where the access log goes, and what its lines contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The destination.
    pub to: LogTarget,
    /// The format of a line.
    pub format: LogFormat,
    /// Query parameters whose values are replaced besides those known to hold secrets; `None` replaces none at all.
    pub redact: Option<Vec<String>>,
    /// Request fields that lines also contain, in lower case.
    pub request_headers: Vec<String>,
    /// Response fields that lines also contain, in lower case.
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

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file that Weir appends to, by its absolute path.
    File(PathBuf),
}

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Words for people to read.
    Text,
    /// The format that Apache and nginx call `combined`.
    Combined,
    /// `name=value` pairs.
    Logfmt,
}

pub(crate) const ACCESS_LOG: Preset<Option<AccessLog>> =
    preset(None, "HAProxy, Envoy and Caddy log no requests by default");

const LOG_FORMAT: Preset<LogFormat> = preset(LogFormat::Json, "as Caddy");

/// The most fields of a request, and of a response, that lines may contain.
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
    /// A line for every exchange. Instead of the table, `access_log` may be its `to` or `"off"`.
    RawAccessLog, "access_log", "[access_log]" {
        /// The destination: standard output, a file that Weir appends to, or a FIFO with a reader.
        required to: LogTarget = "to" as LogTargetText;
        /// The format of a line. Take `"json"` or `"logfmt"` for programs, `"combined"` for tools written for nginx.
        preset(LOG_FORMAT) format: LogFormat = "format" as Choice<LogFormat>;
        /// Query parameters whose values Weir replaces, in the target and in `Referer`, besides those known to hold
        /// secrets, such as `token`, `password`, `api_key` and `signature`. Case, punctuation and percent-encoding of a
        /// name do not matter. Name those of your own that hold secrets. `"off"` replaces none.
        optional redact: Option<Vec<String>> = "redact" as OrOff<OneOrMany<ParameterNameText>>;
        /// Request fields that lines also contain, at most 16. Of credentials a line shows only the scheme, of cookies
        /// only the names.
        optional request_headers: Spanned<Vec<Spanned<String>>> =
            "request_headers" as SpannedKind<OneOrMany<SpannedKind<PlainText>>>;
        /// Response fields, as the client gets them, that lines also contain; at most 16.
        optional response_headers: Spanned<Vec<Spanned<String>>> =
            "response_headers" as SpannedKind<OneOrMany<SpannedKind<PlainText>>>;
    }
}

/// `stdout` or a path.
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
        let problem = Problem::new(format!("`{text}` is not a destination"));
        if !text.starts_with('/') {
            return Err(problem.help("write \"stdout\" or an absolute path"));
        }
        if text.ends_with('/') || text.contains('\0') {
            return Err(problem.help("write the path of a file"));
        }
        Ok(LogTarget::File(PathBuf::from(text)))
    }
}

impl LongForm for RawAccessLog {
    type Out = AccessLog;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<AccessLog> {
        let mut checked = |key: &str, names: Option<Spanned<Vec<Spanned<String>>>>| match names {
            None => Some(Vec::new()),
            Some(names) => check_log_headers(key, names, table.format, cx),
        };
        let request_headers = checked("request_headers", table.request_headers);
        let response_headers = checked("response_headers", table.response_headers);
        Some(AccessLog {
            to: table.to,
            format: table.format,
            redact: table.redact.unwrap_or_else(|| Some(Vec::new())),
            request_headers: request_headers?,
            response_headers: response_headers?,
        })
    }
}

/// The fields that `key` adds to lines, in lower case.
fn check_log_headers(
    key: &str,
    names: Spanned<Vec<Spanned<String>>>,
    format: LogFormat,
    cx: &mut Decoder<'_>,
) -> Option<Vec<String>> {
    if format == LogFormat::Combined && !names.value.is_empty() {
        let message = format!("the format `combined` has no room for `{key}`");
        cx.error(Code::Conflict, names.span, message)
            .help("set `format` to \"json\", \"logfmt\" or \"text\"");
        return None;
    }
    if names.value.len() > LOG_HEADERS_MAX {
        let (count, span) = (names.value.len(), names.span);
        let message = format!("`{key}` has {count} names, the most is {LOG_HEADERS_MAX}");
        cx.error(Code::BadValue, span, message)
            .help("leave some out");
        return None;
    }
    let entries = names.value.into_iter().map(|name| NamedEntry {
        name,
        value: Some(()),
    });
    let checked = check_header_names(entries.collect(), cx);
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
            .help("Weir compares names by their letters and digits alone"))
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
