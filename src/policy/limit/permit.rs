//! The place of a request among those that a key has at once.

use std::rc::Rc;

use super::count_set::CountPlace;
use super::plan::CoreShare;

/// A request's place under one `concurrency`. Dropping it gives the place back, however the exchange ends.
#[derive(Debug)]
pub(super) struct Permit {
    share: Rc<CoreShare>,
    /// The limit's place in the plan.
    index: usize,
    place: CountPlace,
}

/// The places that one exchange has.
#[derive(Debug, Default)]
pub struct Permits {
    first: Option<Permit>,
    /// Most requests have one place, which needs no memory of its own.
    others: Vec<Permit>,
}

impl Permit {
    pub(super) fn new(share: Rc<CoreShare>, index: usize, place: CountPlace) -> Self {
        Self {
            share,
            index,
            place,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(count) = self.share.count(self.index) {
            count
                .set
                .leave(&self.share.shared().table.cells, self.place);
        }
    }
}

impl Permits {
    pub(super) fn push(&mut self, permit: Permit) {
        match &self.first {
            None => self.first = Some(permit),
            Some(_) => self.others.push(permit),
        }
    }
    /// Adds the places of another step.
    pub(super) fn append(&mut self, other: Self) {
        for permit in other.first.into_iter().chain(other.others) {
            self.push(permit);
        }
    }
}
