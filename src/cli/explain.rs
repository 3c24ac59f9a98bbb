//! `weir explain FILE METHOD URL`: what becomes of a request, and why. Also runs `[[test]]` blocks.
//!
//! A real request head is built, and taken through the parser, the normaliser and the routing that
//! the data path runs; nothing here decides anything by itself.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use weir_config::{Code, Config, EncodedSlash, Position, Test, show_duration, show_size};
use weir_proto_h1::{Claims, Event, FieldPolicy, Head, OddNamePolicy, Server};

use crate::exchange::{came_over_https, is_grpc_call};
use crate::fault::Reason;
use crate::io::Address;
use crate::plan::{
    Decision, DecisionBuffers, Explanation, ListenerPlan, Objection, Plan, Problem,
    REDIRECT_HTTPS_STATUS, Refusal, RequestHead, RouteId, RoutePlan, Target, UpstreamId,
};
use crate::route::{Considered, Found, Verdict};
use crate::tls::CertificateIdentity;

/// Routes of other hosts and paths that are listed; the rest is counted.
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
    /// What the client's certificate is known by: its subject, its names. Empty: there is none.
    pub client_cert: Vec<String>,
    /// Whether every route is listed, however far from matching.
    pub all: bool,
}

/// Explains what becomes of a request.
///
/// # Errors
/// The question is not one: no URL, a field line without a colon, control characters, a certificate that is neither a
/// subject nor a name.
pub fn explain(plan: &Plan, question: &Question) -> Result<String, String> {
    let url = Url::parse(&question.url)?;
    let mut host = url.authority.to_owned();
    let mut fields = Vec::with_capacity(question.headers.len());
    for line in &question.headers {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("`{line}` is no field line: write 'name: value'"))?;
        if name.eq_ignore_ascii_case("host") {
            value.trim().clone_into(&mut host);
        } else {
            fields.push((name, value.trim()));
        }
    }
    // A file, as curl takes it, would be a name that no route has.
    let says_kind = |text: &&String| text.contains(['=', ':']);
    if let Some(text) = question.client_cert.iter().find(|text| !says_kind(text)) {
        return Err(format!(
            "`{text}` is neither a subject nor a name of a certificate: write CN=a,O=Example or DNS:a.example.com"
        ));
    }
    let target = target(&question.method, url.authority, url.port, url.target);
    let text = head_text(&question.method, &target, &host, fields)?;
    let listeners = listeners_at(plan, url.port);
    let listener = listener_for(plan, &listeners);
    let client = CertificateIdentity::known_by(&question.client_cert);
    let answer = answer(plan, listener, (&text, client.as_ref()), true);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "request    {} {}", question.method, question.url);
    if !question.client_cert.is_empty() {
        let _ = writeln!(out, "client     {}", question.client_cert.join(", "));
    }
    write_listener(&mut out, plan, &listeners, url.port);
    if !answer.dropped.is_empty() {
        let names = answer.dropped.join(", ");
        let _ = writeln!(out, "dropped    {names}: no client may send it");
    }
    if let Some((host, path)) = &answer.explanation.matched {
        let _ = writeln!(out, "matched as {}{}", lossy(host), lossy(path));
    }
    write_considered(&mut out, plan, &answer, question.all);
    write_outcome(&mut out, plan, &answer);
    Ok(out)
}

/// Failing `[[test]]` blocks that are told one by one; the rest is counted.
const FAILURES_TOLD_MAX: usize = 20;

