//! The fields that Weir adds to and removes from a request on its way to an endpoint.
//!
//! The exchange drops the fields that clients may not send before it chooses a route, so neither routes nor endpoints
//! see them. Only `trusted_proxies` may say who the client is, in the spelling that `forwarded_header` names. Endpoints
//! get both spellings.

use std::net::IpAddr;

use weir_proto_h1::edits::ValueWriter;
use weir_proto_h1::{Edits, EditsMark, FieldId, OddNamePolicy, Version};

use super::{Exchange, request_id};
use crate::io::Net;
use crate::obs::RequestId;
use crate::plan::{
    ForwardedChain, ForwardedHop, ForwardedNode, PeerFacts, Plan, RoutePlan, odd_names,
};
use crate::policy::{put_names, put_subject};
use crate::tls::CertificateIdentity;

impl<N: Net> Exchange<'_, N> {
    /// Drops the fields that the client may not send. If the peer is a trusted proxy, takes the client's address and
    /// scheme from its fields.
    pub(super) fn enforce_fields(&mut self) {
        let (plan, context) = (&*self.plan.plan, self.down.context);
        let listener = context.listener.plan.borrow();
        self.facts.trusts_peer = plan.trusts(&listener, context.ip());
        self.keeps_odd_names = listener.keeps_odd_names;
        let peer = PeerFacts {
            is_trusted: self.facts.trusts_peer,
            is_tls: context.tls.is_some(),
        };
        let request = (&mut *self.down.head, &self.down.block[..]);
        let screened = plan.screen(&listener, peer, request, self.facts.is_grpc_call);
        self.record.fields_dropped = screened.fields_dropped;
        self.facts.client = screened.client.or(self.facts.client);
        self.facts.forwarded_host = screened.host;
        self.facts.is_https = screened.is_https;
    }

    /// Which odd names of request fields pass.
    fn odd_names(&self) -> OddNamePolicy {
        odd_names(self.keeps_odd_names, self.facts.is_grpc_call)
    }

    /// Drops fields with odd names, or restores them, if the route's rule differs from the listener's.
    fn settle_odd_names(&mut self, route: &RoutePlan) {
        let keeps = route.keeps_odd_names.unwrap_or(self.keeps_odd_names);
        let was_kept = std::mem::replace(&mut self.keeps_odd_names, keeps);
        if keeps == was_kept || !self.down.head.has_odd_names() {
            return;
        }
        if keeps {
            self.record.fields_dropped -= self.down.head.restore_odd_names();
        } else {
            let is_taken = |name: &[u8]| self.plan.plan.is_taken_for_matched(name);
            let odd_names = self.odd_names();
            let head = &mut *self.down.head;
            self.record.fields_dropped +=
                head.drop_odd_names(self.down.block, odd_names, &is_taken);
        }
    }

    /// Drops the fields that a request may not have in its trailers.
    pub(super) fn enforce_trailers(&mut self) {
        let plan = &self.plan.plan;
        let route = self.route.and_then(|id| plan.route(id));
        let steps = route.map_or(&[][..], |route| &route.steps);
        let matches = |name: &[u8]| {
            plan.matches_field(name)
                || plan.is_taken_for_matched(name)
                || steps.iter().any(|step| step.step.sets_request_field(name))
        };
        let odd_names = self.odd_names();
        self.record.fields_dropped += self.down.enforce_trailers(odd_names, &matches);
    }

    /// Prepares the edits of the request. All attempts use the same edits.
    pub(super) fn prepare_request(&mut self, route: &RoutePlan) {
        self.settle_odd_names(route);
        let plan = &*self.plan.plan;
        let context = self.down.context;
        let tells_identity = {
            let listener = context.listener.plan.borrow();
            let tls = listener.tls.as_deref();
            tls.is_some_and(|tls| tls.client_headers)
        };
        let (head, block) = (&mut *self.down.head, &self.down.block[..]);
        let chain = self.facts.trusts_peer.then(|| {
            ForwardedChain::read(head, block, plan.forwarded_header, &plan.trusted_proxies)
        });
        let with = Forwarded {
            chain: chain.as_ref(),
            peer: context.ip(),
            scheme: context.scheme(),
            host: head.authority.get(block),
            identity: self.facts.identity.as_deref().filter(|_| tells_identity),
        };
        for id in REPLACED {
            head.remove(id);
        }
        let to_upstream = &mut self.buffers.to_upstream;
        to_upstream.update(head.version, plan, &with);
        if head.find(FieldId::XRequestId).is_none() {
            to_upstream.append_request_id(self.record.id);
        }
        self.request_end = to_upstream.edits.mark();
        self.replace_target(route);
    }

    /// Sets the path and the host that the endpoint gets, if they differ from those received.
    pub(super) fn replace_target(&mut self, route: &RoutePlan) {
        let sent = &self.buffers.decision.sent;
        let edits = &mut self.buffers.to_upstream.edits;
        if !sent.is_empty() {
            edits.set_path(sent);
        }
        if let Some(host) = &route.host {
            edits.set_authority(host.as_bytes());
        }
    }
}

