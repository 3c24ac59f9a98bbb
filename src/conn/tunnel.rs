//! Bytes both ways, as they are: a connection that has switched protocols.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Down, Outbox, Up};
use crate::core::Core;
use crate::io::{Chunk, Instant, Net, Rx, Tx};
use crate::limits::QUEUED_BYTES_HIGH;

/// Relays until both directions have ended, one has broken, or nothing has moved for `idle`. Returns the bytes that
/// went towards the endpoint and towards the client.
pub async fn tunnel<N: Net>(
    core: &Rc<Core<N>>,
    down: &mut Down<N>,
    mut up: Up<N>,
    idle: Duration,
) -> (u64, u64) {
    let (up_rx, up_out, up_rest) = up.tunnel_parts();
    let (rx, out, timer, rest) = down.tunnel_parts();
    // Heads that are still queued are not the tunnel's bytes.
    let before = (
        up_out.sent() + up_out.queued() as u64,
        out.sent() + out.queued() as u64,
    );
    let mut there = Direction {
        rx,
        out: up_out,
        ended: false,
        finished: false,
        waiting: rest,
    };
    let mut back = Direction {
        rx: up_rx,
        out,
        ended: false,
        finished: false,
        waiting: up_rest,
    };
    let (mut moved, mut last) = (u64::MAX, Instant::default());
    poll_fn(|cx| {
        timer.watch(cx);
        let broken = there.poll(cx).is_err() || back.poll(cx).is_err();
        if broken || (there.finished && back.finished) || core.is_stopping() {
            return Poll::Ready(());
        }
        let now = core.net.now();
        let sum = there.out.sent().wrapping_add(back.out.sent());
        if sum != moved {
            (moved, last) = (sum, now);
            timer.set(now + idle);
        }
        if now >= last + idle {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    (
        there.out.sent().saturating_sub(before.0),
        back.out.sent().saturating_sub(before.1),
    )
}

/// One direction.
struct Direction<'a, R: Rx, T: Tx> {
    rx: &'a mut R,
    out: &'a mut Outbox<T>,
    /// What was received before the switch was known.
    waiting: Option<Chunk>,
    ended: bool,
    finished: bool,
}

impl<R: Rx, T: Tx> Direction<'_, R, T> {
    /// Moves what can be moved. An error means that the direction broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        loop {
            if let Some(chunk) = self.waiting.take() {
                self.out.raw(chunk);
            }
            let sent = match self.out.poll_send(cx) {
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if self.ended {
                if sent && !self.finished {
                    self.out.tx.finish();
                    self.finished = true;
                }
                return Ok(());
            }
            if self.out.queued() >= QUEUED_BYTES_HIGH {
                return Ok(());
            }
            match self.rx.poll_recv(cx) {
                Poll::Ready(Ok(Some(chunk))) => self.waiting = Some(chunk),
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(()),
            }
        }
    }
}
