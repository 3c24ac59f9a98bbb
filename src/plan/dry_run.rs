//! A request taken through the plan without a connection, for `weir explain` and `[[test]]` blocks.
//!
//! [`Plan::dry_run`] writes the head as a client would send it, and passes the head through the parser, the screening
//! and the decision of the data path.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use weir_proto_h1::{Event, Head, Server};

use super::{
    Decision, DecisionBuffers, Explanation, KnownClaims, ListenerId, ListenerPlan, PeerFacts, Plan,
    RequestHead, RouteId, RouteTarget, UpstreamId, is_grpc,
};
use crate::fault::Reason;
use crate::ids::RequestId;
use crate::io::{Address, Instant};
use crate::policy::{Claims, Facts, PlannedStep, StepRequest, StepVerdict, Verdict};
use crate::tls::CertificateIdentity;

/// A request to try.
#[derive(Clone, Copy, Debug)]
pub struct DryRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The host of the URL, and its port if it has one.
    pub authority: &'a str,
    /// The port that the request arrives at.
    pub port: u16,
    /// The path and query of the URL.
    pub path_and_query: &'a str,
    /// Names and values of fields. A Host replaces that of the URL.
    pub fields: &'a [(&'a str, &'a str)],
    /// Subject and names of the client's certificate. Empty: the client shows none.
    pub client_cert: &'a [String],
    /// The client's address, unless fields of a trusted proxy name another. `None`: the client has none, as on a Unix
    /// socket.
    pub client_ip: Option<IpAddr>,
    /// The claims of the client's token, each with its values; `None` without a valid token. They count as valid for
    /// the rules of every route.
    pub claims: Option<&'a [(String, Vec<String>)]>,
}

/// What the plan does with a request.
#[derive(Debug)]
pub struct DryRun<'p> {
    /// The decision, with its reasons if the caller asked for them.
    pub explanation: Explanation<'p>,
    /// The names of the fields that the client may not send.
    pub dropped: Vec<String>,
    /// The verdicts of the policies, up to the first that answers.
    pub steps: Vec<StepVerdict>,
    /// What the policies do with the answer that did not run because an earlier one, or Weir itself, refuses the request.
    pub answer_edits: Vec<StepVerdict>,
    /// Whether a policy of the listener answers, so that the request has no route.
    pub is_answered_by_listener: bool,
    /// The upstream of a split route that the request asks for by a field or a cookie.
    pub asked_for: Option<UpstreamId>,
    /// The path and query that go upstream, if the path does not go as it came; or the location of a redirect.
    pub sent: Option<String>,
}

impl DryRun<'_> {
    /// The status with which a policy answers, if one does.
    #[must_use]
    pub fn policy_status(&self) -> Option<u16> {
        self.steps.last()?.verdict.status()
    }

    /// The route that takes the request.
    #[must_use]
    pub fn route(&self) -> Option<RouteId> {
        match self.explanation.decision {
            Decision::Route(id) => Some(id),
            Decision::NeedsClaims(_) | Decision::Refuse(_) | Decision::RedirectHttps => None,
        }
    }

    /// The upstreams that may get the request: one, unless the route is split and the request asks for none of its
    /// upstreams.
    #[must_use]
    pub fn upstreams(&self, plan: &Plan) -> Vec<UpstreamId> {
        let route = self.route().and_then(|id| plan.route(id));
        match route.map(|route| &route.target) {
            Some(RouteTarget::Split(split)) => match self.asked_for {
                Some(id) => vec![id],
                None => {
                    let shares = split.shares.iter().filter(|share| share.weight > 0);
                    shares.map(|share| share.upstream).collect()
                }
            },
            Some(target) => target.upstreams().collect(),
            None => Vec::new(),
        }
    }
}

