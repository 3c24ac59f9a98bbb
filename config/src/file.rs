//! The whole file: its top level, and the order in which its parts are checked.

use toml::de::DeTable;

use crate::config::{Config, KeyPositions};
use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, NamedEntries, NamedEntry, OneOrMany, OrOff, ShortOrLong, SpannedKind, TableArray,
};
use crate::decode::reader::{find_span, is_empty};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::RawPolicies;
use crate::policy::level::{Origin, Place};
use crate::policy::sets::{PolicySetName, PolicySets, RawPolicySet};
use crate::slice::access_log::{ACCESS_LOG, AccessLog, LogTargetText, RawAccessLog};
use crate::slice::address_claims::AddressClaims;
use crate::slice::admin::{Admin, RawAdmin, check_admin};
use crate::slice::cores::{CORES, Cores, CoresKind, DRIVER, Driver};
use crate::slice::dns::RawDns;
use crate::slice::endpoint::source::ServerEntryKind;
use crate::slice::http2::{Http2, Http2Patch};
use crate::slice::limits::{LimitsPatch, check_limits};
use crate::slice::listener::{ListenName, RawListener, check_listeners};
use crate::slice::listener_target::ListenerTarget;
use crate::slice::relayed_upstreams::{check_health_of_udp, check_upstreams_of};
use crate::slice::retries::{Retries, RetriesKind, RetriesPatch};
use crate::slice::route::{RawRoute, Target};
use crate::slice::routes::check_routes;
use crate::slice::test_block::{RawTest, check_test};
use crate::slice::timeouts::{Timeouts, TimeoutsPatch, check_timeouts};
use crate::slice::trusted_proxies::{
    FORWARDED_HEADER, ForwardedHeader, TrustedPeer, TrustedPeerText, check_trusted_peers,
};
use crate::slice::upstream::{RawUpstream, UpstreamName, check_upstreams, upstream_of_server};
use crate::slice::user::{Account, AccountKind, check_group};
use crate::text::diagnostic::Code;
use crate::value::address::AddressText;
use crate::value::file_path::{AbsoluteFileKind, NamedFile};
use crate::value::upstream_names::UpstreamNames;

/// The largest file, in bytes.
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
        &["middleware", "middlewares", "policies", "snippet"],
        "`[policy.NAME]`",
    ),
    (
        &["maxconn", "max_connections", "worker_connections"],
        "`limits.connections`",
    ),
];

