//! `mirror`: copies of requests for another upstream, whose answers Weir drops.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PercentText, SizeText};
use crate::decode::decoder::{Decoder, Spanned, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{BooleanKind, LongForm, PlainText, ShortOrLong, SpannedKind, TextKind};
use crate::decode::shape::{ForeignName, Shape};
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting, TargetKind};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::value::plain_name::is_plain_name;

/// Copies of requests for another upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The upstream that gets the copies: its index in [`Config::upstreams`](crate::Config::upstreams).
    pub upstream: usize,
    /// How many of the requests are copied, in percent.
    pub share_percent: u32,
    /// The largest body that is copied, in bytes; a request with a larger one is not copied. `None`: copies have no
    /// body.
    pub body_bytes_max: Option<u64>,
    /// How long a copy may take, with its answer.
    pub timeout: Duration,
}

/// The bodies that copies have, unless the file says otherwise: those that Weir keeps for another attempt too.
const BODY_BYTES: u64 = 64 * 1024;

/// The largest body that a copy may have. A core holds 16 MiB of them.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How long a copy may take, unless the file says otherwise, as in Envoy, whose copies have the 15 s of a route.
const TIMEOUT: Duration = Duration::from_secs(15);

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &["upstream", "cluster", "service", "host", "backend", "name"],
        "`to`",
    ),
    (
        &[
            "percent",
            "percentage",
            "fraction",
            "runtime_fraction",
            "sample",
            "sample_ratio",
            "weight",
        ],
        "`share`",
    ),
    (
        &[
            "mirror_request_body",
            "mirrorBody",
            "mirror_body",
            "maxBodySize",
            "max_body_size",
        ],
        "`body`",
    ),
];

/// What bodies copies have.
pub(crate) struct MirrorBodyKind;

impl ValueKind for MirrorBodyKind {
    type Value = Option<u64>;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        if value.get_ref().as_str().is_some() {
            return SizeText::<1, BODY_BYTES_MAX>::decode(value, cx).map(Some);
        }
        BooleanKind::decode(value, cx).map(|has_body| has_body.then_some(BODY_BYTES))
    }

    fn shape() -> Shape {
        Shape::AnyOf(vec![
            BooleanKind::shape(),
            SizeText::<1, BODY_BYTES_MAX>::shape(),
        ])
    }
}

table! {
    /// Sends copies of requests to another upstream and throws their answers away. Clients and their requests notice
    /// nothing. [load-balancing.md](load-balancing.md#mirroring) has the rules.
    RawMirror, "mirror", "mirror of a policy", foreign FOREIGN_NAMES {
        /// The upstream that gets the copies.
        optional to: Spanned<String> = "to" as SpannedKind<PlainText>;
        /// How many of the requests are copied; without it all.
        optional share: u32 = "share" as PercentText;
        /// `true`, the default, copies bodies of up to 64 KiB, as much as Weir keeps for a retry; a size, at most 4 MiB,
        /// larger ones too. A request with a
        /// larger body is not copied. With `false`, copies have no body.
        optional body: Option<u64> = "body" as MirrorBodyKind;
        /// How long a copy may take, with its answer; the default is 15 s, as Envoy's route timeout.
        optional timeout: Duration = "timeout" as DurationText;
    }
}

impl LongForm for RawMirror {
    type Out = Self;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<Self> {
        Some(table)
    }
}

/// `"NAME"` or `"NAME, SHARE"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorName {
    upstream: String,
    share_percent: u32,
}

impl From<Spanned<MirrorName>> for RawMirror {
    /// A mirror with defaults only. A bare name stands for all requests, whatever lower levels say.
    fn from(name: Spanned<MirrorName>) -> Self {
        let Spanned { value, span } = name;
        Self {
            to: Some(Spanned {
                value: value.upstream,
                span: span.clone(),
            }),
            share: Some(value.share_percent),
            body: None,
            timeout: None,
            span,
        }
    }
}

/// The name of an upstream, perhaps with a share.
pub(crate) struct MirrorText;

impl TextKind for MirrorText {
    type Value = MirrorName;
    const NOUN: &'static str = "the name of an upstream and a share";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9_.-]+(, *(100|[0-9]{1,2})%)?$");
    const EXAMPLES: &'static [&'static str] = &["shadow, 5%", "shadow"];

    fn parse(text: &str) -> Result<MirrorName, Problem> {
        let (name, share) = match text.split_once(',') {
            Some((name, share)) => (name.trim(), Some(share.trim())),
            None => (text.trim(), None),
        };
        if !is_plain_name(name) {
            let problem = Problem::new(format!("`{name}` is not the name of an upstream"));
            return Err(problem.help("write one of [upstream], such as mirror = \"shadow, 5%\""));
        }
        Ok(MirrorName {
            upstream: name.to_owned(),
            share_percent: share.map_or(Ok(100), PercentText::parse)?,
        })
    }
}

/// An upstream, alone or with settings.
pub(crate) type MirrorKind = ShortOrLong<SpannedKind<MirrorText>, RawMirror>;

impl Policy for MirrorKind {
    type Combined = Option<Mirror>;

    fn combine(
        settings: &[Setting<'_, RawMirror>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Option<Mirror> {
        let last = settings.last()?;
        let Some(to) = find_last(settings, |raw| raw.to.as_ref()) else {
            if *place.origin != Origin::Top {
                let message = "`mirror` names no upstream";
                cx.error(Code::MissingKey, last.span.clone(), message)
                    .help("add `to`, such as mirror = { to = \"shadow\" }");
            }
            return None;
        };
        let upstream = place.upstreams.resolve(to, cx)?;
        let body = find_last(settings, |raw| raw.body.as_ref());
        // A route without an upstream has nothing to copy.
        let is_sent = place
            .target
            .is_none_or(|target| target == TargetKind::Upstream);
        is_sent.then(|| Mirror {
            upstream,
            share_percent: find_last(settings, |raw| raw.share.as_ref())
                .copied()
                .unwrap_or(100),
            body_bytes_max: body.copied().unwrap_or(Some(BODY_BYTES)),
            timeout: find_last(settings, |raw| raw.timeout.as_ref())
                .copied()
                .unwrap_or(TIMEOUT),
        })
    }

    fn no_effect(_value: &RawMirror, target: TargetKind) -> Option<&'static str> {
        match target {
            TargetKind::Upstream => None,
            TargetKind::Redirect | TargetKind::Respond => {
                Some("this route sends its requests to no upstream")
            }
        }
    }
}

/// What the highest level says that sets the key.
fn find_last<'a, T: 'a>(
    settings: &[Setting<'a, RawMirror>],
    get: impl Fn(&'a RawMirror) -> Option<&'a T>,
) -> Option<&'a T> {
    settings.iter().rev().find_map(|setting| get(setting.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_share() {
        let parse = |text| {
            MirrorText::parse(text)
                .ok()
                .map(|m| (m.upstream, m.share_percent))
        };
        assert_eq!(parse("shadow"), Some(("shadow".to_owned(), 100)));
        assert_eq!(parse("shadow, 5%"), Some(("shadow".to_owned(), 5)));
        assert_eq!(parse("shadow,100%"), Some(("shadow".to_owned(), 100)));
        for text in [
            "",
            ", 5%",
            "shadow, 5",
            "shadow, 101%",
            "a b",
            "shadow, 5%, 6%",
            "http://a",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
