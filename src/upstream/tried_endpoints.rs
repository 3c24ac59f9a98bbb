//! The endpoints that an exchange has tried.

use crate::io::Instant;

/// Endpoints that an exchange has tried.
#[derive(Clone, Default)]
pub struct TriedEndpoints {
    endpoints: [u32; 7],
    len: u8,
    /// When the last retry was decided; `None` before the first. Retries leave endpoints alone that asked for it.
    retried_at: Option<Instant>,
}

impl TriedEndpoints {
    /// Adds an endpoint. It holds seven, so an exchange may try a further endpoint twice.
    pub fn add(&mut self, endpoint: u32) {
        if let Some(free) = self.endpoints.get_mut(self.len as usize) {
            *free = endpoint;
            self.len += 1;
        }
    }

    /// Notes that a request is sent again: endpoints that have asked to be left alone, by `Retry-After`, get none of it.
    pub fn note_retry(&mut self, now: Instant) {
        self.retried_at = Some(now);
    }

    /// Whether a retry has to leave an endpoint alone that asked for it until then.
    #[inline]
    pub(super) fn must_leave(&self, until: Instant) -> bool {
        self.retried_at.is_some_and(|now| now < until)
    }

    /// Whether no endpoint was tried yet.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the endpoint was tried.
    #[inline]
    pub(super) fn has(&self, endpoint: u32) -> bool {
        self.endpoints
            .iter()
            .take(self.len as usize)
            .any(|&tried| tried == endpoint)
    }
}
