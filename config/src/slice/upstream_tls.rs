//! `tls` of an upstream: how Weir speaks to its `https://` endpoints.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{Choice, Keywords, SpannedKind, TextKind};
use crate::decode::table::{frame, table};
use crate::text::diagnostic::{Code, Excerpt};
use crate::text::problem::Problem;
use crate::value::address::is_host_name;
use crate::value::file_path::{NamedFile, NamedFileKind};

/// How Weir speaks to the `https://` endpoints of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities that endpoints' certificates must come from; `None` for the system's.
    pub ca: Option<NamedFile>,
    /// The certificate and key for endpoints that ask for one.
    pub cert: Option<(NamedFile, NamedFile)>,
    /// The name that Weir asks endpoints for and that their certificates must have; `None` for the host in their
    /// address.
    pub server_name: Option<String>,
    /// Whether Weir verifies endpoints' certificates.
    pub verify: Verify,
    /// The line that switches verification off.
    pub verify_excerpt: Option<Excerpt>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            ca: None,
            cert: None,
            server_name: None,
            verify: Verify::On,
            verify_excerpt: None,
        }
    }
}

/// Whether Weir verifies endpoints' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// The certificate must be valid for the endpoint's name.
    On,
    /// Any certificate will do: anyone between Weir and the endpoint can read and change all traffic.
    Off,
}

impl Keywords for Verify {
    const ALL: &'static [(&'static str, Self)] = &[("on", Self::On), ("off", Self::Off)];
}

table! {
    /// TLS towards the `https://` endpoints of an upstream.
    RawUpstreamTls, "upstream_tls", "[upstream.NAME.tls]" {
        /// Authorities that endpoints' certificates must come from, PEM. Set it for endpoints with certificates of your
        /// own authority; otherwise Weir trusts the system's authorities.
        optional ca: NamedFile = "ca" as NamedFileKind;
        /// The certificate that Weir shows to endpoints that ask for one, PEM.
        optional cert: NamedFile = "cert" as NamedFileKind;
        /// Its private key, PEM.
        optional key: NamedFile = "key" as NamedFileKind;
        /// The name that Weir asks endpoints for (SNI) and that their certificates must have. Set it for endpoints named
        /// by IP address; the default is the host of the endpoint's address.
        optional server_name: String = "server_name" as ServerNameText;
        /// Whether Weir verifies endpoints' certificates; `"on"` is the default. `"off"` accepts any certificate: anyone
        /// between Weir and the endpoint can then read and change all traffic.
        optional verify: Spanned<Verify> = "verify" as SpannedKind<Choice<Verify>>;
    }
}

impl RawUpstreamTls {
    /// The settings that the table describes.
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
                .help("set both `cert` and `key`, or neither");
                None
            }
        };
        let verify = self.verify;
        let is_off = verify
            .as_ref()
            .is_some_and(|spanned| spanned.value == Verify::Off);
        UpstreamTls {
            ca: self.ca,
            cert,
            server_name: self.server_name,
            verify_excerpt: verify
                .as_ref()
                .filter(|_| is_off)
                .map(|spanned| cx.excerpt(&spanned.span)),
            verify: verify.map_or(Verify::On, |spanned| spanned.value),
        }
    }
}

/// The host name that Weir asks an endpoint for.
pub(crate) struct ServerNameText;

impl TextKind for ServerNameText {
    type Value = String;
    const NOUN: &'static str = "a host name";
    const EXAMPLES: &'static [&'static str] = &["app.internal"];

    fn parse(text: &str) -> Result<String, Problem> {
        if is_host_name(text) || text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(text.to_ascii_lowercase());
        }
        Err(Problem::new(format!("`{text}` is not a host name"))
            .help("write a name without port and scheme"))
    }
}
