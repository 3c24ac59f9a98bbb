//! A connection, in the clear or over TLS. Its callers treat both alike.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::PeerAddress;
use crate::core::Core;
use crate::io::{Chunk, Connection, Net, Rx, Tx};
use crate::tls::{CertificateIdentity, TlsFailure, TlsParameters, TlsRx, TlsTx};

/// A connection, split into its directions.
pub struct Wire<N: Net> {
    /// The receiving half.
    pub rx: WireRx<N>,
    /// The sending half.
    pub tx: WireTx<N>,
    /// The peer's address.
    pub peer: PeerAddress,
}

/// The receiving half. The state of TLS is boxed, so that connections in the clear stay small.
pub enum WireRx<N: Net> {
    /// In the clear.
    Plain(N::Rx),
    /// Over TLS.
    Tls(Box<TlsRx<N::Rx, N::Tx>>),
}

/// The sending half.
pub enum WireTx<N: Net> {
    /// In the clear.
    Plain(N::Tx),
    /// Over TLS.
    Tls(TlsTx<N::Tx>),
}

impl<N: Net> From<Connection<N>> for Wire<N> {
    fn from(connection: Connection<N>) -> Self {
        Self {
            rx: WireRx::Plain(connection.rx),
            tx: WireTx::Plain(connection.tx),
            peer: connection.peer.into(),
        }
    }
}

impl<N: Net> Wire<N> {
    /// The connection below TLS, for a client that turned out not to speak TLS.
    pub fn into_raw(self) -> Option<Connection<N>> {
        let (rx, tx) = match (self.rx, self.tx) {
            (WireRx::Tls(rx), WireTx::Tls(tx)) => rx.into_raw(tx)?,
            (WireRx::Plain(rx), WireTx::Plain(tx)) => (rx, tx),
            _ => return None,
        };
        let peer = self.peer.get();
        Some(Connection { rx, tx, peer })
    }
}

impl<N: Net> WireRx<N> {
    /// What the TLS handshake has agreed on; `None` in the clear, or before the end of the handshake.
    pub fn tls_parameters(&self) -> Option<TlsParameters> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(rx) => rx.tls_parameters(),
        }
    }

    /// The identity in the client's certificate, if the client has shown one.
    pub fn identity(&self) -> Option<Rc<CertificateIdentity>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(rx) => rx.identity(),
        }
    }

    /// The server name that the client asked for in the handshake, if any.
    pub fn server_name(&self) -> Option<Rc<str>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(rx) => rx.server_name(),
        }
    }

    /// Why TLS has failed, on either side; `None` in the clear, and for an orderly end.
    pub fn refusal(&self) -> Option<TlsFailure> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(rx) => rx.refusal(),
        }
    }

    /// Reports to control why TLS with an endpoint has failed, if it has. In TLS 1.3 an endpoint refuses Weir's
    /// certificate after Weir's side of the handshake is complete, so the refusal arrives here.
    pub fn report_refusal(&self, core: &Core<N>, endpoint: &str) {
        if let Self::Tls(rx) = self
            && rx.refusal().is_some()
        {
            core.report_endpoint_tls(endpoint, rx.cause());
        }
    }

    /// Receives bytes without decrypting them, to discard them.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Self::Plain(rx) => rx.poll_recv(cx),
            Self::Tls(rx) => rx.poll_discard(cx),
        }
    }
}

impl<N: Net> Rx for WireRx<N> {
    #[inline]
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Self::Plain(rx) => rx.poll_recv(cx),
            Self::Tls(rx) => rx.poll_recv(cx),
        }
    }

    #[inline]
    fn is_quiet(&mut self, ask: bool) -> bool {
        match self {
            Self::Plain(rx) => rx.is_quiet(ask),
            Self::Tls(rx) => rx.is_quiet(ask),
        }
    }

    #[inline]
    fn expect(&mut self, bytes: usize) {
        match self {
            Self::Plain(rx) => rx.expect(bytes),
            Self::Tls(rx) => rx.expect(bytes),
        }
    }

    #[inline]
    fn expect_silence(&mut self) {
        // A TLS connection ends with a wait for the client's end, so it needs the watch anyway.
        if let Self::Plain(rx) = self {
            rx.expect_silence();
        }
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        match self {
            Self::Plain(rx) => rx.wake_later(cx),
            Self::Tls(rx) => rx.wake_later(cx),
        }
    }
}

impl<N: Net> WireTx<N> {
    /// Ends the sending direction in an orderly way. Ready once the end is sent, or cannot be sent.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(tx) => {
                tx.finish();
                tx.poll_send(cx).map(drop)
            }
            Self::Tls(tx) => tx.poll_finish(cx),
        }
    }
}

impl<N: Net> Tx for WireTx<N> {
    #[inline]
    fn push(&mut self, chunk: Chunk) {
        match self {
            Self::Plain(tx) => tx.push(chunk),
            Self::Tls(tx) => tx.push(chunk),
        }
    }

    #[inline]
    fn queued(&self) -> usize {
        match self {
            Self::Plain(tx) => tx.queued(),
            Self::Tls(tx) => tx.queued(),
        }
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tx) => tx.poll_send(cx),
            Self::Tls(tx) => tx.poll_send(cx),
        }
    }

    fn hold_for_end(&mut self) {
        match self {
            Self::Plain(tx) => tx.hold_for_end(),
            Self::Tls(tx) => tx.hold_for_end(),
        }
    }

    fn has_sent_all(&mut self) -> bool {
        match self {
            Self::Plain(tx) => tx.has_sent_all(),
            Self::Tls(tx) => tx.has_sent_all(),
        }
    }

    fn rest(&mut self) {
        match self {
            Self::Plain(tx) => tx.rest(),
            Self::Tls(tx) => tx.rest(),
        }
    }

    fn finish(&mut self) {
        match self {
            Self::Plain(tx) => tx.finish(),
            Self::Tls(tx) => tx.finish(),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Plain(tx) => tx.abort(),
            Self::Tls(tx) => tx.abort(),
        }
    }
}
