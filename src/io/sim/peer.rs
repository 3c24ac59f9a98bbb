//! The scripts' view of a connection: async calls instead of polls, in the simulator and on real systems.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::io::{Address, Chunk, Connection, Net, Rx, Tx};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer ended its direction in an orderly way.
    Orderly,
    /// The connection broke.
    Failed(ErrorKind),
}

/// A connection held by a script.
pub struct Peer<N: Net> {
    pub rx: N::Rx,
    pub tx: N::Tx,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    net: N,
    /// Received bytes that no call has asked for.
    read: Vec<u8>,
}

impl<N: Net> Peer<N> {
    pub fn new(net: &N, connection: Connection<N>) -> Self {
        let Connection { rx, tx, peer } = connection;
        Self {
            rx,
            tx,
            address: peer,
            net: net.clone(),
            read: Vec::new(),
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The same as those of [`Net::connect`].
    pub async fn connect(net: &N, to: &Address) -> io::Result<Self> {
        Ok(Self::new(net, net.connect(to).await?))
    }

    /// The world in which the connection lives.
    pub fn net(&self) -> &N {
        &self.net
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(16 * 1024) {
            let chunk = self.net.pool().copy(part);
            self.send_chunk(chunk).await?;
        }
        Ok(())
    }

    /// Sends a chunk.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send_chunk(&mut self, chunk: Chunk) -> io::Result<()> {
        self.tx.push(chunk);
        poll_fn(|cx| self.tx.poll_send(cx)).await
    }

    /// Queues bytes. The next read sends them while it waits, so one task uses both directions.
    pub fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16 * 1024) {
            self.tx.push(self.net.pool().copy(part));
        }
    }

    /// The next received bytes; `None` is the orderly end.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn recv(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.read.is_empty() {
            return Ok(Some(std::mem::take(&mut self.read)));
        }
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Reads exactly `n` bytes.
    ///
    /// # Errors
    /// The connection is broken, or ends too early (`UnexpectedEof`).
    pub async fn read_exact(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < n {
            self.more().await?;
        }
        Ok(self.read.drain(..n).collect())
    }

    /// Reads everything up to and including `mark`.
    ///
    /// # Errors
    /// The connection is broken, or ends too early (`UnexpectedEof`).
    pub async fn read_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.read[searched..]
                .windows(mark.len())
                .position(|part| part == mark);
            if let Some(at) = found {
                return Ok(self.read.drain(..searched + at + mark.len()).collect());
            }
            searched = self.read.len().saturating_sub(mark.len() - 1);
            self.more().await?;
        }
    }

    /// Reads everything up to the end. Returns how the stream ended, too.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.more().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break End::Orderly,
                Err(error) => break End::Failed(error.kind()),
            }
        };
        (std::mem::take(&mut self.read), end)
    }

    /// Ends the sending direction in an orderly way.
    pub fn finish(&mut self) {
        self.tx.finish();
    }

    /// Drops the connection with a reset.
    pub fn reset(mut self) {
        self.tx.abort();
    }

    async fn more(&mut self) -> io::Result<()> {
        let bytes = poll_fn(|cx| self.poll_chunk(cx)).await?;
        self.read.extend(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
        if self.tx.queued() > 0 {
            // If the peer takes no more, its answer says why.
            let _ = self.tx.poll_send(cx);
        }
        self.rx
            .poll_recv(cx)
            .map_ok(|chunk| chunk.map(|chunk| chunk.to_vec()))
    }
}
