//! `cors`: which pages of other origins may read answers.

use std::marker::PhantomData;
use std::time::Duration;

use crate::decode::amounts::PauseText;
use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{BooleanKind, LongForm, OneOrMany, ShortOrLong, SpannedKind, TextKind};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting};
use crate::policy::origin_pattern::{OriginPattern, OriginPatternKind};
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::field::{is_token, not_a_field_name};
use crate::value::regex::RegexPattern;

/// Which pages of other origins may read the answers of a route, and what they may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins, at least one. With [`OriginPattern::Any`] there is no other, and no `credentials`.
    pub origins: Vec<OriginPattern>,
    /// The methods that pages may use.
    pub methods: AskedFor,
    /// The request fields that pages may set.
    pub headers: AskedFor,
    /// The fields of answers that pages may read beside those that every page may; `*` for all.
    pub expose: Vec<String>,
    /// Whether pages may send cookies and other credentials.
    pub credentials: bool,
    /// How long browsers may keep the answer to a preflight, in whole seconds; `None` leaves it to them.
    pub max_age: Option<Duration>,
    /// Whether pages of a public network may send requests to this one.
    pub private_network: bool,
    /// The position of the highest level's value in the file.
    pub position: Position,
}

impl Cors {
    /// Whether both say the same, whatever their places in the file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let position = self.position.clone();
        *self
            == Self {
                position,
                ..other.clone()
            }
    }
}

/// What a preflight may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AskedFor {
    /// Anything: Weir allows what the preflight asks for.
    #[default]
    All,
    /// These only.
    Listed(Vec<String>),
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &[
            "origin",
            "allow_origins",
            "allow_origin",
            "allowed_origins",
            "allowOrigins",
            "accessControlAllowOriginList",
            "regex",
        ],
        "`origins`",
    ),
    (
        &["allow_methods", "allowed_methods", "allowMethods"],
        "`methods`",
    ),
    (
        &["allow_headers", "allowed_headers", "allowHeaders"],
        "`headers`",
    ),
    (
        &["expose_headers", "exposed_headers", "exposeHeaders"],
        "`expose`",
    ),
    (&["allow_credentials", "allowCredentials"], "`credentials`"),
    (&["maxAge"], "`max_age`"),
];

table! {
    /// Which pages of other origins may read answers, and what they may send. Weir answers preflights, and replaces the
    /// CORS fields of endpoints' answers. With `origins` only, `cors` may be their list.
    RawCors, "cors", "cors of a policy", foreign FOREIGN_NAMES {
        /// The origins of the pages: `"https://app.example.com"`, `"https://*.example.com"` for all names below one,
        /// `{ regex = "..." }`, which describes whole origins, `"null"` for pages without an origin, or `"*"` for all.
        optional origins: Vec<Spanned<OriginPattern>> = "origins" as OneOrMany<SpannedKind<OriginPatternKind>>;
        /// The methods that pages may use beside GET, HEAD and POST, which need no permission. Without it, or with `"*"`,
        /// the method that a preflight asks for.
        optional methods: AskedFor = "methods" as AskedForKind<MethodText>;
        /// The request fields that pages may set. Without it, or with `"*"`, those that a preflight asks for.
        optional headers: AskedFor = "headers" as AskedForKind<CorsFieldText>;
        /// The fields of answers that pages may read beside Cache-Control, Content-Language, Content-Length, Content-Type,
        /// Expires, Last-Modified and Pragma; `"*"` for all, without `credentials` only.
        optional expose: Vec<String> = "expose" as OneOrMany<ExposedFieldText>;
        /// Whether pages may send cookies, client certificates and passwords, and read the answers; `false` without the key.
        /// Not with the origin `"*"`.
        optional credentials: bool = "credentials" as BooleanKind;
        /// How long browsers may keep the answer to a preflight. Without it they keep it for 5 s; Chromium keeps none
        /// longer than 2 h, Firefox none longer than a day.
        optional max_age: Duration = "max_age" as MaxAgeText;
        /// Whether pages from public addresses may send requests to this server at a private one; `false` without the key.
        optional private_network: bool = "private_network" as BooleanKind;
    }
}

/// A list of origins, or a table.
pub(crate) type CorsKind = ShortOrLong<OneOrMany<SpannedKind<OriginPatternKind>>, RawCors>;

