//! The life of a client's connection that Weir passes on.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::client_hello::{ClientHello, read_client_hello};
use super::connection_verdict::ConnectionVerdict;
use super::endpoint_attempts::{EndpointAttempts, WaitingClient};
use super::relay::relay;
use super::relay_record::RelayRecord;
use super::steps::{RelayClient, run_steps};
use crate::conn::{Inbox, Wire};
use crate::core::{Admission, Core, Timer};
use crate::exchange::CorePlan;
use crate::fault::Reason;
use crate::io::{Chunk, Net, Pool, Rx, Tx};
use crate::limits::{CLIENT_HELLO_BYTES_MAX, IDLE_CONNECTION_BYTES, LINGER_BYTES_MAX, LINGER_MS};
use crate::plan::{ListenerPlan, ListenerTarget, ServerNames, UpstreamId};
use crate::policy::Facts;

/// A client's connection that Weir passes on.
pub struct RelayConnection<N: Net> {
    plan: Rc<CorePlan<N>>,
    listener: Rc<ListenerPlan>,
    record: RelayRecord,
    /// What the listener's policies keep until the connection ends.
    facts: Facts,
}

/// The connection itself, and its place under the limits of the listener and the client.
pub struct AcceptedConnection<N: Net> {
    /// The connection. TLS that Weir ends is open.
    pub wire: Wire<N>,
    /// Its deadline.
    pub timer: Timer,
    /// Its place under the limits.
    pub admission: Admission<N>,
    /// Bytes that have arrived already.
    pub early: Option<Chunk>,
}

impl<N: Net> RelayConnection<N> {
    /// Runs the policies of the listener. `None`: one of them refuses the client, and the refusal is reported.
    pub fn begin(
        core: &Core<N>,
        plan: Rc<CorePlan<N>>,
        admission: &Admission<N>,
        wire: &Wire<N>,
    ) -> Option<Self> {
        let id = admission.listener.id.get();
        let listener = admission.listener.plan.borrow().clone();
        let client = RelayClient {
            address: wire.peer.get(),
            tls: wire.rx.tls_parameters(),
        };
        let mut record = RelayRecord::new(core, "TCP", id, client.ip());
        let begun = run_steps(core, &plan.states, (id, &listener), client, &mut record);
        match begun {
            Ok(facts) => Some(Self {
                plan,
                listener,
                record,
                facts,
            }),
            Err(reason) => {
                record.reason = Some(reason);
                record.report(core, &plan);
                None
            }
        }
    }

