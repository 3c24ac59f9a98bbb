//! Attempts of an exchange: which endpoint, over which connection, and what a failure means for the next one.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_proto_h1::FieldId;

use super::record::Record;
use super::relay::{Relay, Relayed, Replay};
use super::repeat::{Failure, Failures, Repeat};
use super::{CorePlan, grpc};
use crate::conn::{Down, Wire, WireRx, WireTx, proxy_protocol, tunnel};
use crate::core::{Core, after};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Address, Connection, Instant, Net, Tx, errno};
use crate::obs::LogLevel;
use crate::plan::{Plan, Protocol, RoutePlan, UpstreamId, UpstreamPlan, is_grpc};
use crate::tls;
use crate::upstream::{Endpoint, Held, Need, Permit, Secure, Tried, Turn, Up, Upstream};

/// What the attempts of one exchange have in common.
struct Way<'a, N: Net> {
    core: &'a Rc<Core<N>>,
    whole: &'a Plan,
    plan: &'a UpstreamPlan,
    route: &'a RoutePlan,
    upstream: &'a Upstream<N>,
    total: Instant,
    tried: Tried,
    replay: Replay,
    /// What has failed so far.
    failures: Failures,
    /// The attempt is on a connection that belongs to the client's.
    is_bound: bool,
}

/// Sends the request to an endpoint of the upstream, to another one if that fails and may be repeated, and relays the
/// answer.
pub(super) async fn forward<N: Net>(
    core: &Rc<Core<N>>,
    plan: &CorePlan<N>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    route: &RoutePlan,
    upstream: UpstreamId,
) -> Result<(), Fault> {
    let internal = Fault::local(Phase::Route, Reason::Internal);
    let upstream_plan = plan.plan.upstream(upstream).ok_or(internal)?;
    let upstream = plan.upstreams.get(upstream.0 as usize).ok_or(internal)?;
    let patience = record
        .is_call
        .then(|| grpc::timeout(&down.kit.head, &down.kit.block))
        .flatten();
    prepare(plan, down, record, route);
    let now = core.net.now();
    upstream.budget.request(now);
    let mut way = Way {
        core,
        whole: &plan.plan,
        plan: upstream_plan,
        route,
        upstream,
        total: after(now, route.timeouts.total).min(after(now, patience)),
        tried: Tried::default(),
        replay: Replay::default(),
        failures: Failures::default(),
        is_bound: false,
    };
    loop {
        let (fault, was_stale) = match way.attempt(down, record).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if !was_stale {
            way.count(record, fault);
        }
        let repeat = way.repeat_after(down, fault, was_stale).ok_or(fault)?;
        core.obs.borrow().retry(upstream.id());
        if repeat == Repeat::AfterBackoff {
            way.back_off(down).await?;
        }
    }
}

/// What the request gains and loses on its way; the same for all attempts.
fn prepare<N: Net>(
    plan: &CorePlan<N>,
    down: &mut Down<'_, N>,
    record: &mut Record,
    route: &RoutePlan,
) {
    super::forward::prepare(&plan.plan, down, record, route);
    if !down.kit.paths.sent.is_empty() {
        down.kit.added.edits.set_path(&down.kit.paths.sent);
    }
}

/// Looks whether anybody still waits for the answer, before an endpoint is asked: a request over HTTP/2 can be taken
/// back while it waits for its turn or for a connection.
fn still_there<N: Net>(down: &Down<'_, N>) -> Result<(), Fault> {
    down.gone().map_or(Ok(()), Err)
}

/// Why no connection to an endpoint could be made, and what the system has said.
struct Refused {
    reason: Reason,
    errno: u16,
}

impl Refused {
    fn by_system(error: io::Error) -> Self {
        Self {
            reason: Reason::from_connect(&error),
            errno: errno(&error),
        }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, errno: 0 }
    }
}

