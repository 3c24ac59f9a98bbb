//! From the tables of a file to a [`Config`]: names are resolved and contradictions found.
//!
//! Everything is looked at, whatever has been found wrong before; the outcome only counts when
//! nothing was.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::address::ListenText;
use crate::decode::{At, Decoder, Value};
use crate::diagnostic::{Code, Diagnostic};
use crate::file::{File, RawListener, RawTest, RawUpstream};
use crate::forms::header_names;
use crate::kinds::{Entry, Text, quoted_if_needed};
use crate::layers::{Http2, Limits, LimitsPatch, Pool, Retries, Timeouts, TimeoutsPatch};
use crate::limits::ENDPOINTS_MAX;
use crate::model::{
    Address, Config, Endpoint, EndpointAddress, Listener, Spots, Target, Test, TrustedPeer,
    Underscores, Upstream,
};
use crate::overlap::{Holder, Taken, without_detours};
use crate::routes::{Seen, routes};
use crate::source::Span;
use crate::suggest::nearest;

/// Makes a configuration of the tables. The outcome is meaningless if `cx` has errors.
pub(crate) fn check(file: File, root: &DeTable<'_>, cx: &mut Decoder<'_>) -> Config {
    let limits = limits(&file.limits.unwrap_or_default(), root, cx);
    let timeouts = file.timeouts.unwrap_or_default();
    times_agree(
        &timeouts,
        &find(root, &["timeouts"]).unwrap_or_default(),
        cx,
    );
    let mut taken = Taken::default();
    let listeners = listeners(file.listeners.unwrap_or_default(), &limits, &mut taken, cx);
    if let Some(admin) = &file.admin {
        admin_overlaps(admin, &mut taken, cx);
    }
    if let (None, Some(_)) = (&file.user, &file.group) {
        let span = find(root, &["group"]).unwrap_or_default();
        cx.error(Code::MissingKey, span, "`group` goes with `user`")
            .help("add `user`, whose rights Weir is to have");
    }
    let trusted_proxies = trusted(file.trusted_proxies.unwrap_or_default(), &listeners, cx);
    let raw_upstreams = file.upstreams.unwrap_or_default();
    let names = Names::new(&raw_upstreams);
    let upstreams = upstreams(raw_upstreams, &listeners, cx);
    // Of a listener that could not be read it is not known.
    let asks = |each: &Listener| each.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let keeps = |each: &Listener| each.underscores == Underscores::Keep;
    let seen = Seen {
        certificates: cx.has_errors() || listeners.iter().any(asks),
        odd_names: cx.has_errors() || listeners.iter().any(keeps),
    };
    let tables = file.routes.unwrap_or_default();
    let (routes, route_names) = routes(tables, &names, seen, cx);
    let indices = routes.iter().enumerate();
    let indices = indices.map(|(index, route)| (route.name.as_str(), index));
    let indices: HashMap<_, _> = indices.collect();
    let tests = file.tests.unwrap_or_default().into_iter();
    let tests = tests
        .filter_map(|raw| test(raw, (&indices, &route_names), &names, cx))
        .collect();
    let spot = |key: &str, cx: &Decoder<'_>| {
        let span = find(root, &[key]);
        span.map(|span| cx.spot(&span)).unwrap_or_default()
    };
    let config = Config {
        spots: Spots {
            cores: spot("cores", cx),
            driver: spot("driver", cx),
            admin: spot("admin", cx),
            access_log: spot("access_log", cx),
        },
        cores: file.cores,
        driver: file.driver,
        user: file.user,
        group: file.group,
        pid_file: file.pid_file,
        admin: file.admin.map(|admin| admin.value),
        access_log: file.access_log,
        trusted_proxies,
        forwarded_header: file.forwarded_header,
        timeouts: Timeouts::default().patched(&timeouts),
        limits,
        http2: Http2::default().patched(&file.http2.unwrap_or_default()),
        retries: Retries::default().patched(&file.retries.unwrap_or_default()),
        listeners,
        upstreams,
        routes,
        tests,
    };
    if !cx.is_broken() {
        missing(root, &names, cx);
    }
    if !cx.has_errors() {
        unused(&config, &names, cx);
    }
    config
}

/// The upstreams' names, in file order, whether the rest of them could be read or not.
pub(crate) struct Names {
    all: Vec<At<String>>,
    index: HashMap<String, usize>,
}

