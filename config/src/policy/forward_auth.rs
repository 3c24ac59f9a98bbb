//! `forward_auth`: another server says whether a request may pass.

use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, Keywords, LongForm, OneOrMany, OrOff, ShortOrLong, SpannedKind, TextKind,
};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting};
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::value::field::{is_token, not_a_field_name};
use crate::value::server_url::{ServerUrl, check_target};

/// A server that Weir asks whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// The upstream that Weir asks: its index in [`Config::upstreams`](crate::Config::upstreams).
    pub upstream: usize,
    /// The host that the server gets, if the file names the server by a URL; else it gets the client's.
    pub authority: Option<String>,
    /// The path, and the query if there is one.
    pub target: String,
    /// The method.
    pub method: AuthMethod,
    /// The client's fields that the server gets, in lower case; `None` for all.
    pub request_headers: Option<Vec<String>>,
    /// Fields of the server's answer that endpoints get, as the file writes them.
    pub copy_to_request: Vec<String>,
    /// Fields of the server's answer that the client gets, as the file writes them.
    pub copy_to_response: Vec<String>,
    /// How long the server may take.
    pub timeout: Duration,
    /// What becomes of requests while the server fails.
    pub on_error: OnAuthError,
    /// How long Weir keeps a verdict; `None` if it asks for each request.
    pub cache: Option<Duration>,
    /// The position of the value in the file that is set last.
    pub position: Position,
}

/// The method of a request to an authorization server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
    /// POST, without a body.
    Post,
}

impl AuthMethod {
    /// The method as requests have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

impl Keywords for AuthMethod {
    const ALL: &'static [(&'static str, Self)] = &[
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("POST", Self::Post),
    ];
}

/// What becomes of requests while their authorization server fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAuthError {
    /// They are refused.
    #[default]
    Deny,
    /// They pass.
    Allow,
}

impl Keywords for OnAuthError {
    const ALL: &'static [(&'static str, Self)] = &[("deny", Self::Deny), ("allow", Self::Allow)];
}

/// How long a server may take, unless the file says otherwise: a client that waits longer gives up or tries again.
/// Envoy allows 200 ms, Traefik 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["address", "url", "uri", "server", "upstream"], "`to`"),
    (
        &[
            "authResponseHeaders",
            "auth_response_headers",
            "copy_headers",
            "allowed_upstream_headers",
        ],
        "`copy_to_request`",
    ),
    (
        &[
            "addAuthCookiesToResponse",
            "allowed_client_headers",
            "allowed_client_headers_on_success",
        ],
        "`copy_to_response`",
    ),
    (
        &["authRequestHeaders", "allowed_headers", "headers"],
        "`request_headers`",
    ),
    (&["failure_mode_allow", "fail_open"], "`on_error`"),
];

table! {
    /// Asks another server whether a request may pass, as `forwardAuth` of Traefik, `auth_request` of nginx and
    /// `forward_auth` of Caddy do. An answer of 2xx lets it pass; any other goes to the client.
    /// [policies.md](policies.md) says what the server gets.
    RawForwardAuth, "forward_auth", "forward_auth of a policy", foreign FOREIGN_NAMES {
        /// The server: its URL, or the name of an upstream. A URL makes an upstream of its own, the same for all URLs
        /// with the same scheme, host and port. Name an upstream for several servers, limits or a private authority.
        optional to: Spanned<AuthServer> = "to" as SpannedKind<AuthServerText>;
        /// The method of the request to the server; the default is GET. The server never gets a body.
        optional method: AuthMethod = "method" as Choice<AuthMethod>;
        /// The path of the request to the server, with a query if need be. The default is that of the URL, or `/`.
        optional path: Spanned<String> = "path" as SpannedKind<AuthPathText>;
        /// The client's fields that the server gets; without it all, except those about the connection, the body,
        /// ranges and conditions. Set it to `Cookie` or `Authorization`, so that `cache` has fewer verdicts to keep.
        optional request_headers: Vec<Spanned<String>> =
            "request_headers" as OneOrMany<SpannedKind<AuthFieldText>>;
        /// Fields of the server's answer that endpoints get, such as `Remote-User`. Weir takes those of the client off
        /// the request first, whether the server sends them or not.
        optional copy_to_request: Vec<Spanned<String>> =
            "copy_to_request" as OneOrMany<SpannedKind<AuthFieldText>>;
        /// Fields of the server's answer that the client gets with the endpoint's answer, such as `Set-Cookie`.
        optional copy_to_response: Vec<Spanned<String>> =
            "copy_to_response" as OneOrMany<SpannedKind<AuthFieldText>>;
        /// How long the server may take, over all attempts; the default is 5 s.
        optional timeout: Duration = "timeout" as DurationText;
        /// What becomes of requests while the server cannot be reached, is late or answers 5xx: `"deny"`, the default,
        /// answers 503; `"allow"` lets them pass.
        optional on_error: OnAuthError = "on_error" as Choice<OnAuthError>;
        /// How long each core keeps a verdict of 2xx without Set-Cookie, for requests that are equal in everything that
        /// the server gets; the default is `"off"`. Set it if the server is a bottleneck, to a time for which a
        /// user who was logged out may still pass.
        optional cache: Option<Duration> = "cache" as OrOff<DurationText>;
    }
}

