//! Authentication that holds for a connection and not for one request: NTLM, and what is negotiated like it (RFC 4559).

use crate::field::{FieldId, FieldSet};
use crate::framing::list;
use crate::head::Head;

/// The schemes whose outcome belongs to the connection. `Nego2` is Microsoft's successor of `Negotiate`.
const SCHEMES: [&[u8]; 3] = [b"NTLM", b"Negotiate", b"Nego2"];

/// The fields in which a server asks for authentication, or goes on with it.
const CHALLENGES: FieldSet = FieldSet::of(&[FieldId::WwwAuthenticate, FieldId::ProxyAuthenticate]);

/// Says whether a challenge or credentials are of a scheme that authenticates the connection.
///
/// The parameters of other schemes are elements of the list too, and a quoted one may hold a comma: a word in quotes
/// that looks like a scheme counts as one. That errs on the side that shares nothing.
#[must_use]
pub fn authenticates_connection(value: &[u8]) -> bool {
    list(value).any(|element| {
        let end = element.iter().position(|byte| matches!(byte, b' ' | b'\t'));
        let word = element
            .get(..end.unwrap_or(element.len()))
            .unwrap_or_default();
        SCHEMES
            .iter()
            .any(|scheme| scheme.eq_ignore_ascii_case(word))
    })
}

/// Says whether an answer asks for authentication of the connection, or goes on with it.
#[inline]
pub(crate) fn challenges_connection(head: &Head, block: &[u8]) -> bool {
    head.present.meets(CHALLENGES)
        && [FieldId::WwwAuthenticate, FieldId::ProxyAuthenticate]
            .into_iter()
            .flat_map(|id| head.all(id))
            .any(|field| authenticates_connection(field.value.get(block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_found_wherever_they_stand() {
        for value in [
            "NTLM",
            "Negotiate",
            "nEGOTIATE",
            "ntlm TlRMTVNTUAACAAAA==",
            "Negotiate oYG2MIGzoAMKAQA=",
            "Negotiate, NTLM",
            "Basic realm=\"a\", NTLM",
            "Digest qop=\"auth\", nonce=\"x\" , \tNegotiate",
            ", ,Nego2",
            "Negotiate\toYG2",
        ] {
            assert!(authenticates_connection(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "Basic realm=\"NTLM\"",
            "Bearer NTLM",
            "NTLMv3",
            "XNegotiate",
            "Digest realm=\"a\", negotiate=1",
            "Basic realm=\"Negotiate here\"",
        ] {
            assert!(!authenticates_connection(value.as_bytes()), "{value}");
        }
    }
}
