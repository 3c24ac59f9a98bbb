//! The client side: TLS connections to endpoints.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::halves::{TlsRx, TlsTx, halves};
use super::session::{Session, TlsSide};
use crate::io::{Pool, Rx, Tx};
use crate::limits::TLS_SESSIONS_KEPT_MAX;
use crate::work_queue::WorkQueue;

/// The TLS settings for an upstream's endpoints. Immutable; [`TlsClient::for_core`] makes the copy that a core uses.
pub struct TlsClient {
    pub(super) config: Arc<ClientConfig>,
    /// The settings as text, to compare with.
    pub(super) settings: String,
}

impl TlsClient {
    /// Whether connections made with `other` fit these settings.
    pub fn has_same_settings(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// A copy for one core. It remembers sessions of its own, so cores share no lock.
    pub fn for_core(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_KEPT_MAX);
        Self {
            config: Arc::new(config),
            settings: self.settings.clone(),
        }
    }

    /// Starts TLS on a connection to an endpoint. `offered` replaces the protocols that Weir offers by ALPN: a request
    /// that needs a connection of its own cannot use HTTP/2, and bytes that Weir only passes on have no protocol.
    ///
    /// # Errors
    /// rustls rejects the configuration, which loading would have found.
    pub fn connect<R: Rx, T: Tx>(
        &self,
        name: &TlsName,
        (rx, tx): (R, T),
        pool: &Pool,
        queue: &Rc<WorkQueue>,
        offered: Option<Vec<Vec<u8>>>,
    ) -> io::Result<(TlsRx<R, T>, TlsTx<T>)> {
        let (config, name) = (self.config.clone(), name.0.clone());
        let side = match offered {
            Some(offered) => UnbufferedClientConnection::new_with_alpn(config, name, offered),
            None => UnbufferedClientConnection::new(config, name),
        };
        let side = side.map_err(io::Error::other)?;
        let session = Session::new(TlsSide::Client(side), tx, pool.clone());
        Ok(halves(rx, session, queue, false))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient")
    }
}

/// The name that Weir asks an endpoint for, and that the endpoint's certificate must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(pub(super) ServerName<'static>);

impl TlsName {
    /// Parses a host name or an IP address. Returns `None` if the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        ServerName::try_from(text.to_owned()).ok().map(Self)
    }
}

/// Accepts any certificate, as long as the endpoint has its key.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
