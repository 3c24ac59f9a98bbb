//! What both sides of a connection have agreed on.

use std::rc::Rc;

use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use super::certificate_identity::CertificateIdentity;
use super::halves::TlsRx;
use super::requested_name::RequestedName;
use super::session::{Session, TlsSide};
use crate::io::{Rx, Tx};

/// The protocol that was agreed on by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlpnProtocol {
    /// HTTP/1.1, also for a client that named none.
    Http1,
    /// HTTP/2.
    Http2,
}

impl AlpnProtocol {
    /// What we can speak on either side, in the order of our preference.
    pub fn offered(http2: bool) -> Vec<Vec<u8>> {
        let all: &[Self] = if http2 {
            &[Self::Http2, Self::Http1]
        } else {
            &[Self::Http1]
        };
        all.iter()
            .map(|protocol| protocol.name().to_vec())
            .collect()
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    fn from_name(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// What was agreed on in a handshake: for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsParameters {
    /// TLS 1.3, or else 1.2.
    pub is_13: bool,
    /// The number of the cipher suite; [`TlsParameters::cipher`] has its name.
    pub suite: u16,
    /// A former session was taken up again: no certificate was shown.
    pub is_resumed: bool,
    /// What is spoken on the connection.
    pub protocol: AlpnProtocol,
}

impl TlsParameters {
    /// The version as logs and metrics have it.
    pub const fn version(&self) -> &'static str {
        if self.is_13 { "1.3" } else { "1.2" }
    }

    /// The name of the cipher suite, as rustls has it.
    pub fn cipher(&self) -> &'static str {
        CipherSuite::from(self.suite).as_str().unwrap_or("unknown")
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// What was agreed on; `None` before the handshake is over.
    pub fn tls_parameters(&self) -> Option<TlsParameters> {
        self.with_session(|session| session.is_open.then(|| of(session)))
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// Whose certificate the client has shown; it was verified. Read once a connection.
    pub fn identity(&self) -> Option<Rc<CertificateIdentity>> {
        let read = || {
            let read = self.with_session(|session| match &session.side {
                TlsSide::Server(side) => {
                    CertificateIdentity::from_der(side.peer_certificates()?.first()?)
                }
                TlsSide::Client(_) => None,
            });
            read.map(Rc::new)
        };
        self.identity.get_or_init(read).clone()
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// The name that the client asked for (SNI, RFC 6066 section 3).
    pub fn server_name(&self) -> Option<Rc<str>> {
        self.with_session(|session| match &session.requested_name {
            RequestedName::Name(name) => Some(name.clone()),
            RequestedName::Unknown | RequestedName::Absent => None,
        })
    }
}

/// Whether a session was taken up again after the end of the client's certificate, which nobody has looked at since it
/// began.
pub(super) fn outlives_client_certificate<T: Tx>(session: &Session<T>) -> bool {
    let TlsSide::Server(side) = &session.side else {
        return false;
    };
    side.handshake_kind() == Some(HandshakeKind::Resumed)
        && side
            .peer_certificates()
            .and_then(|chain| CertificateIdentity::from_der(chain.first()?))
            .is_some_and(|identity| identity.seconds_left() < 0)
}

fn of<T: Tx>(session: &Session<T>) -> TlsParameters {
    let (version, suite, kind, alpn) = match &session.side {
        TlsSide::Server(side) => (
            side.protocol_version(),
            side.negotiated_cipher_suite(),
            side.handshake_kind(),
            side.alpn_protocol(),
        ),
        TlsSide::Client(side) => (
            side.protocol_version(),
            side.negotiated_cipher_suite(),
            side.handshake_kind(),
            side.alpn_protocol(),
        ),
    };
    TlsParameters {
        is_13: version == Some(ProtocolVersion::TLSv1_3),
        suite: suite.map_or(0, |suite| suite.suite().into()),
        is_resumed: kind == Some(HandshakeKind::Resumed),
        protocol: AlpnProtocol::from_name(alpn),
    }
}
