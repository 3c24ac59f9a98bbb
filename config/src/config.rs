//! The typed configuration: plain data for the plan compiler, in which every name is resolved and every check has passed.

use std::time::Duration;

use crate::policy::Policies;
use crate::policy::errors::ErrorContent;
use crate::policy::ip::Networks;
use crate::slice::access_log::AccessLog;
use crate::slice::admin::Admin;
use crate::slice::cores::{Cores, Driver};
use crate::slice::dns::Dns;
use crate::slice::endpoint::Endpoint;
use crate::slice::endpoint::source::SourceKind;
use crate::slice::http2::Http2;
use crate::slice::limits::Limits;
use crate::slice::listener::Listener;
use crate::slice::listener_target::{ListenerTarget, TCP_IDLE};
use crate::slice::relayed_upstreams;
use crate::slice::request_match::Match;
use crate::slice::retries::Retries;
use crate::slice::route::{Route, Target};
use crate::slice::sticky::Sticky;
use crate::slice::test_block::Test;
use crate::slice::timeouts::Timeouts;
use crate::slice::trusted_proxies::{FORWARDED_HEADER, ForwardedHeader, TrustedPeer};
use crate::slice::upstream::Upstream;
use crate::slice::user::Account;
use crate::text::diagnostic::Position;
use crate::value::address::Address;
use crate::value::file_path::NamedFile;

/// What a whole file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The CPU cores that run the data path.
    pub cores: Cores,
    /// What drives each core's io_uring.
    pub driver: Driver,
    /// The user that the process becomes once it listens; `None` for the one that started it.
    pub user: Option<Account>,
    /// The group that it gets with `user`; `None` for the user's own.
    pub group: Option<Account>,
    /// The file for the process id.
    pub pid_file: Option<NamedFile>,
    /// The admin listener, if there is one.
    pub admin: Option<Admin>,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Peers whose forwarded fields Weir believes.
    pub trusted_proxies: Vec<TrustedPeer>,
    /// The field in which these name the client.
    pub forwarded_header: ForwardedHeader,
    /// Time limits of the top level.
    pub timeouts: Timeouts,
    /// Limits of the top level.
    pub limits: Limits,
    /// How names of endpoints are looked up.
    pub dns: Dns,
    /// Limits of one HTTP/2 connection.
    pub http2: Http2,
    /// Retry rules of the top level.
    pub retries: Retries,
    /// The policies of the top level alone, for requests without a route.
    pub policies: Policies,
    /// Listeners, at least one, in file order.
    pub listeners: Vec<Listener>,
    /// Upstreams, in file order.
    pub upstreams: Vec<Upstream>,
    /// Routes, at least one, in file order.
    pub routes: Vec<Route>,
    /// The file's tests; `weir check` runs them.
    pub tests: Vec<Test>,
    /// Positions of top-level keys that may not suit the machine.
    pub key_positions: KeyPositions,
}

/// Positions of keys of the top level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPositions {
    /// `cores`.
    pub cores: Position,
    /// `driver`.
    pub driver: Position,
    /// `admin`.
    pub admin: Position,
    /// `access_log`.
    pub access_log: Position,
}

impl Config {
    /// The configuration of `weir proxy ADDR ENDPOINT...`: a listener, an upstream named `default`, a route that sends
    /// every request there, and defaults.
    ///
    /// The command line refuses empty `endpoints`: no request could be answered.
    #[must_use]
    pub fn quick(listen: Address, endpoints: Vec<Endpoint>) -> Self {
        Self {
            cores: Cores::Auto,
            driver: Driver::Auto,
            user: None,
            group: None,
            pid_file: None,
            key_positions: KeyPositions::default(),
            admin: None,
            access_log: None,
            trusted_proxies: Vec::new(),
            forwarded_header: FORWARDED_HEADER.value,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            dns: Dns::default(),
            http2: Http2::default(),
            retries: Retries::default(),
            policies: Policies::default(),
            listeners: vec![Listener::new(listen)],
            upstreams: vec![Upstream::new("default", endpoints)],
            routes: vec![Route::new(
                "/*",
                Match::everything(),
                Target::Upstream { index: 0 },
            )],
            tests: Vec::new(),
        }
    }

    /// The one upstream that `route` sends requests to, if it does.
    #[must_use]
    pub fn upstream_of(&self, route: &Route) -> Option<&Upstream> {
        match &route.target {
            Target::Upstream { index } => self.upstreams.get(*index),
            Target::Split(_) | Target::Redirect(_) | Target::Respond(_) => None,
        }
    }

    /// The Host that endpoints get from `route`: the route's, else its upstream's; `None` for the client's.
    #[must_use]
    pub fn host_of<'c>(&'c self, route: &'c Route) -> Option<&'c str> {
        let of_upstream = || self.upstream_of(route)?.host.as_deref();
        route.host.as_deref().or_else(of_upstream)
    }

    /// Time limits of an exchange on `route`: top level, then its upstream, then the route.
    #[must_use]
    pub fn timeouts_of(&self, route: &Route) -> Timeouts {
        let base = self
            .upstream_of(route)
            .map_or(self.timeouts, |upstream| self.upstream_timeouts(upstream));
        base.patched(&route.timeouts)
    }

