//! Slots for connections to the admin listener. If all slots are taken, a new connection evicts the one on which no byte
//! has moved for longest: it idles between requests, sends no head, or does not read. So a health check is answered
//! whatever other clients do.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The slots of a listener.
#[derive(Default)]
pub(super) struct AdminSlots(RefCell<Vec<Rc<AdminSlot>>>);

/// A connection's slot.
pub(super) struct AdminSlot {
    /// When a byte last moved in either direction.
    last_moved: Cell<Instant>,
    evicted: Notify,
}

/// Frees a slot when dropped.
pub(super) struct AdminSlotLease {
    all: Rc<AdminSlots>,
    pub(super) slot: Rc<AdminSlot>,
}

impl AdminSlots {
    /// Takes a slot. If `max` slots are taken, evicts the connection that has been still for longest.
    pub(super) fn take(self: &Rc<Self>, max: usize) -> AdminSlotLease {
        let slot = Rc::new(AdminSlot {
            last_moved: Cell::new(Instant::now()),
            evicted: Notify::new(),
        });
        let mut all = self.0.borrow_mut();
        if all.len() >= max {
            let slots = all.iter().enumerate();
            let stillest = slots.min_by_key(|(_, slot)| slot.last_moved.get());
            if let Some((at, _)) = stillest {
                all.swap_remove(at).evict();
            }
        }
        all.push(slot.clone());
        AdminSlotLease {
            all: self.clone(),
            slot,
        }
    }
}

impl AdminSlot {
    /// Ends the connection.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Waits until the connection must end.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for AdminSlotLease {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some(at) = all.iter().position(|one| Rc::ptr_eq(one, &self.slot)) {
            all.swap_remove(at);
        }
    }
}

/// A connection that notes in its slot when a byte moves.
pub(super) struct AdminStream<S> {
    pub(super) stream: S,
    pub(super) slot: Rc<AdminSlot>,
}

impl<S> AdminStream<S> {
    fn note(&self, bytes: usize) {
        if bytes > 0 {
            self.slot.last_moved.set(Instant::now());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AdminStream<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for AdminStream<S> {
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
