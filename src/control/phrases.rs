//! Numbers, times and plans in words, for the process log and the admin pages.

use std::time::Duration;

use super::limits;
use crate::plan::{EndpointSets, Plan};

/// A number of things: `1 core`, `2 cores`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A plan and its endpoints in a few words.
pub(super) fn summary(plan: &Plan, endpoints: &EndpointSets) -> String {
    format!(
        "plan {}: {}, {}, {} with {}",
        plan.epoch,
        count(plan.listeners.len(), "listener"),
        count(plan.routes.len(), "route"),
        count(plan.upstreams.len(), "upstream"),
        count(endpoints.count(), "endpoint"),
    )
}

/// The first addresses, and the number of the others.
pub(super) fn few(addresses: &[String]) -> String {
    let (named, rest) = addresses.split_at(addresses.len().min(limits::LISTENERS_NAMED_MAX));
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(" and {} more", rest.len())
    };
    format!("{}{rest}", named.join(", "))
}

/// A duration in seconds, to the millisecond.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
