//! `health` of an upstream: the checks that Weir makes of its endpoints.

use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{
    BooleanKind, Choice, Count, Keywords, LongForm, NamedEntries, NamedEntry, PlainText,
    SpannedKind, TextKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::slice::endpoint::{Endpoint, EndpointAddress};
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::value::authority::AuthorityText;
use crate::value::field::{FieldName, FieldValueText, check_header_names};
use crate::value::server_url::check_target;
use crate::value::status_set::{StatusSet, StatusesKind};

/// The checks of an upstream's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What Weir asks an endpoint.
    pub kind: CheckKind,
    /// The time between the beginnings of two checks of an endpoint.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How many checks in a row must fail before a healthy endpoint is down.
    pub fall: u32,
    /// How many checks in a row must pass before an endpoint that is down is healthy.
    pub rise: u32,
    /// The port that checks go to; `None` for the endpoint's.
    pub port: Option<u16>,
    /// Whether checks speak TLS; `None`: as the endpoint does.
    pub tls: Option<bool>,
    /// The host that requests of checks have; `None` for the upstream's, or the endpoint's address.
    pub host: Option<String>,
    /// Further fields of requests, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A request over HTTP.
    Http(HttpCheck),
    /// A connection, with a TLS handshake if the endpoint speaks TLS.
    Tcp,
    /// `grpc.health.v1.Health/Check` of this service; empty for the server as a whole.
    Grpc(String),
}

/// A request over HTTP, and the answers that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The path, with a query if there is one.
    pub target: String,
    /// The method.
    pub method: CheckMethod,
    /// The statuses that pass.
    pub status: StatusSet,
    /// What the first 64 KiB of the answer's body must contain.
    pub body: Option<String>,
}

/// The method of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// POST, without a body.
    Post,
}

impl CheckMethod {
    /// The method as requests have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
        }
    }
}

impl Keywords for CheckMethod {
    const ALL: &'static [(&'static str, Self)] = &[
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("OPTIONS", Self::Options),
        ("POST", Self::Post),
    ];
}

const INTERVAL: Preset<Duration> = preset(Duration::from_secs(5), "as NGINX Plus");

/// The shortest interval, which is also the shortest pause while an endpoint fails.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The longest time that a check may take, unless the file says otherwise. HAProxy allows its interval of 2 s.
const TIMEOUT_MAX: Duration = Duration::from_secs(2);

const FALL: Preset<u32> = preset(3, "as HAProxy");

const RISE: Preset<u32> = preset(2, "as HAProxy");

/// The statuses that pass, unless the file says otherwise: those of NGINX Plus and HAProxy.
const STATUS: StatusSet = StatusSet::range(200, 399);

const IN_A_ROW_MAX: u32 = 1_000;

/// The path of `health = "/healthz"`.
pub(crate) struct CheckPathText;

impl TextKind for CheckPathText {
    type Value = String;
    const NOUN: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/");
    const EXAMPLES: &'static [&'static str] = &["/healthz"];

    fn parse(text: &str) -> Result<String, Problem> {
        check_target(text)
            .map(|()| text.to_owned())
            .map_err(|problem| match text {
                "tcp" => problem.help("write health = { tcp = true }"),
                "grpc" => problem.help("write health = { grpc = true }"),
                _ => problem,
            })
    }
}

/// The short form of `health`.
pub(crate) struct HealthPath;

impl ValueKind for HealthPath {
    type Value = RawHealth;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RawHealth> {
        CheckPathText::decode(value, cx).map(|path| RawHealth {
            span: value.span(),
            http: Some(path),
            tcp: None,
            grpc: None,
            interval: INTERVAL.value,
            timeout: None,
            fall: FALL.value,
            rise: RISE.value,
            status: None,
            body: None,
            method: None,
            host: None,
            headers: None,
            port: None,
            tls: None,
        })
    }

    fn shape() -> Shape {
        CheckPathText::shape()
    }
}

/// `true`, or the name of a service.
pub(crate) struct GrpcServiceKind;

impl ValueKind for GrpcServiceKind {
    type Value = Option<String>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if value.get_ref().as_str().is_some() {
            return PlainText::decode(value, cx).map(Some);
        }
        BooleanKind::decode(value, cx).map(|is_on| is_on.then(String::new))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![BooleanKind::shape(), PlainText::shape()])
    }
}

/// A duration of [`INTERVAL_MIN`] or more.
pub(crate) struct IntervalText;

impl TextKind for IntervalText {
    type Value = Duration;
    const NOUN: &'static str = "a duration";
    const PATTERN: Option<&'static str> = DurationText::PATTERN;
    const EXAMPLES: &'static [&'static str] = &["5s", "500ms"];

    fn parse(text: &str) -> Result<Duration, Problem> {
        let interval = DurationText::parse(text)?;
        if interval < INTERVAL_MIN {
            return Err(Problem::new(format!("`{text}` is too short")).help(
                "write \"100ms\" or more; checks are more frequent while an endpoint fails",
            ));
        }
        Ok(interval)
    }

    fn from_number(number: &str) -> Option<String> {
        DurationText::from_number(number)
    }
}

