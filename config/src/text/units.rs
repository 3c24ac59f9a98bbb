//! Text with units: durations, sizes, rates, shares. A number without its unit is never valid, because its reader would
//! have to guess.

use std::time::Duration;

use crate::text::problem::Problem;

/// The longest duration.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses `5s`, `250ms`, `1m30s`: whole numbers with units d, h, m, s, ms, largest first.
pub(crate) fn duration(text: &str) -> Result<Duration, Problem> {
    if text.is_empty() {
        return Err(Problem::new("the duration is empty").help("write one such as \"5s\""));
    }
    let mut rest = text;
    let mut total_ms = 0_u64;
    let mut below_ms = u64::MAX;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let (digits, unit, after) = split_number(rest);
        let Ok(number) = digits.parse::<u64>() else {
            return Err(not_a_number(text, digits, at, "duration"));
        };
        if unit.is_empty() && !after.is_empty() {
            return Err(not_a_number(text, "", at, "duration"));
        }
        let Some((_, unit_ms)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(bad_time_unit(text, digits, unit, at));
        };
        if *unit_ms >= below_ms {
            return Err(Problem::new(format!("unit `{unit}` is out of order"))
                .at(at, digits.len() + unit.len())
                .help("write larger units first, each once: \"1m30s\""));
        }
        below_ms = *unit_ms;
        total_ms = number
            .checked_mul(*unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|ms| Duration::from_millis(*ms) <= DURATION_MAX)
            .ok_or_else(|| Problem::new("the duration is longer than 365 days"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Parses `10MiB`, `16KiB`, `1MB`, `512B`: a whole number with a unit.
pub(crate) fn size(text: &str) -> Result<u64, Problem> {
    if text.is_empty() {
        return Err(Problem::new("the size is empty").help("write one such as \"16KiB\""));
    }
    let (digits, unit, after) = split_number(text);
    let Ok(number) = digits.parse::<u64>() else {
        return Err(not_a_number(text, digits, 0, "size"));
    };
    if !after.is_empty() {
        return Err(not_a_number(text, "", text.len() - after.len(), "size"));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let at = digits.len();
        let near = SIZE_UNITS
            .iter()
            .filter(|(name, _)| name.len() > 1)
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(name, _)| *name)
            .or(match unit {
                "" | "b" => Some("B"),
                "k" | "K" | "ki" | "Ki" => Some("KiB"),
                "m" | "M" | "mi" | "Mi" => Some("MiB"),
                "g" | "G" | "gi" | "Gi" => Some("GiB"),
                _ => None,
            });
        let problem = if unit.is_empty() {
            Problem::new(format!("`{text}` has no unit"))
        } else {
            Problem::new(format!("`{unit}` is not a unit of size")).at(at, unit.len())
        };
        return Err(match near {
            Some(near) => problem.help(format!("write \"{digits}{near}\"")),
            None => problem.help("write B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"),
        });
    };
    number
        .checked_mul(*factor)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Problem::new("the size is larger than 2^63 - 1 bytes"))
}

/// Parses `240B/s`: a size per second.
pub(crate) fn byte_rate(text: &str) -> Result<u64, Problem> {
    match text.strip_suffix("/s") {
        Some(each) => size(each),
        None => Err(Problem::new(format!("`{text}` is not a rate")).help("write \"240B/s\"")),
    }
}

/// Parses `20%`: whole percent from 0 to 100.
pub(crate) fn percent(text: &str) -> Result<u32, Problem> {
    let digits = text
        .strip_suffix('%')
        .ok_or_else(|| Problem::new(format!("`{text}` is not a share")).help("write \"20%\""))?;
    match digits.parse::<u32>() {
        Ok(number) if number <= 100 && is_digits(digits) => Ok(number),
        _ => Err(Problem::new(format!("`{text}` is not a share"))
            .help("write whole percent from 0% to 100%")),
    }
}

/// Writes a duration as a file would.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in TIME_UNITS {
        let number = rest_ms / unit_ms;
        // "75s" is easier to read than "1m15s", so a larger unit is used only if nothing remains.
        let whole = rest_ms.is_multiple_of(unit_ms) || unit_ms <= 1_000;
        if number > 0 && whole {
            text.push_str(&format!("{number}{unit}"));
            rest_ms %= unit_ms;
        }
    }
    text
}

/// Writes a size as a file would.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let largest = SIZE_UNITS
        .iter()
        .rev()
        .find(|(unit, factor)| {
            bytes >= *factor && bytes.is_multiple_of(*factor) && unit.contains('i')
        })
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{}", bytes / largest.1, largest.0)
}

/// Splits a text into leading digits, the letters after them, and the rest.
fn split_number(text: &str) -> (&str, &str, &str) {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_end);
    let word_end = rest
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(rest.len());
    let (word, after) = rest.split_at(word_end);
    (digits, word, after)
}

fn not_a_number(text: &str, digits: &str, at: usize, noun: &str) -> Problem {
    if !digits.is_empty() {
        return Problem::new("the number is too large").at(at, digits.len());
    }
    let example = if noun == "size" { "10MiB" } else { "1m30s" };
    let help = if text.contains(['.', ',']) {
        format!("write whole numbers, with a smaller unit for fractions: \"{example}\"")
    } else if text.contains(char::is_whitespace) {
        format!("write it without spaces: \"{example}\"")
    } else {
        format!("write it like \"{example}\"")
    };
    Problem::new(format!("`{text}` is not a {noun}")).help(help)
}

fn bad_time_unit(text: &str, digits: &str, unit: &str, at: usize) -> Problem {
    if unit.is_empty() {
        return Problem::new(format!("`{text}` has a number without a unit"))
            .at(at, digits.len())
            .help(format!(
                "write \"{digits}s\" for seconds, \"{digits}ms\" for milliseconds"
            ));
    }
    let near = match unit.to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" | "s" => Some("s"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hour" | "hours" | "hr" | "hrs" | "h" => Some("h"),
        "day" | "days" | "d" => Some("d"),
        "msec" | "millis" | "ms" | "milliseconds" => Some("ms"),
        _ => None,
    };
    let problem =
        Problem::new(format!("`{unit}` is not a unit of time")).at(at + digits.len(), unit.len());
    match near {
        Some(near) => problem.help(format!("write \"{digits}{near}\"")),
        None => problem.help("write d, h, m, s or ms"),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
