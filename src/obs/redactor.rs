//! Removes secrets from queries, addresses and fields before they are logged.

use std::borrow::Cow;
use std::collections::HashSet;

/// Replaces a secret.
const REDACTED: &[u8] = b"REDACTED";

/// Names of parameters that hold a secret, alone or as words of a longer name in any spelling. `api_key` also matches
/// `X-Api-Key`, `apiKey` and `google-api-key-2`.
pub(super) const SECRETS: [&str; 25] = [
    "api_key",
    "auth",
    "authorization",
    "bearer",
    "credential",
    "credentials",
    "csrf",
    "jsessionid",
    "jwt",
    "otp",
    "pass",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "phpsessid",
    "private_key",
    "pwd",
    "secret",
    "session",
    "session_id",
    "sessionid",
    "sig",
    "signature",
    "token",
];

/// How many words of a name are joined to match a secret's name.
const WORDS_MAX: usize = 3;

/// How often a name or value is decoded before it is checked, because some endpoints decode twice.
const DECODINGS_MAX: usize = 3;

/// The secrets to replace.
#[derive(Clone, Debug)]
pub struct Redactor {
    /// The configured names, without case and punctuation; `None` replaces nothing.
    named: Option<HashSet<String>>,
    known: HashSet<String>,
}

impl Redactor {
    /// Replaces the values of `named` parameters and of those that are known to hold secrets; `None` replaces nothing.
    pub fn new(named: Option<&[String]>) -> Self {
        Self {
            named: named.map(|names| names.iter().map(|name| fold(name.as_bytes())).collect()),
            known: SECRETS.iter().map(|name| fold(name.as_bytes())).collect(),
        }
    }

    /// A query without its secrets.
    pub(super) fn query<'a>(&self, query: &'a [u8]) -> Cow<'a, [u8]> {
        self.pieces(query, b"&;?#")
    }

    /// A path without the secrets in parameters of its segments.
    pub(super) fn path<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        if path.contains(&b';') {
            self.pieces(path, b"/;")
        } else {
            Cow::Borrowed(path)
        }
    }

    /// An address, or a text that contains one, without the secrets in its user information, query and fragment.
    pub(super) fn address<'a>(&self, address: &'a [u8]) -> Cow<'a, [u8]> {
        let start = address.iter().position(|byte| b"?#".contains(byte));
        let (front, back) = address.split_at(start.unwrap_or(address.len()));
        let (front, back) = (self.path_of_address(front), self.query(back));
        match (front, back) {
            (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(address),
            (front, back) => [&*front, &*back].concat().into(),
        }
    }

    fn path_of_address<'a>(&self, front: &'a [u8]) -> Cow<'a, [u8]> {
        let authority = find(front, b"//").map(|at| at + 2);
        let named = authority
            .filter(|_| self.named.is_some())
            .and_then(|start| {
                let rest = front.get(start..)?;
                let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
                let at = rest.get(..end)?.iter().rposition(|&b| b == b'@')?;
                Some((front.get(..start)?, rest.get(at..)?))
            });
        match named {
            Some((scheme, host)) => [scheme, REDACTED, &*self.path(host)].concat().into(),
            None => self.path(front),
        }
    }

    /// The value of a configured field. Credentials are always replaced, whatever the configuration says.
    pub(super) fn field<'a>(&self, name: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
        match name {
            "authorization" | "proxy-authorization" => {
                let scheme = value.iter().position(|&b| b == b' ');
                let scheme = scheme.and_then(|end| value.get(..=end));
                [scheme.unwrap_or_default(), REDACTED].concat().into()
            }
            "cookie" => cookies(value, true),
            "set-cookie" => cookies(value, false),
            _ if self.is_secret(name.as_bytes()) => Cow::Borrowed(REDACTED),
            _ => self.address(value),
        }
    }

    /// Replaces the secrets in pieces between `separators`. A piece is a name, or a name and a value.
    fn pieces<'a>(&self, text: &'a [u8], separators: &[u8]) -> Cow<'a, [u8]> {
        let is_separator = |byte: &u8| separators.contains(byte);
        let mut shown: Option<Vec<u8>> = None;
        let mut at = 0;
        for piece in text.split(is_separator) {
            let kept = self.shown(piece);
            if let Some(kept) = kept {
                let shown = shown.get_or_insert_with(|| text.get(..at).unwrap_or_default().into());
                shown.extend_from_slice(piece.get(..kept).unwrap_or_default());
                shown.extend_from_slice(REDACTED);
            } else if let Some(shown) = &mut shown {
                shown.extend_from_slice(piece);
            }
            at += piece.len();
            if let (Some(shown), Some(separator)) = (&mut shown, text.get(at)) {
                shown.push(*separator);
            }
            at += 1;
        }
        shown.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// How many bytes of a piece to show before the replacement; `None` for all of it.
    fn shown(&self, piece: &[u8]) -> Option<usize> {
        self.named.as_ref()?;
        match piece.iter().position(|&b| b == b'=') {
            Some(at) => {
                let (name, value) = (piece.get(..at)?, piece.get(at + 1..)?);
                let is_secret = self.is_secret(name) || self.hides_secret(value);
                (is_secret && !value.is_empty()).then_some(at + 1)
            }
            None => self.hides_secret(piece).then_some(0),
        }
    }

    /// Whether an encoded text contains a secret, as an address in a parameter may.
    fn hides_secret(&self, text: &[u8]) -> bool {
        if !text.contains(&b'%') {
            return false;
        }
        let decoded = decode(text);
        decoded.split(|b| b"&;?#".contains(b)).any(|piece| {
            let at = piece.iter().position(|&b| b == b'=');
            at.and_then(|at| piece.get(..at))
                .is_some_and(|name| self.is_secret(name))
        })
    }

    /// Whether a name marks its value as a secret.
    fn is_secret(&self, name: &[u8]) -> bool {
        let Some(named) = &self.named else {
            return false;
        };
        let name = decode(name);
        let parts = || name.split(|b| b"[].".contains(b)).map(fold);
        if named.contains(&fold(&name)) || parts().any(|part| named.contains(&part)) {
            return true;
        }
        let words = words(&name);
        (0..words.len()).any(|first| {
            let mut run = String::new();
            words.iter().skip(first).take(WORDS_MAX).any(|word| {
                run.push_str(word);
                self.known.contains(&run)
            })
        })
    }
}

