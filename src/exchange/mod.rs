//! One request and its response, from the complete head to the event that reports it.
//!
//! `Exchange` owns all that one exchange needs. `Exchange::serve` reads like the life of a request. Decisions are
//! plain functions of the plan and the head; `Relay` moves the bytes.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod attempts;
mod balance_key;
mod call;
mod core_plan;
mod early_steps;
mod error_page;
mod exchange_buffers;
mod exchange_record;
mod exchange_waiter;
mod failures;
mod filtering;
mod grpc;
mod guarded;
mod hedging;
mod learned_cookie;
mod logged_fields;
mod mirror;
mod pace;
mod pipeline;
mod relay;
mod replay;
mod reply;
mod request_edits;
mod request_id;
mod retry_after;
mod split;
mod sticky;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_proto_h1::{BodyKind, EditsMark, FieldId, Head, Version};

use crate::conn::{ClientSide, RequestPart, TunnelEnd};
use crate::core::Core;
use crate::fault::{Fault, Phase, Reason, Side};
use crate::io::{Chunk, Instant, Net};
use crate::limits::{LINGER_MS, UNREAD_BYTES_MAX};
use crate::obs;
use crate::plan::{
    Decision, DecisionBuffers, KnownClaims, ListenerId, ListenerPlan, Plan, REDIRECT_HTTPS_STATUS,
    RequestHead, RouteId, RouteTarget, is_grpc,
};
use crate::policy::Facts;
use crate::policy::filter::Chain;
use early_steps::{Decided, EarlySteps};
use exchange_record::ExchangeRecord;
use pipeline::StepsBegun;
use reply::Reply;

pub use core_plan::CorePlan;
pub use exchange_buffers::ExchangeBuffers;
pub use reply::{refuse_connection, report_turned_away};

/// How a client's connection goes on after an exchange.
pub enum AfterExchange {
    /// It takes the next request.
    Next,
    /// It closes in an orderly way.
    Close,
    /// Weir resets it, so that the client sees that its answer is not complete.
    Abort,
}

/// One request and its response.
struct Exchange<'a, N: Net> {
    core: &'a Rc<Core<N>>,
    /// The plan that was current when the exchange began.
    plan: &'a CorePlan<N>,
    down: ClientSide<'a, N>,
    /// The memory that the connection's exchanges share, with the edits of both directions.
    buffers: &'a mut ExchangeBuffers,
    /// The mark in `to_client` that ends the edits of every answer to this request. The edits of one answer follow it.
    common_edits: EditsMark,
    /// The mark in `to_upstream` that ends Weir's own edits of the request. Those of the steps follow it.
    request_end: EditsMark,
    /// The listener's place in `plan`.
    listener: ListenerId,
    route: Option<RouteId>,
    facts: Facts,
    steps_begun: StepsBegun,
    /// What has run before the route was known. `None` for most requests.
    early: Option<Box<EarlySteps<'a>>>,
    /// Whether fields with odd names pass to the endpoint.
    keeps_odd_names: bool,
    record: ExchangeRecord,
    /// When the exchange must be over.
    deadline: Instant,
    /// The plan of a client's request, for copies of it, which may outlive the exchange.
    shared_plan: Option<&'a Rc<CorePlan<N>>>,
    /// It sends a copy of another request.
    is_copy: bool,
}

/// Serves the request whose head is in `down`.
pub async fn run<N: Net>(
    core: &Rc<Core<N>>,
    plan: Rc<CorePlan<N>>,
    down: ClientSide<'_, N>,
    buffers: &mut ExchangeBuffers,
) -> AfterExchange {
    let mut exchange = Exchange::new(core, &plan, down, buffers);
    let after = exchange.serve().await;
    exchange.report();
    after
}

/// Answers a request whose head is invalid or late. `down` has the part that was parsed.
pub async fn refuse<N: Net>(
    core: &Rc<Core<N>>,
    plan: Rc<CorePlan<N>>,
    down: ClientSide<'_, N>,
    buffers: &mut ExchangeBuffers,
    fault: Fault,
) -> AfterExchange {
    let mut exchange = Exchange::new(core, &plan, down, buffers);
    let after = exchange.fail(fault, None).await;
    exchange.report();
    after
}

