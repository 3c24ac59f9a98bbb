//! A route in the form that cores run.

use std::ptr;
use std::sync::Arc;

use weir_config::{Code, Config, EncodedSlash, PathMatch, Policies, Target, Underscores, Variable};

use super::{
    BalanceParameters, JwtId, Problem, Redirect, RetryPlan, Rewrite, RouteSplit, Timeouts,
    UpstreamId, balance_parameters,
};
use crate::policy::errors::ErrorPages;
use crate::policy::{self, PlannedStep, StatePlans};

/// The settings of a route.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// Its name in the file, else the text of its match.
    pub name: Arc<str>,
    /// Its line in the file, from 1; 0 if there is no file.
    pub line: u32,
    /// What it does with its requests.
    pub target: RouteTarget,
    /// How it changes the path of requests that go upstream.
    pub rewrite: Option<Rewrite>,
    /// How it treats an encoded slash or backslash in the path.
    pub encoded_slash: EncodedSlash,
    /// Whether it denies access to a part of the paths, so that no request may slip past it.
    pub forbids: bool,
    /// Its rules about who may pass; `None` if it has none. Routes with the same rules have the same guard.
    pub guard: Option<Guard>,
    /// Whether fields with odd names go upstream; `None` leaves it to the listener.
    pub keeps_odd_names: Option<bool>,
    /// Time limits, merged.
    pub timeouts: Timeouts,
    /// Retry rules, merged.
    pub retry: RetryPlan,
    /// The largest request body, bytes.
    pub body_bytes_max: Option<u64>,
    /// What its clients get in place of error answers.
    pub errors: ErrorPages,
    /// The Host that endpoints get; `None` for the one that the client asked for.
    pub host: Option<Box<str>>,
    /// The places of the path parameters that balancers hash.
    pub balance_parameters: BalanceParameters,
    /// Its rules for tokens. Routes with the same rules have the same id.
    pub jwt: Option<JwtId>,
    /// Its policies, in the order in which they run.
    pub steps: Box<[PlannedStep]>,
    /// What its steps do, but for error pages; `None` if it has none.
    pub policies: Option<PoliciesId>,
}

/// The policies of a route as a number: the first route in the file whose policies do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoliciesId(u32);

/// The rules of a route about who may pass, as a number: the first route in the file that has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u32);

/// What a route does with its requests.
#[derive(Clone, Debug)]
pub enum RouteTarget {
    /// Sends them to an upstream.
    Upstream(UpstreamId),
    /// Sends them to several upstreams, a share to each.
    Split(Box<RouteSplit>),
    /// Redirects the client.
    Redirect(Redirect),
    /// Sends a fixed answer.
    Respond(FixedAnswer),
}

impl RouteTarget {
    /// Whether it sends requests to endpoints.
    #[inline]
    #[must_use]
    pub fn is_upstream(&self) -> bool {
        matches!(self, Self::Upstream(_) | Self::Split(_))
    }

    /// The upstreams that may get its requests.
    pub fn upstreams(&self) -> impl Iterator<Item = UpstreamId> {
        let (one, shares) = match self {
            Self::Upstream(id) => (Some(*id), &[][..]),
            Self::Split(split) => (None, &split.shares[..]),
            Self::Redirect(_) | Self::Respond(_) => (None, &[][..]),
        };
        one.into_iter()
            .chain(shares.iter().map(|share| share.upstream))
    }
}

