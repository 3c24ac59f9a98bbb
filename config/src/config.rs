//! The typed configuration: what a file means once every check has passed.

use crate::slice::access_log::AccessLog;
use crate::slice::cores::{Cores, Driver};
use crate::slice::endpoint::Endpoint;
use crate::slice::http2::Http2;
use crate::slice::limits::Limits;
use crate::slice::listener::Listener;
use crate::slice::request_match::Match;
use crate::slice::retries::Retries;
use crate::slice::route::{Route, Target};
use crate::slice::test_block::Test;
use crate::slice::timeouts::Timeouts;
use crate::slice::trusted_proxies::{FORWARDED_HEADER, ForwardedHeader, TrustedPeer};
use crate::slice::upstream::Upstream;
use crate::slice::user::Account;
use crate::text::diagnostic::Position;
use crate::value::address::Address;
use crate::value::file_path::NamedFile;

/// One whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which CPU cores run the data path.
    pub cores: Cores,
    /// What drives each core's io_uring.
    pub driver: Driver,
    /// The user that the process becomes once it listens; unless set, the one that started it.
    pub user: Option<Account>,
    /// Its group; that of the user unless set.
    pub group: Option<Account>,
    /// The file that holds the number of the process while it runs.
    pub pid_file: Option<NamedFile>,
    /// Where metrics and health of Weir itself are served; off unless set.
    pub admin: Option<Address>,
    /// Where a line about every exchange goes; off unless set.
    pub access_log: Option<AccessLog>,
    /// Peers whose forwarded fields are believed.
    pub trusted_proxies: Vec<TrustedPeer>,
    /// The field in which they say who asked.
    pub forwarded_header: ForwardedHeader,
    /// Time limits that hold unless an upstream or a route says otherwise.
    pub timeouts: Timeouts,
    /// Size and count limits that hold unless a route says otherwise.
    pub limits: Limits,
    /// What one connection of HTTP/2 may ask of Weir.
    pub http2: Http2,
    /// Retry rules that hold unless an upstream or a route says otherwise.
    pub retries: Retries,
    /// Addresses that accept connections, at least one, in file order.
    pub listeners: Vec<Listener>,
    /// Groups of endpoints, in file order.
    pub upstreams: Vec<Upstream>,
    /// What to do with which requests, at least one, in file order.
    pub routes: Vec<Route>,
    /// What the file says about itself; `weir check` runs these.
    pub tests: Vec<Test>,
    /// Where the keys of the top level are that may not suit the machine.
    pub key_positions: KeyPositions,
}

/// Where keys of the top level are.
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
    /// The configuration of `weir proxy ADDR ENDPOINT...`: one listener, one upstream named
    /// `default`, and a route that sends every request there. All else is default.
    ///
    /// An empty `endpoints` gives an upstream that answers nothing; the command line refuses it.
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
            http2: Http2::default(),
            retries: Retries::default(),
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

    /// The upstream that a route sends to, if it sends to one.
    #[must_use]
    pub fn upstream_of(&self, route: &Route) -> Option<&Upstream> {
        match &route.target {
            Target::Upstream { index } => self.upstreams.get(*index),
            Target::Redirect(_) | Target::Respond(_) => None,
        }
    }

    /// Time limits of an exchange on `route`: top level, then its upstream, then the route.
    #[must_use]
    pub fn timeouts_of(&self, route: &Route) -> Timeouts {
        let base = self
            .upstream_of(route)
            .map_or(self.timeouts, |upstream| self.upstream_timeouts(upstream));
        base.patched(&route.timeouts)
    }

    /// Time limits of an upstream before any route has its say: what its pool uses.
    #[must_use]
    pub fn upstream_timeouts(&self, upstream: &Upstream) -> Timeouts {
        self.timeouts.patched(&upstream.timeouts)
    }

    /// Time limits of a connection of `listener` before a route is known.
    #[must_use]
    pub fn listener_timeouts(&self, listener: &Listener) -> Timeouts {
        self.timeouts.patched(&listener.timeouts)
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

    /// Whether peers of `listener` are trusted whatever their address: it is a Unix socket among the trusted ones.
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

    /// Connections that `listener` serves at once, all cores together; `None` for as many as the machine allows.
    #[must_use]
    pub fn connections_of(&self, listener: &Listener) -> Option<u32> {
        listener.connections.or(self.limits.connections)
    }

    /// Connections that one client address may hold at `listener`, never more than
    /// [`Self::connections_of`].
    #[must_use]
    pub fn connections_per_client_of(&self, listener: &Listener) -> u32 {
        listener
            .connections_per_client
            .unwrap_or(self.limits.connections_per_client)
            .min(self.connections_of(listener).unwrap_or(u32::MAX))
    }
}