    /// Passes the connection on until it ends.
    pub async fn serve(mut self, core: Rc<Core<N>>, mut accepted: AcceptedConnection<N>) {
        let core = &core;
        let rx = &accepted.wire.rx;
        self.record.tls = rx.tls_parameters();
        self.record.sni = rx.server_name().as_deref().unwrap_or_default().into();
        let early = accepted.early.take();
        let routed = match &self.listener.clone().target {
            ListenerTarget::Passthrough(names) => {
                self.peek(core, &mut accepted, early, names).await
            }
            ListenerTarget::Tcp(upstream) => Ok((*upstream, early)),
            ListenerTarget::Http | ListenerTarget::Udp(_) => Err(Reason::Internal),
        };
        let ended = match routed {
            Ok((upstream, first)) => self.pass_on(core, &mut accepted, upstream, first).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = ended {
            self.record.reason = Some(reason);
            accepted.wire.tx.abort();
        }
        // The report has the bytes of the connection, so it comes before the connection gives up its place.
        self.record.report(core, &self.plan);
        drop(self.facts);
    }

    /// Opens a connection to an endpoint of the upstream, and passes bytes until both sides have ended.
    async fn pass_on(
        &mut self,
        core: &Rc<Core<N>>,
        accepted: &mut AcceptedConnection<N>,
        upstream: UpstreamId,
        first: Option<Chunk>,
    ) -> Result<(), Reason> {
        let plan = self.plan.clone();
        self.record.upstream = Some(upstream);
        let planned = plan.plan.upstream(upstream).ok_or(Reason::Internal)?;
        let upstream = plan.upstreams.get(upstream.0 as usize);
        let upstream = upstream.ok_or(Reason::Internal)?;
        let guarded = upstream.admit_connection(core.net.now())?;
        let mut verdict = ConnectionVerdict::new(core, planned, upstream, guarded);
        let client = accepted.wire.peer.get();
        let attempts = EndpointAttempts {
            plan: planned,
            upstream,
            listener: &accepted.admission.listener,
            timeout: self
                .listener
                .connect_timeout
                .unwrap_or(planned.timeouts.connect),
            client,
        };
        let mut waiting = WaitingClient {
            core,
            timer: &accepted.timer,
            wire: &mut accepted.wire,
            first,
            has_ended: false,
        };
        // In a box: the state of a connect is large, and a relay lasts longer.
        let connecting = Box::pin(attempts.connect(&mut waiting, &mut self.record));
        let connected = connecting.await;
        let mut leased = connected.map_err(|fault| {
            verdict.not_connected(fault);
            fault.reason
        })?;
        let sent = waiting.send_first(&mut leased.wire.tx);
        let _charge = core.net.pool().charge(IDLE_CONNECTION_BYTES);
        let relayed = relay(
            core,
            &accepted.timer,
            &mut accepted.wire,
            &mut leased.wire,
            self.listener.timeouts.idle,
            || verdict.served(&leased.endpoint),
        );
        let mut relayed = relayed.await;
        verdict.ended(&leased.endpoint, relayed);
        relayed.from_client += sent;
        self.record.take(relayed);
        Ok(())
    }

    /// Receives the ClientHello, and finds the upstream of its server name and protocols. Returns the bytes received too.
    async fn peek(
        &mut self,
        core: &Rc<Core<N>>,
        accepted: &mut AcceptedConnection<N>,
        early: Option<Chunk>,
        names: &ServerNames,
    ) -> Result<(UpstreamId, Option<Chunk>), Reason> {
        let mut inbox = Inbox::default();
        inbox.add(early.unwrap_or_default(), core.net.pool());
        let head = self.listener.timeouts.head;
        let hello = match receive_hello(core, accepted, &mut inbox, head).await {
            Ok(hello) => hello,
            Err(Reason::BadClientHello) => {
                refuse(core, accepted, Alert::DecodeError).await;
                return Err(Reason::BadClientHello);
            }
            Err(reason) => return Err(reason),
        };
        self.record.sni = hello.server_name.clone().unwrap_or_default();
        match names.find(hello.server_name.as_deref()) {
            Some(target) => Ok((target.choose(&hello.protocols), inbox.take())),
            None => {
                refuse(core, accepted, Alert::UnrecognizedName).await;
                Err(Reason::UnknownServerName)
            }
        }
    }
}

/// Receives a whole ClientHello within `limit`.
async fn receive_hello<N: Net>(
    core: &Rc<Core<N>>,
    accepted: &mut AcceptedConnection<N>,
    inbox: &mut Inbox,
    limit: Duration,
) -> Result<ClientHello, Reason> {
    let (timer, rx) = (&accepted.timer, &mut accepted.wire.rx);
    let deadline = core.net.now() + limit;
    timer.set(deadline);
    let pool: &Pool = core.net.pool();
    poll_fn(|cx| {
        timer.watch(cx);
        loop {
            if !inbox.is_empty() {
                match read_client_hello(inbox.bytes()) {
                    Ok(Some(hello)) => return Poll::Ready(Ok(hello)),
                    Ok(None) if inbox.bytes().len() < CLIENT_HELLO_BYTES_MAX => {}
                    Ok(None) | Err(_) => return Poll::Ready(Err(Reason::BadClientHello)),
                }
            }
            match rx.poll_recv(cx) {
                Poll::Ready(Ok(Some(chunk))) => inbox.add(chunk, pool),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(Reason::ClientClosed)),
                Poll::Pending => break,
            }
        }
        let reason = if core.is_stopping() {
            Reason::ShuttingDown
        } else if core.holds_too_much(timer, || inbox.bytes().len()) {
            Reason::MemoryLimit
        } else if core.net.now() >= deadline {
            Reason::HeadTimeout
        } else {
            return Poll::Pending;
        };
        Poll::Ready(Err(reason))
    })
    .await
}

/// A fatal alert of TLS (RFC 8446, section 6).
#[derive(Clone, Copy)]
enum Alert {
    DecodeError = 50,
    UnrecognizedName = 112,
}

/// Sends an alert and ends the connection, giving the client [`LINGER_MS`] to read it.
async fn refuse<N: Net>(core: &Core<N>, accepted: &mut AcceptedConnection<N>, alert: Alert) {
    const RECORD_OF_ALERT: u8 = 21;
    const FATAL: u8 = 2;
    let record = [RECORD_OF_ALERT, 3, 1, 0, 2, FATAL, alert as u8];
    let AcceptedConnection { wire, timer, .. } = accepted;
    wire.tx.push(core.net.pool().copy(&record));
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    timer.set(deadline);
    let (mut has_finished, mut discarded) = (false, 0);
    poll_fn(|cx| {
        timer.watch(cx);
        if !has_finished && wire.tx.poll_send(cx).is_ready() {
            has_finished = wire.tx.poll_finish(cx).is_ready();
        }
        while has_finished && let Poll::Ready(received) = wire.rx.poll_discard(cx) {
            match received {
                Ok(Some(chunk)) if discarded < LINGER_BYTES_MAX => discarded += chunk.len(),
                _ => return Poll::Ready(()),
            }
        }
        match core.is_stopping() || core.net.now() >= deadline {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
