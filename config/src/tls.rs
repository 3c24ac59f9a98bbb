//! TLS: how it is written, on listeners and upstreams, and what it means.

use std::marker::PhantomData;
use std::path::PathBuf;

use crate::address::is_host_name;
use crate::decode::{At, Decoder, Kind, Spell, Value};
use crate::diagnostic::{Code, Place};
use crate::json::Json;
use crate::kinds::{Choice, Forms, Long, Many, Placed, Text, Tried, Words, integer};
use crate::limits;
use crate::shape::Shape;
use crate::source::Span;
use crate::table::{frame, table};
use crate::units::Problem;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// Its certificates, at least one. The first is for clients that ask for no name or for an unknown one.
    pub certs: Vec<CertFiles>,
    /// Authorities whose certificates clients may show.
    pub client_ca: Option<NamedFile>,
    /// What these authorities have revoked.
    pub client_crl: Option<NamedFile>,
    /// Whether clients must show one. Without effect where there is no `client_ca`.
    pub client_cert: ClientCert,
    /// Whether endpoints are told who the client is.
    pub client_headers: bool,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// The cipher suites that are spoken; none for the default.
    pub ciphers: Vec<Cipher>,
}

/// A certificate with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate and those that lead to its root, PEM.
    pub cert: NamedFile,
    /// Its private key, PEM.
    pub key: NamedFile,
    /// The authority's word that it is not revoked (OCSP response, DER).
    pub ocsp: Option<NamedFile>,
}

/// How an upstream's `https://` endpoints are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities that endpoints' certificates must come from; the system's if there is no file.
    pub ca: Option<NamedFile>,
    /// What endpoints are shown that ask for a certificate: certificate and key.
    pub cert: Option<(NamedFile, NamedFile)>,
    /// The name that endpoints are asked for and must have; else the one in their address.
    pub server_name: Option<String>,
    /// Whether endpoints' certificates are looked at.
    pub verify: Verify,
    /// Where verification is switched off.
    pub verify_place: Option<Place>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            ca: None,
            cert: None,
            server_name: None,
            verify: limits::TLS_VERIFY.value,
            verify_place: None,
        }
    }
}

/// A file that the configuration names, and where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path; one that is written relatively begins with the folder of the file of configuration.
    pub path: PathBuf,
    /// Where it is named; nowhere when there is no file of configuration.
    pub place: Option<Place>,
}

/// Whether a text is one of a certificate's names, with its kind before it: `DNS:a.example.com`. All else is a subject.
#[must_use]
pub fn is_certificate_name(text: &str) -> bool {
    let kinds = ["DNS:", "IP:", "URI:", "email:"];
    kinds.iter().any(|kind| text.starts_with(kind))
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// No connection without.
    Required,
    /// One that is shown must be good.
    Optional,
}

impl Words for ClientCert {
    const ALL: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("optional", Self::Optional)];
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

impl Words for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[("1.2", Self::V12), ("1.3", Self::V13)];
}

/// Whether an endpoint's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It must be good, and for the endpoint's name.
    On,
    /// Anything goes: whoever is on the way can read and change everything.
    Off,
}

impl Words for Verify {
    const ALL: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

/// A cipher suite, by the name that nginx, HAProxy and Envoy have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cipher(pub &'static str);

impl Cipher {
    /// Whether it is one of TLS 1.3.
    #[must_use]
    pub fn is_13(self) -> bool {
        self.0.starts_with("TLS_")
    }
}

impl Words for Cipher {
    const ALL: &'static [(&'static str, Self)] = &[
        ("TLS_AES_128_GCM_SHA256", Self("TLS_AES_128_GCM_SHA256")),
        ("TLS_AES_256_GCM_SHA384", Self("TLS_AES_256_GCM_SHA384")),
        (
            "TLS_CHACHA20_POLY1305_SHA256",
            Self("TLS_CHACHA20_POLY1305_SHA256"),
        ),
        (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self("ECDHE-ECDSA-AES128-GCM-SHA256"),
        ),
        (
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self("ECDHE-ECDSA-AES256-GCM-SHA384"),
        ),
        (
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self("ECDHE-ECDSA-CHACHA20-POLY1305"),
        ),
        (
            "ECDHE-RSA-AES128-GCM-SHA256",
            Self("ECDHE-RSA-AES128-GCM-SHA256"),
        ),
        (
            "ECDHE-RSA-AES256-GCM-SHA384",
            Self("ECDHE-RSA-AES256-GCM-SHA384"),
        ),
        (
            "ECDHE-RSA-CHACHA20-POLY1305",
            Self("ECDHE-RSA-CHACHA20-POLY1305"),
        ),
    ];
}

