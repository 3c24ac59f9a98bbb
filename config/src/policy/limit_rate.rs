//! `rate`: how many requests a limit admits in how much time.

use std::fmt;
use std::time::Duration;

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::text::units;

/// The highest number of requests in a rate.
const COUNT_MAX: u32 = 1_000_000_000;
/// The highest rate a second. Weir counts time in eighths of a nanosecond.
const PER_SECOND_MAX: u64 = 10_000_000;
/// The longest time over which a limit counts.
pub(crate) const WINDOW_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The number of requests, at least 1.
    pub count: u32,
    /// The time, in whole seconds, at least one.
    pub window: Duration,
}

/// A rate: `100/s`.
pub(crate) struct RateText;

impl TextKind for RateText {
    type Value = Rate;
    const NOUN: &'static str = "a rate";
    const PATTERN: Option<&'static str> = Some("^[0-9]+/[0-9]*[smhd]$");
    const EXAMPLES: &'static [&'static str] = &["100/s", "5/m", "1000/h", "20/10s"];

    fn parse(text: &str) -> Result<Rate, Problem> {
        let Some((count, unit)) = text.split_once('/') else {
            let problem = Problem::new(format!("`{text}` is not a rate"));
            return Err(match text.parse::<u32>() {
                Ok(_) => problem.help(format!("write \"{text}/s\" for so many a second")),
                Err(_) => problem.help("write it like \"100/s\""),
            });
        };
        let Ok(count) = count.parse::<u32>() else {
            let problem = Problem::new(format!("`{count}` is not a number of requests"));
            return Err(problem
                .at(0, count.len().max(1))
                .help("write it like \"100/s\""));
        };
        let at = text.len() - unit.len();
        let window = parse_window(unit).map_err(|problem| problem.at(at, unit.len().max(1)))?;
        let most = PER_SECOND_MAX.saturating_mul(window.as_secs());
        if count == 0 {
            return Err(Problem::new("a rate of zero lets nothing through")
                .at(0, 1)
                .help("for no limit write \"off\""));
        }
        if count > COUNT_MAX || u64::from(count) > most {
            return Err(Problem::new(
                "the rate is above 10,000,000 a second, or the number above a billion",
            ));
        }
        Ok(Rate { count, window })
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}/s\" for so many a second"))
    }
}

/// Parses `s`, `m`, `10s`: a unit, or a number of it.
fn parse_window(text: &str) -> Result<Duration, Problem> {
    const HELP: &str = "write s, m, h or d, or a number of these: \"10s\"";
    let words = [
        ("sec", "s"),
        ("second", "s"),
        ("min", "m"),
        ("minute", "m"),
        ("hour", "h"),
        ("day", "d"),
    ];
    if let Some((_, unit)) = words.iter().find(|(word, _)| *word == text) {
        return Err(Problem::new(format!("`{text}` is not a unit of time"))
            .help(format!("write \"/{unit}\"")));
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if !["s", "m", "h", "d"].contains(&unit) {
        return Err(Problem::new(format!("`{text}` is not a time to count over")).help(HELP));
    }
    let number = if number.is_empty() { "1" } else { number };
    let window = units::duration(&format!("{number}{unit}"))?;
    if window.is_zero() || window > WINDOW_MAX {
        return Err(Problem::new("a limit counts over 1s to 365d"));
    }
    Ok(window)
}

impl fmt::Display for Rate {
    /// Writes the rate as a file would.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = units::show_duration(self.window);
        let unit = window
            .strip_prefix('1')
            .filter(|rest| rest.len() == 1)
            .unwrap_or(&window);
        write!(f, "{}/{unit}", self.count)
    }
}