impl Plan {
    /// Tries a request. With `explains`, the result says for every route why it does not take the request.
    ///
    /// # Errors
    /// The head cannot be written: an argument has a line break.
    pub fn dry_run(&self, request: &DryRequest<'_>, explains: bool) -> Result<DryRun<'_>, String> {
        let text = request.head()?;
        let block = text.as_bytes();
        let mut run = DryRun {
            explanation: Decision::from(Reason::Internal).into(),
            dropped: Vec::new(),
            steps: Vec::new(),
            answer_edits: Vec::new(),
            is_answered_by_listener: false,
            asked_for: None,
            sent: None,
        };
        let reached = self.listener_for(request.port);
        let Some((id, listener)) = reached.or_else(|| self.listener_ids().next()) else {
            return Ok(run);
        };
        let (mut head, mut server) = (Head::new(), Server::new(listener.limits));
        let received = match server.receive(block, &mut head) {
            Ok(received) if received.event == Event::Head => Ok(()),
            Ok(_) => Err(weir_proto_h1::Error::BadRequestLine),
            Err(error) => Err(error),
        };
        if let Err(error) = received {
            run.explanation = Decision::from(Reason::from_request(error)).into();
            return Ok(run);
        }
        let peer = PeerFacts {
            // If the file trusts any peer, the dry run assumes that the request comes from one.
            is_trusted: !self.trusted_proxies.is_empty() || listener.trusts_peers,
            // If every listener redirects and none has the port, a proxy before Weir serves `https`.
            is_tls: listener.tls.is_some() || reached.is_none(),
        };
        let names = |head: &Head| head.iter().map(|field| field.name).collect::<Vec<_>>();
        let before = names(&head);
        let is_grpc = is_grpc(&head, block);
        let screened = self.screen(listener, peer, (&mut head, block), is_grpc);
        let after = names(&head);
        let dropped = before.iter().filter(|name| !after.contains(name));
        run.dropped = dropped.map(|name| lossy(name.get(block))).collect();
        let client = CertificateIdentity::from_texts(request.client_cert);
        let claims = request.claims.map(claims_of).transpose()?.map(Rc::new);
        let request = RequestHead {
            head: &head,
            block,
            hop: server.request(),
            client: client.as_ref(),
            address: screened.client.or(request.client_ip),
            listener: id,
            claims: KnownClaims::Given(claims.as_ref()),
            is_https: screened.is_https,
        };
        let mut buffers = DecisionBuffers::default();
        run.explanation = match explains {
            true => self.explain(listener, &request, &mut buffers),
            false => self.decide(listener, &request, &mut buffers).into(),
        };
        let mut facts = Facts {
            client: request.address,
            trusts_peer: peer.is_trusted,
            forwarded_host: screened.host,
            is_https: screened.is_https,
            is_grpc_call: is_grpc,
            identity: client.clone().map(Rc::new),
            claims: claims.clone(),
            ..Facts::default()
        };
        self.try_steps(&mut run, &request, listener, &buffers, &mut facts);
        if let Some(RouteTarget::Split(split)) = self.target_of(&run) {
            let share = split.asked_for(&head, block);
            run.asked_for = share.map(|share| share.upstream);
        }
        let mut sent = buffers.sent;
        if !sent.is_empty() {
            if self.target_of(&run).is_some_and(RouteTarget::is_upstream) && head.has_query {
                sent.push(b'?');
                sent.extend_from_slice(head.query.get(block));
            }
            run.sent = Some(lossy(&sent));
        }
        Ok(run)
    }

    /// Asks the policies that cover a request: for their verdicts up to the first that answers, and for what the others
    /// do with its answer.
    fn try_steps(
        &self,
        run: &mut DryRun<'_>,
        request: &RequestHead<'_>,
        listener: &ListenerPlan,
        decision: &DecisionBuffers,
        facts: &mut Facts,
    ) {
        let route = run.route();
        // The route whose limit refuses the request. Its steps do not run.
        let exceeded = match &run.explanation.decision {
            Decision::Refuse(refusal) => refusal.route,
            _ => None,
        };
        let RequestHead {
            head, block, hop, ..
        } = *request;
        let plan = route.and_then(|id| self.route(id));
        let target = plan.map(|route| &route.target);
        let is_sent = target.is_some_and(RouteTarget::is_upstream);
        let view = StepRequest {
            head,
            block,
            hop,
            peer: None,
            tls: None,
            listener: request.listener,
            route,
            pattern: decision.pattern,
            path: match route {
                Some(_) => decision.matched_path(head, block),
                None => &[],
            },
            sent_path: match is_sent && !decision.sent.is_empty() {
                true => &decision.sent,
                false => head.effective_path(block),
            },
            id: RequestId(0, 0),
            given_id: b"",
            now: Instant::default(),
            wall_ms: 0,
        };
        let mut try_all = |steps: &[PlannedStep], verdicts: &mut Vec<StepVerdict>| {
            let answered = steps.iter().position(|PlannedStep { step, .. }| {
                let verdict = step.explain(&view, facts);
                let answers = verdict.status().is_some();
                let kind = step.kind();
                verdicts.push(StepVerdict { kind, verdict });
                answers
            });
            answered.map(|place| place + 1)
        };
        let of_listener = try_all(&listener.steps, &mut run.steps);
        run.is_answered_by_listener = of_listener.is_some();
        let steps = match plan.or_else(|| exceeded.and_then(|id| self.route(id))) {
            Some(route) if of_listener.is_none() => &route.steps,
            _ => &self.steps_without_route,
        };
        let left = match (of_listener, exceeded) {
            (Some(_), _) | (None, Some(_)) => Some(&steps[..]),
            (None, None) => {
                let ran = try_all(steps, &mut run.steps);
                ran.and_then(|ran| steps.get(ran..))
            }
        };
        let answered = run.steps.last();
        let answered = answered.filter(|last| last.verdict.status().is_some());
        let answered = answered.map(|last| last.kind);
        for PlannedStep { step, .. } in left.into_iter().flatten() {
            if step.edits_every_answer(answered)
                && let Some(text) = step.explain_answer(&view, facts)
            {
                let (kind, verdict) = (step.kind(), Verdict::Does(text));
                run.answer_edits.push(StepVerdict { kind, verdict });
            }
        }
    }

    fn target_of(&self, run: &DryRun<'_>) -> Option<&RouteTarget> {
        Some(&self.route(run.route()?)?.target)
    }

    fn listener_ids(&self) -> impl Iterator<Item = (ListenerId, &ListenerPlan)> {
        (0..).map(ListenerId).zip(&self.listeners)
    }

    /// The listeners of HTTP that a client reaches at a port.
    pub fn listeners_at(&self, port: u16) -> impl Iterator<Item = (ListenerId, &ListenerPlan)> {
        self.listener_ids()
            .filter(|(_, listener)| listener.is_http())
            .filter(move |(_, listener)| match &listener.address {
                Address::Ip(address) => address.port() == port,
                Address::Unix(_) => false,
            })
    }

    /// The listener that the dry run assumes: the first with the port. If no listener has the port, as behind a
    /// translation of addresses, the first that does not redirect to `https`.
    fn listener_for(&self, port: u16) -> Option<(ListenerId, &ListenerPlan)> {
        let serves = |(_, listener): &(_, &ListenerPlan)| {
            listener.is_http() && listener.redirect_https.is_none()
        };
        self.listeners_at(port)
            .next()
            .or_else(|| self.listener_ids().find(serves))
    }
}

impl DryRequest<'_> {
    /// The head as a client would send it.
    fn head(&self) -> Result<String, String> {
        let is_host = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case("host");
        let host = self.fields.iter().rfind(is_host);
        let host = host.map_or(self.authority, |(_, value)| value);
        let (method, target) = (self.method, self.target());
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        let mut lines = 2;
        for (name, value) in self.fields.iter().filter(|field| !is_host(field)) {
            let _ = write!(text, "{name}: {value}\r\n");
            lines += 1;
        }
        // A line break in an argument would begin another field or request.
        if text.matches(['\r', '\n']).count() != lines * 2 {
            return Err("a request has no line breaks in it".to_owned());
        }
        text.push_str("\r\n");
        Ok(text)
    }

