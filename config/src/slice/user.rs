//! `user` and `group`: the account that Weir runs as.

use crate::decode::decoder::{Decoder, Value};
use crate::decode::kind::ValueKind;
use crate::decode::kinds::TextKind;
use crate::decode::shape::Shape;
use crate::text::diagnostic::{Code, Excerpt};
use crate::text::problem::Problem;
use crate::text::source::Span;

/// A user or a group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, or the number in decimal digits.
    pub name: String,
    /// The line that names it; `None` without a configuration file.
    pub excerpt: Option<Excerpt>,
}

impl Account {
    /// The number, if the file gives one.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.name.parse().ok()
    }
}

/// An [`Account`] with its excerpt.
pub(crate) struct AccountKind;

impl ValueKind for AccountKind {
    type Value = Account;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Account> {
        Some(Account {
            name: AccountText::decode(value, cx)?,
            excerpt: Some(cx.excerpt(&value.span())),
        })
    }

    fn shape() -> Shape {
        AccountText::shape()
    }
}

struct AccountText;

impl TextKind for AccountText {
    type Value = String;
    const NOUN: &'static str = "a name or a number";
    const PATTERN: Option<&'static str> = Some("^[^:/\\s,]+$");
    const EXAMPLES: &'static [&'static str] = &["weir", "1000"];

    fn parse(text: &str) -> Result<String, Problem> {
        let is_wrong =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
        if text.is_empty() || text.contains(is_wrong) {
            let problem = Problem::new(format!("`{text}` is not the name of a user or a group"));
            return Err(problem.help("write a name such as \"weir\", or a number in quotes"));
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        // The largest number means "unchanged" to setresuid(2).
        if is_number && !text.parse().is_ok_and(|number: u32| number < u32::MAX) {
            let problem = Problem::new(format!("`{text}` is too large for a user or a group"));
            return Err(problem.help("write a number below 4294967295"));
        }
        Ok(text.to_owned())
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("write \"{number}\""))
    }
}

/// Reports a `group`, at `span`, that has no `user` beside it.
pub(crate) fn check_group(
    user: Option<&Account>,
    group: Option<&Account>,
    span: Option<Span>,
    cx: &mut Decoder<'_>,
) {
    if let (None, Some(_)) = (user, group) {
        let span = span.unwrap_or_default();
        cx.error(Code::MissingKey, span, "`group` has no `user` beside it")
            .help("add `user`, the account that Weir is to run as");
    }
}
