//! `errors`: what clients get in place of Weir's own error answers.

use std::fmt;
use std::sync::Arc;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{
    BooleanKind, FallibleKind, KeyPlaceholder, LongForm, NamedEntries, NamedEntry, OrOff,
    PlainText, SpannedKind, TextKind,
};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Place, Policy, Setting};
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::file_path::{NamedFile, NamedFileKind};
use crate::value::media_type::MediaTypeText;

/// The largest page that the configuration itself holds, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What clients get in place of error answers, by the key of the error. Each key occurs once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<ErrorAnswer>);

/// What clients get in place of one kind of error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// The errors that it is for.
    pub key: ErrorKey,
    /// The page or redirect.
    pub content: ErrorContent,
    /// Whether it replaces the answers of endpoints too. Never with a reason.
    pub upstream: bool,
    /// The position of the key in the file.
    pub position: Position,
}

/// Which errors an answer is for. The most specific key wins: a reason, then a status, then a class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKey {
    /// Weir's reason, by its code. The plan checks that there is such a reason.
    Reason(String),
    /// A status, 400 to 599.
    Status(u16),
    /// All statuses with this first digit, 4 or 5.
    Class(u8),
}

impl fmt::Display for ErrorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reason(code) => f.write_str(code),
            Self::Status(status) => write!(f, "{status}"),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}

/// What a client gets. `{status}`, `{reason}` and `{request_id}` in the text stand for those of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorContent {
    /// This text.
    Body {
        /// At most 64 KiB.
        text: Arc<str>,
        /// Its media type.
        content_type: String,
    },
    /// The text of a file, which Weir reads when it loads the configuration.
    File {
        /// The file.
        file: NamedFile,
        /// Its media type.
        content_type: String,
    },
    /// A redirect to this URL or path, with status 302.
    Redirect(String),
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["text", "response", "content", "html", "return"], "`body`"),
    (&["path", "page", "errorfile", "root"], "`file`"),
    (&["location", "url", "uri"], "`redirect`"),
    (&["intercept", "proxy_intercept_errors"], "`upstream`"),
];

table! {
    /// What clients get in place of one kind of error answer: a page, or a redirect. The status stays, except with
    /// `redirect`. Exactly one of `body`, `file` and `redirect`. `{status}`, `{reason}` and `{request_id}` in the page
    /// or address stand for those of the answer.
    RawErrorAnswer, "error", "errors of a policy, each KEY", foreign FOREIGN_NAMES {
        /// The page, at most 64 KiB.
        optional body: Spanned<Option<String>> = "body" as FallibleKind<PlainText>;
        /// A file with the page, UTF-8, at most 256 KiB. Weir reads it at a start and at each reload.
        optional file: Spanned<Option<NamedFile>> = "file" as FallibleKind<NamedFileKind>;
        /// A URL or path, to which Weir redirects the client with status 302.
        optional redirect: Spanned<Option<String>> = "redirect" as FallibleKind<ErrorLocationText>;
        /// The media type of the page. Without it, `text/plain; charset=utf-8` for `body`; for `file`, the type that its
        /// name says: .html, .htm, .txt, .json, .xml or .svg.
        optional content_type: Spanned<String> = "content_type" as SpannedKind<ContentTypeText>;
        /// Whether it replaces the answers of endpoints with this status too; `false` without the key. Set it to hide
        /// endpoints' own error pages.
        optional upstream: Spanned<bool> = "upstream" as SpannedKind<BooleanKind>;
    }
}

/// Keys of `errors`.
pub(crate) struct ErrorKeyName;

impl KeyPlaceholder for ErrorKeyName {
    const NAME: &'static str = "KEY";
}

type Entries = NamedEntries<ErrorKeyName, OrOff<ErrorAnswerKind>>;

/// Answers by key.
pub(crate) struct ErrorsKind;

impl ValueKind for ErrorsKind {
    type Value = Vec<ErrorSetting>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Vec<ErrorSetting>> {
        if !value.get_ref().is_table() {
            cx.wrong_type(value, "a table, a status, a class or a reason each")
                .help("write errors = { 502 = { body = \"...\" } }");
            return None;
        }
        let entries = Entries::decode(value, cx)?;
        if entries.is_empty() {
            cx.error(Code::BadValue, value.span(), "`errors` names no error")
                .help("add one: errors = { 502 = { body = \"...\" } }");
        }
        let mut settings = Vec::with_capacity(entries.len());
        for NamedEntry { name, value } in entries {
            let key = parse_key(&name.value);
            match key {
                Ok(key) => {
                    settings.extend(value.and_then(|value| ErrorSetting::new(key, name, value, cx)))
                }
                Err(problem) => drop(cx.problem(name.span, &name.value, problem)),
            }
        }
        Some(settings)
    }