/// Opens a connection to an endpoint, with all that comes before a request.
async fn open<N: Net>(
    core: &Rc<Core<N>>,
    endpoint: &Endpoint<N>,
    said: Option<Vec<u8>>,
    its_own: bool,
) -> Result<Wire<N>, Refused> {
    let mut connected = core.net.connect(&endpoint.address).await;
    if let Err(error) = &connected
        && Reason::from_connect(error) == Reason::NoDescriptors
        && endpoint.close_some_idle() > 0
    {
        connected = core.net.connect(&endpoint.address).await;
    }
    let mut connection = connected.map_err(Refused::by_system)?;
    connection.tx.probe(endpoint.dead_after());
    if let Some(said) = said {
        connection.tx.push(core.net.pool().copy(&said));
    }
    match endpoint.secure() {
        None => Ok(connection.into()),
        // In a box: the handshake is rare, and what it holds is large.
        Some(secure) => {
            let name = &endpoint.name;
            let shaken = Box::pin(shake_hands(core, secure, connection, name, its_own)).await;
            shaken.map_err(Refused::from)
        }
    }
}

async fn shake_hands<N: Net>(
    core: &Rc<Core<N>>,
    secure: Secure,
    connection: Connection<N>,
    name: &str,
    its_own: bool,
) -> Result<Wire<N>, Reason> {
    let Connection { rx, tx, peer } = connection;
    let (pool, handshakes) = (core.net.pool(), &core.handshake_queue);
    let begun = secure
        .client
        .connect(&secure.name, (rx, tx), pool, handshakes, its_own);
    let (mut rx, tx) = begun.map_err(|_| Reason::Internal)?;
    if poll_fn(|cx| rx.poll_open(cx)).await.is_err() {
        core.tell_handshake(LogLevel::Warn, || {
            format!("TLS to endpoint {name} failed: {}", rx.cause())
        });
        return Err(Reason::from_tls(rx.failure()));
    }
    Ok(Wire {
        rx: WireRx::Tls(Box::new(rx)),
        tx: WireTx::Tls(tx),
        peer,
    })
}

/// Whether a request has credentials for the connection that it is sent on.
fn authenticates<N: Net>(down: &Down<'_, N>) -> bool {
    let credentials = down.kit.head.value(FieldId::Authorization, &down.kit.block);
    credentials.is_some_and(weir_proto_h1::authenticates_connection)
}

/// Whether the endpoint says that it has taken such credentials, and that they hold for what follows on the connection
/// (`Persistent-Auth`, which IIS sends).
fn is_authenticated<N: Net>(up: &Up<N>, down: &Down<'_, N>) -> bool {
    authenticates(down)
        && up
            .head
            .find_name(b"Persistent-Auth", &up.block)
            .is_some_and(|field| !field.value.get(&up.block).eq_ignore_ascii_case(b"false"))
}

/// Keeps the head of an answer for the log, and its room for the next one.
fn keep_head<N: Net>(down: &mut Down<'_, N>, up: &mut Up<N>) {
    down.kit.up_head = mem::take(&mut up.head);
    down.kit.up_block = mem::take(&mut up.block);
}

/// Whether HTTP/2 was agreed on in the handshake of a connection.
fn speaks_http2<N: Net>(held: &Held<N>) -> bool {
    let agreed = held.wire.rx.tls_parameters();
    agreed.is_some_and(|agreed| agreed.protocol == tls::AlpnProtocol::Http2)
}

