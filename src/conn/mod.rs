//! The life of a connection: it waits, it converses, it waits again or ends.
//!
//! While it waits it is a small future ([`Line`]). What requests need lives in a box of its own ([`Kit`]) that is
//! made when bytes come and given back when none have come for a while; in between, requests on the connection
//! allocate nothing.

mod down;
pub mod http1;
pub mod http2;
mod inbox;
mod line;
mod outbox;
pub mod proxy_protocol;
mod tunnel;
mod up;
mod wire;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use down::{Down, Kit, Piece};
pub use line::Line;
pub use outbox::Outbox;
pub use tunnel::{End, tunnel};
pub use up::{Answer, Up};
pub use wire::{Wire, WireRx, WireTx};

use http1::Downstream;
use inbox::Inbox;

use crate::core::{Core, Pass, Timer};
use crate::exchange::{self, After};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Chunk, Connection, Net, Tx};
use crate::limits::{
    BLOCK_BYTES, EXCHANGE_STEPS, LINGER_MS, REST_AFTER_MS, WAITING_CONVERSATIONS_MAX,
};
use crate::obs::LogLevel;
use crate::plan::ListenerId;
use crate::tls::{self, TlsFailure};

/// Serves a client's connection to its end.
pub fn serve<N: Net>(
    core: Rc<Core<N>>,
    pass: Pass<N>,
    connection: Connection<N>,
) -> impl Future<Output = ()> {
    let has_entry = {
        let plan = pass.door.plan.borrow();
        plan.tls.is_some() || plan.proxy_protocol.is_some()
    };
    let mut line = Line {
        wire: connection.into(),
        timer: core.timers.timer(),
        pass,
        is_new: true,
        early: None,
        bindings: None,
    };
    // A block and not an `async fn`: it uses what it captures in place, where arguments would be kept twice.
    async move {
        core.share.renew();
        if has_entry {
            // In a box: only some listeners have it, and it is soon over.
            let Some(entered) = Box::pin(enter(&core, line)).await else {
                return;
            };
            line = entered;
        }
        loop {
            let Some(mut first) = line.wait(&core).await else {
                return match line.wire.rx {
                    WireRx::Plain(_) => {}
                    WireRx::Tls(_) => Box::pin(leave(core, line)).await,
                };
            };
            if line.is_new && begins_http2(&line, &first).is_none() {
                match Box::pin(beginning(&core, &mut line, first)).await {
                    Some(whole) => first = whole,
                    None => return,
                }
            }
            if line.is_new && begins_http2(&line, &first) == Some(true) {
                line.tell_handshake(&core);
                return Box::pin(http2::serve(core, line, first)).await;
            }
            line.tell_handshake(&core);
            let (wire, kit) = Downstream::new(&core, line, first);
            // Nothing of what it says is held while the connection lingers.
            let ended = match guarded(&core, Box::pin(converse(core.clone(), wire, kit))).await {
                Ok(Then::Wait(rested)) => {
                    line = rested;
                    continue;
                }
                Ok(Then::End(rested)) => Box::new(rested),
                Ok(Then::Drop) => return,
                Err(panic) => return report_panic(&core, &*panic),
            };
            return Box::pin(linger(core, ended)).await;
        }
    }
}

/// Ends a connection whose last answer is on its way.
async fn linger<N: Net>(core: Rc<Core<N>>, mut line: Box<Line<N>>) {
    line.linger(&core).await;
}

/// Receives until it can be told from the first bytes what is spoken: a preface of HTTP/2 may come in pieces. `None`:
/// closed, or too slow.
async fn beginning<N: Net>(core: &Rc<Core<N>>, line: &mut Line<N>, first: Chunk) -> Option<Chunk> {
    let deadline = core.net.now() + line.pass.door.plan.borrow().timeouts.head;
    let mut inbox = Inbox::default();
    inbox.add(first, core.net.pool());
    while begins_http2(line, inbox.bytes()).is_none() {
        let more = line.wait_until(core, deadline).await?;
        inbox.add(more, core.net.pool());
    }
    inbox.take()
}

