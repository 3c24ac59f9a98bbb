//! Raw bytes in both directions: a connection that has switched protocols.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{ClientSide, TunnelEnd};
use crate::core::Core;
use crate::io::{Instant, Net};

/// Relays bytes until both directions have ended, one has broken, or nothing has moved for `idle`. Also ends if the
/// client takes none of its queued bytes for `idle`, whatever the client sends meanwhile.
pub async fn tunnel<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut ClientSide<'_, N>,
    mut up: impl TunnelEnd<N>,
    idle: Duration,
) -> Tunneled {
    // Heads may still be queued, and they do not count.
    let before = (
        up.sent() + up.queued() as u64,
        down.sent() + down.queued() as u64,
    );
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let (mut moved, mut moved_at) = (u64::MAX, Instant::default());
    let mut is_stalled = false;
    let (mut taken, mut taken_at) = (u64::MAX, Instant::default());
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
            (moved, moved_at) = (sum, now);
        }
        if down.queued() == 0 || sent != taken {
            (taken, taken_at) = (sent, now);
        }
        let deadline = moved_at.min(taken_at) + idle;
        down.timer.set(deadline);
        if now >= deadline {
            is_stalled = down.queued() > 0;
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    Tunneled {
        sent: up.sent().saturating_sub(before.0),
        received: down.sent().saturating_sub(before.1),
        is_stalled,
    }
}

/// What a tunnel has relayed.
pub struct Tunneled {
    /// Bytes to the endpoint.
    pub sent: u64,
    /// Bytes to the client.
    pub received: u64,
    /// The tunnel ended because the client took none of its queued bytes.
    pub is_stalled: bool,
}

/// The state of one direction.
#[derive(Default)]
struct Direction {
    ended: bool,
    finished: bool,
}

impl Direction {
    /// Moves the bytes that can move now.
    ///
    /// # Errors
    /// The direction has broken.
    fn poll<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut impl TunnelEnd<N>,
        to: &mut impl TunnelEnd<N>,
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
