//! Regular expressions.

use regex_automata::nfa::thompson::NFA;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_syntax::hir::{Hir, HirKind};
use regex_syntax::{Parser, ParserBuilder};

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;

/// The longest regular expression, in bytes.
const REGEX_TEXT_BYTES_MAX: usize = 4 * 1024;

/// The largest automaton that one regular expression may become, in bytes. Counted repetitions of classes grow quickly.
const REGEX_AUTOMATON_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression in the syntax of Rust's `regex` crate, which has neither look-around nor back-references, so that
/// matching takes linear time. It describes whole values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegexPattern(String);

impl RegexPattern {
    /// The expression as the file writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it describes this value. For checks of a file: it compiles the expression each time.
    pub(crate) fn matches(&self, value: &str) -> bool {
        PikeVM::new(&self.anchored()).is_ok_and(|vm| vm.is_match(&mut vm.create_cache(), value))
    }

    /// The expression with anchors at both ends.
    #[must_use]
    pub fn anchored(&self) -> String {
        anchored(&self.0)
    }

    /// The beginning of every text that matches as a whole. Empty if there is none, or if it is not ASCII.
    pub(crate) fn literal_start(&self) -> String {
        let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
        let mut start = Vec::new();
        if let Ok(hir) = parser.parse(&self.0) {
            push_literal(&hir, &mut start);
        }
        String::from_utf8(start).unwrap_or_default()
    }
}

/// Appends the text that every match begins with. Returns whether that is the whole match.
fn push_literal(hir: &Hir, out: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            out.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => push_literal(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().all(|part| push_literal(part, out)),
        HirKind::Class(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

fn anchored(text: &str) -> String {
    format!(r"\A(?:{text})\z")
}

/// A regular expression.
pub(crate) struct RegexText;

impl TextKind for RegexText {
    type Value = RegexPattern;
    const NOUN: &'static str = "a regular expression";
    const EXAMPLES: &'static [&'static str] = &["https://[a-z]+\\.example\\.com"];

    fn parse(text: &str) -> Result<RegexPattern, Problem> {
        if text.is_empty() {
            return Err(Problem::new("the regular expression is empty"));
        }
        if text.len() > REGEX_TEXT_BYTES_MAX {
            let message = format!(
                "the regular expression has {} bytes, the most is {REGEX_TEXT_BYTES_MAX}",
                text.len()
            );
            return Err(Problem::new(message));
        }
        // Alone first: `a)|(?:b` would be valid between the parentheses of the anchored form.
        Parser::new().parse(text).map_err(|error| explain(&error))?;
        let config = NFA::config().nfa_size_limit(Some(REGEX_AUTOMATON_BYTES_MAX));
        let built = NFA::compiler().configure(config).build(&anchored(text));
        built.map_err(|error| match error.size_limit() {
            Some(_) => Problem::new("the regular expression is too large once compiled")
                .help("shorten its counted repetitions: each `{n}` stands for n copies"),
            None => Problem::new("the regular expression cannot be anchored")
                .help("leave out the comment at its end"),
        })?;
        Ok(RegexPattern(text.to_owned()))
    }
}

/// What is wrong with an expression, and where.
fn explain(error: &regex_syntax::Error) -> Problem {
    let (what, at) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), Some(error.span())),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), Some(error.span())),
        _ => (error.to_string(), None),
    };
    let problem = Problem::new(format!("not a regular expression: {what}"));
    match at.map(|span| (span.start.offset, span.end.offset)) {
        Some((start, end)) if start < end => problem.at(start, end - start),
        _ => problem,
    }
}

#[cfg(test)]
mod tests;
