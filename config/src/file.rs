//! The whole file: its top level, and the order in which its parts are checked.

use toml::de::DeTable;

use crate::config::{Config, KeyPositions};
use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, Count, NamedEntries, NamedEntry, OneOrMany, OrOff, ShortOrLong, SpannedKind, TableArray,
};
use crate::decode::reader::{find, is_empty};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::slice::access_log::{ACCESS_LOG, AccessLog, LogTargetText, RawAccessLog};
use crate::slice::address_claims::AddressClaims;
use crate::slice::admin::check_admin;
use crate::slice::cores::{CORES, Cores, CoresKind, DRIVER, Driver};
use crate::slice::endpoint::ServerKind;
use crate::slice::http2::{Http2, Http2Patch};
use crate::slice::limits::{LimitsPatch, check_limits};
use crate::slice::listener::{ListenName, RawListener, check_listeners};
use crate::slice::retries::{RETRIES_MAX, Retries, RetriesPatch};
use crate::slice::route::{RawRoute, Target};
use crate::slice::routes::check_routes;
use crate::slice::test_block::{RawTest, check_test};
use crate::slice::timeouts::{Timeouts, TimeoutsPatch, times_agree};
use crate::slice::trusted_proxies::{
    FORWARDED_HEADER, ForwardedHeader, TrustedPeer, TrustedPeerText, check_trusted_peers,
};
use crate::slice::upstream::{RawUpstream, UpstreamName, UpstreamNames, check_upstreams};
use crate::slice::user::{Account, AccountKind, check_group};
use crate::text::diagnostic::Code;
use crate::value::address::{Address, AddressText};
use crate::value::file_path::{AbsoluteFileKind, NamedFile};

/// The largest file, bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