impl From<Spanned<AuthServer>> for RawForwardAuth {
    /// A server with defaults only.
    fn from(to: Spanned<AuthServer>) -> Self {
        Self {
            span: to.span.clone(),
            to: Some(to),
            method: None,
            path: None,
            request_headers: None,
            copy_to_request: None,
            copy_to_response: None,
            timeout: None,
            on_error: None,
            cache: None,
        }
    }
}

impl LongForm for RawForwardAuth {
    type Out = Self;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Self> {
        if let (Some(path), Some(to)) = (&table.path, &table.to)
            && let AuthServer::Url(_, target) = &to.value
            && target != "/"
        {
            let message = "the URL of `to` has a path already";
            cx.error(Code::Conflict, path.span.clone(), message)
                .help("write the path once");
        }
        let copied = table.copy_to_request.iter().flatten();
        for name in copied.chain(table.copy_to_response.iter().flatten()) {
            if let Err(problem) = check_copied(&name.value) {
                cx.problem(name.span.clone(), &name.value, problem);
            }
        }
        Some(table)
    }
}

/// A server, alone or with settings.
pub(crate) type ForwardAuthKind = ShortOrLong<SpannedKind<AuthServerText>, RawForwardAuth>;

/// The server of `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthServer {
    /// A URL: the server, and the path with its query.
    Url(ServerUrl, String),
    /// The name of an upstream.
    Upstream(String),
}

/// A URL, or the name of an upstream.
pub(crate) struct AuthServerText;

impl TextKind for AuthServerText {
    type Value = AuthServer;
    const NOUN: &'static str = "a URL or the name of an upstream";
    const PATTERN: Option<&'static str> = Some("^(https?://.+|[A-Za-z0-9_.-]+)$");
    const EXAMPLES: &'static [&'static str] = &[
        "http://auth.internal:9091/api/authz/forward-auth",
        "authelia",
    ];

    fn parse(text: &str) -> Result<AuthServer, Problem> {
        if text.contains("://") {
            let (server, target) = ServerUrl::split(text)?;
            return Ok(AuthServer::Url(server, target));
        }
        if text.contains(['/', ':']) {
            let message = format!("`{text}` is neither a URL nor the name of an upstream");
            let server = if text.starts_with('/') { "SERVER" } else { "" };
            return Err(Problem::new(message).help(format!("write \"http://{server}{text}\"")));
        }
        Ok(AuthServer::Upstream(text.to_owned()))
    }
}

/// A path, and the query if there is one.
pub(crate) struct AuthPathText;

impl TextKind for AuthPathText {
    type Value = String;
    const NOUN: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/");
    const EXAMPLES: &'static [&'static str] = &["/api/authz/forward-auth", "/oauth2/auth"];

    fn parse(text: &str) -> Result<String, Problem> {
        check_target(text).map(|()| text.to_owned())
    }
}

