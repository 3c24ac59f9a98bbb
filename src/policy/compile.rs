//! From the policies of a file to the steps of its routes and listeners.

use std::sync::Arc;

use weir_config::{Config, IpRules, Listener, PathMatch, Policies, Route};

use super::compress::Rules;
use super::forward_auth::ForwardAuth;
use super::headers::Headers;
use super::jwt::{JwtStatePlan, JwtStep};
use super::security_headers::SecurityHeaders;
use super::{Mirror, PlannedStep, StatePlan, StatePlans, Step, cors, ip, limit};

/// Compiles the policies of a route, in the order in which they run.
///
/// # Errors
/// What is wrong, in one sentence without a full stop.
pub fn compile_route(
    config: &Config,
    route: &Route,
    states: &mut StatePlans,
) -> Result<Box<[PlannedStep]>, String> {
    // The pattern has no `..`, so the compiler points here when there is a new policy.
    let Policies {
        ip,
        cors,
        jwt,
        forward_auth,
        compress,
        mirror,
        // `limit::compile_route` reads these.
        limits: _,
        concurrency: _,
        // `add_field_rules` reads these.
        headers: _,
        security_headers: _,
        // Not a step: `RoutePlan` has the pages.
        errors: _,
    } = &route.policies;
    let mut steps = add_ip(ip, states);
    limit::compile_route(route, config.limits.keys, states, &mut steps)?;
    if let Some(cors) = cors {
        steps.push(cors::compile(cors, states)?);
    }
    if let Some(jwt) = jwt {
        steps.push(PlannedStep {
            step: Step::Jwt(Arc::new(JwtStep::new(jwt))),
            state: Some(states.add(StatePlan::Jwt(JwtStatePlan::new(jwt)))),
        });
    }
    if let Some(compress) = compress {
        steps.push(PlannedStep {
            step: Step::Compress(Arc::new(Rules::new(compress))),
            state: Some(states.add(StatePlan::Coders)),
        });
    }
    if let Some(auth) = forward_auth {
        let auth = Arc::new(ForwardAuth::compile(config, auth)?);
        let keeps = auth.keeps_verdicts();
        steps.push(PlannedStep {
            state: keeps.then(|| states.add(StatePlan::ForwardAuth(auth.clone()))),
            step: Step::ForwardAuth(auth),
        });
    }
    if let Some(mirror) = mirror {
        steps.push(PlannedStep {
            step: Step::Mirror(Arc::new(Mirror::compile(config, route, mirror)?)),
            state: None,
        });
    }
    add_field_rules(&route.policies, &route.matches.paths, &mut steps)?;
    Ok(in_order(steps))
}

/// Compiles the policies for requests without a route: those that decide at once whether a request may go on, and those
/// that edit answers. A policy that is not compiled here does nothing for requests without a route.
pub fn compile_without_route(config: &Config, states: &mut StatePlans) -> Box<[PlannedStep]> {
    let mut steps = add_ip(&config.policies.ip, states);
    limit::compile_without_route(config, states, &mut steps);
    // Where the expressions are too large, the routes report it.
    let cors = config.policies.cors.as_ref();
    steps.extend(cors.and_then(|cors| cors::compile(cors, states).ok()));
    // Without a match, no parameter can be missing.
    let _ = add_field_rules(&config.policies, &[], &mut steps);
    in_order(steps)
}

/// Adds the steps that write fields into every answer, for routes and for requests without a route.
fn add_field_rules(
    policies: &Policies,
    paths: &[PathMatch],
    steps: &mut Vec<PlannedStep>,
) -> Result<(), String> {
    let mut add = |step| steps.push(PlannedStep { step, state: None });
    if let Some(fields) = &policies.security_headers {
        add(Step::SecurityHeaders(Arc::new(SecurityHeaders::compile(
            fields,
        ))));
    }
    if let Some(rules) = &policies.headers {
        add(Step::Headers(Arc::new(Headers::compile(rules, paths)?)));
    }
    Ok(())
}

/// Compiles the policies of a listener, in the order in which they run.
///
/// # Errors
/// What is wrong, in one sentence without a full stop.
pub fn compile_listener(
    config: &Config,
    listener: &Listener,
    states: &mut StatePlans,
) -> Result<Box<[PlannedStep]>, String> {
    let mut steps = add_ip(&listener.policies.ip, states);
    limit::compile_listener(&listener.policies, config.limits.keys, states, &mut steps)?;
    Ok(in_order(steps))
}

fn add_ip(rules: &[IpRules], states: &mut StatePlans) -> Vec<PlannedStep> {
    rules
        .iter()
        .map(|rules| ip::plan_step(rules, states))
        .collect()
}

/// Sorts steps by kind. Those of one kind keep their order.
fn in_order(mut steps: Vec<PlannedStep>) -> Box<[PlannedStep]> {
    steps.sort_by_key(|step| step.step.kind());
    steps.into()
}
