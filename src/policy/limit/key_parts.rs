//! What a limit counts by, read from a request.

use std::fmt::Write as _;

use weir_config::{LimitKey, Match};
use weir_proto_h1::FieldId;

use super::digest::{Digest, DigestSecret};
use super::table::Key;
use crate::policy::form::parameters;
use crate::policy::variables::place_of;
use crate::policy::{Facts, StepRequest};

/// The parts of a key, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeyParts(Box<[KeyPart]>);

#[derive(Clone, Debug, PartialEq)]
enum KeyPart {
    Client,
    Header(FieldId, Box<str>),
    Cookie(Box<str>),
    Query(Box<str>),
    /// The place of the segment, by path pattern of the route.
    Param(Box<str>, Box<[Option<usize>]>),
    Claim(Box<str>),
    Host,
    /// The name of the route.
    Route(Box<str>),
    Global,
}

/// The place at which limits are compiled.
#[derive(Clone, Copy)]
pub(super) struct KeyPlace<'a> {
    /// The match of the route; `None` for a listener.
    pub(super) matches: Option<&'a Match>,
    /// The name of the route; empty for a listener.
    pub(super) route: &'a str,
}

impl KeyParts {
    /// Whether the key depends on the route that takes the request.
    pub(super) fn depends_on_route(&self) -> bool {
        let depends = |part: &KeyPart| matches!(part, KeyPart::Param(..) | KeyPart::Route(_));
        self.0.iter().any(depends)
    }

    pub(super) fn compile(per: &[LimitKey], place: KeyPlace<'_>) -> Self {
        Self(per.iter().map(|key| KeyPart::compile(key, place)).collect())
    }

    /// Whether a part of the key is a claim, which is known only when the token is verified.
    pub(super) fn needs_claims(&self) -> bool {
        self.0.iter().any(|part| matches!(part, KeyPart::Claim(_)))
    }

    /// The key of a request in the limit of this number. In place of a part that the request does not have, or has
    /// several times, it has the client's address.
    pub(super) fn read(
        &self,
        secret: &DigestSecret,
        limit: u64,
        request: &StepRequest<'_>,
        facts: &Facts,
    ) -> Key {
        let mut digest = secret.begin(limit);
        for part in &self.0 {
            if !part.add_to(&mut digest, request, facts) {
                digest.client(facts.client);
            }
        }
        digest.finish()
    }

    /// What the request has for the key, in words.
    pub(super) fn describe(&self, request: &StepRequest<'_>, facts: &Facts) -> String {
        let mut text = String::new();
        for part in &self.0 {
            if !text.is_empty() {
                text.push_str(" + ");
            }
            part.describe(&mut text, request, facts);
        }
        text
    }
}

impl KeyPart {
    fn compile(key: &LimitKey, place: KeyPlace<'_>) -> Self {
        match key {
            LimitKey::Ip => Self::Client,
            LimitKey::Header(name) => {
                Self::Header(FieldId::from_name(name.as_bytes()), name.as_str().into())
            }
            LimitKey::Cookie(name) => Self::Cookie(name.as_str().into()),
            LimitKey::Query(name) => Self::Query(name.as_str().into()),
            LimitKey::Param(name) => {
                let paths = place.matches.map_or(&[][..], |matches| &matches.paths);
                let places = paths.iter().map(|path| place_of(name, path));
                Self::Param(name.as_str().into(), places.collect())
            }
            LimitKey::Claim(name) => Self::Claim(name.as_str().into()),
            LimitKey::Host => Self::Host,
            LimitKey::Route => Self::Route(place.route.into()),
            LimitKey::Global => Self::Global,
        }
    }

