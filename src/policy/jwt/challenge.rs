//! The field that tells a client what its token lacks.

use super::refusal::Refusal;

/// The value of `WWW-Authenticate` for a refusal (RFC 6750, section 3). `scopes` are those that the route requires,
/// with spaces between them. `None` for an answer that no other token would change.
#[must_use]
pub fn challenge(refusal: Refusal, scopes: &str) -> Option<String> {
    if refusal == Refusal::NoKeys {
        return None;
    }
    let mut value = "Bearer realm=\"weir\"".to_owned();
    if let Some((error, description)) = refusal.challenge() {
        value += &format!(", error=\"{error}\", error_description=\"{description}\"");
    }
    if refusal == Refusal::Insufficient && !scopes.is_empty() {
        value += &format!(", scope=\"{scopes}\"");
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_what_is_missing() {
        for (refusal, scopes, wanted) in [
            (Refusal::Missing, "read", Some("Bearer realm=\"weir\"")),
            (Refusal::NoKeys, "read", None),
            (
                Refusal::Expired,
                "read",
                Some(
                    "Bearer realm=\"weir\", error=\"invalid_token\", error_description=\"the token has expired\"",
                ),
            ),
            (
                Refusal::Several,
                "",
                Some(
                    "Bearer realm=\"weir\", error=\"invalid_request\", error_description=\"the request has several tokens\"",
                ),
            ),
            (
                Refusal::Insufficient,
                "read write",
                Some(
                    "Bearer realm=\"weir\", error=\"insufficient_scope\", error_description=\"the token does not grant \
                     this\", scope=\"read write\"",
                ),
            ),
        ] {
            assert_eq!(challenge(refusal, scopes).as_deref(), wanted);
        }
    }
}
