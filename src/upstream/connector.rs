//! Gets the connection or stream that carries a request to an endpoint.
//!
//! The connection is open already, another exchange is opening it, or the connector opens it now. Opening includes the
//! steps before the first request: the header of the PROXY protocol, TLS, and the choice of the protocol.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use weir_proto_h1::{Head, Limits};

use super::{
    ConnectionNeed, ConnectionOffer, ConnectionPermit, Endpoint, EndpointSide, EndpointTls,
    LeasedConnection, StreamReservation,
};
use crate::conn::{Wire, WireRx, WireTx, proxy_protocol};
use crate::core::{Core, CoreListener};
use crate::fault::{Fault, Phase, Reason, Retry, Side};
use crate::io::{Address, Connection, Instant, Net, Tx, errno};
use crate::plan::{Protocol, UpstreamPlan};
use crate::tls;

/// Waits on behalf of an exchange that has no connection or stream yet.
pub trait Waiter {
    /// Waits until `poll` is ready. `None`: the deadline has passed.
    ///
    /// # Errors
    /// The exchange must end: its client has gone, or its time is over.
    fn until<T>(
        &mut self,
        deadline: Instant,
        poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = Result<Option<T>, Fault>>;
}

/// A connection or stream that carries one request.
pub enum EndpointLease<N: Net> {
    /// An HTTP/1.1 connection. `is_reused`: it has carried other requests.
    Connection {
        leased: Box<LeasedConnection<N>>,
        is_reused: bool,
    },
    /// An HTTP/2 stream.
    Stream(StreamReservation<N>),
}

impl<N: Net> EndpointLease<N> {
    /// Begins a request on the connection or stream. The head of the answer goes into `head`.
    #[inline(always)] // A call would copy the whole side.
    pub fn begin(self, limits: Limits, head: Head) -> EndpointSide<N> {
        match self {
            Self::Connection { leased, is_reused } => {
                EndpointSide::http1(leased, is_reused, limits, head)
            }
            Self::Stream(reservation) => EndpointSide::http2(reservation, head),
        }
    }
}

/// Why a request got no connection or stream.
pub struct ConnectFailure {
    /// The fault for the exchange.
    pub fault: Fault,
    /// The error of the system; 0 if there was none.
    pub errno: u16,
}

impl From<Fault> for ConnectFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, errno: 0 }
    }
}

impl From<Reason> for ConnectFailure {
    fn from(reason: Reason) -> Self {
        Fault::connect(reason).into()
    }
}

impl From<io::Error> for ConnectFailure {
    fn from(error: io::Error) -> Self {
        Self {
            errno: errno(&error),
            ..Reason::from_connect(&error).into()
        }
    }
}

/// Gets leases for the requests of one exchange.
pub struct Connector<'a, N: Net> {
    /// This core.
    pub core: &'a Rc<Core<N>>,
    /// The upstream.
    pub plan: &'a UpstreamPlan,
    /// The listener that the client connected to: the PROXY protocol names its address.
    pub listener: &'a CoreListener,
    /// How long opening a connection may take.
    pub timeout: Duration,
}

