//! The bytes that a connection is about to send.
//!
//! The outbox copies heads, framing and small pieces of data into one open block, and sends larger pieces by reference.
//! So a small answer takes one send, and a large one is not copied.

use std::io;
use std::task::{Context, Poll};

use weir_proto_h1::{Error, Sender, Trailers};

use crate::io::{Chunk, OutBlock, Pool, Tx};
use crate::limits::{BLOCK_BYTES, COPY_BELOW_BYTES};

/// The sending half of a connection with the bytes that wait to be sent.
pub struct Outbox<T: Tx> {
    /// The half itself.
    pub tx: T,
    pool: Pool,
    open: Option<OutBlock>,
    pushed: u64,
}

impl<T: Tx> Outbox<T> {
    /// Begins with nothing written.
    pub fn new(tx: T, pool: Pool) -> Self {
        Self {
            // A header of the PROXY protocol may be queued already.
            pushed: tx.queued() as u64,
            tx,
            pool,
            open: None,
        }
    }

    /// The open block, which heads and framing are written into.
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

    /// Writes data with its framing around it.
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

    /// Writes bytes without framing.
    pub fn raw(&mut self, bytes: Chunk) {
        if bytes.len() < COPY_BELOW_BYTES {
            self.put(&bytes);
        } else {
            self.close();
            self.push(bytes);
        }
    }

    /// Writes a piece of a body, framed by `sender`.
    pub fn send(&mut self, sender: &mut Sender, data: Chunk) -> Result<(), Error> {
        let prefix = sender.prefix(data.len())?;
        self.data(prefix.as_bytes(), data, sender.suffix());
        Ok(())
    }

    /// Writes the end of a body, framed by `sender`.
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

    /// Bytes that the kernel has taken since the count began. A caller tells progress from a stall by them.
    pub fn sent(&self) -> u64 {
        self.pushed - self.tx.queued() as u64
    }

    /// Sends the written bytes. Ready once the kernel has taken them.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        self.tx.poll_send(cx)
    }

    /// The sending half, once all written bytes are queued on it.
    pub(super) fn closed(&mut self) -> &mut T {
        self.close();
        &mut self.tx
    }

    /// Counts sent bytes from here on.
    pub(super) fn restart_count(&mut self) {
        self.pushed = self.tx.queued() as u64;
    }

    /// Counts bytes that a caller has queued on the sending half itself.
    pub(super) fn count_passed(&mut self, bytes: usize) {
        self.pushed += bytes as u64;
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
