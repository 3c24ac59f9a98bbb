//! `first`: the first endpoint that has room, so that few endpoints serve little traffic and others can be switched off.

use crate::upstream::usable::UsableEndpoint;

/// Chooses the first endpoint that may be used, by priority and then by the order of the file.
pub(super) struct First {
    endpoints: Vec<u32>,
}

impl First {
    pub(super) fn new(endpoints: &[UsableEndpoint]) -> Self {
        let endpoints = endpoints.iter().map(|each| each.index).collect();
        Self { endpoints }
    }

    #[inline]
    pub(super) fn pick(&self, may: impl Fn(u32) -> bool) -> Option<u32> {
        self.endpoints.iter().copied().find(|&index| may(index))
    }
}
