//! Sub-requests: requests of Weir's own to an upstream.
//!
//! A sub-request is an [`Exchange`] whose client is memory ([`InnerStream`]). It makes the same attempts as a client's
//! request, with the upstream's pools, limits, timeouts and retries, but follows no route and runs no policy. So it
//! cannot cause another sub-request. If it reaches this Weir again, Via shows that, and Weir refuses it.

use std::rc::Rc;

use weir_proto_h1::{BodyKind, Version};

use super::exchange_waiter::ExchangeWaiter;
use super::replay::Replay;
use super::{CorePlan, Exchange, ExchangeBuffers};
use crate::conn::{ClientSide, ConnectionContext, HeadBuffer, InnerStream};
use crate::core::{CallPermit, Core, MirroredBytes, Timer, guarded, report_panic};
use crate::fault::{Fault, Reason};
use crate::io::{Chunk, Instant, Net};
use crate::obs;
use crate::policy::{Call, CallAnswer};
use crate::upstream::Waiter;

impl<N: Net> Exchange<'_, N> {
    /// Sends a sub-request and waits for its answer. The inner result is the call's own: a call that fails does not end
    /// the exchange. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The exchange must end: its client has gone, its time is over, memory is short, or the core stops.
    pub(super) async fn call(
        &mut self,
        call: Box<Call>,
    ) -> Result<Result<CallAnswer, Reason>, Fault> {
        let Some(permit) = self.core.calls.begin_awaited() else {
            self.core.obs.borrow().call_dropped();
            return Ok(Err(Reason::CallLimit));
        };
        let (core, plan) = (self.core, self.plan);
        let (context, timer) = (self.down.context, self.down.timer);
        let mut digits = [0; 32];
        let id = self.record.id_text(self.down.block, &mut digits).into();
        let caller = Caller {
            context,
            timer: Some(timer),
            id: Some(id),
            copy: None,
        };
        // In a box: few requests make calls, and every exchange would hold the memory.
        let mut calling = Box::pin(run(core, plan, caller, call, permit));
        let mut waiter = ExchangeWaiter {
            exchange: self,
            replay: &Replay::default(),
        };
        let called = waiter.until(Instant::NEVER, |cx| calling.as_mut().poll(cx));
        Ok(called.await?.unwrap_or(Err(Reason::TotalTimeout)))
    }
}

/// Sends the copy of a request in a task of its own, and drops the answer. It ends at the latest with the core,
/// and no attempt is repeated. Returns whether it was sent: a core runs a bounded number of them, and counts those that it
/// drops.
pub(super) fn detach<N: Net>(
    core: &Rc<Core<N>>,
    plan: Rc<CorePlan<N>>,
    context: &ConnectionContext,
    call: Box<Call>,
    copy: CopiedBody,
) -> bool {
    let permit = core.calls.begin_detached();
    let Some(permit) = permit.filter(|_| !core.is_stopping()) else {
        core.obs.borrow().call_dropped();
        return false;
    };
    let (its_core, context) = (core.clone(), context.clone());
    core.net.spawn(async move {
        let core = &its_core;
        core.share.renew();
        let caller = Caller {
            context: &context,
            timer: None,
            id: None,
            copy: Some(copy),
        };
        let calling = Box::pin(run(core, &plan, caller, call, permit));
        // The counters of the upstream have the outcome.
        if let Err(panic) = guarded(core, calling).await {
            report_panic(core, &*panic);
        }
    });
    true
}

/// The request that a call is made for.
struct Caller<'a> {
    context: &'a ConnectionContext,
    /// The owner of the timer pays for the call's memory; `None` if the call is detached.
    timer: Option<&'a Timer>,
    /// The id of the request, which the server gets too.
    id: Option<Box<[u8]>>,
    /// The body of a copied request, whose head has all that Weir adds to it.
    copy: Option<CopiedBody>,
}

/// The body of a copied request.
pub(super) struct CopiedBody {
    /// `Length`, or `None` for no body.
    pub(super) kind: BodyKind,
    pub(super) pieces: Vec<Chunk>,
    /// Whether the client's `TE` accepts trailers.
    pub(super) accepts_trailers: bool,
    /// Lives until the copy has ended.
    pub(super) held: MirroredBytes,
}

/// Makes one call.
async fn run<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    caller: Caller<'_>,
    call: Box<Call>,
    _permit: CallPermit,
) -> Result<CallAnswer, Reason> {
    let Call {
        upstream,
        request,
        timeout,
        body,
        body_bytes_max,
    } = *call;
    let timer = core.timers.timer();
    if let Some(payer) = caller.timer {
        timer.charge_to(payer);
    }
    let (head, block) = request.into_parts();
    let pool = core.net.pool();
    let mut stream = InnerStream::new(head.method, (body, body_bytes_max), pool);
    let is_copy = caller.copy.is_some();
    let _held = caller.copy.map(|copy| {
        stream.set_body(copy.kind, copy.pieces, copy.accepts_trailers);
        copy.held
    });
    let mut request = HeadBuffer {
        head,
        block: pool.copy(&block),
    };
    drop(block);
    let mut buffers = ExchangeBuffers::new(None);
    if !is_copy {
        buffers
            .to_upstream
            .append_own(Version::Http11, &plan.plan, caller.id.as_deref());
    }
    let down = ClientSide::inner(caller.context, &timer, &mut request, &mut stream);
    let mut exchange = Exchange::begin(core, (plan, None), down, &mut buffers);
    exchange.deadline = core.net.now() + timeout;
    exchange.is_copy = is_copy;
    let served = exchange.forward(None, upstream).await;
    // If the head of an answer has arrived, the caller gets it, and learns why the rest did not.
    exchange.record.reason = served.err().map(|fault| fault.reason);
    exchange.report_call();
    let failure = exchange.record.reason;
    stream
        .into_answer(failure)
        .ok_or_else(|| failure.unwrap_or(Reason::Internal))
}

impl<N: Net> Exchange<'_, N> {
    /// Hands the event of a sub-request to the counters of its upstream and endpoint. No log has it.
    fn report_call(&self) {
        let event = obs::ExchangeEvent {
            grpc_status: self.facts.is_grpc_call.then(|| self.record.grpc_outcome()),
            ..self
                .record
                .event(self.core.net.now(), self.down.context.listener.id.get())
        };
        let obs = self.core.obs.borrow();
        obs.call(&self.plan.plan, &self.plan.endpoints, &event);
    }
}

#[cfg(test)]
mod tests;
