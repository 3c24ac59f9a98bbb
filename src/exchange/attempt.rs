//! Attempts of an exchange: which endpoint, over which connection, and what a failure means for the next one.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::forward::Forwarded;
use super::record::Record;
use super::relay::{Relay, Relayed, Replay};
use crate::conn::{Down, Up, Wire, WireRx, WireTx, tunnel};
use crate::core::{Core, CorePlan, after};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Address, Connection, Instant, Net};
use crate::plan::{RoutePlan, UpstreamId, UpstreamPlan};
use crate::upstream::{Endpoint, Held, Secure, Tried, Upstream};

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
        record.attempts += 1;
        match way.attempt(down, record).await {
            Ok(()) => return Ok(()),
            Err(fault) if way.may_repeat(down, record, fault) => {
                core.obs.borrow().retry(upstream.id);
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
        scheme: down.scheme(),
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

/// Opens a connection to an endpoint, with all that comes before a request.
async fn open<N: Net>(core: &Rc<Core<N>>, endpoint: &Endpoint<N>) -> Result<Wire<N>, Reason> {
    let connected = core.net.connect(&endpoint.address).await;
    let connection = connected.map_err(|_| Reason::ConnectFailed)?;
    match endpoint.secure() {
        None => Ok(connection.into()),
        // In a box: the handshake is rare, and what it holds is large.
        Some(secure) => Box::pin(shake_hands(core, secure, connection)).await,
    }
}

async fn shake_hands<N: Net>(
    core: &Rc<Core<N>>,
    secure: Secure,
    connection: Connection<N>,
) -> Result<Wire<N>, Reason> {
    let Connection { rx, tx, peer } = connection;
    let begun = secure
        .client
        .connect(&secure.name, (rx, tx), core.net.pool(), &core.gate);
    let (mut rx, tx) = begun.map_err(|_| Reason::Internal)?;
    if poll_fn(|cx| rx.poll_open(cx)).await.is_err() {
        return Err(Reason::from_tls(rx.failure()));
    }
    Ok(Wire {
        rx: WireRx::Tls(rx),
        tx: WireTx::Tls(tx),
        peer,
    })
}

impl<N: Net> Way<'_, N> {
    async fn attempt(&mut self, down: &mut Down<N>, record: &mut Record) -> Result<(), Fault> {
        self.free = false;
        let Some(index) = self.upstream.pick(&self.tried) else {
            return Err(Fault::local(Phase::Connect, Reason::NoEndpoint));
        };
        self.tried.add(index);
        record.endpoint = Some(index);
        let Some(endpoint) = self.upstream.endpoints.get(index as usize) else {
            return Err(Fault::local(Phase::Connect, Reason::Internal));
        };
        let waiting = if self.fresh {
            None
        } else {
            let ask = !down.head.method.is_idempotent();
            poll_fn(|cx| Poll::Ready(endpoint.checkout(cx, ask))).await
        };
        let reused = waiting.is_some();
        let held = match waiting {
            Some(held) => {
                self.core
                    .obs
                    .borrow()
                    .upstream_reused(self.upstream.id, index);
                held
            }
            None => self
                .connect(endpoint, down, record)
                .await
                .inspect_err(|_| self.free = true)?,
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
        up.request(
            down.machine.request(),
            &down.head,
            &down.block,
            &down.added.edits,
        )?;
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

    /// Makes a connection within its time.
    async fn connect(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        down: &Down<N>,
        record: &mut Record,
    ) -> Result<Held<N>, Fault> {
        let core = self.core;
        let Some(permit) = endpoint.permit(core.shared.cores()) else {
            return Err(Fault::upstream(
                Phase::Connect,
                Reason::UpstreamLimit,
                Retry::Always,
            ));
        };
        let began = core.net.now();
        let deadline = self.total.min(began + self.route.timeouts.connect);
        down.timer.set(deadline);
        let mut connecting = pin!(open(core, endpoint));
        let connected = poll_fn(|cx| {
            down.timer.watch(cx);
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            match core.net.now() >= deadline || core.is_stopping() {
                true => Poll::Ready(Err(Reason::ConnectTimeout)),
                false => Poll::Pending,
            }
        })
        .await;
        record.connect_ns += core.net.now().since(began).as_nanos() as u64;
        match connected {
            Ok(wire) => Ok(permit.hold(wire)),
            Err(reason) => {
                permit.failed();
                Err(Fault::upstream(Phase::Connect, reason, Retry::Always))
            }
        }
    }

    /// Whether the exchange may try once more after this fault.
    fn may_repeat(&self, down: &Down<N>, record: &Record, fault: Fault) -> bool {
        if down.machine.is_answered() || !self.replay.is_whole() || self.core.is_stopping() {
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
