//! The kinds of TLS failures, for metrics, logs and the reference.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident $code:literal;)+) => {
        /// Why a TLS connection failed. Metrics and logs show the codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum TlsFailure { $($(#[doc = $doc])+ $name,)+ }

        impl TlsFailure {
            /// All kinds, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code in metrics and logs.
            pub const fn code(self) -> &'static str { match self { $(Self::$name => $code,)+ } }

            /// The meaning, for the reference.
            pub const fn text(self) -> &'static str { match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ } }
        }
    };
}

kinds! {
    /// The peer spoke HTTP without TLS.
    PlainHttp "plain_http";
    /// The peer spoke something that is not TLS.
    NotTls "not_tls";
    /// The two sides have no TLS version in common.
    Version "version";
    /// The two sides have no cipher suite, group or signature scheme in common.
    Cipher "cipher";
    /// The two sides have no application protocol (ALPN) in common.
    Alpn "alpn";
    /// No certificate is for the requested name.
    NoCertificate "no_certificate";
    /// The peer must present a certificate and did not.
    PeerCertificateMissing "peer_certificate_missing";
    /// The peer's certificate has expired or is not valid yet.
    PeerCertificateExpired "peer_certificate_expired";
    /// No trusted authority has issued the peer's certificate.
    PeerCertificateUnknownIssuer "peer_certificate_unknown_issuer";
    /// The peer's certificate is for another name.
    PeerCertificateName "peer_certificate_name";
    /// The peer's certificate is revoked, or no revocation list covers it.
    PeerCertificateRevoked "peer_certificate_revoked";
    /// The peer's certificate is unusable for another reason.
    PeerCertificateBad "peer_certificate_bad";
    /// The peer has rejected Weir's certificate or does not know its issuer.
    CertificateRefused "certificate_refused";
    /// The peer sent another alert.
    Alert "alert";
    /// The peer closed the connection during the handshake.
    ClosedInHandshake "closed_in_handshake";
    /// The handshake took too long.
    Timeout "timeout";
    /// The peer closed the connection without a TLS close, so data may be missing.
    Truncated "truncated";
    /// A record or message is malformed or out of order.
    Protocol "protocol";
}

impl TlsFailure {
    /// The kind of a rustls error.
    pub(super) fn of(error: &Error, is_open: bool) -> Self {
        use rustls::PeerIncompatible as Unfit;
        match error {
            Error::NoCertificatesPresented => Self::PeerCertificateMissing,
            Error::InvalidCertificate(why) => match why {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::PeerCertificateExpired,
                CertificateError::UnknownIssuer => Self::PeerCertificateUnknownIssuer,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::PeerCertificateName,
                CertificateError::Revoked | CertificateError::UnknownRevocationStatus => {
                    Self::PeerCertificateRevoked
                }
                _ => Self::PeerCertificateBad,
            },
            Error::AlertReceived(alert) => match alert {
                AlertDescription::ProtocolVersion => Self::Version,
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                    Self::Cipher
                }
                AlertDescription::NoApplicationProtocol => Self::Alpn,
                AlertDescription::UnrecognisedName => Self::NoCertificate,
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateRequired
                | AlertDescription::AccessDenied => Self::CertificateRefused,
                _ => Self::Alert,
            },
            Error::NoApplicationProtocol => Self::Alpn,
            Error::PeerIncompatible(why) => match why {
                Unfit::Tls12NotOffered
                | Unfit::Tls12NotOfferedOrEnabled
                | Unfit::Tls13RequiredForQuic
                | Unfit::SupportedVersionsExtensionRequired
                | Unfit::ServerDoesNotSupportTls12Or13
                // Clients of TLS 1.1 and older lack this extension, which TLS 1.2 introduced, and rustls checks it
                // first.
                | Unfit::SignatureAlgorithmsExtensionRequired
                | Unfit::ServerTlsVersionIsDisabledByOurConfig => Self::Version,
                _ => Self::Cipher,
            },
            // rustls reports this when its certificate resolver finds nothing.
            Error::General(why)
                if why.contains("certificate resolver")
                    || why.contains("no server certificate") =>
            {
                Self::NoCertificate
            }
            Error::General(why) if why.contains("signing key") => Self::Cipher,
            Error::InvalidMessage(_) if !is_open => Self::NotTls,
            _ => Self::Protocol,
        }
    }

    /// The alert to send where rustls sends none.
    //= rfc8446#6.2
    pub(super) const fn alert(self) -> Option<u8> {
        match self {
            // decode_error; the others are unexpected_message and handshake_failure.
            Self::NotTls => Some(50),
            Self::Protocol => Some(10),
            Self::Cipher | Self::NoCertificate => Some(40),
            _ => None,
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for TlsFailure {}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        let kind = match failure {
            // The data before it is intact. The caller knows whether it is complete.
            TlsFailure::Truncated => io::ErrorKind::UnexpectedEof,
            TlsFailure::ClosedInHandshake => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::InvalidData,
        };
        kind.into()
    }
}

/// Describes a rustls error for the operator who maintains the certificates.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "it is not the key of the certificate".to_owned(),
        Error::General(why) if why.contains("failed to parse private key") => {
            "TLS cannot use this key; use RSA of 2048 to 8192 bits, ECDSA (P-256, P-384, P-521) or Ed25519".to_owned()
        }
        // `openssl req -x509` makes such a certificate by default.
        Error::InvalidCertificate(CertificateError::Other(why))
            if why.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate belongs to an authority (CA:TRUE), so it cannot be a server's or a client's; \
             `openssl req -x509 -addext basicConstraints=critical,CA:FALSE` makes one that can"
                .to_owned()
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_kind() {
        let reference = include_str!("../obs/reference.md");
        for failure in TlsFailure::ALL {
            assert!(reference.contains(&format!("`{failure}`")), "{failure}");
            assert!(failure.text().ends_with('.'));
        }
    }
}
