//! The server side: the choice of a certificate by name, and the settings that all connections of a listener share.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme, SupportedCipherSuite};

use super::failure::TlsFailure;
use super::halves::{TlsRx, TlsTx, halves, speaks_http};
use super::session::{Session, TlsSide};
use crate::io::{Chunk, Pool, Rx, Tx};
use crate::work_queue::WorkQueue;

/// The TLS settings of a listener. Immutable and shared by all cores; a changed file leads to a new one.
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// The same for clients that offer to resume a session. They get fewer tickets.
    renewing: Arc<ServerConfig>,
    /// Whether clients are asked for a certificate.
    asks_for_certificate: bool,
    /// Whether endpoints receive the client's identity.
    pub client_headers: bool,
}

impl TlsServer {
    pub(super) fn new(
        config: ServerConfig,
        asks_for_certificate: bool,
        client_headers: bool,
    ) -> Self {
        // A client uses each ticket once (RFC 8446 appendix C.4). This one replaces the ticket that the client has used.
        // Without a session, rustls gives two, because clients open several connections.
        let mut renewing = config.clone();
        renewing.send_tls13_tickets = 1;
        Self {
            config: Arc::new(config),
            renewing: Arc::new(renewing),
            asks_for_certificate,
            client_headers,
        }
    }

    /// Starts TLS on a client's connection. `early` holds the bytes that have arrived already.
    ///
    /// # Errors
    /// rustls rejects the configuration, which loading would have found.
    pub fn accept<R: Rx, T: Tx>(
        &self,
        (rx, tx): (R, T),
        early: Chunk,
        pool: &Pool,
        queue: &Rc<WorkQueue>,
    ) -> io::Result<(TlsRx<R, T>, TlsTx<T>)> {
        let side =
            UnbufferedServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        let mut session = Session::new(TlsSide::Server(side), tx, pool.clone());
        session.renewing = Some(self.renewing.clone());
        session.asks_for_certificate = self.asks_for_certificate;
        if speaks_http(&early) {
            session.failure = Some(TlsFailure::PlainHttp);
        } else if !early.is_empty() {
            session.add(early);
        }
        Ok(halves(rx, session, queue, true))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer")
    }
}

/// Applies the settings that all listeners share.
pub(super) fn apply_common_settings(config: &mut ServerConfig, offered: Vec<Vec<u8>>) {
    // Only tickets resume sessions: other cores do not know the sessions that one core remembers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = offered;
    // Among the suites that Weir accepts, the client picks what its hardware does well.
    config.ignore_client_order = false;
}

/// Certificates by name, in the order in which they were added.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Keyed by what follows the star and the dot.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
    /// The cipher suites that the listener accepts.
    suites: Vec<SupportedCipherSuite>,
}

impl CertificatesByName {
    pub(super) fn new(suites: Vec<SupportedCipherSuite>) -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            all: Vec::new(),
            suites,
        }
    }

    /// Adds a certificate under these names. Clients that request no name or an unknown one get the first certificate
    /// of all that they support. Of several certificates for a name, a client gets the first that it supports, so a
    /// name may have an ECDSA and an RSA certificate.
    pub(super) fn add(&mut self, names: &[String], key: Arc<CertifiedKey>) {
        for name in names {
            let name = name.to_ascii_lowercase();
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.into()).or_default().push(key.clone());
        }
        self.all.push(key);
    }

    fn find(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        self.exact.get(name).or_else(|| {
            //= rfc6125#6.4.3: a star stands for one label.
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        })
    }

    /// Whether the client supports this kind of key. Before TLS 1.3 the cipher suite limits it too (RFC 8422 section
    /// 5.1.1).
    fn is_supported(&self, key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
        let signs = |schemes: &[SignatureScheme]| key.key.choose_scheme(schemes).is_some();
        signs(hello.signature_schemes())
            && self.suites.iter().any(|suite| {
                hello.cipher_suites().contains(&suite.suite())
                    && match suite {
                        SupportedCipherSuite::Tls12(suite) => signs(suite.sign),
                        SupportedCipherSuite::Tls13(_) => true,
                    }
            })
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        let named = named.unwrap_or(&self.all);
        let supported = named.iter().find(|key| self.is_supported(key, &hello));
        // If the client supports none, the handshake fails with an error that names the kind of key.
        supported.or_else(|| named.first()).cloned()
    }
}
