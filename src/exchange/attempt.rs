//! Attempts of an exchange: which endpoint, over which connection, and what a failure means for the next one.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_proto_h1::{FieldId, Head};

use super::record::ExchangeRecord;
use super::relay::{Relay, Relayed, Replay};
use super::repeat::{Failure, Failures, Repeat};
use super::{Exchange, grpc};
use crate::conn::{Wire, WireRx, WireTx, proxy_protocol, tunnel};
use crate::core::{Core, after};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Address, Connection, Instant, Net, Tx, errno};
use crate::plan::{Protocol, RoutePlan, UpstreamId, UpstreamPlan, is_grpc};
use crate::tls;
use crate::upstream::{
    ConnectionNeed, ConnectionOffer, ConnectionPermit, Endpoint, EndpointSide, EndpointTls,
    LeasedConnection, TriedEndpoints, Upstream,
};

/// The attempts of one exchange: what they have in common, and what has become of them so far.
struct Attempts<'a, N: Net> {
    plan: &'a UpstreamPlan,
    route: &'a RoutePlan,
    upstream: &'a Upstream<N>,
    tried: TriedEndpoints,
    replay: Replay,
    failures: Failures,
    /// The attempt is on a connection that belongs to the client's.
    is_bound: bool,
}

impl<'a, N: Net> Exchange<'a, N> {
    /// Sends the request to an endpoint of the upstream, to another one if that fails and may be repeated, and relays
    /// the answer.
    pub(super) async fn forward(
        &mut self,
        route: &'a RoutePlan,
        upstream: UpstreamId,
    ) -> Result<(), Fault> {
        let internal = Fault::local(Phase::Route, Reason::Internal);
        self.record.upstream = Some(upstream);
        let plan = self.plan.plan.upstream(upstream).ok_or(internal)?;
        let upstream = self.plan.upstreams.get(upstream.0 as usize);
        let upstream = upstream.ok_or(internal)?;
        let patience = self.facts.is_grpc_call;
        let patience = patience.then(|| grpc::timeout(self.down.head, self.down.block));
        self.prepare_request(route);
        let now = self.core.net.now();
        self.deadline = after(now, route.timeouts.total).min(after(now, patience.flatten()));
        upstream.budget.count_request(now);
        let mut attempts = Attempts {
            plan,
            route,
            upstream,
            tried: TriedEndpoints::default(),
            replay: Replay::default(),
            failures: Failures::default(),
            is_bound: false,
        };
        loop {
            let (fault, was_stale) = match attempts.attempt(self).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            if !was_stale {
                attempts.count(&self.record, fault);
            }
            let repeat = attempts.repeat_after(self, fault, was_stale);
            let repeat = repeat.ok_or(fault)?;
            self.core.obs.borrow().retry(upstream.id());
            if repeat == Repeat::AfterBackoff {
                attempts.back_off(self).await?;
            }
        }
    }

    /// Fails if the client has cancelled. An HTTP/2 client may reset its stream while the request is queued or waits for
    /// a connection.
    fn check_client_waits(&self) -> Result<(), Fault> {
        self.down.gone().map_or(Ok(()), Err)
    }

    /// Whether the request has credentials for the connection that it is sent on.
    fn authenticates(&self) -> bool {
        let credentials = self
            .down
            .head
            .value(FieldId::Authorization, self.down.block);
        credentials.is_some_and(weir_proto_h1::authenticates_connection)
    }

    /// Whether the endpoint says that it has taken such credentials, and that they hold for what follows on the
    /// connection (`Persistent-Auth`, which IIS sends).
    fn is_authenticated(&self, up: &EndpointSide<N>) -> bool {
        let field = |name| up.head.find_name(name, &up.block);
        self.authenticates()
            && field(b"Persistent-Auth")
                .is_some_and(|field| !field.value.get(&up.block).eq_ignore_ascii_case(b"false"))
    }

    /// Keeps the head of an answer for the log, and its memory for the next one.
    fn keep_head(&mut self, up: &mut EndpointSide<N>) {
        self.buffers.up_head = mem::take(&mut up.head);
        self.buffers.up_block = mem::take(&mut up.block);
    }

    /// Lends the memory of the endpoint's head to an attempt.
    fn take_up_head(&mut self) -> Head {
        mem::take(&mut self.buffers.up_head)
    }

