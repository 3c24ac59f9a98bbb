//! What both sides of a connection have agreed on.

use std::rc::Rc;

use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use super::halves::TlsRx;
use super::hello::Asked;
use super::session::{Session, Side};
use super::x509::Identity;
use crate::io::{Rx, Tx};

/// The protocol that was agreed on by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, also for a client that named none.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
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
pub struct Agreed {
    /// TLS 1.3, or else 1.2.
    pub is_13: bool,
    /// The number of the cipher suite; [`Agreed::cipher`] has its name.
    pub suite: u16,
    /// A former session was taken up again: no certificate was shown.
    pub resumed: bool,
    /// What is spoken on the connection.
    pub protocol: Protocol,
}

impl Agreed {
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
    pub fn agreed(&self) -> Option<Agreed> {
        self.look(|session| session.is_open.then(|| of(session)))
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// Whose certificate the client has shown; it was verified. Read once a connection.
    pub fn identity(&self) -> Option<Rc<Identity>> {
        let read = || {
            let read = self.look(|session| match &session.side {
                Side::Server(side) => Identity::of(side.peer_certificates()?.first()?),
                Side::Client(_) => None,
            });
            read.map(Rc::new)
        };
        self.identity.get_or_init(read).clone()
    }
}

impl<R: Rx, T: Tx> TlsRx<R, T> {
    /// The name that the client asked for (SNI, RFC 6066 section 3).
    pub fn server_name(&self) -> Option<Rc<str>> {
        self.look(|session| match &session.asked {
            Asked::Name(name) => Some(name.clone()),
            Asked::Unknown | Asked::Nothing => None,
        })
    }
}

/// Whether a session was taken up again after the end of the client's certificate, which nobody has looked at since it
/// began.
pub(super) fn is_outlived<T: Tx>(session: &Session<T>) -> bool {
    let Side::Server(side) = &session.side else {
        return false;
    };
    side.handshake_kind() == Some(HandshakeKind::Resumed)
        && side
            .peer_certificates()
            .and_then(|chain| Identity::of(chain.first()?))
            .is_some_and(|identity| identity.seconds_left() < 0)
}

fn of<T: Tx>(session: &Session<T>) -> Agreed {
    let (version, suite, kind, alpn) = match &session.side {
        Side::Server(side) => (
            side.protocol_version(),
            side.negotiated_cipher_suite(),
            side.handshake_kind(),
            side.alpn_protocol(),
        ),
        Side::Client(side) => (
            side.protocol_version(),
            side.negotiated_cipher_suite(),
            side.handshake_kind(),
            side.alpn_protocol(),
        ),
    };
    Agreed {
        is_13: version == Some(ProtocolVersion::TLSv1_3),
        suite: suite.map_or(0, |suite| suite.suite().into()),
        resumed: kind == Some(HandshakeKind::Resumed),
        protocol: Protocol::from_name(alpn),
    }
}
