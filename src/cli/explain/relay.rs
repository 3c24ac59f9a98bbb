//! Explains what becomes of a connection or datagram that Weir passes on.

use std::fmt::Write as _;
use std::net::IpAddr;

use weir_config::show_duration;

use super::{write_breaker, write_endpoints, write_health, write_verdicts};
use crate::control::count;
use crate::io::Address;
use crate::l4::explain_steps;
use crate::plan::{
    EndpointSets, ListenerPlan, ListenerTarget, Plan, Transport, UpstreamId, UpstreamPlan,
    default_port,
};
use crate::policy::Verdict;

/// A connection or datagram to explain: `tcp://HOST:PORT`, `tls://NAME:PORT` or `udp://HOST:PORT`.
pub(in crate::cli) struct RelayUrl<'u> {
    text: &'u str,
    scheme: RelayScheme,
    host: &'u str,
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RelayScheme {
    Tcp,
    Tls,
    Udp,
}

impl<'u> RelayUrl<'u> {
    /// Takes a URL apart. `None`: it is one of HTTP, or none.
    pub(in crate::cli) fn parse(text: &'u str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "tcp" => RelayScheme::Tcp,
            "tls" => RelayScheme::Tls,
            "udp" => RelayScheme::Udp,
            _ => return None,
        };
        let rest = rest.split('/').next().unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None if scheme == RelayScheme::Tls => (rest, default_port("https")),
            None => return None,
        };
        Some(Self {
            text,
            scheme,
            host,
            port,
        })
    }
}

/// Explains what Weir would do with it.
///
/// # Errors
/// No listener of that kind has the port.
pub(in crate::cli) fn explain_relay(
    (plan, endpoints): (&Plan, &EndpointSets),
    url: &RelayUrl<'_>,
    client: Option<IpAddr>,
) -> Result<String, String> {
    let transport = match url.scheme {
        RelayScheme::Tcp | RelayScheme::Tls => Transport::Stream,
        RelayScheme::Udp => Transport::Datagram,
    };
    let has_port = |listener: &&ListenerPlan| match &listener.address {
        Address::Ip(address) => address.port() == url.port,
        Address::Unix(_) => false,
    };
    let mut listeners = plan.listeners.iter().filter(has_port);
    let listener = listeners.find(|each| each.transport() == transport && !each.is_http());
    let Some(listener) = listener else {
        return Err(format!(
            "no listener on port {} has `tcp`, `passthrough` or `udp` for {}; for HTTP write a method and http://HOST/PATH",
            url.port, url.text,
        ));
    };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{:<10} {}", "connection", url.text);
    if let Some(client) = client {
        let _ = writeln!(out, "client     {client}");
    }
    let name = &listener.name;
    let to = match &listener.target {
        ListenerTarget::Udp(udp) => {
            let ends = match udp.replies_max {
                0 => String::new(),
                replies => format!(" or {}", count(replies as usize, "answer")),
            };
            let _ = writeln!(
                out,
                "listener   {name}, a flow ends after {} of silence{ends}, at most {} flows",
                show_duration(udp.idle),
                udp.flows_max
            );
            Some(udp.upstream)
        }
        ListenerTarget::Passthrough(names) => {
            write_listener(&mut out, listener, "TLS passes through");
            let asked = (url.scheme == RelayScheme::Tls).then_some(url.host);
            let target = names.find(asked);
            let protocols = target.map(|target| target.by_protocol.as_slice());
            for (protocol, to) in protocols.unwrap_or_default() {
                let upstream = plan.upstream(*to).map_or("", |upstream| &*upstream.name);
                let _ = writeln!(out, "alpn       {protocol} goes to upstream {upstream}");
            }
            target.map(|target| target.to)
        }
        ListenerTarget::Tcp(upstream) => {
            let tls = match listener.tls.is_some() {
                true => "TLS ends here",
                false => "bytes pass through",
            };
            write_listener(&mut out, listener, tls);
            Some(*upstream)
        }
        ListenerTarget::Http => None,
    };
    let steps = explain_steps(listener, client);
    write_verdicts(&mut out, steps.iter());
    if let Some(Verdict::Refuses(reason, _)) = steps.last().map(|last| &last.verdict) {
        let (code, text) = (reason.code(), reason.text());
        let _ = writeln!(out, "refused    reason {code}: {text}");
        return Ok(out);
    }
    match to {
        Some(to) => write_target(&mut out, (plan, endpoints), listener, to),
        None => {
            let _ = writeln!(
                out,
                "refused    reason unknown_server_name: no entry of `passthrough` has {}",
                url.host
            );
        }
    }
    Ok(out)
}

fn write_listener(out: &mut String, listener: &ListenerPlan, what: &str) {
    let _ = writeln!(
        out,
        "listener   {}, {what}, idle {}",
        listener.name,
        show_duration(listener.timeouts.idle)
    );
}

fn write_target(
    out: &mut String,
    (plan, endpoints): (&Plan, &EndpointSets),
    listener: &ListenerPlan,
    to: UpstreamId,
) {
    let Some(upstream) = plan.upstream(to) else {
        return;
    };
    let _ = writeln!(out, "upstream   {}", upstream.name);
    write_endpoints(out, upstream, endpoints.get(to).map(AsRef::as_ref));
    if listener.transport() == Transport::Stream {
        write_connecting(out, listener, upstream);
    }
    write_breaker(out, upstream);
    write_health(out, upstream);
}

/// How Weir connects to an endpoint.
fn write_connecting(out: &mut String, listener: &ListenerPlan, upstream: &UpstreamPlan) {
    let connect = listener
        .connect_timeout
        .unwrap_or(upstream.timeouts.connect);
    let _ = writeln!(
        out,
        "timeouts   connect {}, queue {}",
        show_duration(connect),
        show_duration(upstream.timeouts.queue)
    );
    let _ = writeln!(
        out,
        "failover   if Weir cannot connect, it tries the next endpoint, at most {} connections in all",
        upstream.retry.connects_max
    );
}
