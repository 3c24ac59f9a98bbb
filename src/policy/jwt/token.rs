//! A token, taken apart.

use weir_config::JwtAlgorithm as Algorithm;

use super::base64;
use super::refusal::Refusal;
use crate::limits::JWT_BYTES_MAX;
use crate::policy::Claims;
use crate::policy::json::{Json, Object};

/// A signed token (RFC 7515, section 7.1; RFC 7519), taken apart. Nothing in it has been verified.
#[derive(Debug)]
pub struct Token<'t> {
    /// What is signed: header and claims in base64url, with a dot between them.
    pub signed: &'t [u8],
    /// The signature, in base64url.
    pub signature: &'t str,
    /// The algorithm that the token claims to be signed with. The key decides whether that is right.
    pub algorithm: Algorithm,
    /// The id of the key that signed it.
    pub key_id: Option<Box<str>>,
    /// Its claims.
    pub claims: Claims,
    /// Times, in seconds since the Unix epoch.
    pub times: Times,
}

/// When a token is valid, in seconds since the Unix epoch (RFC 7519, sections 4.1.4 and 4.1.5).
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The token is not valid from here on.
    pub expires: f64,
    /// The token is not valid before.
    pub begins: Option<f64>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// The token is not in the one form that a signer would write, or lacks an expiry.
    pub fn parse(text: &'t [u8]) -> Result<Self, Refusal> {
        if text.len() > JWT_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| Refusal::Malformed)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        // Five parts are an encrypted token. Its dots are in no alphabet of base64.
        base64::decode(signature.as_bytes()).ok_or(Refusal::Malformed)?;
        let header = object(header)?;
        let (algorithm, key_id) = read_header(&header)?;
        let claims = object(claims)?;
        let times = read_claims(&claims)?;
        Ok(Self {
            signed: signed.as_bytes(),
            signature,
            algorithm,
            key_id,
            claims: Claims::new(claims),
            times,
        })
    }

    /// The issuer that the token names.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.member("iss")?.as_text()
    }

    /// Whether the token is for `audience` (RFC 7519, section 4.1.3).
    #[must_use]
    pub fn is_for(&self, audience: &str) -> bool {
        match self.claims.member("aud") {
            Some(Json::Text(only)) => **only == *audience,
            Some(Json::List(all)) => all.iter().any(|one| one.as_text() == Some(audience)),
            _ => false,
        }
    }
}

fn object(part: &str) -> Result<Object, Refusal> {
    let text = base64::decode(part.as_bytes()).ok_or(Refusal::Malformed)?;
    Object::parse(&text).map_err(|_| Refusal::Malformed)
}

/// Algorithm and key id of a header. Weir does not look at keys that a token brings along or points to: `jwk`, `jku`,
/// `x5c`, `x5u`.
//= rfc8725#3.10
fn read_header(header: &Object) -> Result<(Algorithm, Option<Box<str>>), Refusal> {
    for name in ["typ", "cty"] {
        text(header, name)?;
    }
    //= rfc7515#4.1.11
    // Weir understands no extension, and an empty list is not allowed.
    if header.get("crit").is_some() {
        return Err(Refusal::Critical);
    }
    let name = text(header, "alg")?.ok_or(Refusal::Malformed)?;
    let algorithm = Algorithm::from_name(name).ok_or(Refusal::Algorithm)?;
    Ok((algorithm, text(header, "kid")?.map(Into::into)))
}

/// The times of claims, which must have the right types (RFC 7519, section 4.1).
fn read_claims(claims: &Object) -> Result<Times, Refusal> {
    for name in ["iss", "sub", "jti"] {
        text(claims, name)?;
    }
    for name in ["aud", "scope", "scp"] {
        match claims.get(name) {
            None | Some(Json::Text(_)) => {}
            Some(Json::List(list)) if list.iter().all(|member| member.as_text().is_some()) => {}
            Some(_) => return Err(Refusal::WrongType),
        }
    }
    number(claims, "iat")?;
    let begins = number(claims, "nbf")?;
    let expires = number(claims, "exp")?.ok_or(Refusal::NoExpiry)?;
    Ok(Times { expires, begins })
}

fn text<'o>(object: &'o Object, name: &str) -> Result<Option<&'o str>, Refusal> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => value.as_text().map(Some).ok_or(Refusal::WrongType),
    }
}

fn number(object: &Object, name: &str) -> Result<Option<f64>, Refusal> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => value.as_number().map(Some).ok_or(Refusal::WrongType),
    }
}
