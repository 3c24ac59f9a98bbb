//! The life of a client's connection: it waits, serves requests, waits again or ends.
//!
//! A connection that waits is a small future ([`IdleConnection`]). The memory that requests need is a box beside it
//! ([`Conversation`]). Weir allocates the box when bytes arrive, and frees it when none have arrived for
//! [`IDLE_AFTER_MS`]. In between, requests on the connection allocate nothing.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::client_connection::{ClientConnection, Stage, StageEnd};
use super::{CoreServer, IdleConnection, http2};
use crate::conn::http1::DownstreamConnection;
use crate::conn::{ClientSide, ConnectionContext, HeadBuffer, Inbox, Outbox, Wire, WireRx, WireTx};
use crate::core::{Admission, Core, Timer};
use crate::exchange::{self, AfterExchange, ExchangeBuffers};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Connection, Net, Tx};
use crate::l4::{AcceptedConnection, RelayConnection};
use crate::limits::{
    BLOCK_BYTES, EXCHANGE_STEPS, IDLE_AFTER_MS, LINGER_MS, WAITING_CONNECTIONS_MAX,
};
use crate::plan::ListenerId;
use crate::tls::{self, TlsFailure};

/// Serves a client's connection to its end.
pub(super) fn serve<N: Net>(
    server: Rc<CoreServer<N>>,
    admission: Admission<N>,
    connection: Connection<N>,
) -> impl Future<Output = ()> {
    let (has_entry, is_http) = {
        let plan = admission.listener.plan.borrow();
        let has_entry = plan.tls.is_some() || plan.proxy_protocol.is_some();
        (has_entry, plan.is_http())
    };
    let idle = IdleConnection {
        wire: connection.into(),
        timer: server.core.timers.timer(),
        admission,
        is_new: true,
        is_shortened: false,
        bindings: None,
    };
    let mut connection = match (has_entry, is_http) {
        (false, true) => ClientConnection::idle(server, idle),
        (true, _) => ClientConnection::busy(server.clone(), Box::pin(enter(server, idle, is_http))),
        (false, false) => {
            ClientConnection::busy(server.clone(), Box::pin(pass_on(server, idle, None)))
        }
    };
    poll_fn(move |cx| connection.poll(cx))
}

/// Begins to serve a connection whose first bytes have arrived.
pub(super) fn begin<N: Net>(
    server: &Rc<CoreServer<N>>,
    mut idle: IdleConnection<N>,
    first: Chunk,
) -> Stage<N> {
    let server = server.clone();
    let is_http2 = match idle.is_new {
        true => begins_http2(&idle, &first),
        false => Some(false),
    };
    if is_http2.is_some() {
        idle.report_handshake(&server.core);
    }
    match is_http2 {
        None => Box::pin(receive_preface(server, idle, first)),
        Some(true) => Box::pin(http2::serve(server, idle, first)),
        Some(false) => Box::pin(converse(server, idle, first)),
    }
}

/// Serves a connection of a listener without HTTP: ends TLS, if the listener has it, and passes the bytes on.
async fn pass_on<N: Net>(
    server: Rc<CoreServer<N>>,
    mut idle: IdleConnection<N>,
    early: Option<Chunk>,
) -> StageEnd<N> {
    let core = &server.core;
    let begun = RelayConnection::begin(core, server.plan(), &idle.admission, &idle.wire);
    let Some(relayed) = begun else {
        idle.wire.tx.abort();
        return StageEnd::Over;
    };
    let is_tls = matches!(idle.wire.rx, WireRx::Tls(_));
    if is_tls && !idle.open_tls(core).await {
        return match idle.report_handshake(core) {
            Some(TlsFailure::PlainHttp) => StageEnd::Over,
            _ => StageEnd::Linger(idle),
        };
    }
    idle.report_handshake(core);
    let accepted = AcceptedConnection {
        wire: idle.wire,
        timer: idle.timer,
        admission: idle.admission,
        early,
    };
    Box::pin(relayed.serve(core.clone(), accepted)).await;
    StageEnd::Over
}

