//! The board on which control posts endpoints for cores to read.
//!
//! Control posts new endpoints and then sends each core a command. A core whose mailbox is full misses the command,
//! so every core compares its epoch with the board's once a second and catches up.

use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::EndpointSets;
use crate::shared::{AtomicU64, Ordering};

/// The newest endpoints that control has posted. Empty until the first post.
#[derive(Debug, Default)]
pub struct EndpointBoard {
    /// The epoch of the posted endpoints. Cores compare it without taking the lock.
    epoch: AtomicU64,
    posted: Mutex<PostedEndpoints>,
}

/// Endpoints on the board.
#[derive(Clone, Debug, Default)]
pub struct PostedEndpoints {
    /// The epoch of the plan that they belong to.
    pub plan_epoch: u64,
    /// The endpoints of its upstreams.
    pub endpoints: Arc<EndpointSets>,
}

impl EndpointBoard {
    /// Posts endpoints, which replace the former ones.
    pub fn post(&self, plan_epoch: u64, endpoints: Arc<EndpointSets>) {
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = endpoints.epoch;
        *posted = PostedEndpoints {
            plan_epoch,
            endpoints,
        };
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The posted endpoints, if they are newer than those of `epoch`.
    pub fn newer_than(&self, epoch: u64) -> Option<PostedEndpoints> {
        if self.epoch.load(Ordering::Acquire) <= epoch {
            return None;
        }
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        Some(posted.clone())
    }
}
