//! `trusted_proxies` and `forwarded_header`: peers that may name the client, and the field in which they do.

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

/// A peer whose forwarded fields Weir believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedPeer {
    /// One with an address in this network.
    Network(Cidr),
    /// One that connects to the listener at this Unix socket.
    Unix(PathBuf),
    /// One that connects to any Unix socket.
    AnyUnix,
}

/// The field in which trusted peers name the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

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

/// The trusted peers; reports a Unix socket among them that is not a listener's.
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
    // A listener that could not be read may be the one.
    let are_listeners_known = !cx.has_errors();
    let mut trusted = Vec::with_capacity(peers.len());
    for Spanned { value: peer, span } in peers {
        match &peer {
            TrustedPeer::Unix(path)
                if are_listeners_known
                    && !sockets().any(|each| each.address == Address::Unix(path.clone())) =>
            {
                let message = format!("no listener is `unix:{}`", path.display());
                let names: Vec<_> = sockets().map(|each| each.address.to_string()).collect();
                let written = format!("unix:{}", path.display());
                let near = nearest(&written, names.iter().map(String::as_str));
                let diagnostic = cx.error(Code::UnknownName, span, message);
                match near {
                    Some(near) => diagnostic.label(format!("did you mean \"{near}\"?")),
                    None => diagnostic
                        .help("name the Unix socket of a listener, or \"unix:\" for all of them"),
                };
            }
            TrustedPeer::AnyUnix if are_listeners_known && sockets().next().is_none() => {
                let message = "no listener is a Unix socket";
                cx.warning(Code::NoEffect, span, message)
                    .label("has no effect without one");
            }
            _ => {}
        }
        trusted.push(peer);
    }
    trusted
}
