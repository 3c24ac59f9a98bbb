//! TLS connections of the control thread, which fetches things over HTTPS.

use std::io;
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::load::{provider, system_roots};

/// Makes connections to servers whose certificates the system's authorities have signed.
#[derive(Clone)]
pub struct FetchTls(TlsConnector);

impl FetchTls {
    /// Reads the system's authorities, which blocks.
    ///
    /// # Errors
    /// The system has none.
    pub fn load() -> Result<Self, String> {
        let roots = system_roots()
            .ok_or("the system has no CA certificates; install the package `ca-certificates`")?;
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
