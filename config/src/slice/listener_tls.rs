//! `tls` of a listener: its certificates, and what it asks of clients' certificates.

use std::path::PathBuf;

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{
    BooleanKind, Choice, FallibleKind, Keywords, LongForm, OneOrMany, ShortOrLong, SpannedKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::shape::Shape;
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;
use crate::value::file_path::{NamedFile, NamedFileKind};

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// Its certificates, at least one. Clients that ask for no name or an unknown one get the first.
    pub certs: Vec<CertFiles>,
    /// Authorities that sign clients' certificates.
    pub client_ca: Option<NamedFile>,
    /// Certificates that these authorities have revoked.
    pub client_crl: Option<NamedFile>,
    /// Whether clients must show a certificate; without effect if there is no `client_ca`.
    pub client_cert: ClientCert,
    /// Whether Weir passes names from the client's certificate to endpoints.
    pub client_headers: bool,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The cipher suites; empty for the default.
    pub ciphers: Vec<Cipher>,
}

/// A certificate with its key and its OCSP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate and its chain, PEM.
    pub cert: NamedFile,
    /// Its private key, PEM.
    pub key: NamedFile,
    /// The authority's OCSP response, DER.
    pub ocsp: Option<NamedFile>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// A handshake without one fails.
    Required,
    /// A client may have none, but one that it shows must be valid.
    Optional,
}

impl Keywords for ClientCert {
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

impl Keywords for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[("1.2", Self::V12), ("1.3", Self::V13)];
}

/// A cipher suite, by the name that OpenSSL, nginx, HAProxy and Envoy use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cipher(pub &'static str);

impl Cipher {
    /// Whether it belongs to TLS 1.3.
    #[must_use]
    pub fn is_13(self) -> bool {
        self.0.starts_with("TLS_")
    }
}

impl Keywords for Cipher {
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

const MIN_VERSION: Preset<TlsVersion> = preset(
    TlsVersion::V12,
    "RFC 9325 section 3.1.1; nginx, HAProxy and Envoy: 1.2",
);

const CLIENT_CERT: Preset<ClientCert> = preset(
    ClientCert::Required,
    "a file that names an authority for clients wants their certificates",
);

/// A table, or a list of certificates.
pub(crate) type ListenTlsKind = ShortOrLong<CertListShortForm, RawListenTls>;

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &["client_auth", "verify", "ssl_verify_client"],
        "`client_cert`",
    ),
    (
        &["ca", "ca_file", "ssl_client_certificate", "trusted_ca"],
        "`client_ca`",
    ),
    (&["protocols", "ssl_protocols", "versions"], "`min_version`"),
    (
        &["alpn", "http2"],
        "`http2` of the listener; HTTP/1.1 is always spoken",
    ),
];

const EXAMPLE: &str = "tls = { cert = \"/etc/weir/site.pem\", key = \"/etc/weir/site.key\" }";

table! {
    /// TLS of a listener: `cert` and `key`, or `certs`, and what else it needs. A list of tables with `cert` and `key`
    /// stands for `certs`. Relative paths begin at the folder of the configuration file. Weir reads the files again when
    /// they change.
    RawListenTls, "listen_tls", "[listen.\"ADDR\".tls]", foreign FOREIGN_NAMES {
        /// The certificate, then the intermediate certificates up to its root, PEM.
        optional cert: Spanned<Option<NamedFile>> = "cert" as FallibleKind<NamedFileKind>;
        /// Its private key, PEM: PKCS#8, PKCS#1 or SEC1; ECDSA, RSA or Ed25519.
        optional key: Spanned<Option<NamedFile>> = "key" as FallibleKind<NamedFileKind>;
        /// The authority's OCSP response for the certificate, DER, which Weir staples for clients that ask for it.
        optional ocsp: NamedFile = "ocsp" as NamedFileKind;
        /// Several certificates. A client gets one for the name that it asks for; if it asks for none or for an unknown
        /// one, the first. One name may have certificates with different kinds of key.
        optional certs: Spanned<Option<Vec<RawCert>>> = "certs" as FallibleKind<OneOrManyCerts>;
        /// Authorities that sign clients' certificates, PEM. Set it to authenticate clients.
        optional client_ca: NamedFile = "client_ca" as NamedFileKind;
        /// Certificates that those authorities have revoked (CRLs, PEM), one list for each authority: Weir also refuses
        /// a certificate that no list covers. A list whose next update is overdue still counts.
        optional client_crl: Spanned<NamedFile> = "client_crl" as SpannedKind<NamedFileKind>;
        /// Whether clients must show a certificate: `"required"`, the default with a `client_ca`, or `"optional"`. Set
        /// `"optional"` to let routes decide with `client_cert` in their match.
        optional client_cert: Spanned<ClientCert> = "client_cert" as SpannedKind<Choice<ClientCert>>;
        /// Passes the subject and the names of the client's certificate to endpoints, in X-Client-Cert-Subject and
        /// X-Client-Cert-San. Every listener drops what clients themselves write there.
        optional client_headers: Spanned<bool> = "client_headers" as SpannedKind<BooleanKind>;
        /// The lowest TLS version. Set `"1.3"` if all clients support it.
        preset(MIN_VERSION) min_version: TlsVersion = "min_version" as Choice<TlsVersion>;
        /// The cipher suites, by OpenSSL's names. Their order does not matter: Weir takes what is fast on both sides.
        optional ciphers: Spanned<Vec<Cipher>> = "ciphers" as SpannedKind<OneOrMany<Choice<Cipher>>>;
    }
}