    /// The client's address, if endpoints hear it in the PROXY protocol: their connections serve one client each.
    fn owner(&self, plan: &UpstreamPlan) -> Option<SocketAddr> {
        plan.proxy_protocol.and(self.down.context.address)
    }
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
    secure: EndpointTls,
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
        core.report_endpoint_tls(format_args!("endpoint {name}"), rx.cause());
        return Err(Reason::from_tls(rx.failure()));
    }
    Ok(Wire {
        rx: WireRx::Tls(Box::new(rx)),
        tx: WireTx::Tls(tx),
        peer,
    })
}

/// Whether HTTP/2 was agreed on in the handshake of a connection.
fn speaks_http2<N: Net>(held: &LeasedConnection<N>) -> bool {
    let agreed = held.wire.rx.tls_parameters();
    agreed.is_some_and(|agreed| agreed.protocol == tls::AlpnProtocol::Http2)
}

impl<'a, N: Net> Attempts<'a, N> {
    /// Makes one attempt. A fault comes with whether it may be no more than the end of an idle connection.
    async fn attempt(&mut self, exchange: &mut Exchange<'a, N>) -> Result<(), (Fault, bool)> {
        let before = |fault| (fault, false);
        exchange.check_client_waits().map_err(before)?;
        let (endpoint, mut up) = self.begin(exchange).await.map_err(before)?;
        match self.relay(&mut up, exchange).await {
            Ok(Relayed::Response) => {
                self.bind(&mut up, &endpoint, exchange);
                exchange.keep_head(&mut up);
                up.finish(exchange.core, &endpoint);
                Ok(())
            }
            Ok(Relayed::Switched) => {
                exchange.keep_head(&mut up);
                let passed = tunnel(
                    exchange.core,
                    &mut exchange.down,
                    up,
                    self.route.timeouts.idle,
                )
                .await;
                exchange.record.bytes_in += passed.sent;
                exchange.record.bytes_out += passed.received;
                match passed.is_stalled {
                    true => Err(before(Fault::downstream(
                        Phase::Body,
                        Reason::ClientStalled,
                    ))),
                    false => Ok(()),
                }
            }
            Err(fault) => {
                let has_begun = exchange.down.is_answered() && is_grpc(&up.head, &up.block);
                exchange.record.grpc_status =
                    has_begun.then(|| grpc::broken(fault.reason, up.reset_by()));
                exchange.record.errno = up.errno();
                exchange.keep_head(&mut up);
                let was_stale = fault.reason == Reason::UpstreamClosed && up.was_stale();
                Err((fault, was_stale))
            }
        }
    }

    /// Binds the endpoint's connection to the client's, if the endpoint authenticates connections: nobody else is to have
    /// the identity that it may have now.
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
            // It may have taken credentials that came unasked, and say nothing of it.
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