    /// Adds what the request has for this part. Returns whether it has anything.
    fn add_to(&self, digest: &mut Digest, request: &StepRequest<'_>, facts: &Facts) -> bool {
        let (head, block) = (request.head, request.block);
        match self {
            Self::Client => return false,
            Self::Header(id, name) => match only(head.sent_values(*id, name.as_bytes(), block)) {
                Some(value) => digest.text(value.iter().copied()),
                None => return false,
            },
            Self::Cookie(name) => match only(head.cookies(name.as_bytes(), block)).map(unquoted) {
                Some(value) => digest.text(value.iter().copied()),
                None => return false,
            },
            Self::Query(name) => match parameter(name, head.query.get(block)) {
                Some(value) => digest.text(value),
                None => return false,
            },
            Self::Param(_, places) => match segment(places, request) {
                Some(segment) => digest.text(segment.iter().copied()),
                None => return false,
            },
            Self::Claim(name) => {
                let claims = facts.claims.as_deref();
                match claims.and_then(|claims| claims.text(name)) {
                    Some(value) => digest.text(value.bytes()),
                    None => return false,
                }
            }
            Self::Host => digest.text(host(request)),
            Self::Route(name) => digest.text(name.bytes()),
            Self::Global => {}
        }
        true
    }

    fn describe(&self, out: &mut String, request: &StepRequest<'_>, facts: &Facts) {
        let client = match facts.client {
            Some(client) => client.to_string(),
            None => "a client without an address".to_owned(),
        };
        let (head, block) = (request.head, request.block);
        let (name, value) = match self {
            Self::Client => {
                out.push_str(&client);
                return;
            }
            Self::Header(id, name) => (
                format!("header {name}"),
                only(head.sent_values(*id, name.as_bytes(), block)).map(<[u8]>::to_vec),
            ),
            Self::Cookie(name) => {
                let value = only(head.cookies(name.as_bytes(), block)).map(unquoted);
                (format!("cookie {name}"), value.map(<[u8]>::to_vec))
            }
            Self::Query(name) => {
                let value = parameter(name, head.query.get(block));
                (format!("query {name}"), value.map(Iterator::collect))
            }
            Self::Param(name, places) => (
                format!("param {name}"),
                segment(places, request).map(<[u8]>::to_vec),
            ),
            Self::Claim(name) => {
                let claims = facts.claims.as_deref();
                let value = claims.and_then(|claims| claims.text(name));
                (
                    format!("claim {name}"),
                    value.map(|text| text.as_bytes().to_vec()),
                )
            }
            Self::Host => ("host".to_owned(), Some(host(request).collect())),
            Self::Route(name) => ("route".to_owned(), Some(name.as_bytes().to_vec())),
            Self::Global => {
                out.push_str("all requests");
                return;
            }
        };
        let _ = match value {
            Some(value) => write!(out, "{name} {:?}", String::from_utf8_lossy(&value)),
            None => write!(out, "{client}, without {name}"),
        };
    }
}

/// The segment of the path at the place that the matching pattern gives it.
fn segment<'a>(places: &[Option<usize>], request: &StepRequest<'a>) -> Option<&'a [u8]> {
    let place = (*places.get(request.pattern)?)?;
    let segments = request.path.split(|byte| *byte == b'/');
    segments.filter(|segment| !segment.is_empty()).nth(place)
}

/// The only value. Of several, an endpoint could take another one than Weir, so that a client with a second, ever new
/// one would be counted by that.
fn only<T>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The value of a cookie without the quotes around it, which endpoints may take off: another spelling of a value is no
/// other key.
//= rfc6265#4.1.1
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    }
}

/// The host in lower case. A dot at its end only marks the name as complete.
fn host<'a>(request: &StepRequest<'a>) -> impl Iterator<Item = u8> + use<'a> {
    let host = request.head.host(request.block);
    let host = host.strip_suffix(b".").unwrap_or(host);
    host.iter().map(u8::to_ascii_lowercase)
}

/// The value of the only query parameter of a name, decoded as HTML forms encode it, so that another spelling of a
/// value is no other key.
fn parameter<'a>(name: &'a str, query: &'a [u8]) -> Option<impl Iterator<Item = u8> + use<'a>> {
    only(parameters(name, query, b"&"))
}
