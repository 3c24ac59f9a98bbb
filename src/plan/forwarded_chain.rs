//! The chain of proxies in X-Forwarded-For or in Forwarded (RFC 7239), as a trusted peer sends it.
//!
//! In both fields, each proxy appends the peer that it got the request from. So Weir reads the fields from the end, and
//! stops at the first hop that no trusted proxy appended: a client may have made up everything before that hop. One
//! parser reads the nodes of both fields, and endpoints get the nodes in one form.

use std::net::{IpAddr, Ipv6Addr};

use weir_config::ForwardedHeader;
use weir_proto_h1::{FieldId, Head, is_authority};

use crate::limits::FORWARDED_HOPS_MAX;
use crate::networks::NetworkSet;

/// A peer as a proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedNode<'a> {
    /// An address, IPv4 in the form of IPv4.
    Address(IpAddr),
    /// A name that the proxy made up, with its leading underscore.
    Obfuscated(&'a [u8]),
    /// The proxy does not know the peer, or the text is not a node.
    Unknown,
}

impl<'a> ForwardedNode<'a> {
    /// Parses a node (RFC 7239, section 6), and IPv6 without brackets, which X-Forwarded-For has. Drops the port.
    fn parse(text: &'a [u8]) -> Self {
        let text = unquoted(text.trim_ascii()).unwrap_or_default();
        Self::read(text).unwrap_or(Self::Unknown)
    }

    fn read(text: &'a [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"[") {
            let close = rest.iter().position(|&byte| byte == b']')?;
            let (address, rest) = rest.split_at_checked(close)?;
            let address: Ipv6Addr = str::from_utf8(address).ok()?.parse().ok()?;
            let is_end = matches!(rest, b"]") || rest.strip_prefix(b"]:").is_some_and(is_port);
            return is_end.then(|| Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(text) = str::from_utf8(text)
            && let Ok(address) = text.parse::<IpAddr>()
        {
            return Some(Self::Address(address.to_canonical()));
        }
        let colon = text.iter().rposition(|&byte| byte == b':');
        let name = match colon.and_then(|colon| text.split_at_checked(colon)) {
            Some((name, [_, port @ ..])) if is_port(port) => name,
            _ => text,
        };
        if name.eq_ignore_ascii_case(b"unknown") {
            return Some(Self::Unknown);
        }
        if name.len() > 1 && is_obfuscated(name) {
            return Some(Self::Obfuscated(name));
        }
        let name = str::from_utf8(name).ok()?;
        let address: std::net::Ipv4Addr = name.parse().ok()?;
        Some(Self::Address(address.into()))
    }
}

fn is_port(text: &[u8]) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    is_number || is_obfuscated(text)
}

fn is_obfuscated(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.starts_with(b"_") && text.iter().all(is_allowed)
}

/// One hop of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedHop<'a> {
    /// The peer.
    pub node: ForwardedNode<'a>,
    /// The scheme that the peer used.
    pub proto: Option<&'a [u8]>,
    /// The host that the peer asked for.
    pub host: Option<&'a [u8]>,
}

