//! The keys of an issuer.

use weir_config::JwtAlgorithm as Algorithm;

use super::key::{Key, KeyOrigin};
use super::token::Token;
use crate::limits::JWT_KEYS_MAX;
use crate::policy::json::{Json, Object};

/// The keys of an issuer, in the order of the issuer's list.
#[derive(Debug, Default, PartialEq)]
pub struct KeySet(Box<[Key]>);

/// A key set that was read, and what was left out of it.
#[derive(Debug)]
pub struct ReadKeySet {
    /// The keys that can be used.
    pub keys: KeySet,
    /// For each key that was left out: its id or place, and why.
    pub left_out: Vec<String>,
}

impl KeySet {
    /// A set with one key.
    #[must_use]
    pub fn of(key: Key) -> Self {
        Self([key].into())
    }

    /// Reads a JWK Set (RFC 7517, section 5). Keys that Weir cannot use are left out, so that an issuer may begin with
    /// a new type of key.
    ///
    /// # Errors
    /// The text is not a JWK Set, has more than [`JWT_KEYS_MAX`] keys, or has none that can be used.
    pub fn parse(
        text: &[u8],
        allowed: &[Algorithm],
        origin: KeyOrigin,
    ) -> Result<ReadKeySet, String> {
        let set = Object::parse(text).map_err(|error| format!("it is not a key set: {error}"))?;
        let list = set.get("keys").and_then(Json::as_list);
        let list = list.ok_or("it is not a key set: it has no list `keys`")?;
        if list.len() > JWT_KEYS_MAX {
            return Err(format!(
                "it has {} keys, and Weir takes at most {JWT_KEYS_MAX}",
                list.len()
            ));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(list.len());
        let mut left_out = Vec::new();
        for (index, jwk) in list.iter().enumerate() {
            let read = jwk
                .as_object()
                .ok_or_else(|| "it is not an object".to_owned());
            match read.and_then(|jwk| Key::from_jwk(jwk, allowed, origin)) {
                Ok(None) => {}
                //= rfc7517#4.5
                // Keys with the same id differ in their type. Otherwise the token could not say which one it means.
                Ok(Some(key)) if keys.iter().any(|known| is_ambiguous(known, &key)) => {
                    left_out.push(format!("{}: another key has the same id", name(jwk, index)));
                }
                Ok(Some(key)) => keys.push(key),
                Err(why) => left_out.push(format!("{}: {why}", name(jwk, index))),
            }
        }
        if keys.is_empty() {
            return Err(match left_out.first() {
                Some(first) => format!("it has no usable key; {first}"),
                None => "it has no key for signatures".to_owned(),
            });
        }
        let keys = Self(keys.into());
        Ok(ReadKeySet { keys, left_out })
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The keys that may have signed `token`: the one that it names, or else those without an id; all if it names none.
    /// Only keys that are for its algorithm.
    pub fn candidates(&self, token: &Token<'_>) -> impl Iterator<Item = &Key> {
        let wanted = token.key_id.as_deref();
        let is_named = |key: &&Key| wanted.is_some() && key.id() == wanted;
        let named = self.0.iter().find(is_named).and(wanted);
        let algorithm = token.algorithm;
        self.0.iter().filter(move |key| {
            let fits = match (wanted, named) {
                (None, _) => true,
                (Some(_), Some(named)) => key.id() == Some(named),
                (Some(_), None) => key.id().is_none(),
            };
            fits && key.allows(algorithm)
        })
    }

    /// Whether the set can have no key that signed `token`: the token names one that is not in it.
    #[must_use]
    pub fn lacks_key_of(&self, token: &Token<'_>) -> bool {
        let wanted = token.key_id.as_deref();
        wanted.is_some()
            && self
                .0
                .iter()
                .all(|key| key.id().is_some() && key.id() != wanted)
    }
}

fn is_ambiguous(one: &Key, other: &Key) -> bool {
    one.id().is_some() && one.id() == other.id() && one.shares_algorithm(other)
}

/// What a message calls a key.
fn name(jwk: &Json, index: usize) -> String {
    let id = jwk
        .as_object()
        .and_then(|jwk| jwk.get("kid"))
        .and_then(Json::as_text);
    match id {
        Some(id) => format!("key {id:?}"),
        None => format!("key {}", index + 1),
    }
}
