//! The step: finds the token of a request, and verifies it unless this core has done so before.

use std::rc::Rc;

use weir_config::{Jwt, OnMissing, TokenPlace};
use weir_proto_h1::{Edits, FieldId};

use super::cache::CachedToken;
use super::challenge::challenge;
use super::place::{Found, Place};
use super::refusal::Refusal;
use super::rules::{Audience, Requirement, TokenRules, Tried};
use super::state::JwtState;
use super::token::Token;
use crate::fault::Reason;
use crate::policy::{Claims, Facts, Flow, StepReply, StepRequest, Verdict, Wait};

/// The tokens that requests of a route must carry.
#[derive(Debug)]
pub struct JwtStep {
    issuers: Box<[Issuer]>,
    /// Where tokens may stand, each place once.
    places: Box<[Place]>,
    passes_without: bool,
}

/// Tokens of one issuer.
#[derive(Debug)]
struct Issuer {
    rules: TokenRules,
    /// The index of the place where they stand.
    place: usize,
    /// Claims and the fields that endpoints get them in.
    fields: Box<[(Box<str>, Box<str>)]>,
    forward: bool,
    /// What messages call the source of its keys.
    keys_name: Box<str>,
}

/// A token of a request, and the index of its place.
type Placed<'a> = (&'a [u8], usize);

