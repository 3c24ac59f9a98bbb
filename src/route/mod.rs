//! Routing: which route takes a request.
//!
//! # Precedence
//!
//! 1. **Host.** An exact host comes before a wildcard (the longest first), and that before routes
//!    for any host.
//! 2. **Path**, among the routes of one host: first those with the whole path as text, then those with a regular
//!    expression, in file order. The others go segment by segment from the left. Where two patterns first differ, plain text comes before a parameter, and that before a star. So a path in full
//!    comes before everything else that takes it, `/static/*` before `/{tenant}/*`,
//!    `/users/admin/*` before `/users/{id}/*`, and that before `/users/*`. Text is text also where a star cuts
//!    a segment short: `/users/a*` comes before `/users/{id}`.
//!    `/v1/*` also takes `/v1`, after the routes that have that path in full.
//! 3. **File order**, among the routes of one pattern. Their predicates (method, listener, source, header and so on)
//!    are tried one route after the other and do not change the order.
//!
//! If the predicates of a route fail, the next candidate follows: of the same pattern, then of the paths after it, then
//! of less specific hosts. Only routes of one pattern can hide each other. A route of another pattern always leaves
//! some paths to the next.
//!
//! # Cost
//!
//! One hash look-up for the host (one more for each label when there are wildcards), one walk down a radix tree along
//! the path (one more for each template on the way), then the predicates. The cost does not depend on the number of
//! routes, only on the number that share one pattern. At worst, a hostile path visits each template of its host once. A
//! look-up allocates nothing. Regular expressions cost one more step a byte of the path.
#![forbid(unsafe_code)]

mod explain;
mod host_table;
mod known_claims;
mod path_regexes;
mod path_trees;
mod predicates;
mod preflight;
mod reading;
mod request_view;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use weir_config::{Match, PathMatch, RegexPattern};

pub use explain::{ConsideredRoute, ExplainedLookup, RouteVerdict};
pub use known_claims::{KnownClaims, VerifiedClaims};
pub use predicates::{AllowedMethods, FailedPredicate};
pub use reading::{Reading, lax_readings, readings};
pub use request_view::{RequestView, ViewBuffers};

use crate::ids::JwtId;
pub use crate::ids::RouteId;
use host_table::HostTable;
use path_regexes::PathRegexes;
use path_trees::{PathTreeDrafts, PathTrees};
use predicates::Predicates;

/// Finds the route of a request. Immutable.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: HostTable,
    paths: PathTrees<TableEntry>,
    /// The regular expressions of each tree; empty if no route has one.
    regexes: Vec<Option<PathRegexes<TableEntry>>>,
    /// The trees of each route. They show whether the host of a route matches.
    trees: Vec<Box<[u32]>>,
}

/// A route as the table needs it.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec<'a> {
    /// The requests that it takes.
    pub matches: &'a Match,
    /// Its rules for tokens.
    pub jwt: Option<JwtId>,
    /// Whether it has `cors`.
    pub answers_preflights: bool,
}

impl<'a> From<&'a Match> for RouteSpec<'a> {
    /// A route without policies.
    fn from(matches: &'a Match) -> Self {
        Self {
            matches,
            jwt: None,
            answers_preflights: false,
        }
    }
}

/// A route at the end of its pattern.
#[derive(Clone, Debug)]
struct TableEntry {
    route: RouteId,
    /// The index of the path pattern among those of the route.
    pattern: u32,
    /// Whether the pattern is a whole path, which goes before regular expressions.
    is_whole: bool,
    /// Whether the route has `cors`.
    answers_preflights: bool,
    predicates: Option<Box<Predicates>>,
}

impl TableEntry {
    #[inline]
    fn check(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        self.predicates
            .as_ref()
            .map_or(Ok(()), |all| all.check(view))
    }

    /// The methods with which the route would take the request; none if its method is not what fails.
    fn methods_wanted(&self, view: &RequestView<'_>) -> impl Iterator<Item = &str> {
        let others_hold = |all: &&Predicates| all.check_head(view).is_ok();
        let predicates = self.predicates.as_deref().filter(others_hold);
        predicates.into_iter().flat_map(Predicates::methods)
    }
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteLookup {
    /// This route takes the request.
    Route {
        /// The route.
        id: RouteId,
        /// The index of the path pattern among those of the route.
        pattern: usize,
    },
    /// Whether this route takes the request depends on claims that are not known yet.
    NeedsClaims {
        /// The route.
        id: RouteId,
        /// The index of the path pattern among those of the route.
        pattern: usize,
    },
    /// Whether a route takes the request depends on whether `;` separates query parameters. Weir answers 400.
    Ambiguous,
    /// No route takes the request with its method. Has the value of the Allow field (RFC 9110, section 10.2.1). Weir
    /// answers 405.
    MethodNotAllowed(String),
    /// No route takes the request. Weir answers 404.
    None,
}

impl RouteLookup {
    /// Whether the result depends on claims that are not known yet.
    #[must_use]
    pub fn needs_claims(&self) -> bool {
        matches!(self, Self::NeedsClaims { .. })
    }

