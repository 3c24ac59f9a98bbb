//! Bytes both ways, as they are: a connection that has switched protocols.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::ClientSide;
use crate::core::Core;
use crate::io::{Chunk, Instant, Net};

/// One side of an exchange: what carries a message, or bytes once protocols were switched.
pub trait End {
    /// Bytes that have not left yet.
    fn queued(&self) -> usize;
    /// Bytes that may wait before their source is no longer read.
    fn queued_high(&self) -> usize;
    /// Whether no more is to be queued now.
    fn is_full(&self) -> bool {
        self.queued() >= self.queued_high()
    }
    /// Bytes that have left, counted from some time before the exchange: how progress is told from standing still.
    fn sent(&self) -> u64;
    /// Sends what is queued; ready when all of it has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Waits for bytes, once HTTP is given up. `None` is the orderly end.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>;
    /// Queues bytes, once HTTP is given up.
    fn send_raw(&mut self, bytes: Chunk);
    /// Ends the sending direction in an orderly way, once HTTP is given up; ready when what that takes is sent.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Relays until both directions have ended, one has broken, or nothing has moved for `idle`. A client that takes nothing of
/// what waits for it for that long is gone as well, whatever it sends meanwhile.
pub async fn tunnel<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut ClientSide<'_, N>,
    mut up: impl End,
    idle: Duration,
) -> Passed {
    // Heads that are still queued are not the tunnel's bytes.
    let before = (
        up.sent() + up.queued() as u64,
        down.sent() + down.queued() as u64,
    );
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let (mut moved, mut last) = (u64::MAX, Instant::default());
    let mut is_stalled = false;
    let (mut taken, mut since) = (u64::MAX, Instant::default());
    poll_fn(|cx| {
        down.timer.watch(cx);
        let broken = there.poll(cx, core, down, &mut up).is_err()
            || back.poll(cx, core, &mut up, down).is_err();
        let held = || up.queued() + down.queued();
        let is_unwanted = core.is_stopping() || down.holds_too_much(core, held);
        if broken || (there.finished && back.finished) || is_unwanted {
            return Poll::Ready(());
        }
        let now = core.net.now();
        let sent = down.sent();
        let sum = up.sent().wrapping_add(sent);
        if sum != moved {
            (moved, last) = (sum, now);
        }
        if down.queued() == 0 || sent != taken {
            (taken, since) = (sent, now);
        }
        let deadline = last.min(since) + idle;
        down.timer.set(deadline);
        if now >= deadline {
            is_stalled = down.queued() > 0;
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    Passed {
        sent: up.sent().saturating_sub(before.0),
        received: down.sent().saturating_sub(before.1),
        is_stalled,
    }
}

/// What passed through a tunnel.
pub struct Passed {
    /// Bytes that went to the endpoint.
    pub sent: u64,
    /// Bytes that went to the client.
    pub received: u64,
    /// The client was given up: it takes nothing of what waits for it.
    pub is_stalled: bool,
}

/// How far one direction is.
#[derive(Default)]
struct Direction {
    ended: bool,
    finished: bool,
}

impl Direction {
    /// Moves what can be moved. An error means that the direction broke.
    fn poll<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<()> {
        loop {
            let sent = match to.poll_send(cx) {
                Poll::Ready(sent) => sent.map(|()| true)?,
                Poll::Pending => false,
            };
            if self.ended {
                if sent && !self.finished {
                    self.finished = to.poll_finish(cx).is_ready();
                }
                return Ok(());
            }
            if to.is_full() || !core.may_take_memory(cx) {
                return Ok(());
            }
            match from.poll_raw(cx) {
                Poll::Ready(Ok(Some(bytes))) => to.send_raw(bytes),
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }
}
