//! The sending half and its pump, which sends one batch of chunks after the other.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use monoio::buf::IoVecBuf;
use monoio::io::AsyncWriteRent;

use super::super::Tx;
use super::super::chunk::{Chunk, advance_queue};
use super::super::os::{probe, reset};
use super::pump_signal::PumpSignal;
use super::{Pipe, Pump, UringSocket, shut};
use crate::limits::SEND_CHUNKS_MAX;

/// The sending half of a socket.
pub struct UringTx {
    socket: Rc<UringSocket>,
    pub(super) pump: Option<Pump>,
    signal: Rc<PumpSignal<TxState>>,
    queue: VecDeque<Chunk>,
    queued: usize,
    ended: Option<io::ErrorKind>,
}

#[derive(Default)]
struct TxState {
    next: Cell<Option<Batch>>,
    failed: Cell<Option<io::Error>>,
}

enum Batch {
    One(Chunk),
    /// Boxed to keep the slot for the next batch small.
    Many(Box<ChunkVector>),
    /// Chunks, and then the bytes of a pipe.
    Piped(Box<(ChunkVector, Pipe)>),
}

impl UringTx {
    pub(super) fn new(socket: Rc<UringSocket>) -> Self {
        let signal = PumpSignal::new(TxState::default());
        Self {
            socket,
            pump: None,
            signal,
            queue: VecDeque::new(),
            queued: 0,
            ended: None,
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if self.queue.len() <= 1 {
            return self.queue.pop_front().map(Batch::One);
        }
        let n = self.queue.len().min(SEND_CHUNKS_MAX);
        let chunks = ChunkVector::new(self.queue.drain(..n));
        Some(Batch::Many(Box::new(chunks)))
    }

    /// Waits until no batch is in flight.
    pub(super) fn poll_idle(&mut self, cx: &Context<'_>) -> Poll<()> {
        let is_due = self.signal.is_due(cx);
        match self.socket.sending.get() {
            0 => Poll::Ready(()),
            _ if is_due => self.drive(),
            _ => Poll::Pending,
        }
    }

    /// Whether a pipe's bytes can be sent.
    pub(super) fn may_pass(&self) -> bool {
        self.ended.is_none() && self.socket.set_nonblocking()
    }

    /// Starts to send the queued chunks and then the pipe's bytes. Call it only while no batch is in flight.
    pub(super) fn pass(&mut self, pipe: Pipe) {
        let ahead = ChunkVector::new(self.queue.drain(..));
        self.queued += pipe.len();
        self.start(Batch::Piped(Box::new((ahead, pipe))));
        // The next `poll_send` reports the outcome.
        let _ = self.drive();
    }

    fn start(&mut self, batch: Batch) {
        let bytes = batch.len();
        self.queued -= bytes;
        self.socket.sending.set(bytes);
        self.signal.next.set(Some(batch));
    }

    /// Polls the pump. Ready once the batch is sent or has failed.
    fn drive(&mut self) -> Poll<()> {
        let pump = self
            .pump
            .get_or_insert_with(|| Box::pin(send(self.socket.clone(), self.signal.clone())));
        let news = self.signal.listen();
        let _ = pump.as_mut().poll(&mut Context::from_waker(&news));
        if let Some(error) = self.signal.failed.take() {
            self.socket.broken.set(true);
            self.ended = Some(error.kind());
            self.queue.clear();
            self.queued = 0;
        }
        if self.socket.sending.get() > 0 {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Tx for UringTx {
    fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.queue.push_back(chunk);
        }
    }

    fn queued(&self) -> usize {
        self.queued + self.socket.sending.get()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_due = self.signal.is_due(cx);
        if self.socket.sending.get() > 0 && !is_due {
            return Poll::Pending;
        }
        loop {
            if let Some(kind) = self.ended {
                return Poll::Ready(Err(kind.into()));
            }
            if self.socket.sending.get() == 0 {
                let Some(batch) = self.next_batch() else {
                    return Poll::Ready(Ok(()));
                };
                self.start(batch);
            }
            ready!(self.drive());
        }
    }

    fn rest(&mut self) {
        if self.queued() == 0 {
            self.pump = None;
            self.queue = VecDeque::new();
        }
    }

    fn probe(&mut self, dead_after: Duration) {
        probe(self.socket.fd(), dead_after);
    }

    fn finish(&mut self) {
        shut(self.socket.fd(), libc::SHUT_WR);
    }

    fn abort(&mut self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the option's value is a `linger` of the size given, alive for the call.
        unsafe {
            libc::setsockopt(
                self.socket.fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            );
        }
        self.socket.aborting.set(true);
        self.ended = Some(io::ErrorKind::ConnectionAborted);
    }
}

impl Drop for UringTx {
    fn drop(&mut self) {
        // Bytes that were pushed will never be sent, so the end must not look orderly.
        if self.queued() > 0 {
            reset(self.socket.fd());
        }
    }
}

/// The sending pump: takes a batch, sends all of it, and waits for the next.
async fn send(socket: Rc<UringSocket>, signal: Rc<PumpSignal<TxState>>) {
    loop {
        let mut batch = poll_fn(|_| signal.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        while batch.len() > 0 {
            let sent;
            (sent, batch) = send_some(&socket, batch).await;
            match sent {
                Ok(0) => signal.failed.set(Some(io::ErrorKind::WriteZero.into())),
                Ok(_) => {
                    socket.sending.set(batch.len());
                    continue;
                }
                Err(error) => signal.failed.set(Some(error)),
            }
            socket.sending.set(0);
            break;
        }
    }
}

/// Sends as much of a batch as the socket takes.
async fn send_some(socket: &UringSocket, batch: Batch) -> (io::Result<usize>, Batch) {
    let (sent, mut batch) = match batch {
        Batch::One(chunk) => {
            let (sent, chunk) = socket.tcp_mut().write(chunk).await;
            (sent, Batch::One(chunk))
        }
        Batch::Many(chunks) => {
            let (sent, chunks) = socket.tcp_mut().writev(chunks).await;
            (sent, Batch::Many(chunks))
        }
        Batch::Piped(mut piped) => loop {
            let (ahead, pipe) = &mut *piped;
            // Outside the ring, so that the chunks leave in one segment with the pipe's bytes.
            let sent = if ahead.bytes > 0 {
                ahead.send_before_more(socket)
            } else {
                pipe.drain(socket.fd())
            };
            let waited = match &sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.tcp().writable(true).await
                }
                _ => return (sent, Batch::Piped(piped)),
            };
            if let Err(error) = waited {
                return (Err(error), Batch::Piped(piped));
            }
        },
    };
    if let Ok(n) = sent {
        batch.advance(n);
    }
    (sent, batch)
}

impl Batch {
    fn len(&self) -> usize {
        match self {
            Self::One(chunk) => chunk.len(),
            Self::Many(chunks) => chunks.bytes,
            Self::Piped(piped) => piped.0.bytes + piped.1.len(),
        }
    }

