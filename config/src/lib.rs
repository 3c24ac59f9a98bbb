//! The configuration of Weir: TOML text in, a typed [`Config`] or a list of diagnostics out.
//!
//! [`parse`] reads a file and reports all its mistakes at once, or returns plain data in which every value is parsed and
//! every name resolved. [`schema()`] and [`reference()`] are made from the declarations that the decoder runs, so they
//! cannot disagree with it.
//!
//! Modules, lowest first: `text` (source, diagnostics, units), `decode` (kinds of values, declarations of tables), `value`
//! (values that several parts of the file share), `policy` (what routes do beside their target), `slice` (the parts of the
//! file, a module each), `config` and `file` (the whole). A module imports only from modules below it.
//!
//! ```
//! let text = r#"
//!     [listen."127.0.0.1:8080"]
//!     [upstream]
//!     app = ["127.0.0.1:9000"]
//!     [[route]]
//!     match = "/*"
//!     to = "app"
//! "#;
//! let (config, warnings) = weir_config::parse("edge.toml", text).expect("a valid file");
//! assert_eq!(config.routes.len(), 1);
//! assert!(warnings.is_empty());
//!
//! let errors = weir_config::parse("edge.toml", "[listn]").expect_err("an invalid file");
//! assert!(weir_config::to_text(&errors).contains("did you mean `listen`?"));
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod decode;
mod file;
mod policy;
mod reference;
mod schema;
mod slice;
mod text;
mod value;

pub use config::{Config, KeyPositions};
pub use decode::redact::redact;
pub use policy::compress::{Compress, ContentCoding};
pub use policy::concurrency::Concurrency;
pub use policy::cors::{AskedFor, Cors};
pub use policy::errors::{ErrorAnswer, ErrorContent, ErrorKey, Errors};
pub use policy::forward_auth::{AuthMethod, ForwardAuth, OnAuthError};
pub use policy::headers::{FieldRule, FieldRules, HeaderRules};
pub use policy::ip::{IpRules, Networks};
pub use policy::jwt::{Jwt, JwtIssuer, JwtKeys, OnMissing, TokenPlace};
pub use policy::level::Origin;
pub use policy::limit::Limit;
pub use policy::limit_key::LimitKey;
pub use policy::limit_rate::Rate;
pub use policy::mirror::Mirror;
pub use policy::origin_pattern::OriginPattern;
pub use policy::security_headers::{FramePolicy, ReferrerPolicy, SecurityHeaders};
pub use policy::{ListenerPolicies, Policies};
pub use reference::reference;
pub use schema::schema;
pub use slice::access_log::{AccessLog, LogFormat, LogTarget};
pub use slice::admin::Admin;
pub use slice::balance::{Balance, HashKey};
pub use slice::breaker::Breaker;
pub use slice::cores::{Cores, Driver};
pub use slice::dns::Dns;
pub use slice::eject::{Eject, SuccessRate};
pub use slice::endpoint::source::{ConsulService, EndpointSource, Scheme, SourceKind};
pub use slice::endpoint::{Endpoint, EndpointAddress, is_of_one_machine};
pub use slice::health::{CheckKind, CheckMethod, HealthCheck, HttpCheck, INTERVAL_MIN};
pub use slice::hedge::Hedge;
pub use slice::http2::Http2;
pub use slice::limits::{Limits, LimitsPatch};
pub use slice::listener::{Listener, Underscores};
pub use slice::listener_target::{ListenerTarget, ServerNameRoute, UdpTarget, UpstreamTarget};
pub use slice::listener_tls::{CertFiles, Cipher, ClientCert, ListenTls, TlsVersion};
pub use slice::pool::Pool;
pub use slice::redirect::Redirect;
pub use slice::request_match::host::HostMatch;
pub use slice::request_match::path::{PathMatch, Segment};
pub use slice::request_match::path_regex::path_automaton;
pub use slice::request_match::value::{FieldMatch, ValueMatch};
pub use slice::request_match::{Match, is_certificate_name};
pub use slice::respond::Respond;
pub use slice::retries::{Retries, RetriesPatch};
pub use slice::retry_methods::{RetryMethod, RetryMethods};
pub use slice::rewrite::Rewrite;
pub use slice::route::{EncodedSlash, Route, Target};
pub use slice::split::Split;
pub use slice::sticky::{LearnedCookie, SameSite, Sticky, StickyCookie};
pub use slice::test_block::Test;
pub use slice::timeouts::{Timeouts, TimeoutsPatch};
pub use slice::trusted_proxies::{ForwardedHeader, TrustedPeer};
pub use slice::upstream::{ProxyProtocol, Upstream};
pub use slice::upstream_tls::{UpstreamTls, Verify};
pub use slice::user::Account;
pub use text::diagnostic::{
    Code, Diagnostic, Excerpt, Position, Severity, SourceFile, bounded, to_json, to_text,
};
pub use text::problem::ValueError;
pub use text::suggest::nearest;
pub use text::units::{show_duration, show_size};
pub use value::address::Address;
pub use value::algorithm::JwtAlgorithm;
pub use value::failure_set::{FailureKind, FailureSet};
pub use value::fetch_url::FetchUrl;
pub use value::file_path::NamedFile;
pub use value::network::Cidr;
pub use value::placeholder::{PlaceholderText, TextPiece};
pub use value::regex::RegexPattern;
pub use value::server_url::{ServerUrl, UrlHost};
pub use value::status_set::StatusSet;
pub use value::template::{ValuePiece, ValueTemplate};
pub use value::variable::Variable;

