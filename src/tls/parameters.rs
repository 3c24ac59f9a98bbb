//! The parameters that both sides of a connection have negotiated.

use std::rc::Rc;

use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use super::certificate_identity::CertificateIdentity;
use super::halves::TlsRx;
use super::requested_name::RequestedName;
use super::session::{Session, TlsSide};
use crate::io::{Rx, Tx};

/// The application protocol negotiated by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlpnProtocol {
    /// HTTP/1.1, also if the peer named no protocol.
    Http1,
    Http2,
}

impl AlpnProtocol {
    /// The protocols that Weir offers on either side, in order of preference.
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

    /// The protocol's name on the wire.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    pub(super) fn from_name(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// The result of a handshake, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsParameters {
    /// TLS 1.3; TLS 1.2 otherwise.
    pub is_13: bool,
    /// The number of the cipher suite; [`TlsParameters::cipher`] has its name.
    pub suite: u16,
    /// The handshake resumed an earlier session, so no certificate was presented.
    pub is_resumed: bool,
    /// The application protocol.
    pub protocol: AlpnProtocol,
}

impl TlsParameters {
    /// The version as logs and metrics show it.
    pub const fn version(&self) -> &'static str {
        if self.is_13 { "1.3" } else { "1.2" }
    }

    /// rustls' name of the cipher suite.
    pub fn cipher(&self) -> &'static str {
        CipherSuite::from(self.suite).as_str().unwrap_or("unknown")
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// The negotiated parameters; `None` during the handshake.
    pub fn tls_parameters(&self) -> Option<TlsParameters> {
        self.with_session(|session| session.is_open.then(|| of(session)))
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// The client's certificate, which was verified. Parsed once a connection.
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
    /// The server name that the client has requested (SNI, RFC 6066 section 3).
    pub fn server_name(&self) -> Option<Rc<str>> {
        self.with_session(|session| match &session.requested_name {
            RequestedName::Name(name) => Some(name.clone()),
            RequestedName::Unknown | RequestedName::Absent => None,
        })
    }
}

/// Whether the client resumed a session after its certificate had expired. No one has checked the certificate since the
/// session began.
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
