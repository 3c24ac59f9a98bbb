//! The sending half.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::super::Tx;
use super::super::chunk::{Charge, Chunk, advance_queue};
use super::super::os::{probe, reset, shut};
use super::super::pipe::Pipe;
use super::socket::RingSocket;
use crate::limits::{KERNEL_QUEUED_BYTES, SEND_CHUNKS_MAX};

/// Sending half of a socket.
pub struct RingTx {
    pub(super) socket: Rc<RingSocket>,
    /// Allocated when there is something to send; freed at rest.
    queue: Option<Box<SendQueue>>,
    /// Set while the kernel takes no more.
    full: Option<Charge>,
    ended: Option<io::ErrorKind>,
}

/// What waits to be sent.
#[derive(Default)]
struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes in the chunks.
    bytes: usize,
    /// Bytes that passed from another connection, and how many of the chunks go before them.
    pipe: Option<Pipe>,
    ahead: usize,
}

impl RingTx {
    pub(super) fn new(socket: Rc<RingSocket>) -> Self {
        Self {
            socket,
            queue: None,
            full: None,
            ended: None,
        }
    }

    /// Records that the kernel takes no more. The bytes in the kernel, and those that the other side of the exchange
    /// holds back meanwhile, count as memory of this core.
    fn mark_full(&mut self) {
        self.socket.writable.set(false);
        if self.full.is_none() {
            self.full = Some(self.socket.driver.pool.charge(KERNEL_QUEUED_BYTES));
        }
    }

    /// Waits until no pipe is being emptied. Returns false if sending has failed.
    pub(super) fn poll_idle(&mut self, cx: &Context<'_>) -> Poll<bool> {
        while self.ended.is_none()
            && self
                .queue
                .as_ref()
                .is_some_and(|queue| queue.pipe.is_some())
        {
            ready!(self.poll_some(cx));
        }
        Poll::Ready(self.ended.is_none())
    }

    /// Queues the bytes of a pipe. Only one pipe may be queued at a time.
    pub(super) fn pass(&mut self, pipe: Pipe) {
        let queue = self.queue.get_or_insert_default();
        queue.ahead = queue.chunks.len();
        queue.pipe = Some(pipe);
    }

    /// Sends some of the queue. Ready once the kernel has taken some, or once sending has failed.
    fn poll_some(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.socket.may_send(cx) {
            return Poll::Pending;
        }
        let Some(queue) = &mut self.queue else {
            return Poll::Ready(());
        };
        match queue.send(self.socket.fd(), self.socket.holds_back.get()) {
            // A partial send means that there is no more room.
            Ok(false) => self.mark_full(),
            Ok(true) => self.full = None,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => self.mark_full(),
                io::ErrorKind::Interrupted => {}
                kind => {
                    self.socket.broken.set(true);
                    self.ended = Some(kind);
                    self.queue = None;
                }
            },
        }
        Poll::Ready(())
    }
}

impl SendQueue {
    fn len(&self) -> usize {
        self.bytes + self.pipe.as_ref().map_or(0, Pipe::len)
    }

    /// Sends the next part. Returns whether the kernel took all of it. If `holds_back`, the kernel may wait for the end
    /// before it sends the last bytes.
    fn send(&mut self, fd: i32, holds_back: bool) -> io::Result<bool> {
        let ahead = if self.pipe.is_some() {
            self.ahead
        } else {
            self.chunks.len()
        };
        if let Some(pipe) = self.pipe.as_mut().filter(|_| ahead == 0) {
            let wanted = pipe.len();
            let sent = pipe.drain(fd)?;
            if pipe.len() == 0 {
                self.pipe = None;
            }
            return Ok(sent == wanted);
        }
        let n = ahead.min(SEND_CHUNKS_MAX);
        let mut flags = libc::MSG_NOSIGNAL;
        if self.pipe.is_some() || n < ahead || holds_back {
            // Lets the chunks leave in one segment with what is behind them.
            flags |= libc::MSG_MORE;
        }
        let (wanted, sent) = send(fd, self.chunks.iter().take(n), flags)?;
        self.advance(sent);
        Ok(sent == wanted)
    }

    fn advance(&mut self, n: usize) {
        self.bytes -= n;
        let sent = advance_queue(&mut self.chunks, n);
        self.ahead = self.ahead.saturating_sub(sent);
    }
}

/// Sends up to [`SEND_CHUNKS_MAX`] chunks. Returns their length and how many bytes the kernel took.
fn send<'a>(
    fd: i32,
    chunks: impl Iterator<Item = &'a Chunk>,
    flags: i32,
) -> io::Result<(usize, usize)> {
    let mut parts = [const {
        libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }
    }; SEND_CHUNKS_MAX];
    let (mut count, mut wanted) = (0, 0);
    for (part, chunk) in parts.iter_mut().zip(chunks) {
        part.iov_base = chunk.as_ptr().cast_mut().cast();
        part.iov_len = chunk.len();
        wanted += chunk.len();
        count += 1;
    }
    // SAFETY: all zeroes are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    let sent = match count {
        // SAFETY: the first part is the bytes of a chunk, which the caller holds.
        1 => unsafe { libc::send(fd, parts[0].iov_base, wanted, flags) },
        // SAFETY: the message lives for the call, and its parts are bytes of chunks that the caller holds.
        _ => unsafe { libc::sendmsg(fd, &raw const message, flags) },
    };
    let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    Ok((wanted, sent))
}

impl Tx for RingTx {
    fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            let queue = self.queue.get_or_insert_default();
            queue.bytes += chunk.len();
            queue.chunks.push_back(chunk);
        }
    }

    fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(kind) = self.ended {
                return Poll::Ready(Err(kind.into()));
            }
            if self.queued() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_some(cx));
        }
    }

    fn hold_for_end(&mut self) {
        self.socket.holds_back.set(true);
    }

    fn rest(&mut self) {
        if self.queued() == 0 {
            (self.queue, self.full) = (None, None);
        }
    }

    fn probe(&mut self, dead_after: Duration) {
        probe(self.socket.fd(), dead_after);
    }

    fn finish(&mut self) {
        self.socket.holds_back.set(false);
        shut(self.socket.fd(), libc::SHUT_WR);
    }

    fn abort(&mut self) {
        self.socket.aborting.set(true);
        self.ended = Some(io::ErrorKind::ConnectionAborted);
    }
}

impl Drop for RingTx {
    fn drop(&mut self) {
        // Bytes that were pushed will never be sent, so the end must not look orderly.
        if self.queued() > 0 {
            reset(self.socket.fd());
        }
        self.socket.drop_half();
    }
}