table! {
    /// What a file can say.
    RawFile, "file", "The top level", foreign FOREIGN_NAMES {
        /// The CPU cores that run the data path: a number counts cores, a string names them. Set it to leave cores to
        /// other programs.
        preset(CORES) cores: Cores = "cores" as CoresKind;
        /// What drives each core's io_uring: `"ring"`, which `"auto"` means too, is Weir's own; `"monoio"` is the library of
        /// that name, which costs more and has the exceptions that operating.md lists.
        preset(DRIVER) driver: Driver = "driver" as Choice<Driver>;
        /// The user that Weir becomes when it was started as root, by name or number: after it has bound its sockets,
        /// before it serves anything. It keeps only the right to bind ports below 1024, and only if a listener has one.
        /// Without the key, Weir stays the user that started it.
        optional user: Account = "user" as AccountKind;
        /// The group that Weir gets with `user`; it gives up all others. The default is the user's own group.
        optional group: Account = "group" as AccountKind;
        /// The file that holds the process id while Weir serves. Set it for tools that need one.
        optional pid_file: NamedFile = "pid_file" as AbsoluteFileKind;
        /// The address of the admin listener, which serves metrics and Weir's own health, or a table with more, for its
        /// [API](admin-api.md). Without the key there is none.
        optional admin: Spanned<Admin> = "admin" as SpannedKind<ShortOrLong<AddressText, RawAdmin>>;
        /// A line for every exchange: its destination, or a table with more.
        preset(ACCESS_LOG) access_log: Option<AccessLog> =
            "access_log" as OrOff<ShortOrLong<LogTargetText, RawAccessLog>>;
        /// Peers whose forwarded fields Weir believes: networks, listeners on Unix sockets, or `"unix:"` for all of
        /// these. Set it to the addresses of load balancers in front of Weir. It drops such fields from all other peers
        /// ([fields.md](fields.md)).
        optional trusted_proxies: Vec<Spanned<TrustedPeer>> =
            "trusted_proxies" as OneOrMany<SpannedKind<TrustedPeerText>>;
        /// The field in which trusted peers name the client. Set it to the one that your load balancer writes. Weir
        /// drops the other one from them too, because most load balancers pass on what clients write there.
        preset(FORWARDED_HEADER) forwarded_header: ForwardedHeader =
            "forwarded_header" as Choice<ForwardedHeader>;
        /// Time limits. Listeners, upstreams and routes may override them.
        optional timeouts: TimeoutsPatch = "timeouts" as TimeoutsPatch;
        /// Limits of size, number and rate. Listeners and routes may override some.
        optional limits: LimitsPatch = "limits" as LimitsPatch;
        /// How Weir looks up names of endpoints ([discovery.md](discovery.md)).
        optional dns: RawDns = "dns" as RawDns;
        /// What one HTTP/2 connection, a client's or an endpoint's, may ask of Weir.
        optional http2: Http2Patch = "http2" as Http2Patch;
        /// When Weir repeats a failed attempt. Upstreams and routes may override it. A number is `count`.
        optional retries: RetriesPatch = "retries" as RetriesKind;
        /// Addresses that accept connections, at least one.
        optional listeners: Vec<NamedEntry<RawListener>> = "listen" as NamedEntries<ListenName, RawListener>;
        /// Groups of endpoints that serve the same content. A list is `servers`.
        optional upstreams: Vec<NamedEntry<RawUpstream>> =
            "upstream" as NamedEntries<UpstreamName, ShortOrLong<OneOrMany<SpannedKind<ServerEntryKind>>, RawUpstream>>;
        /// Sets of policies, for routes that take them by `use`.
        optional policy_sets: Vec<NamedEntry<RawPolicySet>> = "policy" as NamedEntries<PolicySetName, RawPolicySet>;
        /// What Weir does with which requests; at least one route.
        optional routes: Vec<RawRoute> = "route" as TableArray<RawRoute>;
        /// Requests, and what Weir must do with them. `weir check` runs these tests.
        optional tests: Vec<RawTest> = "test" as TableArray<RawTest>;
        with policies: RawPolicies;
    }
}

impl RawFile {
    /// Checks the tables against each other and makes a configuration of them, which has no meaning if `cx` has errors.
    pub(crate) fn check(self, root: &DeTable<'_>, cx: &mut Decoder<'_>) -> Config {
        let span_of = |path: &[&str]| find_span(root, path);
        let limits = check_limits(&self.limits.unwrap_or_default(), root, cx);
        let timeouts = self.timeouts.unwrap_or_default();
        let timeouts_span = span_of(&["timeouts"]).unwrap_or_default();
        check_timeouts(&timeouts, &timeouts_span, cx);
        let mut claims = AddressClaims::default();
        let listeners = self.listeners.unwrap_or_default();
        let upstreams = self.upstreams.unwrap_or_default();
        let upstream_names = UpstreamNames::new(&upstreams);
        let listeners = check_listeners(listeners, &limits, &upstream_names, root, &mut claims, cx);
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
        let mut upstreams = check_upstreams(upstreams, &listeners, cx);
        if !cx.has_errors() {
            // A table that could not be read has no index.
            check_upstreams_of(&listeners, &upstreams, cx);
        }
        let dns = self.dns.map(|dns| dns.build(cx)).unwrap_or_default();
        let routes = self.routes.unwrap_or_default();
        let mut sets = PolicySets::new(self.policies, self.policy_sets.unwrap_or_default(), cx);
        let top = Place {
            origin: &Origin::Top,
            span: &self.span,
            target: None,
            lacks_claims: false,
            parameters: None,
            upstreams: &upstream_names,
        };
        let policies = sets.of_top(&top, cx);
        let (routes, route_names) =
            check_routes(routes, &mut sets, &upstream_names, &listeners, cx);
        if !cx.has_errors() {
            check_health_of_udp(&listeners, &routes, &upstreams, cx);
        }
        let servers = upstream_names.servers();
        upstreams.extend(servers.iter().map(|server| upstream_of_server(server, cx)));
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
            dns,
            http2: Http2::default().patched(&self.http2.unwrap_or_default()),
            retries: Retries::default().patched(&self.retries.unwrap_or_default()),
            policies,
            listeners,
            upstreams,
            routes,
            tests,
        };
        if !cx.is_broken() {
            report_missing(root, &config, &upstream_names, cx);
        }
        if !cx.has_errors() {
            warn_of_unused(&config, &upstream_names, cx);
            sets.warn_of_unused(cx);
        }
        config
    }
}