/// The chain of hops that a trusted peer sends.
#[derive(Clone, Copy)]
pub struct ForwardedChain<'a> {
    spelling: ForwardedHeader,
    /// The texts of the hops, the nearest first.
    texts: [&'a [u8]; FORWARDED_HOPS_MAX],
    len: usize,
    /// The index of the hop that names the client.
    origin: Option<usize>,
    /// X-Forwarded-Proto and X-Forwarded-Host, if they belong to that hop.
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

impl<'a> ForwardedChain<'a> {
    /// Reads the nearest hops of the chain in a head.
    pub fn read(
        head: &Head,
        block: &'a [u8],
        spelling: ForwardedHeader,
        trusted: &NetworkSet,
    ) -> Self {
        let mut chain = Self {
            spelling,
            texts: [b""; FORWARDED_HOPS_MAX],
            len: 0,
            origin: None,
            proto: None,
            host: None,
        };
        match spelling {
            ForwardedHeader::XForwardedFor => {
                chain.take(backwards(head, block, FieldId::XForwardedFor, last_element));
            }
            ForwardedHeader::Forwarded => {
                chain.take(backwards(head, block, FieldId::Forwarded, last_unquoted));
            }
        }
        chain.origin = chain.find_origin(trusted);
        if spelling == ForwardedHeader::XForwardedFor {
            let at = chain.origin.unwrap_or(0);
            let of_origin = |id| {
                let mut elements = backwards(head, block, id, last_element);
                // A proxy that replaces the field instead of appending to it leaves fewer elements.
                let mut farthest = None;
                for _ in 0..=at {
                    farthest = elements.next().or(farthest);
                }
                farthest
            };
            chain.proto = of_origin(FieldId::XForwardedProto).filter(|text| is_scheme(text));
            chain.host = of_origin(FieldId::XForwardedHost).filter(|text| is_authority(text));
        }
        chain
    }

    fn take(&mut self, texts: impl Iterator<Item = &'a [u8]>) {
        for (slot, text) in self.texts.iter_mut().zip(texts) {
            *slot = text;
            self.len += 1;
        }
    }

    /// The nearest hop that is not a trusted proxy. If there is none, or a nearer hop has no address, the last hop
    /// before.
    fn find_origin(&self, trusted: &NetworkSet) -> Option<usize> {
        let mut origin = None;
        for at in 0..self.len {
            let ForwardedNode::Address(address) = self.hop(at)?.node else {
                return origin;
            };
            origin = Some(at);
            if !trusted.contains(address) {
                return origin;
            }
        }
        origin
    }

    /// Whether the chain has no hops.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hops, the farthest first.
    pub fn hops(&self) -> impl Iterator<Item = ForwardedHop<'a>> {
        (0..self.len).rev().filter_map(|at| self.hop(at))
    }

    fn hop(&self, at: usize) -> Option<ForwardedHop<'a>> {
        let text = self.texts.get(at).copied()?;
        Some(match self.spelling {
            ForwardedHeader::Forwarded => element(text),
            ForwardedHeader::XForwardedFor => {
                let is_origin = self.origin == Some(at);
                ForwardedHop {
                    node: ForwardedNode::parse(text),
                    proto: self.proto.filter(|_| is_origin),
                    host: self.host.filter(|_| is_origin),
                }
            }
        })
    }

    /// The client's address, if the chain names it.
    pub fn client(&self) -> Option<IpAddr> {
        match self.hop(self.origin?)?.node {
            ForwardedNode::Address(address) => Some(address),
            ForwardedNode::Obfuscated(_) | ForwardedNode::Unknown => None,
        }
    }

    /// The scheme that the client used, if the chain names it.
    pub fn proto(&self) -> Option<&'a [u8]> {
        match self.spelling {
            ForwardedHeader::XForwardedFor => self.proto,
            ForwardedHeader::Forwarded => self.hop(self.origin.unwrap_or(0))?.proto,
        }
    }

    /// Whether the client connected over TLS, if the chain names its scheme.
    pub fn is_https(&self) -> Option<bool> {
        let is_secure = |proto: &[u8]| {
            proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
        };
        self.proto().map(is_secure)
    }

    /// The host that the client asked for, if the chain names it.
    pub fn host(&self) -> Option<&'a [u8]> {
        match self.spelling {
            ForwardedHeader::XForwardedFor => self.host,
            ForwardedHeader::Forwarded => self.hop(self.origin.unwrap_or(0))?.host,
        }
    }
}

/// One element of a list, and the rest of the list.
type Split<'a> = (&'a [u8], Option<&'a [u8]>);

