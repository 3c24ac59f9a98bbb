//! `to` of a route: one upstream, or several with shares, and how `split` settles which one a client gets.

use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{
    Choice, Count, Keywords, NamedEntries, NamedEntry, PlainText, SpannedKind, TextKind,
};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::slice::upstream::UpstreamName;
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::field::{is_token, not_a_field_name};
use crate::value::upstream_names::UpstreamNames;

/// The most that one upstream's share may be.
const SHARE_MAX: u32 = 65_535;

/// Several upstreams that share the requests of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Index in [`Config::upstreams`](crate::Config::upstreams) and share of each, in file order. The sum is not 0.
    pub shares: Vec<(usize, u32)>,
    /// Whether a cookie keeps a client at the upstream that it got first.
    pub is_sticky: bool,
    /// The request field that names the upstream, in lower case.
    pub force: Option<String>,
}

/// The value of `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// The name of an upstream.
    Upstream(String),
    /// Upstreams and their shares.
    Shares(Vec<NamedEntry<u32>>),
}

/// The name of an upstream, or a table of upstreams and shares.
pub(crate) struct ToKind;

type Shares = NamedEntries<UpstreamName, Count<0, SHARE_MAX>>;

impl ValueKind for ToKind {
    type Value = To;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<To> {
        if value.get_ref().is_table() {
            return Shares::decode(value, cx).map(To::Shares);
        }
        if value.get_ref().is_array() {
            cx.wrong_type(value, "the name of an upstream, or a table of shares")
                .help("several upstreams have shares: to = { app = 95, canary = 5 }");
            return None;
        }
        PlainText::decode(value, cx).map(To::Upstream)
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![PlainText::shape(), Shares::shape()])
    }
}

/// What keeps a client at one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StickyBy {
    Cookie,
}

impl Keywords for StickyBy {
    const ALL: &'static [(&'static str, Self)] = &[("cookie", Self::Cookie)];
}

/// The name of a request field.
pub(crate) struct FieldNameText;

impl TextKind for FieldNameText {
    type Value = String;
    const NOUN: &'static str = "the name of a header field";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    const EXAMPLES: &'static [&'static str] = &["x-upstream"];

    fn parse(text: &str) -> Result<String, Problem> {
        match is_token(text) {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(not_a_field_name(text)),
        }
    }
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["header", "always", "override"], "`force`"),
    (&["cookie", "session", "stickiness"], "`sticky`"),
];

table! {
    /// How Weir settles which upstream of a `to` with shares gets a request. Without it, each request is drawn anew.
    RawSplit, "split", "split of [[route]]", foreign FOREIGN_NAMES {
        /// `"cookie"` keeps a client at the upstream that it got first, for as long as its browser keeps the session.
        /// Set it where the versions differ so much that one client must not see both.
        optional sticky: StickyBy = "sticky" as Choice<StickyBy>;
        /// The request field whose value names the upstream, one of `to`; it goes before the cookie and the shares.
        /// Another value has no effect. Every client can send it.
        optional force: Spanned<String> = "force" as SpannedKind<FieldNameText>;
    }
}

/// The split that `to` with `shares` describes; reports unknown upstreams and shares without a sum.
pub(crate) fn check_split(
    (shares, span): (&[NamedEntry<u32>], &Span),
    split: Option<&RawSplit>,
    names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) -> Option<Split> {
    let mut resolved = Vec::with_capacity(shares.len());
    for NamedEntry { name, value } in shares {
        resolved.push(names.resolve(name, cx).zip(*value));
    }
    let shares: Vec<_> = resolved.into_iter().collect::<Option<_>>()?;
    if shares.iter().all(|(_, share)| *share == 0) {
        let message = match shares.is_empty() {
            true => "`to` names no upstream",
            false => "no upstream of `to` has a share: their sum is 0",
        };
        cx.error(Code::BadValue, span.clone(), message)
            .help("give them shares, such as to = { app = 95, canary = 5 }");
        return None;
    }
    Some(Split {
        shares,
        is_sticky: split.is_some_and(|split| split.sticky.is_some()),
        force: split.and_then(|split| Some(split.force.as_ref()?.value.clone())),
    })
}

/// Reports a `split` of a route that has nothing to split.
pub(crate) fn check_has_shares(split: Option<&RawSplit>, to: Option<&To>, cx: &mut Decoder<'_>) {
    let Some(split) = split else { return };
    if matches!(to, Some(To::Shares(_))) {
        return;
    }
    let name = match to {
        Some(To::Upstream(name)) => name.as_str(),
        _ => "app",
    };
    let message = "`split` has no effect: this route does not share requests among upstreams";
    cx.error(Code::Conflict, split.span.clone(), message)
        .help(format!(
            "leave it out, or give `to` shares: to = {{ {name} = 95, canary = 5 }}"
        ));
}
