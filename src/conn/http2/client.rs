//! Endpoints over HTTP/2: connections that the exchanges of a core share.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_proto_h2::{Config, Connection, Error};

use super::mux::{Mux, Turn};
use super::streams::Lost;
use super::watch::{Due, Quiet};
use crate::conn::{Outbox, WireRx};
use crate::core::{Core, Timer, guarded, report_panic};
use crate::io::{Instant, Net, Tx};
use crate::limits::{
    H2_PING_AFTER_MS, H2_PING_INTERVAL_MS, H2_PING_TIMEOUT_MS, H2_PINGS_EARLY_MAX,
    H2_SEND_STALL_MS, H2_SETTINGS_TIMEOUT_MS, LINGER_MS,
};
use crate::obs::{Http2Tally, LogLevel};
use crate::upstream::{Endpoint, Held, Joiner, Permit};

/// Begins HTTP/2 on a connection to an endpoint. Its task lives until the connection is over, and takes it off the
/// endpoint's list then. `joiner` is held until the endpoint has said how many requests it takes.
pub fn begin<N: Net>(
    core: &Rc<Core<N>>,
    endpoint: &Rc<Endpoint<N>>,
    held: Held<N>,
    config: Config,
    joiner: Option<Joiner<N>>,
) -> Rc<Mux<N>> {
    let Held { wire, permit, .. } = held;
    let out = Outbox::new(wire.tx, core.net.pool().clone());
    let machine = Connection::client(config);
    let mux = Rc::new(Mux::new(
        core.net.clone(),
        Rc::downgrade(endpoint),
        machine,
        out,
    ));
    core.net
        .spawn(drive(core.clone(), mux.clone(), wire.rx, (permit, joiner)));
    mux
}

/// Serves the connection to its end, whoever asks on it.
async fn drive<N: Net>(
    core: Rc<Core<N>>,
    mux: Rc<Mux<N>>,
    mut rx: WireRx<N>,
    (permit, mut joiner): (Permit<N>, Option<Joiner<N>>),
) {
    core.share.renew();
    let timer = core.timers.timer();
    let conversation = Box::pin(converse(&core, &mux, &mut rx, &timer, &mut joiner));
    let ended = guarded(&core, conversation).await;
    mux.lose(rx.refusal().map_or(Lost::Disconnected, Lost::Refused));
    let endpoint = mux.endpoint.upgrade();
    let name = endpoint.as_ref().map_or("an endpoint", |it| &*it.name);
    rx.tell_refusal(&core, name);
    if let Some(endpoint) = &endpoint {
        endpoint.unshare(&mux);
    }
    drop(joiner);
    if let Err(panic) = ended {
        return report_panic(&core, &*panic);
    }
    let (failure, is_met) = {
        let machine = &mux.state.borrow().machine;
        (machine.failure(), machine.has_peer_settings())
    };
    if let Some(error) = failure {
        permit.http2_failed(error);
        let obs = core.obs.borrow();
        // An answer of HTTP/1.1, say, is taken for a frame that is too large.
        let hint = match is_met {
            true => "",
            false => ", before its SETTINGS: it may not speak HTTP/2",
        };
        obs.say(
            LogLevel::Warn,
            &format!("http2: {name}: connection ended: {error}{hint}"),
        );
    }
    // What is left to be said is GOAWAY.
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
    {
        let out = &mut mux.state.borrow_mut().out;
        // What could not be sent in time must not look as if it had been all: the drop of it is a reset.
        if out.queued() == 0 {
            out.tx.finish();
        }
    }
    // The place at the endpoint is free when the connection is closed, not before.
    drop((rx, mux));
    drop(permit);
}

