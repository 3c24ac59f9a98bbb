//! `weir explain`: says what Weir would do with a request, and why.
//!
//! [`Plan::dry_run`] makes the decision of the data path. This file only puts it into words.
#![forbid(unsafe_code)]

mod relay;

use std::fmt::Write as _;
use std::net::IpAddr;

use weir_config::{CheckKind, EncodedSlash, HealthCheck, show_duration, show_size};

use crate::control::{ExplainRequest, count};
use crate::fault::Reason;
use crate::io::Address;
use crate::plan::{
    Decision, DryRequest, DryRun, EndpointSet, EndpointSets, EndpointSpec, EndpointState,
    ListenerPlan, ListenerTarget, PathObjection, Plan, REDIRECT_HTTPS_STATUS, Refusal, RouteId,
    RoutePlan, RouteSplit, RouteTarget, SplitShare, UpstreamId, UpstreamPlan, default_port,
};
use crate::policy::errors::ErrorPages;
use crate::policy::{StepVerdict, Verdict};
use crate::route::{ConsideredRoute, RouteLookup, RouteVerdict};
use crate::upstream::{EndpointHealth, EndpointStatus, Unusable, survey};

pub(super) use relay::{RelayUrl, explain_relay};

/// How many routes of other hosts and paths are listed without `--all`.
const OTHERS_LISTED_MAX: usize = 10;

/// A request to explain.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The method.
    pub method: String,
    /// `http://host[:port]/path?query`.
    pub url: String,
    /// Field lines as curl's `-H` takes them: `name: value`. A Host replaces that of the URL.
    pub headers: Vec<String>,
    /// Subject and names of the client's certificate. Empty: the client shows none.
    pub client_cert: Vec<String>,
    /// The client's address, unless fields of a trusted proxy name another.
    pub client_ip: Option<IpAddr>,
    /// Claims of the client's token as `NAME=VALUE`. Empty: the client has no valid token.
    pub claims: Vec<String>,
    /// Whether to list every route, including those of other hosts and paths.
    pub all: bool,
}

/// Explains what Weir would do with a request.
///
/// # Errors
/// The question is not one: no URL, a field line without a colon, control characters, a certificate that is neither a
/// subject nor a name.
pub fn explain(
    (plan, endpoints): (&Plan, &EndpointSets),
    question: &Question,
) -> Result<String, String> {
    let url = Url::parse(&question.url)?;
    let mut fields = Vec::with_capacity(question.headers.len());
    for line in &question.headers {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("`{line}` is no field line: write 'name: value'"))?;
        fields.push((name, value.trim()));
    }
    // curl takes a file here. A file name would match no route and look like an answer.
    let says_kind = |text: &&String| text.contains(['=', ':']);
    if let Some(text) = question.client_cert.iter().find(|text| !says_kind(text)) {
        return Err(format!(
            "`{text}` is neither a subject nor a name of a certificate: write CN=a,O=Example or DNS:a.example.com"
        ));
    }
    let claims = read_claims(&question.claims)?;
    let request = DryRequest {
        method: &question.method,
        authority: url.authority,
        port: url.port,
        path_and_query: url.path_and_query,
        fields: &fields,
        client_cert: &question.client_cert,
        client_ip: question.client_ip,
        claims: (!claims.is_empty()).then_some(&claims[..]),
    };
    let run = plan.dry_run(&request, true)?;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "request    {} {}", question.method, question.url);
    let address = question.client_ip.map(|address| address.to_string());
    let client: Vec<&str> = address
        .as_deref()
        .into_iter()
        .chain(question.client_cert.iter().map(String::as_str))
        .collect();
    if !client.is_empty() {
        let _ = writeln!(out, "client     {}", client.join(", "));
    }
    if !question.claims.is_empty() {
        let _ = writeln!(out, "claims     {}", question.claims.join(", "));
    }
    write_listeners(&mut out, plan, url.port);
    if !run.dropped.is_empty() {
        let names = run.dropped.join(", ");
        let _ = writeln!(out, "dropped    {names}: clients may not send this");
    }
    if let Some((host, path)) = &run.explanation.matched {
        let _ = writeln!(out, "matched as {}{}", lossy(host), lossy(path));
    }
    if let Some(asked) = &run.explanation.preflight_for {
        let _ = writeln!(
            out,
            "preflight  for {}: predicates on fields, cookies and credentials do not count",
            lossy(asked)
        );
    }
    write_considered(&mut out, plan, &run, question.all);
    write_outcome(&mut out, plan, endpoints, &run);
    Ok(out)
}

