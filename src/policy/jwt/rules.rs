//! What a token must say, and the verification of one.

use std::fmt;

use super::key_set::KeySet;
use super::refusal::Refusal;
use super::token::Token;
use crate::policy::Claims;

/// What tokens of one issuer must say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenRules {
    /// The issuer; `None` if the key alone says who it is.
    pub issuer: Option<Box<str>>,
    /// For whom tokens may be.
    pub audience: Audience,
    /// By how much the clocks of Weir and the issuer may differ, in seconds.
    pub leeway_s: f64,
    /// What the token must grant.
    pub require: Box<[Requirement]>,
}

/// For whom tokens may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// For anybody, even nobody.
    Any,
    /// For one of these.
    OneOf(Box<[Box<str>]>),
    /// For nobody: no token passes.
    #[default]
    Nobody,
}

/// What a token must grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// This scope.
    Scope(Box<str>),
    /// A claim has one of these values, or is a list with one of them.
    Claim {
        /// The name of the claim.
        name: Box<str>,
        /// The values.
        values: Box<[Box<str>]>,
    },
}

/// The outcome of one try with one key.
#[derive(Debug)]
pub enum Tried {
    /// The token is valid.
    Valid(Verified),
    /// It is not.
    Refused(Refusal),
    /// This key did not sign it. Another may have.
    WrongKey,
}

/// A valid token.
#[derive(Debug)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// It is valid until then, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// It grants what the rules require.
    pub is_sufficient: bool,
}

impl TokenRules {
    /// Checks all that costs no cryptography: issuer, audience and times. `wall_ms` is now, in milliseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// The token is not for here and now.
    pub fn check(&self, token: &Token<'_>, wall_ms: u64) -> Result<(), Refusal> {
        if self.issuer.is_some() && token.issuer() != self.issuer.as_deref() {
            return Err(Refusal::Issuer);
        }
        if !self.is_for_us(token) {
            return Err(Refusal::Audience);
        }
        if wall_ms >= self.end_ms(token) {
            return Err(Refusal::Expired);
        }
        match token.times.begins {
            Some(begins) if wall_ms < to_ms(begins - self.leeway_s) => Err(Refusal::NotYet),
            _ => Ok(()),
        }
    }

    /// Whether the audience is right.
    #[must_use]
    pub fn is_for_us(&self, token: &Token<'_>) -> bool {
        match &self.audience {
            Audience::Any => true,
            Audience::OneOf(names) => names.iter().any(|name| token.is_for(name)),
            Audience::Nobody => false,
        }
    }

    /// Verifies the token with one key of `keys`: that number `try_index` of those that may have signed it. So a caller
    /// can let others run between two of them. The caller has called [`TokenRules::check`].
    pub fn verify(&self, token: Token<'_>, keys: &KeySet, try_index: usize) -> Tried {
        match try_key(&token, keys, try_index) {
            Ok(true) => {}
            Ok(false) => return Tried::WrongKey,
            Err(refusal) => return Tried::Refused(refusal),
        }
        let expires_ms = self.end_ms(&token);
        let is_sufficient = self.require.iter().all(|one| one.is_met(&token.claims));
        Tried::Valid(Verified {
            claims: token.claims,
            expires_ms,
            is_sufficient,
        })
    }

    /// The scopes that a token must grant, with spaces between them.
    #[must_use]
    pub fn scopes(&self) -> String {
        let scopes = self.require.iter().filter_map(|one| match one {
            Requirement::Scope(scope) => Some(&**scope),
            Requirement::Claim { .. } => None,
        });
        scopes.collect::<Vec<_>>().join(" ")
    }

    /// From when on the token has expired, in milliseconds since the Unix epoch.
    fn end_ms(&self, token: &Token<'_>) -> u64 {
        to_ms(token.times.expires + self.leeway_s)
    }
}

impl Requirement {
    /// All that claims and their values in the file ask for: of `scope` all values, of another claim one.
    #[must_use]
    pub fn all_of(claims: &[(String, Vec<String>)]) -> Box<[Self]> {
        let boxed = |text: &String| -> Box<str> { text.as_str().into() };
        let of_claim = |(name, values): &(String, Vec<String>)| match name.as_str() {
            "scope" => values
                .iter()
                .map(|scope| Self::Scope(boxed(scope)))
                .collect(),
            name => vec![Self::Claim {
                name: name.into(),
                values: values.iter().map(boxed).collect(),
            }],
        };
        claims.iter().flat_map(of_claim).collect()
    }

    /// Whether the claims grant it.
    #[must_use]
    pub fn is_met(&self, claims: &Claims) -> bool {
        match self {
            Self::Scope(scope) => claims.grants(scope),
            Self::Claim { name, values } => values.iter().any(|value| claims.has(name, value)),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => write!(f, "scope `{scope}`"),
            Self::Claim { name, values } => write!(f, "`{name}` = {}", values.join(" or ")),
        }
    }
}

/// Whether that key signed the token. False if it did not, but another one may have.
fn try_key(token: &Token<'_>, keys: &KeySet, try_index: usize) -> Result<bool, Refusal> {
    let mut candidates = keys.candidates(token).skip(try_index);
    match candidates.next() {
        Some(key) if key.verify(token.algorithm, token.signed, token.signature) => Ok(true),
        Some(_) if candidates.next().is_some() => Ok(false),
        Some(_) => Err(Refusal::Signature),
        None if try_index > 0 => Err(Refusal::Signature),
        None if keys.lacks_key_of(token) => Err(Refusal::UnknownKey),
        None => Err(Refusal::Algorithm),
    }
}

/// Seconds in milliseconds; 0 before 1970.
fn to_ms(seconds: f64) -> u64 {
    // The cast takes what is out of range as the nearest value that is in it.
    (seconds * 1000.0) as u64
}