/// The name of a header field.
pub(crate) struct AuthFieldText;

impl TextKind for AuthFieldText {
    type Value = String;
    const NOUN: &'static str = "the name of a header field";
    const EXAMPLES: &'static [&'static str] = &["Remote-User", "Set-Cookie"];

    fn parse(text: &str) -> Result<String, Problem> {
        if is_token(text) && text != "*" {
            return Ok(text.to_owned());
        }
        let problem = not_a_field_name(text);
        Err(match text {
            "*" => problem.help("name each field, so that a client cannot send one of them itself"),
            _ => problem,
        })
    }
}

/// Fields that Weir writes itself, because they are about a connection, the framing of a message or the path that it
/// took.
const OWN_FIELDS: [&str; 17] = [
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Finds out whether Weir may copy a field from the server's answer.
fn check_copied(name: &str) -> Result<(), Problem> {
    let lower = name.to_ascii_lowercase();
    match OWN_FIELDS.contains(&lower.as_str()) {
        true => Err(Problem::new(format!("`{name}` cannot be copied"))
            .help("Weir writes it itself; leave it out")),
        false => Ok(()),
    }
}

impl Policy for ForwardAuthKind {
    type Combined = Option<ForwardAuth>;

    fn combine(
        settings: &[Setting<'_, RawForwardAuth>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<ForwardAuth> {
        let last = settings.last()?;
        let Some(to) = find_last(settings, |raw| raw.to.as_ref()) else {
            if *place.origin == Origin::Top {
                // Each route may name the server.
                return None;
            }
            let message = "`forward_auth` names no server";
            cx.error(Code::MissingKey, last.span.clone(), message)
                .help("add to = \"http://auth.internal/verify\", or the name of an upstream");
            return None;
        };
        let (upstream, authority, own_path) = match &to.value {
            AuthServer::Url(server, target) => (
                place.upstreams.index_of_server(server, &to.span),
                Some(server.authority()),
                target.as_str(),
            ),
            AuthServer::Upstream(name) => {
                let name = Spanned {
                    value: name.clone(),
                    span: to.span.clone(),
                };
                (place.upstreams.resolve(&name, cx)?, None, "/")
            }
        };
        let path = find_last(settings, |raw| raw.path.as_ref());
        let request_headers = find_last(settings, |raw| raw.request_headers.as_ref());
        let copy_to_request = find_last(settings, |raw| raw.copy_to_request.as_ref());
        let copy_to_response = find_last(settings, |raw| raw.copy_to_response.as_ref());
        let timeout = find_last(settings, |raw| raw.timeout.as_ref()).copied();
        let on_error = find_last(settings, |raw| raw.on_error.as_ref()).copied();
        let method = find_last(settings, |raw| raw.method.as_ref()).copied();
        let cache = find_last(settings, |raw| raw.cache.as_ref()).copied();
        Some(ForwardAuth {
            upstream,
            authority,
            target: path.map_or(own_path, |path| &path.value).to_owned(),
            method: method.unwrap_or_default(),
            request_headers: request_headers.map(|names| {
                let lower = names.iter().map(|name| name.value.to_ascii_lowercase());
                lower.collect()
            }),
            copy_to_request: copy_to_request
                .map(|names| texts(names))
                .unwrap_or_default(),
            copy_to_response: copy_to_response
                .map(|names| texts(names))
                .unwrap_or_default(),
            timeout: timeout.unwrap_or(TIMEOUT),
            on_error: on_error.unwrap_or_default(),
            cache: cache.flatten(),
            position: cx.position(last.span),
        })
    }
}

/// What the highest level says that sets the key.
fn find_last<'a, T: 'a>(
    settings: &[Setting<'a, RawForwardAuth>],
    get: impl Fn(&'a RawForwardAuth) -> Option<&'a T>,
) -> Option<&'a T> {
    settings.iter().rev().find_map(|setting| get(setting.value))
}

fn texts(names: &[Spanned<String>]) -> Vec<String> {
    names.iter().map(|name| name.value.clone()).collect()
}
