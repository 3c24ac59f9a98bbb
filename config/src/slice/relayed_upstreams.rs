//! Upstreams that listeners with `tcp`, `passthrough` or `udp` name.

use crate::decode::decoder::Decoder;
use crate::slice::endpoint::source::SourceKind;
use crate::slice::endpoint::{Endpoint, EndpointAddress};
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
            let wrong = upstream
                .endpoints
                .iter()
                .find_map(|endpoint| Some((endpoint, misfit(key, endpoint)?)));
            if let Some((endpoint, why)) = wrong {
                let message = format!("endpoint `{endpoint}` of upstream `{name}` {why}");
                cx.error(Code::Conflict, span, message)
                    .help("`servers` of this upstream: HOST:PORT");
            }
            let schemed = upstream.sources.iter().find_map(|source| {
                let scheme = match &source.kind {
                    SourceKind::Srv { scheme, .. } => *scheme,
                    SourceKind::Consul(service) => service.scheme,
                    SourceKind::File(_) | SourceKind::List { .. } => return None,
                };
                let any = EndpointAddress::Ip(([0, 0, 0, 0], 0).into());
                Some((source, misfit(key, &scheme.applied_to(any.into()))?))
            });
            if let Some((source, why)) = schemed {
                let message = format!("what `{}` gives for upstream `{name}` {why}", source.kind);
                cx.error(Code::Conflict, to.position.span.clone(), message)
                    .help("leave out `scheme` of this source");
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

/// Why an endpoint cannot take what a listener with this key passes on; `None` if it can.
pub(crate) fn misfit(key: &str, endpoint: &Endpoint) -> Option<&'static str> {
    let is_unix = matches!(endpoint.address, EndpointAddress::Unix(_));
    match key {
        _ if endpoint.h2c => Some("speaks HTTP/2"),
        "udp" if endpoint.tls => Some("speaks TLS over TCP"),
        "udp" if is_unix => Some("is no UDP address"),
        "passthrough" if endpoint.tls => {
            Some("begins TLS of its own, and clients speak TLS already")
        }
        _ => None,
    }
}
