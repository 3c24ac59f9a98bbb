//! The server's side: which certificate is shown for which name, and everything that is the same for all connections
//! of a listener.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig, SignatureScheme, SupportedCipherSuite};

use super::failure::TlsFailure;
use super::halves::{TlsRx, TlsTx, halves, speaks_http};
use super::handshake_queue::HandshakeQueue;
use super::session::{Session, TlsSide};
use crate::io::{Chunk, Pool, Rx, Tx};

/// What a listener terminates TLS with. Immutable and shared by all cores; another one takes its place when a file
/// changes.
pub struct TlsServer {
    pub(super) config: Arc<ServerConfig>,
    /// Endpoints are told who the client is.
    pub client_headers: bool,
}

impl TlsServer {
    /// Begins to serve a connection that a client has made; `early` has come on it already.
    ///
    /// # Errors
    /// The configuration cannot be used, which was found out when it was loaded.
    pub fn accept<R: Rx, T: Tx>(
        &self,
        (rx, tx): (R, T),
        early: Chunk,
        pool: &Pool,
        queue: &Rc<HandshakeQueue>,
    ) -> io::Result<(TlsRx<R, T>, TlsTx<T>)> {
        let side =
            UnbufferedServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        let mut session = Session::new(TlsSide::Server(side), tx, pool.clone());
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

/// Keys that tickets of sessions are encrypted with, shared by all cores, so that any can take up what another began,
/// before and after a reload. New keys every six hours; the former ones are good for as long again.
///
/// A ticket is not asked for a certificate again. So there is one set of keys for each way of looking at clients'
/// certificates: what a listener without has handed out is worth nothing at one with, and neither is what was handed
/// out under other authorities, or before something was revoked.
#[derive(Clone, Default)]
pub struct TicketKeys(Arc<Mutex<HashMap<ClientVerification, Arc<dyn ProducesTickets>>>>);

/// How clients' certificates are looked at: the files of authorities and of what they have revoked as they are, and
/// whether one must be shown.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ClientVerification {
    pub(super) authorities: Vec<u8>,
    pub(super) revoked: Vec<u8>,
    pub(super) required: bool,
}

impl TicketKeys {
    /// The keys for listeners that look at clients in this way; made when first asked for.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn for_verification(
        &self,
        clients: ClientVerification,
    ) -> Result<Arc<dyn ProducesTickets>, Error> {
        // An entry is made whole or not at all, so that a panic elsewhere has not left it broken.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&clients) {
            return Ok(known.clone());
        }
        let fresh = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        all.insert(clients, fresh.clone());
        Ok(fresh)
    }
}

/// Applies what is the same for every listener.
pub(super) fn apply_common_settings(config: &mut ServerConfig, http2: bool) {
    // TicketKeys alone: what a core remembers, another does not know.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = super::AlpnProtocol::offered(http2);
    // What the client prefers of our own choice is what its hardware is good at.
    config.ignore_client_order = false;
}

/// Certificates by the names that they are for, each in the order in which they were added.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what follows the star and its dot.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
    /// What the listener speaks.
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

    /// Adds a certificate for these names. The first of all is also for clients that ask for no name, or for an unknown
    /// one. Of several for a name the first that the client understands is shown: so there may be one with an ECDSA and
    /// one with an RSA key.
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

    /// Whether a client can do with the kind of a key. Before TLS 1.3 the cipher suite says it too (RFC 8422, section
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
        // Without any the handshake fails, and says of which kind of key.
        supported.or_else(|| named.first()).cloned()
    }
}
