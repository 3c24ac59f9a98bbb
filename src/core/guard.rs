//! Panics end one connection or request, never the core.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Core;
use crate::io::Net;
use crate::obs::LogLevel;

/// Runs a future and catches its panic. Each new poll begins with a whole [`Share`](super::Share).
pub fn guarded<N: Net, T>(
    core: &Core<N>,
    mut future: Pin<Box<impl Future<Output = T>>>,
) -> impl Future<Output = Result<T, Box<dyn Any + Send>>> {
    let mut is_first = true;
    poll_fn(move |cx: &mut Context<'_>| {
        // The first poll runs within the caller's poll, which has its share already.
        if !mem::take(&mut is_first) {
            core.share.renew();
        }
        poll_guarded(core, cx, future.as_mut())
    })
}

/// Polls a future and catches its panic, after which the future must not be polled again.
pub fn poll_guarded<N: Net, F: Future + ?Sized>(
    core: &Core<N>,
    cx: &mut Context<'_>,
    future: Pin<&mut F>,
) -> Poll<Result<F::Output, Box<dyn Any + Send>>> {
    let mut polled = Poll::Pending;
    // A closure that returned the outcome would copy it, although most outcomes are pending.
    let ended = catch_unwind(AssertUnwindSafe(|| polled = future.poll(cx)));
    core.notice_memory_shortage();
    match ended {
        Ok(()) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}

/// Counts a panic and logs its message.
pub fn report_panic<N: Net>(core: &Core<N>, panic: &(dyn Any + Send)) {
    let obs = core.obs.borrow();
    obs.panicked();
    obs.say(LogLevel::Error, message(panic));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
