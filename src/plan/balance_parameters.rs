//! Where routes have the path parameters that balancers hash.

use weir_config::{Balance, Config, HashKey, Match, PathMatch, Segment};

/// The names of path parameters, each with its place among the segments of the path, by pattern of the route's match.
pub type BalanceParameters = Box<[(Box<str>, Box<[Option<usize>]>)]>;

/// Finds the parameters in a match that any upstream hashes.
pub(super) fn compile(config: &Config, matches: &Match) -> BalanceParameters {
    let names = config.upstreams.iter().filter_map(|upstream| {
        let Balance::Hash(HashKey::Param(name)) = &upstream.balance else {
            return None;
        };
        let places: Box<[_]> = matches
            .paths
            .iter()
            .map(|path| place_of(path, name))
            .collect();
        let is_there = places.iter().any(Option::is_some);
        is_there.then(|| (name.as_str().into(), places))
    });
    names.collect()
}

fn place_of(path: &PathMatch, name: &str) -> Option<usize> {
    let PathMatch::Template { segments, .. } = path else {
        return None;
    };
    let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(other) if other == name);
    segments.iter().position(is_it)
}
