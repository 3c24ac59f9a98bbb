//! What a socket has to send, and the batch in which the driver sends it.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::super::chunk::{Chunk, advance_queue};
use super::super::os::shut;
use super::super::pipe::Pipe;
use super::socket::{Flags, RingSocket, wake};
use crate::limits::{SEND_BATCH_BYTES_MAX, SEND_CHUNKS_MAX};

/// What waits to be sent.
#[derive(Default)]
pub(super) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes in the chunks.
    bytes: usize,
    /// Bytes that passed from another connection, and how many of the chunks go before them.
    pipe: Option<Pipe>,
    ahead: usize,
    /// Bytes that the driver sends in its next batch.
    batched: usize,
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

impl RingSocket {
    /// Calls `f` with the queue, which is made if there is none.
    fn with_queue<T>(&self, f: impl FnOnce(&mut SendQueue) -> T) -> T {
        let mut queue = self.queue.take().unwrap_or_default();
        let result = f(&mut queue);
        self.queue.set(Some(queue));
        result
    }

    /// Calls `f` with the queue, if there is one.
    fn read_queue<T: Default>(&self, f: impl FnOnce(&SendQueue) -> T) -> T {
        let queue = self.queue.take();
        let result = queue.as_deref().map(f);
        self.queue.set(queue);
        result.unwrap_or_default()
    }

    /// Queues a chunk.
    pub(super) fn push(&self, chunk: Chunk) {
        self.with_queue(|queue| {
            queue.bytes += chunk.len();
            queue.chunks.push_back(chunk);
        });
    }

    /// Queues the bytes of a pipe. Only one pipe may be queued at a time.
    pub(super) fn pass(&self, pipe: Pipe) {
        self.with_queue(|queue| {
            queue.ahead = queue.chunks.len();
            queue.pipe = Some(pipe);
        });
    }

    /// Whether a pipe is being emptied.
    pub(super) fn is_passing(&self) -> bool {
        self.read_queue(|queue| queue.pipe.is_some())
    }

    /// Bytes in the queue, except those of the next batch.
    pub(super) fn queued(&self) -> usize {
        self.read_queue(|queue| queue.len() - queue.batched)
    }

    /// Frees the queue: now, if it is empty, else once the driver has sent it. Returns whether it is empty.
    pub(super) fn forget_queue(&self) -> bool {
        let is_empty = self.read_queue(SendQueue::len) == 0;
        if is_empty {
            self.queue.set(None);
        } else {
            self.flags.add(Flags::RESTS);
        }
        is_empty
    }

    /// Frees the queue, which is empty, if the socket rests since before the driver has sent it.
    fn rest_after_send(&self) {
        if self.flags.has(Flags::RESTS) {
            self.flags.remove(Flags::RESTS);
            self.queue.set(None);
        }
    }

    /// Sends the next part of the queue.
    pub(super) fn send(&self) {
        let Some(mut queue) = self.queue.take() else {
            return;
        };
        queue.batched = 0;
        match queue.send(self.fd(), self.flags.has(Flags::HOLDS_BACK)) {
            // A partial send means that there is no more room.
            Ok(true) => self.flags.add(Flags::WRITABLE),
            Ok(false) => self.flags.remove(Flags::WRITABLE),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => self.flags.remove(Flags::WRITABLE),
                io::ErrorKind::Interrupted => {}
                kind => {
                    self.flags.add(Flags::BROKEN);
                    return self.send_error.set(Some(kind));
                }
            },
        }
        self.queue.set(Some(queue));
    }

    /// Leaves the queue to the driver's next batch, if that gains something and the kernel will take it: the queue and
    /// what went before it are short, and the peer has read enough to send something since. Returns whether it did.
    pub(super) fn join_batch(self: &Rc<Self>) -> bool {
        // A connection that ends right after its last bytes would have to send them alone.
        let is_last = self.flags.has(Flags::HOLDS_BACK);
        if is_last || !self.flags.has(Flags::WRITABLE) || !self.driver.fills_batch() {
            return false;
        }
        let is_fit = self.with_queue(|queue| {
            let added = queue.bytes - queue.batched;
            let before = self.unanswered.get() as usize;
            let is_fit = queue.pipe.is_none() && before + added <= SEND_BATCH_BYTES_MAX;
            if is_fit {
                queue.batched = queue.bytes;
                self.unanswered.set((before + added) as u32);
            }
            is_fit
        });
        if is_fit && !self.flags.has(Flags::IS_IN_BATCH) {
            self.flags.add(Flags::IS_IN_BATCH | Flags::USED);
            self.driver.add_to_batch(self.clone());
        }
        is_fit
    }

    /// Sends at once what waits for the batch.
    pub(super) fn leave_batch(&self) {
        if !self.flags.has(Flags::IS_IN_BATCH) {
            return;
        }
        self.flags.remove(Flags::IS_IN_BATCH);
        if self.fd() < 0 {
            return;
        }
        while self.flags.has(Flags::WRITABLE)
            && self.send_error.get().is_none()
            && self.read_queue(|queue| queue.bytes > 0)
        {
            self.send();
        }
    }

    /// Sends the queue as part of a batch. The driver goes on if the kernel has not taken all, because the task may be
    /// through with it.
    pub(super) fn send_in_batch(&self) {
        self.leave_batch();
        if self.send_error.get().is_none() {
            if self.queued() == 0 {
                return self.rest_after_send();
            }
            if self.fd() >= 0 {
                self.drive();
            }
        }
        // Tasks that wait for the peer learn that sending has stopped.
        wake(&self.sender);
        wake(&self.receiver);
    }

    /// Lets the driver send the queue, without its task.
    fn drive(&self) {
        self.flags.add(Flags::IS_DRIVEN);
        self.watch_room();
    }

    /// Goes on sending what is left of a batch.
    pub(super) fn go_on_sending(&self) {
        if !self.flags.has(Flags::IS_DRIVEN) || self.fd() < 0 {
            return;
        }
        self.send();
        if self.send_error.get().is_some() {
            self.flags.remove(Flags::IS_DRIVEN);
            wake(&self.receiver);
        } else if self.queued() > 0 {
            self.watch_room();
        } else {
            self.flags.remove(Flags::IS_DRIVEN);
            self.rest_after_send();
            if self.flags.has(Flags::FINISHES) {
                shut(self.fd(), libc::SHUT_WR);
            }
        }
    }

    /// Ends the sending direction, behind what the driver still sends.
    pub(super) fn finish(&self) {
        self.leave_batch();
        if self.queued() == 0 || self.send_error.get().is_some() {
            return shut(self.fd(), libc::SHUT_WR);
        }
        self.flags.add(Flags::FINISHES);
        self.drive();
    }
}