/// A fixed answer.
#[derive(Clone, Debug)]
pub struct FixedAnswer {
    /// 200 to 599.
    pub status: u16,
    /// The media type of the body.
    pub content_type: Option<Box<str>>,
    /// The body; empty for 204, 205 and 304.
    pub body: Arc<[u8]>,
    /// Further fields, with names in lower case. The file cannot set framing and connection fields.
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

impl RoutePlan {
    /// Compiles `route` of `config`. The pattern has no `..`, so the compiler points here when a route gets a new key.
    pub(super) fn compile(
        config: &Config,
        route: &weir_config::Route,
        states: &mut StatePlans,
    ) -> Result<Self, Problem> {
        let weir_config::Route {
            name,
            matches,
            target,
            rewrite,
            encoded_slash,
            underscores,
            position,
            // `RouteTable` has the matches, and `Config` merges these.
            host: _,
            timeouts: _,
            limits: _,
            retries: _,
            // `compile_route` has the others.
            policies,
        } = route;
        let problem = |message: String| Problem {
            code: Code::Plan,
            position: position.clone(),
            message: format!("route `{name}`: {message}"),
        };
        let rewrite = rewrite
            .as_ref()
            .map(|rewrite| Rewrite::compile(rewrite, matches))
            .transpose()
            .map_err(problem)?;
        let compiled_target = match target {
            Target::Upstream { index } => match u32::try_from(*index) {
                Ok(id) if *index < config.upstreams.len() => RouteTarget::Upstream(UpstreamId(id)),
                _ => return Err(problem(format!("there is no upstream number {index}"))),
            },
            // The plans of its shares are made of this one, below.
            Target::Split(_) => RouteTarget::Upstream(UpstreamId(u32::MAX)),
            Target::Redirect(redirect) => {
                RouteTarget::Redirect(Redirect::compile(redirect, matches).map_err(problem)?)
            }
            Target::Respond(respond) => RouteTarget::Respond(FixedAnswer::compile(respond)),
        };
        let limits = config.limits_of(route);
        let mut plan = Self {
            name: name.as_str().into(),
            line: position.line,
            forbids: forbids(route),
            guard: guard_of(config, route),
            target: compiled_target,
            rewrite,
            encoded_slash: *encoded_slash,
            host: config.host_of(route).map(Into::into),
            balance_parameters: balance_parameters::compile(config, matches),
            jwt: jwt_id(config, route),
            keeps_odd_names: underscores.map(|rule| rule == Underscores::Keep),
            timeouts: Timeouts::new(config.timeouts_of(route), limits),
            retry: RetryPlan::new(config.retries_of(route)),
            body_bytes_max: limits.body_bytes,
            errors: compile_errors(&policies.errors)?,
            steps: policy::compile_route(config, route, states).map_err(problem)?,
            policies: policies_id(config, route),
        };
        if let Target::Split(split) = target {
            let split = RouteSplit::compile(config, route, split, &plan).map_err(problem)?;
            plan.target = RouteTarget::Split(Box::new(split));
        }
        Ok(plan)
    }

    /// Whether a request is as safe with the other route as with this one: both send it to the same upstream under the
    /// same limits and policies. The pattern has no `..`, so the compiler points here when a route gets a new field.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let Self {
            target,
            rewrite,
            keeps_odd_names,
            body_bytes_max,
            host,
            policies,
            // These only name the route, decide when it takes a request, limit how long the request may take, or change
            // how an error looks.
            errors: _,
            name: _,
            line: _,
            encoded_slash: _,
            forbids: _,
            guard: _,
            balance_parameters: _,
            jwt: _,
            steps: _,
            timeouts,
            retry: _,
        } = self;
        let is_one_upstream = match (target, &other.target) {
            (RouteTarget::Upstream(one), RouteTarget::Upstream(other)) => one == other,
            _ => false,
        };
        is_one_upstream
            && rewrite.is_none()
            && other.rewrite.is_none()
            && *keeps_odd_names == other.keeps_odd_names
            && *body_bytes_max == other.body_bytes_max
            && *host == other.host
            && *policies == other.policies
            && timeouts.body_rate_bytes_min == other.timeouts.body_rate_bytes_min
    }
}

/// Compiles the pages of one place of the file.
pub(super) fn compile_errors(errors: &weir_config::Errors) -> Result<ErrorPages, Problem> {
    ErrorPages::compile(errors).map_err(|(answer, message)| Problem {
        code: Code::UnknownName,
        position: answer.position.clone(),
        message,
    })
}