/// Ends a connection whose last answer has been queued.
pub(super) async fn linger<N: Net>(
    server: Rc<CoreServer<N>>,
    mut idle: IdleConnection<N>,
) -> StageEnd<N> {
    idle.linger(&server.core).await;
    StageEnd::Over
}

/// Receives until the first bytes tell the protocol, because the preface of HTTP/2 may arrive in pieces.
async fn receive_preface<N: Net>(
    server: Rc<CoreServer<N>>,
    mut idle: IdleConnection<N>,
    first: Chunk,
) -> StageEnd<N> {
    let core = &server.core;
    let deadline = core.net.now() + idle.admission.listener.plan.borrow().timeouts.head;
    let mut inbox = Inbox::default();
    inbox.add(first, core.net.pool());
    while begins_http2(&idle, inbox.bytes()).is_none() {
        let Some(more) = idle.receive_more(core, deadline).await else {
            return StageEnd::Over;
        };
        inbox.add(more, core.net.pool());
    }
    match inbox.take() {
        Some(first) => StageEnd::Serve(idle, first),
        None => StageEnd::Over,
    }
}

/// Does the steps that come before the listener's protocol, then begins with that.
async fn enter<N: Net>(
    server: Rc<CoreServer<N>>,
    idle: IdleConnection<N>,
    is_http: bool,
) -> StageEnd<N> {
    match open(&server, idle).await {
        None => StageEnd::Over,
        Some((idle, Some(early))) if is_http => StageEnd::Serve(idle, early),
        Some((idle, None)) if is_http => StageEnd::Wait(idle),
        // In a box, because the bytes may pass for long.
        Some((idle, early)) => Box::pin(pass_on(server, idle, early)).await,
    }
}

/// Reads the header of the PROXY protocol, then begins TLS. Returns the bytes that arrived behind the header too, unless
/// they belong to TLS. `None`: a step failed.
async fn open<N: Net>(
    server: &CoreServer<N>,
    mut idle: IdleConnection<N>,
) -> Option<(IdleConnection<N>, Option<Chunk>)> {
    let core = &server.core;
    let plan = idle.admission.listener.plan.borrow().clone();
    let mut early = Chunk::default();
    if let Some(trusted) = &plan.proxy_protocol {
        // Only processes on this machine can open a Unix socket, so they are trusted.
        let is_trusted = idle
            .wire
            .peer
            .get()
            .is_none_or(|peer| trusted.contains(peer.ip()));
        let received = match is_trusted {
            true => idle.receive_proxy_header(core).await,
            false => Err(Reason::NotIntroduced),
        };
        match received {
            Ok(rest) => early = rest,
            Err(reason) => {
                let listener = idle.admission.listener.id.get();
                let peer = idle.wire.peer.get().map(|peer| peer.ip());
                exchange::report_turned_away(core, (listener, &plan), peer, reason);
                idle.wire.tx.abort();
                return None;
            }
        }
    }
    let Some(tls) = &plan.tls else {
        return Some((idle, Some(early).filter(|early| !early.is_empty())));
    };
    let Connection { rx, tx, peer } = idle.wire.into_raw()?;
    let halves = tls.accept((rx, tx), early, core.net.pool(), &core.handshake_queue);
    let (rx, tx) = halves.ok()?;
    let wire = Wire {
        rx: WireRx::Tls(Box::new(rx)),
        tx: WireTx::Tls(tx),
        peer: peer.into(),
    };
    Some((IdleConnection { wire, ..idle }, None))
}

/// Ends a TLS connection that gets no more requests: with a close, or with the alert or answer that says why its
/// handshake failed.
pub(super) async fn leave<N: Net>(
    server: Rc<CoreServer<N>>,
    mut idle: IdleConnection<N>,
) -> StageEnd<N> {
    let core = &server.core;
    match idle.report_handshake(core) {
        Some(TlsFailure::PlainHttp) => {
            let Some(connection) = idle.wire.into_raw() else {
                return StageEnd::Over;
            };
            let Wire { rx, tx, peer } = Wire::from(connection);
            let mut out = Outbox::new(tx, core.net.pool().clone());
            let from = (
                idle.admission.listener.id.get(),
                peer.get().map(|peer| peer.ip()),
            );
            let plan = server.plan();
            exchange::refuse_connection(core, &plan.plan, &mut out, from, Reason::PlainHttp);
            flush(core, &idle.timer, &mut out).await;
            let wire = Wire {
                rx,
                tx: out.tx,
                peer,
            };
            StageEnd::Linger(IdleConnection { wire, ..idle })
        }
        // The peer is gone; an alert would reach no one.
        Some(TlsFailure::ClosedInHandshake | TlsFailure::Timeout) => StageEnd::Over,
        None | Some(_) => StageEnd::Linger(idle),
    }
}

