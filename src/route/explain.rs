//! A look-up with its reasons.

use std::fmt;
use std::ops::ControlFlow;

use super::{FailedPredicate, RequestView, RouteId, RouteLookup, RouteTable, TableEntry};

/// A look-up with its reasons. It makes the same walk as [`RouteTable::find`], so the two cannot differ.
#[derive(Debug)]
pub struct ExplainedLookup<'t> {
    /// The result of the look-up.
    pub found: RouteLookup,
    /// Every route: first those whose host and path match, in order of precedence, then the others in file order.
    pub considered: Vec<ConsideredRoute<'t>>,
    /// Whether a route with `cors` answers the request as a preflight.
    pub is_preflight: bool,
}

/// A route and the verdict on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsideredRoute<'t> {
    /// The route.
    pub route: RouteId,
    /// The verdict.
    pub verdict: RouteVerdict<'t>,
}

/// Why a route takes a request or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteVerdict<'t> {
    /// The route takes the request.
    Taken,
    /// The route may take the request that a preflight announces, and has no `cors` to answer the preflight with.
    NoCors,
    /// Another route comes first and takes the request. The predicates of this one were not checked.
    Outranked,
    /// Host and path match, but this predicate fails.
    FailedPredicate(FailedPredicate<'t>),
    /// The host matches, the path does not.
    Path,
    /// The host does not match.
    Host,
}

impl fmt::Display for RouteVerdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("takes the request"),
            Self::NoCors => f.write_str("it has no `cors`, and its other predicates may fail"),
            Self::Outranked => f.write_str("comes after the route that takes the request"),
            Self::FailedPredicate(failed) => failed.fmt(f),
            Self::Path => f.write_str("its path does not match"),
            Self::Host => f.write_str("its host does not match"),
        }
    }
}

impl RouteTable {
    /// Looks a request up as [`RouteTable::find`] does, with the verdict on every route.
    #[must_use]
    pub fn explain(&self, view: &RequestView<'_>) -> ExplainedLookup<'_> {
        let candidates = self.candidates(view);
        let answered = view
            .preflight_for
            .filter(|asked| self.find_preflight(asked, view).is_some());
        let mut taken = false;
        let mut considered: Vec<_> = candidates
            .iter()
            .map(|entry| {
                let checked = match answered {
                    Some(asked) => entry.check_preflight(asked, view),
                    None => entry.check(view),
                };
                let verdict = match checked {
                    _ if taken => RouteVerdict::Outranked,
                    Ok(()) if answered.is_some() && !entry.answers_preflights => {
                        RouteVerdict::NoCors
                    }
                    Ok(()) => RouteVerdict::Taken,
                    Err(failed) => RouteVerdict::FailedPredicate(failed),
                };
                taken |= matches!(
                    verdict,
                    RouteVerdict::Taken
                        | RouteVerdict::FailedPredicate(
                            FailedPredicate::Separator(_) | FailedPredicate::UnknownClaims
                        )
                );
                ConsideredRoute {
                    route: entry.route,
                    verdict,
                }
            })
            .collect();
        let mut is_candidate = vec![false; self.trees.len()];
        for each in &considered {
            if let Some(seen) = is_candidate.get_mut(each.route.0 as usize) {
                *seen = true;
            }
        }
        let mut hosts = Vec::new();
        let _: ControlFlow<()> = self.hosts.visit(view.host, |tree| {
            hosts.push(tree);
            ControlFlow::Continue(())
        });
        let others = (0..).map(RouteId).zip(self.trees.iter().zip(is_candidate));
        considered.extend(others.filter(|(_, (_, is_candidate))| !is_candidate).map(
            |(route, (trees, _))| ConsideredRoute {
                route,
                verdict: if trees.iter().any(|tree| hosts.contains(tree)) {
                    RouteVerdict::Path
                } else {
                    RouteVerdict::Host
                },
            },
        ));
        ExplainedLookup {
            found: self.find(view),
            considered,
            is_preflight: answered.is_some(),
        }
    }

    /// The routes whose host and path match, in order of precedence.
    fn candidates(&self, view: &RequestView<'_>) -> Vec<&TableEntry> {
        let mut candidates: Vec<&TableEntry> = Vec::new();
        let _: ControlFlow<()> = self.visit(view, &mut |entry| {
            // Several patterns of a route may match, but its predicates are the same for all.
            if !candidates.iter().any(|known| known.route == entry.route) {
                candidates.push(entry);
            }
            ControlFlow::Continue(())
        });
        candidates
    }
}
