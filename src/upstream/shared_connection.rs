//! The task of an HTTP/2 connection that the exchanges of a core share.

use std::future::poll_fn;
use std::mem;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use weir_proto_h2::{Config, Connection};

use super::{ConnectingGuard, ConnectionPermit, Endpoint, LeasedConnection, StreamReservation};
use crate::conn::http2::{Mux, MuxOutcome, PeerLimits, PeerWatch, StreamLoss};
use crate::conn::{Outbox, WireRx};
use crate::core::{Core, Timer, guarded, report_panic};
use crate::io::Net;
use crate::limits::{H2_SEND_STALL_MS, H2_SETTINGS_TIMEOUT_MS, LINGER_MS};
use crate::obs::LogLevel;
use crate::plan::Protocol;

impl<N: Net> Endpoint<N> {
    /// Starts HTTP/2 on a connection and reserves the first stream for the exchange that opened it. A task serves the
    /// connection to its end and then removes it from the endpoint's list. It drops `connecting` once the endpoint's
    /// SETTINGS say how many streams it allows. `None`: the endpoint has as many requests as it may have.
    pub fn begin_http2(
        self: &Rc<Self>,
        core: &Rc<Core<N>>,
        leased: LeasedConnection<N>,
        config: Config,
        connecting: Option<ConnectingGuard<N>>,
    ) -> Option<StreamReservation<N>> {
        self.protocol.set(Protocol::Http2);
        let config = Config {
            is_https: self.uses_tls(),
            ..config
        };
        let LeasedConnection {
            connection, permit, ..
        } = leased;
        let wire = connection.into_wire();
        let out = Outbox::new(wire.tx, core.net.pool().clone());
        let machine = Connection::client(config);
        let shared = SharedConnection {
            core: core.clone(),
            mux: Rc::new(Mux::new(core.net.clone(), machine, out)),
            endpoint: Rc::downgrade(self),
        };
        let reservation = self.share(shared.mux.clone());
        core.net.spawn(serve(shared, wire.rx, permit, connecting));
        reservation
    }
}

/// An HTTP/2 connection to an endpoint, as its task sees it.
struct SharedConnection<N: Net> {
    core: Rc<Core<N>>,
    mux: Rc<Mux<N>>,
    endpoint: Weak<Endpoint<N>>,
}

/// Serves a connection to its end.
async fn serve<N: Net>(
    shared: SharedConnection<N>,
    mut rx: WireRx<N>,
    permit: ConnectionPermit<N>,
    mut connecting: Option<ConnectingGuard<N>>,
) {
    let SharedConnection { core, mux, .. } = &shared;
    core.share.renew();
    let timer = core.timers.timer();
    let conversation = Box::pin(shared.converse(&mut rx, &timer, &mut connecting));
    let ended = guarded(core, conversation).await;
    mux.lose(
        rx.refusal()
            .map_or(StreamLoss::Disconnected, StreamLoss::Refused),
    );
    let endpoint = shared.endpoint.upgrade();
    let name = endpoint.as_ref().map_or("an endpoint", |it| &*it.name);
    rx.report_refusal(core, name);
    if let Some(endpoint) = &endpoint {
        endpoint.remove_shared(mux);
    }
    drop(connecting);
    if let Err(panic) = ended {
        return report_panic(core, &*panic);
    }
    if let Some(error) = mux.failure() {
        permit.count_http2_failure(error);
        let obs = core.obs.borrow();
        // An HTTP/1.1 answer, for example, reads as an oversized frame.
        let hint = match mux.has_peer_settings() {
            true => "",
            false => ", before its SETTINGS: it may not speak HTTP/2",
        };
        obs.say(
            LogLevel::Warn,
            &format!("http2: {name}: connection ended: {error}{hint}"),
        );
    }
    // GOAWAY may be left to send.
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    timer.set(deadline);
    poll_fn(|cx| {
        timer.watch(cx);
        match mux.poll_flush(cx) {
            Poll::Pending if core.net.now() < deadline && !core.is_stopping() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
    mux.finish();
    // Free the slot only after the connection is closed.
    drop((rx, shared));
    drop(permit);
}

impl<N: Net> SharedConnection<N> {
    /// Receives and sends until the connection ends.
    async fn converse(
        &self,
        rx: &mut WireRx<N>,
        timer: &Timer,
        connecting: &mut Option<ConnectingGuard<N>>,
    ) {
        let Self { core, mux, .. } = self;
        let mut watch = PeerWatch::server(core.net.now());
        let (mut unread, mut streams_max) = (None, 0);
        poll_fn(|cx| {
            timer.watch(cx);
            let outcome = mux.advance(cx, rx, &mut unread, &core.share);
            // Exchanges count what happens to their streams.
            mux.take_tally();
            if outcome != MuxOutcome::Waits || core.is_stopping() {
                return Poll::Ready(());
            }
            if !core.has_memory() {
                core.wait_for_memory(cx);
            }
            let endpoint = self.endpoint.upgrade();
            let before = mem::replace(&mut streams_max, mux.streams_max());
            let raised = streams_max.saturating_sub(before);
            if raised > 0 {
                *connecting = None;
            }
            let freed = raised + mux.release_detached();
            if let Some(endpoint) = &endpoint {
                endpoint.offer_streams(freed);
            }
            let limits = PeerLimits {
                settings: Duration::from_millis(H2_SETTINGS_TIMEOUT_MS),
                field_block: None,
                send_stall: Duration::from_millis(H2_SEND_STALL_MS),
                idle: self.idle_timeout(endpoint.as_deref()),
                is_unwanted: false,
            };
            let Some(deadline) = watch.check(mux, &limits) else {
                return Poll::Ready(());
            };
            timer.set(deadline);
            Poll::Pending
        })
        .await;
    }

    /// How long the connection may have no stream.
    fn idle_timeout(&self, endpoint: Option<&Endpoint<N>>) -> Duration {
        let is_leaving = self.core.is_draining() || self.mux.is_leaving();
        let kept = endpoint.filter(|endpoint| endpoint.keeps_idle() && !is_leaving);
        kept.map_or(Duration::ZERO, Endpoint::idle_timeout)
    }
}