/// How many fields Weir adds to a request as a rule, and how many bytes these have without the host.
const FIELDS_ADDED: usize = 8;
const FIELD_BYTES_ADDED: usize = 320;

/// The data that Weir makes the forwarded fields from.
struct Forwarded<'a> {
    /// The hops before a trusted peer, as it reports them.
    chain: Option<&'a ForwardedChain<'a>>,
    /// The address that the connection came from; `None` on a Unix socket.
    peer: Option<IpAddr>,
    /// The scheme that the peer used.
    scheme: &'a str,
    /// The host that the peer asked for; empty if none.
    host: &'a [u8],
    /// The identity in the client's certificate, if endpoints get it.
    identity: Option<&'a CertificateIdentity>,
}

/// Fields of the request that Weir replaces.
const REPLACED: [FieldId; 4] = [
    FieldId::XForwardedFor,
    FieldId::XForwardedProto,
    FieldId::XForwardedHost,
    FieldId::Forwarded,
];

/// The changes to the requests of one connection. Changes that are the same as in the last request are kept, not made
/// again.
#[derive(Default)]
pub(super) struct RequestEdits {
    /// All changes to the current request.
    pub(super) edits: Edits,
    /// The epoch of the plan and the version that the fields up to `connection_end` were made for: Via and the client's
    /// certificate.
    made_for: Option<(u64, Version)>,
    connection_end: EditsMark,
    /// The host that the fields up to `host_end` were made for. They depend on nothing else if no trusted proxy reports
    /// hops.
    host: Vec<u8>,
    host_end: Option<EditsMark>,
}

impl RequestEdits {
    fn update(&mut self, version: Version, plan: &Plan, with: &Forwarded<'_>) {
        let edits = &mut self.edits;
        if self.made_for == Some((plan.epoch, version)) {
            let is_same = with.chain.is_none() && self.host == with.host;
            if let Some(end) = self.host_end.filter(|_| is_same) {
                return edits.rewind(end);
            }
            edits.rewind(self.connection_end);
        } else {
            edits.clear();
            edits.reserve(FIELDS_ADDED, FIELD_BYTES_ADDED + 2 * with.host.len());
            client_fields(edits, with);
            via(edits, version, plan);
            self.made_for = Some((plan.epoch, version));
            self.connection_end = edits.mark();
        }
        forwarded_fields(edits, with);
        self.host_end = with.chain.is_none().then(|| edits.mark());
        self.host.clear();
        self.host.extend_from_slice(with.host);
    }

    /// Adds what Weir writes in a request of its own: Via, and the id of the client's request.
    pub(super) fn append_own(&mut self, version: Version, plan: &Plan, id: Option<&[u8]>) {
        via(&mut self.edits, version, plan);
        if let Some(id) = id {
            self.edits.append(request_id::FIELD, id);
        }
    }

    fn append_request_id(&mut self, id: RequestId) {
        let mut digits = [0; 32];
        id.write_hex(&mut digits);
        self.edits.append_fixed(request_id::FIELD, &digits);
    }
}

fn via(edits: &mut Edits, version: Version, plan: &Plan) {
    let version: &[u8] = match version {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
        Version::Http2 => b"2.0 ",
    };
    edits.append_pieces("Via", &[version, plan.via.as_bytes()]);
}