impl<'a, N: Net> Exchange<'a, N> {
    /// Begins an exchange and counts it.
    fn new(
        core: &'a Rc<Core<N>>,
        plan: &'a Rc<CorePlan<N>>,
        down: ClientSide<'a, N>,
        buffers: &'a mut ExchangeBuffers,
    ) -> Self {
        core.obs.borrow().exchange_started();
        Self::begin(core, (plan, Some(plan)), down, buffers)
    }

    /// Begins an exchange that is not counted as a client's.
    #[inline(always)] // A call would copy the whole exchange.
    fn begin(
        core: &'a Rc<Core<N>>,
        (plan, shared_plan): (&'a CorePlan<N>, Option<&'a Rc<CorePlan<N>>>),
        down: ClientSide<'a, N>,
        buffers: &'a mut ExchangeBuffers,
    ) -> Self {
        buffers.to_client.clear();
        let now = core.net.now();
        Self {
            core,
            plan,
            common_edits: buffers.to_client.mark(),
            buffers,
            request_end: EditsMark::default(),
            listener: down.context.listener.id.get(),
            route: None,
            steps_begun: StepsBegun::default(),
            early: None,
            facts: Facts {
                client: down.context.ip(),
                is_grpc_call: is_grpc(down.head, down.block),
                ..Facts::default()
            },
            keeps_odd_names: false,
            record: ExchangeRecord::new(core.next_id(), now, core.net.wall_ms()),
            deadline: Instant::NEVER,
            shared_plan,
            is_copy: false,
            down,
        }
    }

    /// Finds out who the client is, decides what to do with the request, and does it.
    async fn serve(&mut self) -> AfterExchange {
        self.facts.identity.clone_from(&self.down.context.identity);
        self.enforce_fields();
        if self.facts.trusts_peer {
            self.record.given_id = request_id::take_given(self.down.head, self.down.block);
        }
        let mut allow = None;
        let decided = match self.run_listener_steps() {
            Some(reply) => Ok(Decided::Answer(reply)),
            None => match self.decide() {
                // In a box: few routes ask for claims.
                Decision::NeedsClaims(id) => Box::pin(self.decide_by_claims(id)).await,
                decision => Ok(Decided::ByPlan(decision)),
            },
        };
        let served = match decided {
            Ok(Decided::Answer(reply)) => self.reply(Reply::Step(reply)).await,
            Ok(Decided::ByPlan(decision)) => match decision {
                Decision::RedirectHttps => match self.run_steps_without_route() {
                    Some(reply) => self.reply(Reply::Step(reply)).await,
                    None => self.reply(Reply::Redirect(REDIRECT_HTTPS_STATUS)).await,
                },
                Decision::Route(id) => self.follow_route(id).await,
                Decision::NeedsClaims(_) => Err(Fault::local(Phase::Route, Reason::Internal)),
                Decision::Refuse(refusal) => {
                    self.route = refusal.route;
                    allow = refusal.allow;
                    match self.run_steps_without_route() {
                        Some(reply) => self.reply(Reply::Step(reply)).await,
                        None => Err(Fault::local(Phase::Route, refusal.reason)),
                    }
                }
            },
            Err(fault) => Err(fault),
        };
        match served {
            Ok(()) => self.finish().await,
            Err(fault) => self.fail(fault, allow).await,
        }
    }

    /// Asks the plan what to do with the request.
    #[inline]
    fn decide(&mut self) -> Decision {
        self.ask_plan(|plan, listener, request, buffers| plan.decide(listener, request, buffers))
    }

