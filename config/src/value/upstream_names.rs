//! Names of upstreams, as routes and policies use them.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{NamedEntry, quoted_if_needed};
use crate::text::source::Span;
use crate::value::server_url::ServerUrl;

/// The names of all upstreams in file order, also of unreadable ones.
pub(crate) struct UpstreamNames {
    pub(crate) all: Vec<Spanned<String>>,
    index: HashMap<String, usize>,
    /// The servers that policies name by a URL, each with its first place. Each becomes an upstream behind the others.
    servers: RefCell<Vec<Spanned<ServerUrl>>>,
}

impl UpstreamNames {
    /// The names of `upstreams`.
    pub(crate) fn new<T>(upstreams: &[NamedEntry<T>]) -> Self {
        let all: Vec<_> = upstreams.iter().map(|entry| entry.name.clone()).collect();
        let index = all.iter().enumerate();
        let index = index.map(|(i, name)| (name.value.clone(), i)).collect();
        Self {
            all,
            index,
            servers: RefCell::default(),
        }
    }

    /// The index of the upstream that `server` is. All URLs of one server share it.
    pub(crate) fn index_of_server(&self, server: &ServerUrl, span: &Span) -> usize {
        let mut servers = self.servers.borrow_mut();
        let known = servers.iter().position(|known| known.value == *server);
        let index = known.unwrap_or_else(|| {
            servers.push(Spanned {
                value: server.clone(),
                span: span.clone(),
            });
            servers.len() - 1
        });
        self.all.len() + index
    }

    /// The servers that policies have named by a URL so far.
    pub(crate) fn servers(&self) -> Vec<Spanned<ServerUrl>> {
        self.servers.borrow().clone()
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
