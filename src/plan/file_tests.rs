//! Runs the `[[test]]` blocks of a file.

use weir_config::{Code, Config, Position, Test};

use super::dry_run::{DryRequest, DryRun, default_port};
use super::{
    Decision, Plan, Problem, REDIRECT_HTTPS_STATUS, Refusal, RouteId, RouteTarget, UpstreamId,
};
use crate::policy::{StepVerdict, Verdict};
use crate::route::RouteVerdict;

/// How many failing tests are reported one by one. The rest is counted.
const FAILURES_REPORTED_MAX: usize = 20;

impl Plan {
    /// Runs the `[[test]]` blocks of the configuration that the plan was compiled from.
    #[must_use]
    pub fn run_tests(&self, config: &Config) -> Vec<Problem> {
        let mut failures = Vec::new();
        let mut more = 0;
        for test in &config.tests {
            let is_reported = failures.len() < FAILURES_REPORTED_MAX;
            let Err(message) = run_test(self, test, is_reported) else {
                continue;
            };
            if !is_reported {
                more += 1;
                continue;
            }
            let port = test.port.map(|port| format!(":{port}")).unwrap_or_default();
            let Test {
                position,
                method,
                scheme,
                host,
                target,
                ..
            } = test;
            failures.push(Problem {
                code: Code::Test,
                position: position.clone(),
                message: format!("test `{method} {scheme}://{host}{port}{target}`: {message}"),
            });
        }
        if more > 0 {
            let (noun, verb) = if more == 1 {
                ("test", "fails")
            } else {
                ("tests", "fail")
            };
            failures.push(Problem {
                code: Code::TooMany,
                position: Position::default(),
                message: format!("{more} more {noun} {verb}"),
            });
        }
        failures
    }
}

/// Runs one test. A failure that `is_reported` says why, which takes a walk over all routes.
fn run_test(plan: &Plan, test: &Test, is_reported: bool) -> Result<(), String> {
    let authority = match test.port {
        Some(port) => format!("{}:{port}", test.host),
        None => test.host.clone(),
    };
    let fields = test.headers.iter();
    let fields: Vec<_> = fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let request = DryRequest {
        method: &test.method,
        authority: &authority,
        port: test.port.unwrap_or_else(|| default_port(&test.scheme)),
        path_and_query: &test.target,
        fields: &fields,
        client_cert: &test.client_cert,
        client_ip: test.client_ip,
        claims: test.claims.as_deref(),
    };
    let run = plan.dry_run(&request, false)?;
    let outcome = outcome(plan, &run);
    if let Some(index) = test.route
        && run.route().map(|id| id.0 as usize) != Some(index)
    {
        let wanted = u32::try_from(index).map(RouteId).ok();
        let name = wanted.map_or("", |id| plan.route_name(id));
        let why = match wanted.filter(|_| is_reported) {
            Some(id) => why_not(&plan.dry_run(&request, true)?, id),
            None => String::new(),
        };
        return Err(format!("expected route `{name}`, but {outcome}{why}"));
    }
    if let Some(index) = test.upstream
        && !run.upstreams(plan).iter().any(|id| id.0 as usize == index)
    {
        let wanted = u32::try_from(index).ok().map(UpstreamId);
        let wanted = wanted.and_then(|id| plan.upstream(id));
        let name = wanted.map_or("", |upstream| &*upstream.name);
        return Err(format!("expected upstream `{name}`, but {outcome}"));
    }
    if let Some(status) = test.status
        && own_status(plan, &run) != Some(status)
    {
        let unchecked = unchecked(&run);
        return Err(format!(
            "expected status {status}, but {outcome}{unchecked}"
        ));
    }
    Ok(())
}

/// The status that Weir answers with itself; `None` if the endpoint gives it.
fn own_status(plan: &Plan, run: &DryRun<'_>) -> Option<u16> {
    if let Some(status) = run.policy_status() {
        return Some(status);
    }
    match &run.explanation.decision {
        Decision::RedirectHttps => Some(REDIRECT_HTTPS_STATUS),
        Decision::NeedsClaims(_) => None,
        Decision::Refuse(refusal) => Some(refusal.reason.status()),
        Decision::Route(id) => match &plan.route(*id)?.target {
            RouteTarget::Upstream(_) | RouteTarget::Split(_) => None,
            RouteTarget::Redirect(redirect) => Some(redirect.status),
            RouteTarget::Respond(respond) => Some(respond.status),
        },
    }
}

/// What becomes of the request, in words.
fn outcome(plan: &Plan, run: &DryRun<'_>) -> String {
    if let Some(status) = run.policy_status()
        && let Some(StepVerdict { kind, .. }) = run.steps.last()
    {
        return format!("`{}` answers {status}", kind.key());
    }
    let id = match &run.explanation.decision {
        Decision::RedirectHttps => {
            return format!(
                "the listener redirects it to https ({REDIRECT_HTTPS_STATUS}, `redirect_https`)"
            );
        }
        Decision::NeedsClaims(_) => return "it depends on claims".to_owned(),
        Decision::Refuse(Refusal { reason, .. }) => {
            return format!("Weir answers {} ({})", reason.status(), reason.code());
        }
        Decision::Route(id) => *id,
    };
    let name = plan.route_name(id);
    let upstreams = run.upstreams(plan);
    match (&upstreams[..], own_status(plan, run)) {
        ([], Some(status)) => format!("route `{name}` answers {status}"),
        ([], None) => format!("route `{name}` takes it"),
        ([one], _) => {
            let upstream = plan.upstream(*one).map_or("", |upstream| &upstream.name);
            format!("route `{name}` sends it to upstream `{upstream}`")
        }
        (_, _) => format!("route `{name}` sends {}", shares(plan, id)),
    }
}

/// The shares of a split route, in words.
fn shares(plan: &Plan, id: RouteId) -> String {
    let target = plan.route(id).map(|route| &route.target);
    let Some(RouteTarget::Split(split)) = target else {
        return String::new();
    };
    let shares = split.shares.iter();
    let shares = shares.map(|share| format!("{} to `{}`", split.show_share(share), share.name));
    shares.collect::<Vec<_>>().join(", ")
}

/// The policies that let the request pass because a test cannot know their verdict.
fn unchecked(run: &DryRun<'_>) -> String {
    let steps = run.steps.iter();
    let steps = steps.filter(|step| matches!(step.verdict, Verdict::WouldCheck(_)));
    let names: Vec<_> = steps
        .map(|step| match step.kind.key() {
            "ip" => "`ip` without a `client_ip`".to_owned(),
            key => format!("`{key}`"),
        })
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; the test does not check {}", names.join(", ")),
    }
}

/// Why the wanted route does not take the request.
fn why_not(run: &DryRun<'_>, wanted: RouteId) -> String {
    let mut considered = run.explanation.considered.iter();
    let considered = considered.find(|each| each.route == wanted);
    match considered.map(|each| each.verdict) {
        None | Some(RouteVerdict::Taken) => String::new(),
        Some(verdict) => format!(": {verdict}"),
    }
}
