//! Where the token of a request stands.

use weir_proto_h1::{FieldId, Head};

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
                only(pairs.filter_map(|pair| value_of(pair.trim_ascii(), name)))
            }
            Self::Query(name) => {
                let pairs = head.query.get(block).split(|&byte| byte == b'&');
                only(pairs.filter_map(|pair| value_of(pair, name)))
            }
        }
    }
}

/// The token of an Authorization field with the scheme Bearer. A scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii_start())
}

/// The value of `pair` if it is NAME=VALUE.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(only), None) => Found::Token(only),
        (Some(_), Some(_)) => Found::Several,
    }
}