    /// The target as a client would write it.
    //= rfc9112#3.2
    // CONNECT names a host and a port, and nothing else. OPTIONS without path and query is for the whole server. An
    // empty path is a slash otherwise.
    fn target(&self) -> String {
        match (self.method, self.path_and_query) {
            ("CONNECT", _) => {
                let port = format!(":{}", self.port);
                let host = self.authority.strip_suffix(&port);
                format!("{}{port}", host.unwrap_or(self.authority))
            }
            ("OPTIONS", "") => "*".to_owned(),
            (_, path) if path.starts_with('/') => path.to_owned(),
            (_, query) => format!("/{query}"),
        }
    }
}

/// The claims of a token with these values. Several values make a list.
fn claims_of(pairs: &[(String, Vec<String>)]) -> Result<Claims, String> {
    let value = |values: &[String]| match values {
        [only] => serde_json::Value::from(only.as_str()),
        several => several.iter().map(String::as_str).collect(),
    };
    let object: serde_json::Map<String, serde_json::Value> = pairs
        .iter()
        .map(|(name, values)| (name.clone(), value(values)))
        .collect();
    let text = serde_json::Value::Object(object).to_string();
    Claims::parse(text.as_bytes()).map_err(|error| format!("claims: {error}"))
}

/// The port that a URL of this scheme means if it names none.
#[must_use]
pub fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
