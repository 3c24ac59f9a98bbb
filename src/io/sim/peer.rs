//! What scripts hold of a connection: plain calls instead of polls. Works in either world.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::io::{Address, Chunk, Connection, Net, Rx, Tx};

/// How reading came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer ended its direction in an orderly way.
    Orderly,
    /// It did not.
    Failed(ErrorKind),
}

/// A connection in a script's hands.
pub struct Peer<N: Net> {
    /// The receiving half.
    pub rx: N::Rx,
    /// The sending half.
    pub tx: N::Tx,
    /// The other side's address.
    pub address: Option<SocketAddr>,
    net: N,
    /// Received, and not asked for yet.
    read: Vec<u8>,
}

impl<N: Net> Peer<N> {
    /// Takes a connection.
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

    /// Connects.
    ///
    /// # Errors
    /// As [`Net::connect`].
    pub async fn connect(net: &N, to: &Address) -> io::Result<Self> {
        Ok(Self::new(net, net.connect(to).await?))
    }

    /// The world that it lives in.
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

    /// Queues bytes that are sent while something is read: both ways at once, in one task.
    pub fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16 * 1024) {
            self.tx.push(self.net.pool().copy(part));
        }
    }

    /// What comes next, as it comes; `None` is the orderly end.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn recv(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.read.is_empty() {
            return Ok(Some(std::mem::take(&mut self.read)));
        }
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Exactly `n` bytes.
    ///
    /// # Errors
    /// The connection is broken, or ends before (`UnexpectedEof`).
    pub async fn read_exact(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < n {
            self.more().await?;
        }
        Ok(self.read.drain(..n).collect())
    }

    /// Everything up to `mark` and the mark itself.
    ///
    /// # Errors
    /// The connection is broken, or ends before (`UnexpectedEof`).
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

    /// Everything up to the end, and what kind of end it was.
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
            // What it means that the peer takes no more, its answer says.
            let _ = self.tx.poll_send(cx);
        }
        self.rx
            .poll_recv(cx)
            .map_ok(|chunk| chunk.map(|chunk| chunk.to_vec()))
    }
}