/// What one level says.
#[derive(Debug, Clone, Default)]
pub(crate) struct CorsSetting {
    /// The short form: nothing of the levels below is left.
    replaces: bool,
    origins: Option<Vec<Spanned<OriginPattern>>>,
    methods: Option<AskedFor>,
    headers: Option<AskedFor>,
    expose: Option<Vec<String>>,
    credentials: Option<bool>,
    max_age: Option<Duration>,
    private_network: Option<bool>,
}

impl From<Vec<Spanned<OriginPattern>>> for CorsSetting {
    fn from(origins: Vec<Spanned<OriginPattern>>) -> Self {
        Self {
            replaces: true,
            origins: Some(origins),
            ..Self::default()
        }
    }
}

impl LongForm for RawCors {
    type Out = CorsSetting;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<CorsSetting> {
        Some(CorsSetting {
            replaces: false,
            origins: table.origins,
            methods: table.methods,
            headers: table.headers,
            expose: table.expose,
            credentials: table.credentials,
            max_age: table.max_age,
            private_network: table.private_network,
        })
    }
}

impl Policy for CorsKind {
    type Combined = Option<Cors>;

    fn combine(
        settings: &[Setting<'_, CorsSetting>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<Cors> {
        let mut merged = CorsSetting::default();
        for setting in settings {
            merged = merged.overridden_by(setting.value);
        }
        let highest = settings.last()?;
        let Some(origins) = merged.origins else {
            // Sets and routes may name the origins.
            let is_suggested = cx.has_suggested(highest.span, "origins");
            if *place.origin != Origin::Top && !is_suggested {
                cx.error(
                    Code::MissingKey,
                    highest.span.clone(),
                    "`cors` has no `origins`",
                )
                .help("add origins = [\"https://app.example.com\"]");
            }
            return None;
        };
        check_origins(&origins, highest.span, cx);
        let cors = Cors {
            origins: origins.into_iter().map(|each| each.value).collect(),
            methods: merged.methods.unwrap_or_default(),
            headers: merged.headers.unwrap_or_default(),
            expose: merged.expose.unwrap_or_default(),
            credentials: merged.credentials.unwrap_or(false),
            max_age: merged.max_age,
            private_network: merged.private_network.unwrap_or(false),
            position: cx.position(highest.span),
        };
        if cors.credentials {
            check_credentials(&cors, highest.span, cx);
        }
        Some(cors)
    }
}

/// Reports what browsers do not take together with credentials, and origins that every site has.
fn check_credentials(cors: &Cors, span: &Span, cx: &mut Decoder<'_>) {
    //= fetch#http-responses: with credentials, `*` is no wildcard.
    if cors.origins.contains(&OriginPattern::Any) {
        let message = "the origin `*` and `credentials` exclude each other: every site could act as its visitors";
        cx.error(Code::Conflict, span.clone(), message)
            .help("name the origins, or leave `credentials` out");
    }
    if cors.expose.iter().any(|name| name == "*") {
        let message =
            "with `credentials`, browsers take the `*` of `expose` for the name of a field";
        cx.error(Code::Conflict, span.clone(), message)
            .help("name the fields that pages may read");
    }
    let is_open = |pattern: &OriginPattern| match pattern {
        OriginPattern::Regex(regex) => takes_strangers(regex),
        _ => false,
    };
    if cors.origins.iter().any(is_open) {
        let message = "an expression of `origins` takes anybody's site, and with `credentials` such a site reads answers as its visitors";
        cx.warning(Code::Unsafe, span.clone(), message)
            .help("describe your own origins only, or leave `credentials` out");
    }
}

/// Whether an expression takes origins that have nothing in common but the scheme or the domain at their end, so that
/// anybody can have one.
fn takes_strangers(regex: &RegexPattern) -> bool {
    let domains = ["invalid", "com", "net", "org", "io", "dev", "app"];
    ["http", "https"].iter().any(|scheme| {
        domains.iter().any(|domain| {
            let strangers = ["qzv-1", "www.7xk"].map(|name| format!("{scheme}://{name}.{domain}"));
            strangers.iter().all(|origin| regex.matches(origin))
        })
    })
}

/// Reports a list that is empty, and origins that `*` covers.
fn check_origins(origins: &[Spanned<OriginPattern>], span: &Span, cx: &mut Decoder<'_>) {
    if origins.is_empty() {
        cx.error(Code::BadValue, span.clone(), "`cors` names no origin")
            .help("add one such as \"https://app.example.com\", or write cors = \"off\"");
    }
    let is_any = |each: &&Spanned<OriginPattern>| each.value == OriginPattern::Any;
    if let Some(any) = origins.iter().find(is_any)
        && origins.len() > 1
    {
        cx.error(
            Code::Conflict,
            any.span.clone(),
            "`*` stands for every origin, so no other can stand beside it",
        )
        .help("leave out `*`, or all others");
    }
}

impl CorsSetting {
    /// These settings, overridden by those of a higher level.
    fn overridden_by(self, higher: &Self) -> Self {
        let higher = higher.clone();
        if higher.replaces {
            return higher;
        }
        Self {
            replaces: false,
            origins: higher.origins.or(self.origins),
            methods: higher.methods.or(self.methods),
            headers: higher.headers.or(self.headers),
            expose: higher.expose.or(self.expose),
            credentials: higher.credentials.or(self.credentials),
            max_age: higher.max_age.or(self.max_age),
            private_network: higher.private_network.or(self.private_network),
        }
    }
}

/// A list of `K`, or `"*"`.
struct AskedForKind<K>(PhantomData<K>);

impl<K: TextKind<Value = String>> ValueKind for AskedForKind<K> {
    type Value = AskedFor;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<AskedFor> {
        if value.get_ref().as_str() == Some("*") {
            return Some(AskedFor::All);
        }
        OneOrMany::<K>::decode(value, cx).map(AskedFor::Listed)
    }