/// What an upstream says before every connection (HAProxy's PROXY protocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// The binary form.
    V2,
}

impl Words for ProxyProtocol {
    const ALL: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

/// What `tls` of a listener may be: one table, or a list of certificates.
pub(crate) type ListenTlsKind = Forms<CertList, RawListenTls>;

table! {
    /// TLS of a listener: `cert` and `key`, or `certs`, and what else it needs. A list of tables
    /// with `cert` and `key` is `certs`. Files are looked for beside the file of configuration if
    /// their path does not begin with a slash, and read again by themselves when they change.
    RawListenTls, "listen_tls", "[listen.\"ADDR\".tls]" {
        /// The certificate and those that lead to its root, PEM.
        optional cert: At<Option<NamedFile>> = "cert" as Tried<FileText>;
        /// Its private key, PEM: PKCS#8, PKCS#1 or SEC1; ECDSA, RSA or Ed25519.
        optional key: At<Option<NamedFile>> = "key" as Tried<FileText>;
        /// The authority's word that the certificate is not revoked (an OCSP response, DER),
        /// handed to clients that ask for it.
        optional ocsp: NamedFile = "ocsp" as FileText;
        /// Several certificates: each is for the names that it has, the first also for clients
        /// that ask for none or for an unknown one.
        optional certs: At<Option<Vec<RawCert>>> = "certs" as Tried<Certs>;
        /// Authorities whose certificates clients may show, PEM.
        optional client_ca: NamedFile = "client_ca" as FileText;
        /// What those authorities have revoked (CRLs, PEM), one list for each of them: a
        /// certificate that no list covers is refused too. A list that is overdue still counts.
        optional client_crl: At<NamedFile> = "client_crl" as Placed<FileText>;
        /// Whether clients must show a certificate, where there is a `client_ca`.
        optional client_cert: At<ClientCert> = "client_cert" as Placed<Choice<ClientCert>>;
        /// Whether endpoints are told who the client is, in X-Client-Cert-Subject and
        /// X-Client-Cert-San. What clients themselves say there is dropped on every listener.
        optional client_headers: At<bool> = "client_headers" as Placed<Flag>;
        /// The lowest version that is spoken.
        preset(limits::TLS_MIN_VERSION) min_version: TlsVersion = "min_version" as Choice<TlsVersion>;
        /// The cipher suites that are spoken, by OpenSSL's names. Both sides' speed decides among
        /// them, not their order.
        optional ciphers: At<Vec<Cipher>> = "ciphers" as Placed<Many<Choice<Cipher>>>;
    }
}

table! {
    /// One certificate of several.
    RawCert, "cert", "certs of [listen.\"ADDR\".tls]" {
        /// The certificate and those that lead to its root, PEM.
        required cert: NamedFile = "cert" as FileText;
        /// Its private key, PEM.
        required key: NamedFile = "key" as FileText;
        /// The authority's word that it is not revoked (an OCSP response, DER).
        optional ocsp: NamedFile = "ocsp" as FileText;
    }
}

table! {
    /// TLS towards the `https://` endpoints of an upstream.
    RawUpstreamTls, "upstream_tls", "[upstream.NAME.tls]" {
        /// Authorities that endpoints' certificates must come from, PEM. The system's unless set.
        optional ca: NamedFile = "ca" as FileText;
        /// The certificate that endpoints are shown that ask for one, PEM.
        optional cert: NamedFile = "cert" as FileText;
        /// Its private key, PEM.
        optional key: NamedFile = "key" as FileText;
        /// The name that endpoints are asked for (SNI) and that their certificates must have. The
        /// host of the endpoint's address unless set.
        optional server_name: String = "server_name" as NameText;
        /// `"off"` takes any certificate: anyone between Weir and the endpoint can then read and change all traffic.
        optional verify: At<Verify> = "verify" as Placed<Choice<Verify>>;
    }
}

/// One certificate or a list of them. If something is wrong with each, that is all there is to be said.
struct Certs;

impl Kind for Certs {
    type Value = Vec<RawCert>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let certs = Many::<RawCert>::decode(value, cx)?;
        let is_empty = value
            .get_ref()
            .as_array()
            .is_none_or(|list| list.is_empty());
        (is_empty || !certs.is_empty()).then_some(certs)
    }

