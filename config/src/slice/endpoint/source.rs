//! Entries of `servers` that are no addresses: sources that Weir asks for endpoints while it runs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{Choice, Keywords, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::slice::endpoint::{Endpoint, EndpointText, RawServer, ServerKind};
use crate::text::diagnostic::{Code, Position};
use crate::text::problem::Problem;
use crate::value::address::is_host_name;
use crate::value::fetch_url::{FetchUrl, read_any};
use crate::value::file_path::{NamedFile, NamedFileKind};

/// A source of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSource {
    /// What Weir asks.
    pub kind: SourceKind,
    /// Its position in the file.
    pub position: Position,
}

/// What Weir asks for endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A file with a list, which Weir reads again when it changes.
    File(NamedFile),
    /// The SRV records of a name (RFC 2782).
    Srv {
        /// The name in lower case, such as `_http._tcp.example.com`.
        name: String,
        /// How Weir speaks to the endpoints.
        scheme: Scheme,
    },
    /// A list at a URL.
    List {
        /// The URL.
        url: FetchUrl,
        /// The time between two requests.
        every: Duration,
    },
    /// The healthy instances of a service in Consul's catalog.
    Consul(ConsulService),
}

/// A service in Consul's catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulService {
    /// The URL of the agent or server, without the path of the API.
    pub url: FetchUrl,
    /// The name of the service.
    pub service: String,
    /// The tag that instances must have.
    pub tag: Option<String>,
    /// The file with the token that Weir shows.
    pub token_file: Option<NamedFile>,
    /// How Weir speaks to the endpoints.
    pub scheme: Scheme,
}

/// How Weir speaks to endpoints that a source names without a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// TLS, whose handshake chooses the protocol.
    Https,
    /// HTTP/2 in the clear.
    H2c,
}

impl Keywords for Scheme {
    const ALL: &'static [(&'static str, Self)] = &[
        ("http", Self::Http),
        ("https", Self::Https),
        ("h2c", Self::H2c),
    ];
}

impl Scheme {
    /// `endpoint`, spoken to in this way.
    #[must_use]
    pub fn applied_to(self, endpoint: Endpoint) -> Endpoint {
        Endpoint {
            tls: self == Self::Https,
            h2c: self == Self::H2c,
            ..endpoint
        }
    }

    /// What precedes the name of a source with this scheme.
    fn prefix(self) -> &'static str {
        match self {
            Self::Http => "",
            Self::Https => "https+",
            Self::H2c => "h2c+",
        }
    }
}

impl fmt::Display for SourceKind {
    /// Writes the source's identity. A reload keeps the answers of a source whose identity stays the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "file://{}", file.path.display()),
            Self::Srv { name, scheme } => write!(f, "{}srv:{name}", scheme.prefix()),
            Self::List { url, .. } => write!(f, "list:{url}"),
            Self::Consul(consul) => {
                let (scheme, url) = (consul.scheme.prefix(), consul.url.to_string());
                let url = url.trim_end_matches('/');
                write!(f, "{scheme}consul:{url}/{}", consul.service)?;
                consul
                    .tag
                    .as_ref()
                    .map_or(Ok(()), |tag| write!(f, "?tag={tag}"))
            }
        }
    }
}

/// An entry of `servers`.
#[derive(Debug, Clone)]
pub(crate) enum ServerEntry {
    /// An endpoint.
    Endpoint(Endpoint),
    /// A source of endpoints.
    Source(SourceKind),
}

/// Splits the entries of `servers` into endpoints and sources; reports sources that occur twice.
pub(crate) fn split_entries(
    entries: Vec<Spanned<ServerEntry>>,
    cx: &mut Decoder<'_>,
) -> (Vec<Spanned<Endpoint>>, Vec<EndpointSource>) {
    let mut endpoints = Vec::with_capacity(entries.len());
    let mut sources = Vec::<EndpointSource>::new();
    for Spanned { value, span } in entries {
        match value {
            ServerEntry::Endpoint(value) => endpoints.push(Spanned { value, span }),
            ServerEntry::Source(kind) => {
                let name = kind.to_string();
                if sources.iter().any(|known| known.kind.to_string() == name) {
                    let message = format!("the source `{name}` occurs twice");
                    cx.error(Code::Duplicate, span.clone(), message)
                        .help("remove one of them");
                }
                sources.push(EndpointSource {
                    kind,
                    position: cx.position(&span),
                });
            }
        }
    }
    (endpoints, sources)
}

/// An endpoint, or a source of endpoints.
pub(crate) struct ServerEntryKind;

impl ValueKind for ServerEntryKind {
    type Value = ServerEntry;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<ServerEntry> {
        let is_file = |text: &str| text.starts_with("file:");
        if value.get_ref().as_str().is_some_and(is_file) {
            let path = FileUrlText::decode(value, cx)?;
            return Some(ServerEntry::Source(SourceKind::File(NamedFile {
                path,
                excerpt: Some(cx.excerpt(&value.span())),
            })));
        }
        let has = |key: &str| {
            let table = value.get_ref().as_table();
            table.is_some_and(|table| table.contains_key(key))
        };
        let source = if has("srv") {
            RawSrv::decode(value, cx)?.build()
        } else if has("list") {
            RawList::decode(value, cx)?.build()
        } else if has("consul") {
            RawConsul::decode(value, cx)?.build(cx)
        } else {
            return ServerKind::decode(value, cx).map(ServerEntry::Endpoint);
        };
        Some(ServerEntry::Source(source))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            EndpointText::shape(),
            FileUrlText::shape(),
            RawServer::shape(),
            RawSrv::shape(),
            RawList::shape(),
            RawConsul::shape(),
        ])
    }
}

