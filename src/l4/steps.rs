//! Runs the policies of a listener for a connection or flow.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use weir_proto_h1::{BodyKind, Head, Method, Request, Version};

use super::relay_record::RelayRecord;
use crate::core::Core;
use crate::fault::Reason;
use crate::ids::RequestId;
use crate::io::{Instant, Net};
use crate::plan::{ListenerId, ListenerPlan};
use crate::policy::{Facts, Flow, State, StepRequest, StepVerdict};
use crate::tls::TlsParameters;

/// The client of a connection or flow.
#[derive(Clone, Copy)]
pub(super) struct RelayClient {
    /// Its address; `None` if it is not known.
    pub(super) address: Option<SocketAddr>,
    /// The parameters of its TLS connection, if Weir ends TLS.
    pub(super) tls: Option<TlsParameters>,
}

impl RelayClient {
    pub(super) fn ip(self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// Runs the steps of a listener. Returns what they keep until the connection or flow ends, such as its place under
/// `concurrency`.
///
/// # Errors
/// A policy refuses the client; `record` has the policy.
pub(super) fn run_steps<N: Net>(
    core: &Core<N>,
    states: &[Rc<State>],
    (listener, plan): (ListenerId, &ListenerPlan),
    client: RelayClient,
    record: &mut RelayRecord,
) -> Result<Facts, Reason> {
    let mut facts = Facts {
        client: client.ip(),
        is_https: client.tls.is_some(),
        ..Facts::default()
    };
    if plan.steps.is_empty() {
        return Ok(facts);
    }
    let head = Head::default();
    let request = StepRequest {
        peer: client.address,
        tls: client.tls,
        listener,
        now: core.net.now(),
        wall_ms: core.net.wall_ms(),
        ..no_request(&head)
    };
    for step in &plan.steps {
        // The steps of listeners never wait.
        if let Flow::Reply(reply) = step.step.run(step.state(states), &request, &mut facts) {
            record.policy = Some(step.step.kind());
            return Err(reply.reason.unwrap_or(Reason::Internal));
        }
    }
    record.would_refuse = facts.would_refuse;
    Ok(facts)
}

/// What the steps of a listener would do with a connection or flow of this client.
pub fn explain_steps(plan: &ListenerPlan, client: Option<IpAddr>) -> Vec<StepVerdict> {
    let mut facts = Facts {
        client,
        ..Facts::default()
    };
    let head = Head::default();
    let mut verdicts = Vec::new();
    for step in &plan.steps {
        let verdict = step.step.explain(&no_request(&head), &mut facts);
        let ends = verdict.status().is_some();
        let kind = step.step.kind();
        verdicts.push(StepVerdict { kind, verdict });
        if ends {
            break;
        }
    }
    verdicts
}

fn no_request(head: &Head) -> StepRequest<'_> {
    StepRequest {
        head,
        block: &[],
        hop: &NO_REQUEST,
        peer: None,
        tls: None,
        listener: ListenerId(0),
        route: None,
        pattern: 0,
        path: &[],
        sent_path: &[],
        id: RequestId(0, 0),
        given_id: &[],
        now: Instant::default(),
        wall_ms: 0,
    }
}

/// The values that steps see in place of a request. They count by the client's address or not at all: the file has checked
/// that.
static NO_REQUEST: Request = Request {
    method: Method::Other,
    version: Version::Http11,
    body: BodyKind::None,
    expects_continue: false,
    upgrade: None,
    leaves_http: false,
    accepts_trailers: false,
    keeps_alive: false,
};
