//! The name of a cookie.

use crate::decode::kinds::TextKind;
use crate::text::problem::Problem;
use crate::value::field::is_token;

/// The name of a cookie.
pub(crate) struct CookieNameText;

impl TextKind for CookieNameText {
    type Value = String;
    const NOUN: &'static str = "the name of a cookie";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    const EXAMPLES: &'static [&'static str] = &["session"];

    //= rfc6265#4.1.1
    // The name of a cookie is a token.
    fn parse(text: &str) -> Result<String, Problem> {
        match is_token(text) {
            true => Ok(text.to_owned()),
            false => Err(Problem::new(format!(
                "`{text}` is not the name of a cookie"
            ))),
        }
    }
}