impl JwtStep {
    /// The step for what a file says.
    #[must_use]
    pub fn new(jwt: &Jwt) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let issuers = jwt.issuers.iter().map(|issuer| {
            let place = Place::new(&issuer.place);
            let known = places.iter().position(|known| *known == place);
            let place = known.unwrap_or_else(|| {
                places.push(place);
                places.len() - 1
            });
            let fields = issuer.claims_to_headers.iter();
            Issuer {
                rules: TokenRules::new(issuer),
                place,
                fields: fields
                    .map(|(claim, field)| (claim.as_str().into(), field.as_str().into()))
                    .collect(),
                forward: issuer.forward,
                keys_name: super::KeySource::new(issuer).to_string().into(),
            }
        });
        let issuers = issuers.collect();
        Self {
            issuers,
            places: places.into(),
            passes_without: jwt.on_missing == OnMissing::Pass,
        }
    }

    /// Lets the request pass if this core knows its token, or waits for a turn to verify it.
    pub fn run(
        &self,
        state: Option<&JwtState>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
    ) -> Flow {
        let token = match self.find(request) {
            Ok(Some(token)) => token,
            Ok(None) if self.passes_without => return Flow::Next,
            Ok(None) => return self.refuse(Refusal::Missing, None),
            Err(refusal) => return self.refuse(refusal, None),
        };
        match state.and_then(|state| self.recall(state, token, request.wall_ms, facts)) {
            Some(flow) => flow,
            // Parsing takes long too, so it waits as well.
            None => Flow::Wait(Wait::Turn),
        }
    }

    /// Verifies the token with one key.
    pub fn resume(
        &self,
        state: Option<&JwtState>,
        request: &StepRequest<'_>,
        facts: &mut Facts,
    ) -> Flow {
        let (Some(state), Ok(Some(token))) = (state, self.find(request)) else {
            return self.refuse(Refusal::NoKeys, None);
        };
        // A request that waited before this one may have had the same token.
        if let Some(flow) = self.recall(state, token, request.wall_ms, facts) {
            return flow;
        }
        let parsed = match Token::parse(token.0) {
            Ok(parsed) => parsed,
            Err(refusal) => return self.refuse(refusal, None),
        };
        let Some((index, issuer)) = self.issuer_of(&parsed, token.1) else {
            return self.refuse(Refusal::Issuer, None);
        };
        if let Err(refusal) = issuer.rules.check(&parsed, request.wall_ms) {
            return self.refuse(refusal, Some(issuer));
        }
        let Some(reader) = state.readers.get(index) else {
            return self.refuse(Refusal::NoKeys, Some(issuer));
        };
        let tries = facts.notes.as_ref().map_or(0, |notes| notes.token_tries);
        let (tried, keys_version) = reader.with(|keys, version| match keys {
            Some(keys) => (issuer.rules.verify(parsed, keys, tries), version),
            None => (Tried::Refused(Refusal::NoKeys), version),
        });
        let verified = match tried {
            Tried::Valid(verified) => verified,
            Tried::WrongKey => {
                facts.notes.get_or_insert_default().token_tries = tries + 1;
                return Flow::Wait(Wait::Turn);
            }
            Tried::Refused(refusal) => {
                if refusal == Refusal::UnknownKey {
                    reader.board().want();
                }
                return self.refuse(refusal, Some(issuer));
            }
        };
        let cached = CachedToken {
            claims: Rc::new(verified.claims),
            issuer: index as u32,
            keys_version,
            expires_ms: verified.expires_ms,
            is_sufficient: verified.is_sufficient,
        };
        let flow = self.accept(&cached, facts);
        state.cache.borrow_mut().insert(token.0, cached);
        flow
    }

    /// Whether the field carries a claim.
    pub fn sets_field(&self, name: &[u8]) -> bool {
        let mut fields = self.issuers.iter().flat_map(|issuer| &issuer.fields);
        fields.any(|(_, field)| field.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether the step changes any request: endpoints get no token, or claims in fields.
    pub fn edits_requests(&self) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| !issuer.forward || !issuer.fields.is_empty())
    }

    /// Takes fields that carry claims off the request, and the token too; adds the fields of its claims.
    pub fn edit_request(&self, request: &StepRequest<'_>, facts: &Facts, edits: &mut Edits) {
        for (_, field) in self.issuers.iter().flat_map(|issuer| &issuer.fields) {
            edits.remove(field.as_bytes());
        }
        let Some(claims) = &facts.claims else {
            return;
        };
        let Some(issuer) = self.issuers.get(facts.token_issuer as usize) else {
            return;
        };
        if !issuer.forward {
            match self.places.get(issuer.place) {
                Some(Place::Authorization) => edits.remove("authorization"),
                Some(Place::Header(name)) => edits.remove(name.as_bytes()),
                Some(Place::Cookie(name)) => remove_cookie(name, request, edits),
                Some(Place::Query(_)) | None => {}
            }
        }
        for (claim, field) in &issuer.fields {
            if let Some(value) = claims.field(claim) {
                let pieces = value.pieces();
                edits.append_with(field, |out| {
                    pieces.for_each(|piece| out.put(piece.as_bytes()))
                });
            }
        }
    }

    /// What the step would do, without keys. Claims that the caller gives count as those of a valid token.
    pub fn explain(&self, request: &StepRequest<'_>, facts: &mut Facts) -> Verdict {
        if let Some(claims) = facts.claims.clone() {
            return self.judge(&claims, facts);
        }
        let refuses = |refusal: Refusal| {
            let why = refusal
                .challenge()
                .map_or("the request has no token", |(_, why)| why);
            Verdict::Refuses(refusal.reason(), why.to_owned())
        };
        let token = match self.find(request) {
            Ok(Some(token)) => token,
            Ok(None) if self.passes_without => {
                return Verdict::Passes("the request has no token".to_owned());
            }
            Ok(None) => return refuses(Refusal::Missing),
            Err(refusal) => return refuses(refusal),
        };
        let parsed = match Token::parse(token.0) {
            Ok(parsed) => parsed,
            Err(refusal) => return refuses(refusal),
        };
        let Some((_, issuer)) = self.issuer_of(&parsed, token.1) else {
            return refuses(Refusal::Issuer);
        };
        if !issuer.rules.is_for_us(&parsed) {
            return refuses(Refusal::Audience);
        }
        Verdict::WouldCheck(format!("the token, with the keys of {}", issuer.keys_name))
    }

    /// The verdict on claims that the caller gives.
    fn judge(&self, claims: &Claims, facts: &mut Facts) -> Verdict {
        let iss = claims.text("iss");
        let is_of = |issuer: &&Issuer| {
            issuer.rules.issuer.is_none() || issuer.rules.issuer.as_deref() == iss
        };
        let only = self
            .issuers
            .first()
            .filter(|_| iss.is_none() && self.issuers.len() == 1);
        let Some(issuer) = only.or_else(|| self.issuers.iter().find(is_of)) else {
            return Verdict::Refuses(Reason::TokenInvalid, "the issuer is not trusted".to_owned());
        };
        let place = self
            .issuers
            .iter()
            .position(|known| std::ptr::eq(known, issuer));
        facts.token_issuer = place.unwrap_or_default() as u32;
        let is_met = |one: &&Requirement| !one.is_met(claims);
        match issuer.rules.require.iter().find(is_met) {
            Some(missing) => Verdict::Refuses(
                Reason::InsufficientScope,
                format!("the claims lack {missing}"),
            ),
            None => Verdict::Passes("with the claims given".to_owned()),
        }
    }

    /// The token of a request, if there is one.
    #[inline]
    fn find<'a>(&self, request: &StepRequest<'a>) -> Result<Option<Placed<'a>>, Refusal> {
        let mut token = None;
        for (index, place) in self.places.iter().enumerate() {
            match place.find(request.head, request.block) {
                Found::Nothing => {}
                Found::Token(found) if token.is_none() => token = Some((found, index)),
                //= rfc6750#2
                // A client uses one method for one request.
                Found::Token(_) | Found::Several => return Err(Refusal::Several),
            }
        }
        Ok(token)
    }

    /// The issuer that a token names, among those whose tokens stand in this place.
    fn issuer_of(&self, token: &Token<'_>, place: usize) -> Option<(usize, &Issuer)> {
        let name = token.issuer();
        let mut issuers = self.issuers.iter().enumerate();
        issuers.find(|(_, issuer)| {
            let is_named = issuer.rules.issuer.is_none() || issuer.rules.issuer.as_deref() == name;
            issuer.place == place && is_named
        })
    }

    /// What follows from a token that this core has verified before; `None` if it has not, or if the token has expired
    /// or its issuer's keys have changed since.
    #[inline]
    fn recall(
        &self,
        state: &JwtState,
        (token, place): Placed<'_>,
        wall_ms: u64,
        facts: &mut Facts,
    ) -> Option<Flow> {
        let mut cache = state.cache.borrow_mut();
        let known = cache.find(token)?;
        let index = known.issuer as usize;
        let is_current = wall_ms < known.expires_ms
            && state
                .readers
                .get(index)
                .is_some_and(|reader| reader.version() == known.keys_version)
            && self
                .issuers
                .get(index)
                .is_some_and(|issuer| issuer.place == place);
        if !is_current {
            cache.remove(token);
            return None;
        }
        Some(self.accept(known, facts))
    }

    /// Takes over the claims of a valid token, and refuses it if they do not suffice.
    #[inline]
    fn accept(&self, token: &CachedToken, facts: &mut Facts) -> Flow {
        if !token.is_sufficient {
            return self.refuse(
                Refusal::Insufficient,
                self.issuers.get(token.issuer as usize),
            );
        }
        facts.claims = Some(token.claims.clone());
        facts.token_issuer = token.issuer;
        Flow::Next
    }

    #[cold]
    fn refuse(&self, refusal: Refusal, issuer: Option<&Issuer>) -> Flow {
        let mut reply = StepReply::problem(refusal.reason());
        let scopes = issuer
            .map(|issuer| issuer.rules.scopes())
            .unwrap_or_default();
        if let Some(challenge) = challenge(refusal, &scopes) {
            reply = reply.with_field("WWW-Authenticate", challenge);
        }
        Flow::Reply(Box::new(reply))
    }
}