    /// Calls `ask` with the plan and what it decides by.
    #[inline]
    fn ask_plan<T>(
        &mut self,
        ask: impl FnOnce(&Plan, &ListenerPlan, &RequestHead<'_>, &mut DecisionBuffers) -> T,
    ) -> T {
        let down = &self.down;
        let early = self.early.as_deref();
        let request = RequestHead {
            head: down.head,
            block: down.block,
            hop: down.request(),
            client: self.facts.identity.as_deref(),
            address: self.facts.client,
            listener: self.listener,
            claims: early.map_or(KnownClaims::NONE, EarlySteps::claims),
            is_https: self.facts.is_https,
        };
        let listener = down.context.listener.plan.borrow();
        let plan = &self.plan.plan;
        ask(plan, &listener, &request, &mut self.buffers.decision)
    }

    /// Does what the route says, unless one of its policies answers.
    async fn follow_route(&mut self, id: RouteId) -> Result<(), Fault> {
        self.route = Some(id);
        let route = self.plan.plan.route(id);
        let route = route.ok_or(Fault::local(Phase::Route, Reason::Internal))?;
        if !route.steps.is_empty()
            && let Some(reply) = self.run_route_steps(route).await?
        {
            return self.reply(Reply::Step(reply)).await;
        }
        match &route.target {
            RouteTarget::Upstream(upstream) => self.forward(Some(route), *upstream).await,
            // In a box: few routes are split.
            RouteTarget::Split(split) => Box::pin(self.forward_split(split)).await,
            RouteTarget::Redirect(redirect) => self.reply(Reply::Redirect(redirect.status)).await,
            RouteTarget::Respond(respond) => self.reply(Reply::Fixed(respond)).await,
        }
    }

    /// Ends an exchange whose answer was sent. The connection stays open if no part of the request is left to read.
    async fn finish(&mut self) -> AfterExchange {
        if !self.down.is_received() && self.down.request().keeps_alive && !self.down.is_http2() {
            self.read_rest_of_body().await;
        }
        self.after_answer()
    }

    fn after_answer(&mut self) -> AfterExchange {
        match self.down.finish() {
            true => AfterExchange::Next,
            false => AfterExchange::Close,
        }
    }

    /// Begins the edits of one answer. Drops the edits of an earlier answer that could not be written.
    fn begin_answer(&mut self) {
        self.buffers.to_client.rewind(self.common_edits);
    }

    /// Adds the fields that every answer gets, relayed or Weir's own: the date and the id of the request, then what the
    /// policies say. Removes any other id from `head`. `block` holds `head`, and `body` follows. Returns the filters that
    /// policies have for the body.
    //= rfc9110#6.6.1
    // A relayed answer without Date gets the time at which it was received.
    fn complete_answer(
        &mut self,
        head: &mut Head,
        block: &[u8],
        body: BodyKind,
    ) -> Option<Box<Chain>> {
        if !head.may_have(FieldId::Date) {
            self.buffers
                .to_client
                .append_fixed("Date", &self.core.date());
        }
        if self.shows_request_id() {
            self.append_request_id();
            head.remove(FieldId::XRequestId);
        }
        match self.has_answer_steps() {
            true => self.edit_answer(head, block, body),
            false => None,
        }
    }

    /// Ends an exchange that failed. If no answer has begun, sends one, with `allow` as the value of its `Allow` field.
    async fn fail(&mut self, fault: Fault, allow: Option<String>) -> AfterExchange {
        self.record.reason = Some(fault.reason);
        let is_gone = fault.side == Side::Downstream
            && matches!(fault.reason, Reason::ClientClosed | Reason::ClientStalled);
        if is_gone && self.record.status == 0 {
            self.record.status = fault.reason.status();
        }
        if is_gone {
            return AfterExchange::Abort;
        }
        if self.down.is_answered() {
            return self.break_off(fault.reason).await;
        }
        if self.down.is_idle() {
            return AfterExchange::Close;
        }
        let problem = Reply::Problem {
            reason: fault.reason,
            allow,
        };
        match self.reply(problem).await {
            Ok(()) => self.after_answer(),
            Err(_) => AfterExchange::Abort,
        }
    }

    /// Ends an answer that has begun and will stay incomplete. A gRPC client gets trailers that say why, if the queued
    /// messages leave within [`LINGER_MS`]. Other clients get a reset of the stream or connection.
    async fn break_off(&mut self, reason: Reason) -> AfterExchange {
        let status = self.record.grpc_status.filter(|_| self.down.is_http2());
        let Some(status) = status else {
            return AfterExchange::Abort;
        };
        let ended = self.down.send_end(&grpc::make_trailers(status, reason));
        let patience = Duration::from_millis(LINGER_MS);
        match ended.is_ok() && self.flush(patience).await.is_ok() {
            true => AfterExchange::Next,
            false => AfterExchange::Abort,
        }
    }

    /// Discards the part of the body that has arrived, without waiting for more. If that was the whole rest of the
    /// body, the connection stays open.
    async fn discard_received_body(&mut self) {
        poll_fn(|cx| {
            while !self.down.is_received()
                && matches!(
                    self.down.poll_body(cx, self.core),
                    Poll::Ready(Ok(RequestPart::Data(_)))
                )
            {}
            Poll::Ready(())
        })
        .await;
    }

    /// Reads the rest of a body that the answer did not wait for. If the rest is short and arrives soon, the connection
    /// stays open, as the answer has promised.
    async fn read_rest_of_body(&mut self) {
        let (core, down) = (self.core, &mut self.down);
        let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
        down.timer.set(deadline);
        let mut discarded = 0;
        poll_fn(|cx| {
            down.timer.watch(cx);
            while let Poll::Ready(piece) = down.poll_body(cx, core) {
                match piece {
                    Ok(RequestPart::Data(data)) if discarded < UNREAD_BYTES_MAX => {
                        discarded += data.len();
                    }
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

    /// Sends the bytes queued for the client. Fails if the client takes none of them for `patience`.
    async fn flush(&mut self, patience: Duration) -> Result<(), Fault> {
        let (core, down) = (self.core, &mut self.down);
        let mut deadline = core.net.now() + patience;
        down.timer.set(deadline);
        let (mut is_last, mut let_past) = (false, 0);
        poll_fn(|cx| {
            down.timer.watch(cx);
            if core.is_stopping() && !is_last {
                // The answer that reports the stop gets a moment to leave: few sends complete at once.
                is_last = true;
                deadline = deadline.min(core.net.now() + Duration::from_millis(LINGER_MS));
                down.timer.set(deadline);
            }
            match down.poll_send(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => {
                    Poll::Ready(Err(Fault::downstream(Phase::Body, Reason::ClientClosed)))
                }
                Poll::Pending if down.holds_too_much(core, || down.held()) => {
                    Poll::Ready(Err(Fault::local(Phase::Body, Reason::MemoryLimit)))
                }
                Poll::Pending if core.net.now() >= deadline => {
                    // While the connection sends other streams first, the client does not stall.
                    let past = down.progress().saturating_sub(down.sent());
                    if is_last || past <= let_past {
                        let stalled = Fault::downstream(Phase::Body, Reason::ClientStalled);
                        return Poll::Ready(Err(stalled));
                    }
                    let_past = past;
                    deadline = core.net.now() + patience;
                    down.timer.set(deadline);
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Hands the event of the exchange to counters and log, and releases what the request held.
    fn report(&mut self) {
        self.collect_logged_fields();
        let (core, down) = (self.core, &self.down);
        let (head, block) = (&*down.head, &down.block[..]);
        let (path, query) = logged_fields::target(head, block);
        let field = |id| head.value(id, block).unwrap_or_default();
        let identity = self.facts.identity.as_ref();
        let claims = self.facts.claims.as_deref();
        let event = obs::ExchangeEvent {
            client: self.facts.client,
            method: head.method_span.get(block),
            host: head.host(block),
            given_id: self.record.given_id.get(block),
            path,
            query,
            version: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            tls: down.context.tls,
            sni: down.context.sni.as_deref().unwrap_or_default().as_bytes(),
            client_cert: identity.map_or(&[], |client| client.subject.as_bytes()),
            subject: claims
                .and_then(|claims| claims.member("sub")?.as_text())
                .map_or(&[], str::as_bytes),
            user_agent: field(FieldId::UserAgent),
            referer: field(FieldId::Referer),
            fields: &self.buffers.logged,
            route: self.route,
            would_refuse: self.facts.would_refuse,
            grpc_status: self.facts.is_grpc_call.then(|| self.record.grpc_outcome()),
            ..self
                .record
                .event(core.net.now(), down.context.listener.id.get())
        };
        let obs = core.obs.borrow();
        obs.exchange(&self.plan.plan, &self.plan.endpoints, &event);
        drop(obs);
        if self.record.fields_dropped > 0 {
            core.obs.borrow().fields_dropped(self.record.fields_dropped);
        }
        self.buffers.up_block = Chunk::default();
        if core.is_memory_short() {
            down.timer.release_held();
        }
    }
}
