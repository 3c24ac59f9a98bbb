//! The decision about a request, made from its head alone.
//!
//! The data path, `weir explain` and `[[test]]` blocks all call [`Plan::decide`] and only carry out or describe what it
//! returns.

use std::net::IpAddr;

use weir_proto_h1::{BodyKind, FieldId, Head, Method, Request};

use super::paths::{PathBuffers, PathObjection};
use super::{ListenerId, ListenerPlan, Plan, RouteId, RoutePlan};
use crate::fault::Reason;
use crate::limits::VIA_HOPS_MAX;
use crate::policy::cors;
use crate::route::{ConsideredRoute, KnownClaims, RequestView, RouteLookup, ViewBuffers};
use crate::tls::CertificateIdentity;

/// The status of the redirects that `redirect_https` asks for: permanent, and the method stays (RFC 9110, section
/// 15.4.9).
pub const REDIRECT_HTTPS_STATUS: u16 = 308;

/// The Allow field of an answer to CONNECT or TRACE.
const METHODS_SERVED: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// A screened request head ([`Plan::screen`]) and the facts about the client that sent it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The head as parsed.
    pub head: &'a Head,
    /// The block that holds the head.
    pub block: &'a [u8],
    /// What the head says about this hop.
    pub hop: &'a Request,
    /// The client's certificate, if the client has shown one.
    pub client: Option<&'a CertificateIdentity>,
    /// The client's address: the peer's, or the one that a trusted proxy names.
    pub address: Option<IpAddr>,
    /// The listener that the request arrived at.
    pub listener: ListenerId,
    /// What is known of the claims of the client's token.
    pub claims: KnownClaims<'a>,
    /// Whether the client used `https`, to Weir or to a trusted proxy.
    pub is_https: bool,
}

impl<'a> RequestHead<'a> {
    /// The request as routes see it.
    #[inline]
    fn view(&self, buffers: &'a mut ViewBuffers) -> Result<RequestView<'a>, Reason> {
        let view = buffers.view(self.head, self.block);
        let view = view.map_err(Reason::from_request)?;
        Ok(RequestView {
            client: self.client,
            address: self.address,
            listener: self.listener,
            claims: self.claims,
            preflight_for: cors::preflight_method(self.head, self.block),
            ..view
        })
    }

    /// Whether the client asks for a protocol that Weir does not pass on: any but WebSocket.
    fn leaves_http(&self) -> bool {
        let is_unknown = |protocol: &[u8]| !protocol.eq_ignore_ascii_case(b"websocket");
        let protocol = self.hop.upgrade.map(|span| span.get(self.block));
        self.hop.leaves_http || protocol.is_some_and(is_unknown)
    }
}

/// What Weir does with a request whose head is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The listener redirects the client to `https`, with [`REDIRECT_HTTPS_STATUS`]. The location is in
    /// [`DecisionBuffers::sent`].
    RedirectHttps,
    /// This route takes the request.
    Route(RouteId),
    /// Whether this route takes the request depends on claims. The rules of this route must verify the client's token
    /// before the plan can decide.
    NeedsClaims(RouteId),
    /// Weir answers with an error.
    Refuse(Refusal),
}

/// An error that Weir answers a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The value of the Allow field, if the method is at fault.
    pub allow: Option<String>,
    /// The route whose limit the request exceeds.
    pub route: Option<RouteId>,
    /// The route that matches the path, and why the path is not safe with it.
    pub objection: Option<(RouteId, Box<PathObjection>)>,
}

impl Refusal {
    fn new(reason: Reason) -> Self {
        Self {
            reason,
            allow: None,
            route: None,
            objection: None,
        }
    }
}

impl From<Reason> for Decision {
    fn from(reason: Reason) -> Self {
        Self::Refuse(Refusal::new(reason))
    }
}

