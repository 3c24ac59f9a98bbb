//! Why a TLS connection failed, in a few kinds: what is counted, logged and told.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident $code:literal;)+) => {
        /// Why a TLS connection failed. Codes appear in metrics and logs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum TlsFailure { $($(#[doc = $doc])+ $name,)+ }

        impl TlsFailure {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code.
            pub const fn code(self) -> &'static str { match self { $(Self::$name => $code,)+ } }

            /// What it means, for the reference.
            pub const fn text(self) -> &'static str { match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ } }
        }
    };
}

kinds! {
    /// The peer spoke HTTP without TLS.
    PlainHttp "plain_http";
    /// The peer spoke something that is not TLS.
    NotTls "not_tls";
    /// Both sides have no version in common.
    Version "version";
    /// Both sides have no cipher, group or signature in common.
    Cipher "cipher";
    /// Both sides have no protocol (ALPN) in common.
    Alpn "alpn";
    /// There is no certificate for the name that was asked for.
    NoCertificate "no_certificate";
    /// The peer showed no certificate, and has to.
    PeerCertificateMissing "peer_certificate_missing";
    /// The peer's certificate has expired, or is not valid yet.
    PeerCertificateExpired "peer_certificate_expired";
    /// The peer's certificate is from nobody that is trusted.
    PeerCertificateUnknownIssuer "peer_certificate_unknown_issuer";
    /// The peer's certificate is not for its name.
    PeerCertificateName "peer_certificate_name";
    /// The peer's certificate was revoked, or no list says that it was not.
    PeerCertificateRevoked "peer_certificate_revoked";
    /// The peer's certificate cannot be used for another reason.
    PeerCertificateBad "peer_certificate_bad";
    /// The peer refuses our certificate or does not know who has signed it.
    CertificateRefused "certificate_refused";
    /// The peer sent another alert.
    Alert "alert";
    /// The peer ended the connection before the handshake was over.
    ClosedInHandshake "closed_in_handshake";
    /// The handshake was not over in time.
    Timeout "timeout";
    /// The connection was ended without saying so: what came may not be all.
    Truncated "truncated";
    /// A record or message is broken, or came when it must not.
    Protocol "protocol";
}

impl TlsFailure {
    /// The kind of an error of rustls.
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
                // ClientVerification of TLS 1.1 and older: it came with 1.2, and is looked for first.
                | Unfit::SignatureAlgorithmsExtensionRequired
                | Unfit::ServerTlsVersionIsDisabledByOurConfig => Self::Version,
                _ => Self::Cipher,
            },
            // rustls says so when its resolver finds nothing.
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

    /// The alert that tells the peer of it, where rustls tells nothing.
    //= rfc8446#6.2
    pub(super) const fn alert(self) -> Option<u8> {
        match self {
            // decode_error, unexpected_message, handshake_failure
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
            // What came before it is good; whether it was all is for the caller to know.
            TlsFailure::Truncated => io::ErrorKind::UnexpectedEof,
            TlsFailure::ClosedInHandshake => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::InvalidData,
        };
        kind.into()
    }
}

/// An error of rustls in the words of somebody who looks after certificates.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "it is not the key of the certificate".to_owned(),
        Error::General(why) if why.contains("failed to parse private key") => {
            "it is no key that TLS can use: RSA of 2048 to 8192 bits, ECDSA (P-256, P-384, P-521), or Ed25519".to_owned()
        }
        // What `openssl req -x509` makes unless told otherwise.
        Error::InvalidCertificate(CertificateError::Other(why))
            if why.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is an authority's (CA:TRUE) and cannot be a server's or client's too; \
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