/// The same for the admin API.
///
/// # Errors
/// Those of [`explain`].
pub(super) fn explain_for_api(
    plan: &Plan,
    endpoints: &EndpointSets,
    asked: &ExplainRequest,
) -> Result<String, String> {
    let question = Question {
        method: asked.method.clone(),
        url: asked.url.clone(),
        headers: asked.headers.clone(),
        client_cert: asked.client_cert.clone(),
        client_ip: asked.client_ip,
        claims: asked.claims.clone(),
        all: asked.all,
    };
    explain((plan, endpoints), &question)
}

/// Claims of `NAME=VALUE` texts. A repeated name makes a list.
fn read_claims(texts: &[String]) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut claims: Vec<(String, Vec<String>)> = Vec::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is no claim: write NAME=VALUE"))?;
        match claims.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value.to_owned()),
            None => claims.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    Ok(claims)
}

/// Why no listener takes an HTTP request at `port`, and what to ask instead.
fn show_no_listener(plan: &Plan, port: u16) -> String {
    let without_http = |listener: &&ListenerPlan| {
        let has_port = matches!(&listener.address, Address::Ip(address) if address.port() == port);
        has_port && !listener.is_http()
    };
    if let Some(listener) = plan.listeners.iter().find(without_http) {
        let scheme = match listener.target {
            ListenerTarget::Udp(_) => "udp://HOST",
            ListenerTarget::Passthrough(_) => "tls://NAME",
            ListenerTarget::Tcp(_) | ListenerTarget::Http => "tcp://HOST",
        };
        let name = &listener.name;
        return format!("{name} reads no HTTP; ask for {scheme}:{port} instead");
    }
    let http = plan.listeners.iter().filter(|listener| listener.is_http());
    let names: Vec<_> = http.map(|listener| &*listener.name).collect();
    match names.is_empty() {
        true => format!("none on port {port}; no listener reads HTTP"),
        false => format!("none on port {port}; the file has {}", names.join(", ")),
    }
}

fn write_listeners(out: &mut String, plan: &Plan, port: u16) {
    if plan.listeners_at(port).next().is_none() {
        let _ = writeln!(out, "listener   {}", show_no_listener(plan, port));
    }
    for (_, listener) in plan.listeners_at(port) {
        let ListenerPlan {
            name,
            timeouts,
            limits,
            connections_max,
            ..
        } = listener;
        let is_known = plan.capacity.is_known();
        let most = plan.capacity.connections_max.min(*connections_max);
        let most = is_known.then(|| format!(", at most {most} connections"));
        let _ = writeln!(
            out,
            "listener   {name}, head within {} and {}, {} fields, target {}, idle {}{}",
            show_duration(timeouts.head),
            show_size(limits.head_bytes_max.into()),
            limits.fields_max,
            show_size(limits.target_bytes_max.into()),
            show_duration(timeouts.idle),
            most.unwrap_or_default(),
        );
    }
    if plan.capacity.is_known() {
        let _ = writeln!(out, "limits     {}", plan.capacity);
    }
}

fn write_considered(out: &mut String, plan: &Plan, run: &DryRun<'_>, all: bool) {
    let is_other = |each: &&ConsideredRoute<'_>| {
        matches!(each.verdict, RouteVerdict::Host | RouteVerdict::Path)
    };
    let (others, candidates): (Vec<&ConsideredRoute<'_>>, Vec<_>) =
        run.explanation.considered.iter().partition(is_other);
    if !candidates.is_empty() {
        let _ = writeln!(
            out,
            "routes     whose host and path match, in order of precedence:"
        );
    }
    for each in candidates {
        write_route(out, plan, each);
    }
    // Routes with a matching host come first.
    let near = others
        .iter()
        .filter(|each| each.verdict == RouteVerdict::Path);
    let far = others
        .iter()
        .filter(|each| each.verdict == RouteVerdict::Host);
    let listed = if all { others.len() } else { OTHERS_LISTED_MAX };
    if !others.is_empty() {
        let _ = writeln!(out, "others     whose path or host does not match:");
    }
    for each in near.chain(far).take(listed) {
        write_route(out, plan, each);
    }
    if others.len() > listed {
        let more = others.len() - listed;
        let _ = writeln!(out, "    {more} more; --all lists them");
    }
}

