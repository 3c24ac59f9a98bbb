//! Algorithms that sign tokens.

use crate::decode::kinds::Keywords;

/// An algorithm that signs tokens (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// ECDSA with P-521 and SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl Keywords for JwtAlgorithm {
    const ALL: &'static [(&'static str, Self)] = &[
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("EdDSA", Self::EdDsa),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
    ];

    fn help(word: &str) -> Option<&'static str> {
        let is_none = word.eq_ignore_ascii_case("none");
        is_none.then_some(
            "anyone can write a token without a signature: Weir never accepts `none`. For requests without a token, \
             write on_missing = \"pass\"",
        )
    }
}

impl JwtAlgorithm {
    /// The algorithm of this name. Names are case-sensitive. `Ed25519` (RFC 9864) is another name of `EdDSA` with the
    /// only curve that Weir supports.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        let mut all = Self::ALL.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, algorithm)| *algorithm)
    }

    /// The name in tokens and keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, known)| *known == self)
            .map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for (name, algorithm) in JwtAlgorithm::ALL {
            assert_eq!(JwtAlgorithm::from_name(name), Some(*algorithm));
            assert_eq!(algorithm.name(), *name);
        }
        assert_eq!(
            JwtAlgorithm::from_name("Ed25519"),
            Some(JwtAlgorithm::EdDsa)
        );
        for name in [
            "none", "None", "NONE", "", "rs256", "RS256 ", "Ed448", "ES256K", "HS1",
        ] {
            assert_eq!(JwtAlgorithm::from_name(name), None);
        }
    }
}