/// What comes before HTTP: who the client is, where a load balancer says it, and then TLS. `None`: it did not come to
/// that.
async fn enter<N: Net>(core: &Rc<Core<N>>, mut line: Line<N>) -> Option<Line<N>> {
    let plan = line.pass.door.plan.borrow().clone();
    let mut early = Chunk::default();
    if let Some(trusted) = &plan.proxy_protocol {
        // Whoever can open a Unix socket is on this machine.
        let is_trusted = line
            .wire
            .peer
            .is_none_or(|peer| trusted.contains(peer.ip()));
        let introduced = match is_trusted {
            true => line.introduce(core).await,
            false => Err(Reason::NotIntroduced),
        };
        match introduced {
            Ok(rest) => early = rest,
            Err(reason) => {
                let listener = line.pass.door.id.get();
                let peer = line.wire.peer.map(|peer| peer.ip());
                exchange::turn_away(core, (listener, peer), reason);
                line.wire.tx.abort();
                return None;
            }
        }
    }
    let Some(tls) = &plan.tls else {
        line.early = (!early.is_empty()).then(|| Box::new(early));
        return Some(line);
    };
    let Connection { rx, tx, peer } = line.wire.into_raw()?;
    let halves = tls.accept((rx, tx), early, core.net.pool(), &core.handshake_queue);
    let (rx, tx) = halves.ok()?;
    let wire = Wire {
        rx: WireRx::Tls(Box::new(rx)),
        tx: WireTx::Tls(tx),
        peer,
    };
    Some(Line { wire, ..line })
}

/// Ends a TLS connection that waits: says so, or why it never came to anything.
async fn leave<N: Net>(core: Rc<Core<N>>, mut line: Line<N>) {
    match line.tell_handshake(&core) {
        None => line.linger(&core).await,
        Some(TlsFailure::PlainHttp) => {
            let Some(connection) = line.wire.into_raw() else {
                return;
            };
            let Wire { rx, tx, peer } = Wire::from(connection);
            let mut out = Outbox::new(tx, core.net.pool().clone());
            let from = (line.pass.door.id.get(), peer.map(|peer| peer.ip()));
            exchange::refuse_connection(&core, &mut out, from, Reason::PlainHttp);
            flush(&core, &line.timer, &mut out).await;
            let wire = Wire {
                rx,
                tx: out.tx,
                peer,
            };
            Line { wire, ..line }.linger(&core).await;
        }
        // Nobody is there, or nobody who would hear it.
        Some(TlsFailure::ClosedInHandshake | TlsFailure::Timeout) => {}
        Some(_) => line.linger(&core).await,
    }
}

/// How a conversation ends.
enum Then<N: Net> {
    /// Nothing has come for a while: the connection waits.
    Wait(Line<N>),
    /// The last answer is on its way: the connection ends when the client has read it.
    End(Line<N>),
    /// The connection is gone, or is to be.
    Drop,
}

