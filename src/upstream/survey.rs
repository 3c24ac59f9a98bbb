//! What becomes of each endpoint of an upstream, for people: metrics, the admin API and `weir explain`.

use super::endpoint_status::EndpointStatus;
use super::usable::{Candidate, Unusable, UsableEndpoints};
use crate::plan::{EndpointSet, UpstreamPlan};

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyedEndpoint {
    /// What control has decided.
    pub status: EndpointStatus,
    /// Why it gets no requests; `None` if it gets some.
    pub unusable: Option<Unusable>,
}

impl SurveyedEndpoint {
    /// The states that `weir_upstream_endpoints` counts.
    pub const STATES: [&'static str; 7] = [
        "up",
        Unusable::Down.word(),
        Unusable::Unchecked.word(),
        Unusable::Ejected.word(),
        Unusable::Draining.word(),
        Unusable::Maintenance.word(),
        Unusable::Spare.word(),
    ];

    /// Its state, one of `STATES`. In a panic an endpoint may be `down` or `ejected` and get requests all the same.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.unusable.map_or("up", Unusable::word)
    }
}

/// Finds out about the endpoints of an upstream, in their order. `status_of` finds a status by an endpoint's name.
pub fn survey(
    plan: &UpstreamPlan,
    set: &EndpointSet,
    status_of: impl Fn(&str) -> EndpointStatus,
) -> Vec<SurveyedEndpoint> {
    let candidates = set.endpoints.iter().map(|spec| Candidate {
        spec,
        status: status_of(&spec.name),
        is_checked: plan.health.is_some(),
        usable_for: None,
    });
    let candidates: Vec<_> = candidates.collect();
    let usable = UsableEndpoints::select(&candidates, None, plan.panic_percent);
    let mut gets = vec![false; candidates.len()];
    for each in &usable.endpoints {
        if let Some(gets) = gets.get_mut(each.index as usize) {
            *gets = true;
        }
    }
    let each = candidates.iter().zip(gets);
    each.map(|(candidate, gets)| SurveyedEndpoint {
        status: candidate.status,
        unusable: candidate
            .unusable()
            .or_else(|| (!gets).then_some(Unusable::Spare)),
    })
    .collect()
}
