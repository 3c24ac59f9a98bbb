//! What the long and short forms of values mean, and the kinds that only one table uses.

use std::borrow::Cow;
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
use crate::kinds::{Count, Entry, Forms, KeyName, Long, PlainText, Scope, Text, Words, integer};
use crate::layers::RetriesPatch;
use crate::limits::{self, RESPOND_BODY_BYTES_MAX, WEIGHT_MAX};
use crate::model::{
    AccessLog, Balance, Endpoint, FieldMatch, LogFormat, LogTarget, Match, Pattern, Redirect,
    Respond, Rewrite, ValueMatch,
};
use crate::pattern::{FieldValueText, is_token};
use crate::shape::Shape;
use crate::units::Problem;

impl Words for Balance {
    const ALL: &'static [(&'static str, Self)] = &[("round_robin", Self::RoundRobin)];
}

impl Words for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("json", Self::Json), ("text", Self::Text)];
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

impl From<LogTarget> for AccessLog {
    /// A log in the default format.
    fn from(to: LogTarget) -> Self {
        Self {
            to,
            format: limits::LOG_FORMAT.value,
        }
    }
}

impl Long for RawAccessLog {
    type Out = AccessLog;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<AccessLog> {
        Some(AccessLog {
            to: table.to,
            format: table.format,
        })
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

impl From<u32> for RetriesPatch {
    /// Says how many further attempts, and nothing else.
    fn from(count: u32) -> Self {
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
            timeouts: None,
            retries: None,
        }
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
            address: table.address,
            weight: table.weight,
            line: cx.line(&table.at),
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

/// Time limits of a listener.
pub(crate) struct InListener;

impl Scope for InListener {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("connect", NOT_DOWNSTREAM),
        ("first_byte", NOT_DOWNSTREAM),
        ("body_stall", NOT_DOWNSTREAM),
        ("upstream_idle", NOT_DOWNSTREAM),
        ("total", NOT_DOWNSTREAM),
        ("grace", ONLY_TOP),
    ];
}

/// Time limits of an upstream.
pub(crate) struct InUpstream;

impl Scope for InUpstream {
    const NO_EFFECT: &'static [(&'static str, &'static str)] =
        &[("head", HEAD_TOO_LATE), ("grace", ONLY_TOP)];
}

/// Time limits and limits of a route.
pub(crate) struct InRoute;

impl Scope for InRoute {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_TOO_LATE),
        ("fields", HEAD_TOO_LATE),
        ("target", HEAD_TOO_LATE),
        (
            "upstream_idle",
            "unused connections belong to the upstream: set it there",
        ),
        ("connections", NOT_IN_ROUTE),
        ("connections_per_client", NOT_IN_ROUTE),
        ("grace", ONLY_TOP),
    ];
}

const HEAD_TOO_LATE: &str = "the head is read before a route is known: set it at the top level";
const NOT_DOWNSTREAM: &str =
    "not a matter of listeners: set it at the top level, in an upstream or a route";
const NOT_IN_ROUTE: &str = "connections belong to the listener: set it there or at the top level";
const ONLY_TOP: &str = "the whole process stops at once: set it at the top level";

impl Long for RawMatch {
    type Out = Match;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Match> {
        let everything = Match::everything();
        let header = header_names(table.header.unwrap_or_default(), cx);
        let query = table.query.unwrap_or_default();
        let field_match = |(name, value)| FieldMatch { name, value };
        Some(Match {
            host: or_any(table.host, everything.host)?,
            path: or_any(table.path, everything.path)?,
            methods: table.method.unwrap_or_default(),
            headers: header.into_iter().map(field_match).collect(),
            query: query
                .into_iter()
                .filter_map(|entry| Some((entry.name.value, entry.value?)))
                .map(field_match)
                .collect(),
        })
    }
}

/// What was read, or `any` if nothing was written. `None` if it could not be read.
fn or_any<T>(written: Option<At<Option<T>>>, any: T) -> Option<T> {
    written.map_or(Some(any), |written| written.value)
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
const OWN_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
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

/// `METHOD URL`.
pub(crate) struct RequestText;

/// What a [`RequestText`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) target: String,
}

impl Text for RequestText {
    type Value = RequestLine;
    const NOUN: &'static str = "a request";
    const PATTERN: Option<&'static str> = Some("^[^ ]+ https?://[^ ]+$");
    const EXAMPLES: &'static [&'static str] = &["GET http://api.example.com/v1/users"];

    fn parse(text: &str) -> Result<RequestLine, Problem> {
        let bad =
            |message: &str| Problem::new(message).help("write \"GET http://api.example.com/path\"");
        let (method, url) = text
            .split_once(' ')
            .ok_or_else(|| bad("a request is a method, a space and a URL"))?;
        if !is_token(method) {
            return Err(bad("a request begins with its method").at(0, method.len()));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "http" | "https") {
            return Err(
                bad("the URL begins with http:// or https://").at(method.len() + 1, url.len())
            );
        }
        if let Some(at) = rest.find(|c: char| !c.is_ascii_graphic() || c == '#') {
            return Err(
                bad("a URL in a request holds visible ASCII characters and no fragment").at(
                    text.len() - rest.len() + at,
                    rest[at..].chars().next().map_or(1, char::len_utf8),
                ),
            );
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(authority_end);
        let (host, port) = split_port(authority).ok_or_else(|| bad("the URL has no valid host"))?;
        Ok(RequestLine {
            method: method.to_owned(),
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            port,
            //= rfc9110#4.2.3: an empty path is the same as a slash.
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("/{target}")
            },
        })
    }
}

/// Splits `host:port`. `None` when either is invalid.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let bracket_end = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority.get(bracket_end..)?.find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(bracket_end + colon);
            (host, Some(port.get(1..)?.parse::<u16>().ok()?))
        }
        None => (authority, None),
    };
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match literal {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok() || crate::address::is_host_name(host),
    };
    valid.then_some((host, port))
}

/// Checks names of header fields and makes them lower case. What is wrong is left out.
pub(crate) fn header_names<T>(entries: Vec<Entry<T>>, cx: &mut Decoder<'_>) -> Vec<(String, T)> {
    let mut fields: Vec<(String, T)> = Vec::with_capacity(entries.len());
    for Entry { name, value } in entries {
        let lower = name.value.to_ascii_lowercase();
        if !is_token(&lower) {
            let message = format!("`{}` is no name of a header field", name.value);
            cx.error(Code::BadValue, name.span, message);
        } else if fields.iter().any(|(known, _)| *known == lower) {
            cx.error(
                Code::Duplicate,
                name.span,
                format!("header field `{lower}` is named twice"),
            )
            .help("names of header fields are the same in upper and lower case");
        } else if let Some(value) = value {
            fields.push((lower, value));
        }
    }
    fields
}