/// Defaults and bounds that the rest of Weir uses. Each is declared beside its key.
pub mod limits {
    pub use crate::decode::preset::Preset;
    pub use crate::file::FILE_BYTES_MAX;
    pub use crate::policy::limit_list::LIMITS_MAX;
    pub use crate::slice::access_log::LOG_HEADERS_MAX;
    pub use crate::slice::admin::ADMIN_TOKEN_CHARS_MIN;
    pub use crate::slice::cores::CORES_MAX;
    pub use crate::slice::endpoint::{ENDPOINTS_MAX, PRIORITY_MAX};
    pub use crate::slice::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT, MEMORY_MIN};
    pub use crate::slice::listener::BACKLOG;
    pub use crate::slice::listener_target::TCP_IDLE;
    pub use crate::text::diagnostic::DIAGNOSTICS_MAX;
}

use crate::decode::decoder::Decoder;
use crate::decode::kind::{TableKind, ValueKind};
use crate::decode::kinds::ShortOrLong;
use crate::decode::syntax;
use crate::file::RawFile;
use crate::slice::admin::RawAdmin;
use crate::slice::endpoint::ServerKind;
use crate::text::source::Source;
use crate::value::address::AddressText;

/// Reads the configuration `text` of the file `name`. The name appears in diagnostics, and relative paths in the file begin
/// at its folder; `parse` opens no file.
///
/// Returns the configuration, and warnings in file order.
///
/// # Errors
///
/// All errors and warnings in file order, at most [`limits::DIAGNOSTICS_MAX`], and one that counts the rest.
pub fn parse(name: &str, text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let source = Source::new(name, text);
    let mut cx = Decoder::new(&source, RawFile::info);
    if text.len() > limits::FILE_BYTES_MAX {
        let message = format!("the file has more than {} bytes", limits::FILE_BYTES_MAX);
        cx.file_error(Code::TooMany, message);
        return Err(cx.finish().0);
    }
    let (tree, errors) = toml::de::DeTable::parse_recoverable(text);
    syntax::report_syntax_errors(text, &errors, tree.get_ref(), &mut cx);
    let span = tree.span();
    let value = toml::Spanned::new(span, toml::de::DeValue::Table(tree.into_inner()));
    let config = RawFile::decode(&value, &mut cx).map(|file| {
        let root = value.get_ref().as_table();
        root.map(|root| file.check(root, &mut cx))
    });
    let (diagnostics, failed) = cx.finish();
    match config.flatten() {
        Some(config) if !failed => Ok((config, diagnostics)),
        _ => Err(diagnostics),
    }
}

/// Reads `admin` of a file, even if the file has mistakes elsewhere: commands must reach the Weir that still runs its
/// former text. `None`: it has no `admin`, or one that cannot be used. `name` is the file's path.
#[must_use]
pub fn parse_admin(name: &str, text: &str) -> Option<Admin> {
    let source = Source::new(name, text);
    let mut cx = Decoder::new(&source, RawFile::info);
    let (tree, _) = toml::de::DeTable::parse_recoverable(text);
    let admin = ShortOrLong::<AddressText, RawAdmin>::decode(tree.get_ref().get("admin")?, &mut cx);
    let (_, failed) = cx.finish();
    admin.filter(|_| !failed)
}

/// Reads one endpoint of a list that is in another file. `value` is what an entry of `servers` has, in TOML: a string or
/// an inline table.
///
/// # Errors
///
/// The first mistake, in words.
pub fn parse_endpoint(value: &str) -> Result<Endpoint, String> {
    let text = format!("server = {value}");
    let source = Source::new("", &text);
    let mut cx = Decoder::new(&source, RawFile::info);
    let (tree, errors) = toml::de::DeTable::parse_recoverable(&text);
    if let Some(error) = errors.first() {
        return Err(error.message().to_owned());
    }
    let value = tree.get_ref().get("server");
    let endpoint = value.and_then(|value| ServerKind::decode(value, &mut cx));
    let (diagnostics, failed) = cx.finish();
    let mut mistakes = diagnostics.into_iter().filter(Diagnostic::is_error);
    match (endpoint, mistakes.next()) {
        (Some(endpoint), None) if !failed => Ok(endpoint),
        (_, mistake) => Err(mistake.map_or_else(|| "it is no endpoint".to_owned(), in_words)),
    }
}

/// A mistake and the advice for it, without the text that has the mistake.
fn in_words(diagnostic: Diagnostic) -> String {
    let mut words = diagnostic.message;
    for help in diagnostic.help {
        words.push_str("; ");
        words.push_str(&help);
    }
    words
}
