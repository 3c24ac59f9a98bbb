//! The life of a client's connection over HTTP/2: one task for the connection, and workers for its requests.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_proto_h2::{Connection, Error, ErrorCode};

use super::client_connection::StageEnd;
use super::{CoreServer, IdleConnection};
use crate::conn::http2::{
    DownstreamStream, Mux, MuxOutcome, PeerLimits, PeerWatch, StreamLoss, Worker,
};
use crate::conn::{ClientBindings, ClientSide, ConnectionContext, HeadBuffer, Outbox, WireRx};
use crate::core::{Admission, Timer, guarded, report_panic};
use crate::exchange::{self, AfterExchange, ExchangeBuffers};
use crate::fault::{Fault, Phase};
use crate::io::{Chunk, Instant, Net};
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS};
use crate::obs::LogLevel;

/// Serves a connection whose first bytes are those of HTTP/2.
pub(super) async fn serve<N: Net>(
    server: Rc<CoreServer<N>>,
    idle: IdleConnection<N>,
    first: Chunk,
) -> StageEnd<N> {
    let IdleConnection {
        wire,
        timer,
        admission,
        ..
    } = idle;
    let core = server.core.clone();
    let config = admission.listener.plan.borrow().http2;
    let context = ConnectionContext::new(admission.listener.clone(), &wire);
    let out = Outbox::new(wire.tx, core.net.pool().clone());
    let mux = Mux::new(core.net.clone(), Connection::server(config), out);
    let connection = ServerConnection {
        server,
        mux: Rc::new(mux),
        context: Rc::new(context),
        bindings: Rc::default(),
    };
    let mut rx = wire.rx;
    core.obs
        .borrow()
        .http2_opened(connection.context.listener.id.get());
    let conversation = Box::pin(converse(&connection, &admission, &mut rx, &timer, first));
    let ended = guarded(&core, conversation).await;
    connection.mux.lose(connection.stream_loss());
    match ended {
        Ok(()) => connection.report_end(),
        Err(panic) => {
            report_panic(&core, &*panic);
            return StageEnd::Over;
        }
    }
    linger(&connection, &mut rx, &timer).await;
    StageEnd::Over
}

/// The state that the connection's task shares with its workers.
struct ServerConnection<N: Net> {
    server: Rc<CoreServer<N>>,
    mux: Rc<Mux<N>>,
    context: Rc<ConnectionContext>,
    /// The endpoint connections bound to the client's connection, whichever stream bound them.
    bindings: Rc<ClientBindings>,
}

/// Receives and sends until the connection is over.
async fn converse<N: Net>(
    connection: &ServerConnection<N>,
    admission: &Admission<N>,
    rx: &mut WireRx<N>,
    timer: &Timer,
    first: Chunk,
) {
    let core = &connection.server.core;
    let mut unread = Some(first);
    let mut watch = PeerWatch::client(core.net.now());
    poll_fn(|cx| {
        timer.watch(cx);
        let outcome = connection.mux.advance(cx, rx, &mut unread, &core.share);
        connection.count_tally();
        connection.spawn_workers(timer);
        if outcome != MuxOutcome::Waits || core.is_stopping() {
            return Poll::Ready(());
        }
        if !core.has_memory() {
            core.wait_for_memory(cx);
        }
        if core.is_memory_short() {
            connection.mux.charge_memory(timer);
        }
        let timeouts = admission.listener.plan.borrow().timeouts;
        let limits = PeerLimits {
            settings: timeouts.head,
            field_block: Some(timeouts.head),
            send_stall: timeouts.body_stall,
            idle: timeouts.idle,
            is_unwanted: admission.is_unwanted(),
        };
        let Some(deadline) = watch.check(&connection.mux, &limits) else {
            return Poll::Ready(());
        };
        timer.set(deadline);
        Poll::Pending
    })
    .await;
}

