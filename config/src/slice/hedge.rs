//! `retries.hedge`: when a second attempt starts beside the first.

use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::text::json::Json;
use crate::text::problem::Problem;

/// When a second attempt starts beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// After this time without an answer.
    After(Duration),
    /// After the time within which so many percent of the upstream's answers begin.
    Percentile(u32),
}

const PERCENT_MIN: u32 = 50;
const PERCENT_MAX: u32 = 99;

/// A time, or a percentile.
pub(crate) struct HedgeText;

impl TextKind for HedgeText {
    type Value = Hedge;
    const NOUN: &'static str = "a duration or a percentile";
    const EXAMPLES: &'static [&'static str] = &["p95", "200ms"];

    fn parse(text: &str) -> Result<Hedge, Problem> {
        let Some(percent) = text.strip_prefix('p') else {
            return DurationText::parse(text).map(Hedge::After);
        };
        let percent = percent.parse().ok();
        let percent = percent.filter(|percent| (PERCENT_MIN..=PERCENT_MAX).contains(percent));
        percent.map(Hedge::Percentile).ok_or_else(|| {
            Problem::new(format!("`{text}` is not a percentile"))
                .help("write one from \"p50\" to \"p99\", such as \"p95\"")
        })
    }

    fn from_number(number: &str) -> Option<String> {
        DurationText::from_number(number)
    }
}

impl WritableKind for HedgeText {
    fn to_json(value: &Hedge) -> Json {
        match value {
            Hedge::After(time) => DurationText::to_json(time),
            Hedge::Percentile(percent) => Json::text(format!("p{percent}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_are_times_or_percentiles() {
        let parse = |text| HedgeText::parse(text).ok();
        assert_eq!(parse("p95"), Some(Hedge::Percentile(95)));
        let time = Duration::from_millis(50);
        assert_eq!(parse("50ms"), Some(Hedge::After(time)));
        for text in ["p", "p100", "p49", "p-1", "95", "0s", "p9x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