/// Buffers for decisions. Requests reuse them, so warm ones allocate nothing.
#[derive(Debug, Default)]
pub struct DecisionBuffers {
    /// The path that the last decision sends upstream, empty if the path goes as it came; or the location of its
    /// redirect.
    pub sent: Vec<u8>,
    /// The index of the path pattern that matches, among those of the route.
    pub pattern: usize,
    view: ViewBuffers,
    paths: PathBuffers,
}

impl DecisionBuffers {
    /// The path of the last request in the form that routes are matched against.
    #[must_use]
    pub fn matched_path<'a>(&'a self, head: &Head, block: &'a [u8]) -> &'a [u8] {
        self.view.path(head, block)
    }
}

/// A decision with its reasons.
#[derive(Debug)]
pub struct Explanation<'p> {
    /// The decision.
    pub decision: Decision,
    /// Host and path in the form that routes are matched against, if they have one.
    pub matched: Option<(Vec<u8>, Vec<u8>)>,
    /// The verdict on each route, if the decision depends on routes.
    pub considered: Vec<ConsideredRoute<'p>>,
    /// The method that routes were matched for, if a route with `cors` answers the request as a preflight.
    pub preflight_for: Option<Vec<u8>>,
}

impl From<Decision> for Explanation<'_> {
    /// A decision without its reasons.
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            matched: None,
            considered: Vec::new(),
            preflight_for: None,
        }
    }
}

impl Plan {
    /// Decides what Weir does with a request. [`DecisionBuffers::sent`] then has the decision's path or location.
    #[must_use]
    pub fn decide(
        &self,
        listener: &ListenerPlan,
        request: &RequestHead<'_>,
        buffers: &mut DecisionBuffers,
    ) -> Decision {
        let DecisionBuffers {
            sent,
            pattern: taken,
            view,
            paths,
        } = buffers;
        sent.clear();
        if let Some(port) = listener.https_port(request) {
            return redirect_https(port, request, sent);
        }
        let view = match request.view(view) {
            Ok(view) => view,
            Err(reason) => return reason.into(),
        };
        if let Some(refusal) = self.refuse_early(request) {
            return Decision::Refuse(refusal);
        }
        match self.table.find(&view) {
            RouteLookup::Route { id, pattern } => {
                *taken = pattern;
                match self.settle_path((id, pattern), &view, sent, paths) {
                    Ok(()) => self.check_size(id, request.hop),
                    Err(PathObjection::Read {
                        found: RouteLookup::NeedsClaims { id, pattern },
                        ..
                    }) => {
                        *taken = pattern;
                        Decision::NeedsClaims(id)
                    }
                    Err(objection) => Decision::Refuse(Refusal {
                        objection: Some((id, Box::new(objection))),
                        ..Refusal::new(Reason::BadPath)
                    }),
                }
            }
            RouteLookup::NeedsClaims { id, pattern } => {
                *taken = pattern;
                Decision::NeedsClaims(id)
            }
            RouteLookup::Ambiguous => Reason::BadPath.into(),
            RouteLookup::MethodNotAllowed(allow) => Decision::Refuse(Refusal {
                allow: Some(allow),
                ..Refusal::new(Reason::MethodNotAllowed)
            }),
            RouteLookup::None => Reason::NoRoute.into(),
        }
    }

    /// The routes that may take a request after [`Decision::NeedsClaims`], in order of precedence.
    #[must_use]
    pub fn claim_candidates(
        &self,
        request: &RequestHead<'_>,
        buffers: &mut DecisionBuffers,
    ) -> Vec<RouteId> {
        let view = request.view(&mut buffers.view);
        view.map_or_else(|_| Vec::new(), |view| self.table.claim_candidates(&view))
    }

