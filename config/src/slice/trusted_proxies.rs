//! `trusted_proxies` and `forwarded_header`: whose word counts about the client.

use std::path::PathBuf;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{Keywords, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::slice::listener::Listener;
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::suggest::nearest;
use crate::value::address::{Address, unix_path};
use crate::value::network::{Cidr, CidrText};

/// Peers whose forwarded fields are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedPeer {
    /// Those with an address in this network.
    Network(Cidr),
    /// Those that connect to the listener at this Unix socket.
    Unix(PathBuf),
    /// Those that connect to any Unix socket.
    AnyUnix,
}

/// The field in which trusted peers say who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and its kin.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The field in which trusted peers say who asked.
pub(crate) const FORWARDED_HEADER: Preset<ForwardedHeader> = preset(
    ForwardedHeader::XForwardedFor,
    "nginx, HAProxy and cloud load balancers set it",
);

impl Keywords for ForwardedHeader {
    const ALL: &'static [(&'static str, Self)] = &[
        ("x-forwarded-for", Self::XForwardedFor),
        ("forwarded", Self::Forwarded),
    ];
}

/// A network, or Unix sockets.
pub(crate) struct TrustedPeerText;

impl TextKind for TrustedPeerText {
    type Value = TrustedPeer;
    const NOUN: &'static str = "a network or a Unix socket";
    const PATTERN: Option<&'static str> = Some("^([0-9a-fA-F.:]+(/[0-9]{1,3})?|unix:(/.+)?)$");
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "unix:/run/weir.sock", "unix:"];

    fn parse(text: &str) -> Result<TrustedPeer, Problem> {
        match text.strip_prefix("unix:") {
            Some("") => Ok(TrustedPeer::AnyUnix),
            Some(path) => unix_path(path).map(TrustedPeer::Unix),
            None => CidrText::parse(text).map(TrustedPeer::Network),
        }
    }
}

/// Peers whose forwarded fields are believed. A Unix socket among them has to be a listener's.
pub(crate) fn check_trusted_peers(
    peers: Vec<Spanned<TrustedPeer>>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<TrustedPeer> {
    let sockets = || {
        listeners
            .iter()
            .filter(|each| matches!(each.address, Address::Unix(_)))
    };
    // A listener that could not be read may have been the one.
    let is_known = !cx.has_errors();
    let mut trusted = Vec::with_capacity(peers.len());
    for Spanned { value: peer, span } in peers {
        match &peer {
            TrustedPeer::Unix(path)
                if is_known
                    && !sockets().any(|each| each.address == Address::Unix(path.clone())) =>
            {
                let message = format!("no listener is `unix:{}`", path.display());
                let names: Vec<_> = sockets().map(|each| each.address.to_string()).collect();
                let written = format!("unix:{}", path.display());
                let near = nearest(&written, names.iter().map(String::as_str));
                let diagnostic = cx.error(Code::UnknownName, span, message);
                match near {
                    Some(near) => diagnostic.label(format!("did you mean \"{near}\"?")),
                    None => diagnostic.help("a trusted socket is one that Weir listens on"),
                };
            }
            TrustedPeer::AnyUnix if is_known && sockets().next().is_none() => {
                let message = "no listener is a Unix socket";
                cx.warning(Code::NoEffect, span, message)
                    .label("does nothing without one");
            }
            _ => {}
        }
        trusted.push(peer);
    }
    trusted
}
