//! The outcomes of exchanges, for upstreams that refuse requests which they would not serve.

use super::{Exchange, grpc};
use crate::fault::{Fault, Reason, Side};
use crate::io::Net;
use crate::upstream::{GuardedOutcome, GuardedRequest};

impl<N: Net> Exchange<'_, N> {
    /// Ends the exchange under the upstream's guard with its outcome, and reports a circuit that this has opened.
    #[cold]
    pub(super) fn finish_guarded(&self, guarded: GuardedRequest, ended: &Result<(), Fault>) {
        let Some(outcome) = self.guarded_outcome(ended) else {
            return;
        };
        let Some(change) = guarded.finish(outcome, self.core.net.now()) else {
            return;
        };
        let upstream = self
            .record
            .upstream
            .and_then(|id| self.plan.plan.upstream(id));
        if let Some(plan) = upstream {
            let report = change.report(plan.name.clone());
            self.core.obs.borrow().report(report);
        }
    }

    /// The outcome of the exchange for the upstream's guard. `None`: the upstream is not to blame, as when the client left.
    fn guarded_outcome(&self, ended: &Result<(), Fault>) -> Option<GuardedOutcome> {
        let record = &self.record;
        match ended {
            Ok(()) => {
                let grpc = record.grpc_status.is_some_and(grpc::is_server_error);
                let has_failed = record.status >= 500 || grpc;
                let time = (record.is_relayed && !has_failed).then_some(record.first_byte_time);
                Some(GuardedOutcome { has_failed, time })
            }
            Err(fault) => {
                let has_failed = fault.side == Side::Upstream
                    || matches!(
                        fault.reason,
                        Reason::NoEndpoint
                            | Reason::QueueTimeout
                            | Reason::TotalTimeout
                            | Reason::UpstreamLimit
                    );
                // A late answer shows how busy the upstream is. A refused connection does not.
                let is_late = matches!(
                    fault.reason,
                    Reason::FirstByteTimeout | Reason::TotalTimeout
                );
                let time = is_late.then(|| self.core.net.now().since(record.began));
                has_failed.then_some(GuardedOutcome { has_failed, time })
            }
        }
    }

    /// Tells a client that the upstream's guard refused when to come again.
    pub(super) fn append_retry_after(&mut self, reason: Reason) {
        if !matches!(reason, Reason::CircuitOpen | Reason::UpstreamOverloaded) {
            return;
        }
        let upstream = self.record.upstream;
        let upstream = upstream.and_then(|id| self.plan.upstreams.get(id.0 as usize));
        if let Some(upstream) = upstream {
            let seconds = upstream.retry_after_secs(self.core.net.now());
            let seconds = weir_proto_h1::Decimal::new(seconds);
            self.buffers
                .to_client
                .append("Retry-After", seconds.as_bytes());
        }
    }
}
