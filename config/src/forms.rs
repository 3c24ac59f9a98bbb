//! What the long and short forms of values mean, and the kinds that only one table uses.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::decode::{At, Decoder, Kind, Spell, Value};
use crate::diagnostic::Code;
use crate::file::{
    RawAccessLog, RawMatch, RawRedirect, RawReplace, RawRespond, RawServer, RawUpstream,
    RawValueMatch,
};
use crate::json::Json;
use crate::kinds::{Count, Entry, Forms, KeyName, Long, PlainText, Text, Words, integer};
use crate::layers::RetriesPatch;
use crate::limits::{self, LOG_HEADERS_MAX, PATTERNS_MAX, RESPOND_BODY_BYTES_MAX, WEIGHT_MAX};
use crate::model::{
    AccessLog, Balance, Driver, EncodedSlash, Endpoint, FieldMatch, ForwardedHeader, LogFormat,
    LogTarget, Match, Pattern, Redirect, Respond, Rewrite, Underscores, ValueMatch,
};
use crate::pattern::{FieldValueText, is_token};
use crate::shape::Shape;
use crate::units::Problem;

impl Words for Balance {
    const ALL: &'static [(&'static str, Self)] = &[("round_robin", Self::RoundRobin)];
}

impl Words for Driver {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("ring", Self::Ring),
        ("monoio", Self::Monoio),
    ];
}

impl Words for EncodedSlash {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("keep", Self::Keep),
        ("refuse", Self::Refuse),
    ];
}

impl Words for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        ("text", Self::Text),
        ("combined", Self::Combined),
        ("logfmt", Self::Logfmt),
    ];
}

impl Words for ForwardedHeader {
    const ALL: &'static [(&'static str, Self)] = &[
        ("x-forwarded-for", Self::XForwardedFor),
        ("forwarded", Self::Forwarded),
    ];
}

impl Words for Underscores {
    const ALL: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("keep", Self::Keep)];
}

/// Where log lines go.
pub(crate) struct LogText;

impl Text for LogText {
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

impl Long for RawAccessLog {
    type Out = AccessLog;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<AccessLog> {
        let mut chosen = |key: &str, names: Option<At<Vec<At<String>>>>| match names {
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
    names: At<Vec<At<String>>>,
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
    let entries = names.value.into_iter().map(|name| Entry {
        name,
        value: Some(()),
    });
    let checked = header_names(entries.collect(), cx);
    Some(checked.into_iter().map(|(name, ())| name).collect())
}

/// The name of a query parameter.
pub(crate) struct ParameterName;

impl Text for ParameterName {
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

impl Spell for Forms<LogText, RawAccessLog> {
    fn spell(value: &AccessLog) -> Json {
        match &value.to {
            LogTarget::Stdout => Json::text("stdout"),
            LogTarget::File(path) => Json::Text(path.display().to_string()),
        }
    }
}

impl From<Option<u32>> for RetriesPatch {
    /// Says how many further attempts, and nothing else.
    fn from(count: Option<u32>) -> Self {
        Self {
            count: Some(count),
            ..Self::default()
        }
    }
}

impl Long for RetriesPatch {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

/// The weight of an endpoint.
pub(crate) struct Weight;

impl Kind for Weight {
    type Value = NonZeroU32;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<NonZeroU32> {
        if integer(value) == Some(Some(0)) {
            cx.error(
                Code::BadValue,
                value.span(),
                "an endpoint of weight 0 gets nothing",
            )
            .help("leave the endpoint out, or give it a weight of 1 or more");
            return None;
        }
        NonZeroU32::new(Count::<1, WEIGHT_MAX>::decode(value, cx)?)
    }

    fn shape() -> Shape {
        Count::<1, WEIGHT_MAX>::shape()
    }
}

impl Spell for Weight {
    fn spell(value: &NonZeroU32) -> Json {
        Json::Number(value.get().into())
    }
}

impl From<Vec<At<Endpoint>>> for RawUpstream {
    /// An upstream of these endpoints with defaults only.
    fn from(servers: Vec<At<Endpoint>>) -> Self {
        Self {
            at: servers
                .first()
                .map(|first| first.span.clone())
                .unwrap_or_default(),
            servers,
            balance: limits::BALANCE.value,
            pool: None,
            tls: None,
            proxy_protocol: None,
            timeouts: None,
            retries: None,
        }
    }
}

/// Permissions of a file, as chmod(1) takes them: `0660`.
pub(crate) struct ModeText;

impl Text for ModeText {
    type Value = u32;
    const NOUN: &'static str = "permissions of a file";
    const PATTERN: Option<&'static str> = Some("^0?[0-7]{3}$");
    const EXAMPLES: &'static [&'static str] = &["0660"];

    fn parse(text: &str) -> Result<u32, Problem> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3);
        let digits = digits.unwrap_or(text);
        let is_octal = digits.len() == 3 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|_| is_octal)
            .ok_or_else(|| {
                Problem::new(format!("`{text}` are no permissions of a file"))
                    .help("three octal digits for owner, group and others: \"0660\"")
            })
    }

