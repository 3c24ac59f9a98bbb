//! Clients over HTTP/2: the life of a connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use weir_proto_h2::{Connection, Error, ErrorCode};

use super::down::Downstream;
use super::mux::{Asked, Idle, Mux, Turn};
use super::streams::Lost;
use super::watch::{Due, Quiet};
use crate::conn::down::Client;
use crate::conn::{Down, Kit, Outbox, WireRx};
use crate::core::{Admission, CoreListener, Timer, guarded, report_panic};
use crate::exchange::{self, After};
use crate::fault::{Fault, Phase};
use crate::io::{Chunk, Instant, Net, Tx};
use crate::limits::{H2_LEAVE_MS, H2_WORKERS_WAITING_MAX, LINGER_BYTES_MAX, LINGER_MS};
use crate::obs::LogLevel;
use crate::serving::{CoreServer, IdleConnection};
use crate::upstream::Bindings;

/// Serves a connection whose first bytes are those of HTTP/2.
pub async fn serve<N: Net>(server: Rc<CoreServer<N>>, idle: IdleConnection<N>, first: Chunk) {
    let IdleConnection {
        wire,
        timer,
        admission,
        ..
    } = idle;
    let core = server.core.clone();
    let config = admission.listener.plan.borrow().http2;
    let client = Client::of(&wire);
    let out = Outbox::new(wire.tx, core.net.pool().clone());
    let mux = Mux::new(
        core.net.clone(),
        Weak::new(),
        Connection::server(config),
        out,
    );
    let shop = Shop {
        server,
        mux: Rc::new(mux),
        door: admission.listener.clone(),
        client,
        bindings: Rc::default(),
    };
    let mut rx = wire.rx;
    core.obs.borrow().http2_opened(shop.door.id.get());
    let conversation = Box::pin(converse(&shop, &admission, &mut rx, &timer, first));
    let ended = guarded(&core, conversation).await;
    shop.mux.lose(shop.why_lost());
    match ended {
        Ok(()) => shop.tell_end(),
        Err(panic) => return report_panic(&core, &*panic),
    }
    part(&shop, &mut rx, &timer).await;
}

/// What a connection needs to set tasks to its requests.
struct Shop<N: Net> {
    server: Rc<CoreServer<N>>,
    mux: Rc<Mux<N>>,
    door: Rc<CoreListener>,
    client: Client,
    /// The connections to endpoints that belong to this one, whichever stream brought that about.
    bindings: Rc<Bindings<N>>,
}

/// Receives and sends until the connection is over.
async fn converse<N: Net>(
    shop: &Shop<N>,
    admission: &Admission<N>,
    rx: &mut WireRx<N>,
    timer: &Timer,
    first: Chunk,
) {
    let core = &shop.server.core;
    let mut unread = Some(first);
    let mut watch = Watch::new(core.net.now());
    poll_fn(|cx| {
        timer.watch(cx);
        let turn = shop.mux.turn(cx, rx, &mut unread, &core.share);
        shop.tell();
        shop.set_to_work(timer);
        if turn != Turn::Waits || core.is_stopping() {
            return Poll::Ready(());
        }
        let deadline = watch.look(shop, admission);
        if !core.has_memory() {
            core.wait_for_memory(cx);
        }
        if core.is_tight() {
            shop.mux.state.borrow_mut().weigh(timer);
        }
        let state = shop.mux.state.borrow();
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
    /// When the connection began, until its client has said that it speaks the protocol.
    began: Option<Instant>,
    /// When a field block began whose end has not come.
    block: Option<Instant>,
    /// When no more requests are taken, once the client knows that there will be an end.
    leave: Option<Instant>,
    quiet: Quiet,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            began: Some(now),
            block: None,
            leave: None,
            quiet: Quiet::default(),
        }
    }

    /// Does what is due, and says when to look again.
    fn look<N: Net>(&mut self, shop: &Shop<N>, admission: &Admission<N>) -> Instant {
        let mut due = Due::at(shop.server.core.net.now());
        let now = due.now;
        let timeouts = admission.listener.plan.borrow().timeouts;
        let mut state = shop.mux.state.borrow_mut();
        let state = &mut *state;
        if state.machine.is_acknowledged() {
            self.began = None;
        }
        if self
            .began
            .is_some_and(|began| due.is(began + timeouts.head))
        {
            state.machine.abort(Error::SettingsTimeout);
        }
        self.block = state
            .machine
            .is_within_block()
            .then(|| self.block.unwrap_or(now));
        if self
            .block
            .is_some_and(|began| due.is(began + timeouts.head))
        {
            state.machine.abort(Error::BlockTimeout);
        }
        if self.quiet.is_stalled(state, &mut due, timeouts.body_stall) {
            state.machine.abort(Error::NotReading);
            state.out.tx.abort();
        }
        if admission.is_unwanted() && self.leave.is_none() {
            self.leave = Some(now + Duration::from_millis(H2_LEAVE_MS));
            state.machine.shut_down();
        }
        if self.leave.is_some_and(|leave| due.is(leave)) {
            state.machine.stop();
        }
        let is_idle = state.streams.is_empty() && state.machine.streams() == 0;
        let idle = self.quiet.idle_since(state, &mut due, is_idle);
        if idle.is_some_and(|since| due.is(since + timeouts.idle)) {
            state.machine.stop();
        }
        due.next
    }
}

