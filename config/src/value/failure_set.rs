//! Sets of failures of endpoints, as a list of words: `"connect,reset,503"`.

use std::fmt;

use crate::decode::kind::WritableKind;
use crate::decode::kinds::TextKind;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::suggest::nearest;

/// A kind of failure that gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Weir could not connect.
    Connect,
    /// The connection or stream ended before the answer.
    Reset,
    /// The answer did not begin in time.
    Timeout,
    /// The answer is not valid HTTP, or its head is too large.
    Invalid,
}

impl FailureKind {
    /// The word that a file has for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
        }
    }
}

const KINDS: [(&str, FailureKind); 4] = [
    ("connect", FailureKind::Connect),
    ("reset", FailureKind::Reset),
    ("timeout", FailureKind::Timeout),
    ("invalid", FailureKind::Invalid),
];

/// The class of all statuses from 500 to 599.
const SERVER_ERRORS: &str = "5xx";

const STATUS_MIN: u16 = 400;
const STATUS_MAX: u16 = 599;

/// A set of failures: kinds, and statuses from 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FailureSet {
    kinds: u8,
    /// A bit for each status, from [`STATUS_MIN`] on.
    statuses: [u64; 4],
}

impl FailureSet {
    /// The set of these kinds and statuses. Statuses outside 400 to 599 are left out.
    #[must_use]
    pub const fn of(kinds: &[FailureKind], statuses: &[u16]) -> Self {
        let mut set = Self {
            kinds: 0,
            statuses: [0; 4],
        };
        let mut i = 0;
        while i < kinds.len() {
            set.kinds |= 1 << kinds[i] as u8;
            i += 1;
        }
        let mut i = 0;
        while i < statuses.len() {
            if let Some((word, bit)) = place(statuses[i]) {
                set.statuses[word] |= bit;
            }
            i += 1;
        }
        set
    }

    /// Whether the set has this kind.
    #[must_use]
    pub const fn has(&self, kind: FailureKind) -> bool {
        self.kinds & (1 << kind as u8) != 0
    }

    /// Whether the set has this status.
    #[inline]
    #[must_use]
    pub const fn has_status(&self, status: u16) -> bool {
        match place(status) {
            Some((word, bit)) => self.statuses[word] & bit != 0,
            None => false,
        }
    }

    fn add(&mut self, other: &Self) {
        self.kinds |= other.kinds;
        for (own, more) in self.statuses.iter_mut().zip(other.statuses) {
            *own |= more;
        }
    }
}

/// The place of a status: the index of its word, and its bit there.
const fn place(status: u16) -> Option<(usize, u64)> {
    if status < STATUS_MIN || status > STATUS_MAX {
        return None;
    }
    let bit = status - STATUS_MIN;
    Some(((bit / 64) as usize, 1 << (bit % 64)))
}

impl fmt::Display for FailureSet {
    /// The words of a file, in a fixed order; `5xx` for all of its statuses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = KINDS.iter().filter(|(_, kind)| self.has(*kind));
        let mut words: Vec<String> = kinds.map(|(word, _)| (*word).to_owned()).collect();
        let has_all = (500..=STATUS_MAX).all(|status| self.has_status(status));
        if has_all {
            words.push(SERVER_ERRORS.to_owned());
        }
        let named = (STATUS_MIN..=STATUS_MAX).filter(|status| self.has_status(*status));
        words.extend(
            named
                .filter(|status| !(has_all && *status >= 500))
                .map(|status| status.to_string()),
        );
        f.write_str(&words.join(","))
    }
}

/// Failures, separated by commas.
pub(crate) struct FailuresText;

impl TextKind for FailuresText {
    type Value = FailureSet;
    const NOUN: &'static str = "failures, separated by commas";
    const PATTERN: Option<&'static str> = Some("^[ ,0-9a-z]+$");
    const EXAMPLES: &'static [&'static str] = &["connect,reset,invalid,503", "connect,reset,5xx"];

    fn parse(text: &str) -> Result<FailureSet, Problem> {
        let mut set = FailureSet::default();
        let mut start = 0;
        for part in text.split(',') {
            let word = part.trim();
            let at = start + (part.len() - part.trim_start().len());
            set.add(&parse_word(word).map_err(|problem| match word.is_empty() {
                true => problem,
                false => problem.at(at, word.len()),
            })?);
            start += part.len() + 1;
        }
        Ok(set)
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}\", in quotes"))
    }
}

fn parse_word(word: &str) -> Result<FailureSet, Problem> {
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == word) {
        return Ok(FailureSet::of(&[*kind], &[]));
    }
    if word == SERVER_ERRORS {
        let mut set = FailureSet::default();
        (500..=STATUS_MAX).for_each(|status| set.add(&FailureSet::of(&[], &[status])));
        return Ok(set);
    }
    match word.parse() {
        Ok(status @ STATUS_MIN..=STATUS_MAX) => Ok(FailureSet::of(&[], &[status])),
        Ok(_) => Err(
            Problem::new(format!("`{word}` is not the status of an error"))
                .help("errors have statuses from 400 to 599"),
        ),
        Err(_) => {
            let known = KINDS.iter().map(|(known, _)| *known);
            let help = match nearest(word, known.chain([SERVER_ERRORS])) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write connect, reset, timeout, invalid, 5xx or a status such as 503, separated by commas".to_owned(),
            };
            let message = match word {
                "" => "a word is missing between commas".to_owned(),
                _ => format!("`{word}` is not a failure"),
            };
            Err(Problem::new(message).help(help))
        }
    }
}

impl WritableKind for FailuresText {
    fn to_json(value: &FailureSet) -> Json {
        Json::text(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kinds_statuses_and_a_class() {
        let set = FailuresText::parse("connect, 503,429").expect("valid");
        assert!(set.has(FailureKind::Connect) && !set.has(FailureKind::Reset));
        assert!(set.has_status(503) && set.has_status(429) && !set.has_status(502));
        let all = FailuresText::parse("5xx,invalid").expect("valid");
        assert!(all.has_status(500) && all.has_status(599) && !all.has_status(499));
        for status in [0, 200, 399, 600, u16::MAX] {
            assert!(!all.has_status(status));
        }
    }

    #[test]
    fn a_set_is_written_as_it_is_read() {
        for text in [
            "connect,reset,timeout,invalid,400,503,599",
            "5xx",
            "reset,429,5xx",
        ] {
            let set = FailuresText::parse(text).expect("valid");
            let again = FailuresText::parse(&set.to_string()).expect("valid");
            assert_eq!(set, again, "{text}");
        }
        let set = FailuresText::parse("503, connect").expect("valid");
        assert_eq!(set.to_string(), "connect,503");
    }

    #[test]
    fn unknown_words_are_named() {
        for (text, at, help) in [
            ("connect,resets", Some(8..14), "did you mean `reset`?"),
            ("200", Some(0..3), "errors have statuses from 400 to 599"),
            ("connect, 4xx", Some(9..12), "did you mean `5xx`?"),
        ] {
            let problem = FailuresText::parse(text).expect_err("invalid");
            assert_eq!(problem.at, at, "{text}");
            assert_eq!(problem.help.as_deref(), Some(help), "{text}");
        }
        assert!(FailuresText::parse("connect,,reset").is_err());
        assert!(FailuresText::parse("").is_err());
    }
}
