//! Endpoints over HTTP/2: connections that the exchanges of a core share.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_proto_h2::{Code, Config, Connection};

use super::mux::{Mux, Turn};
use crate::conn::{Outbox, WireRx};
use crate::core::Core;
use crate::io::{Instant, Net, Tx};
use crate::limits::{
    H2_PING_AFTER_MS, H2_PING_TIMEOUT_MS, H2_SEND_STALL_MS, H2_SETTINGS_TIMEOUT_MS, LINGER_MS,
};
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

/// Receives and sends until the connection is over.
async fn drive<N: Net>(
    core: Rc<Core<N>>,
    mux: Rc<Mux<N>>,
    mut rx: WireRx<N>,
    (_permit, mut joiner): (Permit<N>, Option<Joiner<N>>),
) {
    let timer = core.timers.timer();
    let endpoint = mux.endpoint.clone();
    let mut watch = Watch::new(core.net.now());
    let (mut first, mut taken) = (None, 0);
    poll_fn(|cx| {
        timer.watch(cx);
        let turn = mux.turn(cx, &mut rx, &mut first);
        if turn != Turn::Waits || core.is_stopping() {
            return Poll::Ready(());
        }
        // What the endpoint takes is known, or has become more.
        let takes = mux.streams_max();
        if takes > taken {
            joiner = None;
            if let Some(endpoint) = endpoint.upgrade() {
                endpoint.offer_many(takes - taken);
            }
        }
        taken = takes;
        let is_kept = endpoint.upgrade().filter(|endpoint| endpoint.keeps());
        let idle = is_kept.map_or(Duration::ZERO, |endpoint| endpoint.idle_timeout());
        let idle = if core.is_draining() {
            Duration::ZERO
        } else {
            idle
        };
        let deadline = watch.look(&core, &mux, idle);
        let state = mux.state.borrow();
        if state.machine.has_output() {
            state.wake();
        }
        if state.machine.is_over() && state.streams.is_empty() {
            return Poll::Ready(());
        }
        timer.set(deadline);
        Poll::Pending
    })
    .await;
    mux.lose();
    if let Some(endpoint) = endpoint.upgrade() {
        endpoint.unshare(&mux);
    }
    drop(joiner);
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
    mux.state.borrow_mut().out.tx.finish();
}

/// What is waited for on a connection, and since when.
struct Watch {
    /// When the connection began.
    began: Instant,
    idle: Option<Instant>,
    /// When the endpoint was asked for a sign of life.
    asked: Option<Instant>,
    /// How much was sent, and when that last grew while something waited.
    sent: (u64, Instant),
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            idle: None,
            asked: None,
            sent: (0, now),
        }
    }

    /// Does what is due, and says when to look again.
    fn look<N: Net>(&mut self, core: &Core<N>, mux: &Mux<N>, idle: Duration) -> Instant {
        let now = core.net.now();
        let mut state = mux.state.borrow_mut();
        let state = &mut *state;
        let mut next = Instant::NEVER;
        let mut is_due = |at: Instant| {
            next = next.min(if now >= at { next } else { at });
            now >= at
        };
        if state.out.sent() != self.sent.0 || state.out.queued() == 0 {
            self.sent = (state.out.sent(), now);
        } else if is_due(self.sent.1 + Duration::from_millis(H2_SEND_STALL_MS)) {
            state.machine.abort(Code::NO_ERROR);
        }
        let settings = self.began + Duration::from_millis(H2_SETTINGS_TIMEOUT_MS);
        if !state.machine.is_met() && is_due(settings) {
            state.machine.abort(Code::SETTINGS_TIMEOUT);
        }
        if state.streams.is_empty() {
            self.asked = None;
            let since = *self.idle.get_or_insert(now);
            if is_due(since + idle) {
                state.machine.shut_down();
            }
            return next;
        }
        self.idle = None;
        // An endpoint that is silent may be gone without a word.
        match self.asked {
            Some(asked) if state.heard > asked => self.asked = None,
            Some(asked) => {
                if is_due(asked + Duration::from_millis(H2_PING_TIMEOUT_MS)) {
                    state.machine.abort(Code::NO_ERROR);
                }
            }
            None => {
                if is_due(state.heard + Duration::from_millis(H2_PING_AFTER_MS)) {
                    state.machine.ping(*b"weirping");
                    self.asked = Some(now);
                    is_due(now + Duration::from_millis(H2_PING_TIMEOUT_MS));
                }
            }
        }
        next
    }
}