    fn shape() -> Shape {
        Entries::shape()
    }
}

/// What one level says of one key. No answer takes that of the levels below away.
#[derive(Debug, Clone)]
pub(crate) struct ErrorSetting {
    key: ErrorKey,
    answer: Option<ErrorAnswer>,
}

impl ErrorSetting {
    fn new(
        key: ErrorKey,
        name: Spanned<String>,
        value: Option<RawAnswer>,
        cx: &mut Decoder<'_>,
    ) -> Option<Self> {
        let Some(RawAnswer { content, upstream }) = value else {
            return Some(Self { key, answer: None });
        };
        if let (ErrorKey::Reason(_), Some(upstream)) = (&key, &upstream)
            && upstream.value
        {
            cx.error(
                Code::Conflict,
                upstream.span.clone(),
                "an endpoint's answer has a status, but none of Weir's reasons",
            )
            .help("write the status as the key, such as 502");
            return None;
        }
        Some(Self {
            answer: Some(ErrorAnswer {
                key: key.clone(),
                content,
                upstream: upstream.is_some_and(|upstream| upstream.value),
                position: cx.position(&name.span),
            }),
            key,
        })
    }
}

impl Policy for ErrorsKind {
    type Combined = Errors;

    fn combine(
        settings: &[Setting<'_, Vec<ErrorSetting>>],
        _place: &Place<'_>,
        _cx: &mut Decoder<'_>,
    ) -> Errors {
        let mut merged: Vec<ErrorAnswer> = Vec::new();
        for setting in settings.iter().flat_map(|setting| setting.value) {
            merged.retain(|answer| answer.key != setting.key);
            merged.extend(setting.answer.clone());
        }
        merged.sort_by(|a, b| a.key.cmp(&b.key));
        Errors(merged)
    }
}

/// Reads `502`, `5xx` or a reason.
fn parse_key(text: &str) -> Result<ErrorKey, Problem> {
    let problem = || {
        Problem::new(format!("`{text}` is not an error"))
            .help("write a status such as 502, a class such as 5xx, or a reason such as no_route")
    };
    if let Some(digit) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        return match digit {
            "4" => Ok(ErrorKey::Class(4)),
            "5" => Ok(ErrorKey::Class(5)),
            _ => Err(problem()),
        };
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let status = text
            .parse()
            .ok()
            .filter(|status| (400..=599).contains(status));
        return status.map(ErrorKey::Status).ok_or_else(|| {
            Problem::new(format!("`{text}` is not the status of an error"))
                .help("errors have statuses from 400 to 599")
        });
    }
    let is_code = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    match is_code && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => Ok(ErrorKey::Reason(text.to_owned())),
        false => Err(problem()),
    }
}

/// A checked table.
pub(crate) struct RawAnswer {
    content: ErrorContent,
    upstream: Option<Spanned<bool>>,
}

/// A page or a redirect.
struct ErrorAnswerKind;

impl ValueKind for ErrorAnswerKind {
    type Value = RawAnswer;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RawAnswer> {
        if value.get_ref().is_str() {
            cx.wrong_type(value, "a table")
                .help("write { body = \"...\" }, { file = \"...\" } or { redirect = \"...\" }");
            return None;
        }
        RawErrorAnswer::build(RawErrorAnswer::decode(value, cx)?, cx)
    }

    fn shape() -> Shape {
        RawErrorAnswer::shape()
    }
}

impl LongForm for RawErrorAnswer {
    type Out = RawAnswer;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<RawAnswer> {
        check_one_content(&table, cx)?;
        let content_type = table.content_type;
        let content = match (table.body, table.file, table.redirect) {
            (Some(body), ..) => ErrorContent::Body {
                text: check_body(body, cx)?.into(),
                content_type: content_type
                    .map_or_else(|| PLAIN_TEXT.to_owned(), |given| given.value),
            },
            (_, Some(Spanned { value, span }), _) => {
                let file = value?;
                let content_type = content_type.map(|given| given.value);
                ErrorContent::File {
                    content_type: content_type.or_else(|| type_of(&file, span, cx))?,
                    file,
                }
            }
            (.., redirect) => {
                if let Some(content_type) = content_type {
                    let message = "`content_type` has no effect: a redirect has no page";
                    cx.error(Code::Conflict, content_type.span, message)
                        .help("leave it out");
                }
                ErrorContent::Redirect(redirect?.value?)
            }
        };
        Some(RawAnswer {
            content,
            upstream: table.upstream,
        })
    }
}

