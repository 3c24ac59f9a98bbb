//! Large pages of the admin listener: with 20,000 routes, the metrics are some 20 MB. Clients that ask at about the same
//! time share one copy, and Weir keeps three copies at most.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::admin_slots::AdminSlot;
use super::limits::{PAGE_BYTES_AT_ONCE, PAGE_BYTES_UNSHARED, PAGE_COST_SHARE, PAGES_KEPT};

/// The copies of one page that clients still read, newest last.
#[derive(Default)]
pub(super) struct SharedPages(RefCell<VecDeque<PageCopy>>);

struct PageCopy {
    text: Bytes,
    made: Instant,
    cost: Duration,
    readers: Vec<Weak<AdminSlot>>,
}

impl SharedPages {
    /// The page for the client of `slot`: the newest copy if it is young enough, else one that `make` makes. `make` gets
    /// the length of the last copy.
    ///
    /// Making a page may take a twentieth of control's time, so the larger a page, the longer a copy counts as young. A
    /// small page is made for each client. If there are too many copies, the clients that still read the oldest are
    /// evicted.
    pub(super) fn get(&self, slot: &Rc<AdminSlot>, make: impl FnOnce(usize) -> String) -> Bytes {
        let mut copies = self.0.borrow_mut();
        if let Some(newest) = copies.back_mut()
            && newest.made.elapsed() < newest.cost * PAGE_COST_SHARE
        {
            newest.readers.push(Rc::downgrade(slot));
            return newest.text.clone();
        }
        let length = copies.back().map_or(0, |newest| newest.text.len());
        copies.retain(|copy| !copy.text.is_unique());
        while copies.len() >= PAGES_KEPT {
            let oldest = copies.pop_front().into_iter();
            let readers = oldest.flat_map(|copy| copy.readers);
            readers
                .filter_map(|reader| reader.upgrade())
                .for_each(|reader| reader.evict());
        }
        let made = Instant::now();
        let text = Bytes::from(make(length));
        if text.len() > PAGE_BYTES_UNSHARED {
            copies.push_back(PageCopy {
                text: text.clone(),
                made,
                cost: made.elapsed(),
                readers: vec![Rc::downgrade(slot)],
            });
        }
        text
    }
}

/// A page that hyper takes a slice at a time, so that only what is about to be sent is copied.
pub(super) struct PageBody(pub(super) Bytes);

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(PAGE_BYTES_AT_ONCE);
        if length == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
