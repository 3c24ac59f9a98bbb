//! The data that a connection or flow collects for its event.

use std::net::IpAddr;
use std::time::Duration;

use super::relay::{RelayEnd, Relayed};
use crate::core::Core;
use crate::exchange::CorePlan;
use crate::fault::Reason;
use crate::io::{Instant, Net};
use crate::obs::ExchangeEvent;
use crate::plan::{ListenerId, UpstreamId};
use crate::policy::PolicyKind;
use crate::tls::TlsParameters;

/// The data that a connection or flow has collected so far.
pub(super) struct RelayRecord {
    pub(super) version: &'static str,
    /// The id of the listener in the plan under which the connection began.
    pub(super) listener: ListenerId,
    pub(super) client: Option<IpAddr>,
    pub(super) tls: Option<TlsParameters>,
    /// The server name that the client asked for; empty if it named none.
    pub(super) sni: Box<str>,
    time_ms: u64,
    began: Instant,
    pub(super) upstream: Option<UpstreamId>,
    pub(super) endpoint: Option<u32>,
    pub(super) attempts: u32,
    pub(super) queue_time: Duration,
    pub(super) connect_time: Duration,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) errno: u16,
    pub(super) reason: Option<Reason>,
    pub(super) policy: Option<PolicyKind>,
    pub(super) would_refuse: Option<PolicyKind>,
}

impl RelayRecord {
    /// Begins the record of a connection or flow. `version` is `TCP` or `UDP`.
    pub(super) fn new<N: Net>(
        core: &Core<N>,
        version: &'static str,
        listener: ListenerId,
        client: Option<IpAddr>,
    ) -> Self {
        Self {
            version,
            listener,
            client,
            tls: None,
            sni: Box::default(),
            time_ms: core.net.wall_ms(),
            began: core.net.now(),
            upstream: None,
            endpoint: None,
            attempts: 0,
            queue_time: Duration::ZERO,
            connect_time: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            errno: 0,
            reason: None,
            policy: None,
            would_refuse: None,
        }
    }

    /// Takes over what a relay has passed on, and why it ended.
    pub(super) fn take(&mut self, relayed: Relayed) {
        self.bytes_in = relayed.from_client;
        self.bytes_out = relayed.from_endpoint;
        self.reason = match relayed.end {
            RelayEnd::Orderly => None,
            RelayEnd::ClientBroke => Some(Reason::ClientClosed),
            RelayEnd::EndpointBroke if relayed.from_endpoint == 0 => Some(Reason::UpstreamClosed),
            RelayEnd::EndpointBroke => Some(Reason::ResponseTruncated),
            RelayEnd::Idle => Some(Reason::IdleTimeout),
            RelayEnd::Stopped => Some(Reason::ShuttingDown),
            RelayEnd::MemoryLimit => Some(Reason::MemoryLimit),
        };
    }

    /// Counts and logs the connection or flow, which has ended.
    pub(super) fn report<N: Net>(&self, core: &Core<N>, plan: &CorePlan<N>) {
        let event = self.event(core);
        core.obs
            .borrow()
            .relayed(&plan.plan, &plan.endpoints, &event);
    }

    /// Counts and logs a connection or flow that a policy has refused. A flood of them leaves room in the log for
    /// others.
    pub(super) fn report_refused<N: Net>(&self, core: &Core<N>) {
        let event = self.event(core);
        core.obs.borrow().connection_refused(&event);
    }

    fn event<N: Net>(&self, core: &Core<N>) -> ExchangeEvent<'_> {
        let microseconds = |time: Duration| time.as_micros() as u64;
        ExchangeEvent {
            time_ms: self.time_ms,
            id: core.next_id(),
            given_id: b"",
            client: self.client,
            method: b"",
            host: b"",
            path: b"",
            query: None,
            version: self.version,
            tls: self.tls,
            sni: self.sni.as_bytes(),
            client_cert: b"",
            subject: b"",
            user_agent: b"",
            referer: b"",
            fields: b"",
            status: 0,
            grpc_status: None,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            listener: self.listener,
            route: None,
            upstream: self.upstream,
            endpoint: self.endpoint,
            attempts: self.attempts,
            total_us: microseconds(core.net.now().since(self.began)),
            queue_us: microseconds(self.queue_time),
            connect_us: microseconds(self.connect_time),
            first_byte_us: 0,
            errno: self.errno,
            reason: self.reason,
            policy: self.policy,
            would_refuse: self.would_refuse,
        }
    }
}