impl Names {
    fn new(upstreams: &[Entry<RawUpstream>]) -> Self {
        let all: Vec<_> = upstreams.iter().map(|entry| entry.name.clone()).collect();
        let index = all.iter().enumerate();
        let index = index.map(|(i, name)| (name.value.clone(), i)).collect();
        Self { all, index }
    }

    /// The index of the upstream `name`; an unknown name is reported with the nearest one.
    pub(crate) fn resolve(&self, name: &At<String>, cx: &mut Decoder<'_>) -> Option<usize> {
        let found = self.index.get(&name.value).copied();
        if found.is_none() {
            let known = self.all.iter().map(|name| name.value.as_str());
            unknown_name(cx, name, "upstream", known).help(format!(
                "an upstream is defined like this:\n[upstream.{}]\nservers = [\"10.0.0.11:8080\"]",
                quoted_if_needed(&name.value)
            ));
        }
        found
    }
}

fn unknown_name<'c, 'n>(
    cx: &'c mut Decoder<'_>,
    name: &At<String>,
    noun: &str,
    known: impl Iterator<Item = &'n str>,
) -> &'c mut Diagnostic {
    const LISTED_MAX: usize = 10;
    let message = format!("there is no {noun} `{}`", name.value);
    if cx.is_full() {
        return cx.error(Code::UnknownName, name.span.clone(), message);
    }
    let known: Vec<&str> = known.collect();
    let near = nearest(&name.value, known.iter().copied());
    let diagnostic = cx.error(Code::UnknownName, name.span.clone(), message);
    if let Some(near) = near {
        diagnostic.label(format!("did you mean `{near}`?"));
    } else if !known.is_empty() {
        let more = if known.len() > LISTED_MAX {
            ", ..."
        } else {
            ""
        };
        let listed = known.iter().take(LISTED_MAX).copied().collect::<Vec<_>>();
        diagnostic.help(format!("there are: {}{more}", listed.join(", ")));
    }
    diagnostic
}

fn limits(patch: &LimitsPatch, root: &DeTable<'_>, cx: &mut Decoder<'_>) -> Limits {
    let mut limits = Limits::default().patched(patch);
    if patch.target_bytes.is_none() {
        limits.target_bytes = limits.target_bytes.min(limits.head_bytes);
    }
    if limits.target_bytes > limits.head_bytes {
        let span = find(root, &["limits", "target"]).unwrap_or_default();
        cx.error(
            Code::Unreachable,
            span,
            "the target is a part of the head, whose limit is lower",
        )
        .help("raise `limits.head`, or lower `limits.target`");
    }
    let Some(connections) = limits.connections else {
        return limits;
    };
    if patch.connections_per_client.is_none() {
        limits.connections_per_client = limits.connections_per_client.min(connections);
    }
    if limits.connections_per_client > connections {
        let span = find(root, &["limits", "connections_per_client"]).unwrap_or_default();
        per_client_unreachable(span, connections, cx);
    }
    limits
}

fn per_client_unreachable(span: Span, connections: u32, cx: &mut Decoder<'_>) {
    let message = format!("never reached: the listener stops at {connections} connections");
    cx.error(Code::Unreachable, span, message)
        .help("lower `connections_per_client`, or raise `connections`");
}

/// Warns of time limits that a shorter one, given in the same place, hides.
pub(crate) fn times_agree(patch: &TimeoutsPatch, span: &Span, cx: &mut Decoder<'_>) {
    let Some(Some(total)) = patch.total else {
        return;
    };
    let parts: [(&str, Option<Duration>); 3] = [
        ("connect", patch.connect),
        ("queue", patch.queue),
        ("first_byte", patch.first_byte),
    ];
    for (key, part) in parts {
        if part.is_some_and(|part| part >= total) {
            let message = format!("`{key}` is never reached: `total` is not longer");
            cx.warning(Code::Unreachable, span.clone(), message);
        }
    }
}