impl Place {
    fn new(place: &TokenPlace) -> Self {
        match place {
            TokenPlace::Header(name) if name == "authorization" => Self::Authorization,
            TokenPlace::Header(name) => Self::Header(name.as_str().into()),
            TokenPlace::Cookie(name) => Self::Cookie(name.as_str().into()),
            TokenPlace::Query(name) => Self::Query(name.as_str().into()),
        }
    }
}

impl TokenRules {
    fn new(issuer: &weir_config::JwtIssuer) -> Self {
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Self {
            issuer: issuer.issuer.as_deref().map(Into::into),
            audience: match &issuer.audience[..] {
                [] => Audience::Any,
                names => Audience::OneOf(boxed(names)),
            },
            leeway_s: issuer.leeway.as_secs_f64(),
            require: Requirement::all_of(&issuer.require),
        }
    }
}

/// Leaves a cookie out of the request, and keeps the others.
fn remove_cookie(name: &str, request: &StepRequest<'_>, edits: &mut Edits) {
    let fields = request
        .head
        .all(FieldId::Cookie)
        .map(|field| field.value.get(request.block));
    let pairs = fields
        .flat_map(|value| value.split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii);
    let is_other = |pair: &&[u8]| {
        let end = pair
            .iter()
            .position(|&byte| byte == b'=')
            .unwrap_or(pair.len());
        let key = pair.get(..end).unwrap_or_default();
        !pair.is_empty() && key.trim_ascii() != name.as_bytes()
    };
    edits.remove("cookie");
    edits.append_unless_empty("cookie", |out| {
        for (index, pair) in pairs.filter(is_other).enumerate() {
            if index > 0 {
                out.put(b"; ");
            }
            out.put(pair);
        }
    });
}