/// Receives and sends until the connection is over.
async fn converse<N: Net>(
    core: &Core<N>,
    mux: &Mux<N>,
    rx: &mut WireRx<N>,
    timer: &Timer,
    joiner: &mut Option<Joiner<N>>,
) {
    let endpoint = mux.endpoint.clone();
    let mut watch = Watch::new(core.net.now());
    let (mut unread, mut taken) = (None, 0);
    poll_fn(|cx| {
        timer.watch(cx);
        let turn = mux.turn(cx, rx, &mut unread, &core.share);
        // What becomes of streams is in the exchanges' reasons.
        mux.state.borrow_mut().tally = Http2Tally::default();
        if turn != Turn::Waits || core.is_stopping() {
            return Poll::Ready(());
        }
        if !core.has_memory() {
            core.wait_for_memory(cx);
        }
        // What the endpoint takes is known, or has become more.
        let takes = mux.streams_max();
        if takes > taken {
            *joiner = None;
            if let Some(endpoint) = endpoint.upgrade() {
                endpoint.offer_many(takes - taken);
            }
        }
        taken = takes;
        let parted = mux.part();
        if let Some(endpoint) = endpoint.upgrade() {
            endpoint.offer_many(parted);
        }
        let is_kept = endpoint.upgrade().filter(|endpoint| endpoint.keeps());
        let idle = is_kept.map_or(Duration::ZERO, |endpoint| endpoint.idle_timeout());
        let idle = if core.is_draining() || mux.is_leaving() {
            Duration::ZERO
        } else {
            idle
        };
        let deadline = watch.look(core, mux, idle);
        let state = mux.state.borrow();
        if state.machine.has_output() {
            state.wake();
        }
        if state.is_over() {
            return Poll::Ready(());
        }
        timer.set(deadline);
        Poll::Pending
    })
    .await;
}

/// What is waited for on a connection, and since when.
struct Watch {
    /// When the connection began.
    began: Instant,
    /// When the first of the streams began that are there.
    busy: Option<Instant>,
    /// When the endpoint was asked for a sign of life.
    asked: Option<Instant>,
    pings: Pings,
    quiet: Quiet,
}

/// The PINGs that an endpoint has got. A server of gRPC ends a connection with `too_many_pings` when three come too early
/// with none of its own messages between them, however long that takes.
#[derive(Default)]
struct Pings {
    /// Those since the last message of the endpoint's.
    sent: u8,
    /// When the last was sent.
    last: Option<Instant>,
    /// The parts of messages that the endpoint had sent when this was last looked at.
    messages: u64,
}

impl Pings {
    /// When the endpoint may be asked that has said nothing since `silent`.
    fn next(&mut self, silent: Instant, messages: u64) -> Instant {
        if messages != self.messages {
            (self.sent, self.messages) = (0, messages);
        }
        let next = silent + Duration::from_millis(H2_PING_AFTER_MS);
        match self.last {
            Some(last) if self.sent >= H2_PINGS_EARLY_MAX => {
                next.max(last + Duration::from_millis(H2_PING_INTERVAL_MS))
            }
            _ => next,
        }
    }

    fn sent(&mut self, now: Instant) {
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
    }
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            busy: None,
            asked: None,
            pings: Pings::default(),
            quiet: Quiet::default(),
        }
    }

    /// Does what is due, and says when to look again.
    fn look<N: Net>(&mut self, core: &Core<N>, mux: &Mux<N>, idle: Duration) -> Instant {
        let mut due = Due::at(core.net.now());
        let now = due.now;
        let mut state = mux.state.borrow_mut();
        let state = &mut *state;
        let patience = Duration::from_millis(H2_SEND_STALL_MS);
        if self.quiet.is_stalled(state, &mut due, patience) {
            state.machine.abort(Error::NotReading);
        }
        let settings = self.began + Duration::from_millis(H2_SETTINGS_TIMEOUT_MS);
        if !state.machine.has_peer_settings() && due.is(settings) {
            state.machine.abort(Error::SettingsTimeout);
        }
        if let Some(&(until, _)) = state.parting.front() {
            due.is(until);
        }
        let is_idle = state.streams.is_empty() && state.parting.is_empty();
        if let Some(since) = self.quiet.idle_since(state, &mut due, is_idle) {
            (self.busy, self.asked) = (None, None);
            if due.is(since + idle) {
                state.machine.shut_down();
            }
            return due.next;
        }
        // An endpoint that is silent may be gone without a word; one that was asked nothing has nothing to say.
        let silent = state.heard.max(*self.busy.get_or_insert(now));
        self.asked = self.asked.filter(|&asked| state.heard < asked);
        match self.asked {
            Some(asked) => {
                if due.is(asked + Duration::from_millis(H2_PING_TIMEOUT_MS)) {
                    state.machine.abort(Error::PingTimeout);
                }
            }
            None => {
                if due.is(self.pings.next(silent, state.messages)) {
                    state.machine.ping(*b"weirping");
                    self.pings.sent(now);
                    self.asked = Some(now);
                    due.is(now + Duration::from_millis(H2_PING_TIMEOUT_MS));
                }
            }
        }
        due.next
    }
}