/// An HTTP/1.1 connection with the memory that requests need.
struct Conversation<N: Net> {
    connection: DownstreamConnection<N>,
    context: ConnectionContext,
    timer: Timer,
    request: HeadBuffer,
    buffers: ExchangeBuffers,
}

impl<N: Net> Conversation<N> {
    /// Wakes a connection up with the first bytes of a request.
    fn new(core: &Core<N>, idle: IdleConnection<N>, first: Chunk) -> Self {
        let IdleConnection {
            wire,
            timer,
            admission,
            bindings,
            ..
        } = idle;
        Self {
            context: ConnectionContext::new(admission.listener.clone(), &wire),
            connection: DownstreamConnection::new(core, wire, admission, first),
            timer,
            request: HeadBuffer::default(),
            buffers: ExchangeBuffers::new(bindings),
        }
    }

    /// Keeps only the parts that an idle connection needs.
    fn into_idle(self) -> IdleConnection<N> {
        let (wire, admission) = self.connection.rest();
        IdleConnection {
            wire,
            timer: self.timer,
            admission,
            is_new: false,
            is_shortened: false,
            bindings: self.buffers.bindings,
        }
    }

    /// Ends a connection that its client has closed. Over TLS the client gets a close or the alert, and time to read
    /// it: dropping a connection with unread bytes resets it, which could destroy what was sent. A client that has only
    /// ended its direction gets the rest of the last answer.
    fn close(mut self) -> StageEnd<N> {
        match self.connection.is_plain() && self.connection.wire.out.tx.has_sent_all() {
            true => StageEnd::Over,
            false => StageEnd::Linger(self.into_idle()),
        }
    }
}