table! {
    /// One certificate of several.
    RawCert, "cert", "certs of [listen.\"ADDR\".tls]" {
        /// The certificate, then the intermediate certificates up to its root, PEM.
        required cert: NamedFile = "cert" as NamedFileKind;
        /// Its private key, PEM.
        required key: NamedFile = "key" as NamedFileKind;
        /// The authority's OCSP response for it, DER.
        optional ocsp: NamedFile = "ocsp" as NamedFileKind;
    }
}

/// One certificate or a list of them; unreadable if each of them is, so that no check calls the list empty.
struct OneOrManyCerts;

impl ValueKind for OneOrManyCerts {
    type Value = Vec<RawCert>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let certs = OneOrMany::<RawCert>::decode(value, cx)?;
        let is_empty = value
            .get_ref()
            .as_array()
            .is_none_or(|list| list.is_empty());
        (is_empty || !certs.is_empty()).then_some(certs)
    }

    fn shape() -> Shape {
        OneOrMany::<RawCert>::shape()
    }
}

/// Reports a list, at `span`, without a certificate.
fn report_no_certificate(span: Span, cx: &mut Decoder<'_>) {
    cx.error(Code::MissingKey, span, "the list has no certificate")
        .help(EXAMPLE);
}

/// A list of certificates, without further settings.
pub(crate) struct CertListShortForm;

impl ValueKind for CertListShortForm {
    type Value = Option<ListenTls>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if !value.get_ref().is_array() {
            cx.wrong_type(value, "a table or a list of tables")
                .help(EXAMPLE);
            return None;
        }
        let certs = OneOrManyCerts::decode(value, cx)?;
        if certs.is_empty() {
            report_no_certificate(value.span(), cx);
        }
        Some(Some(listen_tls(
            certs.into_iter().map(Into::into).collect(),
        )))
    }

    fn shape() -> Shape {
        Shape::List(Box::new(RawCert::shape()))
    }
}

/// TLS with `certs` and defaults only.
fn listen_tls(certs: Vec<CertFiles>) -> ListenTls {
    ListenTls {
        certs,
        client_ca: None,
        client_crl: None,
        client_cert: CLIENT_CERT.value,
        client_headers: false,
        min_version: MIN_VERSION.value,
        ciphers: Vec::new(),
    }
}

impl ListenTls {
    /// TLS with one certificate and defaults only.
    #[must_use]
    pub fn new(cert: PathBuf, key: PathBuf) -> Self {
        let file = |path| NamedFile {
            path,
            excerpt: None,
        };
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

impl LongForm for RawListenTls {
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
                    table.span,
                    format!("`{missing}` is missing"),
                )
                .help(EXAMPLE);
                return None;
            }
        }
        if let Some(others) = table.certs {
            certs.extend(others.value?.into_iter().map(Into::into));
            if certs.is_empty() {
                report_no_certificate(others.span, cx);
            }
        }
        if table.client_ca.is_none() {
            let needs = [
                (
                    "client_crl",
                    table.client_crl.as_ref().map(|spanned| &spanned.span),
                ),
                (
                    "client_cert",
                    table.client_cert.as_ref().map(|spanned| &spanned.span),
                ),
                (
                    "client_headers",
                    table.client_headers.as_ref().map(|spanned| &spanned.span),
                ),
            ];
            for (key, span) in needs {
                if let Some(span) = span {
                    let message = format!("`{key}` has no effect without `client_ca`");
                    cx.error(Code::Conflict, span.clone(), message).help(
                        "name the authorities of clients: client_ca = \"/etc/weir/clients.pem\"",
                    );
                }
            }
        }
        if let Some(ciphers) = &table.ciphers
            && table.min_version == TlsVersion::V13
            && !ciphers.value.iter().any(|cipher| cipher.is_13())
        {
            let message = "none of these cipher suites is for TLS 1.3, the only version that `min_version` allows";
            cx.error(Code::Conflict, ciphers.span.clone(), message)
                .help("add one such as \"TLS_AES_128_GCM_SHA256\", or set min_version = \"1.2\"");
        }
        Some(Some(ListenTls {
            client_ca: table.client_ca,
            client_crl: table.client_crl.map(|spanned| spanned.value),
            client_cert: table
                .client_cert
                .map_or(CLIENT_CERT.value, |spanned| spanned.value),
            client_headers: table.client_headers.is_some_and(|spanned| spanned.value),
            min_version: table.min_version,
            ciphers: table
                .ciphers
                .map(|spanned| spanned.value)
                .unwrap_or_default(),
            ..listen_tls(certs)
        }))
    }
}