fn client_fields(edits: &mut Edits, with: &Forwarded<'_>) {
    if let Some(identity) = with.identity {
        edits.append_with("X-Client-Cert-Subject", |value| {
            put_subject(value, &identity.subject);
        });
        if !identity.names.is_empty() {
            edits.append_with("X-Client-Cert-San", |value| {
                put_names(value, &identity.names);
            });
        }
    }
}

/// Writes the forwarded fields in both spellings: the hops that a trusted peer reports, then the peer.
fn forwarded_fields(edits: &mut Edits, with: &Forwarded<'_>) {
    let peer = with.peer.map_or(ForwardedNode::Unknown, |peer| {
        ForwardedNode::Address(peer.to_canonical())
    });
    let told = with.chain.filter(|chain| !chain.is_empty());
    let (proto, host) = match with.chain {
        Some(chain) => (chain.proto(), chain.host()),
        None => (None, None),
    };
    let (proto, host) = (
        proto.unwrap_or(with.scheme.as_bytes()),
        host.unwrap_or(with.host),
    );
    edits.append_with("X-Forwarded-For", |value| {
        for hop in told.iter().flat_map(|chain| chain.hops()) {
            put_node(value, hop.node);
            value.put(b", ");
        }
        put_node(value, peer);
    });
    edits.append("X-Forwarded-Proto", proto);
    if !host.is_empty() {
        edits.append("X-Forwarded-Host", host);
    }
    // If the peer reports no hop, the scheme and host that it reports are those of its own hop.
    let (proto, host) = match told {
        Some(_) => (with.scheme.as_bytes(), with.host),
        None => (proto, host),
    };
    edits.append_with("Forwarded", |value| {
        for hop in told.iter().flat_map(|chain| chain.hops()) {
            put_element(value, &hop);
            value.put(b", ");
        }
        let hop = ForwardedHop {
            node: peer,
            proto: Some(proto),
            host: Some(host).filter(|host| !host.is_empty()),
        };
        put_element(value, &hop);
    });
}

fn put_node(value: &mut ValueWriter<'_>, node: ForwardedNode<'_>) {
    match node {
        ForwardedNode::Address(address) => value.put(AddressText::new(address).as_bytes()),
        ForwardedNode::Obfuscated(name) => value.put(name),
        ForwardedNode::Unknown => value.put(b"unknown"),
    }
}

//= rfc7239#6
// IPv6 addresses are in brackets, and values that are no token in quotes.
fn put_element(value: &mut ValueWriter<'_>, hop: &ForwardedHop<'_>) {
    value.put(b"for=");
    match hop.node {
        node @ ForwardedNode::Address(IpAddr::V6(_)) => {
            value.put(b"\"[");
            put_node(value, node);
            value.put(b"]\"");
        }
        node => put_node(value, node),
    }
    if let Some(host) = hop.host {
        value.put(b";host=");
        value.put_quoted(host);
    }
    if let Some(proto) = hop.proto {
        value.put(b";proto=");
        value.put(proto);
    }
}

/// An address as text, on the stack.
struct AddressText {
    bytes: [u8; 46],
    len: usize,
}

impl AddressText {
    fn new(address: IpAddr) -> Self {
        use std::io::Write;
        let mut text = Self {
            bytes: [0; 46],
            len: 0,
        };
        match address {
            // The machinery of formats costs more than all the rest of a request's edits.
            IpAddr::V4(address) => text.push_octets(address.octets()),
            IpAddr::V6(_) => {
                let room = text.bytes.len();
                let mut rest = &mut text.bytes[..];
                // 46 bytes hold the longest address.
                let _ = write!(rest, "{address}");
                text.len = room - rest.len();
            }
        }
        text
    }

    fn push_octets(&mut self, octets: [u8; 4]) {
        for octet in octets {
            if self.len > 0 {
                self.push(b'.');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_usual() {
        for text in [
            "0.0.0.0",
            "9.10.99.100",
            "255.200.101.1",
            "::1",
            "2001:db8::9",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(AddressText::new(address).as_bytes(), text.as_bytes());
        }
    }
}
