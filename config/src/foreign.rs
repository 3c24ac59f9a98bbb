//! What other proxies call the things that Weir has, so that a file written from habit says what to write instead.

use crate::shape::TableInfo;

/// By table: what it is called there, and what to write here.
type Names = (&'static [&'static str], &'static str);

const FILE: [Names; 6] = [
    (
        &["worker_processes", "workers", "threads", "nbthread"],
        "`cores`",
    ),
    (
        &["frontend", "server", "bind", "entrypoints", "listeners"],
        "`[listen.\"0.0.0.0:8080\"]`",
    ),
    (
        &["backend", "cluster", "service", "services"],
        "`[upstream.NAME]`",
    ),
    (&["location", "router", "routers"], "`[[route]]`"),
    (&["pid", "pidfile"], "`pid_file`"),
    (
        &["maxconn", "max_connections", "worker_connections"],
        "`limits.connections`",
    ),
];

const LISTEN: [Names; 5] = [
    (&["ssl", "https"], "`tls`"),
    (
        &[
            "cert",
            "key",
            "crt",
            "ssl_certificate",
            "ssl_certificate_key",
        ],
        "`tls = { cert = \"...\", key = \"...\" }`",
    ),
    (
        &["maxconn", "max_conns", "max_connections"],
        "`connections`",
    ),
    (&["accept_proxy"], "`proxy_protocol`"),
    (&["redirect"], "`redirect_https`"),
];

const UPSTREAM: [Names; 5] = [
    (
        &["max_conns", "maxconn", "max_connections", "connections"],
        "`pool.connections`",
    ),
    (
        &["keepalive", "keep_alive", "idle_per_core"],
        "`pool.idle_per_core`",
    ),
    (
        &[
            "endpoints",
            "nodes",
            "hosts",
            "targets",
            "backends",
            "address",
            "addresses",
        ],
        "`servers`",
    ),
    (
        &["lb_policy", "algorithm", "strategy", "policy"],
        "`balance`",
    ),
    (&["ssl"], "`tls`"),
];

const ROUTE: [Names; 5] = [
    (
        &[
            "path",
            "paths",
            "host",
            "hosts",
            "domain",
            "server_name",
            "prefix",
            "location",
            "rule",
            "method",
            "methods",
            "header",
            "query",
        ],
        "`match`",
    ),
    (
        &[
            "upstream",
            "backend",
            "use_backend",
            "proxy_pass",
            "reverse_proxy",
            "service",
            "target",
            "cluster",
        ],
        "`to`",
    ),
    (
        &["return", "status", "deny", "response", "body"],
        "`respond`",
    ),
    (&["rewrite", "set_path"], "`replace`"),
    (&["strip_prefix"], "`strip`"),
];

const TIMEOUTS: [Names; 4] = [
    (
        &["read", "send", "server", "response", "upstream"],
        "`first_byte`, or `body_stall` for silence in a body",
    ),
    (
        &["keepalive", "keep_alive", "keepalive_timeout"],
        "`idle`, or `upstream_idle` for connections to endpoints",
    ),
    (
        &["request"],
        "`head` for the request's head, or `total` for everything",
    ),
    (&["client"], "`body_stall`"),
];

const LISTEN_TLS: [Names; 4] = [
    (
        &["client_auth", "verify", "ssl_verify_client"],
        "`client_cert`",
    ),
    (
        &["ca", "ca_file", "ssl_client_certificate", "trusted_ca"],
        "`client_ca`",
    ),
    (&["protocols", "ssl_protocols", "versions"], "`min_version`"),
    (
        &["alpn", "http2"],
        "`http2` of the listener; HTTP/1.1 is always spoken",
    ),
];

/// What to write in this table for what others call `name`.
pub(crate) fn written_here(name: &str, table: &TableInfo) -> Option<&'static str> {
    let names: &[Names] = match table.name {
        "file" => &FILE,
        "listen" => &LISTEN,
        "listen_tls" => &LISTEN_TLS,
        "upstream" => &UPSTREAM,
        "route" => &ROUTE,
        "timeouts" => &TIMEOUTS,
        _ => &[],
    };
    let known = names.iter().find(|(theirs, _)| theirs.contains(&name));
    known.map(|(_, ours)| *ours)
}