fn write_route(out: &mut String, plan: &Plan, considered: &ConsideredRoute<'_>) {
    let mark = if considered.verdict == RouteVerdict::Taken {
        '>'
    } else {
        ' '
    };
    let line = plan.route(considered.route).map_or(0, |route| route.line);
    let at = if line > 0 {
        format!(" (line {line})")
    } else {
        String::new()
    };
    let name = plan.route_name(considered.route);
    let _ = writeln!(out, "  {mark} {name}{at}: {}", considered.verdict);
}

fn write_outcome(out: &mut String, plan: &Plan, endpoints: &EndpointSets, run: &DryRun<'_>) {
    let sent = run.sent.as_deref().unwrap_or_default();
    let has_no_route = run.is_answered_by_listener || run.route().is_none();
    let route = match &run.explanation.decision {
        _ if has_no_route && write_steps(out, run, &plan.errors) => return,
        Decision::RedirectHttps => {
            let _ = writeln!(
                out,
                "answer     {REDIRECT_HTTPS_STATUS}, location {sent}: the listener redirects every request to https"
            );
            return;
        }
        Decision::Refuse(refusal) => return write_refusal(out, plan, refusal),
        // `dry_run` gives claims, or says that there are none.
        Decision::NeedsClaims(_) => None,
        Decision::Route(id) => plan.route(*id),
    };
    let Some(route) = route else { return };
    let _ = writeln!(out, "route      {}", route.name);
    if write_steps(out, run, &route.errors) {
        return;
    }
    match &route.target {
        RouteTarget::Upstream(id) => write_sent_to(out, (plan, endpoints), (*id, route), run),
        RouteTarget::Split(split) => write_split(out, (plan, endpoints), split, run),
        RouteTarget::Redirect(redirect) => {
            let _ = writeln!(out, "answer     {}, location {sent}", redirect.status);
        }
        RouteTarget::Respond(respond) => {
            let media = respond.content_type.as_deref().unwrap_or("no body");
            let bytes = respond.body.len();
            let _ = writeln!(out, "answer     {}, {bytes} bytes, {media}", respond.status);
        }
    }
}

/// Writes what becomes of a request that goes to this upstream.
fn write_sent_to(
    out: &mut String,
    (plan, endpoints): (&Plan, &EndpointSets),
    (id, route): (UpstreamId, &RoutePlan),
    run: &DryRun<'_>,
) {
    if let Some(upstream) = plan.upstream(id) {
        let _ = writeln!(out, "upstream   {}", upstream.name);
        write_endpoints(out, upstream, endpoints.get(id).map(AsRef::as_ref));
        write_upstream(out, upstream, route, run);
        for page in route.errors.iter() {
            let _ = writeln!(out, "errors     {page}");
        }
    }
}

/// Writes the shares of a split route, and each upstream that may get the request.
fn write_split(
    out: &mut String,
    plans: (&Plan, &EndpointSets),
    split: &RouteSplit,
    run: &DryRun<'_>,
) {
    let may_get = |share: &&SplitShare| match run.asked_for {
        Some(id) => share.upstream == id,
        None => share.weight > 0,
    };
    let shares = split.shares.iter();
    let shares = shares.map(|share| format!("{} {}", split.show_share(share), share.name));
    let shares: Vec<_> = shares.collect();
    let settled = match (run.asked_for, &split.force, &split.cookie) {
        (Some(_), _, _) => "; the request asks for one".to_owned(),
        (None, Some(field), Some(cookie)) => {
            format!("; field {field}, then cookie {cookie} decides")
        }
        (None, Some(field), None) => format!("; field {field} decides"),
        (None, None, Some(cookie)) => format!("; cookie {cookie} decides"),
        (None, None, None) => String::new(),
    };
    let _ = writeln!(out, "split      {}{settled}", shares.join(", "));
    for share in split.shares.iter().filter(may_get) {
        write_sent_to(out, plans, (share.upstream, &share.route), run);
    }
}

