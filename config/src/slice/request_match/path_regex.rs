//! Regular expressions over whole paths.

use regex_automata::MatchKind;
use regex_automata::dfa::dense::{self, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, nfa::thompson};

use crate::decode::decoder::Decoder;
use crate::decode::kinds::{LongForm, TextKind};
use crate::decode::table::{frame, table};
use crate::slice::request_match::path::{PathMatch, hex_octet, is_unreserved};
use crate::text::problem::Problem;
use crate::value::regex::{RegexPattern, RegexText};

/// The most regular expressions over paths in a file. Each costs time to compile.
pub(crate) const PATH_REGEXES_MAX: usize = 500;

/// The largest automaton of one expression, in bytes: some 1,000 states.
const ALONE_BYTES_MAX: usize = 128 * 1024;

/// The largest automaton of several expressions, in bytes.
const TOGETHER_BYTES_MAX: usize = 1024 * 1024;

/// The memory for building an automaton, as a multiple of its size.
const BUILDING_FACTOR: usize = 4;

table! {
    /// A path by a regular expression.
    RawPathRegex, "path", "path of match" {
        /// A regular expression that describes the whole path, in its normal form ([paths.md](paths.md)). It has the
        /// syntax of Rust's `regex` crate.
        required regex: RegexPattern = "regex" as PathRegexText;
    }
}

impl LongForm for RawPathRegex {
    type Out = PathMatch;

    fn build(table: Self, _cx: &mut Decoder<'_>) -> Option<PathMatch> {
        Some(PathMatch::Regex(table.regex))
    }
}

/// A regular expression that describes the whole path.
pub(crate) struct PathRegexText;

impl TextKind for PathRegexText {
    type Value = RegexPattern;
    const NOUN: &'static str = "a regular expression";
    const EXAMPLES: &'static [&'static str] = &["/v[0-9]+/.*", "/.*\\.(css|js)"];

    fn parse(text: &str) -> Result<RegexPattern, Problem> {
        let regex = RegexText::parse(text)?;
        check_octets(text)?;
        let automaton = build([&regex], ALONE_BYTES_MAX).map_err(|error| {
            match error.is_size_limit_exceeded() {
                true => Problem::new("the regular expression needs too many states")
                    .help("write it without a counted repetition behind a star, or use several routes"),
                false => Problem::new("the regular expression uses Unicode, and paths are ASCII")
                    .help("leave out `\\p`, `\\X` and `(?u)`; other characters stand as \"%C3%A9\" in a path"),
            }
        })?;
        if begins_dead(&automaton) {
            return Err(Problem::new("the regular expression matches no path")
                .help("a path begins with a slash, and the expression describes all of it"));
        }
        Ok(regex)
    }
}

/// Reports octets that no path in normal form has.
fn check_octets(text: &str) -> Result<(), Problem> {
    if let Some((at, odd)) = text.char_indices().find(|(_, c)| !c.is_ascii()) {
        let encoded: String = odd
            .encode_utf8(&mut [0; 4])
            .bytes()
            .map(|octet| format!("%{octet:02X}"))
            .collect();
        return Err(
            Problem::new(format!("a path does not contain {odd:?} as it is"))
                .at(at, odd.len_utf8())
                .help(format!("write \"{encoded}\"")),
        );
    }
    for (at, _) in text.match_indices('%') {
        let Some(digits) = text.get(at + 1..at + 3) else {
            continue;
        };
        let Some(octet) = hex_octet(digits) else {
            continue;
        };
        let normal = match octet {
            octet if is_unreserved(octet) => char::from(octet).to_string(),
            octet => format!("%{octet:02X}"),
        };
        if text.get(at..at + 3) != Some(&normal) {
            return Err(Problem::new(format!(
                "`%{digits}` matches nothing: Weir matches the normal form"
            ))
            .at(at, 3)
            .help(format!("write \"{normal}\"")));
        }
    }
    Ok(())
}

/// Whether no path leads anywhere.
fn begins_dead(automaton: &DFA<Vec<u32>>) -> bool {
    let next = |state: StateID| automaton.next_state(state, b'/');
    let anchored = start::Config::new().anchored(Anchored::Yes);
    let after_slash = automaton.start_state(&anchored).map(next);
    after_slash.is_ok_and(|state| automaton.is_dead_state(state))
}

/// One automaton for all of `regexes`, in which they have the numbers 0, 1 and so on; `None` if it would be too large.
/// One expression alone always fits. Walk it from the anchored start over the whole path: the state at the end of input
/// has the numbers of the expressions that match.
#[must_use]
pub fn path_automaton(regexes: &[&RegexPattern]) -> Option<DFA<Vec<u32>>> {
    build(regexes.iter().copied(), TOGETHER_BYTES_MAX).ok()
}

fn build<'r>(
    regexes: impl IntoIterator<Item = &'r RegexPattern>,
    bytes_max: usize,
) -> Result<DFA<Vec<u32>>, Box<dense::BuildError>> {
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(bytes_max))
        .determinize_size_limit(Some(BUILDING_FACTOR * bytes_max));
    let texts: Vec<&str> = regexes.into_iter().map(RegexPattern::as_str).collect();
    dense::Builder::new()
        .configure(config)
        // Paths in normal form are ASCII.
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false))
        .build_many(&texts)
        .map_err(Box::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_over_paths() {
        for (text, start) in [
            ("/v[0-9]+/.*", "/v"),
            ("^/api/v1/.*$", "/api/v1/"),
            (r"/.*\.(css|js)", "/"),
            ("/(?<a>users)/x*", "/users/"),
            ("/x|y", ""),
            ("(?i)/A", "/"),
            (".*", ""),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/a%2Fb", "/a%2Fb"),
        ] {
            let regex = PathRegexText::parse(text).expect(text);
            assert_eq!(regex.literal_start(), start, "{text}");
        }
        for text in [
            "",
            "a",
            "[^/].*",
            "/(",
            "/é",
            "/%c3%a9",
            "/%7euser",
            r"/\p{L}+",
            r"/(?u:\w)",
            "/(.*a.{40})*",
            "/[ab]*a[ab]{20}",
        ] {
            assert!(PathRegexText::parse(text).is_err(), "{text}");
        }
    }
}
