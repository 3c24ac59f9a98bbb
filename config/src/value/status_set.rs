//! Sets of HTTP statuses, as a list of numbers and ranges: `"200-299,304"`.

use std::fmt;

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::{Count, TextKind};
use crate::decode::shape::Shape;
use crate::text::problem::Problem;

/// The lowest status of a whole answer: those below announce another one (RFC 9110, section 15.2).
const STATUS_MIN: u16 = 200;
const STATUS_MAX: u16 = 599;

/// A set of statuses from 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusSet {
    /// A bit for each status, from [`STATUS_MIN`] on.
    bits: [u64; 7],
}

impl StatusSet {
    const EMPTY: Self = Self { bits: [0; 7] };

    /// The statuses from `first` to `last`. Those outside 200 to 599 are left out.
    #[must_use]
    pub const fn range(first: u16, last: u16) -> Self {
        let mut set = Self::EMPTY;
        let mut status = if first < STATUS_MIN {
            STATUS_MIN
        } else {
            first
        };
        while status <= last && status <= STATUS_MAX {
            let bit = status - STATUS_MIN;
            set.bits[(bit / 64) as usize] |= 1 << (bit % 64);
            status += 1;
        }
        set
    }

    /// Whether the set has this status.
    #[must_use]
    pub const fn has(&self, status: u16) -> bool {
        if status < STATUS_MIN || status > STATUS_MAX {
            return false;
        }
        let bit = status - STATUS_MIN;
        self.bits[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn add(&mut self, other: &Self) {
        for (own, more) in self.bits.iter_mut().zip(other.bits) {
            *own |= more;
        }
    }
}

impl fmt::Display for StatusSet {
    /// Writes it as a file would, with the longest ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = STATUS_MIN;
        let mut separator = "";
        while let Some(first) = (next..=STATUS_MAX).find(|status| self.has(*status)) {
            let after = (first..=STATUS_MAX).find(|status| !self.has(*status));
            next = after.unwrap_or(STATUS_MAX + 1);
            match next - 1 {
                last if last == first => write!(f, "{separator}{first}")?,
                last => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Statuses and ranges of them, separated by commas.
pub(crate) struct StatusesText;

impl TextKind for StatusesText {
    type Value = StatusSet;
    const NOUN: &'static str = "statuses, separated by commas";
    const PATTERN: Option<&'static str> = Some("^[ ,0-9-]+$");
    const EXAMPLES: &'static [&'static str] = &["200-299,304", "200"];

    fn parse(text: &str) -> Result<StatusSet, Problem> {
        let mut set = StatusSet::EMPTY;
        let mut start = 0;
        for part in text.split(',') {
            let word = part.trim();
            let at = start + (part.len() - part.trim_start().len());
            let range = parse_range(word).map_err(|problem| match word.is_empty() {
                true => problem,
                false => problem.at(at, word.len()),
            })?;
            set.add(&range);
            start += part.len() + 1;
        }
        Ok(set)
    }
}

fn parse_range(word: &str) -> Result<StatusSet, Problem> {
    if let Some(class) = word.strip_suffix("xx").filter(|class| class.len() == 1) {
        return Err(Problem::new(format!("`{word}` is not a status"))
            .help(format!("write {class}00-{class}99")));
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let number = |text: &str| {
        let number = text.trim().parse::<u16>().ok();
        number.filter(|status| (STATUS_MIN..=STATUS_MAX).contains(status))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusSet::range(first, last)),
        (Some(_), Some(_)) => Err(Problem::new(format!("`{word}` ends before it begins"))
            .help(format!("write {last}-{first}"))),
        _ if word.is_empty() => Err(Problem::new("a status is missing between commas")),
        _ => Err(
            Problem::new(format!("`{word}` is neither a status nor a range of them"))
                .help("write statuses from 200 to 599, such as \"200-299,304\""),
        ),
    }
}

/// Statuses as text, a number, or a list of both.
pub(crate) struct StatusesKind;

impl ValueKind for StatusesKind {
    type Value = StatusSet;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<StatusSet> {
        let Some(items) = value.get_ref().as_array() else {
            return decode_one(value, cx);
        };
        let mut set = StatusSet::EMPTY;
        for (index, item) in items.iter().enumerate() {
            let number = (index + 1).to_string();
            set.add(&cx.within(&number, |cx| decode_one(item, cx))?);
        }
        Some(set)
    }

    fn shape() -> Shape {
        let one = || Shape::AnyOf(vec![StatusesText::shape(), StatusCount::shape()]);
        Shape::AnyOf(vec![
            StatusesText::shape(),
            StatusCount::shape(),
            Shape::List(Box::new(one())),
        ])
    }
}

type StatusCount = Count<200, 599>;

fn decode_one(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<StatusSet> {
    if value.get_ref().is_integer() {
        let status = u16::try_from(StatusCount::decode(value, cx)?).ok()?;
        return Some(StatusSet::range(status, status));
    }
    StatusesText::decode(value, cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_its_text_names() {
        let set = StatusesText::parse("200-299, 304").expect("valid");
        for (status, has) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (304, true),
        ] {
            assert_eq!(set.has(status), has, "{status}");
        }
        assert!(!set.has(0) && !set.has(u16::MAX));
        let all = StatusesText::parse("200-599").expect("valid");
        assert!((200..=599).all(|status| all.has(status)));
    }

    #[test]
    fn a_set_is_written_as_it_is_read() {
        for (text, written) in [
            ("200-299,304", "200-299,304"),
            ("204,200,201,202,203", "200-204"),
            ("599", "599"),
            ("200-599", "200-599"),
        ] {
            let set = StatusesText::parse(text).expect("valid");
            assert_eq!(set.to_string(), written, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, at, help) in [
            ("2xx", Some(0..3), "write 200-299"),
            ("200,299-200", Some(4..11), "write 200-299"),
            (
                "200, 99",
                Some(5..7),
                "write statuses from 200 to 599, such as \"200-299,304\"",
            ),
            (
                "200-",
                Some(0..4),
                "write statuses from 200 to 599, such as \"200-299,304\"",
            ),
        ] {
            let problem = StatusesText::parse(text).expect_err("invalid");
            assert_eq!(problem.at, at, "{text}");
            assert_eq!(problem.help.as_deref(), Some(help), "{text}");
        }
        assert!(StatusesText::parse("200,,300").is_err());
    }
}
