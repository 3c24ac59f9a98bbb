//! Upstreams that listeners with `tcp`, `passthrough` or `udp` name.

use crate::decode::decoder::Decoder;
use crate::slice::endpoint::EndpointAddress;
use crate::slice::listener::Listener;
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