    /// Decides as [`Plan::decide`] does and gives the reasons.
    #[must_use]
    pub fn explain(
        &self,
        listener: &ListenerPlan,
        request: &RequestHead<'_>,
        buffers: &mut DecisionBuffers,
    ) -> Explanation<'_> {
        let mut explanation = Explanation::from(self.decide(listener, request, buffers));
        if listener.https_port(request).is_some() {
            return explanation;
        }
        let Ok(view) = request.view(&mut buffers.view) else {
            return explanation;
        };
        explanation.matched = Some((view.host.to_vec(), view.path.to_vec()));
        if self.refuse_early(request).is_none() {
            let explained = self.table.explain(&view);
            explanation.considered = explained.considered;
            let asked = view.preflight_for.filter(|_| explained.is_preflight);
            explanation.preflight_for = asked.map(<[u8]>::to_vec);
        }
        explanation
    }

    /// Refuses a request that Weir serves under no route.
    #[inline]
    fn refuse_early(&self, request: &RequestHead<'_>) -> Option<Refusal> {
        match request.head.method {
            //= rfc9220#3
            // Weir answers an unknown protocol with 501.
            _ if request.leaves_http() => Some(Refusal::new(Reason::UnsupportedProtocol)),
            // Weir is a gateway: it offers neither tunnels (CONNECT) nor echoes (TRACE).
            Method::Connect | Method::Trace => Some(Refusal {
                allow: Some(METHODS_SERVED.to_owned()),
                ..Refusal::new(Reason::MethodNotAllowed)
            }),
            _ if self.is_loop(request) => Some(Refusal::new(Reason::Loop)),
            _ => None,
        }
    }

    /// Whether Via shows that the request has passed this Weir before, or more than [`VIA_HOPS_MAX`] proxies: proxies
    /// that do not recognise themselves would pass the request round for ever.
    fn is_loop(&self, request: &RequestHead<'_>) -> bool {
        let is_us = |hop: &[u8]| {
            // A hop is the protocol, the receiver, and perhaps a comment.
            let mut words = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words.nth(1) == Some(self.via.as_bytes())
        };
        let head = request.head;
        head.find(FieldId::Via).is_some()
            && head
                .elements(FieldId::Via, request.block)
                .enumerate()
                .any(|(before, hop)| before >= VIA_HOPS_MAX || is_us(hop))
    }

    /// Refuses a request that announces a larger body than its route sends upstream.
    fn check_size(&self, id: RouteId, hop: &Request) -> Decision {
        let is_too_large = |route: &RoutePlan| match hop.body {
            BodyKind::Length(length) if route.target.is_upstream() => {
                route.body_bytes_max.is_some_and(|max| length > max)
            }
            _ => false,
        };
        if self.route(id).is_some_and(is_too_large) {
            return Decision::Refuse(Refusal {
                route: Some(id),
                ..Refusal::new(Reason::BodyTooLarge)
            });
        }
        Decision::Route(id)
    }
}

impl ListenerPlan {
    /// The port of `https` that the listener redirects a request to; `None` if the listener serves the request.
    fn https_port(&self, request: &RequestHead<'_>) -> Option<u16> {
        self.redirect_https.filter(|_| !request.is_https)
    }
}

/// Writes the location at `https` and `port` into `sent`.
fn redirect_https(port: u16, request: &RequestHead<'_>, sent: &mut Vec<u8>) -> Decision {
    let RequestHead { head, block, .. } = request;
    let host = head.host(block);
    if host.is_empty() {
        return Reason::BadHost.into();
    }
    // As in `{host}`: certificates have no final dot.
    let host = host.strip_suffix(b".").unwrap_or(host);
    let shown = format!(":{port}");
    let port: &[u8] = if port == 443 { b"" } else { shown.as_bytes() };
    // `OPTIONS *` is about the whole server, which has no path.
    let path = head.effective_path(block);
    let path = path.strip_prefix(b"*").unwrap_or(path);
    let query = head.query.get(block);
    let mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
    for part in [&b"https://"[..], host, port, path, mark, query] {
        sent.extend_from_slice(part);
    }
    Decision::RedirectHttps
}
