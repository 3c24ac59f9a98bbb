//! What clients under load share with the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::eventually;

/// Ends the clients, and counts their exchanges. Clones share both.
#[derive(Clone, Default)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
}

impl Load {
    /// Whether clients go on.
    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Ends the clients after their current exchange.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Counts an exchange.
    pub fn count(&self) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// The exchanges so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Waits until clients have made `more` exchanges from now on.
    pub fn wait_for(&self, more: u64) {
        let from = self.exchanges();
        eventually("more exchanges", || {
            (self.exchanges() >= from + more).then_some(())
        });
    }
}
