//! Connection counts that all cores share: by core, by listener and by client address.
//!
//! Cores read them when a connection begins or ends, never during a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Clients;
use crate::io::Address;
use crate::limits::{SPREAD_MIN, SPREAD_PERCENT_MAX};
use crate::plan::Transport;

/// The connections of the whole process.
pub struct ConnectionCounts {
    /// Connections of each core. Only that core writes its own.
    by_core: Box<[AtomicU32]>,
    /// Connections that one core has handed to another, and that the other has not taken over yet.
    in_transit: AtomicU32,
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
            in_transit: AtomicU32::new(0),
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
        let counts = self
            .by_core
            .iter()
            .map(|count| u64::from(count.load(Ordering::Relaxed)));
        let sum: u64 = counts.clone().sum();
        if mine * cores * 100 <= sum * SPREAD_PERCENT_MAX {
            return None;
        }
        let least = counts.enumerate().min_by_key(|&(_, count)| count);
        least.map(|(core, _)| core).filter(|&core| core != index)
    }

    /// Counts a connection that leaves for another core.
    pub fn begin_transfer(&self) {
        self.in_transit.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that has arrived from another core.
    pub fn end_transfer(&self) {
        self.in_transit.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections of all cores, and those in transit between two.
    pub(super) fn total(&self) -> u64 {
        let counts = self.by_core.iter().chain([&self.in_transit]);
        counts
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum()
    }

    /// Publishes how many connections a core has.
    pub(super) fn set(&self, core: usize, connections: usize) {
        if let Some(count) = self.by_core.get(core) {
            count.store(connections as u32, Ordering::Relaxed);
        }
    }
}
