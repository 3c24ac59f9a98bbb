//! Bytes on their way out of one direction of a connection.
//!
//! Heads, framing and small pieces of data are written into one open block; larger pieces go out by reference. So a
//! small answer is one send, and a large one copies nothing.

use std::io;
use std::task::{Context, Poll, ready};

use weir_proto_h1::{BodyKind, Error, Sender, Trailers};

use super::inbox::Inbox;
use super::wire::{WireRx, WireTx};
use crate::io::{Chunk, Net, OutBlock, Pool, Tx};
use crate::limits::{BLOCK_BYTES, COPY_BELOW_BYTES, SPLICE_BYTES_MAX, SPLICE_BYTES_MIN};

/// Whether a body is long enough to let it pass unseen.
fn is_long(body: BodyKind) -> bool {
    match body {
        BodyKind::Length(length) => length >= SPLICE_BYTES_MIN,
        BodyKind::UntilClose => true,
        BodyKind::None | BodyKind::Chunked => false,
    }
}

/// The sending half of a connection with what is being written to it.
pub struct Outbox<T: Tx> {
    /// The half itself.
    pub tx: T,
    pool: Pool,
    open: Option<OutBlock>,
    pushed: u64,
}

impl<T: Tx> Outbox<T> {
    /// For a connection's sending half.
    pub fn new(tx: T, pool: Pool) -> Self {
        Self {
            // A header of the PROXY protocol may wait in it already.
            pushed: tx.queued() as u64,
            tx,
            pool,
            open: None,
        }
    }

    /// Where heads and framing are written.
    pub fn open(&mut self) -> &mut OutBlock {
        self.open
            .get_or_insert_with(|| self.pool.out(BLOCK_BYTES[0]))
    }

    /// Writes framing.
    pub fn put(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.open().put(bytes);
        }
    }

    /// Sends data with its framing around it.
    pub fn data(&mut self, prefix: &[u8], mut data: Chunk, suffix: &[u8]) {
        if data.len() < COPY_BELOW_BYTES {
            let open = self.open();
            open.put(prefix);
            open.put(&data);
            open.put(suffix);
            return;
        }
        if self.open.is_some() || !data.prepend(prefix) {
            self.put(prefix);
        }
        let enclosed = data.append(suffix);
        self.close();
        self.push(data);
        if !enclosed {
            self.put(suffix);
        }
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: Chunk) {
        if bytes.len() < COPY_BELOW_BYTES {
            self.put(&bytes);
        } else {
            self.close();
            self.push(bytes);
        }
    }

    /// Sends a piece of a body as the machine frames it.
    pub fn send(&mut self, sender: &mut Sender, data: Chunk) -> Result<(), Error> {
        let prefix = sender.prefix(data.len())?;
        self.data(prefix.as_bytes(), data, sender.suffix());
        Ok(())
    }

    /// Ends a message as the machine frames it.
    pub fn end(&mut self, sender: &mut Sender, trailers: &Trailers) -> Result<(), Error> {
        if trailers.is_empty() {
            self.put(sender.end()?);
            return Ok(());
        }
        sender.end_with_trailers(trailers, self.open())
    }

    /// Bytes that the kernel has not taken yet.
    pub fn queued(&self) -> usize {
        self.tx.queued() + self.open.as_ref().map_or(0, OutBlock::len)
    }

    /// Bytes that the kernel has taken since the connection began: how progress is told from standing still.
    pub fn sent(&self) -> u64 {
        self.pushed - self.tx.queued() as u64
    }

    /// Sends all that was written; ready when the kernel has taken it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        self.tx.poll_send(cx)
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.push(open.freeze());
        }
    }

    fn push(&mut self, chunk: Chunk) {
        self.pushed += chunk.len() as u64;
        self.tx.push(chunk);
    }
}

impl<N: Net> Outbox<WireTx<N>> {
    /// Lets what comes of a long body pass from another connection, behind what was written: see [`Net::poll_pass`].
    /// 0: not now or not this body. `at_most` of it may pass; not where something came in `before`, nor where the
    /// machine frames what is sent, nor where either side is encrypted.
    pub(super) fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        net: &N,
        (from, before): (&mut WireRx<N>, &Inbox),
        (body, at_most): (BodyKind, u64),
        sender: &mut Sender,
    ) -> Poll<Result<usize, Error>> {
        if at_most == 0 || !before.is_empty() || !is_long(body) || !sender.is_raw() {
            return Poll::Ready(Ok(0));
        }
        let (WireRx::Plain(from), true) = (from, matches!(self.tx, WireTx::Plain(_))) else {
            return Poll::Ready(Ok(0));
        };
        self.close();
        let WireTx::Plain(to) = &mut self.tx else {
            return Poll::Ready(Ok(0));
        };
        let at_most = at_most.min(SPLICE_BYTES_MAX as u64) as usize;
        let passed = ready!(net.poll_pass(cx, from, to, at_most));
        self.pushed += passed as u64;
        let framed = match passed {
            0 => Ok(0),
            _ => sender.prefix(passed).map(|_| passed),
        };
        Poll::Ready(framed)
    }
}