/// Writes what each policy says. Returns whether one of them answers the request.
fn write_steps(out: &mut String, run: &DryRun<'_>, errors: &ErrorPages) -> bool {
    write_verdicts(out, run.steps.iter().chain(&run.answer_edits));
    match run.steps.last().map(|last| &last.verdict) {
        Some(Verdict::Refuses(reason, _)) => {
            let (status, code, text) = (reason.status(), reason.code(), reason.text());
            let _ = writeln!(out, "answer     {status}, reason {code}: {text}");
            write_page(out, errors, *reason);
            true
        }
        Some(Verdict::Answers(status, _)) => {
            let _ = writeln!(out, "answer     {status}");
            true
        }
        _ => false,
    }
}

/// Writes what each policy says.
fn write_verdicts<'v>(out: &mut String, steps: impl Iterator<Item = &'v StepVerdict>) {
    for StepVerdict { kind, verdict } in steps {
        let text = match verdict {
            Verdict::Passes(text) => format!("passes: {text}"),
            Verdict::Refuses(_, text) => format!("refuses: {text}"),
            Verdict::Answers(_, text) => format!("answers: {text}"),
            Verdict::WouldCheck(text) => format!("would check: {text}"),
            Verdict::Does(text) => text.clone(),
        };
        let _ = writeln!(out, "policy     {} {text}", kind.key());
    }
}

fn write_refusal(out: &mut String, plan: &Plan, refusal: &Refusal) {
    let reason = refusal.reason;
    let (status, code, text) = (reason.status(), reason.code(), reason.text());
    let _ = writeln!(out, "answer     {status}, reason {code}: {text}");
    write_page(out, plan.errors_of(refusal.route), reason);
    if let Some((id, objection)) = &refusal.objection {
        write_objection(out, plan, *id, objection);
    }
    if let Some(id) = refusal.route {
        let max = plan.route(id).and_then(|route| route.body_bytes_max);
        let most = max.map(show_size).unwrap_or_default();
        let name = plan.route_name(id);
        let _ = writeln!(
            out,
            "because    route `{name}` takes bodies of at most {most}"
        );
    }
    if let Some(allow) = &refusal.allow {
        let _ = writeln!(out, "allow      {allow}");
    }
}

/// Writes what the client gets in place of the usual error answer.
fn write_page(out: &mut String, errors: &ErrorPages, reason: Reason) {
    if let Some(page) = errors.find(reason) {
        let _ = writeln!(out, "page       errors, {page}");
    }
}

fn write_objection(out: &mut String, plan: &Plan, id: RouteId, objection: &PathObjection) {
    let name = plan.route_name(id);
    let _ = match objection {
        PathObjection::EncodedSlash => writeln!(
            out,
            "because    route `{name}` has encoded_slash = \"refuse\""
        ),
        PathObjection::TooOdd => writeln!(
            out,
            "because    endpoints may read so long a path in too many ways to compare"
        ),
        PathObjection::Read { by, path, found } => {
            let path = lossy(path);
            let becomes = match found {
                RouteLookup::Route { id, .. } => {
                    format!("which route `{}` takes", plan.route_name(*id))
                }
                RouteLookup::NeedsClaims { .. } => "whose route depends on claims".to_owned(),
                RouteLookup::Ambiguous | RouteLookup::MethodNotAllowed(_) | RouteLookup::None => {
                    "which no route takes".to_owned()
                }
            };
            writeln!(
                out,
                "because    for an endpoint that {by}, the path is {path}, {becomes}"
            )
        }
        PathObjection::Rewritten { by } => writeln!(
            out,
            "because    for an endpoint that {by}, the rewritten path is not the one that route `{name}` means"
        ),
        PathObjection::Redirected => writeln!(
            out,
            "because    the location of route `{name}` would have a dot segment"
        ),
    };
}

