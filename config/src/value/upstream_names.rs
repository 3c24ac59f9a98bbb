//! Names of upstreams, as routes and policies use them.

use std::collections::HashMap;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{NamedEntry, quoted_if_needed};

/// The names of all upstreams in file order, also of unreadable ones.
pub(crate) struct UpstreamNames {
    pub(crate) all: Vec<Spanned<String>>,
    index: HashMap<String, usize>,
}

impl UpstreamNames {
    /// The names of `upstreams`.
    pub(crate) fn new<T>(upstreams: &[NamedEntry<T>]) -> Self {
        let all: Vec<_> = upstreams.iter().map(|entry| entry.name.clone()).collect();
        let index = all.iter().enumerate();
        let index = index.map(|(i, name)| (name.value.clone(), i)).collect();
        Self { all, index }
    }

    /// The index of the upstream `name`; reports an unknown name, with the nearest known one.
    pub(crate) fn resolve(&self, name: &Spanned<String>, cx: &mut Decoder<'_>) -> Option<usize> {
        let found = self.index.get(&name.value).copied();
        if found.is_none() {
            let known = self.all.iter().map(|name| name.value.as_str());
            cx.unknown_name(name, "upstream", known).help(format!(
                "define it:\n[upstream.{}]\nservers = [\"10.0.0.11:8080\"]",
                quoted_if_needed(&name.value)
            ));
        }
        found
    }
}
