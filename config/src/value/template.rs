//! Values of header fields with variables in them.

use std::fmt;

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::braces::{BracePiece, split_braces};
use crate::value::field::{FieldValueText, is_token};
use crate::value::variable::Variable;

/// A value that requests fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTemplate(pub Vec<ValuePiece>);

/// A part of a [`ValueTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePiece {
    /// These characters.
    Text(String),
    /// What the request has for this variable.
    Variable(Variable),
    /// `{env:NAME}`: a variable of Weir's environment, read when the file was loaded.
    Env {
        /// Its name.
        name: String,
        /// What it held.
        value: String,
    },
}

impl ValueTemplate {
    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|piece| match piece {
            ValuePiece::Variable(variable) => Some(variable),
            ValuePiece::Text(_) | ValuePiece::Env { .. } => None,
        })
    }
}

impl fmt::Display for ValueTemplate {
    /// Writes the value as a file would. What the environment held does not appear, because it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                ValuePiece::Text(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                ValuePiece::Variable(variable) => write!(f, "{variable}")?,
                ValuePiece::Env { name, .. } => write!(f, "{{env:{name}}}")?,
            }
        }
        Ok(())
    }
}

/// The value of a header field, with variables.
pub(crate) struct ValueTemplateText;

impl TextKind for ValueTemplateText {
    type Value = ValueTemplate;
    const NOUN: &'static str = "a value with variables";
    const EXAMPLES: &'static [&'static str] = &["{client_ip}", "{scheme}://{host}{path}{query}"];

    fn parse(text: &str) -> Result<ValueTemplate, Problem> {
        FieldValueText::parse(text)?;
        let no_partner = |at| {
            Problem::new("a brace is missing its partner")
                .at(at, 1)
                .help("put the name of a variable in braces, or double the brace to mean itself")
        };
        let mut pieces = Vec::new();
        for (at, piece) in split_braces(text).map_err(no_partner)? {
            let named = match piece {
                BracePiece::Text(text) | BracePiece::Brace(text) => {
                    match pieces.last_mut() {
                        Some(ValuePiece::Text(before)) => before.push_str(text),
                        _ => pieces.push(ValuePiece::Text(text.to_owned())),
                    }
                    continue;
                }
                BracePiece::Name(name) => match name.strip_prefix("env:") {
                    Some(name) => read_env(name),
                    None => Variable::parse(name).map(ValuePiece::Variable),
                },
            };
            pieces.push(named.map_err(|problem| problem.at(at, piece.length()))?);
        }
        Ok(ValueTemplate(pieces))
    }
}

/// What the environment has by this name.
fn read_env(name: &str) -> Result<ValuePiece, Problem> {
    // `std::env::var` would look for such a name in vain.
    if !is_token(name) {
        let message = format!("`{name}` is not the name of an environment variable");
        return Err(Problem::new(message));
    }
    let value = match std::env::var(name) {
        Ok(value) => value,
        Err(std::env::VarError::NotPresent) => {
            let message = format!("the environment variable `{name}` is not set");
            return Err(
                Problem::new(message).help("set it for Weir's process; `weir check` needs it too")
            );
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            let message = format!("the environment variable `{name}` is not UTF-8");
            return Err(Problem::new(message));
        }
    };
    if FieldValueText::parse(&value).is_err() {
        let message = format!(
            "the environment variable `{name}` has control characters, or a blank at its ends"
        );
        return Err(Problem::new(message).help("a header field cannot hold them"));
    }
    Ok(ValuePiece::Env {
        name: name.to_owned(),
        value,
    })
}

#[cfg(test)]
mod tests;
