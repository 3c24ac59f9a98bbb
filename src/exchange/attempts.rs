//! The attempts of an exchange: it chooses an endpoint, tries it, judges the answer or the failure, and tries again.

use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_proto_h1::{FieldId, Head};

use super::exchange_record::ExchangeRecord;
use super::exchange_waiter::ExchangeWaiter;
use super::failures::{Failure, Failures, Repeat};
use super::mirror::MirrorCopy;
use super::relay::{Relay, Relayed};
use super::replay::Replay;
use super::{Exchange, grpc, retry_after};
use crate::conn::{ResponsePart, tunnel};
use crate::core::{Core, after};
use crate::fault::{Fault, Phase, Reason, Side};
use crate::io::{Address, Instant, Net};
use crate::limits::UNREAD_BYTES_MAX;
use crate::plan::{RetryPlan, RoutePlan, Timeouts, UpstreamId, UpstreamPlan, is_grpc};
use crate::policy::errors::ErrorPage;
use crate::upstream::{
    ConnectFailure, ConnectionNeed, ConnectionOffer, Connector, Endpoint, EndpointLease,
    EndpointSide, RequestInFlight, StickySession, TriedEndpoints, Upstream, Waiter,
};

/// The verdict on an answer, from its head.
pub(super) enum Heard<'a> {
    /// The client gets it.
    Pass,
    /// Another attempt follows.
    Retry(Repeat),
    /// The client gets this page in its place.
    Replace(&'a ErrorPage),
}

/// How an attempt ended without a fault.
enum Attempted {
    /// The client has an answer.
    Answered,
    /// Another attempt follows.
    Rejected(Repeat),
}

/// How an attempt failed.
struct AttemptFailure {
    fault: Fault,
    /// The endpoint may only have closed an idle connection.
    was_stale: bool,
}

impl From<Fault> for AttemptFailure {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            was_stale: false,
        }
    }
}

/// The attempts of one exchange: their common settings and their outcomes so far.
pub(super) struct Attempts<'a, N: Net> {
    pub(super) plan: &'a UpstreamPlan,
    /// The route of a client's request; `None` for a sub-request, which goes by the upstream's own rules.
    pub(super) route: Option<&'a RoutePlan>,
    /// The rules of repeated attempts.
    retry: &'a RetryPlan,
    pub(super) upstream: &'a Upstream<N>,
    pub(super) tried: TriedEndpoints,
    /// The hash of the request's key, if the balancer reads one.
    pub(super) key: Option<u64>,
    /// The client's session; `None` unless the upstream is sticky.
    pub(super) session: Option<StickySession>,
    pub(super) replay: Replay,
    pub(super) failures: Failures,
    /// The current attempt uses an endpoint connection that serves this client's connection alone.
    is_bound: bool,
    /// The endpoint of a second attempt that has taken the place of the first.
    pub(super) hedged: Option<RequestInFlight<N>>,
    /// The copy of the request for another upstream, while its body arrives.
    pub(super) mirror: Option<Box<MirrorCopy>>,
}