const FOREIGN_NAMES: &[ForeignName] = &[
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

table! {
    /// The whole file.
    RawFile, "file", "The top level", foreign FOREIGN_NAMES {
        /// Which CPU cores run the data path: a number counts cores, a string names them.
        preset(CORES) cores: Cores = "cores" as CoresKind;
        /// What drives each core's io_uring: `ring` is Weir's own and needs Linux 6.1, `monoio` needs 5.19, and
        /// `auto` takes the first that the kernel grants.
        preset(DRIVER) driver: Driver = "driver" as Choice<Driver>;
        /// The user that Weir becomes, by name or number, when it was started as root: after its sockets are bound,
        /// before anything is served. Only the right to bind ports below 1024 is kept, and only if a listener has one.
        /// Unless set, the user that started Weir.
        optional user: Account = "user" as AccountKind;
        /// The group that Weir gets with `user`; all others are given up. The user's own group unless set.
        optional group: Account = "group" as AccountKind;
        /// A file that holds the number of the process while it serves. None unless set.
        optional pid_file: NamedFile = "pid_file" as AbsoluteFileKind;
        /// Where metrics and the health of Weir itself are served. Off unless set.
        optional admin: Spanned<Address> = "admin" as SpannedKind<AddressText>;
        /// Where a line about every exchange goes.
        preset(ACCESS_LOG) access_log: Option<AccessLog> =
            "access_log" as OrOff<ShortOrLong<LogTargetText, RawAccessLog>>;
        /// Peers whose forwarded fields are believed: networks, listeners that are Unix sockets, or `unix:` for all
        /// of these. None unless set: from others such fields are dropped (`config/fields.md`).
        optional trusted_proxies: Vec<Spanned<TrustedPeer>> =
            "trusted_proxies" as OneOrMany<SpannedKind<TrustedPeerText>>;
        /// The field in which trusted peers say who asked. They own it and its kin; the other one is dropped,
        /// because most load balancers pass on what clients say in it. Set "forwarded" for balancers that write
        /// `Forwarded` (RFC 7239).
        preset(FORWARDED_HEADER) forwarded_header: ForwardedHeader =
            "forwarded_header" as Choice<ForwardedHeader>;
        /// Time limits; upstreams and routes may differ.
        optional timeouts: TimeoutsPatch = "timeouts" as TimeoutsPatch;
        /// Limits of size, number and rate; routes may differ.
        optional limits: LimitsPatch = "limits" as LimitsPatch;
        /// HTTP/2: what one connection may ask of Weir, be it a client's or an endpoint's.
        optional http2: Http2Patch = "http2" as Http2Patch;
        /// When a failed attempt is repeated; upstreams and routes may differ. A number is `count`.
        optional retries: RetriesPatch = "retries" as ShortOrLong<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
        /// Addresses that accept connections, at least one.
        optional listeners: Vec<NamedEntry<RawListener>> = "listen" as NamedEntries<ListenName, RawListener>;
        /// Groups of endpoints that serve the same thing. A list is `servers`.
        optional upstreams: Vec<NamedEntry<RawUpstream>> =
            "upstream" as NamedEntries<UpstreamName, ShortOrLong<OneOrMany<SpannedKind<ServerKind>>, RawUpstream>>;
        /// Which requests go where, at least one.
        optional routes: Vec<RawRoute> = "route" as TableArray<RawRoute>;
        /// Requests and what must become of them. `weir check` runs these.
        optional tests: Vec<RawTest> = "test" as TableArray<RawTest>;
    }
}

impl RawFile {
    /// Checks the tables against each other and makes a configuration of them. The outcome is meaningless if `cx` has
    /// errors.
    pub(crate) fn check(self, root: &DeTable<'_>, cx: &mut Decoder<'_>) -> Config {
        let span_of = |path: &[&str]| find(root, path);
        let limits = check_limits(&self.limits.unwrap_or_default(), root, cx);
        let timeouts = self.timeouts.unwrap_or_default();
        let timeouts_span = span_of(&["timeouts"]).unwrap_or_default();
        times_agree(&timeouts, &timeouts_span, cx);
        let mut claims = AddressClaims::default();
        let listeners = self.listeners.unwrap_or_default();
        let listeners = check_listeners(listeners, &limits, &mut claims, cx);
        if let Some(admin) = &self.admin {
            check_admin(admin, &mut claims, cx);
        }
        check_group(
            self.user.as_ref(),
            self.group.as_ref(),
            span_of(&["group"]),
            cx,
        );
        let trusted = self.trusted_proxies.unwrap_or_default();
        let trusted_proxies = check_trusted_peers(trusted, &listeners, cx);
        let upstreams = self.upstreams.unwrap_or_default();
        let upstream_names = UpstreamNames::new(&upstreams);
        let upstreams = check_upstreams(upstreams, &listeners, cx);
        let routes = self.routes.unwrap_or_default();
        let (routes, route_names) = check_routes(routes, &upstream_names, &listeners, cx);
        let tests = self.tests.unwrap_or_default().into_iter();
        let tests = tests
            .filter_map(|raw| check_test(raw, &route_names, &upstream_names, cx))
            .collect();
        let position = |key: &str, cx: &Decoder<'_>| {
            let span = span_of(&[key]);
            span.map(|span| cx.position(&span)).unwrap_or_default()
        };
        let config = Config {
            key_positions: KeyPositions {
                cores: position("cores", cx),
                driver: position("driver", cx),
                admin: position("admin", cx),
                access_log: position("access_log", cx),
            },
            cores: self.cores,
            driver: self.driver,
            user: self.user,
            group: self.group,
            pid_file: self.pid_file,
            admin: self.admin.map(|admin| admin.value),
            access_log: self.access_log,
            trusted_proxies,
            forwarded_header: self.forwarded_header,
            timeouts: Timeouts::default().patched(&timeouts),
            limits,
            http2: Http2::default().patched(&self.http2.unwrap_or_default()),
            retries: Retries::default().patched(&self.retries.unwrap_or_default()),
            listeners,
            upstreams,
            routes,
            tests,
        };
        if !cx.is_broken() {
            report_missing(root, &upstream_names, cx);
        }
        if !cx.has_errors() {
            report_unused(&config, &upstream_names, cx);
        }
        config
    }
}

fn report_missing(root: &DeTable<'_>, names: &UpstreamNames, cx: &mut Decoder<'_>) {
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

const LISTENER_LINES: &str =
    "[listen.\"0.0.0.0:8080\"]\nbacklog = 4096  # the default; the table may be empty";

const UPSTREAM_LINES: &str = "[upstream.app]\nservers = [\"10.0.0.11:8080\"]";

fn route_lines(upstream: &str) -> String {
    format!("[[route]]\nmatch = \"/*\"\nto = \"{upstream}\"")
}

fn report_unused(config: &Config, names: &UpstreamNames, cx: &mut Decoder<'_>) {
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
