//! What the levels of a file say of `jwt`, and what that means for a route.

use std::time::Duration;

use toml::de::DeValue;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{NamedEntry, TextKind as _};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::policy::jwt::claims::check_header_names;
use crate::policy::jwt::{Jwt, JwtIssuer, JwtKeys, RawJwt, ShortText, TokenPlace};
use crate::policy::level::{Place, Policy, Setting};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::fetch_url::FetchUrlText;
use crate::value::file_path::NamedFile;

const LEEWAY: Preset<Duration> = preset(Duration::from_secs(60), "Envoy's clock_skew_seconds");

/// Issuers of one route: each token is compared with all of them.
const ISSUERS_MAX: usize = 32;

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// `jwt`: a string, a table, or a list of these.
pub(crate) struct JwtKind;

/// What one level says.
#[derive(Debug, Clone)]
pub(crate) enum RawIssuers {
    /// One issuer. Its keys merge with those of other levels.
    One(Box<RawJwt>),
    /// Several.
    Several(Vec<RawJwt>),
}

impl ValueKind for JwtKind {
    type Value = RawIssuers;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RawIssuers> {
        let DeValue::Array(items) = value.get_ref() else {
            return decode_one(value, cx).map(|one| RawIssuers::One(Box::new(one)));
        };
        if items.is_empty() || items.len() > ISSUERS_MAX {
            let message = format!(
                "a route trusts 1 to {ISSUERS_MAX} issuers, not {}",
                items.len()
            );
            cx.error(Code::BadValue, value.span(), message)
                .help("to ask for no token, leave out `jwt`, or write \"off\"");
            return None;
        }
        let several = items.iter().enumerate().map(|(index, item)| {
            let number = (index + 1).to_string();
            cx.within(&number, |cx| decode_one(item, cx))
        });
        let several: Vec<_> = several.collect();
        several
            .into_iter()
            .collect::<Option<_>>()
            .map(RawIssuers::Several)
    }

    fn shape() -> Shape {
        let one = Shape::AnyOf(vec![ShortText::shape(), RawJwt::shape()]);
        Shape::AnyOf(vec![
            ShortText::shape(),
            Shape::List(Box::new(one)),
            RawJwt::shape(),
        ])
    }
}

