//! Drops the fields of a request that its peer may not send, before Weir decides about the request.
//!
//! Only `trusted_proxies` may say who sent a request, in the one spelling that `forwarded_header` names. Neither routes
//! nor endpoints see such fields from other peers. `config/fields.md` has the rules.

use std::net::IpAddr;

use weir_proto_h1::{Claims, FieldId, FieldPolicy, Head, OddNamePolicy, Span};

use super::{ForwardedChain, ListenerPlan, Plan};

/// What Weir knows about the peer that sends a request.
#[derive(Clone, Copy, Debug)]
pub struct PeerFacts {
    /// Whether the plan believes its forwarded fields: [`Plan::trusts`].
    pub is_trusted: bool,
    /// Whether the peer's connection uses TLS.
    pub is_tls: bool,
}

/// What a screened request says about its client.
#[derive(Clone, Copy, Debug)]
pub struct ScreenedRequest {
    /// How many fields were dropped.
    pub fields_dropped: u32,
    /// The client's address, if a trusted proxy names it.
    pub client: Option<IpAddr>,
    /// Where the head has the host that the client asked for, if a trusted proxy names it.
    pub host: Option<Span>,
    /// Whether the client used `https`, to Weir or to a trusted proxy.
    pub is_https: bool,
}

impl Plan {
    /// Whether the plan believes the forwarded fields of a peer. A peer on a Unix socket has no address.
    #[must_use]
    pub fn trusts(&self, listener: &ListenerPlan, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(peer) => self.trusted_proxies.contains(peer),
            None => listener.trusts_peers,
        }
    }

    /// Drops the fields that the peer may not send.
    pub fn screen(
        &self,
        listener: &ListenerPlan,
        peer: PeerFacts,
        (head, block): (&mut Head, &[u8]),
        is_grpc: bool,
    ) -> ScreenedRequest {
        let policy = FieldPolicy {
            claims: match peer.is_trusted {
                true => self.trusted_claims,
                false => Claims::NONE,
            },
            odd_names: odd_names(listener.keeps_odd_names, is_grpc),
        };
        let is_taken = |name: &[u8]| self.is_taken_for_matched(name);
        let mut screened = ScreenedRequest {
            fields_dropped: head.enforce(block, &policy, &is_taken),
            client: None,
            host: None,
            is_https: peer.is_tls,
        };
        if peer.is_trusted {
            let chain =
                ForwardedChain::read(head, block, self.forwarded_header, &self.trusted_proxies);
            screened.client = chain.client();
            screened.host = chain.host().and_then(|host| span_in(host, block));
            screened.is_https = chain.is_https().unwrap_or(peer.is_tls);
        }
        screened
    }
}

/// Where `block` has `part`, which is a part of it.
fn span_in(part: &[u8], block: &[u8]) -> Option<Span> {
    let start = part.as_ptr().addr().checked_sub(block.as_ptr().addr())?;
    let end = start + part.len();
    (end <= block.len()).then(|| Span::new(start, end))
}

/// Which fields with odd names pass. gRPC libraries write underscores into the names of metadata.
#[must_use]
pub fn odd_names(keeps_odd_names: bool, is_grpc: bool) -> OddNamePolicy {
    match (keeps_odd_names, is_grpc) {
        (true, _) => OddNamePolicy::Keep,
        (false, true) => OddNamePolicy::Metadata,
        (false, false) => OddNamePolicy::Drop,
    }
}

/// Whether a head is that of a gRPC call or of the answer to one: its media type is `application/grpc`, alone or with a
/// suffix or parameter.
#[must_use]
pub fn is_grpc(head: &Head, block: &[u8]) -> bool {
    let kind = b"application/grpc";
    let Some(value) = head.value(FieldId::ContentType, block) else {
        return false;
    };
    value
        .split_at_checked(kind.len())
        .is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(kind) && matches!(rest.first(), None | Some(b'+' | b';'))
        })
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Limits, parse_request};

    use super::*;

    #[test]
    fn the_media_type_tells_grpc_calls() {
        let is_call = |field: &str| {
            let block = format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            let mut head = Head::new();
            parse_request(block.as_bytes(), &Limits::default(), &mut head).unwrap();
            is_grpc(&head, block.as_bytes())
        };
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC;charset=x", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(
                is_call(&format!("Content-Type: {value}")),
                expected,
                "{value}"
            );
        }
        assert!(!is_call("X: y"));
    }
}
