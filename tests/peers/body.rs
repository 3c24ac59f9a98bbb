//! Bodies that hyper sends.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// A body to send: of known length, or streamed in pieces.
pub struct Body {
    known: Option<Bytes>,
    pieces: Option<mpsc::Receiver<Frame<Bytes>>>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::of(Bytes::new())
    }

    /// A body of known length.
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        Self {
            known: Some(bytes.into()).filter(|bytes| !bytes.is_empty()),
            pieces: None,
        }
    }

    /// A body without a known length, cut into pieces of `piece` bytes.
    pub fn streamed(bytes: Bytes, piece: usize) -> Self {
        Self::trailed(bytes, piece, HeaderMap::new())
    }

    /// Like `streamed`, followed by trailers.
    pub fn trailed(bytes: Bytes, piece: usize, trailers: HeaderMap) -> Self {
        let count = bytes.len().div_ceil(piece);
        let (sender, body) = Self::piped(count + 1);
        for n in 0..count {
            let end = bytes.len().min((n + 1) * piece);
            let frame = Frame::data(bytes.slice(n * piece..end));
            assert!(sender.try_send(frame).is_ok());
        }
        if !trailers.is_empty() {
            assert!(sender.try_send(Frame::trailers(trailers)).is_ok());
        }
        body
    }

    /// A body whose pieces the test sends through a channel with `room` places.
    pub fn piped(room: usize) -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, pieces) = mpsc::channel(room);
        let body = Self {
            known: None,
            pieces: Some(pieces),
        };
        (sender, body)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(known) = self.known.take() {
            return Poll::Ready(Some(Ok(Frame::data(known))));
        }
        let Some(pieces) = &mut self.pieces else {
            return Poll::Ready(None);
        };
        Poll::Ready(ready!(pieces.poll_recv(cx)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.known.is_none() && self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces.is_some() {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.known.as_ref().map_or(0, |known| known.len() as u64))
    }
}

/// Bytes that depend on their position and on the seed.
pub fn pattern(len: usize, seed: usize) -> Bytes {
    (0..len)
        .map(|n| ((n * 7 + n / 251 + seed) % 251) as u8)
        .collect()
}

/// The FNV-1a hash, which depends on the order of the bytes.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