    fn shape() -> Shape {
        Many::<RawCert>::shape()
    }
}

/// Says that a list has no certificate in it.
fn report_none(span: Span, cx: &mut Decoder<'_>) {
    cx.error(Code::MissingKey, span, "a list without a certificate");
}

/// A list of certificates.
pub(crate) struct CertList;

impl Kind for CertList {
    type Value = Option<ListenTls>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if !value.get_ref().is_array() {
            cx.wrong_type(value, "a table or a list of tables")
                .help("tls = { cert = \"/etc/weir/site.pem\", key = \"/etc/weir/site.key\" }");
            return None;
        }
        let certs = Certs::decode(value, cx)?;
        if certs.is_empty() {
            report_none(value.span(), cx);
        }
        Some(Some(listen_tls(
            certs.into_iter().map(Into::into).collect(),
        )))
    }

    fn shape() -> Shape {
        Shape::List(Box::new(RawCert::shape()))
    }
}

/// TLS with these certificates and defaults only.
fn listen_tls(certs: Vec<CertFiles>) -> ListenTls {
    ListenTls {
        certs,
        client_ca: None,
        client_crl: None,
        client_cert: limits::CLIENT_CERT.value,
        client_headers: false,
        min_version: limits::TLS_MIN_VERSION.value,
        ciphers: Vec::new(),
    }
}

impl ListenTls {
    /// TLS with one certificate and defaults only.
    #[must_use]
    pub fn new(cert: PathBuf, key: PathBuf) -> Self {
        let file = |path| NamedFile { path, place: None };
        listen_tls(vec![CertFiles {
            cert: file(cert),
            key: file(key),
            ocsp: None,
        }])
    }
}

impl From<RawCert> for CertFiles {
    fn from(raw: RawCert) -> Self {
        Self {
            cert: raw.cert,
            key: raw.key,
            ocsp: raw.ocsp,
        }
    }
}

impl Long for RawListenTls {
    type Out = Option<ListenTls>;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Self::Out> {
        let mut certs = Vec::new();
        match (table.cert, table.key) {
            (Some(cert), Some(key)) => certs.push(CertFiles {
                cert: cert.value?,
                key: key.value?,
                ocsp: table.ocsp,
            }),
            (None, None) if table.certs.is_some() => {}
            (cert, _) => {
                let missing = if cert.is_some() { "key" } else { "cert" };
                cx.error(
                    Code::MissingKey,
                    table.at,
                    format!("`{missing}` is missing"),
                )
                .help("tls = { cert = \"/etc/weir/site.pem\", key = \"/etc/weir/site.key\" }");
                return None;
            }
        }
        if let Some(others) = table.certs {
            certs.extend(others.value?.into_iter().map(Into::into));
            if certs.is_empty() {
                report_none(others.span, cx);
            }
        }
        if table.client_ca.is_none() {
            let needs = [
                ("client_crl", table.client_crl.as_ref().map(|at| &at.span)),
                ("client_cert", table.client_cert.as_ref().map(|at| &at.span)),
                (
                    "client_headers",
                    table.client_headers.as_ref().map(|at| &at.span),
                ),
            ];
            for (key, span) in needs {
                if let Some(span) = span {
                    let message = format!("`{key}` does nothing without `client_ca`");
                    cx.error(Code::Conflict, span.clone(), message)
                        .help("client_ca = \"/etc/weir/clients.pem\" names who may sign certificates of clients");
                }
            }
        }
        if let Some(ciphers) = &table.ciphers
            && table.min_version == TlsVersion::V13
            && !ciphers.value.iter().any(|cipher| cipher.is_13())
        {
            let message = "none of these is for TLS 1.3, and `min_version` allows no other";
            cx.error(Code::Conflict, ciphers.span.clone(), message)
                .help("for example \"TLS_AES_128_GCM_SHA256\"");
        }
        Some(Some(ListenTls {
            client_ca: table.client_ca,
            client_crl: table.client_crl.map(|at| at.value),
            client_cert: table
                .client_cert
                .map_or(limits::CLIENT_CERT.value, |at| at.value),
            client_headers: table.client_headers.is_some_and(|at| at.value),
            min_version: table.min_version,
            ciphers: table.ciphers.map(|at| at.value).unwrap_or_default(),
            ..listen_tls(certs)
        }))
    }
}

