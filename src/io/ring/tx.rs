//! The sending half.

use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::super::Tx;
use super::super::chunk::Chunk;
use super::super::os::{probe, reset};
use super::socket::{Flags, RingSocket};
use crate::limits::KERNEL_QUEUED_BYTES;

/// Sending half of a socket.
pub struct RingTx {
    pub(super) socket: Rc<RingSocket>,
    /// The kernel takes no more, and the bytes that it holds count as memory of the core.
    is_full: bool,
}

impl RingTx {
    pub(super) fn new(socket: Rc<RingSocket>) -> Self {
        Self {
            socket,
            is_full: false,
        }
    }

    /// Records that the kernel takes no more. The bytes in the kernel, and those that the other side of the exchange
    /// holds back meanwhile, count as memory of this core.
    fn mark_full(&mut self) {
        if !mem::replace(&mut self.is_full, true) {
            self.socket.driver.pool.add_charge(KERNEL_QUEUED_BYTES);
        }
    }

    fn unmark_full(&mut self) {
        if mem::take(&mut self.is_full) {
            self.socket.driver.pool.drop_charge(KERNEL_QUEUED_BYTES);
        }
    }

    /// Waits until no pipe is being emptied. Returns false if sending has failed.
    pub(super) fn poll_idle(&mut self, cx: &Context<'_>) -> Poll<bool> {
        while self.socket.send_error.get().is_none() && self.socket.is_passing() {
            ready!(self.poll_some(cx));
        }
        Poll::Ready(self.socket.send_error.get().is_none())
    }

    /// Sends some of the queue. Ready once the kernel has taken some, or once sending has failed.
    fn poll_some(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.socket.may_send(cx) {
            self.socket.send();
            if self.socket.may_send(cx) {
                self.unmark_full();
                return Poll::Ready(());
            }
        }
        self.mark_full();
        Poll::Pending
    }
}

impl Tx for RingTx {
    fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.socket.push(chunk);
        }
    }

    fn queued(&self) -> usize {
        self.socket.queued()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(kind) = self.socket.send_error.get() {
                return Poll::Ready(Err(kind.into()));
            }
            if self.queued() == 0 || self.socket.join_batch() {
                // The driver may have sent what the kernel did not take at first.
                self.unmark_full();
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_some(cx));
        }
    }

    fn hold_for_end(&mut self) {
        self.socket.flags.add(Flags::HOLDS_BACK);
        self.socket.leave_batch();
    }

    fn has_sent_all(&mut self) -> bool {
        self.socket.leave_batch();
        self.queued() == 0
    }

    fn rest(&mut self) {
        if self.socket.forget_queue() {
            self.unmark_full();
        }
    }

    fn probe(&mut self, dead_after: Duration) {
        probe(self.socket.fd(), dead_after);
    }

    fn finish(&mut self) {
        self.socket.flags.remove(Flags::HOLDS_BACK);
        self.socket.finish();
    }

    fn abort(&mut self) {
        self.socket.leave_batch();
        self.socket.flags.add(Flags::ABORTING);
        let aborted = Some(io::ErrorKind::ConnectionAborted);
        self.socket.send_error.set(aborted);
    }
}

impl Drop for RingTx {
    fn drop(&mut self) {
        self.socket.leave_batch();
        // Bytes that were pushed will never be sent, so the end must not look orderly.
        if self.queued() > 0 {
            reset(self.socket.fd());
        }
        self.unmark_full();
        self.socket.drop_half();
    }
}
