//! `limit` and `concurrency`: how many requests a client may make in a time, and how many at once, over all cores.
//!
//! All keys of all limits are in one table (`KeyTable`), whose cells the cores change without locks. A bucket of tokens
//! is one word of it (`Gcra`). A core takes tokens from a bucket in small batches and keeps them in its own
//! `TokenCache`, so that a busy key costs few writes that other cores see. `config/policies.md` states how exact that
//! is, and the tests here and in `tests/` show it.

mod atomics;
mod bucket_set;
mod concurrency_step;
mod count_set;
mod digest;
mod gcra;
mod key_parts;
mod limit_step;
mod permit;
mod plan;
mod shared;
mod table;
#[cfg(test)]
mod tests;
mod token_cache;

use std::sync::Arc;

use weir_config::{Config, ListenerPolicies, Origin, Route};

pub use concurrency_step::ConcurrencyStep;
pub use limit_step::{LimitStanding, LimitStep};
pub use permit::Permits;
pub use plan::{CoreLimits, LimitsPlan};
pub use shared::{LimitCounts, LimitRegistry, LimitReport};

use super::{PlannedStep, PolicyKind, StatePlans, Step};
use key_parts::KeyPlace;

/// The most memory that a key may cost, in bytes: its cells and its part of every core's cache.
#[cfg(test)]
const KEY_BYTES_MAX: usize = 96;

/// How many keys the cache of each of `cores` cores holds tokens of, if the table has room for `keys`.
fn cached_keys(keys: usize, cores: usize) -> usize {
    (keys / (4 * cores.max(1))).min(1024)
}

/// Compiles the limits of a route. `keys` is the number of keys that the table holds.
pub(super) fn compile_route(
    route: &Route,
    keys: u32,
    states: &mut StatePlans,
    steps: &mut Vec<PlannedStep>,
) -> Result<(), String> {
    let policies = &route.policies;
    let place = KeyPlace {
        matches: Some(&route.matches),
        route: &route.name,
    };
    compile(
        &policies.limits,
        &policies.concurrency,
        place,
        keys,
        states,
        steps,
    )
}

/// Compiles the limits of the top level for requests without a route. Without a route there is no token either, so limits
/// by a claim do not count them.
pub(super) fn compile_without_route(
    config: &Config,
    states: &mut StatePlans,
    steps: &mut Vec<PlannedStep>,
) {
    let policies = &config.policies;
    let place = KeyPlace {
        matches: None,
        route: "",
    };
    let (limits, at_once) = (&policies.limits, &policies.concurrency);
    let mut own = Vec::new();
    // Each is a limit of a route too, where a contradiction is an error.
    let _ = compile(limits, at_once, place, config.limits.keys, states, &mut own);
    own.retain(|step| step.step.kind() != PolicyKind::ClaimLimit);
    steps.append(&mut own);
}

/// Compiles the limits of a listener.
pub(super) fn compile_listener(
    policies: &ListenerPolicies,
    keys: u32,
    states: &mut StatePlans,
    steps: &mut Vec<PlannedStep>,
) -> Result<(), String> {
    let place = KeyPlace {
        matches: None,
        route: "",
    };
    compile(
        &policies.limits,
        &policies.concurrency,
        place,
        keys,
        states,
        steps,
    )
}

fn compile(
    limits: &[weir_config::Limit],
    at_once: &[weir_config::Concurrency],
    place: KeyPlace<'_>,
    keys: u32,
    states: &mut StatePlans,
    steps: &mut Vec<PlannedStep>,
) -> Result<(), String> {
    if limits.is_empty() && at_once.is_empty() {
        return Ok(());
    }
    let mut compiled = Vec::new();
    let state = states.add_limits(keys, |plan| {
        let at_once = ConcurrencyStep::compile(at_once, place, plan)?;
        compiled.extend(at_once.map(|step| Step::Concurrency(Arc::new(step))));
        for kind in [PolicyKind::Limit, PolicyKind::ClaimLimit] {
            let limits = LimitStep::compile(limits, place, kind, plan)?;
            compiled.extend(limits.map(|step| Step::Limit(Arc::new(step))));
        }
        Ok(())
    })?;
    let state = Some(state);
    steps.extend(compiled.into_iter().map(|step| PlannedStep { step, state }));
    Ok(())
}

/// The name under which a limit keeps its state over reloads, and has it in metrics: the one of the file, or the place
/// in which the limit stands.
fn state_name(name: Option<&str>, origin: &Origin, index: usize) -> String {
    if let Some(name) = name {
        return name.to_owned();
    }
    let number = index + 1;
    // No name that a file gives has a slash.
    match origin {
        Origin::Top => format!("/{number}"),
        Origin::Set(name) => format!("policy/{name}/{number}"),
        Origin::Route(name) => format!("route/{name}/{number}"),
        Origin::Listener(address) => format!("listen/{address}/{number}"),
    }
}