/// Reports a table with none or several of the keys that say what the client gets.
fn check_one_content(table: &RawErrorAnswer, cx: &mut Decoder<'_>) -> Option<()> {
    let spans = [
        ("body", table.body.as_ref().map(|body| &body.span)),
        ("file", table.file.as_ref().map(|file| &file.span)),
        ("redirect", table.redirect.as_ref().map(|to| &to.span)),
    ];
    let mut given = spans.iter().filter_map(|(key, span)| Some((key, (*span)?)));
    let Some((first, _)) = given.next() else {
        let is_suggested = |(key, _): &(&str, _)| cx.has_suggested(&table.span, key);
        if !spans.iter().any(is_suggested) {
            cx.error(
                Code::MissingKey,
                table.span.clone(),
                "this error has no answer",
            )
            .help("add body = \"...\", file = \"...\" or redirect = \"https://...\"");
        }
        return None;
    };
    let Some((second, span)) = given.next() else {
        return Some(());
    };
    let message = format!("an error has one answer, this one has `{first}` and `{second}`");
    cx.error(Code::Conflict, span.clone(), message)
        .help("leave one of them out");
    None
}

/// The page, if it is short enough.
fn check_body(body: Spanned<Option<String>>, cx: &mut Decoder<'_>) -> Option<String> {
    let text = body.value?;
    if text.len() > BODY_BYTES_MAX {
        let message = format!(
            "the page has {} bytes, the most is {BODY_BYTES_MAX}",
            text.len()
        );
        cx.error(Code::BadValue, body.span, message)
            .help("put it into a file, and write file = \"...\"");
        return None;
    }
    Some(text)
}

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// The media types that names of files stand for.
const TYPES: [(&str, &str); 6] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("txt", PLAIN_TEXT),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
];

/// The media type that the name of a file says.
fn type_of(file: &NamedFile, span: Span, cx: &mut Decoder<'_>) -> Option<String> {
    let extension = file
        .path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or("");
    let known = TYPES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension));
    if known.is_none() {
        cx.error(
            Code::MissingKey,
            span,
            "the name of the file does not say its media type",
        )
        .help("add content_type = \"text/html; charset=utf-8\"");
    }
    known.map(|(_, content_type)| (*content_type).to_owned())
}

/// A URL or a path.
struct ErrorLocationText;

impl TextKind for ErrorLocationText {
    type Value = String;
    const NOUN: &'static str = "a URL or a path";
    const EXAMPLES: &'static [&'static str] =
        &["https://status.example.com/?id={request_id}", "/sorry.html"];

    fn parse(text: &str) -> Result<String, Problem> {
        if !["/", "http://", "https://"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            return Err(Problem::new("the address of a redirect is a URL or a path")
                .help("begin it with https://, http:// or a slash"));
        }
        if let Some((bad, c)) = text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
            return Err(Problem::new("a URL consists of visible ASCII characters")
                .at(bad, c.len_utf8())
                .help("write others with a percent sign: \"%20\" is a space"));
        }
        let rest = ["{status}", "{reason}", "{request_id}"]
            .iter()
            .fold(text.to_owned(), |rest, known| rest.replace(known, ""));
        if rest.contains(['{', '}']) {
            return Err(Problem::new("the address has a brace that belongs to no variable")
                .help("there are {status}, {reason} and {request_id}; write other braces as %7B and %7D"));
        }
        Ok(text.to_owned())
    }
}

/// A media type.
struct ContentTypeText;

impl TextKind for ContentTypeText {
    type Value = String;
    const NOUN: &'static str = MediaTypeText::NOUN;
    const PATTERN: Option<&'static str> = MediaTypeText::PATTERN;
    const EXAMPLES: &'static [&'static str] = MediaTypeText::EXAMPLES;

    fn parse(text: &str) -> Result<String, Problem> {
        MediaTypeText::parse(text).map(std::borrow::Cow::into_owned)
    }
}