impl<'a, N: Net> Exchange<'a, N> {
    /// Sends the request to an endpoint of the upstream and relays the answer. If an attempt fails and may be repeated,
    /// makes another. A sub-request has no route, and its caller has prepared it.
    pub(super) async fn forward(
        &mut self,
        route: Option<&'a RoutePlan>,
        upstream: UpstreamId,
    ) -> Result<(), Fault> {
        let internal = Fault::local(Phase::Route, Reason::Internal);
        self.record.upstream = Some(upstream);
        let plan = self.plan.plan.upstream(upstream).ok_or(internal)?;
        let upstream = self.plan.upstreams.get(upstream.0 as usize);
        let upstream = upstream.ok_or(internal)?;
        let patience = self.facts.is_grpc_call;
        let patience = patience.then(|| grpc::timeout(self.down.head, self.down.block));
        if let Some(route) = route {
            self.prepare_request(route);
        }
        let now = self.core.net.now();
        let guarded = upstream.admit(now);
        let guarded = guarded.map_err(|reason| Fault::local(Phase::Connect, reason))?;
        upstream.budget.count_request(now);
        let mut attempts = Attempts {
            plan,
            route,
            retry: match route {
                Some(route) => &route.retry,
                None if self.is_copy => &RetryPlan::NEVER,
                None => &plan.retry,
            },
            upstream,
            tried: TriedEndpoints::default(),
            key: self.balance_key(plan, route),
            session: self.sticky_session(upstream),
            replay: Replay::default(),
            failures: Failures::default(),
            is_bound: false,
            hedged: None,
            mirror: None,
        };
        let began = self.record.began;
        let total = after(began, attempts.timeouts().total);
        self.deadline = self
            .deadline
            .min(total)
            .min(after(began, patience.flatten()));
        let ended = attempts.make(self).await;
        if attempts.mirror.is_some() {
            attempts.drop_mirror(self);
        }
        if let Some(guarded) = guarded {
            self.finish_guarded(guarded, &ended);
        }
        ended
    }

    /// Fails if the client has cancelled. An HTTP/2 client may reset its stream while the request is queued or waits
    /// for a connection.
    fn check_client_waits(&self) -> Result<(), Fault> {
        self.down.why_gone().map_or(Ok(()), Err)
    }

    /// Whether the request has credentials that authenticate the connection.
    pub(super) fn authenticates(&self) -> bool {
        let credentials = self
            .down
            .head
            .value(FieldId::Authorization, self.down.block);
        credentials.is_some_and(weir_proto_h1::authenticates_connection)
    }

    /// Whether the endpoint has accepted such credentials for all later requests on the connection. IIS answers
    /// `Persistent-Auth: true` then.
    fn is_authenticated(&self, up: &EndpointSide<N>) -> bool {
        let field = |name| up.head.find_name(name, &up.block);
        self.authenticates()
            && field(b"Persistent-Auth")
                .is_some_and(|field| !field.value.get(&up.block).eq_ignore_ascii_case(b"false"))
    }

    /// Keeps the head of an answer for the log, and the head's memory for the next answer.
    fn keep_head(&mut self, up: &mut EndpointSide<N>) {
        mem::swap(&mut self.buffers.up_head, &mut up.head);
        self.buffers.up_block = mem::take(&mut up.block);
    }
}

