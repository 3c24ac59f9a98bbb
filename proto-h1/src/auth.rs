//! Authentication of a connection rather than of a request: NTLM and Negotiate (RFC 4559).

use crate::field::{FieldId, FieldSet};
use crate::framing::list;
use crate::head::Head;

/// The schemes that authenticate a connection. `Nego2` is Microsoft's successor to `Negotiate`.
const SCHEMES: [&[u8]; 3] = [b"NTLM", b"Negotiate", b"Nego2"];

/// The fields in which a server asks for authentication or continues it.
const CHALLENGES: FieldSet = FieldSet::of(&[FieldId::WwwAuthenticate, FieldId::ProxyAuthenticate]);

/// Returns whether a challenge or credentials use a scheme that authenticates the connection.
///
/// The parameters of other schemes are elements of the same list, and a quoted parameter may
/// contain a comma. So a quoted word that looks like a scheme counts as one, and the connection is
/// not shared.
#[must_use]
pub fn authenticates_connection(value: &[u8]) -> bool {
    // Credentials are mostly one element, and a token in them is long. Looking for the comma is
    // cheaper than splitting.
    if !value.contains(&b',') {
        return begins_with_scheme(value.trim_ascii_start());
    }
    list(value).any(begins_with_scheme)
}

/// Returns whether the first word of an element is one of [`SCHEMES`].
fn begins_with_scheme(element: &[u8]) -> bool {
    let end = element.iter().position(|byte| matches!(byte, b' ' | b'\t'));
    let word = element
        .get(..end.unwrap_or(element.len()))
        .unwrap_or_default();
    SCHEMES
        .iter()
        .any(|scheme| scheme.eq_ignore_ascii_case(word))
}

/// Returns whether a response asks for authentication of the connection or continues it.
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
    fn schemes_are_found_at_any_position() {
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