    fn from_number(_number: &str) -> Option<String> {
        Some("write them as a text: \"0660\"".to_owned())
    }
}

impl Long for RawUpstream {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

impl Long for RawServer {
    type Out = Endpoint;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Endpoint> {
        Some(Endpoint {
            weight: table.weight,
            spot: cx.spot(&table.at),
            ..table.address
        })
    }
}

/// Keys of `[listen]`.
pub(crate) struct ListenName;

impl KeyName for ListenName {
    const NAME: &'static str = "ADDR";
}

/// Keys of `[upstream]`.
pub(crate) struct UpstreamName;

impl KeyName for UpstreamName {
    const NAME: &'static str = "NAME";
}

/// Names of header fields and of query parameters.
pub(crate) struct FieldName;

impl KeyName for FieldName {
    const NAME: &'static str = "FIELD";
}

impl Long for RawMatch {
    type Out = Match;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Match> {
        let everything = Match::everything();
        let header = header_names(table.header.unwrap_or_default(), cx);
        let query = table.query.unwrap_or_default();
        let field_match = |(name, value)| FieldMatch { name, value };
        Some(Match {
            hosts: patterns("host", table.host, everything.hosts, cx)?,
            paths: patterns("path", table.path, everything.paths, cx)?,
            methods: table.method.unwrap_or_default(),
            headers: header.into_iter().map(field_match).collect(),
            query: query
                .into_iter()
                .filter_map(|entry| Some((entry.name.value, entry.value?)))
                .map(field_match)
                .collect(),
            client_cert: table.client_cert,
        })
    }
}

/// The patterns that were written, or `any` if there is no such key. `None` if they could not be read.
fn patterns<T: PartialEq + Display>(
    key: &str,
    written: Option<At<Option<Vec<T>>>>,
    any: Vec<T>,
    cx: &mut Decoder<'_>,
) -> Option<Vec<T>> {
    let Some(At { value, span }) = written else {
        return Some(any);
    };
    let patterns = value?;
    if patterns.is_empty() {
        cx.error(
            Code::BadValue,
            span,
            format!("an empty list of {key}s takes no request"),
        )
        .help(format!("leave `{key}` out for any {key}"));
        return None;
    }
    if patterns.len() > PATTERNS_MAX {
        let message = format!("a route has at most {PATTERNS_MAX} {key}s");
        cx.error(Code::BadValue, span, message);
        return None;
    }
    for (index, pattern) in patterns.iter().enumerate() {
        if patterns
            .iter()
            .take(index)
            .any(|earlier| earlier == pattern)
        {
            let pattern = pattern.to_string();
            let shown = if pattern.is_empty() { "*" } else { &pattern };
            let message = format!("{key} `{shown}` is there twice");
            cx.error(Code::Duplicate, span.clone(), message);
        }
    }
    Some(patterns)
}

/// What a value must be: a string, a truth value, or a table.
pub(crate) struct ValueKind;

impl Kind for ValueKind {
    type Value = ValueMatch;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<ValueMatch> {
        match value.get_ref() {
            DeValue::Boolean(true) => Some(ValueMatch::Present),
            DeValue::Boolean(false) => Some(ValueMatch::Absent),
            DeValue::Table(_) => {
                RawValueMatch::decode(value, cx).map(|table| ValueMatch::Prefix(table.prefix))
            }
            _ => FieldValueText::decode(value, cx).map(ValueMatch::Exact),
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            FieldValueText::shape(),
            Shape::Boolean,
            RawValueMatch::shape(),
        ])
    }
}

/// A status that redirects.
pub(crate) struct RedirectStatus;

impl Kind for RedirectStatus {
    type Value = u16;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<u16> {
        let status = integer(value)
            .flatten()
            .and_then(|number| u16::try_from(number).ok());
        let status = status.filter(|status| matches!(status, 301..=303 | 307 | 308));
        if status.is_none() {
            let message = "a redirect has the status 301, 302, 303, 307 or 308";
            cx.error(Code::BadValue, value.span(), message)
                .help("307 and 308 keep the method; 301 and 308 are remembered by clients");
        }
        status
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Integer { min: 301, max: 303 },
            Shape::Integer { min: 307, max: 308 },
        ])
    }
}

impl Spell for RedirectStatus {
    fn spell(value: &u16) -> Json {
        Json::Number((*value).into())
    }
}

impl From<Pattern> for Redirect {
    /// A redirect with the default status.
    fn from(location: Pattern) -> Self {
        Self {
            location,
            status: limits::REDIRECT_STATUS.value,
        }
    }
}

impl Long for RawRedirect {
    type Out = Redirect;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Redirect> {
        Some(Redirect {
            location: table.location,
            status: table.status,
        })
    }
}

