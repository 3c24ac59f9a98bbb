//! The predicates of a route: what it requires of a request besides host and path.

use std::fmt;
use std::net::IpAddr;

use weir_config::{Cidr, FieldMatch, Match, ValueMatch};
use weir_proto_h1::{FieldId, Method};

use super::RequestView;
use crate::ids::{JwtId, ListenerId};
use crate::policy::form::parameters;
use crate::policy::jwt::Requirement;
use crate::tls::CertificateIdentity;

/// The predicates of one route. All must hold.
#[derive(Clone, Debug)]
pub(super) struct Predicates {
    /// The methods.
    methods: AllowedMethods,
    /// Conditions on header fields.
    headers: Box<[FieldMatch]>,
    /// Conditions on query parameters.
    query: Box<[FieldMatch]>,
    /// Conditions on cookies.
    cookies: Box<[FieldMatch]>,
    /// The condition on the client's certificate.
    client: Option<ValueMatch>,
    /// The listeners. Empty allows every listener.
    listeners: Box<[ListenerId]>,
    /// The networks of clients. Empty allows every client.
    sources: Box<[Cidr]>,
    /// Conditions on the claims of the client's token.
    claims: Option<Box<ClaimPredicates>>,
}

/// What a route requires of the claims of a token that its rules accept.
#[derive(Clone, Debug)]
struct ClaimPredicates {
    /// The rules; `None` for a route without any, which the file cannot have.
    jwt: Option<JwtId>,
    requirements: Box<[Requirement]>,
}

/// The methods that a route allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedMethods {
    /// One bit for each common method among `names`.
    common: u16,
    /// All methods as in the file. Empty allows every method.
    names: Box<[Box<str>]>,
}