/// Serves requests until the connection ends or has been silent for a while.
async fn converse<N: Net>(core: Rc<Core<N>>, mut wire: Downstream<N>, mut kit: Kit<N>) -> Then<N> {
    let _counted = core.conversation();
    loop {
        let mut wanted = true;
        let after = match head(&core, &mut wire, &mut kit).await {
            Ok(true) => {
                wanted = wire.machine.request().persists;
                exchange::run(&core, &mut Down::http1(&mut kit, &mut wire)).await
            }
            Ok(false) => return left(wire, kit),
            Err(fault) => {
                wire.show_unread(&mut kit);
                wire.machine.give_up_head();
                let down = &mut Down::http1(&mut kit, &mut wire);
                match exchange::refuse(&core, down, fault).await {
                    After::Next => After::Close,
                    after => after,
                }
            }
        };
        match after {
            After::Next => {}
            // A client that asked for the end sends nothing more that would have to be read.
            After::Close if !wanted && wire.is_over() => return Then::Drop,
            After::Close => return Then::End(wire.rest(kit)),
            // What is said of a connection that TLS gave up is the alert, and its end is no orderly one.
            After::Abort if wire.is_refused() => return Then::End(wire.rest(kit)),
            After::Abort => {
                wire.out.tx.abort();
                return Then::Drop;
            }
        }
        core.share.spend(EXCHANGE_STEPS);
        if core.share.is_spent() {
            wire.let_others_run().await;
        }
        if core.conversations() > WAITING_CONVERSATIONS_MAX && !wire.has_more() {
            return Then::Wait(wire.rest(kit));
        }
        let wait = core.net.now() + Duration::from_millis(REST_AFTER_MS);
        kit.timer.set(wait);
        let next = poll_fn(|cx| {
            kit.timer.watch(cx);
            if let Poll::Ready(next) = wire.poll_next(cx, &core) {
                return Poll::Ready(Some(next));
            }
            if wire.pass.is_unwanted() {
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
            Some(None) => return left(wire, kit),
            None => return Then::Wait(wire.rest(kit)),
        }
    }
}

/// How a connection is left whose client has ended it: over TLS our end is said too, or what was wrong, and a close with
/// unread bytes would be a reset, which could destroy that.
fn left<N: Net>(wire: Downstream<N>, kit: Kit<N>) -> Then<N> {
    match wire.is_plain() {
        true => Then::Drop,
        false => Then::End(wire.rest(kit)),
    }
}

/// Reads the head of a request within its deadline. `Ok(false)`: the client closed before one began.
async fn head<N: Net>(
    core: &Rc<Core<N>>,
    wire: &mut Downstream<N>,
    kit: &mut Kit<N>,
) -> Result<bool, Fault> {
    let mut deadline = None;
    poll_fn(|cx| {
        match wire.poll_head(cx, core, kit) {
            Poll::Ready(Ok(complete)) => return Poll::Ready(Ok(complete)),
            Poll::Ready(Err(error)) => {
                let reason = Reason::from_request_bytes(error, wire.unread());
                return Poll::Ready(Err(Fault::downstream(Phase::Head, reason)));
            }
            Poll::Pending => {}
        }
        // Most heads come whole: the clock is only read for those that do not.
        let now = core.net.now();
        let deadline = *deadline.get_or_insert_with(|| now + kit.door.plan.borrow().timeouts.head);
        kit.timer.set(deadline);
        kit.timer.watch(cx);
        if core.is_stopping() {
            return Poll::Ready(Err(Fault::local(Phase::Head, Reason::ShuttingDown)));
        }
        if kit.holds_too_much(core, || wire.unread().len().max(BLOCK_BYTES[0])) {
            return Poll::Ready(Err(Fault::local(Phase::Head, Reason::MemoryLimit)));
        }
        if now >= deadline {
            return Poll::Ready(Err(Fault::downstream(Phase::Head, Reason::HeadTimeout)));
        }
        Poll::Pending
    })
    .await
}

/// Turns a connection away that came in at this listener and is one too many, with an answer that says so.
pub async fn refuse<N: Net>(
    core: Rc<Core<N>>,
    listener: ListenerId,
    connection: Connection<N>,
    reason: Reason,
) {
    let peer = connection.peer.map(|peer| peer.ip());
    let mut out = Outbox::new(connection.tx, core.net.pool().clone());
    exchange::refuse_connection(&core, &mut out, (listener, peer), reason);
    flush(&core, &core.timers.timer(), &mut out).await;
    out.tx.finish();
}

/// Sends a last answer, if that takes no longer than it may.
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

/// Runs a future so that its panic ends it alone and not the core. Whenever it is polled anew, it has a whole share.
fn guarded<N: Net, T>(
    core: &Rc<Core<N>>,
    mut future: Pin<Box<impl Future<Output = T>>>,
) -> impl Future<Output = Result<T, Box<dyn Any + Send>>> {
    let core = core.clone();
    let mut is_first = true;
    poll_fn(move |cx: &mut Context<'_>| {
        // The first poll is part of one that has begun already.
        if !mem::take(&mut is_first) {
            core.share.renew();
        }
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        core.look_at_memory();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
}

/// Whether the first bytes of a connection are those of HTTP/2, by agreement, or by a client that knows beforehand
/// that we speak it. `None`: there are too few to tell.
//= rfc9113#3.4
// What comes first is unlike any request of HTTP/1.1.
fn begins_http2<N: Net>(line: &Line<N>, first: &[u8]) -> Option<bool> {
    if let Some(agreed) = line.wire.rx.tls_parameters() {
        return Some(agreed.protocol == tls::AlpnProtocol::Http2);
    }
    match line.pass.door.plan.borrow().takes_http2 {
        true => weir_proto_h1::looks_like_h2_preface(first),
        false => Some(false),
    }
}

/// Counts a panic and says what it said.
fn report_panic<N: Net>(core: &Core<N>, panic: &(dyn Any + Send)) {
    let obs = core.obs.borrow();
    obs.panicked();
    obs.say(LogLevel::Error, message(panic));
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