    fn shape() -> Shape {
        OneOrMany::<K>::shape()
    }
}

/// A method.
struct MethodText;

impl TextKind for MethodText {
    type Value = String;
    const NOUN: &'static str = "a method";
    const EXAMPLES: &'static [&'static str] = &["PUT", "DELETE"];

    fn parse(text: &str) -> Result<String, Problem> {
        let problem = Problem::new(format!("`{text}` is not a method"));
        if text == "*" {
            return Err(star_stands_alone());
        }
        if !is_token(text) {
            return Err(problem.help("write one such as \"PUT\""));
        }
        //= rfc9110#9.1: methods are case-sensitive.
        let upper = text.to_ascii_uppercase();
        let is_known =
            ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"].contains(&upper.as_str());
        if is_known && upper != text {
            return Err(problem.help(format!("write \"{upper}\": case matters in methods")));
        }
        Ok(text.to_owned())
    }
}

/// The name of a request field.
struct CorsFieldText;

impl TextKind for CorsFieldText {
    type Value = String;
    const NOUN: &'static str = "a field name";
    const EXAMPLES: &'static [&'static str] = &["Authorization", "X-Api-Key"];

    fn parse(text: &str) -> Result<String, Problem> {
        match text {
            "*" => Err(star_stands_alone()),
            _ if is_token(text) => Ok(text.to_owned()),
            _ => Err(not_a_field_name(text)),
        }
    }
}

fn star_stands_alone() -> Problem {
    Problem::new("`*` stands for all, so nothing can stand beside it")
        .help("write \"*\" without the list")
}

/// The name of a field of answers, or `*`.
struct ExposedFieldText;

impl TextKind for ExposedFieldText {
    type Value = String;
    const NOUN: &'static str = "a field name";
    const EXAMPLES: &'static [&'static str] = &["X-Request-Id", "*"];

    fn parse(text: &str) -> Result<String, Problem> {
        match text {
            "*" => Ok(text.to_owned()),
            _ => CorsFieldText::parse(text),
        }
    }
}

/// A duration in whole seconds.
struct MaxAgeText;

impl TextKind for MaxAgeText {
    type Value = Duration;
    const NOUN: &'static str = "a duration";
    const PATTERN: Option<&'static str> = PauseText::PATTERN;
    const EXAMPLES: &'static [&'static str] = &["1h", "10m"];

    fn parse(text: &str) -> Result<Duration, Problem> {
        let duration = PauseText::parse(text)?;
        if duration.subsec_millis() != 0 {
            return Err(Problem::new(
                "browsers count the age of a preflight in whole seconds",
            ));
        }
        Ok(duration)
    }

    fn from_number(number: &str) -> Option<String> {
        PauseText::from_number(number)
    }
}
