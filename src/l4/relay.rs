//! Passes bytes between two connections, in both directions, until both have ended or one has broken.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::conn::{Wire, WireRx, WireTx};
use crate::core::{Core, Timer};
use crate::io::{Instant, Net, Rx, Tx};
use crate::limits::{
    PIECE_SHARE_MIN, QUEUED_BYTES_HIGH, RELAY_PASS_BYTES_MIN, SPLICE_BYTES_MAX, SPLICE_BYTES_MIN,
};

/// What a relay has passed on, and why it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    /// Bytes from the client.
    pub(super) from_client: u64,
    /// Bytes from the endpoint.
    pub(super) from_endpoint: u64,
    /// Why the relay has ended.
    pub(super) end: RelayEnd,
}

/// Why a relay has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// Both sides have ended their directions in an orderly way.
    Orderly,
    /// The client's connection broke.
    ClientBroke,
    /// The endpoint's connection broke.
    EndpointBroke,
    /// Nothing has moved in time.
    Idle,
    /// The core stops.
    Stopped,
    /// The core is short of memory, and the relay held most of it.
    MemoryLimit,
}

/// Passes bytes on. A side that ends its direction ends the same direction of the other side, and may go on receiving.
/// A side that breaks resets the other side, and so does a relay that ends for any other cause, so that no peer takes a
/// part of a stream for the whole. Ends if no byte has moved for `idle`, or if one side has taken none of its queued
/// bytes for as long. Calls `served` when the first byte of the endpoint arrives.
pub(super) async fn relay<N: Net>(
    core: &Rc<Core<N>>,
    timer: &Timer,
    client: &mut Wire<N>,
    endpoint: &mut Wire<N>,
    idle: Duration,
    mut served: impl FnMut(),
) -> Relayed {
    let now = core.net.now();
    let (mut there, mut back) = (Direction::new(now), Direction::new(now));
    let mut is_first = true;
    let end = poll_fn(|cx| {
        if !mem::take(&mut is_first) {
            core.share.renew();
        }
        timer.watch(cx);
        let now = core.net.now();
        let (from, to) = (&mut *client, &mut *endpoint);
        let up = there.poll(cx, core, (&mut from.rx, &mut to.tx), now);
        let is_served = back.bytes > 0;
        let down = back.poll(cx, core, (&mut to.rx, &mut from.tx), now);
        if !is_served && back.bytes > 0 {
            served();
        }
        let end = match (up, down) {
            (Err(Broken::Source), _) | (_, Err(Broken::Sink)) => RelayEnd::ClientBroke,
            (Err(Broken::Sink), _) | (_, Err(Broken::Source)) => RelayEnd::EndpointBroke,
            _ if there.has_finished && back.has_finished => RelayEnd::Orderly,
            _ if core.is_stopping() => RelayEnd::Stopped,
            _ if core.holds_too_much(timer, || there.held + back.held) => RelayEnd::MemoryLimit,
            _ => {
                let moved = there.moved_at.max(back.moved_at);
                let stalled = there.taken_at.min(back.taken_at);
                let deadline = moved.min(stalled) + idle;
                timer.set(deadline);
                if now < deadline {
                    return Poll::Pending;
                }
                RelayEnd::Idle
            }
        };
        Poll::Ready(end)
    })
    .await;
    if end != RelayEnd::Orderly {
        client.tx.abort();
        endpoint.tx.abort();
    }
    Relayed {
        from_client: there.bytes,
        from_endpoint: back.bytes,
        end,
    }
}

/// Which end of a direction broke.
enum Broken {
    Source,
    Sink,
}

/// The state of one direction.
struct Direction {
    bytes: u64,
    /// When bytes last arrived.
    moved_at: Instant,
    /// When the sink last took bytes, or had none to take.
    taken_at: Instant,
    queued: usize,
    /// Bytes of the blocks that hold what is queued, at most.
    held: usize,
    /// Bytes arrive so fast that they are worth a pipe.
    is_bulk: bool,
    /// The source has ended its direction.
    has_ended: bool,
    /// The sink's direction is ended too.
    has_finished: bool,
}

impl Direction {
    fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            moved_at: now,
            taken_at: now,
            queued: 0,
            held: 0,
            is_bulk: false,
            has_ended: false,
            has_finished: false,
        }
    }

    /// Moves the bytes that can move now.
    fn poll<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        (from, to): (&mut WireRx<N>, &mut WireTx<N>),
        now: Instant,
    ) -> Result<(), Broken> {
        if self.has_finished {
            return Ok(());
        }
        let before = self.bytes;
        let moved = self.move_some(cx, core, from, to);
        if self.bytes != before {
            self.moved_at = now;
        }
        let queued = to.queued();
        if queued == 0 || queued < self.queued || self.bytes != before && queued == self.queued {
            self.taken_at = now;
        }
        self.queued = queued;
        moved
    }

    fn move_some<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut WireRx<N>,
        to: &mut WireTx<N>,
    ) -> Result<(), Broken> {
        loop {
            let is_sent = match to.poll_send(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Err(Broken::Sink),
                Poll::Pending => false,
            };
            if self.has_ended {
                if is_sent {
                    self.has_finished = to.poll_finish(cx).is_ready();
                }
                return Ok(());
            }
            if to.queued() == 0 {
                self.held = 0;
            }
            let is_full = to.queued() >= QUEUED_BYTES_HIGH
                || self.held >= PIECE_SHARE_MIN * QUEUED_BYTES_HIGH;
            if is_full || !core.may_take_memory(cx) {
                return Ok(());
            }
            if core.share.is_spent() {
                from.wake_later(cx);
                return Ok(());
            }
            core.share.spend(1);
            match self.poll_piece(cx, core, from, to) {
                Poll::Ready(Ok(0)) => self.has_ended = true,
                Poll::Ready(Ok(bytes)) => self.bytes += bytes as u64,
                Poll::Ready(Err(_)) => return Err(Broken::Source),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Moves the next piece into the sink's queue: through a pipe if bytes arrive in bulk and both sides are in the
    /// clear. Returns its length; 0 at the end of the stream.
    fn poll_piece<N: Net>(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core<N>,
        from: &mut WireRx<N>,
        to: &mut WireTx<N>,
    ) -> Poll<io::Result<usize>> {
        if self.is_bulk
            && let (WireRx::Plain(rx), WireTx::Plain(tx)) = (&mut *from, &mut *to)
        {
            match core.net.poll_pass(cx, rx, tx, SPLICE_BYTES_MAX) {
                // The receive below reports an end or an error.
                Poll::Ready(0) => {}
                Poll::Ready(passed) => {
                    self.is_bulk = passed >= RELAY_PASS_BYTES_MIN;
                    return Poll::Ready(Ok(passed));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let received = match from.poll_recv(cx) {
            Poll::Ready(received) => received?,
            Poll::Pending => return Poll::Pending,
        };
        let Some(chunk) = received else {
            return Poll::Ready(Ok(0));
        };
        let bytes = chunk.len();
        self.is_bulk = bytes as u64 >= SPLICE_BYTES_MIN;
        // A piece that will wait does not keep a block that it fills to a small part.
        let is_wasteful = to.queued() > 0 && bytes * PIECE_SHARE_MIN < chunk.held_bytes();
        let chunk = match is_wasteful {
            true => core.net.pool().copy(&chunk),
            false => chunk,
        };
        self.held += chunk.held_bytes();
        to.push(chunk);
        Poll::Ready(Ok(bytes))
    }
}
