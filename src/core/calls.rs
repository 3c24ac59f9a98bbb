//! How many sub-requests a core runs at once.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::{CALLS_MAX, DETACHED_CALLS_MAX};

/// The sub-requests that a core runs now.
#[derive(Default)]
pub struct Calls {
    awaited: Cell<usize>,
    detached: Cell<usize>,
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
}
