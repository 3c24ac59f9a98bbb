//! Preflights: which route answers one for the request that it announces.

use std::ops::ControlFlow;

use super::{FailedPredicate, RequestView, RouteLookup, RouteTable, TableEntry};

/// What an entry is to a preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreflightMatch {
    /// The route would not take the announced request.
    None,
    /// The route answers the preflight.
    Answers,
    /// The route may take the announced request, and has no `cors`.
    Possible,
    /// The route takes the announced request whatever its fields, and has no `cors`. No route behind it may answer.
    Certain,
}

impl TableEntry {
    /// What the entry is to a preflight for a request with the method `asked`. A preflight has none of the request's
    /// fields, cookies and credentials, so predicates on these do not count.
    //= fetch#cors-preflight-fetch
    pub(super) fn match_preflight(&self, asked: &[u8], view: &RequestView<'_>) -> PreflightMatch {
        match self.check_preflight(asked, view) {
            Ok(()) => {}
            // The announced request gets 400.
            Err(FailedPredicate::Separator(_)) => return PreflightMatch::Certain,
            Err(_) => return PreflightMatch::None,
        }
        match self
            .predicates
            .as_deref()
            .is_some_and(|all| all.may_fail_unannounced())
        {
            _ if self.answers_preflights => PreflightMatch::Answers,
            true => PreflightMatch::Possible,
            false => PreflightMatch::Certain,
        }
    }

    /// Checks what a preflight shows of the request that it announces.
    pub(super) fn check_preflight(
        &self,
        asked: &[u8],
        view: &RequestView<'_>,
    ) -> Result<(), FailedPredicate<'_>> {
        let announced = RequestView {
            method: asked,
            ..*view
        };
        self.predicates
            .as_deref()
            .map_or(Ok(()), |all| all.check_announced(&announced))
    }
}

impl RouteTable {
    /// Finds the route that answers a preflight: the first with `cors` among those that may take the announced request.
    #[cold]
    pub(super) fn find_preflight(
        &self,
        asked: &[u8],
        view: &RequestView<'_>,
    ) -> Option<RouteLookup> {
        let flow = self.visit(view, &mut |entry: &TableEntry| match entry
            .match_preflight(asked, view)
        {
            PreflightMatch::None | PreflightMatch::Possible => ControlFlow::Continue(()),
            PreflightMatch::Answers => ControlFlow::Break(Some(RouteLookup::Route {
                id: entry.route,
                pattern: entry.pattern as usize,
            })),
            PreflightMatch::Certain => ControlFlow::Break(None),
        });
        flow.break_value().flatten()
    }
}
