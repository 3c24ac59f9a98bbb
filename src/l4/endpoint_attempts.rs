//! Gets a connection to an endpoint for a client's connection.

use std::future::poll_fn;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::relay_record::RelayRecord;
use crate::conn::Wire;
use crate::core::{Core, CoreListener, Timer};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Chunk, Instant, Net, Rx, Tx};
use crate::limits::BLOCK_BYTES;
use crate::plan::UpstreamPlan;
use crate::upstream::{
    ConnectFailure, ConnectionNeed, ConnectionOffer, ConnectionPermit, Connector, Endpoint,
    RequestInFlight, TriedEndpoints, Upstream, Waiter,
};

/// A connection to an endpoint, and the right to it, which is dropped after the connection is closed.
pub(super) struct LeasedWire<N: Net> {
    pub(super) wire: Wire<N>,
    _permit: ConnectionPermit<N>,
    /// The endpoint. The connection counts as one request in flight to balancers.
    pub(super) endpoint: RequestInFlight<N>,
}

/// A client's connection that waits for one to an endpoint.
pub(super) struct WaitingClient<'a, N: Net> {
    pub(super) core: &'a Rc<Core<N>>,
    pub(super) timer: &'a Timer,
    pub(super) wire: &'a mut Wire<N>,
    /// Its first bytes, which go to the endpoint. While it has none, a wait receives some, and so notices a client that
    /// has left.
    pub(super) first: Option<Chunk>,
    /// It has ended its direction. Some clients send their question and the end at once.
    pub(super) has_ended: bool,
}

impl<N: Net> WaitingClient<'_, N> {
    /// Receives the client's first bytes, or its end.
    ///
    /// # Errors
    /// Its connection is broken.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.first.is_some() || self.has_ended || !self.core.has_memory() {
            return Ok(());
        }
        match self.wire.rx.poll_recv(cx) {
            Poll::Ready(Ok(Some(first))) => self.first = Some(first),
            Poll::Ready(Ok(None)) => self.has_ended = true,
            Poll::Ready(Err(_)) => {
                return Err(Fault::downstream(Phase::Connect, Reason::ClientClosed));
            }
            Poll::Pending => {}
        }
        Ok(())
    }
}

impl<N: Net> Waiter for WaitingClient<'_, N> {
    async fn until<T>(
        &mut self,
        deadline: Instant,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Fault> {
        let (core, timer) = (self.core, self.timer);
        timer.set(deadline);
        poll_fn(|cx| {
            timer.watch(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(Some(done)));
            }
            self.watch(cx)?;
            let held = || self.first.as_ref().map_or(0, |_| BLOCK_BYTES[0]);
            let fault = if core.holds_too_much(timer, held) {
                Fault::local(Phase::Connect, Reason::MemoryLimit)
            } else if core.is_stopping() {
                Fault::local(Phase::Connect, Reason::ShuttingDown)
            } else if core.net.now() >= deadline {
                return Poll::Ready(Ok(None));
            } else {
                return Poll::Pending;
            };
            Poll::Ready(Err(fault))
        })
        .await
    }
}

/// The attempts of one client's connection.
pub(super) struct EndpointAttempts<'a, N: Net> {
    pub(super) plan: &'a UpstreamPlan,
    pub(super) upstream: &'a Upstream<N>,
    pub(super) listener: &'a CoreListener,
    /// How long one connect may take.
    pub(super) timeout: Duration,
    /// The client's address, for the PROXY protocol.
    pub(super) client: Option<SocketAddr>,
}

