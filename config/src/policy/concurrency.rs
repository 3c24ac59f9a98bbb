//! `concurrency`: how many requests at once.

use std::fmt;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    BooleanKind, Count, LongForm, OneOrMany, ShortOrLong, SpannedKind, TextKind,
};
use crate::decode::preset::preset;
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting};
use crate::policy::limit::{LimitNameText, split_per};
use crate::policy::limit_key::{LimitKey, LimitKeysText, show_keys};
use crate::policy::limit_list::{LimitEntry, PlacedEntry, list_entries};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;

/// The most requests at once that a file may allow.
const REQUESTS_MAX: u32 = 100_000_000;

/// A limit of the requests that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// The most requests at once.
    pub requests: u32,
    /// What it counts by; at least one.
    pub per: Vec<LimitKey>,
    /// Whether requests pass even when there are too many.
    pub dry_run: bool,
    /// The name that the file gives it. Limits of one name are one limit.
    pub name: Option<String>,
    /// The level that says so.
    pub origin: Origin,
    /// Its place among those of that level, from 0.
    pub index: usize,
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["key", "by", "zone", "source"], "`per`"),
    (&["max", "limit", "amount", "connections"], "`requests`"),
    (&["shadow", "report_only", "dryrun"], "`dry_run`"),
];

table! {
    /// A limit of the requests that run at the same time, over all cores. One more gets 429.
    RawConcurrency, "concurrency", "concurrency of a policy", foreign FOREIGN_NAMES {
        /// The most requests at once.
        required requests: u32 = "requests" as Count<1, REQUESTS_MAX>;
        /// What is counted apart, as in `limit`, but for `claim:NAME`.
        preset(preset(vec![LimitKey::Ip], "the client is whom a limit protects others from"))
            per: Vec<LimitKey> = "per" as LimitKeysText;
        /// Counts requests over the limit, and logs them, but lets them pass. Set it to try a limit out.
        preset(preset(false, "a limit limits")) dry_run: bool = "dry_run" as BooleanKind;
        /// Its name in metrics. Limits of one name count together, and have to say the same.
        optional name: Spanned<String> = "name" as SpannedKind<LimitNameText>;
    }
}

/// A limit of requests at once, without its place.
#[derive(Debug, Clone)]
pub(crate) struct ConcurrencySetting {
    requests: u32,
    per: Vec<LimitKey>,
    dry_run: bool,
    name: Option<Spanned<String>>,
}

/// The short form: `50 per ip`.
pub(crate) struct ConcurrencyText;

impl TextKind for ConcurrencyText {
    type Value = ConcurrencySetting;
    const NOUN: &'static str = "a number of requests at once";
    const PATTERN: Option<&'static str> = Some("^[0-9]+( per .+)?$");
    const EXAMPLES: &'static [&'static str] = &["50 per ip", "1000 per global"];

    fn parse(text: &str) -> Result<ConcurrencySetting, Problem> {
        let (number, per) = split_per(text)?;
        let requests = number.parse::<u32>().ok();
        let Some(requests) = requests.filter(|number| (1..=REQUESTS_MAX).contains(number)) else {
            return Err(
                Problem::new(format!("`{number}` is not a number of requests at once"))
                    .at(0, number.len().max(1))
                    .help("write it like \"50 per ip\"; `limit` has rates, such as \"100/s\""),
            );
        };
        Ok(ConcurrencySetting {
            requests,
            per,
            dry_run: false,
            name: None,
        })
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number} per ip\""))
    }
}

impl LongForm for RawConcurrency {
    type Out = ConcurrencySetting;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<ConcurrencySetting> {
        Some(ConcurrencySetting {
            requests: table.requests,
            per: table.per,
            dry_run: table.dry_run,
            name: table.name,
        })
    }
}

impl LimitEntry for ConcurrencySetting {
    fn per(&self) -> &[LimitKey] {
        &self.per
    }

    fn name(&self) -> Option<&Spanned<String>> {
        self.name.as_ref()
    }

    fn check(&self, span: &Span, _place: &Place<'_>, cx: &mut Decoder<'_>) {
        let is_claim = |key: &LimitKey| matches!(key, LimitKey::Claim(_));
        if self.per.iter().any(is_claim) {
            let message = "`concurrency` cannot count by a claim";
            cx.error(Code::BadValue, span.clone(), message)
                .label("it counts a request before the token is verified")
                .help("use `limit`, or count by another key");
        }
    }
}

/// The limits of one level.
pub(crate) type ConcurrencyKind =
    OneOrMany<SpannedKind<ShortOrLong<ConcurrencyText, RawConcurrency>>>;

impl Policy for ConcurrencyKind {
    type Combined = Vec<Concurrency>;

    fn combine(
        settings: &[Setting<'_, Self::Value>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Vec<Concurrency> {
        let entries = list_entries(settings, place, cx).into_iter();
        let limits = entries.map(
            |PlacedEntry {
                 value,
                 origin,
                 index,
             }| Concurrency {
                requests: value.requests,
                per: value.per.clone(),
                dry_run: value.dry_run,
                name: value.name.as_ref().map(|name| name.value.clone()),
                origin: origin.clone(),
                index,
            },
        );
        limits.collect()
    }
}

impl fmt::Display for Concurrency {
    /// Writes the limit in its short form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.requests, show_keys(&self.per))
    }
}
