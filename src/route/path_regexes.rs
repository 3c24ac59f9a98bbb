//! Regular expressions over paths: those of one host, in as few automata as fit.
//!
//! An automaton is complete: its size is bounded when the file is read, a look-up costs one step a byte, and cores share
//! it without a cache. If all expressions of a host would need too large a one, they are split in halves.

use std::ops::ControlFlow;

use regex_automata::Anchored;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::dense::DFA;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use weir_config::{RegexPattern, path_automaton};

/// The expressions of one host with their entries.
#[derive(Debug)]
pub(super) struct PathRegexes<E>(Vec<Group<E>>);

/// Expressions that are next to each other in the file.
#[derive(Debug)]
struct Group<E> {
    automaton: DFA<Vec<u32>>,
    start: StateID,
    /// The entry of each expression, in file order.
    entries: Box<[E]>,
}

impl<E: Clone> PathRegexes<E> {
    /// Compiles expressions, which are in file order.
    pub(super) fn compile(all: &[(&RegexPattern, E)]) -> Self {
        let mut groups = Vec::new();
        add_groups(all, &mut groups);
        Self(groups)
    }
}

impl<E> PathRegexes<E> {
    /// Visits the entries of the expressions that match `path` as a whole, in file order, until `visit` breaks.
    pub(super) fn visit<'t, B>(
        &'t self,
        path: &[u8],
        visit: &mut impl FnMut(&'t E) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.0.iter().try_for_each(|group| group.visit(path, visit))
    }
}

impl<E> Group<E> {
    fn visit<'t, B>(
        &'t self,
        path: &[u8],
        visit: &mut impl FnMut(&'t E) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let automaton = &self.automaton;
        let mut state = self.start;
        for byte in path {
            state = automaton.next_state(state, *byte);
            if automaton.is_dead_state(state) {
                return ControlFlow::Continue(());
            }
        }
        let end = automaton.next_eoi_state(state);
        if !automaton.is_match_state(end) {
            return ControlFlow::Continue(());
        }
        // The state has its expressions in no order that the library promises.
        let matching = || {
            let indices = 0..automaton.match_len(end);
            indices.map(|index| automaton.match_pattern(end, index).as_usize())
        };
        let mut next = matching().min();
        while let Some(number) = next {
            if let Some(entry) = self.entries.get(number) {
                visit(entry)?;
            }
            next = matching().filter(|other| *other > number).min();
        }
        ControlFlow::Continue(())
    }
}

fn add_groups<E: Clone>(all: &[(&RegexPattern, E)], groups: &mut Vec<Group<E>>) {
    let regexes: Vec<&RegexPattern> = all.iter().map(|(regex, _)| *regex).collect();
    let Some(automaton) = path_automaton(&regexes) else {
        if all.len() > 1 {
            let (first, second) = all.split_at(all.len() / 2);
            add_groups(first, groups);
            add_groups(second, groups);
        }
        return;
    };
    let anchored = start::Config::new().anchored(Anchored::Yes);
    if let Ok(start) = automaton.start_state(&anchored) {
        groups.push(Group {
            automaton,
            start,
            entries: all.iter().map(|(_, entry)| entry.clone()).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::matches;

    /// The expressions among `texts` that match.
    fn found(texts: &[&str], path: &str) -> (usize, Vec<usize>) {
        let lines: String = texts
            .iter()
            .map(|text| format!("{{ path = {{ regex = '{text}' }} }}\n"))
            .collect();
        let specs = matches(&lines);
        let all: Vec<(&RegexPattern, usize)> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| match &spec.paths[0] {
                weir_config::PathMatch::Regex(regex) => (regex, index),
                other => panic!("{other}"),
            })
            .collect();
        let regexes = PathRegexes::compile(&all);
        let mut seen = Vec::new();
        let flow: ControlFlow<()> = regexes.visit(path.as_bytes(), &mut |index| {
            seen.push(*index);
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        (regexes.0.len(), seen)
    }

    #[test]
    fn expressions_describe_whole_paths() {
        let texts = [
            "/a",
            "^/a$",
            "/a|/b",
            "/a.*",
            "(?i)/A",
            "/[^/]+",
            "/a(?:/b)?",
        ];
        assert_eq!(found(&texts, "/a").1, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(found(&texts, "/b").1, [2, 5]);
        assert_eq!(found(&texts, "/ab").1, [3, 5]);
        assert_eq!(found(&texts, "/a/b").1, [3, 6]);
        assert_eq!(found(&texts, "/A").1, [4, 5]);
        assert_eq!(found(&texts, "/").1, [0; 0]);
        assert_eq!(found(&texts, "/a\n").1, [5]);
        assert_eq!(found(&[r"/\bab\b/.*", r"/\Bx"], "/ab/x").1, [0]);
    }

    /// Each expression more doubles the states of one automaton for all.
    #[test]
    fn too_large_an_automaton_is_split() {
        let texts: Vec<String> = (0..40).map(|n| format!("/.*x{n}y.*z{n}w.*")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (groups, seen) = found(&texts, "/x39yz1wx1y_z39w_x7y_x1yz1w");
        assert!((2..20).contains(&groups), "{groups}");
        assert_eq!(seen, [1, 39]);
    }
}
