//! Metrics of the health of endpoints, from the statuses that control has posted.

use super::{Control, State};
use crate::obs::{MetricKind, MetricsPage};
use crate::upstream::{SurveyedEndpoint, Unusable, survey};

/// Adds the states of all endpoints.
pub(super) fn endpoint_metrics(control: &Control, state: &State, page: &mut MetricsPage) {
    let registry = control.cores.upstreams();
    let planned = state.plan.upstreams.iter().zip(state.endpoints.iter());
    let surveys: Vec<_> = planned
        .map(|(plan, set)| {
            let status = |endpoint: &str| registry.status(&plan.name, endpoint);
            (plan, set, survey(plan, set, status))
        })
        .collect();
    page.family(
        "weir_upstream_endpoints",
        MetricKind::Gauge,
        "Endpoints by state.",
    );
    for (plan, _, endpoints) in &surveys {
        for state in SurveyedEndpoint::STATES {
            let count = endpoints.iter().filter(|each| each.state() == state);
            let labels = [("upstream", &*plan.name), ("state", state)];
            page.sample(&labels, count.count() as u64);
        }
    }
    page.family(
        "weir_endpoint_healthy",
        MetricKind::Gauge,
        "1 for an endpoint that passes its checks, or has none, and is not ejected.",
    );
    for (plan, set, endpoints) in &surveys {
        for (spec, each) in set.endpoints.iter().zip(endpoints) {
            let labels = [("upstream", &*plan.name), ("endpoint", &*spec.name)];
            let waits = each.unusable == Some(Unusable::Unchecked);
            let is_healthy = each.status.is_healthy() && !waits;
            page.sample(&labels, u64::from(is_healthy));
        }
    }
}