fn write_endpoints(out: &mut String, upstream: &UpstreamPlan, set: Option<&EndpointSet>) {
    let Some(set) = set else { return };
    for source in &set.sources {
        let found = count(source.endpoints, "endpoint");
        let _ = writeln!(out, "  source {}, {found}", source.name);
    }
    if set.endpoints.len() > 1 {
        let _ = writeln!(out, "  balance  {}", upstream.balance);
    }
    // A file says nothing about health.
    let healthy = EndpointStatus {
        health: EndpointHealth::Up,
        ..EndpointStatus::default()
    };
    let surveyed = survey(upstream, set, |_| healthy);
    for (endpoint, found) in set.endpoints.iter().zip(surveyed) {
        let mut line = endpoint.name.to_string();
        if endpoint.weight != 1 {
            let _ = write!(line, ", weight {}", endpoint.weight);
        }
        if endpoint.priority > 0 {
            let _ = write!(line, ", priority {}", endpoint.priority);
        }
        if let Some(zone) = &endpoint.zone {
            let _ = write!(line, ", zone {zone}");
        }
        let why = match found.unusable {
            Some(Unusable::Spare) if endpoint.backup => ", a backup while all others are down",
            Some(Unusable::Spare) => ", used when too few of a higher priority are healthy",
            Some(Unusable::Draining) => ", gets no new requests",
            Some(Unusable::Maintenance) => ", gets no requests",
            Some(Unusable::Down | Unusable::Unchecked | Unusable::Ejected) | None => "",
        };
        if endpoint.state != EndpointState::Ready {
            let _ = write!(line, ", {}", endpoint.state.name());
        }
        let _ = writeln!(out, "  endpoint {line}{why}");
    }
    for endpoint in &set.unresolved {
        let _ = writeln!(
            out,
            "  endpoint {}, not found: {}",
            endpoint.name, endpoint.why
        );
    }
    let takes_requests =
        |endpoint: &EndpointSpec| endpoint.state == EndpointState::Ready && endpoint.weight > 0;
    if !set.endpoints.iter().any(takes_requests) {
        let (reason, until) = match set.endpoints.is_empty() && !set.unresolved.is_empty() {
            true => (Reason::Unresolved, "a name is found"),
            false => (Reason::NoEndpoint, "an endpoint takes requests"),
        };
        let (status, code) = (reason.status(), reason.code());
        let _ = writeln!(out, "answer     {status}, reason {code}, until {until}");
    }
}

fn write_upstream(out: &mut String, upstream: &UpstreamPlan, route: &RoutePlan, run: &DryRun<'_>) {
    if let Some(path) = &run.sent {
        let _ = writeln!(out, "sent as    {path}");
    }
    if let Some(host) = &route.host {
        let _ = writeln!(out, "host       {host}");
    }
    if let Some(sticky) = &upstream.sticky {
        let _ = writeln!(out, "sticky     {}", sticky.kind);
    }
    let slashes = match route.encoded_slash {
        EncodedSlash::Auto => None,
        EncodedSlash::Keep => Some("an encoded slash is a character (encoded_slash = \"keep\")"),
        EncodedSlash::Refuse => Some("an encoded slash is refused (encoded_slash = \"refuse\")"),
    };
    if let Some(slashes) = slashes {
        let _ = writeln!(out, "slashes    {slashes}");
    }
    let times = route.timeouts;
    let total = times.total.map_or_else(|| "off".to_owned(), show_duration);
    let _ = writeln!(
        out,
        "timeouts   connect {}, queue {}, first byte {}, body stall {}, total {total}",
        show_duration(times.connect),
        show_duration(times.queue),
        show_duration(times.first_byte),
        show_duration(times.body_stall),
    );
    let _ = writeln!(
        out,
        "pool       over all cores, at most {} connections to each endpoint and {} waiting requests",
        upstream.connections_max, upstream.pending_max,
    );
    let retry = route.retry;
    let per_try = retry.per_try.map_or(String::new(), |limit| {
        format!(", each try within {}", show_duration(limit))
    });
    let _ = match retry.retries_max {
        0 => writeln!(out, "retries    off{per_try}"),
        count => writeln!(
            out,
            "retries    at most {count}{per_try}, after about {}; at most {}% of the requests of the last 10s, but always {}",
            show_duration(retry.backoff),
            retry.budget_percent,
            retry.budget_min,
        ),
    };
    if retry.retries_max > 0 {
        let methods: Vec<_> = retry.methods.names().collect();
        let _ = writeln!(out, "retried    {}, after {}", methods.join(", "), retry.on);
        if let Some(hedge) = retry.hedge {
            let late = match hedge {
                weir_config::Hedge::After(time) => show_duration(time),
                weir_config::Hedge::Percentile(percent) => {
                    format!("the time within which {percent}% of the answers begin")
                }
            };
            let _ = writeln!(out, "hedged     at a second endpoint after {late}");
        }
    }
    let _ = match retry.connects_max {
        1 => writeln!(
            out,
            "failover   off: the request fails if Weir cannot connect"
        ),
        max => writeln!(
            out,
            "failover   if Weir cannot connect, it tries the next endpoint, at most {max} connections in all"
        ),
    };
    write_breaker(out, upstream);
    if upstream.has_adaptive_concurrency {
        let _ = writeln!(
            out,
            "limit      as many requests at once as the upstream serves without growing slower, on each core"
        );
    }
    write_health(out, upstream);
    let most = route.body_bytes_max.map_or_else(
        || "of any size".to_owned(),
        |max| format!("at most {}", show_size(max)),
    );
    let least = match times.body_rate_bytes_min {
        0 => "at any rate".to_owned(),
        rate => format!("at least {}/s", show_size(rate)),
    };
    let _ = writeln!(out, "body       {most}, {least}");
}

