//! `security_headers`: fields that make browsers careful with an answer.

use weir_proto_h1::{Edits, FieldId, Head};

use super::{AnswerView, Facts, Verdict};

/// The fields of one route. Each is `None` if it is off.
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    /// The fields and their values, without `Strict-Transport-Security`.
    plain: Box<[(&'static str, Box<str>)]>,
    hsts: Option<Box<str>>,
}

const HSTS: &str = "Strict-Transport-Security";

impl SecurityHeaders {
    /// Compiles the fields of a route.
    #[must_use]
    pub fn compile(fields: &weir_config::SecurityHeaders) -> Self {
        let plain = [
            (
                "X-Content-Type-Options",
                fields.nosniff.then_some("nosniff"),
            ),
            ("X-Frame-Options", fields.frame.map(|frame| frame.as_str())),
            (
                "Referrer-Policy",
                fields.referrer.map(|policy| policy.as_str()),
            ),
        ];
        let plain = plain.into_iter();
        let plain = plain.filter_map(|(name, value)| Some((name, value?.into())));
        Self {
            plain: plain.collect(),
            hsts: fields.hsts.as_deref().map(Into::into),
        }
    }

    /// Adds the fields that the answer has not.
    pub fn edit_answer(&self, facts: &Facts, answer: &mut AnswerView<'_>) {
        for (name, value) in self.fields(facts) {
            if !has_field(answer.head, answer.block, answer.edits, name) {
                answer.edits.append(name, value);
            }
        }
    }

    /// Says which fields an answer gets.
    pub fn explain(&self, facts: &Facts) -> Verdict {
        Verdict::Does(self.explain_answer(facts))
    }

    /// Says which fields an answer gets.
    pub fn explain_answer(&self, facts: &Facts) -> String {
        let fields = self
            .fields(facts)
            .map(|(name, value)| format!("{name}: {value}"));
        let text = fields.collect::<Vec<_>>().join(", add ");
        match text.is_empty() {
            true => "nothing without TLS".to_owned(),
            false => format!("response: add {text}; an endpoint's own field stays"),
        }
    }

    //= rfc6797#7.2
    // An answer without TLS must not have the field.
    fn fields(&self, facts: &Facts) -> impl Iterator<Item = (&str, &str)> {
        let hsts = self.hsts.as_deref().filter(|_| facts.is_https);
        let hsts = hsts.map(|value| (HSTS, value));
        let plain = self.plain.iter().map(|(name, value)| (*name, &**value));
        hsts.into_iter().chain(plain)
    }
}

/// Whether the answer has a field of this name: the endpoint's, if no edit removes it, or an added one.
fn has_field(head: &Head, block: &[u8], edits: &Edits, name: &str) -> bool {
    let is_named = |other: &[u8]| other.eq_ignore_ascii_case(name.as_bytes());
    edits.iter().any(|(added, _)| is_named(added))
        || head.find_name(name.as_bytes(), block).is_some()
            && !edits.removes(FieldId::from_name(name.as_bytes()), name.as_bytes())
}

#[cfg(test)]
mod tests;