impl WritableKind for IntervalText {
    fn to_json(value: &Duration) -> Json {
        DurationText::to_json(value)
    }
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["path", "uri", "url", "http_path"], "`http`"),
    (&["every", "inter", "period"], "`interval`"),
    (
        &["fails", "unhealthy_threshold", "unhealthy", "failures"],
        "`fall`",
    ),
    (
        &["passes", "healthy_threshold", "healthy", "successes"],
        "`rise`",
    ),
    (
        &[
            "expect",
            "match",
            "codes",
            "expected_statuses",
            "http_statuses",
        ],
        "`status`",
    ),
    (&["hostname", "host_header"], "`host`"),
    (&["service", "service_name"], "grpc = \"SERVICE\""),
    (&["scheme", "ssl"], "`tls`"),
];

table! {
    /// Checks of the endpoints. [load-balancing.md](load-balancing.md#active-checks) has the rules. With a
    /// path alone, `health` may be that path.
    RawHealth, "health", "[upstream.NAME.health]", foreign FOREIGN_NAMES {
        /// Asks for this path over HTTP, in the version that the endpoint speaks.
        optional http: String = "http" as CheckPathText;
        /// `true` only connects, with a TLS handshake if the endpoint speaks TLS. Set it for endpoints without HTTP.
        optional tcp: bool = "tcp" as BooleanKind;
        /// `true` asks `grpc.health.v1.Health/Check` for the server as a whole, a name for that service.
        optional grpc: Option<String> = "grpc" as GrpcServiceKind;
        /// The time between the beginnings of two checks of an endpoint, 100 ms at least; each differs by up to a fifth at
        /// random. A fifth of it while the endpoint fails or has yet to prove itself.
        preset(INTERVAL) interval: Duration = "interval" as IntervalText;
        /// How long a check may take, with connection and TLS handshake. Without the key, half of `interval`, and 2 s at
        /// most (HAProxy's interval).
        optional timeout: Duration = "timeout" as DurationText;
        /// How many checks in a row must fail before a healthy endpoint is down.
        preset(FALL) fall: u32 = "fall" as Count<1, IN_A_ROW_MAX>;
        /// How many checks in a row must pass before an endpoint that is down is healthy.
        preset(RISE) rise: u32 = "rise" as Count<1, IN_A_ROW_MAX>;
        /// The statuses that pass: `"200-299,304"`, a number, or a list of both. Weir follows no redirects. The default is
        /// `"200-399"`, as NGINX Plus and HAProxy.
        optional status: Spanned<StatusSet> = "status" as SpannedKind<StatusesKind>;
        /// A text that the first 64 KiB of the answer's body must contain.
        optional body: Spanned<String> = "body" as SpannedKind<PlainText>;
        /// The method; the default is GET. There is no body in any case.
        optional method: Spanned<CheckMethod> = "method" as SpannedKind<Choice<CheckMethod>>;
        /// The host of the request. Without it, the `host` of the upstream, or else the address of the endpoint as the
        /// file has it.
        optional host: Spanned<String> = "host" as SpannedKind<AuthorityText>;
        /// Further fields of the request.
        optional headers: Vec<NamedEntry<String>> = "headers" as NamedEntries<FieldName, FieldValueText>;
        /// The port that checks go to. Set it for endpoints that report their health at a port of its own.
        optional port: Spanned<u32> = "port" as SpannedKind<Count<1, 65_535>>;
        /// Whether checks speak TLS, if otherwise than requests. The keys of `tls` of the upstream hold for checks too.
        optional tls: Spanned<bool> = "tls" as SpannedKind<BooleanKind>;
    }
}

impl LongForm for RawHealth {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

impl RawHealth {
    /// Whether checks speak TLS even if requests do not.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.value)
    }

    /// The checks that the table describes, of these endpoints; with it, whether the upstream has `tls.server_name`.
    pub(crate) fn build(
        self,
        endpoints: (&[Endpoint], bool),
        cx: &mut Decoder<'_>,
    ) -> Option<HealthCheck> {
        let kind = self.kind(cx)?;
        self.check_keys(&kind, cx);
        self.check_endpoints(&kind, endpoints, cx);
        let timeout = self.timeout;
        Some(HealthCheck {
            kind,
            interval: self.interval,
            timeout: timeout.unwrap_or_else(|| TIMEOUT_MAX.min(self.interval / 2)),
            fall: self.fall,
            rise: self.rise,
            port: (self.port).and_then(|port| u16::try_from(port.value).ok()),
            tls: self.tls.map(|tls| tls.value),
            host: self.host.map(|host| host.value),
            headers: check_header_names(own_fields(self.headers, cx), cx),
        })
    }