impl<N: Net> Way<'_, N> {
    /// Makes one attempt. A fault comes with whether it may be no more than the end of an idle connection.
    async fn attempt(
        &mut self,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<(), (Fault, bool)> {
        let before = |fault| (fault, false);
        still_there(down).map_err(before)?;
        let (endpoint, mut up) = self.begin(down, record).await.map_err(before)?;
        match self.relay(&mut up, down, record).await {
            Ok(Relayed::Response) => {
                self.bind(&mut up, &endpoint, down);
                keep_head(down, &mut up);
                up.finish(self.core, &endpoint);
                Ok(())
            }
            Ok(Relayed::Switched) => {
                keep_head(down, &mut up);
                let passed = tunnel(self.core, down, up, self.route.timeouts.idle).await;
                record.bytes_in += passed.sent;
                record.bytes_out += passed.received;
                match passed.is_stalled {
                    true => Err(before(Fault::downstream(
                        Phase::Body,
                        Reason::ClientStalled,
                    ))),
                    false => Ok(()),
                }
            }
            Err(fault) => {
                let has_begun = down.is_answered() && is_grpc(&up.head, &up.block);
                record.grpc_status = has_begun.then(|| grpc::broken(fault.reason, up.reset_by()));
                record.errno = up.errno();
                keep_head(down, &mut up);
                let was_stale = fault.reason == Reason::UpstreamClosed && up.was_stale();
                Err((fault, was_stale))
            }
        }
    }

    /// Binds the endpoint's connection to the client's, if the endpoint authenticates connections: nobody else is to have
    /// the identity that it may have now.
    fn bind(&self, up: &mut Up<N>, endpoint: &Rc<Endpoint<N>>, down: &mut Down<'_, N>) {
        if !up.is_unbound() {
            return;
        }
        if !(up.challenges_connection() || is_authenticated(up, down)) {
            // It may have taken credentials that came unasked, and say nothing of it.
            if endpoint.authenticates() && authenticates(down) {
                up.forsake();
            }
            return;
        }
        let bindings = down.kit.bindings.get_or_insert_default();
        match self.upstream.bind(bindings, endpoint) {
            Some(bound) => up.bind(bound),
            None => up.forsake(),
        }
    }

    /// Counts an attempt that has failed at its endpoint. That an idle connection was dead is not one.
    fn count(&self, record: &Record, fault: Fault) {
        let endpoint = record
            .endpoint
            .and_then(|index| self.upstream.endpoints.get(index as usize));
        if let (Side::Upstream, Some(endpoint)) = (fault.side, endpoint) {
            endpoint.count_failure(fault.reason, record.errno);
        }
    }

    /// Chooses an endpoint and gets what the request is sent on.
    async fn begin(
        &mut self,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<(Rc<Endpoint<N>>, Up<N>), Fault> {
        let need = Need {
            owner: self.owner(down),
            fresh: self.failures.met_stale(),
            sure: !down.kit.head.method.is_idempotent(),
            switches: down.request().upgrade.is_some(),
        };
        let bindings = down.kit.bindings.as_deref();
        let turn = poll_fn(|cx| {
            let own = bindings.and_then(|own| self.upstream.take_bound(cx, own, need.sure));
            Poll::Ready(own.or_else(|| self.upstream.take(cx, &self.tried, need)))
        });
        let turn = turn.await;
        self.is_bound = matches!(&turn, Some((_, Turn::Reuse(held))) if held.is_bound());
        let (mut index, mut turn) = match turn {
            Some(turn) => turn,
            // In a box: few wait, and each connection would hold what it takes.
            None => Box::pin(self.wait(need, down, record)).await?,
        };
        record.attempts += 1;
        record.errno = 0;
        loop {
            self.tried.add(index);
            record.endpoint = Some(index);
            let endpoint = self.upstream.endpoints.get(index as usize).cloned();
            let endpoint = endpoint.ok_or(Fault::local(Phase::Connect, Reason::Internal))?;
            let mut has_waited = false;
            match turn {
                Turn::Reuse(held) => {
                    let head = mem::take(&mut down.kit.up_head);
                    let up = Up::http1(self.core, held, true, self.plan.limits, head);
                    return Ok((endpoint, up));
                }
                Turn::Connect(permit) => {
                    let up = self.connected(&endpoint, permit, need, down, record).await;
                    return Ok((endpoint, up?));
                }
                Turn::Join(reservation) => {
                    if endpoint.shares(need)
                        && let Some(reservation) = reservation.confirm()
                    {
                        let head = mem::take(&mut down.kit.up_head);
                        return Ok((endpoint, Up::http2(reservation, head)));
                    }
                }
                Turn::Await => {
                    self.joined(&endpoint, down, record).await?;
                    has_waited = true;
                }
            }
            let again = poll_fn(|cx| Poll::Ready(endpoint.take(cx, need))).await;
            turn = match again {
                // Who made a connection for us has failed: to try at once again would ask as often as there are
                // exchanges.
                Some(Turn::Connect(_))
                    if has_waited
                        && endpoint.protocol.get() == Protocol::Http2
                        && !endpoint.has_shared()
                        && !endpoint.was_abandoned() =>
                {
                    let reason = Reason::ConnectFailed;
                    return Err(Fault::upstream(Phase::Connect, reason, Retry::Always));
                }
                Some(turn) => turn,
                None => {
                    let waited = Box::pin(self.wait(need, down, record)).await?;
                    index = waited.0;
                    waited.1
                }
            };
        }
    }

    /// Makes a connection, for this exchange alone or for others too: what is spoken on it may only now be known.
    async fn connected(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: Permit<N>,
        need: Need,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<Up<N>, Fault> {
        let is_shared = endpoint.shares(need);
        let joiner = is_shared.then(|| endpoint.joiner());
        let held = self.connect(endpoint, permit, need, down, record).await;
        if let (Some(joiner), Err(fault)) = (&joiner, &held)
            && fault.side != Side::Upstream
        {
            joiner.abandon();
        }
        let held = held?;
        if speaks_http2(&held) || (is_shared && !endpoint.is_secure()) {
            let config = self.plan.http2;
            let reservation = endpoint.begin_http2(self.core, held, config, joiner);
            return Ok(Up::http2(reservation, mem::take(&mut down.kit.up_head)));
        }
        // What was not offered says nothing about the endpoint.
        if !need.switches {
            endpoint.protocol.set(Protocol::Http1);
        }
        let head = mem::take(&mut down.kit.up_head);
        Ok(Up::http1(self.core, held, false, self.plan.limits, head))
    }

    /// Waits for the connection that another exchange makes.
    async fn joined(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<(), Fault> {
        let began = self.core.net.now();
        let deadline = began + self.route.timeouts.connect;
        let mut listed = None;
        let joined = self.until(deadline, down, |cx| endpoint.poll_joined(cx, &mut listed));
        let joined = joined.await;
        record.connect_ns += self.core.net.now().since(began).as_nanos() as u64;
        let late = Fault::upstream(Phase::Connect, Reason::ConnectTimeout, Retry::Always);
        joined?.ok_or(late)
    }

    async fn relay(
        &mut self,
        up: &mut Up<N>,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<Relayed, Fault> {
        still_there(down)?;
        if down.kit.head.authority.is_empty()
            && let Some(endpoint) = record
                .endpoint
                .and_then(|i| self.upstream.endpoints.get(i as usize))
        {
            // HTTP/1.0 may name no host; the endpoint is asked by its own.
            let host = match &endpoint.address {
                Address::Ip(address) => address.to_string(),
                Address::Unix(_) => "localhost".to_owned(),
            };
            down.kit.added.edits.set_authority(host.as_bytes());
        }
        up.request(
            down.request(),
            &down.kit.head,
            &down.kit.block,
            &down.kit.added.edits,
        )?;
        if self.route.retry.retries_max == 0 {
            // What is sent now is never sent again.
            self.replay.forget();
        }
        let mut relay = Relay::new(
            self.core,
            down,
            up,
            record,
            &mut self.replay,
            (self.whole, self.route),
            self.total,
        );
        relay.resend()?;
        poll_fn(|cx| relay.poll(cx)).await
    }

    /// Waits in the upstream's queue, for as long as the exchange may wait in all, and while the client is there.
    async fn wait(
        &self,
        need: Need,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<(u32, Turn<N>), Fault> {
        let fault = |reason| Fault::local(Phase::Connect, reason);
        if self.upstream.endpoints.is_empty() {
            return Err(fault(if self.plan.unresolved.is_empty() {
                Reason::NoEndpoint
            } else {
                Reason::Unresolved
            }));
        }
        let waited = Duration::from_nanos(record.queue_ns);
        let began = self.core.net.now();
        let deadline = began + self.route.timeouts.queue.saturating_sub(waited);
        let place = self.upstream.wait(&self.tried);
        let mut place = place.ok_or_else(|| fault(Reason::UpstreamLimit))?;
        let turn = self.until(deadline, down, |cx| {
            let (index, turn) = ready!(place.poll(cx));
            let endpoint = self.upstream.endpoints.get(index as usize);
            Poll::Ready(endpoint.map(|endpoint| (index, endpoint.accept(cx, turn, need))))
        });
        let turn = turn.await;
        record.queue_ns += self.core.net.now().since(began).as_nanos() as u64;
        let turn = turn?.ok_or_else(|| fault(Reason::QueueTimeout))?;
        turn.ok_or_else(|| fault(Reason::Internal))
    }

    /// Whose connections are used: any, or, where endpoints are told whose each is, the client's own.
    fn owner(&self, down: &Down<'_, N>) -> Option<SocketAddr> {
        self.plan.proxy_protocol.and(down.kit.address)
    }

    /// Makes a connection within its time.
    async fn connect(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: Permit<N>,
        need: Need,
        down: &mut Down<'_, N>,
        record: &mut Record,
    ) -> Result<Held<N>, Fault> {
        let core = self.core;
        let began = core.net.now();
        let deadline = began + self.route.timeouts.connect;
        let owner = need.owner;
        let said = self.plan.proxy_protocol.map(|version| {
            let target = match &down.kit.door.plan.borrow().address {
                Address::Ip(address) => Some(*address),
                Address::Unix(_) => None,
            };
            proxy_protocol::write(version, owner, target)
        });
        let mut connecting = pin!(open(core, endpoint, said, need.switches));
        let connected = self.until(deadline, down, |cx| connecting.as_mut().poll(cx));
        let connected = connected.await;
        record.connect_ns += core.net.now().since(began).as_nanos() as u64;
        let late = || Err(Refused::from(Reason::ConnectTimeout));
        match connected?.unwrap_or_else(late) {
            Ok(wire) => {
                record.errno = 0;
                Ok(permit.hold(wire, owner, core.net.now()))
            }
            Err(Refused { reason, errno }) => {
                let fault = Fault::connect(reason);
                record.errno = errno;
                if fault.side == Side::Upstream {
                    permit.failed();
                }
                Err(fault)
            }
        }
    }

    /// Waits for something that an exchange without a connection needs, while its client is there and for as long as
    /// it may take in all. `None`: it has not come by the deadline.
    async fn until<T>(
        &self,
        deadline: Instant,
        down: &mut Down<'_, N>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Fault> {
        let core = self.core;
        down.kit.timer.set(self.total.min(deadline));
        poll_fn(|cx| {
            down.kit.timer.watch(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(Some(done)));
            }
            down.poll_watch(cx, core)?;
            let now = core.net.now();
            let held = || down.held() + self.replay.held();
            let fault = if down.kit.holds_too_much(core, held) {
                Fault::local(Phase::Connect, Reason::MemoryLimit)
            } else if down.is_cut_short() {
                Fault::downstream(Phase::Connect, Reason::ClientClosed)
            } else if core.is_stopping() {
                Fault::local(Phase::Connect, Reason::ShuttingDown)
            } else if now >= self.total {
                Fault::local(Phase::Connect, Reason::TotalTimeout)
            } else if now >= deadline {
                return Poll::Ready(Ok(None));
            } else {
                return Poll::Pending;
            };
            Poll::Ready(Err(fault))
        })
        .await
    }

    /// How the exchange tries once more after this fault, if it may.
    fn repeat_after(
        &mut self,
        down: &Down<'_, N>,
        fault: Fault,
        was_stale: bool,
    ) -> Option<Repeat> {
        if down.is_answered()
            || !self.replay.is_whole()
            || self.core.is_stopping()
            || self.core.net.now() >= self.total
        {
            return None;
        }
        if self.is_bound && authenticates(down) {
            // Its credentials mean something on that connection only.
            return None;
        }
        let failure = Failure::of(fault, was_stale, down.kit.head.method.is_idempotent());
        let (retry, budget) = (&self.route.retry, &self.upstream.budget);
        let is_left = self.upstream.is_left(&self.tried);
        self.failures
            .repeat_after(failure, retry, is_left, || budget.retry(retry))
    }

    /// Waits before another attempt.
    async fn back_off(&self, down: &mut Down<'_, N>) -> Result<(), Fault> {
        let backoff = self.route.retry.backoff;
        let until = self.core.net.now() + backoff.mul_f64(0.5 + fastrand::f64());
        let waited = self.until(until, down, |_| Poll::<()>::Pending);
        waited.await.map(|_| ())
    }
}
