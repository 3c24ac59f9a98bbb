//! Pages of the admin listener that may be large: with 20,000 routes, the metrics are some 20 MB. Clients that ask at
//! about the same time share one copy, and there are never more than a few.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::limits::{PAGE_BYTES_AT_ONCE, PAGE_BYTES_UNSHARED, PAGE_COST_SHARE, PAGES_KEPT};
use super::places::Place;

/// The copies of one page that somebody still reads, newest last.
#[derive(Default)]
pub(super) struct Pages(RefCell<VecDeque<Copy>>);

struct Copy {
    text: Bytes,
    made: Instant,
    cost: Duration,
    readers: Vec<Weak<Place>>,
}

impl Pages {
    /// The page for the client of `place`: the newest copy if that is young enough, or one that `make` makes, which is
    /// told how long the last one was.
    ///
    /// A copy is young while making the next would cost more than a share of the time: the larger a page, the longer it
    /// serves. A small one is made anew each time. When there are more copies than may be, the clients that still read
    /// the oldest have to leave.
    pub(super) fn get(&self, place: &Rc<Place>, make: impl FnOnce(usize) -> String) -> Bytes {
        let mut copies = self.0.borrow_mut();
        if let Some(newest) = copies.back_mut()
            && newest.made.elapsed() < newest.cost * PAGE_COST_SHARE
        {
            newest.readers.push(Rc::downgrade(place));
            return newest.text.clone();
        }
        let length = copies.back().map_or(0, |newest| newest.text.len());
        copies.retain(|copy| !copy.text.is_unique());
        while copies.len() >= PAGES_KEPT {
            let oldest = copies.pop_front().into_iter();
            let readers = oldest.flat_map(|copy| copy.readers);
            readers
                .filter_map(|reader| reader.upgrade())
                .for_each(|reader| reader.dismiss());
        }
        let made = Instant::now();
        let text = Bytes::from(make(length));
        if text.len() > PAGE_BYTES_UNSHARED {
            copies.push_back(Copy {
                text: text.clone(),
                made,
                cost: made.elapsed(),
                readers: vec![Rc::downgrade(place)],
            });
        }
        text
    }
}

/// A page on its way to a client, a slice at a time: nothing is copied but what is about to be sent.
pub(super) struct Slices(pub(super) Bytes);

impl Body for Slices {
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