/// Reports what every file must have and this one has not: a listener, a route, endpoints.
fn report_missing(
    root: &DeTable<'_>,
    config: &Config,
    names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) {
    if root.is_empty() {
        cx.file_error(Code::MissingKey, "the file is empty")
            .help(format!(
                "start from this one:\n{LISTENER_LINES}\n\n{UPSTREAM_LINES}\n\n{}",
                route_lines("app")
            ));
        return;
    }
    if is_empty(root.get("listen")) {
        cx.file_error(
            Code::MissingKey,
            "the file has no listener, so nothing would accept connections",
        )
        .help(format!("add these two lines:\n{LISTENER_LINES}"));
    }
    let needs_routes = config.listeners.is_empty() || config.has_http();
    if needs_routes && is_empty(root.get("route")) {
        let upstream = names.all.first();
        let to = upstream.map_or("app", |name| name.value.as_str());
        let lines = match upstream {
            Some(_) => route_lines(to),
            None => format!("{}\n\n{UPSTREAM_LINES}", route_lines(to)),
        };
        cx.file_error(
            Code::MissingKey,
            "the file has no route, so Weir would not know what to do with requests",
        )
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
                .help("add one: servers = [\"10.0.0.11:8080\"]");
        }
    }
}

const LISTENER_LINES: &str =
    "[listen.\"0.0.0.0:8080\"]\nbacklog = 4096  # the default; the table may be empty";

const UPSTREAM_LINES: &str = "[upstream.app]\nservers = [\"10.0.0.11:8080\"]";

fn route_lines(upstream: &str) -> String {
    format!("[[route]]\nmatch = \"/*\"\nto = \"{upstream}\"")
}

/// Warns of upstreams that no route sends requests to, and of routes that no listener serves.
fn warn_of_unused(config: &Config, names: &UpstreamNames, cx: &mut Decoder<'_>) {
    if let Some(route) = config.routes.first()
        && !config.has_http()
    {
        let message = "no listener speaks HTTP, so no route gets a request";
        cx.warning(Code::Unused, route.position.span.clone(), message)
            .help("remove the routes, or add a listener without `tcp`, `passthrough` and `udp`");
    }
    let mut used = vec![false; names.all.len()];
    for route in &config.routes {
        let (one, shares) = match &route.target {
            Target::Upstream { index } => (Some(*index), &[][..]),
            Target::Split(split) => (None, &split.shares[..]),
            Target::Redirect(_) | Target::Respond(_) => (None, &[][..]),
        };
        for index in one
            .into_iter()
            .chain(shares.iter().map(|(index, _)| *index))
        {
            if let Some(used) = used.get_mut(index) {
                *used = true;
            }
        }
    }
    let targets = config.listeners.iter().map(|listener| &listener.target);
    for to in targets.flat_map(ListenerTarget::upstreams) {
        if let Some(used) = used.get_mut(to.index) {
            *used = true;
        }
    }
    let policies = config.routes.iter().map(|route| &route.policies);
    let asked = policies.flat_map(|policies| {
        let server = policies.forward_auth.as_ref().map(|auth| auth.upstream);
        let mirror = policies.mirror.as_ref().map(|mirror| mirror.upstream);
        server.into_iter().chain(mirror)
    });
    for upstream in asked {
        if let Some(used) = used.get_mut(upstream) {
            *used = true;
        }
    }
    for (name, _) in names.all.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("no route sends requests to upstream `{}`", name.value);
        cx.warning(Code::Unused, name.span.clone(), message)
            .help("remove it, or add a route with `to`");
    }
}
