//! The life of a connection: it waits, it converses, it waits again or ends.
//!
//! While it waits it is a small future ([`Line`]). What requests need lives in a box of its own ([`Down`]) that is
//! made when bytes come and given back when none have come for a while; in between, requests on the connection
//! allocate nothing.

mod down;
mod inbox;
mod line;
mod outbox;
mod tunnel;
mod up;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use down::{Down, Piece};
pub use line::Line;
pub use outbox::Outbox;
pub use tunnel::tunnel;
pub use up::{Answer, Up};

use crate::core::{Core, Pass};
use crate::exchange::{self, After};
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Connection, Net, Tx};
use crate::limits::{LINGER_MS, REST_AFTER_MS, WAITING_CONVERSATIONS_MAX};
use crate::obs::Level;
use crate::plan::ListenerId;

/// Serves a client's connection to its end.
pub fn serve<N: Net>(
    core: Rc<Core<N>>,
    pass: Pass<N>,
    connection: Connection<N>,
) -> impl Future<Output = ()> {
    let timer = core.timers.timer();
    let mut line = Line {
        connection,
        timer,
        pass,
        is_new: true,
    };
    // A block and not an `async fn`: it uses what it captures in place, where arguments would be kept twice.
    async move {
        while let Some(first) = line.wait(&core).await {
            let down = Down::new(&core, line, first);
            match guarded(Box::pin(converse(core.clone(), down))).await {
                Ok(Then::Wait(rested)) => line = rested,
                Ok(Then::End(mut rested)) => return rested.linger(&core).await,
                Ok(Then::Drop) => return,
                Err(panic) => {
                    let obs = core.obs.borrow();
                    obs.panicked();
                    return obs.say(Level::Error, message(&*panic));
                }
            }
        }
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
async fn converse<N: Net>(core: Rc<Core<N>>, mut down: Down<N>) -> Then<N> {
    let _counted = core.conversation();
    loop {
        match head(&core, &mut down).await {
            Ok(true) => {}
            Ok(false) => return Then::Drop,
            Err(fault) => {
                return match exchange::refuse(&core, &mut down, fault).await {
                    After::Abort => abort(down),
                    After::Next | After::Close => end(down),
                };
            }
        }
        match exchange::run(&core, &mut down).await {
            After::Next => {}
            After::Close => return end(down),
            After::Abort => return abort(down),
        }
        if core.conversations() > WAITING_CONVERSATIONS_MAX && !down.has_more() {
            return Then::Wait(down.rest());
        }
        let wait = core.net.now() + Duration::from_millis(REST_AFTER_MS);
        down.timer.set(wait);
        let next = poll_fn(|cx| {
            down.timer.watch(cx);
            if let Poll::Ready(next) = down.poll_next(cx, &core) {
                return Poll::Ready(Some(next));
            }
            if down.pass.is_unwanted() {
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
            Some(None) => return Then::Drop,
            None => return Then::Wait(down.rest()),
        }
    }
}

/// Reads the head of a request within its deadline. `Ok(false)`: the client closed before one began.
async fn head<N: Net>(core: &Rc<Core<N>>, down: &mut Down<N>) -> Result<bool, Fault> {
    let mut deadline = None;
    poll_fn(|cx| {
        match down.poll_head(cx, core) {
            Poll::Ready(Ok(complete)) => return Poll::Ready(Ok(complete)),
            Poll::Ready(Err(error)) => {
                let reason = Reason::from_request_bytes(error, down.unread());
                return Poll::Ready(Err(Fault::downstream(Phase::Head, reason)));
            }
            Poll::Pending => {}
        }
        // Most heads come whole: the clock is only read for those that do not.
        let now = core.net.now();
        let deadline =
            *deadline.get_or_insert_with(|| now + down.pass.door.plan.borrow().timeouts.head);
        down.timer.set(deadline);
        down.timer.watch(cx);
        if core.is_stopping() {
            return Poll::Ready(Err(Fault::local(Phase::Head, Reason::ShuttingDown)));
        }
        if now >= deadline {
            return Poll::Ready(Err(Fault::downstream(Phase::Head, Reason::HeadTimeout)));
        }
        Poll::Pending
    })
    .await
}

/// Ends our direction. The client's is still read, so that it can read the last answer: a close with unread bytes, or
/// before the client has closed, would reset it.
fn end<N: Net>(mut down: Down<N>) -> Then<N> {
    down.end();
    if down.has_ended() {
        Then::Drop
    } else {
        Then::End(down.rest())
    }
}

/// Breaks the connection off, so that the client sees that something is missing.
fn abort<N: Net>(mut down: Down<N>) -> Then<N> {
    down.abort();
    Then::Drop
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
    let timer = core.timers.timer();
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
    out.tx.finish();
}

/// Runs a future so that its panic ends it alone and not the core.
fn guarded<T>(
    mut future: Pin<Box<impl Future<Output = T>>>,
) -> impl Future<Output = Result<T, Box<dyn Any + Send>>> {
    poll_fn(move |cx: &mut Context<'_>| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
