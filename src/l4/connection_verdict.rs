//! The outcome of a connection or flow, which ejection and the breaker count.

use std::rc::Rc;

use super::relay::{RelayEnd, Relayed};
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::Net;
use crate::plan::UpstreamPlan;
use crate::upstream::{Endpoint, GuardedConnection, Upstream};

/// Judges the upstream of one connection. An endpoint serves the connection if a byte of it arrives, or if both sides end
/// in an orderly way.
pub(super) struct ConnectionVerdict<'a, N: Net> {
    core: &'a Core<N>,
    plan: &'a UpstreamPlan,
    upstream: &'a Upstream<N>,
    /// Its place under the breaker, until the connection ends.
    guarded: Option<GuardedConnection>,
    has_served: bool,
}

impl<'a, N: Net> ConnectionVerdict<'a, N> {
    /// Begins with a connection or flow that the breaker has let pass.
    pub(super) fn new(
        core: &'a Core<N>,
        plan: &'a UpstreamPlan,
        upstream: &'a Upstream<N>,
        guarded: Option<GuardedConnection>,
    ) -> Self {
        Self {
            core,
            plan,
            upstream,
            guarded,
            has_served: false,
        }
    }

    /// No endpoint took the connection.
    pub(super) fn not_connected(&mut self, fault: Fault) {
        let is_upstreams = fault.side == Side::Upstream
            || matches!(
                fault.reason,
                Reason::NoEndpoint | Reason::QueueTimeout | Reason::UpstreamLimit
            );
        if is_upstreams {
            self.judge(true);
        }
    }

    /// A byte or datagram of the endpoint has arrived. Only the first counts.
    pub(super) fn served(&mut self, endpoint: &Rc<Endpoint<N>>) {
        if std::mem::replace(&mut self.has_served, true) {
            return;
        }
        let eject = self.plan.eject.as_ref();
        self.upstream.record_service(endpoint, eject);
        self.judge(false);
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self, endpoint: &Rc<Endpoint<N>>, relayed: Relayed) {
        if self.has_served {
            return;
        }
        match relayed.end {
            RelayEnd::Orderly => self.served(endpoint),
            RelayEnd::EndpointBroke => {
                let (reason, retry) = (Reason::UpstreamClosed, Retry::Never);
                let fault = Fault::upstream(Phase::FirstByte, reason, retry);
                self.failed(endpoint, fault, 0);
            }
            // The client has left, or Weir has ended the connection.
            RelayEnd::ClientBroke | RelayEnd::Idle | RelayEnd::Stopped | RelayEnd::MemoryLimit => {}
        }
    }

    /// The endpoint has failed.
    pub(super) fn failed(&mut self, endpoint: &Rc<Endpoint<N>>, fault: Fault, errno: u16) {
        endpoint.count_failure(fault.reason, errno);
        endpoint.observe_failure(self.core.net.now());
        let eject = self.plan.eject.as_ref();
        self.upstream.record_fault(endpoint, eject, fault);
        self.judge(true);
    }

    fn judge(&mut self, has_failed: bool) {
        let now = self.core.net.now();
        let guarded = self.guarded.as_mut();
        if let Some(change) = guarded.and_then(|guarded| guarded.judge(has_failed, now)) {
            let report = change.report(self.plan.name.clone());
            self.core.obs.borrow().report(report);
        }
    }
}