impl<N: Net> Connector<'_, N> {
    /// Turns an offer of the endpoint into a lease. `None`: the offer has lapsed and the endpoint has no room. Adds the
    /// time spent connecting to `spent`. Takes the offer out of `offer`, because each future on the way would hold a
    /// copy of an offer passed by value.
    pub async fn lease(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        offer: &mut Option<ConnectionOffer<N>>,
        need: ConnectionNeed,
        waiter: &mut impl Waiter,
        spent: &mut Duration,
    ) -> Result<Option<EndpointLease<N>>, ConnectFailure> {
        loop {
            let mut has_waited = false;
            match offer.take() {
                None => return Ok(None),
                Some(ConnectionOffer::Reuse(leased)) => {
                    let is_reused = true;
                    return Ok(Some(EndpointLease::Connection { leased, is_reused }));
                }
                Some(ConnectionOffer::Connect(permit)) => {
                    let opened = self
                        .open_connection(endpoint, permit, need, waiter, spent)
                        .await;
                    return opened;
                }
                Some(ConnectionOffer::Stream(reservation)) => {
                    if endpoint.shares_connections(need)
                        && let Some(reservation) = reservation.confirm()
                    {
                        return Ok(Some(EndpointLease::Stream(reservation)));
                    }
                }
                Some(ConnectionOffer::Await) => {
                    self.await_connection(endpoint, waiter, spent).await?;
                    has_waited = true;
                }
            }
            poll_fn(|cx| {
                *offer = endpoint.take_offer(cx, need);
                Poll::Ready(())
            })
            .await;
            match offer {
                // Another exchange has failed to open the connection that all wait for. If each of them tried now, the
                // endpoint would get as many connections as there are exchanges.
                Some(ConnectionOffer::Connect(_)) if has_waited && endpoint.refused_shared() => {
                    return Err(Reason::ConnectFailed.into());
                }
                _ => {}
            }
        }
    }

    /// Opens a connection, for this exchange alone (HTTP/1.1) or for others too (HTTP/2). Sometimes only the handshake
    /// tells which. `None`: other requests have reached the endpoint's limit meanwhile.
    async fn open_connection(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: ConnectionPermit<N>,
        need: ConnectionNeed,
        waiter: &mut impl Waiter,
        spent: &mut Duration,
    ) -> Result<Option<EndpointLease<N>>, ConnectFailure> {
        let is_shared = endpoint.shares_connections(need);
        let guard = is_shared.then(|| endpoint.begin_connecting());
        let leased = self.connect(endpoint, permit, need, waiter, spent).await;
        if let (Some(guard), Err(failure)) = (&guard, &leased)
            && failure.fault.side != Side::Upstream
        {
            guard.abandon();
        }
        let leased = leased?;
        if speaks_http2(&leased) || (is_shared && !endpoint.uses_tls()) {
            let reservation = endpoint.begin_http2(self.core, *leased, self.plan.http2, guard);
            return Ok(reservation.map(EndpointLease::Stream));
        }
        // For a request that switches protocols, Weir offers no HTTP/2, so the endpoint's choice says nothing about
        // later connections.
        if !need.switches_protocols {
            endpoint.protocol.set(Protocol::Http1);
            endpoint.slot.count.limit_connections();
        }
        let is_reused = false;
        Ok(Some(EndpointLease::Connection { leased, is_reused }))
    }

    /// Waits for the connection that another exchange is opening.
    async fn await_connection(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        waiter: &mut impl Waiter,
        spent: &mut Duration,
    ) -> Result<(), ConnectFailure> {
        let began = self.core.net.now();
        let mut registered = None;
        let connected = waiter.until(began + self.timeout, |cx| {
            endpoint.poll_connected(cx, &mut registered)
        });
        let connected = connected.await;
        *spent += self.core.net.now().since(began);
        let late = Fault::upstream(Phase::Connect, Reason::ConnectTimeout, Retry::Always);
        Ok(connected?.ok_or(late)?)
    }

    /// Opens a connection within its time. Adds the time spent to `spent`.
    pub async fn connect(
        &self,
        endpoint: &Rc<Endpoint<N>>,
        permit: ConnectionPermit<N>,
        need: ConnectionNeed,
        waiter: &mut impl Waiter,
        spent: &mut Duration,
    ) -> Result<Box<LeasedConnection<N>>, ConnectFailure> {
        let core = self.core;
        let began = core.net.now();
        let header = self.plan.proxy_protocol.map(|version| {
            let target = match &self.listener.address {
                Address::Ip(address) => Some(*address),
                Address::Unix(_) => None,
            };
            proxy_protocol::write(version, need.owner, target)
        });
        let offered = match (need.is_raw, need.switches_protocols) {
            (true, _) => Some(Vec::new()),
            (false, true) => Some(tls::AlpnProtocol::offered(false)),
            (false, false) => None,
        };
        let mut opening = pin!(open(core, endpoint, header, offered));
        let opened = waiter.until(began + self.timeout, |cx| opening.as_mut().poll(cx));
        let opened = opened.await;
        *spent += core.net.now().since(began);
        let late = || Err(Reason::ConnectTimeout.into());
        match opened?.unwrap_or_else(late) {
            Ok(wire) => Ok(permit.lease(wire, core.net.pool(), need.owner, core.net.now())),
            Err(failure) => {
                if failure.fault.side == Side::Upstream {
                    permit.report_failure();
                }
                Err(failure)
            }
        }
    }
}

/// Opens a connection to an endpoint, queues the header of the PROXY protocol, and performs the TLS handshake.
async fn open<N: Net>(
    core: &Rc<Core<N>>,
    endpoint: &Endpoint<N>,
    header: Option<Vec<u8>>,
    offered: Option<Vec<Vec<u8>>>,
) -> Result<Wire<N>, ConnectFailure> {
    let mut connected = core.net.connect(&endpoint.address).await;
    if let Err(error) = &connected
        && Reason::from_connect(error) == Reason::NoDescriptors
        && endpoint.close_some_idle() > 0
    {
        connected = core.net.connect(&endpoint.address).await;
    }
    let mut connection = connected?;
    connection.tx.probe(endpoint.dead_after());
    if let Some(header) = header {
        connection.tx.push(core.net.pool().copy(&header));
    }
    match endpoint.tls() {
        None => Ok(connection.into()),
        // In a box, because handshakes are rare and their state is large.
        Some(secure) => {
            let shaken = shake_hands(core, secure, connection, &endpoint.name, offered);
            Ok(Box::pin(shaken).await?)
        }
    }
}

async fn shake_hands<N: Net>(
    core: &Rc<Core<N>>,
    secure: EndpointTls,
    connection: Connection<N>,
    name: &str,
    offered: Option<Vec<Vec<u8>>>,
) -> Result<Wire<N>, Reason> {
    let Connection { rx, tx, peer } = connection;
    let (pool, queue) = (core.net.pool(), &core.handshake_queue);
    let begun = secure
        .client
        .connect(&secure.name, (rx, tx), pool, queue, offered);
    let (mut rx, tx) = begun.map_err(|_| Reason::Internal)?;
    if poll_fn(|cx| rx.poll_open(cx)).await.is_err() {
        core.report_endpoint_tls(format_args!("endpoint {name}"), rx.cause());
        return Err(Reason::from_tls(rx.failure()));
    }
    Ok(Wire {
        rx: WireRx::Tls(Box::new(rx)),
        tx: WireTx::Tls(tx),
        peer: peer.into(),
    })
}

/// Whether the handshake of a connection has chosen HTTP/2.
fn speaks_http2<N: Net>(leased: &LeasedConnection<N>) -> bool {
    let agreed = leased.connection.rx().tls_parameters();
    agreed.is_some_and(|agreed| agreed.protocol == tls::AlpnProtocol::Http2)
}
