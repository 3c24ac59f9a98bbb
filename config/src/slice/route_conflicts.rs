//! Routes that never match because another takes their requests first.

use std::collections::HashMap;

use crate::decode::decoder::Decoder;
use crate::slice::request_match::Match;
use crate::slice::request_match::host::HostMatch;
use crate::slice::request_match::path::{PathMatch, Segment};
use crate::slice::request_match::value::{FieldMatch, ValueMatch};
use crate::slice::route::Route;
use crate::text::diagnostic::Code;
use crate::text::source::Span;

/// A route is compared with at most this many others, so that hostile files cost bounded work.
const COMPARED_MAX: usize = 1_000;

/// Hosts that a warning names.
const HOSTS_SHOWN_MAX: usize = 3;

/// The patterns of the routes so far.
#[derive(Default)]
pub(crate) struct RouteConflicts {
    /// Indices of the routes with a pattern.
    by_pattern: HashMap<PatternKey, Vec<usize>>,
    /// Indices of the routes for all paths with a prefix, and their hosts.
    by_prefix: HashMap<String, Vec<(HostMatch, usize)>>,
    /// The span of each route's match.
    spans: Vec<Span>,
}

/// A pattern without the names of its parameters: patterns with one key take the same hosts and paths. Without regular
/// expressions, only routes with one key can hide each other entirely; of two other routes, the first to be tried is more
/// specific somewhere, and leaves the rest to the second. Whether an expression takes all paths of another pattern is not
/// looked at.
#[derive(PartialEq, Eq, Hash)]
struct PatternKey(HostMatch, PathMatch);

impl PatternKey {
    fn of(host: &HostMatch, path: &PathMatch) -> Self {
        let mut path = path.clone();
        if let PathMatch::Template { segments, .. } = &mut path {
            for segment in segments {
                if let Segment::Parameter(name) = segment {
                    name.clear();
                }
            }
        }
        Self(host.clone(), path)
    }
}

impl RouteConflicts {
    /// Adds `route`, and reports it if one of the `earlier` routes takes its requests.
    pub(crate) fn add(
        &mut self,
        route: &Route,
        earlier: &[Route],
        span: &Span,
        cx: &mut Decoder<'_>,
    ) {
        let (mut is_reported, mut is_mixed) = (false, false);
        for (host, path) in route.matches.patterns() {
            let key = PatternKey::of(host, path);
            let group = self.by_pattern.entry(key).or_default();
            let known = group.iter().filter_map(|index| earlier.get(*index));
            let differs = |first: &&Route| has_other_preflights(first, route);
            if !is_mixed && let Some(first) = known.take(COMPARED_MAX).find(differs) {
                report_mixed_cors(first, span, cx);
                is_mixed = true;
            }
            let mut same = group.iter().filter_map(|index| earlier.get(*index));
            let hides = |first: &&Route| covers(first, route);
            if !is_reported && let Some(first) = same.by_ref().take(COMPARED_MAX).find(hides) {
                report_hidden(route, &format!("{host}{path}"), first, span, cx);
                is_reported = true;
            }
            group.push(earlier.len());
            if let PathMatch::Prefix(start) = path {
                let hosts = self.by_prefix.entry(start.clone()).or_default();
                hosts.push((host.clone(), earlier.len()));
            }
        }
        self.spans.push(span.clone());
    }

    /// Warns of routes for many hosts that get no requests for some of these: such a host has a route of its own for more
    /// paths, and hosts are compared before paths.
    pub(crate) fn report_shadowed(&self, routes: &[Route], cx: &mut Decoder<'_>) {
        for (route, span) in routes.iter().zip(&self.spans) {
            let patterns = route.matches.patterns();
            let shadowed = patterns.filter(|(host, _)| !matches!(host, HostMatch::Exact(_)));
            for (host, path) in shadowed {
                let by = self.shadows_of((host, path), route, routes);
                if !by.is_empty() {
                    report_shadowed((host, path), &by, span, cx);
                    break;
                }
            }
        }
    }

