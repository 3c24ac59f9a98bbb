//! One request and its response: what happens to it, from the complete head to the event that reports it.
//!
//! [`run`] reads top to bottom like the life of a request. Decisions are plain functions of the plan and the head;
//! the bytes move in `relay`.

mod attempt;
mod core_plan;
mod forward;
mod grpc;
mod identity;
mod local;
mod logged;
mod pace;
mod record;
mod relay;
mod repeat;
mod request_id;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_proto_h1::{FieldId, Version};

use crate::conn::{Down, End, Piece};
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Side};
use crate::io::{Chunk, Net};
use crate::limits::{LINGER_MS, SMALL_ANSWER_BYTES, UNREAD_BYTES_MAX};
use crate::obs;
use crate::plan::{Decision, Plan, REDIRECT_HTTPS_STATUS, RequestHead, RouteId, Target, is_grpc};
use record::Record;

pub use core_plan::CorePlan;
pub use forward::Added;
pub use local::{refuse_connection, turn_away};

/// What becomes of a client's connection after an exchange.
pub enum After {
    /// It takes the next request.
    Next,
    /// It is closed in an orderly way.
    Close,
    /// It is broken off, so that the client sees that something is missing.
    Abort,
}

/// Serves the request whose head is in `down`.
pub async fn run<N: Net>(
    core: &Rc<Core<N>>,
    plan: Rc<CorePlan<N>>,
    down: &mut Down<'_, N>,
) -> After {
    let mut record = begin(core, &plan.plan, down);
    let served = match decide(&plan.plan, down, &record) {
        Decision::RedirectHttps => {
            down.kit.edits.append("Location", &*down.kit.paths.sent);
            answer(core, down, &mut record, REDIRECT_HTTPS_STATUS, &[]).await
        }
        Decision::Route(id) => {
            record.route = Some(id);
            serve(core, &plan, down, &mut record, id).await
        }
        Decision::Refuse(refusal) => {
            record.route = refusal.route;
            if let Some(allow) = refusal.allow {
                down.kit.edits.append("Allow", allow);
            }
            Err(Fault::local(Phase::Route, refusal.reason))
        }
    };
    if served.is_ok() && !down.is_received() && down.request().keeps_alive && !down.is_http2() {
        rest_of_body(core, down).await;
    }
    let after = match served {
        Ok(()) if down.finish() => After::Next,
        Ok(()) => After::Close,
        Err(fault) => fail(core, &plan, down, &mut record, fault).await,
    };
    report(core, &plan.plan, down, &record);
    after
}

/// Answers a request whose head was not understood, or did not come in time. What was understood of it is in `down`.
pub async fn refuse<N: Net>(
    core: &Rc<Core<N>>,
    plan: Rc<CorePlan<N>>,
    down: &mut Down<'_, N>,
    fault: Fault,
) -> After {
    let mut record = start(core, down);
    let after = fail(core, &plan, down, &mut record, fault).await;
    report(core, &plan.plan, down, &record);
    after
}

/// Counts an exchange that starts, and makes its record.
fn start<N: Net>(core: &Core<N>, down: &mut Down<'_, N>) -> Record {
    down.kit.edits.clear();
    core.obs.borrow().exchange_started();
    let mut record = Record::new(
        core.next_id(),
        core.net.now(),
        core.net.wall_ms(),
        down.kit.peer,
    );
    record.is_call = is_grpc(&down.kit.head, &down.kit.block);
    record
}

fn begin<N: Net>(core: &Core<N>, plan: &Plan, down: &mut Down<'_, N>) -> Record {
    let mut record = start(core, down);
    record.identity.clone_from(&down.kit.identity);
    forward::enforce(plan, down, &mut record);
    if record.trusted {
        record.given_id = request_id::take_given(&mut down.kit.head, &down.kit.block);
    }
    record
}

/// Asks the plan what becomes of the request.
fn decide<N: Net>(plan: &Plan, down: &mut Down<'_, N>, record: &Record) -> Decision {
    let hop = *down.request();
    let kit = &mut *down.kit;
    let request = RequestHead {
        head: &kit.head,
        block: &kit.block,
        hop: &hop,
        client: record.identity.as_deref(),
        is_https: record.is_https,
    };
    plan.decide(&kit.door.plan.borrow(), &request, &mut kit.paths)
}

/// Does what the route says.
async fn serve<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    id: RouteId,
) -> Result<(), Fault> {
    let route = plan
        .plan
        .route(id)
        .ok_or(Fault::local(Phase::Route, Reason::Internal))?;
    match &route.target {
        Target::Upstream(upstream) => {
            record.upstream = Some(*upstream);
            attempt::forward(core, plan, down, record, route, *upstream).await
        }
        Target::Redirect(redirect) => {
            down.kit.edits.append("Location", &*down.kit.paths.sent);
            answer(core, down, record, redirect.status, &[]).await
        }
        Target::Respond(respond) => {
            if let Some(content_type) = &respond.content_type {
                down.kit.edits.append("Content-Type", &**content_type);
            }
            for (name, value) in &respond.headers {
                down.kit.edits.append(&**name, &**value);
            }
            answer(core, down, record, respond.status, &respond.body).await
        }
    }
}

/// Answers by itself; `down.kit.edits` has the fields.
async fn answer<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    status: u16,
    body: &[u8],
) -> Result<(), Fault> {
    if body.len() > SMALL_ANSWER_BYTES && !core.has_memory() {
        return Err(Fault::local(Phase::Route, Reason::MemoryLimit));
    }
    forget_body(core, down).await;
    local::write(core, down, record, status, body)?;
    let patience = down.kit.door.plan.borrow().timeouts.body_stall;
    flush(core, down, patience).await
}

