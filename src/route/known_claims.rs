//! The claims that are known while a route is looked for.

use std::rc::Rc;

use crate::ids::JwtId;
use crate::policy::Claims;

/// The claims that are known while a route is looked for.
#[derive(Clone, Copy, Debug)]
pub enum KnownClaims<'a> {
    /// Those of the tokens that were verified so far: by which rules, and what they say if they are valid.
    Verified(&'a [VerifiedClaims]),
    /// These, by all rules; `None` for no valid token. For requests that are only tried.
    Given(Option<&'a Rc<Claims>>),
}

/// What a token says that was verified by some rules.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    /// The rules.
    pub jwt: JwtId,
    /// The claims; `None` without a valid token.
    pub claims: Option<Rc<Claims>>,
}

impl<'a> KnownClaims<'a> {
    /// No token was verified yet.
    pub const NONE: Self = Self::Verified(&[]);

    /// The claims by these rules. The outer `None`: they are not known yet; the inner: there is no valid token.
    pub(super) fn by(self, jwt: JwtId) -> Option<Option<&'a Claims>> {
        match self {
            Self::Verified(all) => {
                let known = all.iter().find(|known| known.jwt == jwt)?;
                Some(known.claims.as_deref())
            }
            Self::Given(claims) => Some(claims.map(AsRef::as_ref)),
        }
    }
}
