//! Amounts with units: durations, sizes, rates and shares.

use std::time::Duration;

use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::units;

/// A duration of at least a millisecond.
pub(crate) struct DurationText;

impl TextKind for DurationText {
    type Value = Duration;
    const NOUN: &'static str = "a duration";
    const PATTERN: Option<&'static str> =
        Some("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$");
    const EXAMPLES: &'static [&'static str] = &["5s", "250ms", "1m30s"];

    fn parse(text: &str) -> Result<Duration, Problem> {
        let duration = units::duration(text)?;
        if duration.is_zero() {
            return Err(
                Problem::new("a time limit of zero leaves no time").help("write \"1ms\" or more")
            );
        }
        Ok(duration)
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!(
            "write \"{number}s\" for seconds, \"{number}ms\" for milliseconds"
        ))
    }
}

/// A duration, which may be zero.
pub(crate) struct PauseText;

impl TextKind for PauseText {
    type Value = Duration;
    const NOUN: &'static str = "a duration";
    const PATTERN: Option<&'static str> = DurationText::PATTERN;
    const EXAMPLES: &'static [&'static str] = &["5s", "250ms", "0s"];

    fn parse(text: &str) -> Result<Duration, Problem> {
        units::duration(text)
    }

    fn from_number(number: &str) -> Option<String> {
        DurationText::from_number(number)
    }
}

impl WritableKind for PauseText {
    fn to_json(value: &Duration) -> Json {
        DurationText::to_json(value)
    }
}

impl WritableKind for DurationText {
    fn to_json(value: &Duration) -> Json {
        Json::Text(units::show_duration(*value))
    }
}

/// A size in bytes within bounds.
pub(crate) struct SizeText<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> TextKind for SizeText<MIN, MAX> {
    type Value = u64;
    const NOUN: &'static str = "a size";
    const PATTERN: Option<&'static str> = Some("^[0-9]+([KMGT]i?)?B$");
    const EXAMPLES: &'static [&'static str] = &["16KiB", "10MiB", "1MB"];

    fn parse(text: &str) -> Result<u64, Problem> {
        let bytes = units::size(text)?;
        if (MIN..=MAX).contains(&bytes) {
            return Ok(bytes);
        }
        let (min, max) = (units::show_size(MIN), units::show_size(MAX));
        let range = if MAX >= i64::MAX as u64 {
            format!("write at least {min}")
        } else {
            format!("write a size from {min} to {max}")
        };
        Err(Problem::new(format!("`{text}` is out of bounds")).help(range))
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!(
            "write \"{number}B\" for bytes, \"{number}KiB\" for kibibytes"
        ))
    }
}

impl<const MIN: u64, const MAX: u64> WritableKind for SizeText<MIN, MAX> {
    fn to_json(value: &u64) -> Json {
        Json::Text(units::show_size(*value))
    }
}

/// Bytes a second, at least one.
pub(crate) struct ByteRateText;

impl TextKind for ByteRateText {
    type Value = u64;
    const NOUN: &'static str = "a rate";
    const PATTERN: Option<&'static str> = Some("^[0-9]+([KMGT]i?)?B/s$");
    const EXAMPLES: &'static [&'static str] = &["240B/s", "1KiB/s"];

    fn parse(text: &str) -> Result<u64, Problem> {
        match units::byte_rate(text)? {
            0 => Err(Problem::new("a rate of zero lets nothing through")
                .help("for no limit write \"off\"")),
            rate => Ok(rate),
        }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}B/s\""))
    }
}

impl WritableKind for ByteRateText {
    fn to_json(value: &u64) -> Json {
        Json::Text(format!("{}/s", units::show_size(*value)))
    }
}

/// A share in whole percent.
pub(crate) struct PercentText;

impl TextKind for PercentText {
    type Value = u32;
    const NOUN: &'static str = "a share";
    const PATTERN: Option<&'static str> = Some("^(100|[0-9]{1,2})%$");
    const EXAMPLES: &'static [&'static str] = &["20%"];

    fn parse(text: &str) -> Result<u32, Problem> {
        units::percent(text)
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}%\""))
    }
}

/// A share. `0%` switches off what it is for.
pub(crate) struct ShareOrNoneText;

impl TextKind for ShareOrNoneText {
    type Value = u32;
    const NOUN: &'static str = PercentText::NOUN;
    const PATTERN: Option<&'static str> = PercentText::PATTERN;
    const EXAMPLES: &'static [&'static str] = &["20%", "0%"];

    fn parse(text: &str) -> Result<u32, Problem> {
        PercentText::parse(text)
    }

    fn from_number(number: &str) -> Option<String> {
        PercentText::from_number(number)
    }
}

impl WritableKind for ShareOrNoneText {
    fn to_json(value: &u32) -> Json {
        PercentText::to_json(value)
    }
}

impl WritableKind for PercentText {
    fn to_json(value: &u32) -> Json {
        Json::Text(format!("{value}%"))
    }
}
