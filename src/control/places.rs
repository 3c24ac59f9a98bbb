//! Connections to the admin listener. There are so many places; who comes when all are taken gets that of the
//! connection on which nothing has moved for longest: one that idles between requests, sends no head, or does not read.
//! So whoever asks for health is answered, whatever the others do.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// All places of a listener.
#[derive(Default)]
pub(super) struct Places(RefCell<Vec<Rc<Place>>>);

/// A connection's place.
pub(super) struct Place {
    /// When bytes last went either way.
    moved: Cell<Instant>,
    leave: Notify,
}

/// A place that is given back when this is dropped.
pub(super) struct Seat {
    all: Rc<Places>,
    pub(super) place: Rc<Place>,
}

impl Places {
    /// Takes a place; if `max` are taken, somebody else has to leave.
    pub(super) fn take(self: &Rc<Self>, max: usize) -> Seat {
        let place = Rc::new(Place {
            moved: Cell::new(Instant::now()),
            leave: Notify::new(),
        });
        let mut all = self.0.borrow_mut();
        if all.len() >= max {
            let still = all.iter().enumerate();
            let longest = still.min_by_key(|(_, place)| place.moved.get());
            if let Some((at, _)) = longest {
                all.swap_remove(at).dismiss();
            }
        }
        all.push(place.clone());
        Seat {
            all: self.clone(),
            place,
        }
    }
}

impl Place {
    /// Has the connection end.
    pub(super) fn dismiss(&self) {
        self.leave.notify_one();
    }

    /// Waits until the connection has to end.
    pub(super) async fn dismissed(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some(at) = all.iter().position(|one| Rc::ptr_eq(one, &self.place)) {
            all.swap_remove(at);
        }
    }
}

/// A connection that notes in its place when something moves.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) place: Rc<Place>,
}

impl<S> Watched<S> {
    fn note(&self, bytes: usize) {
        if bytes > 0 {
            self.place.moved.set(Instant::now());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.note(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.note(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