fn listeners(
    entries: Vec<Entry<RawListener>>,
    limits: &Limits,
    taken: &mut Taken,
    cx: &mut Decoder<'_>,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::with_capacity(entries.len());
    for Entry { name, value } in entries {
        let address = match ListenText::parse(&name.value) {
            Ok(address) => address,
            Err(problem) => {
                // The part behind the dot was reported as a key already.
                if cx.dotted_name(&name.span).is_none() {
                    cx.problem(name.span, &name.value, problem);
                }
                continue;
            }
        };
        // Two on ports that the kernel chooses would still have one name.
        let may_be_shared = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
        let mut known = listeners.iter().filter(|_| may_be_shared);
        let same = known.find(|known| known.address == address);
        let same = same.map(|known| (known.address.clone(), known.spot.line));
        let clash = taken.claim(&address, cx.line(&name.span));
        let clash = clash.map(|holder| (holder.address, holder.line));
        if let Some((other, line)) = clash.or(same) {
            listener_overlaps(&address, name.span, (&other, line), cx);
            continue;
        }
        let Some(raw) = value else { continue };
        let connections = raw
            .connections
            .as_ref()
            .map_or(limits.connections, |at| Some(at.value));
        if let (Some(per_client), Some(connections)) = (&raw.connections_per_client, connections)
            && per_client.value > connections
        {
            per_client_unreachable(per_client.span.clone(), connections, cx);
        }
        let tls = raw.tls.and_then(|at| at.value);
        if let (Some(_), Some(redirect)) = (&tls, &raw.redirect_https)
            && redirect.value.is_some()
        {
            let message = "a listener with TLS has nothing to redirect to `https`";
            cx.error(Code::Conflict, redirect.span.clone(), message)
                .help("`redirect_https` belongs to the listener of port 80");
        }
        if let (Some(mode), Address::Tcp(_)) = (&raw.mode, &address) {
            let message = "`mode` does nothing here";
            cx.warning(Code::NoEffect, mode.span.clone(), message)
                .label("only a Unix socket has a file");
        }
        listeners.push(Listener {
            address,
            connections: raw.connections.map(|at| at.value),
            connections_per_client: raw.connections_per_client.map(|at| at.value),
            backlog: raw.backlog,
            http2: raw.http2,
            request_id: raw.request_id,
            tls,
            redirect_https: raw.redirect_https.and_then(|at| at.value),
            proxy_protocol: raw.proxy_protocol.unwrap_or_default(),
            mode: raw.mode.map(|at| at.value),
            underscores: raw.underscores,
            timeouts: raw.timeouts.unwrap_or_default(),
            spot: cx.spot(&name.span),
        });
    }
    listeners
}

fn listener_overlaps(
    address: &Address,
    span: Span,
    (other, line): (&Address, u32),
    cx: &mut Decoder<'_>,
) {
    if same_place(address, other) {
        let message = format!("a second listener for `{other}`");
        cx.error(Code::Duplicate, span, message)
            .help(format!("the first one is in line {line}"));
        return;
    }
    let message = format!("`{address}` overlaps with the listener `{other}` in line {line}");
    cx.error(Code::Conflict, span, message)
        .help(leave_one_out(address, other));
}

/// The admin listener, which no other listener may be in the way of.
fn admin_overlaps(admin: &At<Address>, taken: &mut Taken, cx: &mut Decoder<'_>) {
    let Some(Holder { address, line }) = taken.claim(&admin.value, cx.line(&admin.span)) else {
        return;
    };
    let message = if same_place(&admin.value, &address) {
        format!(
            "`{}` is the address of the listener in line {line} too",
            admin.value
        )
    } else {
        format!(
            "`{}` overlaps with the listener `{address}` in line {line}",
            admin.value
        )
    };
    cx.error(Code::Conflict, admin.span.clone(), message)
        .help("give the admin listener an address of its own");
}

fn same_place(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => without_detours(a) == without_detours(b),
        (a, b) => a == b,
    }
}

fn leave_one_out(a: &Address, b: &Address) -> String {
    let is_every = |address: &&Address| matches!(address, Address::Tcp(address) if address.ip().is_unspecified());
    let every = match [a, b].into_iter().find(is_every) {
        Some(Address::Tcp(SocketAddr::V4(_))) => "`0.0.0.0` is every IPv4 address of the machine: ",
        Some(_) => "`::` is every IPv6 address of the machine: ",
        None => "",
    };
    format!("{every}leave one of them out")
}

