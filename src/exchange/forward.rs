//! What a request gains on its way to an endpoint: who asked, through whom, and under which number.
//!
//! A client's own forwarded fields are believed only if it is one of `trusted_proxies`; otherwise they are replaced,
//! so that an endpoint can rely on them.

use std::net::IpAddr;

use weir_proto_h1::{Edits, FieldId, Head, Mark, Version};

use crate::obs::RequestId;
use crate::plan::Plan;
use crate::tls::Identity;

/// What the forwarded fields say.
pub(super) struct Forwarded<'a> {
    /// Whether what the client says of these is kept.
    pub(super) trusted: bool,
    /// The address that the connection came from; `None` on a Unix socket.
    pub(super) peer: Option<IpAddr>,
    /// The scheme that the client used.
    pub(super) scheme: &'a str,
    /// Whose certificate the client has shown, where endpoints are to know.
    pub(super) identity: Option<&'a Identity>,
    /// The exchange's identifier.
    pub(super) id: RequestId,
}

/// The fields added to the requests of one connection. Most of them are the same from request to request and are
/// only made anew when they are not.
#[derive(Default)]
pub struct Added {
    /// The fields, and what else changes in the request.
    pub(super) edits: Edits,
    same: Mark,
    made_for: Option<MadeFor>,
}

#[derive(PartialEq, Eq)]
struct MadeFor {
    epoch: u64,
    version: Version,
    host: Vec<u8>,
}

impl Added {
    /// Adds the fields for a request, taking those that they replace out of its head.
    pub(super) fn forward(
        &mut self,
        head: &mut Head,
        block: &[u8],
        plan: &Plan,
        with: &Forwarded<'_>,
    ) {
        let host = head.authority;
        let host = host.get(block);
        if plan.client_headers {
            CLIENT_FIELDS.iter().for_each(|name| {
                head.remove_name(name.as_bytes(), block);
            });
        }
        if with.trusted {
            self.made_for = None;
            self.edits.clear();
            trusted(head, block, &mut self.edits, with, host);
            client_fields(&mut self.edits, with);
            self.via(head.version, plan);
        } else {
            REPLACED.iter().for_each(|&id| {
                head.remove(id);
            });
            let made = self.made_for.as_ref();
            if !made.is_some_and(|m| {
                m.host == host && m.epoch == plan.epoch && m.version == head.version
            }) {
                self.edits.clear();
                untrusted(&mut self.edits, with, host);
                client_fields(&mut self.edits, with);
                self.via(head.version, plan);
                self.same = self.edits.mark();
                self.made_for = Some(MadeFor {
                    epoch: plan.epoch,
                    version: head.version,
                    host: host.to_vec(),
                });
            }
            self.edits.rewind(self.same);
        }
        if head.find(FieldId::XRequestId).is_none() {
            let mut id = [0; 32];
            with.id.write_hex(&mut id);
            self.edits.append("X-Request-Id", id);
        }
    }

    fn via(&mut self, version: Version, plan: &Plan) {
        let version: &[u8] = match version {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
            Version::Http2 => b"2.0 ",
        };
        self.edits
            .append_pieces("Via", &[version, plan.via.as_bytes()]);
    }
}

/// What a client may not say by itself.
const REPLACED: [FieldId; 6] = [
    FieldId::XForwardedFor,
    FieldId::XForwardedProto,
    FieldId::XForwardedHost,
    FieldId::Forwarded,
    FieldId::XRequestId,
    FieldId::XRealIp,
];

/// What only Weir may say of a client's certificate, where it says it.
const CLIENT_FIELDS: [&str; 2] = ["X-Client-Cert-Subject", "X-Client-Cert-San"];

fn client_fields(edits: &mut Edits, with: &Forwarded<'_>) {
    if let Some(identity) = with.identity {
        edits.append(CLIENT_FIELDS[0], identity.subject.as_str());
        if !identity.names.is_empty() {
            edits.append(CLIENT_FIELDS[1], identity.names.join(", "));
        }
    }
}

fn untrusted(edits: &mut Edits, with: &Forwarded<'_>, host: &[u8]) {
    let text = AddressText::new(with.peer);
    edits.append("X-Forwarded-For", text.as_bytes());
    edits.append("X-Forwarded-Proto", with.scheme);
    if !host.is_empty() {
        edits.append("X-Forwarded-Host", host);
    }
    forwarded(edits, with, text.as_bytes(), host);
}

/// A trusted proxy's own words stay, and we add ours.
fn trusted(head: &mut Head, block: &[u8], edits: &mut Edits, with: &Forwarded<'_>, host: &[u8]) {
    let text = AddressText::new(with.peer);
    // Some endpoints read one line only: what is in several becomes one.
    let mut pieces: Vec<&[u8]> = Vec::new();
    for field in head.all(FieldId::XForwardedFor) {
        pieces.extend([field.value.get(block), b", "]);
    }
    pieces.push(text.as_bytes());
    edits.append_pieces("X-Forwarded-For", &pieces);
    head.remove(FieldId::XForwardedFor);
    if head.find(FieldId::XForwardedProto).is_none() {
        edits.append("X-Forwarded-Proto", with.scheme);
    }
    if head.find(FieldId::XForwardedHost).is_none() && !host.is_empty() {
        edits.append("X-Forwarded-Host", host);
    }
    // RFC 7239: more than one line is one list, so one before ours stays as it is.
    forwarded(edits, with, text.as_bytes(), host);
}

fn forwarded(edits: &mut Edits, with: &Forwarded<'_>, peer: &[u8], host: &[u8]) {
    let (open, close): (&[u8], &[u8]) = match with.peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(_)) => (b"for=\"[", b"]\""),
        _ => (b"for=", b""),
    };
    let proto = with.scheme.as_bytes();
    if host.is_empty() {
        edits.append_pieces("Forwarded", &[open, peer, close, b";proto=", proto]);
    } else {
        let pieces: &[&[u8]] = &[open, peer, close, b";host=\"", host, b"\";proto=", proto];
        edits.append_pieces("Forwarded", pieces);
    }
}

/// The client as a trusted proxy names it: the last address in X-Forwarded-For that is no trusted proxy itself.
pub(super) fn client(head: &Head, block: &[u8], peer: IpAddr, plan: &Plan) -> IpAddr {
    let mut client = peer;
    for field in head
        .all(FieldId::XForwardedFor)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        for text in field.value.get(block).rsplit(|&b| b == b',') {
            let Some(address) = std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse().ok())
            else {
                return client;
            };
            client = address;
            if !plan.trusted_proxies.contains(address) {
                return client;
            }
        }
    }
    client
}

/// An address as text, on the stack.
struct AddressText {
    bytes: [u8; 46],
    len: usize,
}

impl AddressText {
    fn new(address: Option<IpAddr>) -> Self {
        use std::io::Write;
        let mut text = Self {
            bytes: [0; 46],
            len: 0,
        };
        let room = text.bytes.len();
        let mut rest = &mut text.bytes[..];
        // 46 bytes hold the longest address there is.
        let _ = match address.map(|address| address.to_canonical()) {
            Some(address) => write!(rest, "{address}"),
            None => write!(rest, "unknown"),
        };
        text.len = room - rest.len();
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
