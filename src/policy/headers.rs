//! `headers`: what Weir removes from requests and answers, sets in them and adds to them.

use std::fmt::Write as _;

use weir_config::{FieldRules, HeaderRules, PathMatch};
use weir_proto_h1::Edits;

use super::variables::{Template, Variables};
use super::{AnswerView, AttemptFacts, Facts, StepRequest, Verdict};

/// The rules of one route.
#[derive(Clone, Debug)]
pub struct Headers {
    request: FieldChanges,
    response: FieldChanges,
    /// The rules in words, for requests and for answers; empty without any.
    texts: [Box<str>; 2],
}

/// The rules of one direction.
#[derive(Clone, Debug, Default)]
struct FieldChanges {
    remove: Box<[Box<str>]>,
    set: Box<[FieldTemplate]>,
    add: Box<[FieldTemplate]>,
}

/// A field to write.
#[derive(Clone, Debug)]
struct FieldTemplate {
    name: Box<str>,
    value: Template,
}

impl Headers {
    /// Compiles the rules of a route whose match has these paths.
    ///
    /// # Errors
    /// A parameter that one of the paths does not have.
    pub fn compile(rules: &HeaderRules, paths: &[PathMatch]) -> Result<Self, String> {
        let directions = [("request", &rules.request), ("response", &rules.response)];
        Ok(Self {
            request: FieldChanges::compile(&rules.request, paths)?,
            response: FieldChanges::compile(&rules.response, paths)?,
            texts: directions.map(|(name, rules)| describe(name, rules).into()),
        })
    }

    /// Whether the rules decide about a field of requests: they set it or take it away.
    pub fn sets_request_field(&self, name: &[u8]) -> bool {
        let set = self.request.set.iter().map(|field| &field.name);
        let mut names = self.request.remove.iter().chain(set);
        names.any(|other| other.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Changes the fields of a request.
    pub fn edit_request(
        &self,
        request: &StepRequest<'_>,
        facts: &Facts,
        attempt: AttemptFacts<'_>,
        edits: &mut Edits,
    ) {
        let attempt = Some(attempt);
        let from = Variables {
            request,
            facts,
            attempt,
        };
        self.request.apply(&from, edits);
    }

    /// Changes the fields of an answer.
    pub fn edit_answer(
        &self,
        request: &StepRequest<'_>,
        facts: &Facts,
        answer: &mut AnswerView<'_>,
    ) {
        let from = Variables {
            request,
            facts,
            attempt: answer.attempt,
        };
        self.response.apply(&from, answer.edits);
    }

    /// Says what the rules are.
    pub fn explain(&self) -> Verdict {
        let texts = self.texts.iter().filter(|text| !text.is_empty());
        let texts: Vec<_> = texts.map(|text| &**text).collect();
        Verdict::Does(texts.join("; "))
    }

    /// Says what the rules do with answers; `None` for nothing.
    pub fn explain_answer(&self) -> Option<String> {
        let [_, response] = &self.texts;
        (!response.is_empty()).then(|| response.to_string())
    }
}

impl FieldChanges {
    fn compile(rules: &FieldRules, paths: &[PathMatch]) -> Result<Self, String> {
        let compile = |fields: &[weir_config::FieldRule]| {
            let fields = fields.iter().map(|field| {
                Ok(FieldTemplate {
                    name: field.name.as_str().into(),
                    value: Template::compile(&field.value, paths)?,
                })
            });
            fields.collect::<Result<_, String>>()
        };
        Ok(Self {
            remove: rules
                .remove
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            set: compile(&rules.set)?,
            add: compile(&rules.add)?,
        })
    }

    fn apply(&self, from: &Variables<'_>, edits: &mut Edits) {
        for name in &self.remove {
            edits.remove(&**name);
        }
        for field in &self.set {
            edits.remove(&*field.name);
        }
        for field in self.set.iter().chain(&self.add) {
            edits.append_unless_empty(&field.name, |out| field.value.put(from, out));
        }
    }
}

/// The rules of one direction in words; empty if there are none.
fn describe(direction: &str, rules: &FieldRules) -> String {
    let mut text = String::new();
    let mut say = |word: &str, what: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = match text.is_empty() {
            true => write!(text, "{direction}: {word} {what}"),
            false => write!(text, ", {word} {what}"),
        };
    };
    for name in &rules.remove {
        say("remove", format_args!("{name}"));
    }
    for field in &rules.set {
        say("set", format_args!("{}: {}", field.name, field.value));
    }
    for field in &rules.add {
        say("add", format_args!("{}: {}", field.name, field.value));
    }
    text
}

#[cfg(test)]
mod tests;
