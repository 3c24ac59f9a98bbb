//! What the process itself is: whose it is, and how others find it.

use std::path::PathBuf;

use crate::decode::{Decoder, Kind, Value};
use crate::diagnostic::Place;
use crate::kinds::Text;
use crate::shape::Shape;
use crate::tls::NamedFile;
use crate::units::Problem;

/// A user or a group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, or the number in decimal digits.
    pub name: String,
    /// Where it is named; nowhere when there is no file of configuration.
    pub place: Option<Place>,
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

impl Kind for AccountKind {
    type Value = Account;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<Account> {
        Some(Account {
            name: AccountText::decode(value, cx)?,
            place: Some(cx.place(&value.span())),
        })
    }

    fn shape() -> Shape {
        AccountText::shape()
    }
}

struct AccountText;

impl Text for AccountText {
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

/// The absolute path of a file, with its place.
pub(crate) struct AbsoluteFile;

impl Kind for AbsoluteFile {
    type Value = NamedFile;

    fn decode(value: &Value<'_>, cx: &mut Decoder<'_>) -> Option<NamedFile> {
        Some(NamedFile {
            path: AbsolutePath::decode(value, cx)?,
            place: Some(cx.place(&value.span())),
        })
    }

    fn shape() -> Shape {
        AbsolutePath::shape()
    }
}

struct AbsolutePath;

impl Text for AbsolutePath {
    type Value = PathBuf;
    const NOUN: &'static str = "an absolute path";
    const PATTERN: Option<&'static str> = Some("^/.*[^/]$");
    const EXAMPLES: &'static [&'static str] = &["/run/weir/weir.pid"];

    fn parse(text: &str) -> Result<PathBuf, Problem> {
        if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') {
            let problem = Problem::new(format!("`{text}` is no absolute path of a file"));
            return Err(problem.help("for example \"/run/weir/weir.pid\""));
        }
        Ok(PathBuf::from(text))
    }
}