impl<'a, N: Net> Attempts<'a, N> {
    /// The time limits of the attempts.
    #[inline]
    pub(super) fn timeouts(&self) -> &'a Timeouts {
        self.route
            .map_or(&self.plan.timeouts, |route| &route.timeouts)
    }

    /// The rules of repeated attempts.
    #[inline]
    pub(super) fn retry(&self) -> &'a RetryPlan {
        self.retry
    }

    /// Whether the rules allow to repeat a request with this method that an endpoint may have processed.
    #[inline]
    pub(super) fn may_repeat(&self, exchange: &Exchange<'a, N>) -> bool {
        self.retry().may_repeat(exchange.down.head.method)
    }

    /// Whether policies may filter the request's body.
    #[inline]
    pub(super) fn has_steps(&self) -> bool {
        self.route.is_some_and(|route| !route.steps.is_empty())
    }

    /// The largest request body, bytes.
    #[inline]
    pub(super) fn body_bytes_max(&self) -> Option<u64> {
        self.route.and_then(|route| route.body_bytes_max)
    }

    /// Makes attempts until the client has an answer, or none follows.
    async fn make(&mut self, exchange: &mut Exchange<'a, N>) -> Result<(), Fault> {
        loop {
            let repeat = match self.attempt(exchange).await {
                Ok(Attempted::Answered) => return Ok(()),
                Ok(Attempted::Rejected(repeat)) => repeat,
                Err(AttemptFailure { fault, was_stale }) => {
                    if !was_stale {
                        self.count_failure(exchange, fault);
                    } else if let Some(session) = &mut self.session {
                        session.stay();
                    }
                    let may_repeat = self.may_repeat(exchange);
                    let retry = self.retry();
                    let failure = Failure::classify(fault, was_stale, may_repeat, retry);
                    self.repeat_after(exchange, failure).ok_or(fault)?
                }
            };
            exchange.core.obs.borrow().retry(self.upstream.id());
            if repeat == Repeat::AfterBackoff {
                self.back_off(exchange).await?;
            }
        }
    }

    /// Makes one attempt.
    async fn attempt(
        &mut self,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<Attempted, AttemptFailure> {
        exchange.check_client_waits()?;
        let (endpoint, lease) = self.lease(exchange).await?;
        let head = mem::take(&mut exchange.buffers.up_head);
        let mut up = lease.begin(self.plan.limits, head);
        let relayed = self.relay(&mut up, exchange).await;
        let endpoint = self.hedged.take().unwrap_or(endpoint);
        if relayed.is_ok() {
            let status = status_of(exchange, &up.head, &up.block);
            let eject = self.plan.eject.as_ref();
            self.upstream.record_answer(&endpoint, eject, status);
        }
        match relayed {
            Ok(Relayed::Answered) => {
                self.bind(&mut up, &endpoint, exchange);
                exchange.keep_head(&mut up);
                up.finish(exchange.core, &endpoint);
                Ok(Attempted::Answered)
            }
            Ok(Relayed::Rejected(repeat)) => {
                endpoint.observe_failure(exchange.core.net.now());
                exchange.keep_head(&mut up);
                if poll_fn(|cx| Poll::Ready(drop_received_answer(&mut up, cx, exchange.core))).await
                {
                    up.finish(exchange.core, &endpoint);
                }
                Ok(Attempted::Rejected(repeat))
            }
            Ok(Relayed::Replaced(page)) => {
                self.bind(&mut up, &endpoint, exchange);
                exchange.keep_head(&mut up);
                // In a box: few answers are replaced.
                Box::pin(exchange.replace_answer(page, up, &endpoint)).await?;
                Ok(Attempted::Answered)
            }
            Ok(Relayed::Switched) => {
                exchange.keep_head(&mut up);
                let passed =
                    tunnel(exchange.core, &mut exchange.down, up, self.timeouts().idle).await;
                exchange.record.bytes_in += passed.sent;
                exchange.record.bytes_out += passed.received;
                match passed.is_stalled {
                    true => Err(Fault::downstream(Phase::Body, Reason::ClientStalled).into()),
                    false => Ok(Attempted::Answered),
                }
            }
            Err(fault) => {
                let has_begun = exchange.down.is_answered() && is_grpc(&up.head, &up.block);
                exchange.record.grpc_status =
                    has_begun.then(|| grpc::status_of_broken(fault.reason, up.reset_by()));
                exchange.record.errno = up.errno();
                exchange.keep_head(&mut up);
                let was_stale = fault.reason == Reason::UpstreamClosed && up.was_stale();
                Err(AttemptFailure { fault, was_stale })
            }
        }
    }

    /// Binds the endpoint's connection to the client's, if the endpoint authenticates connections. The connection then
    /// has this client's identity, which no other client may use.
    fn bind(
        &self,
        up: &mut EndpointSide<N>,
        endpoint: &Rc<Endpoint<N>>,
        exchange: &mut Exchange<'a, N>,
    ) {
        if !up.is_unbound() {
            return;
        }
        if !(up.challenges_connection() || exchange.is_authenticated(up)) {
            // The endpoint may have accepted unasked credentials without saying so.
            if endpoint.authenticates() && exchange.authenticates() {
                up.forsake();
            }
            return;
        }
        let bindings = exchange.buffers.bindings.get_or_insert_default();
        match self.upstream.bind(bindings, endpoint) {
            Some(bound) => up.bind(bound),
            None => up.forsake(),
        }
    }

    /// Counts an attempt that failed because of its endpoint.
    pub(super) fn count_failure(&self, exchange: &Exchange<'a, N>, fault: Fault) {
        let record = &exchange.record;
        if let (Side::Upstream, Some(endpoint)) = (fault.side, self.endpoint(record)) {
            endpoint.count_failure(fault.reason, record.errno);
            endpoint.observe_failure(exchange.core.net.now());
            let eject = self.plan.eject.as_ref();
            self.upstream.record_fault(endpoint, eject, fault);
        }
    }

    /// The endpoint that was tried last.
    fn endpoint(&self, record: &ExchangeRecord) -> Option<&Rc<Endpoint<N>>> {
        self.upstream.endpoints.get(record.endpoint? as usize)
    }

    /// Records for the balancer how long the endpoint took to begin an answer with this status.
    #[inline]
    pub(super) fn observe(&self, record: &ExchangeRecord, status: u16, now: Instant) {
        if self.upstream.endpoints.len() < 2 {
            return;
        }
        if let Some(endpoint) = self.endpoint(record) {
            match status {
                // The endpoint, or what stands behind it, is overloaded or broken.
                502..=504 => endpoint.observe_failure(now),
                _ => endpoint.observe_latency(record.first_byte_time, now),
            }
        }
    }

    /// Chooses an endpoint and gets a connection or stream to it. If all are at their limit, the request waits.
    async fn lease(
        &mut self,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<(RequestInFlight<N>, EndpointLease<N>), Fault> {
        let need = self.need(exchange);
        let offered = poll_fn(|cx| Poll::Ready(self.take_offer(cx, need, exchange)));
        let (mut index, offer) = match offered.await {
            Some(offered) => offered,
            // In a box: few requests wait, and every exchange would hold the memory.
            None => Box::pin(self.wait(need, exchange)).await?,
        };
        let mut offer = Some(offer);
        exchange.record.attempts += 1;
        exchange.record.errno = 0;
        let connector = self.connector(exchange);
        loop {
            self.tried.add(index);
            exchange.record.endpoint = Some(index);
            let endpoint = self.upstream.endpoints.get(index as usize).cloned();
            let endpoint = endpoint.ok_or(Fault::local(Phase::Connect, Reason::Internal))?;
            let endpoint = RequestInFlight::begin(endpoint);
            let is_reuse = |offer: &mut _| matches!(offer, ConnectionOffer::Reuse(_));
            if let Some(ConnectionOffer::Reuse(leased)) = offer.take_if(is_reuse) {
                // Most requests come here. The connector's future would copy the connection several times more.
                let is_reused = true;
                return Ok((endpoint, EndpointLease::Connection { leased, is_reused }));
            }
            let (mut waiter, mut spent) = (self.waiter(exchange), Duration::ZERO);
            let lease = connector
                .lease(&endpoint, &mut offer, need, &mut waiter, &mut spent)
                .await;
            exchange.record.connect_time += spent;
            match lease {
                Ok(Some(lease)) => return Ok((endpoint, lease)),
                Ok(None) => {
                    let waited = Box::pin(self.wait(need, exchange)).await?;
                    index = waited.0;
                    offer = Some(waited.1);
                }
                Err(ConnectFailure { fault, errno }) => {
                    exchange.record.errno = errno;
                    return Err(fault);
                }
            }
        }
    }

    /// What the exchange needs of a connection.
    pub(super) fn need(&self, exchange: &Exchange<'a, N>) -> ConnectionNeed {
        ConnectionNeed {
            owner: self.plan.proxy_protocol.and(exchange.down.context.address),
            must_be_fresh: self.failures.has_met_stale(),
            must_recheck: !self.may_repeat(exchange),
            switches_protocols: exchange.down.request().upgrade.is_some(),
            is_raw: false,
        }
    }

    /// Opens connections for the exchange.
    pub(super) fn connector(&self, exchange: &Exchange<'a, N>) -> Connector<'a, N> {
        Connector {
            core: exchange.core,
            plan: self.plan,
            listener: &exchange.down.context.listener,
            timeout: self.timeouts().connect,
        }
    }

    /// Takes the offer of an endpoint: one with a connection that serves this client alone, else the endpoint that the
    /// client belongs to, else the next in turn.
    fn take_offer(
        &mut self,
        cx: &mut Context<'_>,
        need: ConnectionNeed,
        exchange: &Exchange<'a, N>,
    ) -> Option<(u32, ConnectionOffer<N>)> {
        let bindings = exchange.buffers.bindings.as_deref();
        let own = bindings.and_then(|own| self.upstream.take_bound(cx, own, need.must_recheck));
        self.is_bound = own.is_some();
        let sticky = || {
            let session = self.session.as_mut()?;
            self.upstream.take_sticky(cx, session, &self.tried, need)
        };
        own.or_else(sticky)
            .or_else(|| self.upstream.take_offer(cx, &self.tried, self.key, need))
    }

    /// Sends the request's head and moves both bodies.
    async fn relay(
        &mut self,
        up: &mut EndpointSide<N>,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<Relayed<'a>, Fault> {
        exchange.check_client_waits()?;
        if let Some(index) = exchange.record.endpoint {
            self.edit_for(index, exchange);
        }
        if exchange.facts.is_mirrored {
            self.begin_mirror(exchange);
        }
        if self.retry().retries_max == 0 {
            // The body will not be sent again.
            self.replay.forget();
        }
        let mut relay = Relay::new(exchange, up, self);
        relay.begin()?;
        poll_fn(|cx| relay.poll(cx)).await
    }

    /// Makes the edits of the request that depend on its endpoint.
    pub(super) fn edit_for(&self, index: u32, exchange: &mut Exchange<'a, N>) {
        let endpoint = self.upstream.endpoints.get(index as usize);
        if let Some(route) = self.route
            && !route.steps.is_empty()
            && let Some(endpoint) = endpoint
        {
            exchange.edit_request(route, &self.plan.name, &endpoint.address);
        }
        let has_host = self.route.is_some_and(|route| route.host.is_some());
        if exchange.down.head.authority.is_empty()
            && !has_host
            && let Some(endpoint) = endpoint
        {
            // An HTTP/1.0 request need not name a host. The endpoint gets its own address as the host.
            let host = match &endpoint.address {
                Address::Ip(address) => address.to_string(),
                Address::Unix(_) => "localhost".to_owned(),
            };
            exchange
                .buffers
                .to_upstream
                .edits
                .set_authority(host.as_bytes());
        }
        if self.session.is_some() {
            exchange.hide_mark(self.upstream);
        }
    }

    /// Waits in the upstream's queue. All waits of the exchange together last at most `timeouts.queue`.
    async fn wait(
        &self,
        need: ConnectionNeed,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<(u32, ConnectionOffer<N>), Fault> {
        let fault = |reason| Fault::local(Phase::Connect, reason);
        if !self.upstream.has_usable() {
            let is_empty = self.upstream.endpoints.is_empty();
            return Err(fault(if is_empty && self.upstream.has_unresolved() {
                Reason::Unresolved
            } else {
                Reason::NoEndpoint
            }));
        }
        let waited = exchange.record.queue_time;
        let began = exchange.core.net.now();
        let deadline = began + self.timeouts().queue.saturating_sub(waited);
        let place = self.upstream.enqueue(&self.tried);
        let mut place = place.ok_or_else(|| fault(Reason::UpstreamLimit))?;
        let mut waiter = self.waiter(exchange);
        let offer = waiter.until(deadline, |cx| {
            let (index, offer) = ready!(place.poll_offer(cx));
            let endpoint = self.upstream.endpoints.get(index as usize);
            Poll::Ready(endpoint.map(|endpoint| (index, endpoint.accept_offer(cx, offer, need))))
        });
        let offer = offer.await;
        exchange.record.queue_time += exchange.core.net.now().since(began);
        let offer = offer?.ok_or_else(|| fault(Reason::QueueTimeout))?;
        offer.ok_or_else(|| fault(Reason::Internal))
    }

    fn waiter<'w>(&'w self, exchange: &'w mut Exchange<'a, N>) -> ExchangeWaiter<'w, 'a, N> {
        ExchangeWaiter {
            exchange,
            replay: &self.replay,
        }
    }

    /// Judges an answer by its head, before the client sees any of it.
    #[inline]
    pub(super) fn judge_head(
        &mut self,
        exchange: &Exchange<'a, N>,
        head: &Head,
        block: &[u8],
    ) -> Heard<'a> {
        let status = status_of(exchange, head, block);
        if status >= 400
            && let Some(repeat) = self.repeat_after_answer(exchange, status, head, block)
        {
            return Heard::Retry(repeat);
        }
        let errors = self.route.map(|route| &route.errors);
        let page = errors.and_then(|errors| errors.find_for_relayed(head.status));
        let page = page.and_then(|page| exchange.if_possible(page));
        page.map_or(Heard::Pass, Heard::Replace)
    }

    /// How to repeat the attempt after an answer with this status. `None`: the client gets the answer.
    #[cold]
    fn repeat_after_answer(
        &mut self,
        exchange: &Exchange<'a, N>,
        status: u16,
        head: &Head,
        block: &[u8],
    ) -> Option<Repeat> {
        let core = exchange.core;
        if matches!(status, 429 | 503)
            && let Some(pause) = retry_after::read(head, block, core.net.wall_ms())
            && let Some(index) = exchange.record.endpoint
            && let Some(endpoint) = self.upstream.endpoints.get(index as usize)
        {
            endpoint.leave_alone_until(core.net.now() + pause);
        }
        let may_repeat = self.may_repeat(exchange);
        let failure = Failure::classify_status(status, may_repeat, self.retry());
        self.repeat_after(exchange, failure?)
    }

    /// How to repeat the attempt after this failure. `None`: the exchange fails.
    fn repeat_after(&mut self, exchange: &Exchange<'a, N>, failure: Failure) -> Option<Repeat> {
        if exchange.down.is_answered()
            || !self.replay.is_whole()
            || exchange.core.is_stopping()
            || exchange.core.net.now() >= exchange.deadline
        {
            return None;
        }
        if self.is_bound && exchange.authenticates() {
            // The credentials are valid only on that connection.
            return None;
        }
        if failure != Failure::NotConnected {
            self.tried.note_retry(exchange.core.net.now());
            // The client's own endpoint may be the only one, and drain.
            let stays = self.session.as_ref().is_some_and(StickySession::stays);
            if !stays && !self.upstream.may_retry(&self.tried) {
                return None;
            }
        }
        let (retry, budget) = (self.retry(), &self.upstream.budget);
        let has_untried = self.upstream.has_untried(&self.tried);
        self.failures
            .repeat_after(failure, retry, has_untried, || budget.take_retry(retry))
    }

    /// Waits before the next attempt: the route's backoff, give or take half.
    async fn back_off(&self, exchange: &mut Exchange<'a, N>) -> Result<(), Fault> {
        let backoff = self.retry().backoff;
        let until = exchange.core.net.now() + backoff.mul_f64(0.5 + fastrand::f64());
        let mut waiter = self.waiter(exchange);
        let waited = waiter.until(until, |_| Poll::<()>::Pending);
        waited.await.map(|_| ())
    }
}

/// The status by which an answer is judged.
#[inline]
pub(super) fn status_of<N: Net>(exchange: &Exchange<'_, N>, head: &Head, block: &[u8]) -> u16 {
    match exchange.facts.is_grpc_call {
        true => grpc::status_of_answer(head, block),
        false => head.status,
    }
}

/// Drops the body of an answer that the client does not get, as far as it has arrived. Returns whether that was all of
/// it. If not, closing the connection is cheaper than waiting for the rest.
fn drop_received_answer<N: Net>(
    up: &mut EndpointSide<N>,
    cx: &mut Context<'_>,
    core: &Core<N>,
) -> bool {
    let mut dropped = 0;
    while dropped <= UNREAD_BYTES_MAX {
        match up.poll_response(cx, core) {
            Poll::Ready(Ok(ResponsePart::Data(data))) => dropped += data.len(),
            Poll::Ready(Ok(ResponsePart::End)) => return true,
            _ => return false,
        }
    }
    false
}