    /// Hosts with routes of their own that take all paths of a pattern of `route`, each with the first of those routes;
    /// one more than a warning names, at most.
    fn shadows_of<'r>(
        &self,
        (host, path): (&HostMatch, &PathMatch),
        route: &Route,
        routes: &'r [Route],
    ) -> Vec<(&HostMatch, &'r Route)> {
        let start = path.common_start();
        let mut found: Vec<(&HostMatch, &Route)> = Vec::new();
        for (end, _) in start.char_indices().chain([(start.len(), ' ')]).skip(1) {
            let prefix = start.get(..end).unwrap_or_default();
            // A route with the same path for a single host is meant to go first.
            if matches!(path, PathMatch::Prefix(same) if same == prefix) {
                continue;
            }
            let wider = self.by_prefix.get(prefix).into_iter().flatten();
            for (own, index) in wider.take(COMPARED_MAX) {
                let Some(by) = routes.get(*index) else {
                    continue;
                };
                // With a route for this path and that host, the file says what it wants.
                let is_decided = self.by_pattern.contains_key(&PatternKey::of(own, path));
                if is_within(own, host)
                    && !is_decided
                    && covers(by, route)
                    && !found.iter().any(|(known, _)| *known == own)
                {
                    found.push((own, by));
                    if found.len() > HOSTS_SHOWN_MAX {
                        return found;
                    }
                }
            }
        }
        found
    }
}

/// Whether the pattern `wide` takes all hosts of the pattern `narrow`.
fn is_within(narrow: &HostMatch, wide: &HostMatch) -> bool {
    match (narrow, wide) {
        (HostMatch::Any, _) | (_, HostMatch::Exact(_)) => false,
        (_, HostMatch::Any) => true,
        (HostMatch::Exact(name) | HostMatch::Wildcard(name), HostMatch::Wildcard(domain)) => {
            let labels = name.strip_suffix(domain.as_str());
            labels.is_some_and(|labels| labels.ends_with('.'))
        }
    }
}

fn report_hidden(route: &Route, pattern: &str, first: &Route, span: &Span, cx: &mut Decoder<'_>) {
    let line = first.position.line;
    let is_whole = route.matches.patterns().count() == 1;
    if covers(route, first) {
        let what = if is_whole {
            "requests".to_owned()
        } else {
            format!("requests for `{pattern}`")
        };
        let message = format!("the route in line {line} takes the same {what}");
        cx.error(Code::Duplicate, span.clone(), message)
            .help("the second one never matches: remove one, or tell them apart by method, header, query, cookie, listener, source or claim");
    } else {
        let what = if is_whole {
            "this route".to_owned()
        } else {
            format!("`{pattern}` of this route")
        };
        let message = format!("{what} never matches: the route in line {line} takes its requests");
        cx.error(Code::Unreachable, span.clone(), message).help(
            "move this one up: among routes with the same host and path, the first in the file wins",
        );
    }
}

/// Whether two routes for one path have different `cors`, and differ in nothing else that a preflight shows.
fn has_other_preflights(one: &Route, other: &Route) -> bool {
    let shown = |route: &Route| Match {
        headers: Vec::new(),
        cookies: Vec::new(),
        claims: Vec::new(),
        client_cert: None,
        hosts: Vec::new(),
        paths: Vec::new(),
        ..route.matches.clone()
    };
    let is_same_cors = match (&one.policies.cors, &other.policies.cors) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is_same(other),
        _ => false,
    };
    !is_same_cors && shown(one) == shown(other)
}

//= fetch#cors-preflight-fetch
// A preflight has no fields, cookies and credentials of the request that it announces.
fn report_mixed_cors(first: &Route, span: &Span, cx: &mut Decoder<'_>) {
    let line = first.position.line;
    let message = format!(
        "`cors` differs from that of the route in line {line}, which takes the same preflights"
    );
    cx.warning(Code::Conflict, span.clone(), message).help(
        "preflights have no fields, cookies or tokens of the request, so one route answers those of both: give both the same `cors`, for example in a set",
    );
}

