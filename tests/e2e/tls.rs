//! Clients over TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DEFAULT_VERSIONS, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::{Authority, DEADLINE};

/// Returns a function that opens a TLS connection to `address`, expecting a certificate for `a.test`.
pub fn tls_to(
    address: SocketAddr,
    ca: &Authority,
) -> impl Fn() -> StreamOwned<ClientConnection, TcpStream> {
    let config = Arc::new(tls_config(&ca.pem, DEFAULT_VERSIONS));
    move || tls_connect(address, config.clone())
}

/// Opens a TLS connection to `address`, expecting a certificate for `a.test`.
pub fn tls_connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("a.test").unwrap();
    let client = ClientConnection::new(config, name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_nodelay(true).unwrap();
    StreamOwned::new(client, socket)
}

/// A client that trusts the authority and shows no certificate.
pub fn tls_config(ca_pem: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(tls_roots(ca_pem))
        .with_no_client_auth()
}

/// The authority as the only root.
pub fn tls_roots(ca_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    roots
}
