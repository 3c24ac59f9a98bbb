//! A request in the form that routes are matched against.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use weir_proto_h1::path::{PathAmbiguities, normalize_path};
use weir_proto_h1::{Error, Head};

use super::KnownClaims;
use crate::ids::ListenerId;
use crate::tls::CertificateIdentity;

/// A request in the form that routes are matched against. Made by [`ViewBuffers::view`].
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method as received.
    pub method: &'a [u8],
    /// The host in lower case, without port and final dot; empty when the request names none.
    pub host: &'a [u8],
    /// The path, normalised for matching.
    pub path: &'a [u8],
    /// The path as received.
    pub received_path: &'a [u8],
    /// What endpoints may read differently in the received path.
    pub ambiguities: PathAmbiguities,
    /// The query as received, without its question mark.
    pub query: &'a [u8],
    /// The head as parsed.
    pub head: &'a Head,
    /// The block that holds the head.
    pub block: &'a [u8],
    /// The client's certificate, if the client has shown one.
    pub client: Option<&'a CertificateIdentity>,
    /// The client's address: the peer's, or the one that a trusted proxy names.
    pub address: Option<IpAddr>,
    /// The listener that the request arrived at.
    pub listener: ListenerId,
    /// What is known of the claims of the client's token.
    pub claims: KnownClaims<'a>,
    /// The method that a CORS preflight asks for; `None` if the request is no preflight.
    pub preflight_for: Option<&'a [u8]>,
}

impl<'a> RequestView<'a> {
    /// The path for rewrites and redirects: as received, or the normal form if there are dot segments, because a part
    /// of a path with dot segments would mean another path.
    #[must_use]
    pub fn settled_path(&self) -> &'a [u8] {
        if self.ambiguities.has(PathAmbiguities::DOT_SEGMENT) {
            self.path
        } else {
            self.received_path
        }
    }
}

/// Buffers for the normal form of hosts and paths. Most requests are in normal form and need no copy. Requests reuse
/// the buffers, so warm ones allocate nothing.
#[derive(Debug, Default)]
pub struct ViewBuffers {
    host: Vec<u8>,
    path: Vec<u8>,
    /// Whether the last path was in normal form, so that `path` does not have it.
    is_path_unchanged: bool,
}

impl ViewBuffers {
    /// The view of a complete request head.
    ///
    /// # Errors
    /// The path has a backslash, an encoded NUL, or broken percent-encoding.
    pub fn view<'a>(
        &'a mut self,
        head: &'a Head,
        block: &'a [u8],
    ) -> Result<RequestView<'a>, Error> {
        let received_path = head.effective_path(block);
        let normal = normalize_path(received_path, &mut self.path)?;
        self.is_path_unchanged = normal.is_unchanged;
        Ok(RequestView {
            method: head.method_span.get(block),
            host: normal_host(head.host(block), &mut self.host),
            path: if normal.is_unchanged {
                received_path
            } else {
                &self.path
            },
            received_path,
            ambiguities: normal.ambiguities,
            query: head.query.get(block),
            head,
            block,
            client: None,
            address: None,
            listener: ListenerId(u32::MAX),
            claims: KnownClaims::NONE,
            preflight_for: None,
        })
    }
}

impl ViewBuffers {
    /// The normal path of the last view, which was that of `head`.
    #[must_use]
    pub fn path<'a>(&'a self, head: &Head, block: &'a [u8]) -> &'a [u8] {
        match self.is_path_unchanged {
            true => head.effective_path(block),
            false => &self.path,
        }
    }
}

/// The normal form of a host that the parser accepted. An invalid host matches nothing.
fn normal_host<'a>(host: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    if host.starts_with(b"[") {
        return normal_ipv6(host, out);
    }
    // "example.com." is the same name, marked as complete.
    let host = host.strip_suffix(b".").unwrap_or(host);
    if !has_upper_case(host) {
        return host;
    }
    out.clear();
    out.extend(host.iter().map(u8::to_ascii_lowercase));
    out
}

/// Compares eight bytes at a time, if the text has as many.
fn has_upper_case(text: &[u8]) -> bool {
    let (words, _) = text.as_chunks::<8>();
    match text.last_chunk::<8>() {
        Some(last) => words
            .iter()
            .chain([last])
            .any(|word| word_has_upper_case(*word)),
        None => text.iter().any(u8::is_ascii_uppercase),
    }
}

fn word_has_upper_case(word: [u8; 8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    // The top bit of each byte says whether the byte is at least `A`, and whether it is above `Z`.
    let low = word & (EACH * 0x7f);
    let from_a = low + EACH * (0x80 - b'A' as u64);
    let above_z = low + EACH * (0x7f - b'Z' as u64);
    !word & (from_a ^ above_z) & (EACH * 0x80) != 0
}

/// An IPv6 address has many spellings. Patterns have the canonical one (RFC 5952).
fn normal_ipv6<'a>(host: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    let inside = host
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let text = inside.and_then(|inside| std::str::from_utf8(inside).ok());
    match text.map(str::parse::<Ipv6Addr>) {
        Some(Ok(address)) => {
            out.clear();
            // Writing to memory cannot fail.
            let _ = write!(out, "[{address}]");
            out
        }
        _ => host,
    }
}