/// Runs the `[[test]]` blocks of a configuration against its plan.
#[must_use]
pub fn run_tests(config: &Config, plan: &Plan) -> Vec<Problem> {
    let mut failures = Vec::new();
    let mut more = 0;
    for test in &config.tests {
        let is_told = failures.len() < FAILURES_TOLD_MAX;
        let Err(message) = run_test(plan, test, is_told) else {
            continue;
        };
        if !is_told {
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

/// Runs one; a failure explains itself if it `is_told`, which takes a walk over all routes.
fn run_test(plan: &Plan, test: &Test, is_told: bool) -> Result<(), String> {
    let port = test.port.unwrap_or_else(|| default_port(&test.scheme));
    let mut host = match test.port {
        Some(port) => format!("{}:{port}", test.host),
        None => test.host.clone(),
    };
    let mut fields = Vec::with_capacity(test.headers.len());
    for (name, value) in &test.headers {
        match name.as_str() {
            "host" => value.clone_into(&mut host),
            name => fields.push((name, value.as_str())),
        }
    }
    let target = target(&test.method, &test.host, port, &test.target);
    let text = head_text(&test.method, &target, &host, fields)?;
    let listener = listener_for(plan, &listeners_at(plan, port));
    let client = CertificateIdentity::known_by(&test.client_cert);
    let question = (&*text, client.as_ref());
    let answer = answer(plan, listener, question, false);
    let becomes = answer.in_words(plan);
    if let Some(index) = test.route
        && answer.route().map(|id| id.0 as usize) != Some(index)
    {
        let wanted = u32::try_from(index).map(RouteId).ok();
        let (name, why) = wanted.map_or(("", String::new()), |id| {
            let why = |id| self::answer(plan, listener, question, true).why_not(id);
            let why = if is_told { why(id) } else { String::new() };
            (route_name(plan, id), why)
        });
        return Err(format!("expected route `{name}`, but {becomes}{why}"));
    }
    if let Some(index) = test.upstream
        && answer.upstream(plan).map(|id| id.0 as usize) != Some(index)
    {
        let wanted = u32::try_from(index)
            .ok()
            .and_then(|id| plan.upstream(UpstreamId(id)));
        let name = wanted.map_or("", |upstream| &*upstream.name);
        return Err(format!("expected upstream `{name}`, but {becomes}"));
    }
    if let Some(status) = test.status
        && answer.status(plan) != Some(status)
    {
        return Err(format!("expected status {status}, but {becomes}"));
    }
    Ok(())
}

/// What becomes of a request, and everything that `explain` says about it.
struct Answer<'p> {
    explanation: Explanation<'p>,
    /// Fields that the client may not send: neither routes nor endpoints see them.
    dropped: Vec<String>,
    /// The path and query that go upstream, if the path does not go as it came; or the location of a redirect.
    sent: Option<String>,
}

/// Takes a request head through the data path's parser and decision, and notes every route on the way if it
/// `considers_all`.
fn answer<'p>(
    plan: &'p Plan,
    listener: Option<&ListenerPlan>,
    (text, client): (&str, Option<&CertificateIdentity>),
    considers_all: bool,
) -> Answer<'p> {
    let block = text.as_bytes();
    let mut head = Head::new();
    let mut answer = Answer {
        explanation: Decision::from(Reason::Internal).into(),
        dropped: Vec::new(),
        sent: None,
    };
    // Where every listener redirects and none has the port, something before Weir takes `https`.
    let is_before_us = listener.is_none();
    let Some(listener) = listener.or_else(|| plan.listeners.first()) else {
        return answer;
    };
    let mut server = Server::new(listener.limits);
    let received = match server.receive(block, &mut head) {
        Ok(received) if received.event == Event::Head => Ok(()),
        Ok(_) => Err(weir_proto_h1::Error::BadRequestLine),
        Err(error) => Err(error),
    };
    if let Err(error) = received {
        answer.explanation = Decision::from(Reason::from_request(error)).into();
        return answer;
    }
    let trusts_some = !plan.trusted_proxies.is_empty() || listener.trusts_peers;
    answer.dropped = enforce(plan, listener, trusts_some, &mut head, block);
    let request = RequestHead {
        head: &head,
        block,
        hop: server.request(),
        client,
        is_https: is_before_us || trusts_some && came_over_https(plan, &head, block),
    };
    let mut buffers = DecisionBuffers::default();
    answer.explanation = match considers_all {
        true => plan.explain(listener, &request, &mut buffers),
        false => plan.decide(listener, &request, &mut buffers).into(),
    };
    let is_upstream = answer.upstream(plan).is_some();
    let mut sent = buffers.sent;
    if !sent.is_empty() {
        if is_upstream && head.has_query {
            sent.push(b'?');
            sent.extend_from_slice(head.query.get(block));
        }
        answer.sent = Some(lossy(&sent));
    }
    answer
}