    fn kind(&self, cx: &mut Decoder<'_>) -> Option<CheckKind> {
        let http = self.http.as_ref().map(|target| {
            CheckKind::Http(HttpCheck {
                target: target.clone(),
                method: (self.method.as_ref()).map_or_else(Default::default, |method| method.value),
                status: self.status.as_ref().map_or(STATUS, |status| status.value),
                body: self.body.as_ref().map(|body| body.value.clone()),
            })
        });
        let tcp = self.tcp.filter(|is_on| *is_on).map(|_| CheckKind::Tcp);
        let grpc = self.grpc.clone().flatten().map(CheckKind::Grpc);
        let mut kinds = [http, tcp, grpc].into_iter().flatten();
        let Some(kind) = kinds.next() else {
            let message = "`health` does not say what to ask";
            cx.error(Code::MissingKey, self.span.clone(), message)
                .help("add http = \"/healthz\", tcp = true or grpc = true");
            return None;
        };
        if kinds.next().is_some() {
            let message = "`http`, `tcp` and `grpc` exclude each other";
            cx.error(Code::Conflict, self.span.clone(), message)
                .help("keep one of them");
            return None;
        }
        Some(kind)
    }

    /// Reports keys that this kind of check does not use.
    fn check_keys(&self, kind: &CheckKind, cx: &mut Decoder<'_>) {
        if let CheckKind::Http(http) = kind {
            if let Some(body) = &self.body
                && http.method == CheckMethod::Head
            {
                let message = "an answer to HEAD has no body";
                cx.error(Code::Conflict, body.span.clone(), message)
                    .help("leave out `body`, or set method = \"GET\"");
            }
            return;
        }
        let of_http = [
            ("status", self.status.as_ref().map(|value| &value.span)),
            ("body", self.body.as_ref().map(|value| &value.span)),
            ("method", self.method.as_ref().map(|value| &value.span)),
        ];
        let first_header = self.headers.as_ref().and_then(|all| all.first());
        let of_requests = [
            ("host", self.host.as_ref().map(|value| &value.span)),
            ("headers", first_header.map(|header| &header.name.span)),
        ];
        let of_requests = of_requests.into_iter().filter(|_| *kind == CheckKind::Tcp);
        let set = of_http.into_iter().chain(of_requests);
        for (key, span) in set.filter_map(|(key, span)| Some((key, span?.clone()))) {
            let (has, needs) = match kind {
                CheckKind::Tcp if matches!(key, "host" | "headers") => ("tcp", "`http` or `grpc`"),
                CheckKind::Tcp => ("tcp", "`http`"),
                _ => ("grpc", "`http`"),
            };
            let message = format!("`{key}` has no meaning with `{has}`");
            cx.error(Code::Conflict, span, message)
                .help(format!("leave it out, or check with {needs}"));
        }
    }

    /// Reports endpoints that cannot be checked so.
    fn check_endpoints(
        &self,
        kind: &CheckKind,
        (endpoints, has_tls_name): (&[Endpoint], bool),
        cx: &mut Decoder<'_>,
    ) {
        let is_unix = |each: &&Endpoint| matches!(each.address, EndpointAddress::Unix(_));
        let unix = endpoints.iter().find(is_unix);
        if let (Some(port), Some(endpoint)) = (&self.port, unix) {
            let message = format!("endpoint `{endpoint}` is a Unix socket, which has no port");
            cx.error(Code::Conflict, port.span.clone(), message)
                .help("leave out `port`, or give this endpoint an upstream of its own");
        }
        if let (Some(tls), Some(endpoint)) = (self.tls.as_ref().filter(|tls| tls.value), unix)
            && !has_tls_name
        {
            let message =
                format!("endpoint `{endpoint}` has no name that a certificate could have");
            cx.error(Code::Conflict, tls.span.clone(), message)
                .help("set `tls.server_name` of the upstream");
        }
        let speaks_http1 = |each: &&Endpoint| !each.h2c && !each.tls;
        if matches!(kind, CheckKind::Grpc(_))
            && self.port.is_none()
            && self.tls.is_none()
            && let Some(endpoint) = endpoints.iter().find(speaks_http1)
        {
            let message = format!("endpoint `{endpoint}` speaks HTTP/1.1, and gRPC needs HTTP/2");
            cx.error(Code::Conflict, self.span.clone(), message)
                .help(format!(
                    "write the endpoint as \"h2c://{}\", or check it with `http`",
                    endpoint.address
                ));
        }
    }
}

/// Fields that Weir sets itself, or that have a key of their own.
const RESERVED_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reports fields that Weir sets itself, and leaves them out.
fn own_fields(
    headers: Option<Vec<NamedEntry<String>>>,
    cx: &mut Decoder<'_>,
) -> Vec<NamedEntry<String>> {
    let mut headers = headers.unwrap_or_default();
    headers.retain(|entry| {
        let name = entry.name.value.to_ascii_lowercase();
        let is_reserved = RESERVED_FIELDS.contains(&&*name);
        if is_reserved {
            let message = format!("Weir sets `{}` of checks itself", entry.name.value);
            cx.error(Code::BadValue, entry.name.span.clone(), message)
                .help(match &*name {
                    "host" => "write the key `host` of `health`",
                    _ => "leave it out",
                });
        }
        !is_reserved
    });
    headers
}