    /// Time limits of an upstream's pool: top level, then the upstream.
    #[must_use]
    pub fn upstream_timeouts(&self, upstream: &Upstream) -> Timeouts {
        self.timeouts.patched(&upstream.timeouts)
    }

    /// Time limits of a connection of `listener`, before a route is known: top level, then the listener.
    #[must_use]
    pub fn listener_timeouts(&self, listener: &Listener) -> Timeouts {
        self.timeouts.patched(&listener.timeouts)
    }

    /// How long a connection of `listener` with `tcp` or `passthrough` may be silent.
    #[must_use]
    pub fn relay_idle_of(&self, listener: &Listener) -> Duration {
        listener.timeouts.idle.unwrap_or(TCP_IDLE.value)
    }

    /// Why listeners without HTTP cannot use an endpoint that a source has given for an upstream, by its index. `None`: they
    /// can, or none names the upstream.
    #[must_use]
    pub fn misfit(&self, upstream: usize, endpoint: &Endpoint) -> Option<String> {
        self.listeners.iter().find_map(|listener| {
            let key = listener.target.key()?;
            let mut targets = listener.target.upstreams();
            let why = relayed_upstreams::misfit(key, endpoint)
                .filter(|_| targets.any(|to| to.index == upstream))?;
            Some(format!(
                "it {why} (`{key}` of listener `{}`)",
                listener.address
            ))
        })
    }

    /// Whether some listener serves HTTP.
    #[must_use]
    pub fn has_http(&self) -> bool {
        let is_http = |listener: &Listener| listener.target == ListenerTarget::Http;
        self.listeners.iter().any(is_http)
    }

    /// Limits of an exchange on `route`: top level, then the route.
    #[must_use]
    pub fn limits_of(&self, route: &Route) -> Limits {
        self.limits.patched(&route.limits)
    }

    /// Retry rules of an exchange on `route`: top level, then its upstream, then the route.
    #[must_use]
    pub fn retries_of(&self, route: &Route) -> Retries {
        let base = self.upstream_of(route).map_or(self.retries, |upstream| {
            self.retries.patched(&upstream.retries)
        });
        base.patched(&route.retries)
    }

    /// The files that `errors` names as pages, in no order; a file may come several times.
    pub fn error_files(&self) -> impl Iterator<Item = &NamedFile> {
        let routes = self.routes.iter().map(|each| &each.policies.errors);
        let all = [&self.policies.errors].into_iter().chain(routes);
        all.flat_map(|errors| &errors.0)
            .filter_map(|answer| match &answer.content {
                ErrorContent::File { file, .. } => Some(file),
                ErrorContent::Body { .. } | ErrorContent::Redirect(_) => None,
            })
    }

    /// The files with keys that mark endpoints in cookies.
    pub fn sticky_key_files(&self) -> impl Iterator<Item = &NamedFile> {
        let sticky = self
            .upstreams
            .iter()
            .filter_map(|each| each.sticky.as_ref());
        sticky.filter_map(Sticky::key_file)
    }

    /// The files that sources of endpoints name: lists, and tokens for Consul.
    pub fn source_files(&self) -> impl Iterator<Item = &NamedFile> {
        let sources = self.upstreams.iter().flat_map(|each| &each.sources);
        sources.filter_map(|source| match &source.kind {
            SourceKind::File(file) => Some(file),
            SourceKind::Consul(consul) => consul.token_file.as_ref(),
            SourceKind::Srv { .. } | SourceKind::List { .. } => None,
        })
    }

    /// The files of networks that `ip` rules in use name, in no order; a file may come several times.
    pub fn ip_lists(&self) -> impl Iterator<Item = &NamedFile> {
        let listeners = self.listeners.iter().map(|each| &each.policies.ip);
        let routes = self.routes.iter().map(|each| &each.policies.ip);
        let all = [&self.policies.ip]
            .into_iter()
            .chain(listeners)
            .chain(routes);
        let networks = all
            .flatten()
            .flat_map(|rules| rules.allow.iter().chain(&rules.deny));
        networks.filter_map(Networks::list)
    }

    /// Whether Weir trusts every peer of `listener`: it is a trusted Unix socket.
    #[must_use]
    pub fn trusts_all_of(&self, listener: &Listener) -> bool {
        let Address::Unix(path) = &listener.address else {
            return false;
        };
        self.trusted_proxies.iter().any(|peer| match peer {
            TrustedPeer::Network(_) => false,
            TrustedPeer::Unix(trusted) => trusted == path,
            TrustedPeer::AnyUnix => true,
        })
    }

    /// Concurrent connections of `listener`, over all cores; `None` for as many as the machine allows.
    #[must_use]
    pub fn connections_of(&self, listener: &Listener) -> Option<u32> {
        listener.connections.or(self.limits.connections)
    }

    /// Concurrent connections of one client address at `listener`, at most [`Self::connections_of`].
    #[must_use]
    pub fn connections_per_client_of(&self, listener: &Listener) -> u32 {
        listener
            .connections_per_client
            .unwrap_or(self.limits.connections_per_client)
            .min(self.connections_of(listener).unwrap_or(u32::MAX))
    }
}
