//! Upstreams that listeners with `tcp`, `passthrough` or `udp` name.

use crate::decode::decoder::Decoder;
use crate::slice::endpoint::EndpointAddress;
use crate::slice::health::CheckKind;
use crate::slice::listener::Listener;
use crate::slice::route::{Route, Target};
use crate::slice::upstream::Upstream;
use crate::text::diagnostic::Code;

/// Reports upstreams that cannot take what these listeners pass on.
pub(crate) fn check_upstreams_of(
    listeners: &[Listener],
    upstreams: &[Upstream],
    cx: &mut Decoder<'_>,
) {
    for listener in listeners {
        let Some(key) = listener.target.key() else {
            continue;
        };
        for to in listener.target.upstreams() {
            let Some(upstream) = upstreams.get(to.index) else {
                continue;
            };
            let span = to.position.span.clone();
            let name = &upstream.name;
            let is_udp = key == "udp";
            if is_udp && upstream.proxy_protocol.is_some() {
                let message =
                    format!("upstream `{name}` has `proxy_protocol`, which datagrams do not carry");
                cx.error(Code::Conflict, span.clone(), message)
                    .help("give the listener an upstream of its own without it");
            }
            let wrong = upstream.endpoints.iter().find_map(|endpoint| {
                let is_unix = matches!(endpoint.address, EndpointAddress::Unix(_));
                let why = match key {
                    _ if endpoint.h2c => "speaks HTTP/2",
                    "udp" if endpoint.tls => "speaks TLS over TCP",
                    "udp" if is_unix => "is no UDP address",
                    "passthrough" if endpoint.tls => {
                        "begins TLS of its own, and clients speak TLS already"
                    }
                    _ => return None,
                };
                Some((endpoint, why))
            });
            if let Some((endpoint, why)) = wrong {
                let message = format!("endpoint `{endpoint}` of upstream `{name}` {why}");
                cx.error(Code::Conflict, span, message)
                    .help("`servers` of this upstream: HOST:PORT");
            }
        }
    }
}

/// Reports checks that ask the port of a UDP service over TCP. An upstream that TCP uses too may have them.
pub(crate) fn check_health_of_udp(
    listeners: &[Listener],
    routes: &[Route],
    upstreams: &[Upstream],
    cx: &mut Decoder<'_>,
) {
    let is_udp = |listener: &&Listener| listener.target.key() == Some("udp");
    let has_tcp = |index: usize| {
        let mut others = listeners.iter().filter(|each| !is_udp(each));
        let by_listener = others.any(|each| each.target.upstreams().any(|to| to.index == index));
        by_listener
            || routes.iter().any(|route| match &route.target {
                Target::Upstream { index: to } => *to == index,
                Target::Split(split) => split.shares.iter().any(|(to, _)| *to == index),
                Target::Redirect(_) | Target::Respond(_) => false,
            })
    };
    for to in listeners
        .iter()
        .filter(is_udp)
        .flat_map(|each| each.target.upstreams())
    {
        let Some(upstream) = upstreams.get(to.index) else {
            continue;
        };
        let health = upstream.health.as_ref();
        if let Some(health) = health.filter(|health| health.port.is_none())
            && !has_tcp(to.index)
        {
            let (name, key) = (
                &upstream.name,
                match health.kind {
                    CheckKind::Http(_) => "http",
                    CheckKind::Tcp => "tcp",
                    CheckKind::Grpc(_) => "grpc",
                },
            );
            let message = format!(
                "the checks of upstream `{name}` (`{key}`) ask over TCP, and its endpoints speak UDP"
            );
            cx.error(Code::Conflict, to.position.span.clone(), message)
                .help("set `port` of `health` to one where the endpoints answer over TCP");
        }
    }
}
