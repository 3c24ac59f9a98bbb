//! `tls` of an upstream.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{Choice, Keywords, SpannedKind, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, table};
use crate::text::diagnostic::{Code, Excerpt};
use crate::text::problem::Problem;
use crate::value::address::is_host_name;
use crate::value::file_path::{NamedFile, NamedFileKind};

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
    pub verify_excerpt: Option<Excerpt>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            ca: None,
            cert: None,
            server_name: None,
            verify: TLS_VERIFY.value,
            verify_excerpt: None,
        }
    }
}

/// Whether an endpoint's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It must be good, and for the endpoint's name.
    On,
    /// Anything goes: whoever is on the way can read and change everything.
    Off,
}

impl Keywords for Verify {
    const ALL: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

/// Whether endpoints' certificates are looked at.
const TLS_VERIFY: Preset<Verify> = preset(
    Verify::On,
    "TLS that is not verified protects from nobody on the way; nginx `proxy_ssl_verify off`",
);

table! {
    /// TLS towards the `https://` endpoints of an upstream.
    RawUpstreamTls, "upstream_tls", "[upstream.NAME.tls]" {
        /// Authorities that endpoints' certificates must come from, PEM. The system's unless set.
        optional ca: NamedFile = "ca" as NamedFileKind;
        /// The certificate that endpoints are shown that ask for one, PEM.
        optional cert: NamedFile = "cert" as NamedFileKind;
        /// Its private key, PEM.
        optional key: NamedFile = "key" as NamedFileKind;
        /// The name that endpoints are asked for (SNI) and that their certificates must have. The
        /// host of the endpoint's address unless set.
        optional server_name: String = "server_name" as ServerNameText;
        /// `"off"` takes any certificate: anyone between Weir and the endpoint can then read and change all traffic.
        optional verify: Spanned<Verify> = "verify" as SpannedKind<Choice<Verify>>;
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
                cx.error(
                    Code::MissingKey,
                    self.span,
                    format!("`{missing}` is missing"),
                )
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
            verify_excerpt: verify
                .as_ref()
                .filter(|_| is_off)
                .map(|at| cx.excerpt(&at.span)),
            verify: verify.map_or(TLS_VERIFY.value, |at| at.value),
        }
    }
}

/// A host name that is asked for.
pub(crate) struct ServerNameText;

impl TextKind for ServerNameText {
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
