//! One request and its response: what happens to it, from the complete head to the event that reports it.
//!
//! [`run`] reads top to bottom like the life of a request. Decisions are plain functions of the plan and the head;
//! the bytes move in [`relay`].

mod attempt;
mod forward;
mod local;
mod pace;
mod record;
mod relay;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use weir_proto_h1::target::host_port;
use weir_proto_h1::{Method, Version};

use crate::conn::{Down, Piece};
use crate::core::{Core, CorePlan};
use crate::fault::{Fault, Phase, Reason, Side};
use crate::io::Net;
use crate::obs;
use crate::plan::{Plan, RouteId, Target, UpstreamId};
use crate::route::Found;
use record::Record;

pub use forward::Added;
pub use local::refuse_connection;

/// What becomes of a client's connection after an exchange.
pub enum After {
    /// It takes the next request.
    Next,
    /// It is closed in an orderly way.
    Close,
    /// It is broken off, so that the client sees that something is missing.
    Abort,
}

/// What the plan says about a request.
enum Decision {
    Forward(RouteId, UpstreamId),
    Answer(RouteId),
    NotAllowed(String),
}

/// Serves the request whose head is in `down`.
pub async fn run<N: Net>(core: &Rc<Core<N>>, down: &mut Down<N>) -> After {
    let plan = core.plan();
    let mut record = begin(core, &plan.plan, down);
    let served = match decide(&plan.plan, down, &mut record) {
        Ok(Decision::Forward(route, upstream)) => {
            attempt::forward(core, &plan, down, &mut record, route, upstream).await
        }
        Ok(Decision::Answer(route)) => answer(core, &plan.plan, down, &mut record, route).await,
        Ok(Decision::NotAllowed(allow)) => {
            down.edits.append("Allow", allow);
            Err(Fault::local(Phase::Route, Reason::MethodNotAllowed))
        }
        Err(fault) => Err(fault),
    };
    let after = match served {
        Ok(()) if down.finish() => After::Next,
        Ok(()) => After::Close,
        Err(fault) => fail(core, &plan, down, &mut record, fault).await,
    };
    report(core, &plan.plan, down, &record);
    after
}

/// Answers a request whose head was not understood, or did not come in time.
pub async fn refuse<N: Net>(core: &Rc<Core<N>>, down: &mut Down<N>, fault: Fault) {
    let plan = core.plan();
    let mut record = Record::new(
        core.next_id(),
        core.net.now(),
        core.net.wall_ms(),
        down.peer(),
    );
    down.edits.clear();
    fail(core, &plan, down, &mut record, fault).await;
    report(core, &plan.plan, down, &record);
}

fn begin<N: Net>(core: &Core<N>, plan: &Plan, down: &mut Down<N>) -> Record {
    down.edits.clear();
    core.obs.borrow().exchange_started();
    let peer = down.peer();
    let trusted = peer.filter(|&peer| plan.trusted_proxies.contains(peer));
    let client = trusted
        .map(|peer| forward::client(&down.head, &down.block, peer, plan))
        .or(peer);
    Record::new(core.next_id(), core.net.now(), core.net.wall_ms(), client)
}

/// Looks the request up in the plan.
fn decide<N: Net>(plan: &Plan, down: &mut Down<N>, record: &mut Record) -> Result<Decision, Fault> {
    if matches!(down.head.method, Method::Connect | Method::Trace) {
        return Err(Fault::local(Phase::Route, Reason::MethodNotAllowed));
    }
    if forward::is_loop(&down.head, &down.block, &plan.via) {
        return Err(Fault::local(Phase::Route, Reason::Loop));
    }
    let view = down
        .scratch
        .view(&down.head, &down.block)
        .map_err(|error| Fault::downstream(Phase::Route, Reason::from_request(error)))?;
    let id = match plan.table.find(&view) {
        Found::Route(id) => id,
        Found::MethodNotAllowed(allow) => return Ok(Decision::NotAllowed(allow)),
        Found::None => return Err(Fault::local(Phase::Route, Reason::NoRoute)),
    };
    record.route = Some(id);
    let route = plan
        .route(id)
        .ok_or(Fault::local(Phase::Route, Reason::Internal))?;
    match route.target {
        Target::Upstream(upstream) => {
            record.upstream = Some(upstream);
            Ok(Decision::Forward(id, upstream))
        }
        Target::Redirect(_) | Target::Respond(_) => Ok(Decision::Answer(id)),
    }
}

