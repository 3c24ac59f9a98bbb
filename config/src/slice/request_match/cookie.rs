//! Names of cookies in a match.

use crate::decode::decoder::Decoder;
use crate::decode::kinds::{KeyPlaceholder, NamedEntry};
use crate::text::diagnostic::Code;
use crate::value::field::is_token;

/// Names of cookies.
pub(crate) struct CookieName;

impl KeyPlaceholder for CookieName {
    const NAME: &'static str = "COOKIE";
}

/// The cookies by name. Reports and leaves out names that no cookie can have.
//= rfc6265#4.1.1
// The name of a cookie is a token. Its case matters.
pub(crate) fn check_cookie_names<T>(
    entries: Vec<NamedEntry<T>>,
    cx: &mut Decoder<'_>,
) -> Vec<(String, T)> {
    let mut cookies = Vec::with_capacity(entries.len());
    for NamedEntry { name, value } in entries {
        if !is_token(&name.value) {
            let message = format!("`{}` is not the name of a cookie", name.value);
            cx.error(Code::BadValue, name.span, message);
        } else if let Some(value) = value {
            cookies.push((name.value, value));
        }
    }
    cookies
}
