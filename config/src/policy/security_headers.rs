//! `security_headers`: fields that make browsers careful with an answer.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{Choice, Keywords, OrOff, TextKind};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Place, Policy, Setting};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::value::field::FieldValueText;

/// Fields of answers that make browsers careful. An answer that has one already keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// The value of `Strict-Transport-Security`, for clients that use TLS.
    pub hsts: Option<String>,
    /// Whether answers say `X-Content-Type-Options: nosniff`.
    pub nosniff: bool,
    /// The value of `X-Frame-Options`.
    pub frame: Option<FramePolicy>,
    /// The value of `Referrer-Policy`.
    pub referrer: Option<ReferrerPolicy>,
}

/// The pages that may show an answer in a frame (RFC 7034).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramePolicy {
    /// None.
    Deny,
    /// Those of the same origin.
    SameOrigin,
}

impl FramePolicy {
    /// The field's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::SameOrigin => "SAMEORIGIN",
        }
    }
}

impl Keywords for FramePolicy {
    const ALL: &'static [(&'static str, Self)] =
        &[("deny", Self::Deny), ("sameorigin", Self::SameOrigin)];
}

/// What browsers tell other pages about the page that leads to them (W3C Referrer Policy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferrerPolicy {
    /// `no-referrer`.
    NoReferrer,
    /// `no-referrer-when-downgrade`.
    NoReferrerWhenDowngrade,
    /// `origin`.
    Origin,
    /// `origin-when-cross-origin`.
    OriginWhenCrossOrigin,
    /// `same-origin`.
    SameOrigin,
    /// `strict-origin`.
    StrictOrigin,
    /// `strict-origin-when-cross-origin`.
    StrictOriginWhenCrossOrigin,
    /// `unsafe-url`.
    UnsafeUrl,
}

impl ReferrerPolicy {
    /// The field's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let word = Self::ALL.iter().find(|(_, policy)| *policy == self);
        word.map_or("", |(word, _)| word)
    }
}

impl Keywords for ReferrerPolicy {
    const ALL: &'static [(&'static str, Self)] = &[
        ("no-referrer", Self::NoReferrer),
        ("no-referrer-when-downgrade", Self::NoReferrerWhenDowngrade),
        ("origin", Self::Origin),
        ("origin-when-cross-origin", Self::OriginWhenCrossOrigin),
        ("same-origin", Self::SameOrigin),
        ("strict-origin", Self::StrictOrigin),
        (
            "strict-origin-when-cross-origin",
            Self::StrictOriginWhenCrossOrigin,
        ),
        ("unsafe-url", Self::UnsafeUrl),
    ];
}

/// A year, as the HSTS preload list asks for at least. Subdomains are other sites, so the file has to name them.
const HSTS: &str = "max-age=31536000";

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &["strict_transport_security", "sts", "stsSeconds", "max_age"],
        "`hsts = \"max-age=31536000\"`",
    ),
    (
        &[
            "content_type_nosniff",
            "contentTypeNosniff",
            "x_content_type_options",
        ],
        "`nosniff`",
    ),
    (
        &[
            "frame_options",
            "x_frame_options",
            "frameDeny",
            "frame_ancestors",
        ],
        "`frame`",
    ),
    (&["referrer_policy", "referrerPolicy"], "`referrer`"),
    (
        &[
            "csp",
            "content_security_policy",
            "contentSecurityPolicy",
            "permissions_policy",
        ],
        "`headers = { response = { set = { ... } } }`",
    ),
];

table! {
    /// Fields that make browsers careful with an answer. An endpoint's own field stays. `true` stands for all of them
    /// with their usual values.
    RawSecurityHeaders, "security_headers", "security_headers of a policy", foreign FOREIGN_NAMES {
        /// The value of `Strict-Transport-Security`: for how long browsers use only HTTPS for this host. Answers over
        /// HTTP never have it. The default is `"max-age=31536000"`, a year. Add `; includeSubDomains` if all hosts below
        /// this one serve HTTPS.
        optional hsts: Option<String> = "hsts" as OrOff<HstsText>;
        /// `X-Content-Type-Options: nosniff`: browsers believe the type of a body and do not guess. The default is
        /// `true`.
        optional nosniff: bool = "nosniff" as SwitchKind;
        /// `X-Frame-Options`: which pages may show the answer in a frame. The default is `"sameorigin"`. An endpoint's
        /// `Content-Security-Policy` with `frame-ancestors` goes before it in browsers.
        optional frame: Option<FramePolicy> = "frame" as OrOff<Choice<FramePolicy>>;
        /// `Referrer-Policy`: what browsers tell other pages about the page that leads to them. The default is
        /// `"strict-origin-when-cross-origin"`.
        optional referrer: Option<ReferrerPolicy> = "referrer" as OrOff<Choice<ReferrerPolicy>>;
    }
}

