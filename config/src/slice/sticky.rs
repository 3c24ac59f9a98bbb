//! `sticky` of an upstream: what keeps a client at the endpoint that it got first.

use std::borrow::Cow;
use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::Decoder;
use crate::decode::kind::WritableKind;
use crate::decode::kinds::{Choice, Keywords, LongForm, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::json::Json;
use crate::text::problem::Problem;
use crate::text::suggest::nearest;
use crate::value::cookie_name::CookieNameText;
use crate::value::field::{is_token, not_a_field_name};
use crate::value::file_path::{NamedFile, NamedFileKind};

/// What keeps a client at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// A cookie that Weir sets.
    Cookie(StickyCookie),
    /// The value of the request field of this name, in lower case.
    Header(String),
    /// A cookie that the application sets.
    Learn(LearnedCookie),
}

/// A cookie that Weir sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name; `None` for one that follows from the upstream's name.
    pub name: Option<String>,
    /// How long a client without requests stays at its endpoint; `None`: until the browser's session ends.
    pub ttl: Option<Duration>,
    /// Its `Path`.
    pub path: String,
    /// Its `Domain`; `None` for the host of the request alone.
    pub domain: Option<String>,
    /// Its `SameSite`.
    pub same_site: SameSite,
    /// The file with the key that marks endpoints; `None` for a key that follows from the upstream's name.
    pub key_file: Option<NamedFile>,
}

/// A cookie that the application sets. Weir writes the endpoint's mark into its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedCookie {
    /// Its name.
    pub name: String,
    /// The file with the key that marks endpoints; `None` for a key that follows from the upstream's name.
    pub key_file: Option<NamedFile>,
}

impl Default for StickyCookie {
    fn default() -> Self {
        Self {
            name: None,
            ttl: None,
            path: PATH.value.into_owned(),
            domain: None,
            same_site: SAME_SITE.value,
            key_file: None,
        }
    }
}

impl Sticky {
    /// The file with the key that marks endpoints.
    #[must_use]
    pub fn key_file(&self) -> Option<&NamedFile> {
        match self {
            Self::Cookie(cookie) => cookie.key_file.as_ref(),
            Self::Learn(cookie) => cookie.key_file.as_ref(),
            Self::Header(_) => None,
        }
    }
}

/// Which requests from other sites carry the cookie (RFC 6265bis, section 5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Those that open a page.
    Lax,
    /// None.
    Strict,
    /// All. Browsers keep such a cookie over https only.
    None,
}

impl Keywords for SameSite {
    const ALL: &'static [(&'static str, Self)] = &[
        ("lax", Self::Lax),
        ("strict", Self::Strict),
        ("none", Self::None),
    ];
}

/// `"cookie"` or `"header:NAME"`.
pub(crate) struct StickyText;

impl TextKind for StickyText {
    type Value = Sticky;
    const NOUN: &'static str = "a kind of sticky session";
    const PATTERN: Option<&'static str> = Some("^(cookie|header:.+)$");
    const EXAMPLES: &'static [&'static str] = &["cookie", "header:X-User"];

    fn parse(text: &str) -> Result<Sticky, Problem> {
        if text == "cookie" {
            return Ok(Sticky::Cookie(StickyCookie::default()));
        }
        if let Some(name) = text.strip_prefix("header:") {
            return match is_token(name) {
                true => Ok(Sticky::Header(name.to_ascii_lowercase())),
                false => Err(not_a_field_name(name)),
            };
        }
        let problem = Problem::new(format!("`{text}` does not keep a client at an endpoint"));
        Err(match nearest(text, ["cookie"]) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None if matches!(text, "ip" | "source" | "ip_hash") => {
                problem.help("for the client's address, write balance = \"ip_hash\"")
            }
            None => problem
                .help("write \"cookie\", \"header:NAME\", or { learn = \"COOKIE\" } for a cookie of the application"),
        })
    }
}

/// The `Path` of a cookie.
struct CookiePathText;

impl TextKind for CookiePathText {
    type Value = Cow<'static, str>;
    const NOUN: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^/[^;]*$");
    const EXAMPLES: &'static [&'static str] = &["/"];

    //= rfc6265#4.1.1
    // A path is any characters except controls and semicolons.
    fn parse(text: &str) -> Result<Self::Value, Problem> {
        let is_plain = text.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b';');
        match text.starts_with('/') && is_plain {
            true => Ok(text.to_owned().into()),
            false => Err(
                Problem::new(format!("`{text}` is not the path of a cookie"))
                    .help("it begins with a slash and has no semicolon, such as \"/shop\""),
            ),
        }
    }
}

impl WritableKind for CookiePathText {
    fn to_json(value: &Self::Value) -> Json {
        Json::text(value.as_ref())
    }
}

