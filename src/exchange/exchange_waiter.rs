//! How an exchange waits: between attempts, and for a connection or stream.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::Exchange;
use super::replay::Replay;
use crate::fault::{Fault, Phase, Reason};
use crate::io::{Instant, Net};
use crate::upstream::Waiter;

/// Waits on behalf of an exchange. The wait fails if the client leaves, the time of the exchange is over, or memory is
/// short.
pub(super) struct ExchangeWaiter<'w, 'a, N: Net> {
    pub(super) exchange: &'w mut Exchange<'a, N>,
    /// The part of the body that the exchange keeps during the wait. It counts as memory that the exchange holds.
    pub(super) replay: &'w Replay,
}

impl<N: Net> Waiter for ExchangeWaiter<'_, '_, N> {
    async fn until<T>(
        &mut self,
        deadline: Instant,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Fault> {
        let (core, total) = (self.exchange.core, self.exchange.deadline);
        let down = &mut self.exchange.down;
        down.timer.set(total.min(deadline));
        poll_fn(|cx| {
            down.timer.watch(cx);
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(Some(done)));
            }
            down.poll_watch(cx, core)?;
            let now = core.net.now();
            let held = || down.held() + self.replay.held();
            let fault = if down.holds_too_much(core, held) {
                Fault::local(Phase::Connect, Reason::MemoryLimit)
            } else if down.is_cut_short() {
                Fault::downstream(Phase::Connect, Reason::ClientClosed)
            } else if core.is_stopping() {
                Fault::local(Phase::Connect, Reason::ShuttingDown)
            } else if now >= total {
                Fault::local(Phase::Connect, Reason::TotalTimeout)
            } else if now >= deadline {
                return Poll::Ready(Ok(None));
            } else {
                return Poll::Pending;
            };
            Poll::Ready(Err(fault))
        })
        .await
    }
}