fn report_shadowed(
    (host, path): (&HostMatch, &PathMatch),
    by: &[(&HostMatch, &Route)],
    span: &Span,
    cx: &mut Decoder<'_>,
) {
    let shown = by.iter().take(HOSTS_SHOWN_MAX);
    let places = shown
        .clone()
        .map(|(host, route)| format!("`{host}` (line {})", route.position.line));
    let more = if by.len() > HOSTS_SHOWN_MAX {
        " and more"
    } else {
        ""
    };
    let message = format!(
        "this route gets no requests for `{path}` from hosts with a route for more paths: {}{more}",
        places.collect::<Vec<_>>().join(", ")
    );
    let own = match host {
        HostMatch::Any => "*".to_owned(),
        host => host.to_string(),
    };
    let hosts = shown.map(|(host, _)| host.to_string());
    let quoted: Vec<String> = [own]
        .into_iter()
        .chain(hosts)
        .map(|host| format!("\"{host}\""))
        .collect();
    cx.warning(Code::Unreachable, span.clone(), message)
        .help(format!(
            "Weir compares hosts before paths; to take these requests too, write host = [{}]",
            quoted.join(", ")
        ));
}

/// Whether `wide` takes every request that `narrow` takes, for the same host and path.
fn covers(wide: &Route, narrow: &Route) -> bool {
    // Claims of other issuers are other claims.
    let has_claims = wide.matches.claims.is_empty()
        || (wide.policies.jwt == narrow.policies.jwt
            && wide.matches.claims.iter().all(|one| is_asked(one, narrow)));
    has_claims && covers_without_claims(&wide.matches, &narrow.matches)
}

/// Whether `route` takes only requests with one of the values of a claim; of `scope`, with all.
fn is_asked((name, values): &(String, Vec<String>), route: &Route) -> bool {
    let mut claims = route.matches.claims.iter();
    claims.any(|(own_name, own)| {
        let (narrow, wide) = match name.as_str() {
            "scope" => (values, own),
            _ => (own, values),
        };
        own_name == name && narrow.iter().all(|value| wide.contains(value))
    })
}

fn covers_without_claims(wide: &Match, narrow: &Match) -> bool {
    is_subset(&narrow.methods, &wide.methods, |narrow, wide| {
        narrow == wide
    }) && all_implied(&wide.headers, &narrow.headers)
        && all_implied(&wide.query, &narrow.query)
        && all_implied(&wide.cookies, &narrow.cookies)
        && is_subset(&narrow.listeners, &wide.listeners, |narrow, wide| {
            narrow == wide
        })
        && is_subset(&narrow.sources, &wide.sources, |narrow, wide| {
            wide.covers(narrow)
        })
        && match (&wide.client_cert, &narrow.client_cert) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => implies(narrow, wide),
            (Some(_), None) => false,
        }
}

/// Whether `wide` has all that `narrow` has, where an empty list stands for everything.
fn is_subset<T>(narrow: &[T], wide: &[T], is_in: impl Fn(&T, &T) -> bool) -> bool {
    let is_covered = |narrow: &T| wide.iter().any(|wide| is_in(narrow, wide));
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(is_covered))
}

fn all_implied(wide: &[FieldMatch], narrow: &[FieldMatch]) -> bool {
    wide.iter().all(|wide| {
        narrow
            .iter()
            .any(|narrow| narrow.name == wide.name && implies(&narrow.value, &wide.value))
    })
}

fn implies(narrow: &ValueMatch, wide: &ValueMatch) -> bool {
    match (narrow, wide) {
        (ValueMatch::Exact(_) | ValueMatch::Prefix(_), ValueMatch::Present) => true,
        (ValueMatch::Exact(text) | ValueMatch::Prefix(text), ValueMatch::Prefix(start)) => {
            text.starts_with(start.as_str())
        }
        (narrow, wide) => narrow == wide,
    }
}
