//! What a request gains on its way to an endpoint: who asked, through whom, and under which number.
//!
//! A client's own forwarded fields are believed only if it is one of `trusted_proxies`; otherwise they are replaced,
//! so that an endpoint can rely on them.

use std::net::IpAddr;

use weir_proto_h1::{Edits, FieldId, Head, Version};

use crate::obs::RequestId;
use crate::plan::Plan;

/// What the forwarded fields say.
pub struct Forwarded<'a> {
    /// Whether what the client says of these is kept.
    pub trusted: bool,
    /// The address that the connection came from; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// The scheme that the client used.
    pub scheme: &'a str,
    /// The host that the client asked for, port included.
    pub host: &'a [u8],
    /// The exchange's identifier.
    pub id: RequestId,
}

/// Adds the fields to `edits`, taking those that they replace out of `head`.
pub fn forward(
    head: &mut Head,
    block: &[u8],
    edits: &mut Edits,
    plan: &Plan,
    with: &Forwarded<'_>,
) {
    let text = AddressText::new(with.peer);
    let peer = text.as_bytes();
    if !with.trusted {
        for id in [
            FieldId::XForwardedFor,
            FieldId::XForwardedProto,
            FieldId::XForwardedHost,
            FieldId::Forwarded,
        ] {
            head.remove(id);
        }
        head.remove(FieldId::XRequestId);
        head.remove(FieldId::XRealIp);
    }
    match head
        .value(FieldId::XForwardedFor, block)
        .filter(|_| with.trusted)
    {
        Some(before) => {
            edits.append_pieces("X-Forwarded-For", &[before, b", ", peer]);
            head.remove(FieldId::XForwardedFor);
        }
        None => edits.append("X-Forwarded-For", peer),
    }
    if head.find(FieldId::XForwardedProto).is_none() {
        edits.append("X-Forwarded-Proto", with.scheme);
    }
    if head.find(FieldId::XForwardedHost).is_none() {
        edits.append("X-Forwarded-Host", with.host);
    }
    let (open, close): (&[u8], &[u8]) = match with.peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(_)) => (b"for=\"[", b"]\";host=\""),
        _ => (b"for=", b";host=\""),
    };
    // RFC 7239: more than one line is one list, so a trusted one before ours stays as it is.
    edits.append_pieces(
        "Forwarded",
        &[
            open,
            peer,
            close,
            with.host,
            b"\";proto=",
            with.scheme.as_bytes(),
        ],
    );
    if head.find(FieldId::XRequestId).is_none() {
        let mut id = [0; 32];
        with.id.write_hex(&mut id);
        edits.append("X-Request-Id", id);
    }
    let version: &[u8] = if head.version == Version::Http10 {
        b"1.0 "
    } else {
        b"1.1 "
    };
    edits.append_pieces("Via", &[version, plan.via.as_bytes()]);
}

/// Whether the request has come through this proxy before: Via names it.
pub fn is_loop(head: &Head, block: &[u8], via: &str) -> bool {
    head.all(FieldId::Via).any(|field| {
        let received_by = |hop: &[u8]| {
            hop.split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(1)
                .map(<[u8]>::to_vec)
        };
        field
            .value
            .get(block)
            .split(|&b| b == b',')
            .any(|hop| received_by(hop).is_some_and(|by| by == via.as_bytes()))
    })
}

/// The client as a trusted proxy names it: the last address in X-Forwarded-For that is no trusted proxy itself.
pub fn client(head: &Head, block: &[u8], peer: IpAddr, plan: &Plan) -> IpAddr {
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