/// Peers whose forwarded fields are believed. A Unix socket among them has to be a listener's.
fn trusted(
    peers: Vec<At<TrustedPeer>>,
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
    for At { value: peer, span } in peers {
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

fn upstreams(
    entries: Vec<Entry<RawUpstream>>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<Upstream> {
    let mut upstreams = Vec::with_capacity(entries.len());
    for Entry { name, value } in entries {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.value.is_empty() || !name.value.chars().all(plain) {
            let message = format!("`{}` is no name for an upstream", name.value);
            cx.error(Code::BadValue, name.span.clone(), message)
                .help("letters, digits, hyphens, underscores and dots");
        }
        let Some(raw) = value else { continue };
        let patch = raw.pool.unwrap_or_default();
        if let (Some(idle), Some(all)) = (patch.idle_per_core, patch.connections)
            && idle > all
        {
            let message = "`pool.idle_per_core` is never reached: `pool.connections` is lower";
            cx.warning(Code::Unreachable, raw.at.clone(), message);
        }
        let timeouts = raw.timeouts.unwrap_or_default();
        times_agree(&timeouts, &raw.at, cx);
        let endpoints = endpoints(raw.servers, &name, listeners, cx);
        if let Some(tls) = &raw.tls
            && !endpoints.iter().any(|endpoint| endpoint.tls)
        {
            let message = "no endpoint of this upstream begins with `https://`";
            cx.warning(Code::NoEffect, tls.at.clone(), message)
                .label("does nothing without one");
        }
        if raw.proxy_protocol.is_some() && endpoints.iter().any(|endpoint| endpoint.h2c) {
            let message = "connections to `h2c://` endpoints are shared by clients: `proxy_protocol` cannot say whose one is";
            cx.error(Code::Conflict, raw.at.clone(), message)
                .help("leave out `proxy_protocol`, or speak HTTP/1.1 to these endpoints");
        }
        let tls = raw.tls.map(|tls| tls.build(cx)).unwrap_or_default();
        upstreams.push(Upstream {
            endpoints,
            tls,
            proxy_protocol: raw.proxy_protocol,
            balance: raw.balance,
            pool: Pool::default().patched(&patch),
            timeouts,
            retries: raw.retries.unwrap_or_default(),
            spot: cx.spot(&name.span),
            name: name.value,
        });
    }
    upstreams
}

fn endpoints(
    servers: Vec<At<Endpoint>>,
    upstream: &At<String>,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> Vec<Endpoint> {
    let mut lines: HashMap<EndpointAddress, u32> = HashMap::with_capacity(servers.len());
    let mut endpoints = Vec::with_capacity(servers.len());
    if servers.len() > ENDPOINTS_MAX {
        let message = format!("an upstream has at most {ENDPOINTS_MAX} endpoints");
        cx.error(Code::BadValue, upstream.span.clone(), message);
    }
    for At { value, span } in servers {
        let spot = cx.spot(&span);
        let line = spot.line;
        let endpoint = Endpoint { spot, ..value };
        if let Some(first) = lines.get(&endpoint.address) {
            let message = format!("endpoint `{}` is there twice", endpoint.address);
            cx.error(Code::Duplicate, span.clone(), message)
                .help(format!(
                    "the first one is in line {first}; to give it more requests, raise its `weight`"
                ));
        }
        if let Some(listener) = listeners.iter().find(|each| is_same(each, &endpoint)) {
            let message = format!(
                "endpoint `{}` is Weir's own listener `{}`",
                endpoint.address, listener.address
            );
            cx.error(Code::Conflict, span, message)
                .help("requests would go round in circles");
        }
        lines.insert(endpoint.address.clone(), line);
        endpoints.push(endpoint);
    }
    endpoints
}

/// Whether a connection to `endpoint` surely arrives at `listener`.
fn is_same(listener: &Listener, endpoint: &Endpoint) -> bool {
    let reaches = |listen: &SocketAddr, to: &SocketAddr| {
        listen == to
            || (listen.port() == to.port()
                && listen.ip().is_unspecified()
                && to.ip().is_loopback()
                && listen.is_ipv4() == to.is_ipv4())
    };
    match (&listener.address, &endpoint.address) {
        (Address::Tcp(listen), EndpointAddress::Ip(to)) => reaches(listen, to),
        (Address::Unix(listen), EndpointAddress::Unix(to)) => listen == to,
        _ => false,
    }
}

fn test(
    raw: RawTest,
    (indices, route_names): (&HashMap<&str, usize>, &BTreeSet<String>),
    names: &Names,
    cx: &mut Decoder<'_>,
) -> Option<Test> {
    let route = raw.route.map(|name| {
        let found = indices.get(name.value.as_str()).copied();
        if found.is_none() && !route_names.contains(&name.value) {
            let known = route_names.iter().map(String::as_str);
            unknown_name(cx, &name, "route", known);
        }
        found
    });
    let upstream = raw.upstream.map(|name| names.resolve(&name, cx));
    if route.is_none() && upstream.is_none() && raw.status.is_none() {
        cx.error(Code::MissingKey, raw.at, "this test expects nothing")
            .help("add `route`, `upstream` or `status`");
        return None;
    }
    let spot = cx.spot(&raw.request.span);
    let request = raw.request.value;
    Some(Test {
        method: request.method,
        scheme: request.scheme,
        host: request.host,
        port: request.port,
        target: request.target,
        headers: header_names(raw.headers.unwrap_or_default(), cx),
        client_cert: raw.client_cert.unwrap_or_default(),
        route: route.flatten(),
        upstream: upstream.flatten(),
        status: raw.status.and_then(|status| u16::try_from(status).ok()),
        spot,
    })
}

fn missing(root: &DeTable<'_>, names: &Names, cx: &mut Decoder<'_>) {
    if root.is_empty() {
        cx.file_error(Code::MissingKey, "the file says nothing")
            .help(format!(
                "a small one that works:\n{LISTENER_LINES}\n\n{UPSTREAM_LINES}\n\n{}",
                route_lines("app")
            ));
        return;
    }
    if is_empty(root.get("listen")) {
        cx.file_error(
            Code::MissingKey,
            "no listener: nothing would accept a connection",
        )
        .help(format!("add these two lines:\n{LISTENER_LINES}"));
    }
    if is_empty(root.get("route")) {
        let upstream = names.all.first();
        let to = upstream.map_or("app", |name| name.value.as_str());
        let lines = match upstream {
            Some(_) => route_lines(to),
            None => format!("{}\n\n{UPSTREAM_LINES}", route_lines(to)),
        };
        cx.file_error(Code::MissingKey, "no route: nothing says where requests go")
            .help(format!(
                "to send all of them to one upstream, add:\n{lines}"
            ));
    }
    let upstreams = root
        .get("upstream")
        .and_then(|upstreams| upstreams.get_ref().as_table());
    for name in &names.all {
        let upstream = upstreams.and_then(|upstreams| upstreams.get(name.value.as_str()));
        let servers = upstream.and_then(|upstream| match upstream.get_ref().as_table() {
            Some(table) => table.get("servers"),
            None => Some(upstream),
        });
        if servers.is_some() && is_empty(servers) {
            let message = format!("upstream `{}` has no endpoint", name.value);
            cx.error(Code::MissingKey, name.span.clone(), message)
                .help("for example: servers = [\"10.0.0.11:8080\"]");
        }
    }
}

/// Whether there is nothing: no value, an empty table or an empty list.
fn is_empty(value: Option<&Value<'_>>) -> bool {
    value.is_none_or(|value| match value.get_ref() {
        DeValue::Table(table) => table.is_empty(),
        DeValue::Array(list) => list.is_empty(),
        _ => false,
    })
}

const LISTENER_LINES: &str =
    "[listen.\"0.0.0.0:8080\"]\nbacklog = 4096  # the default; the table may be empty";
const UPSTREAM_LINES: &str = "[upstream.app]\nservers = [\"10.0.0.11:8080\"]";

fn route_lines(upstream: &str) -> String {
    format!("[[route]]\nmatch = \"/*\"\nto = \"{upstream}\"")
}

fn unused(config: &Config, names: &Names, cx: &mut Decoder<'_>) {
    let mut used = vec![false; names.all.len()];
    for route in &config.routes {
        if let Target::Upstream { index } = route.target
            && let Some(used) = used.get_mut(index)
        {
            *used = true;
        }
    }
    for (name, _) in names.all.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("no route sends anything to upstream `{}`", name.value);
        cx.warning(Code::Unused, name.span.clone(), message);
    }
}

/// The place of the value at `path`, if it is there.
fn find(root: &DeTable<'_>, path: &[&str]) -> Option<Span> {
    let (last, parents) = path.split_last()?;
    let mut table = root;
    for key in parents {
        table = table.get(*key)?.get_ref().as_table()?;
    }
    table.get(*last).map(toml::Spanned::span)
}