    /// The route, if there is one.
    #[must_use]
    pub fn route(&self) -> Option<RouteId> {
        match self {
            Self::Route { id, .. } => Some(*id),
            Self::NeedsClaims { .. } | Self::Ambiguous | Self::MethodNotAllowed(_) | Self::None => {
                None
            }
        }
    }
}

impl RouteTable {
    /// Builds a table. The index of each route is its [`RouteId`].
    pub fn from_specs<'a, S: Into<RouteSpec<'a>>>(specs: impl IntoIterator<Item = S>) -> Self {
        let mut hosts_by_name = HostTable::default();
        let mut drafts = PathTreeDrafts::default();
        let mut regexes: BTreeMap<u32, Vec<(&RegexPattern, TableEntry)>> = BTreeMap::new();
        let mut trees = Vec::new();
        for (route, spec) in (0..).map(RouteId).zip(specs) {
            let RouteSpec {
                matches: spec,
                jwt,
                answers_preflights,
            } = spec.into();
            let hosts = spec.hosts.iter();
            let own: Box<[u32]> = hosts
                .map(|host| hosts_by_name.tree_of(host, || drafts.add()))
                .collect();
            for tree in &own {
                for (pattern, path) in (0..).zip(&spec.paths) {
                    let entry = TableEntry {
                        route,
                        pattern,
                        is_whole: matches!(path, PathMatch::Exact(_)),
                        answers_preflights,
                        predicates: Predicates::compile(spec, jwt),
                    };
                    match path {
                        PathMatch::Regex(regex) => {
                            regexes.entry(*tree).or_default().push((regex, entry));
                        }
                        path => drafts.insert(*tree, path, entry),
                    }
                }
            }
            trees.push(own);
        }
        Self {
            hosts: hosts_by_name,
            paths: drafts.finish(),
            regexes: by_tree(&regexes),
            trees,
        }
    }

    /// Finds the route that takes a request.
    #[must_use]
    pub fn find(&self, view: &RequestView<'_>) -> RouteLookup {
        if let Some(asked) = view.preflight_for
            && let Some(found) = self.find_preflight(asked, view)
        {
            return found;
        }
        let mut is_method_wrong = false;
        let flow = self.visit(view, &mut |entry: &TableEntry| match entry.check(view) {
            Ok(()) => ControlFlow::Break(RouteLookup::Route {
                id: entry.route,
                pattern: entry.pattern as usize,
            }),
            Err(FailedPredicate::Separator(_)) => ControlFlow::Break(RouteLookup::Ambiguous),
            Err(FailedPredicate::UnknownClaims) => ControlFlow::Break(RouteLookup::NeedsClaims {
                id: entry.route,
                pattern: entry.pattern as usize,
            }),
            Err(failed) => {
                is_method_wrong |= matches!(failed, FailedPredicate::Method(_));
                ControlFlow::Continue(())
            }
        });
        match flow {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) if is_method_wrong => self.refuse_method(view),
            ControlFlow::Continue(()) => RouteLookup::None,
        }
    }

    /// The routes that may take a request, depending on claims that are not known yet, in order of precedence. The last
    /// takes it whatever they are, if there is one.
    #[must_use]
    pub fn claim_candidates(&self, view: &RequestView<'_>) -> Vec<RouteId> {
        let mut candidates = Vec::new();
        let _: ControlFlow<()> = self.visit(view, &mut |entry: &TableEntry| {
            let checked = entry.check(view);
            if matches!(checked, Ok(()) | Err(FailedPredicate::UnknownClaims))
                && !candidates.contains(&entry.route)
            {
                candidates.push(entry.route);
            }
            match checked {
                Ok(()) | Err(FailedPredicate::Separator(_)) => ControlFlow::Break(()),
                Err(_) => ControlFlow::Continue(()),
            }
        });
        candidates
    }

    /// Collects the methods with which some route would take the request, in order of precedence.
    #[cold]
    fn refuse_method(&self, view: &RequestView<'_>) -> RouteLookup {
        let mut methods: Vec<&str> = Vec::new();
        let _: ControlFlow<()> = self.visit(view, &mut |entry: &TableEntry| {
            for method in entry.methods_wanted(view) {
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
            ControlFlow::Continue(())
        });
        if methods.is_empty() {
            return RouteLookup::None;
        }
        RouteLookup::MethodNotAllowed(methods.join(", "))
    }

    /// Visits the routes whose host and path match, in order of precedence, until `visit` breaks.
    fn visit<'t, B>(
        &'t self,
        view: &RequestView<'_>,
        visit: &mut impl FnMut(&'t TableEntry) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.hosts.visit(view.host, |tree| {
            if let Some(Some(regexes)) = self.regexes.get(tree as usize) {
                return self.visit_with(regexes, tree, view.path, visit);
            }
            self.paths.visit(tree, view.path, visit)
        })
    }

    /// Visits the routes of a tree whose host has regular expressions.
    fn visit_with<'t, B>(
        &'t self,
        regexes: &'t PathRegexes<TableEntry>,
        tree: u32,
        path: &[u8],
        visit: &mut impl FnMut(&'t TableEntry) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut visit_if = |is_whole: bool, entry: &'t TableEntry| match entry.is_whole == is_whole
        {
            true => visit(entry),
            false => ControlFlow::Continue(()),
        };
        self.paths
            .visit_end(tree, path, &mut |entry| visit_if(true, entry))?;
        regexes.visit(path, &mut |entry| visit_if(false, entry))?;
        self.paths
            .visit(tree, path, &mut |entry| visit_if(false, entry))
    }
}

/// The regular expressions of each tree up to the last that has some.
fn by_tree(
    regexes: &BTreeMap<u32, Vec<(&RegexPattern, TableEntry)>>,
) -> Vec<Option<PathRegexes<TableEntry>>> {
    let trees = regexes.last_key_value().map_or(0, |(last, _)| last + 1);
    let of_tree = |tree: u32| regexes.get(&tree).map(|all| PathRegexes::compile(all));
    (0..trees).map(of_tree).collect()
}

#[cfg(test)]
mod tests;
