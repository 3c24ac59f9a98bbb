//! Attempts of an exchange: which endpoint, over which connection, and what a failure means for the next one.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::forward::Forwarded;
use super::record::Record;
use super::relay::{Relay, Relayed, Replay};
use crate::conn::{Down, Up, tunnel};
use crate::core::{Core, CorePlan, after};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Address, Instant, Net};
use crate::plan::{RoutePlan, UpstreamId, UpstreamPlan};
use crate::upstream::{Endpoint, Held, Need, Permit, Tried, Turn, Upstream};

/// What the attempts of one exchange have in common.
struct Way<'a, N: Net> {
    core: &'a Rc<Core<N>>,
    plan: &'a UpstreamPlan,
    route: &'a RoutePlan,
    upstream: &'a Upstream<N>,
    total: Instant,
    tried: Tried,
    replay: Replay,
    /// A connection that had waited was found dead: the next attempt makes its own.
    fresh: bool,
    /// The last attempt failed before a byte of the request was sent, or only met a dead connection.
    free: bool,
}

/// Sends the request to an endpoint of the upstream, to another one if that fails and may be repeated, and relays the
/// answer.
pub(super) async fn forward<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    down: &mut Down<N>,
    record: &mut Record,
    route: &RoutePlan,
    upstream: UpstreamId,
) -> Result<(), Fault> {
    let internal = Fault::local(Phase::Route, Reason::Internal);
    let upstream_plan = plan.plan.upstream(upstream).ok_or(internal)?;
    let upstream = plan.upstreams.get(upstream.0 as usize).ok_or(internal)?;
    prepare(plan, down, record, route);
    let now = core.net.now();
    upstream.budget.request(now);
    let mut way = Way {
        core,
        plan: upstream_plan,
        route,
        upstream,
        total: after(now, route.timeouts.total),
        tried: Tried::default(),
        replay: Replay::default(),
        fresh: false,
        free: false,
    };
    loop {
        match way.attempt(down, record).await {
            Ok(()) => return Ok(()),
            Err(fault) if way.may_repeat(down, record, fault) => {
                core.obs.borrow().retry(upstream.id());
                way.back_off(down, record).await;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// What the request gains and loses on its way; the same for all attempts.
fn prepare<N: Net>(plan: &CorePlan<N>, down: &mut Down<N>, record: &Record, route: &RoutePlan) {
    let with = Forwarded {
        trusted: record.trusted,
        peer: down.peer(),
        scheme: "http",
        id: record.id,
    };
    down.added
        .forward(&mut down.head, &down.block, &plan.plan, &with);
    if let Some(rewrite) = &route.rewrite {
        down.text.clear();
        rewrite.apply(down.head.path_or_root(&down.block), &mut down.text);
        down.added.edits.set_path(&down.text);
    }
}

impl<N: Net> Way<'_, N> {
    async fn attempt(&mut self, down: &mut Down<N>, record: &mut Record) -> Result<(), Fault> {
        self.free = false;
        let need = Need {
            fresh: self.fresh,
            sure: !down.head.method.is_idempotent(),
        };
        let turn = poll_fn(|cx| Poll::Ready(self.upstream.take(cx, &self.tried, need))).await;
        let (index, turn) = match turn {
            Some(turn) => turn,
            // In a box: few wait, and each connection would hold what it takes.
            None => Box::pin(self.wait(need, down, record)).await?,
        };
        self.tried.add(index);
        record.endpoint = Some(index);
        record.attempts += 1;
        let Some(endpoint) = self.upstream.endpoints.get(index as usize) else {
            return Err(Fault::local(Phase::Connect, Reason::Internal));
        };
        let (held, reused) = match turn {
            Turn::Reuse(held) => (held, true),
            Turn::Connect(permit) => {
                let connected = self.connect(endpoint, permit, down, record).await;
                (connected.inspect_err(|_| self.free = true)?, false)
            }
        };
        if down.head.authority.is_empty() {
            // HTTP/1.0 may name no host; the endpoint is asked by its own.
            let host = match &endpoint.address {
                Address::Ip(address) => address.to_string(),
                Address::Unix(_) => "localhost".to_owned(),
            };
            down.added.edits.set_authority(host.as_bytes());
        }
        let mut up = Up::new(
            self.core,
            held,
            reused,
            self.plan.limits,
            mem::take(&mut down.up_head),
        );
        let relayed = self.relay(&mut up, down, record).await;
        if let Err(fault) = &relayed
            && fault.side == Side::Upstream
            && up.was_stale()
        {
            (self.fresh, self.free) = (true, true);
        }
        match relayed {
            Ok(Relayed::Response) => {
                down.up_head = mem::take(&mut up.head);
                up.finish(self.core, endpoint);
                Ok(())
            }
            Ok(Relayed::Switched) => {
                let (sent, received) = tunnel(self.core, down, up, self.route.timeouts.idle).await;
                record.bytes_in += sent;
                record.bytes_out += received;
                Ok(())
            }
            Err(fault) => {
                down.up_head = mem::take(&mut up.head);
                Err(fault)
            }
        }
    }

    async fn relay(
        &mut self,
        up: &mut Up<N>,
        down: &mut Down<N>,
        record: &mut Record,
    ) -> Result<Relayed, Fault> {
        up.request(down.request(), &down.head, &down.block, &down.added.edits)?;
        let mut relay = Relay::new(
            self.core,
            down,
            up,
            record,
            &mut self.replay,
            self.route,
            self.total,
        );
        relay.resend()?;
        poll_fn(|cx| relay.poll(cx)).await
    }

    /// Waits in the upstream's queue, for as long as the exchange may wait in all, and while the client is there.
    async fn wait(
        &self,
        need: Need,
        down: &mut Down<N>,
        record: &mut Record,
    ) -> Result<(u32, Turn<N>), Fault> {
        let fault = |reason| Fault::local(Phase::Connect, reason);
        let core = self.core;
        if self.upstream.endpoints.is_empty() {
            return Err(fault(Reason::NoEndpoint));
        }
        let waited = Duration::from_nanos(record.queue_ns);
        let began = core.net.now();
        let deadline = began + self.route.timeouts.queue.saturating_sub(waited);
        let place = self.upstream.wait(&self.tried);
        let mut place = place.ok_or_else(|| fault(Reason::UpstreamLimit))?;
        down.timer.set(self.total.min(deadline));
        let turn = poll_fn(|cx| {
            down.timer.watch(cx);
            if let Poll::Ready((index, turn)) = place.poll(cx) {
                return Poll::Ready(match self.upstream.endpoints.get(index as usize) {
                    Some(endpoint) => Ok((index, endpoint.accept(cx, turn, need))),
                    None => Err(fault(Reason::Internal)),
                });
            }
            down.poll_watch(cx, core)?;
            if down.is_cut_short() {
                let gone = Fault::downstream(Phase::Connect, Reason::ClientClosed);
                return Poll::Ready(Err(gone));
            }
            let late = core.net.now() >= deadline;
            match self
                .is_over()
                .or_else(|| late.then(|| fault(Reason::QueueTimeout)))
            {
                Some(fault) => Poll::Ready(Err(fault)),
                None => Poll::Pending,
            }
        })
        .await;
        record.queue_ns += core.net.now().since(began).as_nanos() as u64;
        turn
    }

    /// Makes a connection within its time.
    async fn connect(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: Permit<N>,
        down: &Down<N>,
        record: &mut Record,
    ) -> Result<Held<N>, Fault> {
        let core = self.core;
        let began = core.net.now();
        let deadline = began + self.route.timeouts.connect;
        let failed = |reason| Fault::upstream(Phase::Connect, reason, Retry::Always);
        down.timer.set(self.total.min(deadline));
        let mut connecting = pin!(core.net.connect(&endpoint.address));
        let connected = poll_fn(|cx| {
            down.timer.watch(cx);
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(|_| failed(Reason::ConnectFailed)));
            }
            let over = self.is_over();
            let late = core.net.now() >= deadline;
            match over.or_else(|| late.then(|| failed(Reason::ConnectTimeout))) {
                Some(fault) => Poll::Ready(Err(fault)),
                None => Poll::Pending,
            }
        })
        .await;
        record.connect_ns += core.net.now().since(began).as_nanos() as u64;
        match connected {
            Ok(connection) => Ok(permit.hold(connection)),
            Err(fault) => {
                permit.failed();
                Err(fault)
            }
        }
    }

    /// Whether time is over for an exchange that has no connection yet.
    fn is_over(&self) -> Option<Fault> {
        let reason = if self.core.is_stopping() {
            Reason::ShuttingDown
        } else if self.core.net.now() >= self.total {
            Reason::TotalTimeout
        } else {
            return None;
        };
        Some(Fault::local(Phase::Connect, reason))
    }

    /// Whether the exchange may try once more after this fault.
    fn may_repeat(&self, down: &Down<N>, record: &Record, fault: Fault) -> bool {
        if down.is_answered() || !self.replay.is_whole() || self.core.is_stopping() {
            return false;
        }
        let harmless = match fault.retry {
            Retry::Never => false,
            Retry::Always => true,
            Retry::IfIdempotent => down.head.method.is_idempotent(),
        };
        if !harmless || self.core.net.now() >= self.total {
            return false;
        }
        let retry = &self.route.retry;
        let tries = record.attempts;
        match fault.phase {
            // Nothing was sent: every endpoint may be asked, as nginx does it.
            Phase::Connect if retry.retries_max > 0 => {
                (tries as usize)
                    < self
                        .upstream
                        .endpoints
                        .len()
                        .max(1 + retry.retries_max as usize)
            }
            // An idle connection that was dead is no failure of the endpoint's: it costs no budget.
            _ if self.free && retry.retries_max > 0 => tries <= 1 + retry.retries_max,
            _ => tries <= retry.retries_max && self.upstream.budget.retry(retry),
        }
    }

    /// Waits before another attempt where the same endpoint is asked again.
    async fn back_off(&self, down: &Down<N>, record: &Record) {
        if self.free && (self.fresh || (record.attempts as usize) < self.upstream.endpoints.len()) {
            return;
        }
        let backoff = self.route.retry.backoff;
        let jittered = backoff.mul_f64(0.5 + fastrand::f64());
        let until = self.total.min(self.core.net.now() + jittered);
        down.timer.until(&self.core.net, until).await;
    }
}