/// Answers by the route itself: a redirect or a fixed response.
async fn answer<N: Net>(
    core: &Rc<Core<N>>,
    plan: &Plan,
    down: &mut Down<N>,
    record: &mut Record,
    route: RouteId,
) -> Result<(), Fault> {
    forget_body(core, down).await;
    let route = plan
        .route(route)
        .ok_or(Fault::local(Phase::Route, Reason::Internal))?;
    let (status, body) = match &route.target {
        Target::Redirect(redirect) => {
            let view = down
                .scratch
                .view(&down.head, &down.block)
                .map_err(|error| Fault::downstream(Phase::Route, Reason::from_request(error)))?;
            let mut location = Vec::new();
            redirect.location(&view, &mut location);
            down.edits.append("Location", location);
            (redirect.status, &[][..])
        }
        Target::Respond(respond) => {
            if let Some(content_type) = &respond.content_type {
                down.edits.append("Content-Type", &**content_type);
            }
            for (name, value) in &respond.headers {
                down.edits.append(&**name, &**value);
            }
            (respond.status, &respond.body[..])
        }
        Target::Upstream(_) => return Err(Fault::local(Phase::Route, Reason::Internal)),
    };
    local::write(core, down, record, status, body)?;
    flush(core, down).await
}

/// Ends an exchange that failed: with an answer if that is still possible.
async fn fail<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    down: &mut Down<N>,
    record: &mut Record,
    fault: Fault,
) -> After {
    record.reason = Some(fault.reason);
    let is_gone = fault.side == Side::Downstream
        && matches!(fault.reason, Reason::ClientClosed | Reason::ClientStalled);
    if is_gone || down.machine.is_answered() {
        if !down.machine.is_answered() {
            record.status = fault.reason.status();
        }
        return After::Abort;
    }
    if down.machine.is_idle() {
        return After::Close;
    }
    forget_body(core, down).await;
    if fault.phase != Phase::Route {
        down.edits.clear();
    }
    let answer = local::problem(fault.reason, record.id, &plan.plan.via, &mut down.edits);
    let written = local::write(core, down, record, answer.status, &answer.body);
    if written.is_err() || flush(core, down).await.is_err() {
        return After::Abort;
    }
    if down.finish() {
        After::Next
    } else {
        After::Close
    }
}

/// Takes in what has come of a body that nobody wants, without waiting for more: when that is all of it, the
/// connection can go on.
async fn forget_body<N: Net>(core: &Rc<Core<N>>, down: &mut Down<N>) {
    poll_fn(|cx| {
        while !down.machine.is_received()
            && matches!(down.poll_body(cx, core), Poll::Ready(Ok(Piece::Data(_))))
        {}
        Poll::Ready(())
    })
    .await;
}

/// Sends what was written to the client.
async fn flush<N: Net>(core: &Rc<Core<N>>, down: &mut Down<N>) -> Result<(), Fault> {
    let deadline = core.net.now() + down.pass.door.plan.borrow().timeouts.body_stall;
    down.timer.set(deadline);
    poll_fn(|cx| {
        down.timer.watch(cx);
        match down.out.poll_send(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => {
                Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)))
            }
            Poll::Pending if core.is_stopping() || core.net.now() >= deadline => {
                Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientStalled)))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Tells the counters and the log.
fn report<N: Net>(core: &Core<N>, plan: &Plan, down: &Down<N>, record: &Record) {
    let (head, block) = (&down.head, &down.block[..]);
    let host = host_port(head.authority.get(block)).map_or(&[][..], |host| host.host);
    let microseconds = |ns: u64| ns / 1_000;
    core.obs.borrow().exchange(
        plan,
        &obs::Exchange {
            time_ms: record.time_ms,
            id: record.id,
            client: record.client,
            method: head.method_span.get(block),
            host,
            path: head.target.get(block),
            version: if head.version == Version::Http10 {
                "HTTP/1.0"
            } else {
                "HTTP/1.1"
            },
            status: record.status,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            listener: down.pass.door.id.get(),
            route: record.route,
            upstream: record.upstream,
            endpoint: record.endpoint,
            attempts: record.attempts,
            total_us: microseconds(core.net.now().since(record.began).as_nanos() as u64),
            queue_us: 0,
            connect_us: microseconds(record.connect_ns),
            first_byte_us: microseconds(record.first_byte_ns),
            reason: record.reason,
        },
    );
}