/// The elements of all fields of a name, the last first, without empty ones. `last` splits the last one off.
fn backwards<'a>(
    head: &Head,
    block: &'a [u8],
    id: FieldId,
    last: fn(&'a [u8]) -> Split<'a>,
) -> impl Iterator<Item = &'a [u8]> {
    let fields = head.fields.iter().rev();
    let fields = fields.filter(move |field| field.id == id && !field.is_removed);
    let elements = fields.flat_map(move |field| {
        let mut rest = Some(field.value.get(block));
        std::iter::from_fn(move || {
            let (element, before) = last(rest?);
            rest = before;
            Some(element.trim_ascii())
        })
    });
    elements.filter(|element| !element.is_empty())
}

/// Splits the last element off a list, at the last comma: nodes have none.
fn last_element(list: &[u8]) -> Split<'_> {
    split_last(list, list.iter().rposition(|&byte| byte == b','))
}

/// Splits the last element off a list whose elements may have quoted commas. Reads from the end, so a quote that a
/// client has left open hides no element that a proxy has added behind it.
fn last_unquoted(list: &[u8]) -> Split<'_> {
    let mut is_quoted = false;
    let comma = (0..list.len()).rev().find(|&at| {
        match list.get(at) {
            Some(b'"') if !is_escaped(list, at) => is_quoted = !is_quoted,
            Some(b',') => return !is_quoted,
            _ => {}
        }
        false
    });
    split_last(list, comma)
}

fn split_last(list: &[u8], comma: Option<usize>) -> Split<'_> {
    match comma.and_then(|comma| list.split_at_checked(comma)) {
        Some((before, [_, last @ ..])) => (last, Some(before)),
        _ => (list, None),
    }
}

/// Whether an odd number of backslashes stands before a byte.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let slashes = before.iter().rev().take_while(|&&byte| byte == b'\\');
    slashes.count() % 2 == 1
}

/// Reads an element of Forwarded. A malformed one gives an unknown node.
//= rfc7239#4
// forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
fn element(text: &[u8]) -> ForwardedHop<'_> {
    let nothing = ForwardedHop {
        node: ForwardedNode::Unknown,
        proto: None,
        host: None,
    };
    let (mut hop, mut rest) = (nothing, text);
    loop {
        let (pair, after) = first_pair(rest);
        if !pair.is_empty() {
            let equals = pair.iter().position(|&byte| byte == b'=');
            let Some((name, [_, value @ ..])) = equals.and_then(|at| pair.split_at_checked(at))
            else {
                return nothing;
            };
            let Some(value) = unquoted(value) else {
                return nothing;
            };
            match name {
                name if name.eq_ignore_ascii_case(b"for") => hop.node = ForwardedNode::parse(value),
                name if name.eq_ignore_ascii_case(b"proto") => {
                    hop.proto = Some(value).filter(|text| is_scheme(text));
                }
                name if name.eq_ignore_ascii_case(b"host") => {
                    hop.host = Some(value).filter(|text| is_authority(text));
                }
                _ => {}
            }
        }
        match after {
            Some(after) => rest = after,
            None => return hop,
        }
    }
}

/// Splits the first pair off an element.
fn first_pair(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut is_quoted = false;
    let end = (0..text.len()).find(|&at| {
        match text.get(at) {
            Some(b'"') if !is_escaped(text, at) => is_quoted = !is_quoted,
            Some(b';') => return !is_quoted,
            _ => {}
        }
        false
    });
    match end.and_then(|end| text.split_at_checked(end)) {
        Some((pair, [_, rest @ ..])) => (pair.trim_ascii(), Some(rest)),
        _ => (text.trim_ascii(), None),
    }
}

/// The text of a value, which may be quoted. `None` for quotes that do not match and for escapes, which no node, scheme
/// or host needs.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    let inner = match text {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    let is_clean = !inner.iter().any(|byte| matches!(byte, b'"' | b'\\'));
    is_clean.then_some(inner)
}

/// Whether a text is a scheme of a URI, and not a long one.
fn is_scheme(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.len() <= 16
        && text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(is_allowed)
}

#[cfg(test)]
mod tests;