fn decode_one(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RawJwt> {
    if value.get_ref().is_table() {
        let mut table = RawJwt::decode(value, cx)?;
        table.claims_to_headers = check_header_names(table.claims_to_headers, cx);
        return Some(table);
    }
    let (issuer, audience) = ShortText::decode(value, cx)?;
    let span = value.span();
    let spanned = |value| Spanned {
        value,
        span: span.clone(),
    };
    Some(RawJwt {
        issuer: Some(spanned(issuer)),
        audience: Some(Spanned {
            value: vec![audience],
            span: span.clone(),
        }),
        span,
        jwks_url: None,
        jwks_file: None,
        key_file: None,
        secret_file: None,
        ca: None,
        algorithms: None,
        leeway: None,
        header: None,
        cookie: None,
        query: None,
        require: None,
        claims_to_headers: None,
        forward: None,
        on_missing: None,
    })
}

impl Policy for JwtKind {
    type Combined = Option<Jwt>;

    fn combine(
        settings: &[Setting<'_, RawIssuers>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<Jwt> {
        // Requests without a route need no token. Routes may add what the top level leaves out.
        place.target?;
        let mut all: Vec<RawJwt> = Vec::new();
        for setting in settings {
            match (setting.value, all.as_mut_slice()) {
                (RawIssuers::One(one), [known]) => known.merge((**one).clone()),
                (RawIssuers::One(one), _) => all = vec![(**one).clone()],
                (RawIssuers::Several(several), _) => all.clone_from(several),
            }
        }
        let is_only = all.len() == 1;
        let mut issuers: Vec<JwtIssuer> = Vec::with_capacity(all.len());
        let mut on_missing = None;
        for raw in all {
            let span = raw.span.clone();
            let own = raw.on_missing.unwrap_or_default();
            if *on_missing.get_or_insert(own) != own {
                cx.error(
                    Code::Conflict,
                    span.clone(),
                    "the issuers of one route differ in `on_missing`",
                )
                .help("write the same for each: a request without a token names none of them");
            }
            let issuer = build(raw, is_only, cx)?;
            if issuers.iter().any(|known| known.issuer == issuer.issuer) {
                cx.error(
                    Code::Duplicate,
                    span,
                    "this issuer occurs twice in the list",
                )
                .help("merge both: `audience` may be a list");
                return None;
            }
            issuers.push(issuer);
        }
        Some(Jwt {
            issuers,
            on_missing: on_missing.unwrap_or_default(),
        })
    }
}

impl RawJwt {
    /// Takes over what a higher level says.
    fn merge(&mut self, higher: Self) {
        // Nobody has to trust an authority for a file.
        if higher.key_file_sources().next().is_some() {
            self.ca = None;
        }
        // Another issuer has other keys, which are in one place.
        if higher.issuer.is_some() || higher.key_sources().next().is_some() {
            self.jwks_url = higher.jwks_url;
            self.jwks_file = higher.jwks_file;
            self.key_file = higher.key_file;
            self.secret_file = higher.secret_file;
        }
        if higher.header.is_some() || higher.cookie.is_some() || higher.query.is_some() {
            self.header = higher.header;
            self.cookie = higher.cookie;
            self.query = higher.query;
        }
        self.span = higher.span;
        self.issuer = higher.issuer.or_else(|| self.issuer.take());
        self.audience = higher.audience.or_else(|| self.audience.take());
        self.ca = higher.ca.or_else(|| self.ca.take());
        self.algorithms = higher.algorithms.or_else(|| self.algorithms.take());
        self.leeway = higher.leeway.or_else(|| self.leeway.take());
        self.forward = higher.forward.or_else(|| self.forward.take());
        self.on_missing = higher.on_missing.or_else(|| self.on_missing.take());
        merge_entries(&mut self.require, higher.require);
        merge_entries(&mut self.claims_to_headers, higher.claims_to_headers);
    }

    /// The keys that say where the issuer's keys are, with their spans.
    fn key_sources(&self) -> impl Iterator<Item = (&'static str, &Span)> {
        let url = self.jwks_url.as_ref().map(|key| ("jwks_url", &key.span));
        url.into_iter().chain(self.key_file_sources())
    }

    /// Those of them that name a file.
    fn key_file_sources(&self) -> impl Iterator<Item = (&'static str, &Span)> {
        let all = [
            ("jwks_file", self.jwks_file.as_ref().map(|key| &key.span)),
            ("key_file", self.key_file.as_ref().map(|key| &key.span)),
            (
                "secret_file",
                self.secret_file.as_ref().map(|key| &key.span),
            ),
        ];
        all.into_iter().filter_map(|(key, span)| Some((key, span?)))
    }
}

/// Adds the entries of a higher level, which replace those of the same name.
fn merge_entries<T>(entries: &mut Option<Vec<NamedEntry<T>>>, higher: Option<Vec<NamedEntry<T>>>) {
    let Some(higher) = higher else { return };
    let all = entries.get_or_insert_default();
    all.retain(|entry| higher.iter().all(|new| new.name.value != entry.name.value));
    all.extend(higher);
}

/// The issuer that all levels describe together; reports what is missing, and what excludes each other.
fn build(raw: RawJwt, is_only: bool, cx: &mut Decoder<'_>) -> Option<JwtIssuer> {
    let audience = check_audience(&raw, cx);
    let keys = check_keys(&raw, is_only, cx);
    if let (Some(ca), Some(keys)) = (&raw.ca, &keys) {
        check_ca(ca, keys, cx);
    }
    let place = check_place(&raw, cx);
    Some(JwtIssuer {
        audience: audience?,
        keys: keys?,
        place: place?,
        issuer: raw.issuer.map(|issuer| issuer.value),
        ca: raw.ca.map(|ca| ca.value),
        algorithms: raw.algorithms.unwrap_or_default(),
        leeway: raw.leeway.unwrap_or(LEEWAY.value),
        require: values(raw.require),
        claims_to_headers: values(raw.claims_to_headers),
        forward: raw.forward.unwrap_or_default(),
    })
}

fn values<T>(entries: Option<Vec<NamedEntry<T>>>) -> Vec<(String, T)> {
    let entries = entries.unwrap_or_default().into_iter();
    entries
        .filter_map(|entry| Some((entry.name.value, entry.value?)))
        .collect()
}

/// The audiences; empty for any.
fn check_audience(raw: &RawJwt, cx: &mut Decoder<'_>) -> Option<Vec<String>> {
    let Some(Spanned { value: names, span }) = &raw.audience else {
        if !cx.has_suggested(&raw.span, "audience") {
            cx.error(Code::MissingKey, raw.span.clone(), "`jwt` has no `audience`")
                .help("add audience = \"NAME\", the `aud` of tokens that are for this service; \"any\" takes the tokens for all others too");
        }
        return None;
    };
    let problem = match &names[..] {
        [any] if any == "any" => {
            cx.warning(
                Code::Unsafe,
                span.clone(),
                "every token of the issuer passes",
            )
            .label("also those that are for other services");
            return Some(Vec::new());
        }
        names if names.iter().any(|name| name == "any") => "\"any\" stands alone",
        names if names.is_empty() || names.iter().any(String::is_empty) => {
            "`audience` names nobody"
        }
        _ => return Some(names.clone()),
    };
    cx.error(Code::BadValue, span.clone(), problem)
        .help("write the `aud` of tokens that are for this service");
    None
}

/// Where the issuer's keys are.
fn check_keys(raw: &RawJwt, is_only: bool, cx: &mut Decoder<'_>) -> Option<JwtKeys> {
    let sources: Vec<_> = raw.key_sources().collect();
    if let [(first, _), (second, span), ..] = sources[..] {
        let message =
            format!("an issuer has its keys in one place, this one has `{first}` and `{second}`");
        cx.error(Code::Conflict, span.clone(), message)
            .help("remove one of them");
        return None;
    }
    let given = given_keys(raw);
    let Some(issuer) = &raw.issuer else {
        let message = match given {
            Some(_) if is_only => return given,
            Some(_) => "`issuer` is missing: in a list, the `iss` of a token chooses",
            None => "`jwt` does not say whose tokens pass",
        };
        cx.error(Code::MissingKey, raw.span.clone(), message)
            .help("add issuer = \"https://HOST/\"");
        return None;
    };
    if issuer.value.is_empty() {
        cx.error(Code::BadValue, issuer.span.clone(), "`issuer` is empty")
            .help("write the `iss` of the tokens");
        return None;
    }
    given.or_else(|| discovery(issuer, cx))
}

/// The keys that the file says itself where they are.
fn given_keys(raw: &RawJwt) -> Option<JwtKeys> {
    let url = raw
        .jwks_url
        .as_ref()
        .map(|url| JwtKeys::Url(url.value.clone()));
    let set = raw
        .jwks_file
        .as_ref()
        .map(|file| JwtKeys::SetFile(file.value.clone()));
    let key = raw
        .key_file
        .as_ref()
        .map(|file| JwtKeys::KeyFile(file.value.clone()));
    let secret = raw
        .secret_file
        .as_ref()
        .map(|file| JwtKeys::SecretFile(file.value.clone()));
    url.or(set).or(key).or(secret)
}

/// Reports authorities that nobody would be compared with.
fn check_ca(ca: &Spanned<NamedFile>, keys: &JwtKeys, cx: &mut Decoder<'_>) {
    let problem = match keys {
        JwtKeys::Discovery(url) | JwtKeys::Url(url) if url.is_https => return,
        JwtKeys::Discovery(_) | JwtKeys::Url(_) => "Weir fetches these keys without TLS",
        JwtKeys::SetFile(_) | JwtKeys::KeyFile(_) | JwtKeys::SecretFile(_) => {
            "Weir fetches no keys of this issuer"
        }
    };
    cx.error(Code::Conflict, ca.span.clone(), problem)
        .help("remove `ca`: it is for issuers whose keys come over https");
}

/// The document in which an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4).
fn discovery(issuer: &Spanned<String>, cx: &mut Decoder<'_>) -> Option<JwtKeys> {
    const HELP: &str =
        "if the keys are somewhere else, add `jwks_url`, `jwks_file`, `key_file` or `secret_file`";
    if issuer.value.contains('?') {
        cx.error(
            Code::BadValue,
            issuer.span.clone(),
            "an issuer with a query has no discovery document",
        )
        .help(HELP);
        return None;
    }
    let base = issuer.value.strip_suffix('/').unwrap_or(&issuer.value);
    match FetchUrlText::parse(&format!("{base}{DISCOVERY}")) {
        Ok(url) => Some(JwtKeys::Discovery(url)),
        Err(problem) => {
            let message = problem
                .message
                .replace(&format!("{base}{DISCOVERY}"), &issuer.value);
            let diagnostic = cx.error(Code::BadValue, issuer.span.clone(), message);
            if let Some(help) = problem.help {
                diagnostic.help(help);
            }
            diagnostic.help(HELP);
            None
        }
    }
}

fn check_place(raw: &RawJwt, cx: &mut Decoder<'_>) -> Option<TokenPlace> {
    let places = [
        ("header", &raw.header),
        ("cookie", &raw.cookie),
        ("query", &raw.query),
    ];
    let mut given = places
        .iter()
        .filter_map(|(key, place)| Some((*key, place.as_ref()?)));
    let Some((key, Spanned { value, span })) = given.next() else {
        return Some(TokenPlace::Header("authorization".to_owned()));
    };
    if let Some((second, place)) = given.next() {
        let message = format!("a token stands in one place, this one has `{key}` and `{second}`");
        cx.error(Code::Conflict, place.span.clone(), message)
            .help("remove one of them");
        return None;
    }
    if key == "query" && raw.forward != Some(true) {
        let message = "Weir leaves the query as it is, so endpoints get this token";
        cx.error(Code::Conflict, span.clone(), message)
            .help("if they may have it, add forward = true; otherwise take the token from a field");
        return None;
    }
    Some(match key {
        "header" => TokenPlace::Header(value.clone()),
        "cookie" => TokenPlace::Cookie(value.clone()),
        _ => TokenPlace::Query(value.clone()),
    })
}