/// Drops the fields that a client may not send; gives their names. Where the file trusts anybody, it is they who ask.
fn enforce(
    plan: &Plan,
    listener: &ListenerPlan,
    is_trusted: bool,
    head: &mut Head,
    block: &[u8],
) -> Vec<String> {
    let policy = FieldPolicy {
        claims: if is_trusted {
            plan.trusted_claims
        } else {
            Claims::NONE
        },
        odd_names: match listener.keeps_odd_names {
            true => OddNamePolicy::Keep,
            false if is_grpc_call(head, block) => OddNamePolicy::Metadata,
            false => OddNamePolicy::Drop,
        },
    };
    let before: Vec<_> = head.iter().map(|field| field.name).collect();
    head.enforce(block, &policy, &|name| plan.is_taken_for_matched(name));
    let after: Vec<_> = head.iter().map(|field| field.name).collect();
    let dropped = before.iter().filter(|name| !after.contains(name));
    dropped.map(|name| lossy(name.get(block))).collect()
}

impl Answer<'_> {
    fn route(&self) -> Option<RouteId> {
        match self.explanation.decision {
            Decision::Route(id) => Some(id),
            Decision::Refuse(_) | Decision::RedirectHttps => None,
        }
    }

    fn upstream(&self, plan: &Plan) -> Option<UpstreamId> {
        match plan.route(self.route()?)?.target {
            Target::Upstream(id) => Some(id),
            Target::Redirect(_) | Target::Respond(_) => None,
        }
    }

    /// The status that Weir answers with by itself; none when it is the endpoint's to give.
    fn status(&self, plan: &Plan) -> Option<u16> {
        match &self.explanation.decision {
            Decision::RedirectHttps => Some(REDIRECT_HTTPS_STATUS),
            Decision::Refuse(refusal) => Some(refusal.reason.status()),
            Decision::Route(id) => match &plan.route(*id)?.target {
                Target::Upstream(_) => None,
                Target::Redirect(redirect) => Some(redirect.status),
                Target::Respond(respond) => Some(respond.status),
            },
        }
    }

    fn in_words(&self, plan: &Plan) -> String {
        let id = match &self.explanation.decision {
            Decision::RedirectHttps => {
                return format!(
                    "the listener sends it to https ({REDIRECT_HTTPS_STATUS}, `redirect_https`)"
                );
            }
            Decision::Refuse(Refusal { reason, .. }) => {
                return format!("Weir answers {} ({})", reason.status(), reason.code());
            }
            Decision::Route(id) => *id,
        };
        let name = route_name(plan, id);
        match (
            self.upstream(plan).and_then(|id| plan.upstream(id)),
            self.status(plan),
        ) {
            (Some(upstream), _) => {
                format!("route `{name}` sends it to upstream `{}`", upstream.name)
            }
            (None, Some(status)) => format!("route `{name}` answers {status}"),
            (None, None) => format!("route `{name}` takes it"),
        }
    }

    fn why_not(&self, wanted: RouteId) -> String {
        let considered = self
            .explanation
            .considered
            .iter()
            .find(|each| each.route == wanted);
        match considered.map(|each| each.verdict) {
            None | Some(Verdict::Taken) => String::new(),
            Some(verdict) => format!(": {}", verdict_in_words(verdict)),
        }
    }
}

fn verdict_in_words(verdict: Verdict<'_>) -> String {
    match verdict {
        Verdict::Taken => "takes the request".to_owned(),
        Verdict::Outranked => "comes after the route that takes it".to_owned(),
        Verdict::Failed(failed) => failed.to_string(),
        Verdict::Path => "its path does not match".to_owned(),
        Verdict::Host => "its host does not match".to_owned(),
    }
}

