//! `user` and `group`: whose rights Weir has.

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
    /// Where it is named; nowhere when there is no file of configuration.
    pub excerpt: Option<Excerpt>,
}

impl Account {
    /// The number, if it is given as one.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.name.parse().ok()
    }
}

/// [`Account`] with its place.
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
            let problem = Problem::new(format!("`{text}` is no name of a user or a group"));
            return Err(problem.help("a name such as \"weir\", or a number in quotes"));
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        // The largest number means "unchanged" to the system.
        if is_number && !text.parse().is_ok_and(|number: u32| number < u32::MAX) {
            return Err(Problem::new(format!(
                "`{text}` is larger than any user's or group's number"
            )));
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
        cx.error(Code::MissingKey, span, "`group` goes with `user`")
            .help("add `user`, whose rights Weir is to have");
    }
}
