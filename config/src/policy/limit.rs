//! `limit`: how many requests in how much time.

use std::fmt;

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    BooleanKind, Count, LongForm, OneOrMany, ShortOrLong, SpannedKind, TextKind,
};
use crate::decode::preset::preset;
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, Policy, Setting};
use crate::policy::limit_key::{LimitKey, LimitKeysText, show_keys};
use crate::policy::limit_list::{LimitEntry, PlacedEntry, list_entries};
use crate::policy::limit_rate::{Rate, RateText, WINDOW_MAX};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;
use crate::text::source::Span;
use crate::value::plain_name::is_plain_name;

/// The most requests that a bucket holds.
const BURST_MAX: u32 = 1_000_000_000;
/// The most that one request may cost.
const COST_MAX: u32 = 1_000_000;

/// A limit of the rate of requests. Each key has a bucket, which holds `burst` requests and gets those of the rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The rate at which buckets fill.
    pub rate: Rate,
    /// What a full bucket holds, in requests that cost 1.
    pub burst: u32,
    /// What it counts by; at least one.
    pub per: Vec<LimitKey>,
    /// What a request takes from its bucket.
    pub cost: u32,
    /// Whether requests pass even when the bucket is empty.
    pub dry_run: bool,
    /// The name that the file gives it. Limits of one name are one limit.
    pub name: Option<String>,
    /// The level that says so.
    pub origin: Origin,
    /// Its place among the limits of that level, from 0.
    pub index: usize,
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["key", "by", "zone", "source", "identifier"], "`per`"),
    (&["average", "max", "limit", "events"], "`rate`"),
    (
        &["period", "window", "interval"],
        "`rate`, as in \"100/10s\"",
    ),
    (&["weight", "tokens"], "`cost`"),
    (&["shadow", "report_only", "dryrun"], "`dry_run`"),
];

table! {
    /// A limit of the rate of requests. A request over it gets 429. [policies.md](policies.md) says how exact it is.
    RawLimit, "limit", "limit of a policy", foreign FOREIGN_NAMES {
        /// Requests in a time: in a second, minute, hour or day, or in several of them, such as `"20/10s"`. The bucket
        /// fills evenly over that time.
        required rate: Rate = "rate" as RateText;
        /// What is counted apart: `ip` (of IPv6 the /64), `header:NAME`, `cookie:NAME`, `query:NAME`, `param:NAME` (of
        /// the match), `claim:NAME` (of the token), `host`, `route`, or `global` for all requests together. Several with
        /// a plus sign between them. A request without it, or with several of it, is counted by its client's address.
        preset(preset(vec![LimitKey::Ip], "the client is whom a limit protects others from"))
            per: Vec<LimitKey> = "per" as LimitKeysText;
        /// How many requests a full bucket admits at once. Without it, the number of `rate`. Raise it for clients that
        /// are idle for long and then load a page.
        optional burst: Spanned<u32> = "burst" as SpannedKind<Count<1, BURST_MAX>>;
        /// What a request takes from the bucket. Raise it where a request costs more than others of the same limit.
        preset(preset(1, "a request is one")) cost: u32 = "cost" as Count<1, COST_MAX>;
        /// Counts requests over the limit, and logs them, but lets them pass. Set it to try a limit out.
        preset(preset(false, "a limit limits")) dry_run: bool = "dry_run" as BooleanKind;
        /// Its name in the answer's RateLimit fields and in metrics. Limits of one name count together, and have to say
        /// the same.
        optional name: Spanned<String> = "name" as SpannedKind<LimitNameText>;
    }
}

/// A limit, without its place.
#[derive(Debug, Clone)]
pub(crate) struct LimitSetting {
    rate: Rate,
    burst: u32,
    per: Vec<LimitKey>,
    cost: u32,
    dry_run: bool,
    name: Option<Spanned<String>>,
}

/// The short form: `100/s per ip, burst 20`.
pub(crate) struct LimitText;

impl TextKind for LimitText {
    type Value = LimitSetting;
    const NOUN: &'static str = "a limit";
    const PATTERN: Option<&'static str> =
        Some("^[0-9]+/[0-9]*[smhd]( per [^,]+)?( *, *burst [0-9]+)?$");
    const EXAMPLES: &'static [&'static str] = &[
        "100/s per ip, burst 20",
        "5/m per header:X-Api-Key",
        "1000/s per global",
    ];

    fn parse(text: &str) -> Result<LimitSetting, Problem> {
        let (main, burst) = match text.split_once(',') {
            Some((main, burst)) => (main, Some(burst)),
            None => (text, None),
        };
        let (rate, per) = split_per(main)?;
        let rate = RateText::parse(rate)?;
        let burst = match burst {
            Some(burst) => parse_burst(burst, main.len() + 1)?,
            None => rate.count,
        };
        check_burst(rate, burst)?;
        Ok(LimitSetting {
            rate,
            burst,
            per,
            cost: 1,
            dry_run: false,
            name: None,
        })
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}/s per ip\""))
    }
}