/// The first predicate of a route that fails. `Display` says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedPredicate<'t> {
    /// The method is not one of these.
    Method(&'t AllowedMethods),
    /// A header field does not meet this condition.
    Header(&'t FieldMatch),
    /// A query parameter does not meet this condition.
    Query(&'t FieldMatch),
    /// Whether this query parameter meets its condition depends on whether `;` separates parameters. No route takes the
    /// request.
    Separator(&'t FieldMatch),
    /// A cookie does not meet this condition.
    Cookie(&'t FieldMatch),
    /// The client's certificate does not meet this condition.
    Client(&'t ValueMatch),
    /// The request arrived at another listener.
    Listener,
    /// The client's address is in none of these networks, or the client has none.
    Source(&'t [Cidr], Option<IpAddr>),
    /// The client has no valid token.
    NoClaims,
    /// The claims of the client's token do not meet this condition.
    Claim(&'t Requirement),
    /// The claims are not known yet.
    UnknownClaims,
}

impl Predicates {
    /// The predicates of a match; `None` if it has none.
    pub(super) fn compile(spec: &Match, jwt: Option<JwtId>) -> Option<Box<Self>> {
        let Match {
            hosts: _,
            paths: _,
            methods,
            headers,
            query,
            cookies,
            client_cert,
            listeners,
            sources,
            claims,
        } = spec;
        let has_fields = !headers.is_empty() || !query.is_empty() || !cookies.is_empty();
        let has_client = client_cert.is_some()
            || !listeners.is_empty()
            || !sources.is_empty()
            || !claims.is_empty();
        if methods.is_empty() && !has_fields && !has_client {
            return None;
        }
        let listener = |index: &usize| ListenerId(u32::try_from(*index).unwrap_or(u32::MAX));
        let bit = |name: &String| bit(Method::from_token(name.as_bytes()));
        Some(Box::new(Self {
            methods: AllowedMethods {
                common: methods.iter().map(bit).fold(0, |all, bit| all | bit),
                names: methods.iter().map(|name| name.as_str().into()).collect(),
            },
            headers: headers.as_slice().into(),
            query: query.as_slice().into(),
            cookies: cookies.as_slice().into(),
            client: client_cert.clone(),
            listeners: listeners.iter().map(listener).collect(),
            sources: sources.as_slice().into(),
            claims: (!claims.is_empty()).then(|| {
                Box::new(ClaimPredicates {
                    jwt,
                    requirements: Requirement::all_of(claims),
                })
            }),
        }))
    }

    /// Checks the method, then what the client cannot choose freely, then fields, query and cookies.
    pub(super) fn check(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        if !self.methods.allow(view.method) {
            return Err(FailedPredicate::Method(&self.methods));
        }
        self.check_others(view)
    }

    /// Checks all predicates but the method.
    fn check_others(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        self.check_head(view)?;
        match &self.claims {
            Some(claims) => claims.check(view),
            None => Ok(()),
        }
    }

    /// Checks all predicates but those on the method and on claims. For a wrong method, Weir verifies no token.
    pub(super) fn check_head(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        self.check_place(view)?;
        if let Some(spec) = &self.client
            && !holds(spec, texts(view.client))
        {
            return Err(FailedPredicate::Client(spec));
        }
        let header = |spec: &&FieldMatch| !holds(&spec.value, header_values(&spec.name, view));
        if let Some(spec) = self.headers.iter().find(header) {
            return Err(FailedPredicate::Header(spec));
        }
        self.check_query(view)?;
        let cookie = |spec: &&FieldMatch| !holds(&spec.value, cookies(&spec.name, view));
        match self.cookies.iter().find(cookie) {
            Some(spec) => Err(FailedPredicate::Cookie(spec)),
            None => Ok(()),
        }
    }

    /// Checks the predicates that a preflight already shows of the request that it announces.
    pub(super) fn check_announced(
        &self,
        view: &RequestView<'_>,
    ) -> Result<(), FailedPredicate<'_>> {
        if !self.methods.allow(view.method) {
            return Err(FailedPredicate::Method(&self.methods));
        }
        self.check_place(view)?;
        self.check_query(view)
    }

    /// Whether some predicate is about fields, cookies or credentials, which a preflight does not show.
    pub(super) fn may_fail_unannounced(&self) -> bool {
        !self.headers.is_empty()
            || !self.cookies.is_empty()
            || self.client.is_some()
            || self.claims.is_some()
    }

    /// Checks listener and client address.
    fn check_place(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        if !self.listeners.is_empty() && !self.listeners.contains(&view.listener) {
            return Err(FailedPredicate::Listener);
        }
        let is_in = |client: IpAddr| self.sources.iter().any(|network| network.contains(client));
        if !self.sources.is_empty() && !view.address.is_some_and(is_in) {
            return Err(FailedPredicate::Source(&self.sources, view.address));
        }
        Ok(())
    }

    fn check_query(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        for spec in &self.query {
            let is_met = holds(&spec.value, parameters(&spec.name, view.query, b"&"));
            // HTML 4 recommended `;` as a separator and some programs still accept it, so endpoints disagree.
            if view.query.contains(&b';')
                && is_met != holds(&spec.value, parameters(&spec.name, view.query, b"&;"))
            {
                return Err(FailedPredicate::Separator(spec));
            }
            if !is_met {
                return Err(FailedPredicate::Query(spec));
            }
        }
        Ok(())
    }

    /// The allowed methods. None means all.
    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.names.iter().map(|name| &**name)
    }
}

impl ClaimPredicates {
    fn check(&self, view: &RequestView<'_>) -> Result<(), FailedPredicate<'_>> {
        let claims = self.jwt.map_or(Some(None), |jwt| view.claims.by(jwt));
        let claims = claims.ok_or(FailedPredicate::UnknownClaims)?;
        let claims = claims.ok_or(FailedPredicate::NoClaims)?;
        let mut unmet = self.requirements.iter();
        match unmet.find(|requirement| !requirement.is_met(claims)) {
            Some(requirement) => Err(FailedPredicate::Claim(requirement)),
            None => Ok(()),
        }
    }
}

impl AllowedMethods {
    fn allow(&self, method: &[u8]) -> bool {
        match Method::from_token(method) {
            _ if self.names.is_empty() => true,
            Method::Other => self.names.iter().any(|name| name.as_bytes() == method),
            common => self.common & bit(common) != 0,
        }
    }
}

/// The bit of a common method; 0 for others.
fn bit(method: Method) -> u16 {
    match method {
        Method::Other => 0,
        common => 1 << common as u8,
    }
}

/// The values of every field line with this name as the client sent them. Hop-by-hop fields count too, so that a route
/// can match `upgrade = "websocket"`.
fn header_values<'a>(
    name: &'a str,
    view: &RequestView<'a>,
) -> impl Iterator<Item = impl Iterator<Item = u8> + 'a> {
    let id = FieldId::from_name(name.as_bytes());
    let values = view.head.sent_values(id, name.as_bytes(), view.block);
    values.map(|value| value.iter().copied())
}

/// The values of every cookie of this name.
fn cookies<'a>(
    name: &'a str,
    view: &RequestView<'a>,
) -> impl Iterator<Item = impl Iterator<Item = u8> + 'a> {
    let values = view.head.cookies(name.as_bytes(), view.block);
    values.map(|value| value.iter().copied())
}

/// The subject and the names of a certificate.
fn texts(client: Option<&CertificateIdentity>) -> impl Iterator<Item = impl Iterator<Item = u8>> {
    let texts = client.into_iter();
    let texts = texts.flat_map(|client| std::iter::once(&client.subject).chain(&client.names));
    texts.map(|text| text.bytes())
}

/// Whether one of the values, or their absence, meets the condition.
fn holds<V: Iterator<Item = u8>>(spec: &ValueMatch, mut values: impl Iterator<Item = V>) -> bool {
    match spec {
        ValueMatch::Present => values.next().is_some(),
        ValueMatch::Absent => values.next().is_none(),
        ValueMatch::Exact(wanted) => values.any(|value| value.eq(wanted.bytes())),
        ValueMatch::Prefix(wanted) => {
            values.any(|mut value| wanted.bytes().all(|byte| value.next() == Some(byte)))
        }
    }
}

impl fmt::Display for FailedPredicate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(methods) => write!(f, "method is not {}", methods.names.join(" or ")),
            Self::Header(spec) => write_spec(f, "header", spec),
            Self::Query(spec) => write_spec(f, "query parameter", spec),
            Self::Separator(spec) => write!(
                f,
                "query parameter `{}` depends on whether `;` separates parameters",
                spec.name
            ),
            Self::Cookie(spec) => write_spec(f, "cookie", spec),
            Self::Client(spec) => write_value(f, "the client's certificate", spec),
            Self::Listener => f.write_str("the request arrives at another listener"),
            Self::Source(networks, client) => write_source(f, networks, *client),
            Self::NoClaims => f.write_str("the client has no valid token"),
            Self::Claim(requirement) => write!(f, "the client's token lacks {requirement}"),
            Self::UnknownClaims => f.write_str("the client's token is not verified yet"),
        }
    }
}

