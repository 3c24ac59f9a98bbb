//! Where the token of a request stands.

use weir_proto_h1::{FieldId, Head};

use crate::policy::form::decoded;

/// Where the token of a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In Authorization, behind `Bearer` (RFC 6750, section 2.1).
    Authorization,
    /// In another field, whose whole value it is; `Bearer` in front of it is ignored. In lower case.
    Header(Box<str>),
    /// In a cookie.
    Cookie(Box<str>),
    /// In a parameter of the query (RFC 6750, section 2.3).
    Query(Box<str>),
}

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No token.
    Nothing,
    /// One.
    Token(&'a [u8]),
    /// More than one field, cookie or parameter of the name. Weir and an endpoint could each take another one.
    Several,
}

impl Place {
    /// What stands here.
    #[must_use]
    pub fn find<'a>(&self, head: &Head, block: &'a [u8]) -> Found<'a> {
        match self {
            Self::Authorization => {
                let values = head
                    .all(FieldId::Authorization)
                    .map(|field| field.value.get(block));
                match only(values) {
                    Found::Token(value) => bearer(value).map_or(Found::Nothing, Found::Token),
                    other => other,
                }
            }
            Self::Header(name) => {
                let fields = head
                    .iter()
                    .filter(|field| field.name.get(block).eq_ignore_ascii_case(name.as_bytes()));
                match only(fields.map(|field| field.value.get(block))) {
                    Found::Token(b"") => Found::Nothing,
                    Found::Token(value) => Found::Token(bearer(value).unwrap_or(value)),
                    other => other,
                }
            }
            Self::Cookie(name) => {
                let fields = head
                    .all(FieldId::Cookie)
                    .map(|field| field.value.get(block));
                let pairs = fields.flat_map(|value| value.split(|&byte| byte == b';'));
                only(pairs.filter_map(|pair| cookie_value(pair, name)))
            }
            Self::Query(name) => {
                let pairs = head.query.get(block).split(|&byte| byte == b'&');
                only(pairs.filter_map(|pair| parameter_value(pair, name)))
            }
        }
    }
}

/// The token of an Authorization field with the scheme Bearer. A scheme is case-insensitive (RFC 9110, section 11.1).
/// Some endpoints take a tab for the space behind it.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_bearer =
        scheme.eq_ignore_ascii_case(b"bearer") && matches!(rest.first(), Some(b' ' | b'\t'));
    is_bearer.then(|| rest.trim_ascii_start())
}

/// The value of a cookie, if `pair` is one of this name. Endpoints ignore blanks around both.
fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = halves(pair)?;
    (key.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
}

/// The value of a parameter, if an endpoint that decodes the query takes `pair` for one of this name. A token needs no
/// encoding, so the value stays as it is.
fn parameter_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = halves(pair)?;
    decoded(key).eq(name.bytes()).then_some(value)
}

/// What stands on both sides of the first equals sign.
fn halves(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    Some((key, value.get(1..)?))
}

fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(only), None) => Found::Token(only),
        (Some(_), Some(_)) => Found::Several,
    }
}