/// The value of `Strict-Transport-Security`.
pub(crate) struct HstsText;

impl TextKind for HstsText {
    type Value = String;
    const NOUN: &'static str = "the value of Strict-Transport-Security";
    const EXAMPLES: &'static [&'static str] = &[
        "max-age=31536000",
        "max-age=63072000; includeSubDomains; preload",
    ];

    //= rfc6797#6.1: `max-age` is required, and its value is a number of seconds.
    fn parse(text: &str) -> Result<String, Problem> {
        let value = FieldValueText::parse(text)?;
        let mut max_age = None;
        for directive in value.split(';').map(str::trim) {
            let (name, seconds) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "max-age" => max_age = seconds.trim_matches('"').parse::<u64>().ok(),
                "includesubdomains" | "preload" => {}
                _ => {
                    return Err(
                        Problem::new(format!("`{directive}` is no part of this field"))
                            .help("write \"max-age=31536000; includeSubDomains\""),
                    );
                }
            }
        }
        match max_age {
            Some(_) => Ok(value),
            None => Err(
                Problem::new("`max-age` and a number of seconds are missing")
                    .help("write \"max-age=31536000\""),
            ),
        }
    }
}

/// `true`, or `"off"` or `false`.
pub(crate) struct SwitchKind;

impl ValueKind for SwitchKind {
    type Value = bool;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<bool> {
        let found = match value.get_ref().as_str() {
            Some("off") => Some(false),
            _ => value.get_ref().as_bool(),
        };
        if found.is_none() {
            cx.wrong_type(value, &Self::shape().in_words());
        }
        found
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![Shape::Boolean, Shape::Choice(vec!["off"])])
    }
}

/// `true`, or a table.
pub(crate) struct SecurityHeadersKind;

impl ValueKind for SecurityHeadersKind {
    type Value = RawSecurityHeaders;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<RawSecurityHeaders> {
        match value.get_ref().as_bool() {
            Some(true) => Some(RawSecurityHeaders {
                span: value.span(),
                hsts: None,
                nosniff: None,
                frame: None,
                referrer: None,
            }),
            Some(false) => {
                cx.error(
                    Code::BadValue,
                    value.span(),
                    "`security_headers` is not `false`",
                )
                .help("write \"off\" to take it away, or leave it out");
                None
            }
            None => RawSecurityHeaders::decode(value, cx),
        }
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![Shape::Boolean, RawSecurityHeaders::shape()])
    }
}

impl Policy for SecurityHeadersKind {
    type Combined = Option<SecurityHeaders>;

    fn combine(
        settings: &[Setting<'_, RawSecurityHeaders>],
        _place: &Place<'_>,
        _cx: &mut Decoder<'_>,
    ) -> Option<SecurityHeaders> {
        let mut combined = SecurityHeaders {
            hsts: Some(HSTS.to_owned()),
            nosniff: true,
            frame: Some(FramePolicy::SameOrigin),
            referrer: Some(ReferrerPolicy::StrictOriginWhenCrossOrigin),
        };
        for Setting { value, .. } in settings {
            if let Some(hsts) = &value.hsts {
                combined.hsts.clone_from(hsts);
            }
            combined.nosniff = value.nosniff.unwrap_or(combined.nosniff);
            combined.frame = value.frame.unwrap_or(combined.frame);
            combined.referrer = value.referrer.unwrap_or(combined.referrer);
        }
        let is_empty = combined.hsts.is_none()
            && !combined.nosniff
            && combined.frame.is_none()
            && combined.referrer.is_none();
        (!is_empty).then_some(combined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_hsts() {
        for text in [
            "max-age=0",
            "max-age=1; includeSubDomains; preload",
            "MAX-AGE=\"5\"",
        ] {
            assert_eq!(HstsText::parse(text), Ok(text.to_owned()));
        }
        for text in [
            "",
            "1y",
            "max-age",
            "max-age=1y",
            "includeSubDomains",
            "max-age=1, preload",
        ] {
            assert!(HstsText::parse(text).is_err(), "{text}");
        }
    }
}