fn write_listener(out: &mut String, plan: &Plan, listeners: &[&ListenerPlan], port: u16) {
    if listeners.is_empty() {
        let names: Vec<_> = plan
            .listeners
            .iter()
            .map(|listener| &*listener.name)
            .collect();
        let _ = writeln!(
            out,
            "listener   none has port {port}; there are: {}",
            names.join(", ")
        );
    }
    for listener in listeners {
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

fn write_considered(out: &mut String, plan: &Plan, answer: &Answer<'_>, all: bool) {
    let is_other = |each: &&Considered<'_>| matches!(each.verdict, Verdict::Host | Verdict::Path);
    let (others, candidates): (Vec<&Considered<'_>>, Vec<_>) =
        answer.explanation.considered.iter().partition(is_other);
    if !candidates.is_empty() {
        let _ = writeln!(
            out,
            "routes     whose host and path match, in order of precedence:"
        );
    }
    for each in candidates {
        write_route(out, plan, each);
    }
    // Routes whose host fits are nearer to a match than the rest.
    let near = others.iter().filter(|each| each.verdict == Verdict::Path);
    let far = others.iter().filter(|each| each.verdict == Verdict::Host);
    let listed = if all { others.len() } else { OTHERS_LISTED_MAX };
    if !others.is_empty() {
        let _ = writeln!(out, "others     whose path or host does not match:");
    }
    for each in near.chain(far).take(listed) {
        write_route(out, plan, each);
    }
    if others.len() > listed {
        let more = others.len() - listed;
        let _ = writeln!(out, "    and {more} more (--all)");
    }
}

fn write_route(out: &mut String, plan: &Plan, considered: &Considered<'_>) {
    let mark = if considered.verdict == Verdict::Taken {
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
    let name = route_name(plan, considered.route);
    let _ = writeln!(
        out,
        "  {mark} {name}{at}: {}",
        verdict_in_words(considered.verdict)
    );
}

fn write_outcome(out: &mut String, plan: &Plan, answer: &Answer<'_>) {
    let sent = answer.sent.as_deref().unwrap_or_default();
    let route = match &answer.explanation.decision {
        Decision::RedirectHttps => {
            let _ = writeln!(
                out,
                "answer     {REDIRECT_HTTPS_STATUS}, location {sent}: the listener sends every request to https"
            );
            return;
        }
        Decision::Refuse(refusal) => return write_refusal(out, plan, refusal),
        Decision::Route(id) => plan.route(*id),
    };
    let Some(route) = route else { return };
    let _ = writeln!(out, "route      {}", route.name);
    match &route.target {
        Target::Upstream(id) => write_upstream(out, plan, *id, route, answer),
        Target::Redirect(redirect) => {
            let _ = writeln!(out, "answer     {}, location {sent}", redirect.status);
        }
        Target::Respond(respond) => {
            let media = respond.content_type.as_deref().unwrap_or("no body");
            let bytes = respond.body.len();
            let _ = writeln!(out, "answer     {}, {bytes} bytes, {media}", respond.status);
        }
    }
}

fn write_refusal(out: &mut String, plan: &Plan, refusal: &Refusal) {
    let reason = refusal.reason;
    let (status, code, text) = (reason.status(), reason.code(), reason.text());
    let _ = writeln!(out, "answer     {status}, reason {code}: {text}");
    if let Some((id, objection)) = &refusal.objection {
        write_objection(out, plan, *id, objection);
    }
    if let Some(id) = refusal.route {
        let max = plan.route(id).and_then(|route| route.body_bytes_max);
        let most = max.map(show_size).unwrap_or_default();
        let name = route_name(plan, id);
        let _ = writeln!(
            out,
            "because    route `{name}` takes bodies of at most {most}"
        );
    }
    if let Some(allow) = &refusal.allow {
        let _ = writeln!(out, "allow      {allow}");
    }
}

fn write_objection(out: &mut String, plan: &Plan, id: RouteId, objection: &Objection) {
    let name = route_name(plan, id);
    let _ = match objection {
        Objection::EncodedSlash => writeln!(
            out,
            "because    route `{name}` has encoded_slash = \"refuse\""
        ),
        Objection::TooOdd => writeln!(
            out,
            "because    the path is too long for all that endpoints may read in several ways"
        ),
        Objection::Read { by, path, found } => {
            let path = lossy(path);
            let becomes = match found {
                Found::Route { id, .. } => format!("which route `{}` takes", route_name(plan, *id)),
                Found::Ambiguous | Found::MethodNotAllowed(_) | Found::None => {
                    "which no route takes".to_owned()
                }
            };
            writeln!(
                out,
                "because    to an endpoint that {by} the path is {path}, {becomes}"
            )
        }
        Objection::Rewritten { by } => writeln!(
            out,
            "because    to an endpoint that {by} the rewritten path lies elsewhere than `{name}` sends it"
        ),
        Objection::Redirected => writeln!(
            out,
            "because    the location of `{name}` would have a dot segment"
        ),
    };
}

fn write_upstream(
    out: &mut String,
    plan: &Plan,
    id: UpstreamId,
    route: &RoutePlan,
    answer: &Answer<'_>,
) {
    let Some(upstream) = plan.upstream(id) else {
        return;
    };
    let _ = writeln!(out, "upstream   {}", upstream.name);
    for endpoint in &upstream.endpoints {
        let weight = match endpoint.weight {
            1 => String::new(),
            weight => format!(", weight {weight}"),
        };
        let _ = writeln!(out, "  endpoint {}{weight}", endpoint.name);
    }
    for endpoint in &upstream.unresolved {
        let _ = writeln!(
            out,
            "  endpoint {}, not found: {}",
            endpoint.name, endpoint.why
        );
    }
    if upstream.endpoints.is_empty() {
        let reason = Reason::Unresolved;
        let _ = writeln!(
            out,
            "answer     {}, reason {}, until a name is found",
            reason.status(),
            reason.code()
        );
    }
    if let Some(path) = &answer.sent {
        let _ = writeln!(out, "sent as    {path}");
    }
    let slashes = match route.encoded_slash {
        EncodedSlash::Auto => None,
        EncodedSlash::Keep => Some("encoded ones are trusted to be characters"),
        EncodedSlash::Refuse => Some("encoded ones are refused"),
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
        "pool       at most {} connections to each endpoint, then {} requests waiting, all cores together",
        upstream.connections_max, upstream.pending_max,
    );
    let retry = route.retry;
    let per_try = retry.per_try.map_or(String::new(), |limit| {
        format!(", each try within {}", show_duration(limit))
    });
    let _ = match retry.retries_max {
        0 => writeln!(out, "retries    none of what was sent{per_try}"),
        count => writeln!(
            out,
            "retries    {count}{per_try}, after about {}, up to {}% of the requests of the last 10s or {} of them",
            show_duration(retry.backoff),
            retry.budget_percent,
            retry.budget_min,
        ),
    };
    let _ = match retry.connects_max {
        1 => writeln!(
            out,
            "failover   off: one connection that cannot be made fails the request"
        ),
        max => writeln!(
            out,
            "failover   a connection that cannot be made sends the request to the next endpoint, {max} connections in all"
        ),
    };
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

fn route_name(plan: &Plan, id: RouteId) -> &str {
    plan.route(id).map_or("", |route| &*route.name)
}

/// The listeners that a client reaches at this port.
fn listeners_at(plan: &Plan, port: u16) -> Vec<&ListenerPlan> {
    let has_port = |listener: &&ListenerPlan| match &listener.address {
        Address::Ip(address) => address.port() == port,
        Address::Unix(_) => false,
    };
    plan.listeners.iter().filter(has_port).collect()
}

/// The listener that a request is taken to come in at: the first of those that it reaches. Where none has its port, as
/// behind a translation of addresses, the first that serves requests itself.
fn listener_for<'p>(plan: &'p Plan, reached: &[&'p ListenerPlan]) -> Option<&'p ListenerPlan> {
    let serves = |listener: &&ListenerPlan| listener.redirect_https.is_none();
    reached
        .first()
        .copied()
        .or_else(|| plan.listeners.iter().find(serves))
}

/// An absolute URL, taken apart.
struct Url<'u> {
    authority: &'u str,
    port: u16,
    /// Path and query.
    target: &'u str,
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
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
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
            target,
        })
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// The target as a client would write it, of the path and the query of a URL.
//= rfc9112#3.2
// CONNECT names a host and a port, and nothing else. OPTIONS without path and query is for the whole server. An empty
// path is a slash otherwise.
fn target(method: &str, authority: &str, port: u16, of_url: &str) -> String {
    match (method, of_url) {
        ("CONNECT", _) => {
            let port = format!(":{port}");
            let host = authority.strip_suffix(&port).unwrap_or(authority);
            format!("{host}{port}")
        }
        ("OPTIONS", "") => "*".to_owned(),
        (_, path) if path.starts_with('/') => path.to_owned(),
        (_, query) => format!("/{query}"),
    }
}

fn head_text<'f>(
    method: &str,
    target: &str,
    host: &str,
    fields: impl IntoIterator<Item = (&'f str, &'f str)>,
) -> Result<String, String> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    let mut lines = 2;
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
        lines += 1;
    }
    // A line break in an argument would make another request of it.
    if text.matches(['\r', '\n']).count() != lines * 2 {
        return Err("a request has no line breaks in it".to_owned());
    }
    text.push_str("\r\n");
    Ok(text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