/// Splits `100/s per ip` into what stands before `per` and the keys behind it.
pub(crate) fn split_per(text: &str) -> Result<(&str, Vec<LimitKey>), Problem> {
    let text = text.trim_end();
    let Some((amount, rest)) = text.split_once(' ') else {
        return Ok((text, vec![LimitKey::Ip]));
    };
    let at = text.len() - rest.len();
    let Some(keys) = rest.trim_start().strip_prefix("per ") else {
        return Err(
            Problem::new(format!("`{rest}` does not say what to count by"))
                .at(at, rest.len().max(1))
                .help(format!("write it like \"{amount} per ip\"")),
        );
    };
    let at = text.len() - keys.len();
    let keys = LimitKeysText::parse(keys).map_err(|problem| Problem {
        at: problem.at.map(|range| at + range.start..at + range.end),
        ..problem
    })?;
    Ok((amount, keys))
}

/// Parses ` burst 20`, which begins at `at`.
fn parse_burst(text: &str, at: usize) -> Result<u32, Problem> {
    let number = text.trim().strip_prefix("burst ").map(str::trim);
    let burst = number.and_then(|number| number.parse::<u32>().ok());
    burst
        .filter(|burst| (1..=BURST_MAX).contains(burst))
        .ok_or_else(|| {
            Problem::new(format!("`{}` is not a burst", text.trim()))
                .at(at, text.len().max(1))
                .help("write it like \", burst 20\"; other settings need the table { rate, per, burst, ... }")
        })
}

/// Whether an empty bucket fills in a time that Weir can count.
fn check_burst(rate: Rate, burst: u32) -> Result<(), Problem> {
    let fills = rate.window.as_secs_f64() * f64::from(burst) / f64::from(rate.count);
    if fills > WINDOW_MAX.as_secs_f64() {
        return Err(
            Problem::new("an empty bucket would take more than 365 days to fill")
                .help("lower the burst, or raise the rate"),
        );
    }
    Ok(())
}

impl LongForm for RawLimit {
    type Out = LimitSetting;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<LimitSetting> {
        let span = match &table.burst {
            Some(burst) => burst.span.clone(),
            None => table.span.clone(),
        };
        let burst = match table.burst {
            Some(burst) => burst.value,
            // A bucket that holds less than one request admits none.
            None => table.rate.count.max(table.cost),
        };
        if burst < table.cost {
            let message = format!(
                "no request passes: it costs {}, and a full bucket has {burst}",
                table.cost
            );
            cx.error(Code::Unreachable, span, message)
                .help("raise `burst`, or lower `cost`");
            return None;
        }
        if let Err(problem) = check_burst(table.rate, burst) {
            cx.error(Code::BadValue, span, problem.message)
                .help(problem.help.unwrap_or_default());
            return None;
        }
        Some(LimitSetting {
            rate: table.rate,
            burst,
            per: table.per,
            cost: table.cost,
            dry_run: table.dry_run,
            name: table.name,
        })
    }
}

/// A name of a limit. It appears in quotes in a header field.
pub(crate) struct LimitNameText;

impl TextKind for LimitNameText {
    type Value = String;
    const NOUN: &'static str = "a name";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9_.-]{1,64}$");
    const EXAMPLES: &'static [&'static str] = &["per-minute", "search"];

    fn parse(text: &str) -> Result<String, Problem> {
        if text.len() > 64 || !is_plain_name(text) {
            return Err(Problem::new(format!("`{text}` is not a name for a limit"))
                .help("use letters, digits, hyphens, underscores and dots, at most 64"));
        }
        Ok(text.to_owned())
    }
}

impl LimitEntry for LimitSetting {
    fn per(&self) -> &[LimitKey] {
        &self.per
    }

    fn name(&self) -> Option<&Spanned<String>> {
        self.name.as_ref()
    }

    fn check(&self, span: &Span, place: &Place<'_>, cx: &mut Decoder<'_>) {
        for key in &self.per {
            if let LimitKey::Claim(name) = key {
                let remedy = "move the limit to the routes that have one";
                place.check_claim(name, span, remedy, cx);
            }
        }
    }
}

/// The limits of one level.
pub(crate) type LimitKind = OneOrMany<SpannedKind<ShortOrLong<LimitText, RawLimit>>>;

impl Policy for LimitKind {
    type Combined = Vec<Limit>;

    fn combine(
        settings: &[Setting<'_, Self::Value>],
        place: &Place<'_>,
        cx: &mut Decoder<'_>,
    ) -> Vec<Limit> {
        let entries = list_entries(settings, place, cx).into_iter();
        let limits = entries.map(
            |PlacedEntry {
                 value,
                 origin,
                 index,
             }| Limit {
                rate: value.rate,
                burst: value.burst,
                per: value.per.clone(),
                cost: value.cost,
                dry_run: value.dry_run,
                name: value.name.as_ref().map(|name| name.value.clone()),
                origin: origin.clone(),
                index,
            },
        );
        limits.collect()
    }
}

impl fmt::Display for Limit {
    /// Writes the limit in its short form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.rate, show_keys(&self.per))?;
        if self.burst != self.rate.count {
            write!(f, ", burst {}", self.burst)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