/// A status or a body.
pub(crate) struct RespondShort;

impl Kind for RespondShort {
    type Value = Respond;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Respond> {
        if value.get_ref().is_integer() {
            let status = Count::<200, 599>::decode(value, cx)?;
            return Some(respond(
                status,
                String::new(),
                limits::RESPOND_CONTENT_TYPE.value,
            ));
        }
        let body = PlainText::decode(value, cx)?;
        check_body(&body, value.span(), cx)?;
        Some(respond(
            limits::RESPOND_STATUS.value,
            body,
            limits::RESPOND_CONTENT_TYPE.value,
        ))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![Count::<200, 599>::shape(), PlainText::shape()])
    }
}

impl Long for RawRespond {
    type Out = Respond;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Respond> {
        let headers = table.headers.unwrap_or_default();
        for entry in &headers {
            if OWN_FIELDS.contains(&entry.name.value.to_ascii_lowercase().as_str()) {
                let message = format!("Weir sets `{}` by itself", entry.name.value);
                cx.error(Code::BadValue, entry.name.span.clone(), message)
                    .help("the media type has its own key: content_type = \"...\"");
            }
        }
        let headers = header_names(headers, cx);
        let body = table.body.unwrap_or(At {
            value: String::new(),
            span: table.at,
        });
        check_body(&body.value, body.span.clone(), cx)?;
        //= rfc9110#15.3.5: a 204 ends with its head; likewise 205 and 304.
        if matches!(table.status, 204 | 205 | 304) && !body.value.is_empty() {
            let message = format!("an answer with status {} has no body", table.status);
            cx.error(Code::Conflict, body.span, message)
                .help("leave the body out, or take the status 200");
            return None;
        }
        let mut answer = respond(table.status, body.value, table.content_type);
        answer.headers = headers;
        Some(answer)
    }
}

/// Fields of an answer that say how it is framed, or that have a key of their own.
const OWN_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

fn respond(status: u32, body: String, content_type: Cow<'static, str>) -> Respond {
    Respond {
        // Counts are bounded by 599.
        status: u16::try_from(status).unwrap_or(500),
        content_type: (!body.is_empty()).then(|| content_type.into_owned()),
        body,
        headers: Vec::new(),
    }
}

fn check_body(body: &str, span: crate::source::Span, cx: &mut Decoder<'_>) -> Option<()> {
    if body.len() <= RESPOND_BODY_BYTES_MAX {
        return Some(());
    }
    let message = format!(
        "a fixed body has at most {RESPOND_BODY_BYTES_MAX} bytes, this one has {}",
        body.len()
    );
    cx.error(Code::BadValue, span, message)
        .help("serve large documents from an upstream");
    None
}

/// A media type.
pub(crate) struct MediaType;

impl Text for MediaType {
    type Value = Cow<'static, str>;
    const NOUN: &'static str = "a media type";
    const PATTERN: Option<&'static str> = Some("^[^/ ]+/[^/ ;]+( *;.*)?$");
    const EXAMPLES: &'static [&'static str] = &["application/json", "text/html; charset=utf-8"];

    fn parse(text: &str) -> Result<Cow<'static, str>, Problem> {
        let value = FieldValueText::parse(text)?;
        let essence = value.split(';').next().unwrap_or("").trim_end();
        match essence.split_once('/') {
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(value.into()),
            _ => Err(Problem::new(format!("`{text}` is no media type"))
                .help("for example \"application/json\"")),
        }
    }
}

impl Spell for MediaType {
    fn spell(value: &Cow<'static, str>) -> Json {
        Json::text(value)
    }
}

impl From<Pattern> for Rewrite {
    fn from(path: Pattern) -> Self {
        Self::Path(path)
    }
}

impl Long for RawReplace {
    type Out = Rewrite;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Rewrite> {
        Some(Rewrite::Prefix {
            prefix: table.prefix,
            with: table.with,
        })
    }
}

/// Checks names of header fields and makes them lower case. What is wrong is left out.
pub(crate) fn header_names<T>(entries: Vec<Entry<T>>, cx: &mut Decoder<'_>) -> Vec<(String, T)> {
    let mut fields: Vec<(String, T)> = Vec::with_capacity(entries.len());
    let mut lines = HashMap::new();
    for Entry { name, value } in entries {
        let lower = name.value.to_ascii_lowercase();
        if !is_token(&lower) {
            let message = format!("`{}` is no name of a header field", name.value);
            cx.error(Code::BadValue, name.span, message);
        } else if let Some(first) = lines.insert(lower.clone(), cx.line(&name.span)) {
            let message = format!("header field `{lower}` is named twice");
            cx.error(Code::Duplicate, name.span, message).help(format!(
                "the first one is in line {first}; names of header fields are the same in upper and lower case"
            ));
        } else if let Some(value) = value {
            fields.push((lower, value));
        }
    }
    fields
}