/// The URL of a file with a list of endpoints.
pub(crate) struct FileUrlText;

impl TextKind for FileUrlText {
    type Value = PathBuf;
    const NOUN: &'static str = "the URL of a file";
    const PATTERN: Option<&'static str> = Some("^file:///.*[^/]$");
    const EXAMPLES: &'static [&'static str] = &["file:///etc/weir/app.servers"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        let path = text.strip_prefix("file://").unwrap_or_default();
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(Problem::new(format!("`{text}` is not the URL of a file"))
                .help("write three slashes and the path: \"file:///etc/weir/app.servers\""));
        }
        Ok(PathBuf::from(path))
    }
}

const SCHEME: Preset<Scheme> = preset(Scheme::Http, "as addresses without a scheme");

table! {
    /// Endpoints from the SRV records of a name. Weir looks the records up again when their TTL ends.
    RawSrv, "srv_source", "a source of endpoints: SRV records" {
        /// The name of the records. A lower priority number is used first; `weight` is the share of requests.
        required srv: String = "srv" as ServiceNameText;
        /// How Weir speaks to the endpoints: `"http"` is HTTP/1.1 in the clear, `"h2c"` HTTP/2 in the clear; with
        /// `"https"` the TLS handshake chooses the protocol.
        preset(SCHEME) scheme: Scheme = "scheme" as Choice<Scheme>;
    }
}

impl RawSrv {
    fn build(self) -> SourceKind {
        SourceKind::Srv {
            name: self.srv,
            scheme: self.scheme,
        }
    }
}

/// The name of SRV records.
pub(crate) struct ServiceNameText;

impl TextKind for ServiceNameText {
    type Value = String;
    const NOUN: &'static str = "the name of SRV records";
    const EXAMPLES: &'static [&'static str] = &["_http._tcp.app.internal"];

    fn parse(text: &str) -> Result<String, Problem> {
        if !is_host_name(text) {
            return Err(
                Problem::new(format!("`{text}` is not the name of SRV records"))
                    .help("write it as DNS has it: \"_http._tcp.app.internal\""),
            );
        }
        Ok(text.to_ascii_lowercase())
    }
}

const EVERY: Preset<Duration> = preset(Duration::from_secs(5), "as Traefik's HTTP provider");

table! {
    /// Endpoints from a JSON list at a URL.
    RawList, "list_source", "a source of endpoints: a list at a URL" {
        /// The URL. The answer is a JSON list of what `servers` may have: addresses, or objects with `address`.
        required list: FetchUrl = "list" as SourceUrlText;
        /// The time between two requests, 100 ms at least.
        preset(EVERY) every: Duration = "every" as DurationText;
    }
}

impl RawList {
    fn build(self) -> SourceKind {
        SourceKind::List {
            url: self.list,
            every: self.every.max(EVERY_MIN),
        }
    }
}

/// The shortest time between two requests.
const EVERY_MIN: Duration = Duration::from_millis(100);

table! {
    /// Endpoints from Consul: the instances of a service whose checks pass. Changes arrive at once.
    RawConsul, "consul_source", "a source of endpoints: Consul" {
        /// The URL of the agent or server.
        required consul: FetchUrl = "consul" as SourceUrlText;
        /// The name of the service.
        required service: String = "service" as ConsulNameText;
        /// The tag that instances must have.
        optional tag: String = "tag" as ConsulNameText;
        /// The file with the token that Weir shows Consul. Weir reads it again for each query.
        optional token_file: NamedFile = "token_file" as NamedFileKind;
        /// How Weir speaks to the endpoints, as in the table of `srv`.
        preset(SCHEME) scheme: Scheme = "scheme" as Choice<Scheme>;
    }
}

impl RawConsul {
    fn build(self, cx: &mut Decoder<'_>) -> SourceKind {
        if self.consul.target.contains('?') {
            let message = "the URL of Consul has no query";
            cx.error(Code::BadValue, self.span.clone(), message)
                .help("write `service` and `tag` as keys");
        }
        if self.token_file.is_some() && !self.consul.is_https && !self.consul.is_this_machine() {
            let message = "Weir sends the token in the clear to another machine";
            cx.warning(Code::Unsafe, self.span.clone(), message)
                .help("write https://, or ask the agent on this machine");
        }
        SourceKind::Consul(ConsulService {
            url: self.consul,
            service: self.service,
            tag: self.tag,
            token_file: self.token_file,
            scheme: self.scheme,
        })
    }
}

/// A URL that gives endpoints. It may be in the clear on any machine, as endpoints may.
pub(crate) struct SourceUrlText;

impl TextKind for SourceUrlText {
    type Value = FetchUrl;
    const NOUN: &'static str = "a URL";
    const PATTERN: Option<&'static str> = Some("^https?://[^/?#@]+");
    const EXAMPLES: &'static [&'static str] = &["http://127.0.0.1:8500"];

    fn parse(text: &str) -> Result<FetchUrl, Problem> {
        read_any(text)
    }
}

/// The name of a service or tag in Consul.
pub(crate) struct ConsulNameText;

impl TextKind for ConsulNameText {
    type Value = String;
    const NOUN: &'static str = "a name";
    const EXAMPLES: &'static [&'static str] = &["web", "v2"];

    fn parse(text: &str) -> Result<String, Problem> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::new(format!("`{text}` is not a name in Consul"))
                .help("write ASCII characters without blanks"));
        }
        Ok(text.to_owned())
    }
}