impl FixedAnswer {
    fn compile(respond: &weir_config::Respond) -> Self {
        let header =
            |(name, value): &(String, String)| (name.as_str().into(), value.as_str().into());
        Self {
            status: respond.status,
            content_type: respond.content_type.as_deref().map(Into::into),
            body: respond.body.as_bytes().into(),
            headers: respond.headers.iter().map(header).collect(),
        }
    }
}

/// The id of a route's rules for tokens: the first route in the file that has the same names them.
fn jwt_id(config: &Config, route: &weir_config::Route) -> Option<JwtId> {
    let jwt = route.policies.jwt.as_ref()?;
    let mut others = config
        .routes
        .iter()
        .map(|other| other.policies.jwt.as_ref());
    let first = others.position(|other| other == Some(jwt))?;
    u32::try_from(first).ok().map(JwtId)
}

/// The guard of a route: its rules of `ip`, `jwt` and `forward_auth`, which say who may send requests. The pattern has no
/// `..`, so the compiler points here when there is a new policy. A policy that keeps some clients
/// out for good is part of the guard.
fn guard_of(config: &Config, route: &weir_config::Route) -> Option<Guard> {
    fn rules(policies: &Policies) -> impl PartialEq {
        let Policies {
            ip,
            jwt,
            forward_auth,
            // None of these keeps a client out for good.
            headers: _,
            cors: _,
            limits: _,
            concurrency: _,
            compress: _,
            errors: _,
            security_headers: _,
            mirror: _,
        } = policies;
        (ip, jwt, forward_auth)
    }
    let none = Policies::default();
    let own = rules(&route.policies);
    if own == rules(&none) {
        return None;
    }
    let mut all = config.routes.iter().map(|route| &route.policies);
    let first = all.position(|policies| rules(policies) == own)?;
    u32::try_from(first).ok().map(Guard)
}

/// The id of a route's policies. Error pages do not count, because they only change how an error looks.
fn policies_id(config: &Config, route: &weir_config::Route) -> Option<PoliciesId> {
    if is_same(&route.policies, &Policies::default()) {
        return None;
    }
    // What endpoints read of the path differs between routes.
    let is_alone = has_parameters(&route.policies);
    let first = config.routes.iter().position(|other| match is_alone {
        true => ptr::eq(other, route),
        false => is_same(&other.policies, &route.policies),
    });
    u32::try_from(first?).ok().map(PoliciesId)
}

/// Whether policies do the same with a request. The pattern has no `..`, so the compiler points here when there is a new
/// policy.
fn is_same(one: &Policies, other: &Policies) -> bool {
    let Policies {
        headers,
        ip,
        cors,
        limits,
        concurrency,
        forward_auth,
        compress,
        jwt,
        errors: _,
        security_headers,
        mirror,
    } = one;
    *headers == other.headers
        && *ip == other.ip
        && *cors == other.cors
        && *limits == other.limits
        && *concurrency == other.concurrency
        && *forward_auth == other.forward_auth
        && *compress == other.compress
        && *jwt == other.jwt
        && *security_headers == other.security_headers
        && *mirror == other.mirror
}

/// Whether requests get fields with parameters of the path.
fn has_parameters(policies: &Policies) -> bool {
    let rules = policies.headers.as_ref().map(|headers| &headers.request);
    let rules = rules
        .into_iter()
        .flat_map(|rules| rules.set.iter().chain(&rules.add));
    let mut variables = rules.flat_map(|rule| rule.value.variables());
    variables.any(|variable| matches!(variable, Variable::Param(_)))
}

/// Whether a route denies access to a part of the paths. A route for all paths only answers what no other route takes.
fn forbids(route: &weir_config::Route) -> bool {
    let is_error = matches!(&route.target, Target::Respond(respond) if respond.status >= 400);
    let all = PathMatch::Prefix("/".to_owned());
    is_error && !route.matches.paths.contains(&all)
}
