//! TLS connections of the control thread, which fetches things over HTTPS.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{TlsClient, TlsName};
use super::failure::describe;
use super::load::system_roots;
use super::parameters::AlpnProtocol;
use super::provider::provider;
use crate::files;
use crate::limits::TLS_FILE_BYTES_MAX;

/// Makes connections to servers whose certificates trusted authorities have signed.
#[derive(Clone)]
pub struct FetchTls(TlsConnector);

impl FetchTls {
    /// Reads the authorities in the file `ca`, or those of the system. Blocks.
    ///
    /// # Errors
    /// Those of [`check_authorities`]; the system has none.
    pub fn load(ca: Option<&Path>) -> Result<Self, String> {
        let roots = match ca {
            Some(ca) => read_roots(ca)?,
            None => system_roots().ok_or(
                "the system has no CA certificates; install the package `ca-certificates`",
            )?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider(&[])));
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(|error| error.to_string())?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the server `host`, a name or an address.
    ///
    /// # Errors
    /// The handshake fails, or the certificate is not one of this host.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Makes connections to the endpoints of an upstream, with its certificates and authorities.
#[derive(Clone)]
pub struct CheckTls(TlsConnector);

impl TlsClient {
    /// What checks connect with. `only_http2` offers no other protocol.
    #[must_use]
    pub fn for_checks(&self, only_http2: bool) -> CheckTls {
        let mut config = ClientConfig::clone(&self.for_core().config);
        if only_http2 {
            config.alpn_protocols = vec![AlpnProtocol::Http2.name().to_vec()];
        }
        CheckTls(TlsConnector::from(Arc::new(config)))
    }
}

impl CheckTls {
    /// Shakes hands with an endpoint. Returns the connection, and the protocol that the endpoint has chosen.
    ///
    /// # Errors
    /// Why the handshake fails.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: &TlsName,
        stream: S,
    ) -> Result<(TlsStream<S>, AlpnProtocol), String> {
        let shaken = self.0.connect(name.0.clone(), stream).await;
        let stream = shaken.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            inner.map_or_else(|| error.to_string(), describe)
        })?;
        let protocol = AlpnProtocol::from_name(stream.get_ref().1.alpn_protocol());
        Ok((stream, protocol))
    }
}

/// Checks that a file has certificates of authorities, PEM. Blocks.
///
/// # Errors
/// The file cannot be read, has no certificate, or one that is broken.
pub fn check_authorities(file: &Path) -> Result<(), String> {
    read_roots(file).map(drop)
}

fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let shown = file.display();
    let content = files::read(file, TLS_FILE_BYTES_MAX);
    let content = content.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let wrong = |why: &str| format!("cannot use {shown}: {why}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| wrong(&error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| wrong(&describe(&error)))?;
    }
    match roots.is_empty() {
        true => Err(wrong("there is no certificate in it (PEM)")),
        false => Ok(roots),
    }
}