/// The `Domain` of a cookie.
struct CookieDomainText;

impl TextKind for CookieDomainText {
    type Value = String;
    const NOUN: &'static str = "a domain";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Za-z.-]+$");
    const EXAMPLES: &'static [&'static str] = &["example.com"];

    fn parse(text: &str) -> Result<String, Problem> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        match !text.is_empty() && text.bytes().all(is_plain) {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(Problem::new(format!("`{text}` is not a domain"))
                .help("write one such as \"example.com\", without scheme and port")),
        }
    }
}

const PATH: Preset<Cow<'static, str>> = preset(Cow::Borrowed("/"), "the whole site");

const SAME_SITE: Preset<SameSite> = preset(SameSite::Lax, "what browsers assume without it");

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["name", "cookie_name"], "`cookie`"),
    (&["expires", "max_age", "maxage", "timeout"], "`ttl`"),
    (&["app_cookie", "prefix"], "`learn`"),
    (&["secret", "secret_file", "hash_secret"], "`key_file`"),
    (&["header"], "sticky = \"header:NAME\""),
];

table! {
    /// What keeps a client at the endpoint that it got first: a cookie of Weir's (`"cookie"`, or this table), the value
    /// of a request field (`"header:NAME"`), or a cookie of the application (`learn`).
    /// [load-balancing.md](load-balancing.md#sticky-sessions) has the rules.
    RawSticky, "sticky", "[upstream.NAME.sticky]", foreign FOREIGN_NAMES {
        /// The name of Weir's cookie. Without it, the name follows from the upstream's.
        optional cookie: String = "cookie" as CookieNameText;
        /// The name of a cookie that the application sets, in place of one of Weir's. Weir writes a mark of the endpoint
        /// before its value and takes the mark off again, so that the application sees its own value.
        optional learn: String = "learn" as CookieNameText;
        /// How long a client without requests stays at its endpoint (`Max-Age`): each answer sets the cookie anew. Without
        /// it, the cookie lasts as long as the browser's session.
        optional ttl: Duration = "ttl" as DurationText;
        /// The paths that the cookie is for.
        preset(PATH) path: Cow<'static, str> = "path" as CookiePathText;
        /// The domain that the cookie is for. Without it, the host of the request alone.
        optional domain: String = "domain" as CookieDomainText;
        /// Which requests from other sites carry the cookie. Browsers keep a cookie with `"none"` over https only.
        preset(SAME_SITE) same_site: SameSite = "same_site" as Choice<SameSite>;
        /// A file with 32 random bytes or more, the key of the marks that stand for endpoints in cookies; the same on
        /// every box. Without it, the key follows from the upstream's name, so that stickiness survives restarts and
        /// holds on every box too, but a client that has learned that name and an endpoint's address can make the cookie
        /// for it. A forged cookie can choose an endpoint and nothing else.
        optional key_file: NamedFile = "key_file" as NamedFileKind;
    }
}

impl LongForm for RawSticky {
    type Out = Sticky;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Sticky> {
        let Some(name) = table.learn else {
            return Some(Sticky::Cookie(StickyCookie {
                name: table.cookie,
                ttl: table.ttl,
                path: table.path.into_owned(),
                domain: table.domain,
                same_site: table.same_site,
                key_file: table.key_file,
            }));
        };
        let set = [
            ("cookie", table.cookie.is_some()),
            ("ttl", table.ttl.is_some()),
            ("path", table.path != PATH.value),
            ("domain", table.domain.is_some()),
            ("same_site", table.same_site != SAME_SITE.value),
        ];
        if let Some((key, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
            let message = format!("`{key}` and `learn` exclude each other");
            cx.error(Code::Conflict, table.span, message).help(
                "with `learn`, the application sets the cookie and its attributes; leave out the other keys but `key_file`",
            );
            return None;
        }
        Some(Sticky::Learn(LearnedCookie {
            name,
            key_file: table.key_file,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_a_cookie_or_a_field() {
        let cookie = StickyText::parse("cookie").expect("a cookie");
        assert_eq!(cookie, Sticky::Cookie(StickyCookie::default()));
        let header = StickyText::parse("header:X-User").expect("a field");
        assert_eq!(header, Sticky::Header("x-user".to_owned()));
        for text in ["", "header:", "header:a b", "learn:X", "ip", "Cookie"] {
            assert!(StickyText::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn attributes_cannot_end_themselves() {
        for path in ["", "a", "/a;b", "/a b", "/a\r\n", "/ä"] {
            assert!(CookiePathText::parse(path).is_err(), "{path}");
        }
        for domain in ["", "a;b", "a b", "http://a", "a:80"] {
            assert!(CookieDomainText::parse(domain).is_err(), "{domain}");
        }
    }
}