/// Keeps only the names of cookies. In a list all pairs are cookies; otherwise attributes follow the first.
fn cookies(value: &[u8], is_list: bool) -> Cow<'_, [u8]> {
    let mut shown = Vec::with_capacity(value.len());
    for (at, pair) in value.split(|&b| b == b';').enumerate() {
        if at > 0 {
            shown.push(b';');
        }
        if at > 0 && !is_list {
            shown.extend_from_slice(pair);
            continue;
        }
        match pair.iter().position(|&b| b == b'=') {
            Some(end) => shown.extend_from_slice(pair.get(..=end).unwrap_or_default()),
            // The space separates the pairs.
            None if pair.first() == Some(&b' ') => shown.push(b' '),
            None => {}
        }
        if !pair.trim_ascii().is_empty() {
            shown.extend_from_slice(REDACTED);
        }
    }
    shown.into()
}

/// A name without case and punctuation.
fn fold(name: &[u8]) -> String {
    let plain = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
    plain
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

/// The words of a name in lower case: `resetToken`, `reset-token` and `reset_token2` have the same two.
fn words(name: &[u8]) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for byte in name {
        let begins = byte.is_ascii_uppercase() && was_lower;
        if (begins || !byte.is_ascii_alphabetic()) && words.last().is_some_and(|w| !w.is_empty()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (byte.is_ascii_alphabetic(), words.last_mut()) {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
        was_lower = byte.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Percent-decodes until nothing is left to decode, at most a few times. A plus sign is punctuation in either form.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODINGS_MAX {
        if !text.contains(&b'%') {
            break;
        }
        text = once_decoded(&text).into();
    }
    text
}

fn once_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8]) -> String {
        String::from_utf8_lossy(text).into_owned()
    }

    #[test]
    fn secrets_in_queries_are_replaced_and_nothing_else_is() {
        let redact = Redactor::new(Some(&["Tenant-Key".to_owned(), "id".to_owned()]));
        for (query, expected) in [
            ("", ""),
            ("page=2&sort=token&q=a+b", "page=2&sort=token&q=a+b"),
            ("token=abc", "token=REDACTED"),
            ("a=1&token=abc&b=2", "a=1&token=REDACTED&b=2"),
            (
                "TOKEN=abc&Access_Token=d",
                "TOKEN=REDACTED&Access_Token=REDACTED",
            ),
            ("a=1;token=abc;b=2", "a=1;token=REDACTED;b=2"),
            ("a=1?token=abc", "a=1?token=REDACTED"),
            (
                "%74oken=abc&to%6Ben=abc",
                "%74oken=REDACTED&to%6Ben=REDACTED",
            ),
            (
                "%2574oken=abc&%252574oken=d",
                "%2574oken=REDACTED&%252574oken=REDACTED",
            ),
            (
                "token%00=a&+token=b&token+=c",
                "token%00=REDACTED&+token=REDACTED&token+=REDACTED",
            ),
            (
                "user[password]=a&user%5Bpassword%5D=b",
                "user[password]=REDACTED&user%5Bpassword%5D=REDACTED",
            ),
            (
                "apiKey=a&api-key=b&api.key=c&APIKEY=d",
                "apiKey=REDACTED&api-key=REDACTED&api.key=REDACTED&APIKEY=REDACTED",
            ),
            (
                "X-Amz-Signature=a&X-Amz-Date=b",
                "X-Amz-Signature=REDACTED&X-Amz-Date=b",
            ),
            (
                "resetToken=a&password2=b&new_password=c",
                "resetToken=REDACTED&password2=REDACTED&new_password=REDACTED",
            ),
            (
                "tokenize=1&monkey=2&design=3&author=4",
                "tokenize=1&monkey=2&design=3&author=4",
            ),
            ("token", "token"),
            ("token=", "token="),
            ("token=a=b", "token=REDACTED"),
            ("&&token=a&&", "&&token=REDACTED&&"),
            // Configured names match as a whole or as a member, and nothing more.
            (
                "tenant_key=a&TENANT%2DKEY=b&id=7",
                "tenant_key=REDACTED&TENANT%2DKEY=REDACTED&id=REDACTED",
            ),
            ("user_id=7&item[id]=8", "user_id=7&item[id]=REDACTED"),
            // An address in a parameter.
            (
                "next=https%3A%2F%2Fa%2F%3Ftoken%3Dabc&x=1",
                "next=REDACTED&x=1",
            ),
            ("next=%252Fcb%253Ftoken%253Dabc", "next=REDACTED"),
            ("next=/cb?token=abc", "next=/cb?token=REDACTED"),
            ("next=%2Fa%3Fb%3Dc", "next=%2Fa%3Fb%3Dc"),
            ("token%3Dabc", "REDACTED"),
            ("%zz=1&%=2&%4=3&token%=a", "%zz=1&%=2&%4=3&token%=REDACTED"),
        ] {
            assert_eq!(shown(&redact.query(query.as_bytes())), expected, "{query}");
        }
        let none = Redactor::new(None);
        assert_eq!(shown(&none.query(b"token=abc")), "token=abc");
        assert_eq!(
            shown(&none.address(b"https://a:b@c/?token=d")),
            "https://a:b@c/?token=d"
        );
    }

    #[test]
    fn every_known_name_is_found_in_every_spelling() {
        let redact = Redactor::new(Some(&[]));
        for secret in SECRETS {
            let words: Vec<_> = secret.split('_').collect();
            for joined in [
                words.concat(),
                words.join("-"),
                secret.to_uppercase(),
                format!("x-{secret}"),
                format!("my_{secret}_1"),
            ] {
                let query = format!("{joined}=hidden");
                let shown = shown(&redact.query(query.as_bytes()));
                assert_eq!(shown, format!("{joined}=REDACTED"));
            }
        }
    }

    #[test]
    fn secrets_in_addresses_paths_and_fields_are_replaced() {
        let redact = Redactor::new(Some(&[]));
        for (address, expected) in [
            ("https://a.test/b", "https://a.test/b"),
            (
                "https://a.test/b?token=c#access_token=d",
                "https://a.test/b?token=REDACTED#access_token=REDACTED",
            ),
            (
                "https://user:pass@a.test/b?c=d",
                "https://REDACTED@a.test/b?c=d",
            ),
            ("//user@a.test", "//REDACTED@a.test"),
            (
                "https://a.test/@user/b;jsessionid=c?d",
                "https://a.test/@user/b;jsessionid=REDACTED?d",
            ),
            ("", ""),
        ] {
            assert_eq!(
                shown(&redact.address(address.as_bytes())),
                expected,
                "{address}"
            );
        }
        assert_eq!(
            shown(&redact.path(b"/a;token=b/c;v=1/token=d")),
            "/a;token=REDACTED/c;v=1/token=REDACTED"
        );
        assert_eq!(shown(&redact.path(b"/token=d")), "/token=d");
        for redact in [redact, Redactor::new(None)] {
            for (name, value, expected) in [
                ("authorization", "Bearer abc", "Bearer REDACTED"),
                ("authorization", "abc", "REDACTED"),
                ("proxy-authorization", "Basic YTpi", "Basic REDACTED"),
                (
                    "cookie",
                    "a=1; b=\"2;3\"; c",
                    "a=REDACTED; b=REDACTED;REDACTED; REDACTED",
                ),
                ("cookie", "", ""),
                (
                    "set-cookie",
                    "sid=1; Path=/; HttpOnly",
                    "sid=REDACTED; Path=/; HttpOnly",
                ),
                ("x-tenant", "a=b", "a=b"),
            ] {
                assert_eq!(
                    shown(&redact.field(name, value.as_bytes())),
                    expected,
                    "{name}: {value}"
                );
            }
        }
        let redact = Redactor::new(Some(&[]));
        for (name, value, expected) in [
            ("x-api-key", "abc", "REDACTED"),
            ("x-auth-token", "abc", "REDACTED"),
            (
                "location",
                "/cb?token=abc&state=d",
                "/cb?token=REDACTED&state=d",
            ),
        ] {
            assert_eq!(
                shown(&redact.field(name, value.as_bytes())),
                expected,
                "{name}: {value}"
            );
        }
    }
}