    /// Counts an attempt that has failed at its endpoint. That an idle connection was dead is not one.
    fn count(&self, record: &ExchangeRecord, fault: Fault) {
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
        exchange: &mut Exchange<'a, N>,
    ) -> Result<(Rc<Endpoint<N>>, EndpointSide<N>), Fault> {
        let need = ConnectionNeed {
            owner: exchange.owner(self.plan),
            fresh: self.failures.met_stale(),
            sure: !exchange.down.head.method.is_idempotent(),
            switches: exchange.down.request().upgrade.is_some(),
        };
        let bindings = exchange.buffers.bindings.as_deref();
        let turn = poll_fn(|cx| {
            let own = bindings.and_then(|own| self.upstream.take_bound(cx, own, need.sure));
            Poll::Ready(own.or_else(|| self.upstream.take_offer(cx, &self.tried, need)))
        });
        let turn = turn.await;
        self.is_bound = matches!(&turn, Some((_, ConnectionOffer::Reuse(held))) if held.is_bound());
        let (mut index, mut turn) = match turn {
            Some(turn) => turn,
            // In a box: few wait, and each connection would hold what it takes.
            None => Box::pin(self.wait(need, exchange)).await?,
        };
        exchange.record.attempts += 1;
        exchange.record.errno = 0;
        loop {
            self.tried.add(index);
            exchange.record.endpoint = Some(index);
            let endpoint = self.upstream.endpoints.get(index as usize).cloned();
            let endpoint = endpoint.ok_or(Fault::local(Phase::Connect, Reason::Internal))?;
            let mut has_waited = false;
            match turn {
                ConnectionOffer::Reuse(held) => {
                    let head = exchange.take_up_head();
                    let up = EndpointSide::http1(exchange.core, held, true, self.plan.limits, head);
                    return Ok((endpoint, up));
                }
                ConnectionOffer::Connect(permit) => {
                    let up = self.connected(&endpoint, permit, need, exchange).await;
                    return Ok((endpoint, up?));
                }
                ConnectionOffer::Stream(reservation) => {
                    if endpoint.shares_connections(need)
                        && let Some(reservation) = reservation.confirm()
                    {
                        let head = exchange.take_up_head();
                        return Ok((endpoint, EndpointSide::http2(reservation, head)));
                    }
                }
                ConnectionOffer::Await => {
                    self.joined(&endpoint, exchange).await?;
                    has_waited = true;
                }
            }
            let again = poll_fn(|cx| Poll::Ready(endpoint.take_offer(cx, need))).await;
            turn = match again {
                // Who made a connection for us has failed: to try at once again would ask as often as there are
                // exchanges.
                Some(ConnectionOffer::Connect(_))
                    if has_waited
                        && endpoint.protocol.get() == Protocol::Http2
                        && !endpoint.has_shared_connection()
                        && !endpoint.was_abandoned() =>
                {
                    let reason = Reason::ConnectFailed;
                    return Err(Fault::upstream(Phase::Connect, reason, Retry::Always));
                }
                Some(turn) => turn,
                None => {
                    let waited = Box::pin(self.wait(need, exchange)).await?;
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
        permit: ConnectionPermit<N>,
        need: ConnectionNeed,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<EndpointSide<N>, Fault> {
        let is_shared = endpoint.shares_connections(need);
        let joiner = is_shared.then(|| endpoint.begin_connecting());
        let held = self.connect(endpoint, permit, need, exchange).await;
        if let (Some(joiner), Err(fault)) = (&joiner, &held)
            && fault.side != Side::Upstream
        {
            joiner.abandon();
        }
        let held = held?;
        if speaks_http2(&held) || (is_shared && !endpoint.is_secure()) {
            let config = self.plan.http2;
            let reservation = endpoint.begin_http2(exchange.core, held, config, joiner);
            return Ok(EndpointSide::http2(reservation, exchange.take_up_head()));
        }
        // What was not offered says nothing about the endpoint.
        if !need.switches {
            endpoint.protocol.set(Protocol::Http1);
        }
        let head = exchange.take_up_head();
        Ok(EndpointSide::http1(
            exchange.core,
            held,
            false,
            self.plan.limits,
            head,
        ))
    }

    /// Waits for the connection that another exchange makes.
    async fn joined(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<(), Fault> {
        let began = exchange.core.net.now();
        let deadline = began + self.route.timeouts.connect;
        let mut listed = None;
        let joined = self.until(deadline, exchange, |cx| {
            endpoint.poll_connected(cx, &mut listed)
        });
        let joined = joined.await;
        exchange.record.connect_ns += exchange.core.net.now().since(began).as_nanos() as u64;
        let late = Fault::upstream(Phase::Connect, Reason::ConnectTimeout, Retry::Always);
        joined?.ok_or(late)
    }

    async fn relay(
        &mut self,
        up: &mut EndpointSide<N>,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<Relayed, Fault> {
        exchange.check_client_waits()?;
        if exchange.down.head.authority.is_empty()
            && let Some(endpoint) = exchange
                .record
                .endpoint
                .and_then(|i| self.upstream.endpoints.get(i as usize))
        {
            // HTTP/1.0 may name no host; the endpoint is asked by its own.
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
        up.request(
            exchange.down.request(),
            exchange.down.head,
            exchange.down.block,
            &exchange.buffers.to_upstream.edits,
        )?;
        if self.route.retry.retries_max == 0 {
            // What is sent now is never sent again.
            self.replay.forget();
        }
        let mut relay = Relay::new(exchange, up, &mut self.replay, self.route);
        relay.resend()?;
        poll_fn(|cx| relay.poll(cx)).await
    }

    /// Waits in the upstream's queue, for as long as the exchange may wait in all, and while the client is there.
    async fn wait(
        &self,
        need: ConnectionNeed,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<(u32, ConnectionOffer<N>), Fault> {
        let fault = |reason| Fault::local(Phase::Connect, reason);
        if self.upstream.endpoints.is_empty() {
            return Err(fault(if self.upstream.has_unresolved() {
                Reason::Unresolved
            } else {
                Reason::NoEndpoint
            }));
        }
        let waited = Duration::from_nanos(exchange.record.queue_ns);
        let began = exchange.core.net.now();
        let deadline = began + self.route.timeouts.queue.saturating_sub(waited);
        let place = self.upstream.enqueue(&self.tried);
        let mut place = place.ok_or_else(|| fault(Reason::UpstreamLimit))?;
        let turn = self.until(deadline, exchange, |cx| {
            let (index, turn) = ready!(place.poll_offer(cx));
            let endpoint = self.upstream.endpoints.get(index as usize);
            Poll::Ready(endpoint.map(|endpoint| (index, endpoint.accept_offer(cx, turn, need))))
        });
        let turn = turn.await;
        exchange.record.queue_ns += exchange.core.net.now().since(began).as_nanos() as u64;
        let turn = turn?.ok_or_else(|| fault(Reason::QueueTimeout))?;
        turn.ok_or_else(|| fault(Reason::Internal))
    }

    /// Makes a connection within its time.
    async fn connect(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: ConnectionPermit<N>,
        need: ConnectionNeed,
        exchange: &mut Exchange<'a, N>,
    ) -> Result<LeasedConnection<N>, Fault> {
        let core = exchange.core;
        let began = core.net.now();
        let deadline = began + self.route.timeouts.connect;
        let owner = need.owner;
        let said = self.plan.proxy_protocol.map(|version| {
            let target = match &exchange.down.context.listener.plan.borrow().address {
                Address::Ip(address) => Some(*address),
                Address::Unix(_) => None,
            };
            proxy_protocol::write(version, owner, target)
        });
        let mut connecting = pin!(open(core, endpoint, said, need.switches));
        let connected = self.until(deadline, exchange, |cx| connecting.as_mut().poll(cx));
        let connected = connected.await;
        exchange.record.connect_ns += core.net.now().since(began).as_nanos() as u64;
        let late = || Err(Refused::from(Reason::ConnectTimeout));
        match connected?.unwrap_or_else(late) {
            Ok(wire) => {
                exchange.record.errno = 0;
                Ok(permit.lease(wire, owner, core.net.now()))
            }
            Err(Refused { reason, errno }) => {
                let fault = Fault::connect(reason);
                exchange.record.errno = errno;
                if fault.side == Side::Upstream {
                    permit.report_failure();
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
        exchange: &mut Exchange<'a, N>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Fault> {
        let core = exchange.core;
        exchange.down.timer.set(exchange.deadline.min(deadline));
        poll_fn(|cx| {
            exchange.down.timer.watch(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(Some(done)));
            }
            exchange.down.poll_watch(cx, core)?;
            let now = core.net.now();
            let held = || exchange.down.held() + self.replay.held();
            let fault = if exchange.down.holds_too_much(core, held) {
                Fault::local(Phase::Connect, Reason::MemoryLimit)
            } else if exchange.down.is_cut_short() {
                Fault::downstream(Phase::Connect, Reason::ClientClosed)
            } else if core.is_stopping() {
                Fault::local(Phase::Connect, Reason::ShuttingDown)
            } else if now >= exchange.deadline {
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
        exchange: &Exchange<'a, N>,
        fault: Fault,
        was_stale: bool,
    ) -> Option<Repeat> {
        if exchange.down.is_answered()
            || !self.replay.is_whole()
            || exchange.core.is_stopping()
            || exchange.core.net.now() >= exchange.deadline
        {
            return None;
        }
        if self.is_bound && exchange.authenticates() {
            // Its credentials mean something on that connection only.
            return None;
        }
        let failure = Failure::of(fault, was_stale, exchange.down.head.method.is_idempotent());
        let (retry, budget) = (&self.route.retry, &self.upstream.budget);
        let is_left = self.upstream.has_untried(&self.tried);
        self.failures
            .repeat_after(failure, retry, is_left, || budget.take_retry(retry))
    }

    /// Waits before another attempt.
    async fn back_off(&self, exchange: &mut Exchange<'a, N>) -> Result<(), Fault> {
        let backoff = self.route.retry.backoff;
        let until = exchange.core.net.now() + backoff.mul_f64(0.5 + fastrand::f64());
        let waited = self.until(until, exchange, |_| Poll::<()>::Pending);
        waited.await.map(|_| ())
    }
}