impl RawUpstreamTls {
    /// What the table means.
    pub(crate) fn build(self, cx: &mut Decoder<'_>) -> UpstreamTls {
        let cert = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (cert, _) => {
                let missing = if cert.is_some() { "key" } else { "cert" };
                cx.error(Code::MissingKey, self.at, format!("`{missing}` is missing"))
                    .help("a certificate needs its key, and a key its certificate");
                None
            }
        };
        let verify = self.verify;
        let is_off = verify.as_ref().is_some_and(|at| at.value == Verify::Off);
        UpstreamTls {
            ca: self.ca,
            cert,
            server_name: self.server_name,
            verify_place: verify
                .as_ref()
                .filter(|_| is_off)
                .map(|at| cx.place(&at.span)),
            verify: verify.map_or(limits::TLS_VERIFY.value, |at| at.value),
        }
    }
}

/// The path of a file.
pub(crate) struct FileText;

impl Kind for FileText {
    type Value = NamedFile;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<NamedFile> {
        let path = PathName::decode(value, cx)?;
        Some(NamedFile {
            path: cx.beside(path),
            place: Some(cx.place(&value.span())),
        })
    }

    fn shape() -> Shape {
        PathName::shape()
    }
}

struct PathName;

impl Text for PathName {
    type Value = PathBuf;
    const NOUN: &'static str = "a file";
    const PATTERN: Option<&'static str> = Some("[^/]$");
    const EXAMPLES: &'static [&'static str] = &["/etc/weir/site.pem"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        if text.starts_with("-----BEGIN") {
            return Err(Problem::new(
                "expected the path of a file, found what should be in it",
            ));
        }
        if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            let problem = Problem::new(format!("`{text}` is no path of a file"));
            return Err(problem
                .help("for example \"/etc/weir/site.pem\", or \"site.pem\" beside this file"));
        }
        Ok(PathBuf::from(text))
    }
}

/// A host name that is asked for.
pub(crate) struct NameText;

impl Text for NameText {
    type Value = String;
    const NOUN: &'static str = "a host name";
    const EXAMPLES: &'static [&'static str] = &["app.internal"];

    fn parse(text: &str) -> Result<String, Problem> {
        if is_host_name(text) || text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(text.to_ascii_lowercase());
        }
        Err(Problem::new(format!("`{text}` is no host name")).help("a name without port or scheme"))
    }
}

/// A truth value.
pub(crate) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            let diagnostic = cx.wrong_type(value, "true or false");
            let text = value.get_ref().as_str().unwrap_or("");
            if ["true", "on", "yes"].contains(&text.to_ascii_lowercase().as_str()) {
                diagnostic.help("write true");
            }
        }
        found
    }

    fn shape() -> Shape {
        Shape::Boolean
    }
}

impl Spell for Flag {
    fn spell(value: &bool) -> Json {
        Json::Bool(*value)
    }
}

/// `true` for the usual port, or a port.
pub(crate) struct HttpsPort(PhantomData<()>);

impl Kind for HttpsPort {
    type Value = Option<u16>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if let Some(flag) = value.get_ref().as_bool() {
            return Some(flag.then_some(443));
        }
        let port = integer(value)
            .flatten()
            .and_then(|port| u16::try_from(port).ok());
        if let Some(port) = port.filter(|port| *port > 0) {
            return Some(Some(port));
        }
        cx.wrong_type(value, "true, false or a port from 1 to 65535");
        None
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            Shape::Boolean,
            Shape::Integer {
                min: 1,
                max: u16::MAX.into(),
            },
        ])
    }
}

impl Spell for HttpsPort {
    fn spell(value: &Option<u16>) -> Json {
        value.map_or(Json::Bool(false), |port| Json::Number(port.into()))
    }
}
