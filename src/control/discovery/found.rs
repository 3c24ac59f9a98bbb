//! What was found of a configuration's endpoints, and the endpoint sets that follow from it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_config::{Config, Endpoint, EndpointSource};

use crate::plan::{EndpointSets, Problem};

/// The answers to a configuration's names and sources.
#[derive(Clone, Debug, Default)]
pub struct FoundEndpoints {
    pub(super) names: BTreeMap<String, FoundName>,
    pub(super) sources: BTreeMap<String, FoundSource>,
    /// The version of the resolver's answers at that time.
    pub(in crate::control) version: u64,
}

/// A host name after a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundName {
    /// Its addresses. If the lookup failed, those of the last successful lookup.
    pub(super) addresses: Vec<IpAddr>,
    /// Why the lookup failed.
    pub(super) failure: Option<String>,
}

/// A source of endpoints after a question.
#[derive(Clone, Debug)]
pub(super) struct FoundSource {
    /// Its last good answer.
    pub(super) endpoints: Option<Arc<[Endpoint]>>,
    /// Why the last question failed.
    pub(super) failure: Option<String>,
}

impl FoundEndpoints {
    /// The endpoints of a configuration.
    ///
    /// # Errors
    /// Upstreams with more endpoints than an upstream may have.
    pub(in crate::control) fn endpoints(
        &self,
        config: &Config,
    ) -> Result<EndpointSets, Vec<Problem>> {
        EndpointSets::compile_with(
            config,
            &|host, port| self.addresses(host, port),
            &|source| self.of_source(source),
        )
    }

    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.names.get(host);
        let addresses = found.map_or(&[][..], |host| &host.addresses);
        match found.and_then(|host| host.failure.as_deref()) {
            Some(failure) if addresses.is_empty() => Err(io::Error::other(failure)),
            _ if addresses.is_empty() => Err(io::Error::other("it was not looked up")),
            _ => Ok(addresses.iter().map(|ip| (*ip, port).into()).collect()),
        }
    }

    fn of_source(&self, source: &EndpointSource) -> Result<Arc<[Endpoint]>, String> {
        let found = self.sources.get(&source.kind.to_string());
        let answer = found.and_then(|found| found.endpoints.clone());
        answer.ok_or_else(|| {
            let failure = found.and_then(|found| found.failure.clone());
            failure.unwrap_or_else(|| "it was not asked".to_owned())
        })
    }

    /// For a host whose lookup failed but whose former addresses are known: why it failed, and these addresses.
    pub(in crate::control) fn kept(&self, host: &str) -> Option<(&str, &[IpAddr])> {
        let found = self.names.get(host)?;
        let failure = found.failure.as_deref()?;
        (!found.addresses.is_empty()).then_some((failure, &found.addresses[..]))
    }

    /// For a source that fails: why, and how many endpoints of its last good answer stay.
    pub(in crate::control) fn failing(&self, source: &EndpointSource) -> Option<(&str, usize)> {
        let found = self.sources.get(&source.kind.to_string())?;
        let stay = found.endpoints.as_ref().map_or(0, |found| found.len());
        Some((found.failure.as_deref()?, stay))
    }
}
