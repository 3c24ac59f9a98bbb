//! The endpoints that an exchange has tried.

/// Endpoints that an exchange has tried.
#[derive(Clone, Default)]
pub struct TriedEndpoints {
    endpoints: [u32; 7],
    len: u8,
}

impl TriedEndpoints {
    /// Remembers an endpoint. After seven it remembers no more, so an exchange may try a further endpoint twice.
    pub fn add(&mut self, endpoint: u32) {
        if let Some(free) = self.endpoints.get_mut(self.len as usize) {
            *free = endpoint;
            self.len += 1;
        }
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