/// Sends the last frames, then discards the bytes that the client sends until it has closed too. Dropping a connection
/// with unread bytes would reset it, and a reset can destroy sent frames before the client reads them.
async fn linger<N: Net>(connection: &ServerConnection<N>, rx: &mut WireRx<N>, timer: &Timer) {
    let core = &connection.server.core;
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    timer.set(deadline);
    let (mut is_sent, mut is_finished, mut has_ended, mut forgotten) = (false, false, false, 0);
    poll_fn(|cx| {
        timer.watch(cx);
        if !is_sent {
            match connection.mux.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => is_sent = true,
                // TLS has failed: send the alert.
                Poll::Ready(Err(_)) if rx.refusal().is_some() => is_sent = true,
                Poll::Ready(Err(_)) => (is_sent, is_finished, has_ended) = (true, true, true),
            }
        }
        if is_sent && !is_finished {
            is_finished = connection.mux.poll_finish(cx).is_ready();
        }
        while !has_ended {
            match rx.poll_discard(cx) {
                Poll::Ready(Ok(Some(chunk))) if forgotten < LINGER_BYTES_MAX => {
                    forgotten += chunk.len();
                }
                Poll::Ready(_) => has_ended = true,
                Poll::Pending => break,
            }
        }
        let is_over = (is_finished && has_ended) || core.net.now() >= deadline;
        if is_over || core.is_stopping() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl<N: Net> ServerConnection<N> {
    /// Adds the events of the connection to the counters.
    fn count_tally(&self) {
        let tally = self.mux.take_tally();
        if !tally.is_empty() {
            let obs = self.server.core.obs.borrow();
            obs.http2_happened(self.context.listener.id.get(), &tally);
        }
    }

    /// Why the streams end with the connection: the client has left, or Weir has ended the connection because the
    /// client made it hold too much or did not read.
    fn stream_loss(&self) -> StreamLoss {
        match self.mux.failure() {
            Some(error @ (Error::HoldsTooMuch | Error::NotReading)) => {
                StreamLoss::Misbehaved(error)
            }
            _ => StreamLoss::Disconnected,
        }
    }

    /// Counts how the connection ended. If it ended with ENHANCE_YOUR_CALM, logs the client.
    fn report_end(&self) {
        let (failure, was_told) = (self.mux.failure(), self.mux.has_announced_end());
        let obs = self.server.core.obs.borrow();
        obs.http2_ended(self.context.listener.id.get(), failure, was_told);
        let Some(error) = failure.filter(|error| error.code() == ErrorCode::ENHANCE_YOUR_CALM)
        else {
            return;
        };
        let peer = self.context.ip().map(|ip| ip.to_string());
        let peer = peer.as_deref().unwrap_or("a client");
        let listener = &self.context.listener.plan.borrow().name;
        obs.say(
            LogLevel::Info,
            &format!("http2: {peer} on {listener}: connection ended: {error}"),
        );
    }

    /// Starts a worker for each request that no worker waits for. Their memory is charged to the connection, whose
    /// timer is `whole`.
    fn spawn_workers(&self, whole: &Timer) {
        for _ in 0..self.mux.take_workers_needed() {
            let timer = self.server.core.timers.timer();
            timer.charge_to(whole);
            let (server, mux) = (self.server.clone(), self.mux.clone());
            let buffers = ExchangeBuffers::new(Some(self.bindings.clone()));
            let worker = Box::pin(serve_requests(
                server,
                mux,
                self.context.clone(),
                timer,
                buffers,
            ));
            let core = self.server.core.clone();
            self.server.core.net.spawn(async move {
                if let Err(panic) = guarded(&core, worker).await {
                    report_panic(&core, &*panic);
                }
            });
        }
    }
}

/// Runs the exchanges of one request after another, until the connection is over or enough workers wait.
async fn serve_requests<N: Net>(
    server: Rc<CoreServer<N>>,
    mux: Rc<Mux<N>>,
    context: Rc<ConnectionContext>,
    timer: Timer,
    mut buffers: ExchangeBuffers,
) {
    let core = &server.core;
    core.share.renew();
    let worker = Worker::default();
    let mut request = HeadBuffer::default();
    loop {
        timer.set(Instant::NEVER);
        request.block = Chunk::default();
        let next = poll_fn(|cx| mux.poll_request(cx, &worker));
        let Some(pending) = next.await else {
            return;
        };
        let _counted = core.activate();
        let refused = pending.refused;
        let mut stream = DownstreamStream::new(mux.clone(), pending, &mut request);
        let down = ClientSide::http2(&context, &timer, &mut request, &mut stream);
        let after = match refused {
            None => exchange::run(core, server.plan(), down, &mut buffers).await,
            Some(error) => {
                let fault = Fault::downstream(Phase::Head, error.into());
                exchange::refuse(core, server.plan(), down, &mut buffers, fault).await
            }
        };
        if matches!(after, AfterExchange::Abort) {
            stream.abort();
        }
    }
}
