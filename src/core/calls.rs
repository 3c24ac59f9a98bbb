//! How many sub-requests a core runs at once.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::{CALLS_MAX, DETACHED_CALLS_MAX, MIRRORED_BYTES_MAX};

/// The sub-requests that a core runs now.
#[derive(Default)]
pub struct Calls {
    awaited: Cell<usize>,
    detached: Cell<usize>,
    /// Bytes of memory that the bodies of copies hold.
    mirrored: Cell<usize>,
}

impl Calls {
    /// Permits one more sub-request that a client waits for. `None`: the core runs [`CALLS_MAX`] already.
    pub fn begin_awaited(self: &Rc<Self>) -> Option<CallPermit> {
        self.begin(|calls| &calls.awaited, CALLS_MAX)
    }

    /// Permits one more sub-request that nobody waits for. `None`: the core runs [`DETACHED_CALLS_MAX`] already.
    pub fn begin_detached(self: &Rc<Self>) -> Option<CallPermit> {
        self.begin(|calls| &calls.detached, DETACHED_CALLS_MAX)
    }

    /// Begins to count the memory that the body of one copy holds.
    pub fn begin_mirror(self: &Rc<Self>) -> MirroredBytes {
        MirroredBytes {
            calls: self.clone(),
            bytes: 0,
        }
    }

    fn begin(self: &Rc<Self>, count: fn(&Self) -> &Cell<usize>, max: usize) -> Option<CallPermit> {
        let running = count(self).get();
        (running < max).then(|| {
            count(self).set(running + 1);
            CallPermit {
                calls: self.clone(),
                count,
            }
        })
    }
}

/// Counts one sub-request while it lives.
pub struct CallPermit {
    calls: Rc<Calls>,
    count: fn(&Calls) -> &Cell<usize>,
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let count = (self.count)(&self.calls);
        count.set(count.get() - 1);
    }
}

/// Counts the memory that the body of one copy of a request holds.
pub struct MirroredBytes {
    calls: Rc<Calls>,
    bytes: usize,
}

impl MirroredBytes {
    /// Counts further bytes. Returns false if all copies together would hold more than [`MIRRORED_BYTES_MAX`].
    pub fn add(&mut self, bytes: usize) -> bool {
        let held = self.calls.mirrored.get() + bytes;
        let has_room = held <= MIRRORED_BYTES_MAX;
        if has_room {
            self.calls.mirrored.set(held);
            self.bytes += bytes;
        }
        has_room
    }
}

impl Drop for MirroredBytes {
    fn drop(&mut self) {
        let held = &self.calls.mirrored;
        held.set(held.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_runs_only_so_many_sub_requests() {
        let calls = Rc::new(Calls::default());
        let mut permits: Vec<_> = (0..DETACHED_CALLS_MAX)
            .map(|_| calls.begin_detached().unwrap())
            .collect();
        assert!(calls.begin_detached().is_none());
        assert!(calls.begin_awaited().is_some(), "the two count apart");
        permits.pop();
        assert!(calls.begin_detached().is_some());
    }

    #[test]
    fn copies_hold_only_so_many_bytes() {
        let calls = Rc::new(Calls::default());
        let (mut one, mut other) = (calls.begin_mirror(), calls.begin_mirror());
        assert!(one.add(MIRRORED_BYTES_MAX - 1) && other.add(1));
        assert!(!other.add(1), "they share the limit");
        drop(one);
        assert!(other.add(1));
    }
}
