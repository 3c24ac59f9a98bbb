//! The key of a request by which a balancer chooses its endpoint.

use std::net::IpAddr;

use weir_config::{Balance, HashKey};

use super::Exchange;
use crate::io::Net;
use crate::plan::{RoutePlan, UpstreamPlan};
use crate::policy::StepRequest;
use crate::policy::form::decoded;
use crate::upstream::{StableHash, hash_of_address};

impl<N: Net> Exchange<'_, N> {
    /// The hash of the request's key, if the balancer of the upstream reads one and the request has it.
    #[inline]
    pub(super) fn balance_key(
        &mut self,
        upstream: &UpstreamPlan,
        route: Option<&RoutePlan>,
    ) -> Option<u64> {
        match &upstream.balance {
            Balance::IpHash => self.read_key(&HashKey::Ip, route),
            Balance::Hash(key) => self.read_key(key, route),
            _ => None,
        }
    }

    /// The hash of what the request has for `key`. `route` has the places of path parameters. `None`: the request lacks it.
    #[cold]
    pub(super) fn read_key(&mut self, key: &HashKey, route: Option<&RoutePlan>) -> Option<u64> {
        let client = self.facts.client;
        self.with_request(|request| hash_of(key, request, client, route))
    }
}

/// The hash of what the request has for this key.
fn hash_of(
    key: &HashKey,
    request: &StepRequest<'_>,
    client: Option<IpAddr>,
    route: Option<&RoutePlan>,
) -> Option<u64> {
    let (head, block) = (request.head, request.block);
    let mut hash = StableHash::default();
    match key {
        HashKey::Header(name) => {
            let field = head.find_name(name.as_bytes(), block);
            let field = field.filter(|field| !field.is_refused)?;
            hash.add(field.value.get(block).iter().copied());
        }
        HashKey::Cookie(name) => {
            hash.add(head.cookies(name.as_bytes(), block).next()?.iter().copied());
        }
        HashKey::Query(name) => {
            let pairs = head.query.get(block).split(|byte| *byte == b'&');
            let value = pairs.into_iter().find_map(|pair| {
                let mut halves = pair.splitn(2, |byte| *byte == b'=');
                let is_it = decoded(halves.next()?).eq(name.bytes());
                is_it.then(|| halves.next().unwrap_or_default())
            });
            hash.add(decoded(value?));
        }
        HashKey::Param(name) => {
            let places = &route?.balance_parameters;
            let (_, places) = places.iter().find(|(known, _)| **known == **name)?;
            let place = (*places.get(request.pattern)?)?;
            let segments = request.path.split(|byte| *byte == b'/');
            let mut segments = segments.filter(|segment| !segment.is_empty());
            hash.add(segments.nth(place)?.iter().copied());
        }
        HashKey::Path => hash.add(request.sent_path.iter().copied()),
        HashKey::Ip => return client.map(hash_of_address),
    }
    Some(hash.finish())
}
