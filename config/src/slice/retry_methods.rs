//! `retries.methods`: the methods of the requests that Weir may send again.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::{ValueKind, WritableKind};
use crate::decode::kinds::{Choice, Keywords, OneOrMany};
use crate::decode::shape::Shape;
use crate::text::json::Json;

/// A method that a file may name in `retries.methods`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// POST.
    Post,
    /// PATCH.
    Patch,
}

impl Keywords for RetryMethod {
    const ALL: &'static [(&'static str, Self)] = &[
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("OPTIONS", Self::Options),
        ("PUT", Self::Put),
        ("DELETE", Self::Delete),
        ("POST", Self::Post),
        ("PATCH", Self::Patch),
    ];
}

/// The methods of the requests that Weir may send again although an endpoint may have processed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryMethods(u8);

impl RetryMethods {
    //= rfc9110#9.2.2
    /// The idempotent methods.
    pub const IDEMPOTENT: Self = Self::of(&[
        RetryMethod::Get,
        RetryMethod::Head,
        RetryMethod::Options,
        RetryMethod::Put,
        RetryMethod::Delete,
    ]);

    /// The set of these methods.
    #[must_use]
    pub const fn of(methods: &[RetryMethod]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < methods.len() {
            bits |= 1 << methods[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether the set has the method.
    #[inline]
    #[must_use]
    pub const fn has(self, method: RetryMethod) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    /// The names of its methods.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = RetryMethod::ALL.iter();
        all.filter(move |(_, method)| self.has(*method))
            .map(|(name, _)| *name)
    }
}

/// A list of methods, or a single one.
pub(crate) struct RetryMethodsKind;

impl ValueKind for RetryMethodsKind {
    type Value = RetryMethods;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RetryMethods> {
        let methods = OneOrMany::<Choice<RetryMethod>>::decode(value, cx)?;
        Some(RetryMethods::of(&methods))
    }

    fn shape() -> Shape {
        OneOrMany::<Choice<RetryMethod>>::shape()
    }
}

impl WritableKind for RetryMethodsKind {
    fn to_json(value: &RetryMethods) -> Json {
        Json::List(value.names().map(Json::text).collect())
    }
}