    /// Drops the sent bytes; a pipe drops its own.
    fn advance(&mut self, n: usize) {
        match self {
            Self::One(chunk) => chunk.advance(n),
            Self::Many(chunks) => chunks.advance(n),
            Self::Piped(..) => {}
        }
    }
}

/// Several chunks for one vectored send.
struct ChunkVector {
    chunks: VecDeque<Chunk>,
    iovecs: Vec<libc::iovec>,
    bytes: usize,
}

impl ChunkVector {
    fn new(chunks: impl Iterator<Item = Chunk>) -> Self {
        let mut batch = Self {
            chunks: chunks.collect(),
            iovecs: Vec::new(),
            bytes: 0,
        };
        batch.point();
        batch
    }

    fn point(&mut self) {
        self.iovecs.clear();
        self.iovecs
            .extend(self.chunks.iter().map(|chunk| libc::iovec {
                iov_base: chunk.as_ptr().cast_mut().cast(),
                iov_len: chunk.len(),
            }));
        self.bytes = self.chunks.iter().map(|chunk| chunk.len()).sum();
    }

    /// Sends as much as the socket takes at once, and tells the system that more follows.
    fn send_before_more(&mut self, socket: &UringSocket) -> io::Result<usize> {
        // SAFETY: all zeroes are an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.iovecs.as_mut_ptr();
        message.msg_iovlen = self.iovecs.len();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE;
        // SAFETY: the message lives for the call, and its iovecs point into blocks that `chunks` holds.
        let sent = unsafe { libc::sendmsg(socket.fd(), &raw const message, flags) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.advance(sent);
        Ok(sent)
    }

    fn advance(&mut self, n: usize) {
        advance_queue(&mut self.chunks, n);
        self.point();
    }
}

// SAFETY: the iovecs are on the heap and point into blocks that `chunks` holds. Both stay in place when the batch moves
// and are rewritten only between operations.
unsafe impl IoVecBuf for Box<ChunkVector> {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.iovecs.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.iovecs.len()
    }
}