/// Serves requests until the connection ends or has been silent for a while.
async fn converse<N: Net>(
    server: Rc<CoreServer<N>>,
    idle: IdleConnection<N>,
    first: Chunk,
) -> StageEnd<N> {
    let core = &server.core;
    let mut conversation = Conversation::new(core, idle, first);
    let _counted = core.activate();
    loop {
        let Conversation {
            connection,
            context,
            timer,
            request,
            buffers,
        } = &mut conversation;
        let mut keeps_alive = true;
        let after = match receive_head(core, connection, request, timer).await {
            Ok(true) => {
                keeps_alive = connection.machine.request().keeps_alive;
                let down = ClientSide::http1(context, timer, request, connection);
                exchange::run(core, server.plan(), down, buffers).await
            }
            Ok(false) => return conversation.close(),
            Err(fault) => {
                connection.show_unread(&request.head, &mut request.block);
                connection.machine.abandon_head();
                let down = ClientSide::http1(context, timer, request, connection);
                match exchange::refuse(core, server.plan(), down, buffers, fault).await {
                    AfterExchange::Next => AfterExchange::Close,
                    after => after,
                }
            }
        };
        match after {
            AfterExchange::Next => {}
            // The client asked for the close and has sent its last byte, so there is nothing left to read.
            AfterExchange::Close if !keeps_alive && connection.is_over() => {
                return StageEnd::Over;
            }
            AfterExchange::Close => return StageEnd::Linger(conversation.into_idle()),
            // TLS has failed: the client gets the alert, then a close.
            AfterExchange::Abort if connection.is_refused() => {
                return StageEnd::Linger(conversation.into_idle());
            }
            AfterExchange::Abort => {
                connection.wire.out.tx.abort();
                return StageEnd::Over;
            }
        }
        core.share.spend(EXCHANGE_STEPS);
        if core.share.is_spent() {
            connection.let_others_run().await;
        }
        if core.active() > WAITING_CONNECTIONS_MAX && !connection.has_more() {
            return StageEnd::Wait(conversation.into_idle());
        }
        // The next request comes in another block.
        request.block = Chunk::default();
        let wait = core.net.now() + Duration::from_millis(IDLE_AFTER_MS);
        timer.set(wait);
        let next = poll_fn(|cx| {
            timer.watch(cx);
            if let Poll::Ready(next) = connection.poll_next(cx, core) {
                return Poll::Ready(Some(next));
            }
            if connection.admission.is_unwanted() {
                return Poll::Ready(Some(None));
            }
            if core.net.now() >= wait {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        });
        match next.await {
            Some(Some(())) => {}
            Some(None) => return conversation.close(),
            None => return StageEnd::Wait(conversation.into_idle()),
        }
    }
}

/// Receives the head of a request within its deadline. `Ok(false)`: the client closed before one began.
async fn receive_head<N: Net>(
    core: &Core<N>,
    connection: &mut DownstreamConnection<N>,
    request: &mut HeadBuffer,
    timer: &Timer,
) -> Result<bool, Fault> {
    let mut deadline = None;
    poll_fn(|cx| {
        match connection.poll_head(cx, core, &mut request.head, &mut request.block) {
            Poll::Ready(Ok(complete)) => return Poll::Ready(Ok(complete)),
            Poll::Ready(Err(error)) => {
                let reason = Reason::from_request_bytes(error, connection.unread());
                return Poll::Ready(Err(Fault::downstream(Phase::Head, reason)));
            }
            Poll::Pending => {}
        }
        // Most heads arrive whole and never reach this point, so they do not read the clock.
        let now = core.net.now();
        let deadline = *deadline
            .get_or_insert_with(|| now + connection.admission.listener.plan.borrow().timeouts.head);
        timer.set(deadline);
        timer.watch(cx);
        if core.is_stopping() {
            return Poll::Ready(Err(Fault::local(Phase::Head, Reason::ShuttingDown)));
        }
        if core.holds_too_much(timer, || connection.unread().len().max(BLOCK_BYTES[0])) {
            return Poll::Ready(Err(Fault::local(Phase::Head, Reason::MemoryLimit)));
        }
        if now >= deadline {
            return Poll::Ready(Err(Fault::downstream(Phase::Head, Reason::HeadTimeout)));
        }
        Poll::Pending
    })
    .await
}

/// Refuses a connection beyond a limit, with an answer that gives the reason.
pub(super) async fn refuse<N: Net>(
    server: Rc<CoreServer<N>>,
    listener: ListenerId,
    connection: Connection<N>,
    reason: Reason,
) {
    let core = &server.core;
    let peer = connection.peer.map(|peer| peer.ip());
    let mut out = Outbox::new(connection.tx, core.net.pool().clone());
    let plan = server.plan();
    exchange::refuse_connection(core, &plan.plan, &mut out, (listener, peer), reason);
    drop(plan);
    flush(core, &core.timers.timer(), &mut out).await;
    out.tx.finish();
}

/// Sends a last answer, for at most [`LINGER_MS`].
async fn flush<N: Net, T: Tx>(core: &Core<N>, timer: &Timer, out: &mut Outbox<T>) {
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    timer.set(deadline);
    poll_fn(|cx| {
        timer.watch(cx);
        match out.poll_send(cx) {
            Poll::Pending if core.net.now() < deadline => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

/// Whether a connection speaks HTTP/2: ALPN has chosen it or, in the clear, the first bytes are the client's preface.
/// `None`: there are too few bytes to tell.
//= rfc9113#3.4
// No request of HTTP/1.1 begins like the preface.
fn begins_http2<N: Net>(idle: &IdleConnection<N>, first: &[u8]) -> Option<bool> {
    if let Some(agreed) = idle.wire.rx.tls_parameters() {
        return Some(agreed.protocol == tls::AlpnProtocol::Http2);
    }
    match idle.admission.listener.plan.borrow().takes_http2 {
        true => weir_proto_h1::looks_like_h2_preface(first),
        false => Some(false),
    }
}
