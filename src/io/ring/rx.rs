//! The receiving half.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::Rx;
use super::super::chunk::{Chunk, ReceiveBlock};
use super::super::os::{self, BellState};
use super::super::pipe::Pipe;
use super::socket::RingSocket;
use crate::limits::BLOCK_BYTES;

/// Receiving half of a socket.
pub struct RingRx {
    pub(super) socket: Rc<RingSocket>,
    pub(super) bell: Option<Arc<BellState>>,
    ended: Option<io::ErrorKind>,
    /// Which size of block is taken next.
    class: u8,
}

impl RingRx {
    pub(super) fn new(socket: Rc<RingSocket>) -> Self {
        Self {
            socket,
            bell: None,
            ended: None,
            class: 0,
        }
    }

    /// Fills a pipe with what has come; 0 is an end or an error, which a receive then tells.
    pub(super) fn poll_fill(
        &mut self,
        cx: &Context<'_>,
        pipe: &mut Pipe,
        at_most: usize,
    ) -> Poll<usize> {
        while self.ended.is_none() {
            if !self.socket.may_receive(cx) {
                return Poll::Pending;
            }
            match pipe.fill(self.socket.fd(), at_most) {
                Ok(n) => {
                    // How much is left cannot be told from how much came: a pipe is full by pages, not by bytes.
                    self.socket.received(n, false);
                    // What comes next on this connection is a head.
                    self.class = 0;
                    return Poll::Ready(n);
                }
                Err(error) => self.failed(&error),
            }
        }
        Poll::Ready(0)
    }

    fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.socket.readable.set(false),
            io::ErrorKind::Interrupted => {}
            kind => self.ended = Some(kind),
        }
    }

    /// A full block says that more is there: take a larger one next. A nearly empty one says the opposite.
    fn adapt(&mut self, got: usize) {
        let size = BLOCK_BYTES[self.class as usize];
        if got >= size && (self.class as usize) < BLOCK_BYTES.len() - 1 {
            self.class += 1;
        } else if got < size / 8 && self.class > 0 {
            self.class -= 1;
        }
    }
}

impl Rx for RingRx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        loop {
            if let Some(kind) = self.ended {
                // Whoever passes bytes on is to have sent them before it hears that there will be no more.
                if self.socket.has_received_now() {
                    self.socket.go_on_later(cx);
                    return Poll::Pending;
                }
                return Poll::Ready(match kind {
                    io::ErrorKind::UnexpectedEof => Ok(None),
                    kind => Err(kind.into()),
                });
            }
            if !self.socket.may_receive(cx) {
                return Poll::Pending;
            }
            let mut filling = self
                .socket
                .driver
                .pool
                .filling(BLOCK_BYTES[self.class as usize]);
            match receive(self.socket.fd(), &mut filling) {
                Ok(0) if self.socket.broken.get() => {
                    self.ended = Some(io::ErrorKind::ConnectionReset);
                }
                Ok(0) => self.ended = Some(io::ErrorKind::UnexpectedEof),
                Ok(n) => {
                    self.socket.received(n, n < filling.capacity());
                    self.adapt(n);
                    if let Some(bell) = &self.bell {
                        bell.heard();
                    }
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
        if !self.socket.readable.get() && !ask {
            return true;
        }
        let is_quiet = os::is_quiet(self.socket.fd());
        if is_quiet {
            self.socket.readable.set(false);
        }
        is_quiet
    }

    fn expect(&mut self, bytes: usize) {
        let class = BLOCK_BYTES.iter().position(|&size| size >= bytes);
        self.class = class.unwrap_or(BLOCK_BYTES.len() - 1) as u8;
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

/// Receives what is there into a block; 0 is the end of the stream.
fn receive(fd: i32, filling: &mut ReceiveBlock) -> io::Result<usize> {
    // SAFETY: at most as much is written as fits behind the pointer, and the block is ours for the call.
    let n = unsafe { libc::recv(fd, filling.ptr().cast(), filling.capacity(), 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the system has written that many.
    unsafe { filling.set_len(n) };
    Ok(n)
}