/// Ends an exchange that failed: with an answer if that is still possible.
async fn fail<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    fault: Fault,
) -> After {
    record.reason = Some(fault.reason);
    let is_gone = fault.side == Side::Downstream
        && matches!(fault.reason, Reason::ClientClosed | Reason::ClientStalled);
    if is_gone && record.status == 0 {
        record.status = fault.reason.status();
    }
    if is_gone {
        return After::Abort;
    }
    if down.is_answered() {
        return break_off(core, down, record, fault.reason).await;
    }
    if down.is_idle() {
        return After::Close;
    }
    if fault.phase != Phase::Route {
        down.kit.edits.clear();
    }
    let answered = if down.is_http2() && record.is_call {
        grpc::problem(fault.reason, &mut down.kit.edits);
        answer(core, down, record, 200, &[]).await
    } else {
        let mut digits = [0; 32];
        let id = record.id_text(&down.kit.block, &mut digits);
        let problem = local::problem(fault.reason, id, &plan.plan.via, &mut down.kit.edits);
        answer(core, down, record, problem.status, &problem.body).await
    };
    if answered.is_err() {
        return After::Abort;
    }
    if down.finish() {
        After::Next
    } else {
        After::Close
    }
}

/// Ends an answer that has begun and will not be whole. A call of gRPC hears why, behind what it has of messages, where
/// there is room for that within a moment; all others see the stream or connection break off.
async fn break_off<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut Down<'_, N>,
    record: &Record,
    reason: Reason,
) -> After {
    let Some(status) = record.grpc_status.filter(|_| down.is_http2()) else {
        return After::Abort;
    };
    let ended = down.send_end(&grpc::trailers(status, reason));
    let patience = Duration::from_millis(LINGER_MS);
    match ended.is_ok() && flush(core, down, patience).await.is_ok() {
        true => After::Next,
        false => After::Abort,
    }
}

/// Takes in what has come of a body that nobody wants, without waiting for more: when that is all of it, the
/// connection can go on.
async fn forget_body<N: Net>(core: &Rc<Core<N>>, down: &mut Down<'_, N>) {
    poll_fn(|cx| {
        while !down.is_received()
            && matches!(down.poll_body(cx, core), Poll::Ready(Ok(Piece::Data(_))))
        {}
        Poll::Ready(())
    })
    .await;
}

/// Reads a body on whose end the answer has not waited, if it is short and comes soon: then the connection can go on,
/// as the client expects who was not told otherwise.
async fn rest_of_body<N: Net>(core: &Rc<Core<N>>, down: &mut Down<'_, N>) {
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    down.kit.timer.set(deadline);
    let mut forgotten = 0;
    poll_fn(|cx| {
        down.kit.timer.watch(cx);
        while let Poll::Ready(piece) = down.poll_body(cx, core) {
            match piece {
                Ok(Piece::Data(data)) if forgotten < UNREAD_BYTES_MAX => forgotten += data.len(),
                _ => return Poll::Ready(()),
            }
        }
        if core.is_draining() || core.net.now() >= deadline {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Sends what was written to the client.
async fn flush<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut Down<'_, N>,
    patience: Duration,
) -> Result<(), Fault> {
    let mut deadline = core.net.now() + patience;
    down.kit.timer.set(deadline);
    let (mut is_last, mut let_past) = (false, 0);
    poll_fn(|cx| {
        down.kit.timer.watch(cx);
        if core.is_stopping() && !is_last {
            // The answer that says so gets a moment to leave: hardly any send is done at once.
            is_last = true;
            deadline = deadline.min(core.net.now() + Duration::from_millis(LINGER_MS));
            down.kit.timer.set(deadline);
        }
        match down.poll_send(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => {
                Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)))
            }
            Poll::Pending if down.kit.holds_too_much(core, || down.held()) => {
                Poll::Ready(Err(Fault::local(Phase::Body, Reason::MemoryLimit)))
            }
            Poll::Pending if core.net.now() >= deadline => {
                // Others that go before it on its connection are no fault of the client's.
                let past = down.progress().saturating_sub(down.sent());
                if is_last || past <= let_past {
                    let stalled = Fault::downstream(Phase::Body, Reason::ClientStalled);
                    return Poll::Ready(Err(stalled));
                }
                let_past = past;
                deadline = core.net.now() + patience;
                down.kit.timer.set(deadline);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Tells the counters and the log, and that the request holds nothing any more.
fn report<N: Net>(core: &Core<N>, plan: &Plan, down: &mut Down<'_, N>, record: &Record) {
    logged::put_fields(&plan.log_fields, down.kit, record.is_relayed);
    let (head, block) = (&down.kit.head, &down.kit.block[..]);
    let (path, query) = logged::target(head, block);
    let field = |id| head.value(id, block).unwrap_or_default();
    let subject = record.identity.as_ref().map(|client| &client.subject);
    let event = obs::ExchangeEvent {
        method: head.method_span.get(block),
        host: head.host(block),
        given_id: record.given_id.get(block),
        path,
        query,
        version: match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        },
        tls: down.kit.agreed,
        sni: down.kit.sni.as_deref().unwrap_or_default().as_bytes(),
        client_cert: subject.map_or(&[], |subject| subject.as_bytes()),
        user_agent: field(FieldId::UserAgent),
        referer: field(FieldId::Referer),
        fields: &down.kit.logged,
        ..record.event(core.net.now(), down.kit.door.id.get())
    };
    core.obs.borrow().exchange(plan, &event);
    if record.fields_dropped > 0 {
        core.obs.borrow().fields_dropped(record.fields_dropped);
    }
    down.kit.up_block = Chunk::default();
    if core.is_tight() {
        down.kit.timer.let_go();
    }
}