/// Names the first networks.
fn write_source(
    f: &mut fmt::Formatter<'_>,
    networks: &[Cidr],
    client: Option<IpAddr>,
) -> fmt::Result {
    const SHOWN_MAX: usize = 3;
    match client {
        Some(client) => write!(f, "the client {client} is not in ")?,
        None => f.write_str("the client has no address, and must be in ")?,
    }
    let shown = networks.iter().take(SHOWN_MAX);
    let shown: Vec<String> = shown.map(Cidr::to_string).collect();
    f.write_str(&shown.join(" or "))?;
    match networks.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, " or {more} more"),
    }
}

fn write_spec(f: &mut fmt::Formatter<'_>, kind: &str, spec: &FieldMatch) -> fmt::Result {
    write_value(f, &format!("{kind} `{}`", spec.name), &spec.value)
}

fn write_value(f: &mut fmt::Formatter<'_>, what: &str, value: &ValueMatch) -> fmt::Result {
    match value {
        ValueMatch::Present => write!(f, "{what} is missing"),
        ValueMatch::Absent => write!(f, "{what} is present"),
        ValueMatch::Exact(value) => write!(f, "{what} is not {value:?}"),
        ValueMatch::Prefix(value) => write!(f, "{what} does not begin with {value:?}"),
    }
}
