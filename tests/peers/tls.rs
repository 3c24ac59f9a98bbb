//! A certificate of a test's own, and both sides of TLS that use it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Speaks, within};

/// One certificate for `localhost` and `weir.test`, which is its own authority.
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

    /// Puts both files into a directory; returns the key `tls` of a listener and the one of an upstream.
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

    /// Connects, and checks what was agreed on.
    pub async fn connect(&self, speaks: Speaks, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = self.connect_offering(&[alpn(speaks)], address).await;
        let agreed = stream.get_ref().1.alpn_protocol();
        assert_eq!(agreed, Some(alpn(speaks)));
        stream
    }

    /// Connects with these protocols offered.
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

    /// A server's side that offers one protocol.
    pub fn acceptor(&self, speaks: Speaks) -> TlsAcceptor {
        self.acceptor_of(&[speaks])
    }

    /// The same for several, in the order of its preference.
    pub fn acceptor_of(&self, speaks: &[Speaks]) -> TlsAcceptor {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = speaks.iter().map(|&one| alpn(one).to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn alpn(speaks: Speaks) -> &'static [u8] {
    match speaks {
        Speaks::Http1 => b"http/1.1",
        Speaks::Http2 => b"h2",
    }
}