/// When the upstream refuses requests or connections at once.
fn write_breaker(out: &mut String, upstream: &UpstreamPlan) {
    if let Some(breaker) = &upstream.breaker {
        let most = breaker.requests_max.map_or(String::new(), |max| {
            format!("at most {max} requests at once; ")
        });
        let _ = writeln!(
            out,
            "breaker    {most}open for {} when {}% of at least {} requests of the last {} fail",
            show_duration(breaker.open_for),
            breaker.error_percent,
            breaker.requests_min,
            show_duration(breaker.window),
        );
    }
}

/// How Weir finds endpoints that fail.
fn write_health(out: &mut String, upstream: &UpstreamPlan) {
    if let Some(health) = &upstream.health {
        let _ = writeln!(out, "checks     {}", show_check(&health.check));
    }
    if let Some(eject) = &upstream.eject {
        let _ = writeln!(
            out,
            "ejection   after {} failures in a row on a core, for {} and longer each time; at most {}% of the endpoints",
            eject.failures,
            show_duration(eject.duration),
            eject.max_percent,
        );
    }
}

/// What checks ask and how often, in words.
fn show_check(check: &HealthCheck) -> String {
    let asks = match &check.kind {
        CheckKind::Http(http) => {
            let body = if http.body.is_some() {
                ", and a text in its body"
            } else {
                ""
            };
            let (method, target) = (http.method.as_str(), &http.target);
            format!("{method} {target} must answer {}{body}", http.status)
        }
        CheckKind::Tcp => "a connection must succeed".to_owned(),
        CheckKind::Grpc(service) if service.is_empty() => "gRPC must answer SERVING".to_owned(),
        CheckKind::Grpc(service) => format!("gRPC must answer SERVING for {service}"),
    };
    let port = check
        .port
        .map_or_else(String::new, |port| format!(" at port {port}"));
    format!(
        "{asks}{port}, every {} and within {}; down after {} failures, healthy after {} successes",
        show_duration(check.interval),
        show_duration(check.timeout),
        check.fall,
        check.rise,
    )
}

/// An absolute URL, taken apart.
struct Url<'u> {
    authority: &'u str,
    port: u16,
    path_and_query: &'u str,
}

impl<'u> Url<'u> {
    fn parse(url: &'u str) -> Result<Self, String> {
        let wrong = || format!("`{url}` is no URL: write http://host/path");
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        if !matches!(scheme, "http" | "https") {
            return Err(format!(
                "`{scheme}` is no scheme that Weir serves: write http or https"
            ));
        }
        // The fragment stays in the client.
        let rest = rest.split('#').next().unwrap_or(rest);
        let (authority, path_and_query) =
            rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(wrong());
        }
        let after_host = authority.rsplit(']').next().unwrap_or(authority);
        let port = match after_host.rsplit_once(':') {
            None | Some((_, "")) => default_port(scheme),
            Some((_, port)) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
        };
        Ok(Self {
            authority,
            port,
            path_and_query,
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
