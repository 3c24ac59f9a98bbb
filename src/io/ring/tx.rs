//! The sending half.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::super::Tx;
use super::super::chunk::{Charge, Chunk};
use super::super::os::{probe, reset, shut};
use super::super::pipe::Pipe;
use super::socket::RingSocket;
use crate::limits::{KERNEL_QUEUED_BYTES, SEND_CHUNKS_MAX};

/// Sending half of a socket.
pub struct RingTx {
    pub(super) socket: Rc<RingSocket>,
    /// Made when there is something to send; given back at rest.
    work: Option<Box<SendQueue>>,
    /// There while the kernel has as much as it takes.
    full: Option<Charge>,
    ended: Option<io::ErrorKind>,
}

/// What waits to be sent.
#[derive(Default)]
struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes in the chunks.
    bytes: usize,
    /// Bytes that passed from another connection, and how many of the chunks are ahead of them.
    pipe: Option<Pipe>,
    ahead: usize,
}

impl RingTx {
    pub(super) fn new(socket: Rc<RingSocket>) -> Self {
        Self {
            socket,
            work: None,
            full: None,
            ended: None,
        }
    }

    /// The kernel takes no more. What it has, and what it holds back on the other side of an exchange, is memory too.
    fn is_full(&mut self) {
        self.socket.writable.set(false);
        if self.full.is_none() {
            self.full = Some(self.socket.driver.pool.charge(KERNEL_QUEUED_BYTES));
        }
    }

    /// Waits until no pipe is being emptied. False: sending has failed.
    pub(super) fn poll_idle(&mut self, cx: &Context<'_>) -> Poll<bool> {
        while self.ended.is_none() && self.work.as_ref().is_some_and(|work| work.pipe.is_some()) {
            ready!(self.poll_some(cx));
        }
        Poll::Ready(self.ended.is_none())
    }

    /// Queues what is in a pipe. Only while there is no other.
    pub(super) fn pass(&mut self, pipe: Pipe) {
        let work = self.work.get_or_insert_default();
        work.ahead = work.chunks.len();
        work.pipe = Some(pipe);
    }

    /// Sends some of what is queued; ready when some was taken, or when sending has failed.
    fn poll_some(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.socket.may_send(cx) {
            return Poll::Pending;
        }
        let Some(work) = &mut self.work else {
            return Poll::Ready(());
        };
        match work.send(self.socket.fd()) {
            // Then there is no more room.
            Ok(false) => self.is_full(),
            Ok(true) => self.full = None,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => self.is_full(),
                io::ErrorKind::Interrupted => {}
                kind => {
                    self.socket.broken.set(true);
                    self.ended = Some(kind);
                    self.work = None;
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

    /// Sends the next part; says whether all of it was taken.
    fn send(&mut self, fd: i32) -> io::Result<bool> {
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
        if self.pipe.is_some() || n < ahead {
            // So that what is ahead leaves together with what follows.
            flags |= libc::MSG_MORE;
        }
        let (wanted, sent) = send(fd, self.chunks.iter().take(n), flags)?;
        self.advance(sent);
        Ok(sent == wanted)
    }

    fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        while let Some(first) = self.chunks.front_mut() {
            if first.len() > n {
                return first.advance(n);
            }
            n -= first.len();
            self.chunks.pop_front();
            self.ahead = self.ahead.saturating_sub(1);
        }
    }
}

/// Sends up to [`SEND_CHUNKS_MAX`] chunks. Returns how many bytes they are, and how many were taken.
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
        // SAFETY: the first part is a chunk's bytes, which the caller holds.
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
            let work = self.work.get_or_insert_default();
            work.bytes += chunk.len();
            work.chunks.push_back(chunk);
        }
    }

    fn queued(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.len())
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

    fn rest(&mut self) {
        if self.queued() == 0 {
            (self.work, self.full) = (None, None);
        }
    }

    fn probe(&mut self, dead_after: Duration) {
        probe(self.socket.fd(), dead_after);
    }

    fn finish(&mut self) {
        shut(self.socket.fd(), libc::SHUT_WR);
    }

    fn abort(&mut self) {
        self.socket.aborting.set(true);
        self.ended = Some(io::ErrorKind::ConnectionAborted);
    }
}

impl Drop for RingTx {
    fn drop(&mut self) {
        // What was pushed is not sent to the end: that must not look like an orderly one.
        if self.queued() > 0 {
            reset(self.socket.fd());
        }
        self.socket.drop_half();
    }
}