impl<N: Net> EndpointAttempts<'_, N> {
    /// Opens a connection to an endpoint. If that fails, tries another one, at most `connects_max` in all. The client's
    /// bytes stay with Weir meanwhile, so another attempt does no harm.
    pub(super) async fn connect(
        &self,
        waiting: &mut WaitingClient<'_, N>,
        record: &mut RelayRecord,
    ) -> Result<LeasedWire<N>, Fault> {
        let internal = Fault::local(Phase::Connect, Reason::Internal);
        let need = ConnectionNeed {
            owner: self.plan.proxy_protocol.and(self.client),
            must_be_fresh: true,
            must_recheck: false,
            switches_protocols: true,
            is_raw: true,
        };
        let connector = Connector {
            core: waiting.core,
            plan: self.plan,
            listener: self.listener,
            timeout: self.timeout,
        };
        let mut tried = TriedEndpoints::default();
        let key = self.upstream.key_of_client(self.client.map(|it| it.ip()));
        loop {
            let taken = poll_fn(|cx| Poll::Ready(self.upstream.take_offer(cx, &tried, key, need)));
            let (index, offer) = match taken.await {
                Some(offered) => offered,
                None => self.wait(&tried, need, waiting, record).await?,
            };
            tried.add(index);
            record.endpoint = Some(index);
            record.attempts += 1;
            record.errno = 0;
            let endpoint = self.upstream.endpoints.get(index as usize);
            let endpoint = endpoint.ok_or(internal)?;
            let request = RequestInFlight::begin(endpoint.clone());
            let permit = permit_of(offer).ok_or(internal)?;
            let mut spent = Duration::ZERO;
            let connected = connector.connect(&request, permit, need, waiting, &mut spent);
            let connected = connected.await;
            record.connect_time += spent;
            let ConnectFailure { fault, errno } = match connected {
                Ok(leased) => {
                    let leased = *leased;
                    request.observe_latency(spent, waiting.core.net.now());
                    return Ok(LeasedWire {
                        wire: leased.connection.into_wire(),
                        _permit: leased.permit,
                        endpoint: request,
                    });
                }
                Err(failure) => failure,
            };
            record.errno = errno;
            if fault.side == Side::Upstream {
                request.count_failure(fault.reason, errno);
                request.observe_failure(waiting.core.net.now());
                let eject = self.plan.eject.as_ref();
                self.upstream.record_fault(&request, eject, fault);
            }
            let may_go_on = fault.retry == Retry::Always
                && record.attempts < self.plan.retry.connects_max
                && self.upstream.has_untried(&tried);
            if !may_go_on {
                return Err(fault);
            }
            waiting.core.obs.borrow().retry(self.upstream.id());
        }
    }

    /// Waits in the upstream's queue until an endpoint has room.
    async fn wait(
        &self,
        tried: &TriedEndpoints,
        need: ConnectionNeed,
        waiting: &mut WaitingClient<'_, N>,
        record: &mut RelayRecord,
    ) -> Result<(u32, ConnectionOffer<N>), Fault> {
        let fault = |reason| Fault::local(Phase::Connect, reason);
        if !self.upstream.has_usable() {
            return Err(fault(match self.upstream.has_unresolved() {
                true => Reason::Unresolved,
                false => Reason::NoEndpoint,
            }));
        }
        let core = waiting.core;
        let began = core.net.now();
        let left = self.plan.timeouts.queue.saturating_sub(record.queue_time);
        let place = self.upstream.enqueue(tried);
        let mut place = place.ok_or_else(|| fault(Reason::UpstreamLimit))?;
        let offered = waiting.until(began + left, |cx| {
            let (index, offer) = ready!(place.poll_offer(cx));
            let endpoint: Option<&Rc<Endpoint<N>>> = self.upstream.endpoints.get(index as usize);
            Poll::Ready(endpoint.map(|endpoint| (index, endpoint.accept_offer(cx, offer, need))))
        });
        let offered = offered.await;
        record.queue_time += core.net.now().since(began);
        let offered = offered?.ok_or_else(|| fault(Reason::QueueTimeout))?;
        offered.ok_or_else(|| fault(Reason::Internal))
    }
}

/// The right to open a connection: an offer of an open one is closed for it, because its bytes may belong to HTTP.
fn permit_of<N: Net>(offer: ConnectionOffer<N>) -> Option<ConnectionPermit<N>> {
    match offer {
        ConnectionOffer::Connect(permit) => Some(permit),
        ConnectionOffer::Reuse(leased) => Some(leased.close()),
        ConnectionOffer::Stream(_) | ConnectionOffer::Await => None,
    }
}

impl<N: Net> WaitingClient<'_, N> {
    /// Queues the client's first bytes on the endpoint's connection. Returns how many.
    pub(super) fn send_first(&mut self, to: &mut impl Tx) -> u64 {
        let first = mem::take(&mut self.first);
        first.map_or(0, |first| {
            let bytes = first.len() as u64;
            to.push(first);
            bytes
        })
    }
}