/// Sends what is left to be said, then reads until the client has closed too: a close with unread bytes would be a
/// reset, and could destroy what was said.
async fn part<N: Net>(shop: &Shop<N>, rx: &mut WireRx<N>, timer: &Timer) {
    let core = &shop.server.core;
    let deadline = core.net.now() + Duration::from_millis(LINGER_MS);
    timer.set(deadline);
    let (mut is_sent, mut is_finished, mut has_ended, mut forgotten) = (false, false, false, 0);
    poll_fn(|cx| {
        timer.watch(cx);
        if !is_sent {
            match shop.mux.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => is_sent = true,
                // TLS was given up: what is left to be said is the alert.
                Poll::Ready(Err(_)) if rx.refusal().is_some() => is_sent = true,
                Poll::Ready(Err(_)) => (is_sent, is_finished, has_ended) = (true, true, true),
            }
        }
        if is_sent && !is_finished {
            let mut state = shop.mux.state.borrow_mut();
            is_finished = state.out.tx.poll_finish(cx).is_ready();
        }
        while !has_ended {
            match rx.poll_forget(cx) {
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

impl<N: Net> Shop<N> {
    /// Tells the counters what has happened.
    fn tell(&self) {
        let tally = std::mem::take(&mut self.mux.state.borrow_mut().tally);
        if !tally.is_empty() {
            let obs = self.server.core.obs.borrow();
            obs.http2_happened(self.door.id.get(), &tally);
        }
    }

    /// What the end of the connection means for its requests: that the client has gone, unless it was sent away for what
    /// it held or did not read.
    fn why_lost(&self) -> Lost {
        match self.mux.state.borrow().machine.failure() {
            Some(error @ (Error::HoldsTooMuch | Error::NotReading)) => Lost::Misbehaved(error),
            _ => Lost::Disconnected,
        }
    }

    /// Tells how the connection ended.
    fn tell_end(&self) {
        let state = self.mux.state.borrow();
        let (failure, was_told) = (state.machine.failure(), state.machine.is_shutting_down());
        let obs = self.server.core.obs.borrow();
        obs.http2_ended(self.door.id.get(), failure, was_told);
        let Some(error) = failure.filter(|error| error.code() == ErrorCode::ENHANCE_YOUR_CALM)
        else {
            return;
        };
        let peer = self.client.address.map(|peer| peer.ip().to_string());
        let peer = peer.as_deref().unwrap_or("a client");
        let listener = &self.door.plan.borrow().name;
        obs.say(
            LogLevel::Info,
            &format!("http2: {peer} on {listener}: connection ended: {error}"),
        );
    }

    /// Starts a task for each request that none waits for. The connection, which is `whole`, answers for what they hold.
    fn set_to_work(&self, whole: &Timer) {
        let unserved = std::mem::take(&mut self.mux.state.borrow_mut().unserved);
        for _ in 0..unserved {
            let timer = self.server.core.timers.timer();
            timer.be_part_of(whole);
            let mut kit = Kit::new(timer, self.door.clone(), &self.client);
            kit.bindings = Some(self.bindings.clone());
            let work = Box::pin(work(self.server.clone(), self.mux.clone(), kit));
            let core = self.server.core.clone();
            self.server.core.net.spawn(async move {
                if let Err(panic) = guarded(&core, work).await {
                    report_panic(&core, &*panic);
                }
            });
        }
    }
}

/// Runs the exchanges of one request after the other.
async fn work<N: Net>(server: Rc<CoreServer<N>>, mux: Rc<Mux<N>>, mut kit: Kit<N>) {
    let core = &server.core;
    core.share.renew();
    let waits = Rc::default();
    while let Some(asked) = next(&mux, &mut kit, &waits).await {
        let _counted = core.activate();
        let refused = asked.refused;
        let mut wire = Downstream::new(mux.clone(), asked, &mut kit);
        let mut down = Down::http2(&mut kit, &mut wire);
        let after = match refused {
            None => exchange::run(core, server.plan(), &mut down).await,
            Some(error) => {
                let fault = Fault::downstream(Phase::Head, error.into());
                exchange::refuse(core, server.plan(), &mut down, fault).await
            }
        };
        if matches!(after, After::Abort) {
            wire.abort();
        }
    }
}

/// Waits for a request that no task has taken. `None`: the connection is over, or enough tasks wait.
async fn next<N: Net>(mux: &Mux<N>, kit: &mut Kit<N>, waits: &Rc<Cell<bool>>) -> Option<Asked> {
    kit.timer.set(Instant::NEVER);
    kit.block = Chunk::default();
    let has_waited = Cell::new(false);
    poll_fn(|cx| {
        let mut state = mux.state.borrow_mut();
        if waits.replace(false) {
            // Woken by somebody else than who has a request: none is to be lost on it.
            state.workers.retain(|idle| !Rc::ptr_eq(&idle.waits, waits));
        }
        if let Some(asked) = state.take_request() {
            return Poll::Ready(Some(asked));
        }
        // Called for nothing: whoever calls a task to have it end does so.
        let enough = state.workers.len() >= H2_WORKERS_WAITING_MAX;
        if has_waited.replace(true) || state.is_gone || enough {
            return Poll::Ready(None);
        }
        waits.set(true);
        state.workers.push(Idle {
            task: cx.waker().clone(),
            waits: waits.clone(),
        });
        Poll::Pending
    })
    .await
}
