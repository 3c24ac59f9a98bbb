//! A certificate made for one test, and TLS clients and acceptors that use it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Protocol, within};

/// A self-signed certificate for `localhost` and `weir.test`.
pub struct Tls {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: (String, String),
}

impl Tls {
    pub fn new() -> Self {
        let names = ["localhost".to_owned(), "weir.test".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        Self {
            certificate: cert.der().clone(),
            key: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
            pem: (cert.pem(), signing_key.serialize_pem()),
        }
    }

    /// Writes certificate and key into a directory. Returns the key `tls` for a listener and the key `tls` for an
    /// upstream.
    pub fn files(&self, dir: &Path) -> (String, String) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, &self.pem.0).unwrap();
        std::fs::write(&key, &self.pem.1).unwrap();
        let (cert, key) = (cert.display(), key.display());
        (
            format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}"),
            format!("tls = {{ ca = \"{cert}\" }}"),
        )
    }

    pub fn pem(&self) -> &str {
        &self.pem.0
    }

    /// Connects and asserts that ALPN chose `protocol`.
    pub async fn connect(&self, protocol: Protocol, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = self.connect_offering(&[alpn(protocol)], address).await;
        let agreed = stream.get_ref().1.alpn_protocol();
        assert_eq!(agreed, Some(alpn(protocol)));
        stream
    }

    /// Connects and offers these protocols by ALPN.
    pub async fn connect_offering(
        &self,
        offered: &[&[u8]],
        address: SocketAddr,
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("weir.test").unwrap();
        within(connector.connect(name, stream)).await.unwrap()
    }

    /// An acceptor whose ALPN offers one protocol.
    pub fn acceptor(&self, protocol: Protocol) -> TlsAcceptor {
        self.acceptor_of(&[protocol])
    }

    /// An acceptor whose ALPN offers these protocols, preferred ones first.
    pub fn acceptor_of(&self, protocol: &[Protocol]) -> TlsAcceptor {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = protocol.iter().map(|&one| alpn(one).to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}
