//! Why a token is refused.

use crate::fault::Reason;

/// Why a token is refused. The client learns no more than it could find out without Weir: a token is no secret to the
/// one who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request has none.
    Missing,
    /// The request has several, or several fields for one.
    Several,
    /// It is longer than Weir reads.
    TooLong,
    /// It is not three parts of canonical base64url, the first two of which are JSON objects.
    Malformed,
    /// A claim or header parameter has a value of the wrong type.
    WrongType,
    /// It says that its reader must understand an extension.
    Critical,
    /// Weir does not know its algorithm, or the key is for another one.
    Algorithm,
    /// The issuer has no such key.
    UnknownKey,
    /// No key signed it.
    Signature,
    /// It is by an issuer that the route does not trust.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It never expires.
    NoExpiry,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It does not grant what the route requires.
    Insufficient,
    /// The keys of the issuer are not known yet.
    NoKeys,
}

impl Refusal {
    /// The reason in logs, metrics and answers.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Missing => Reason::TokenMissing,
            Self::Several => Reason::TokenAmbiguous,
            Self::Expired => Reason::TokenExpired,
            Self::Insufficient => Reason::InsufficientScope,
            Self::NoKeys => Reason::KeysUnavailable,
            Self::TooLong
            | Self::Malformed
            | Self::WrongType
            | Self::Critical
            | Self::Algorithm
            | Self::UnknownKey
            | Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::NoExpiry
            | Self::NotYet => Reason::TokenInvalid,
        }
    }

    /// The error code of `WWW-Authenticate`, and its description.
    //= rfc6750#3.1
    // A request without a token gets no error code, because the client may not know that it needs one.
    #[must_use]
    pub fn challenge(self) -> Option<(&'static str, &'static str)> {
        const INVALID: &str = "invalid_token";
        Some(match self {
            Self::Missing | Self::NoKeys => return None,
            Self::Several => ("invalid_request", "the request has several tokens"),
            Self::TooLong => (INVALID, "the token is too long"),
            Self::Malformed => (INVALID, "the token is malformed"),
            Self::WrongType => (INVALID, "a claim has a value of the wrong type"),
            Self::Critical => (INVALID, "the token has an unknown critical extension"),
            Self::Algorithm => (INVALID, "the algorithm does not fit the key"),
            Self::UnknownKey => (INVALID, "the issuer has no such key"),
            Self::Signature => (INVALID, "the signature is wrong"),
            Self::Issuer => (INVALID, "the issuer is not trusted"),
            Self::Audience => (INVALID, "the token is for another audience"),
            Self::NoExpiry => (INVALID, "the token has no expiry"),
            Self::Expired => (INVALID, "the token has expired"),
            Self::NotYet => (INVALID, "the token is not valid yet"),
            Self::Insufficient => ("insufficient_scope", "the token does not grant this"),
        })
    }
}
