//! Connection counts that all cores share: by core, by listener and by client address.
//!
//! Cores read them when a connection begins or ends, never during a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Clients;
use crate::io::Address;
use crate::limits::{SPREAD_MIN, SPREAD_PERCENT_MAX};
use crate::plan::Transport;
use crate::shared::{AtomicU32, Ordering};

/// The connections of the whole process.
pub struct ConnectionCounts {
    /// Connections of each core, with those on their way to it from another. Sixteen share a cache line, because every
    /// accept reads all of them: at 64 cores, four lines.
    by_core: Box<[AtomicU32]>,
    by_listener: Mutex<HashMap<(Address, Transport), Arc<ListenerConnections>>>,
}

/// The connections of one listener over all cores.
#[derive(Default)]
pub(super) struct ListenerConnections {
    pub(super) connections: AtomicU32,
    pub(super) clients: Clients,
}

impl ConnectionCounts {
    /// Makes the counts of this many cores.
    pub fn new(cores: usize) -> Self {
        Self {
            by_core: (0..cores).map(|_| AtomicU32::new(0)).collect(),
            by_listener: Mutex::default(),
        }
    }

    /// The counts of a listener, the same for every core. Takes a lock: call it only to open a listener.
    pub(super) fn listener(
        &self,
        address: &Address,
        transport: Transport,
    ) -> Arc<ListenerConnections> {
        let mut listeners = self
            .by_listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (address.clone(), transport);
        listeners.entry(key).or_default().clone()
    }

    /// The core with the fewest connections, if core `index` has so many more than the mean that a transfer is worth
    /// its cost. (Seastar places each connection; Weir moves only the excess.)
    pub fn less_loaded(&self, index: usize) -> Option<usize> {
        let cores = self.by_core.len() as u64;
        let mine = u64::from(self.by_core.get(index)?.load(Ordering::Relaxed));
        if cores < 2 || mine < SPREAD_MIN {
            return None;
        }
        let (mut sum, mut least) = (0, (u64::MAX, index));
        for (core, count) in self.counts().enumerate() {
            sum += count;
            least = least.min((count, core));
        }
        let has_more = mine * cores * 100 > sum * SPREAD_PERCENT_MAX;
        (has_more && least.1 != index).then_some(least.1)
    }

    /// Counts a connection that leaves for core `to`. It belongs to that core from now on: else all cores would hand
    /// theirs to one that is slow to take them over.
    pub fn begin_transfer(&self, to: usize) {
        self.add(to, 1);
    }

    /// Ends the count of a connection on its way to core `to`, which has taken it over or did not get it.
    pub fn end_transfer(&self, to: usize) {
        self.add(to, -1);
    }

    /// Connections of all cores, and those in transit between two.
    pub(super) fn total(&self) -> u64 {
        self.counts().sum()
    }

    /// Adds connections of a core.
    pub(super) fn add(&self, core: usize, connections: i32) {
        if let Some(count) = self.by_core.get(core) {
            // In two's complement, adding a negative number subtracts.
            count.fetch_add(connections as u32, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        let counts = self.by_core.iter();
        counts.map(|count| u64::from(count.load(Ordering::Relaxed)))
    }
}
