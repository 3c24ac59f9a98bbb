//! The receiving half.

use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::super::Rx;
use super::super::chunk::{Chunk, ReceiveBlock};
use super::super::os;
use super::super::pipe::Pipe;
use super::super::receive_size::ReceiveSize;
use super::socket::{Flags, RingSocket};

/// Receiving half of a socket.
pub struct RingRx {
    pub(super) socket: Rc<RingSocket>,
    ended: Option<io::ErrorKind>,
    size: ReceiveSize,
    /// The next poll expects nothing.
    is_patient: bool,
}

impl RingRx {
    pub(super) fn new(socket: Rc<RingSocket>) -> Self {
        Self {
            socket,
            ended: None,
            size: ReceiveSize::default(),
            is_patient: false,
        }
    }

    /// Fills a pipe with received bytes. Returns 0 on an end or an error, which the next receive reports.
    pub(super) fn poll_fill(
        &mut self,
        cx: &Context<'_>,
        pipe: &mut Pipe,
        at_most: usize,
    ) -> Poll<usize> {
        while self.ended.is_none() {
            if !self.socket.may_receive(cx, false) {
                return Poll::Pending;
            }
            match pipe.fill(self.socket.fd(), at_most) {
                Ok(n) => {
                    // The byte count does not tell how much is left, because a pipe fills by pages.
                    self.socket.received(n, false);
                    // The next bytes on this connection are a head.
                    self.size = ReceiveSize::default();
                    return Poll::Ready(n);
                }
                Err(error) => self.failed(&error),
            }
        }
        Poll::Ready(0)
    }

    fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.socket.flags.remove(Flags::READABLE),
            io::ErrorKind::Interrupted => {}
            kind => self.ended = Some(kind),
        }
    }
}

impl Rx for RingRx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let is_patient = mem::take(&mut self.is_patient);
        loop {
            if let Some(kind) = self.ended {
                // A relay must send the bytes it has before it learns that no more will come.
                if self.socket.has_received_now() {
                    self.socket.go_on_later(cx);
                    return Poll::Pending;
                }
                return Poll::Ready(match kind {
                    io::ErrorKind::UnexpectedEof => Ok(None),
                    kind => Err(kind.into()),
                });
            }
            if !self.socket.may_receive(cx, is_patient) {
                return Poll::Pending;
            }
            let mut filling = self.socket.driver.pool.filling(self.size.bytes());
            match receive(self.socket.fd(), &mut filling) {
                Ok(0) if self.socket.flags.has(Flags::BROKEN) => {
                    self.ended = Some(io::ErrorKind::ConnectionReset);
                }
                Ok(0) => self.ended = Some(io::ErrorKind::UnexpectedEof),
                Ok(n) => {
                    self.socket.received(n, n < filling.capacity());
                    self.size.adapt(n);
                    return Poll::Ready(Ok(Some(filling.freeze())));
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn is_quiet(&mut self, ask: bool) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if !self.socket.flags.has(Flags::READABLE) && !ask {
            return true;
        }
        let is_quiet = os::is_quiet(self.socket.fd());
        if is_quiet {
            self.socket.flags.remove(Flags::READABLE);
        }
        is_quiet
    }

    fn expect(&mut self, bytes: usize) {
        self.size = ReceiveSize::for_bytes(bytes);
    }

    #[inline]
    fn expect_silence(&mut self) {
        self.is_patient = true;
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        self.socket.driver.wake_later(cx);
    }
}

impl Drop for RingRx {
    fn drop(&mut self) {
        self.socket.drop_half();
    }
}

/// Receives into a block. Returns 0 at the end of the stream.
fn receive(fd: i32, filling: &mut ReceiveBlock) -> io::Result<usize> {
    // SAFETY: the system writes at most as many bytes as fit behind the pointer, and the block is ours for the call.
    let n = unsafe { libc::recv(fd, filling.ptr().cast(), filling.capacity(), 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the system has written that many.
    unsafe { filling.set_len(n) };
    Ok(n)
}
