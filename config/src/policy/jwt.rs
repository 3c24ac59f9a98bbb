//! `jwt`: tokens that requests must carry.

pub(crate) mod claims;
pub(crate) mod kind;

use std::time::Duration;

use self::claims::{ClaimName, ClaimValuesKind};
use crate::decode::amounts::PauseText;
use crate::decode::decoder::Spanned;
use crate::decode::kinds::{
    BooleanKind, Choice, Keywords, NamedEntries, NamedEntry, OneOrMany, PlainText, SpannedKind,
    TextKind,
};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::text::problem::Problem;
use crate::value::algorithm::JwtAlgorithm;
use crate::value::cookie_name::CookieNameText;
use crate::value::fetch_url::{FetchUrl, FetchUrlText};
use crate::value::field::{is_token, not_a_field_name};
use crate::value::file_path::{NamedFile, NamedFileKind};

/// Tokens that requests must carry, by the issuers that the route trusts. Never empty; if there are several, each has
/// an issuer of its own, and the `iss` of a token chooses among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The issuers.
    pub issuers: Vec<JwtIssuer>,
    /// What Weir does with requests without a token.
    pub on_missing: OnMissing,
}

/// Tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// What `iss` must be; `None` if it may be anything or absent.
    pub issuer: Option<String>,
    /// What `aud` must have one of; empty for any.
    pub audience: Vec<String>,
    /// Where the keys come from.
    pub keys: JwtKeys,
    /// The authorities that the issuer's certificate must come from; `None` for the system's.
    pub ca: Option<NamedFile>,
    /// Algorithms that may be used; empty for those that the keys name.
    pub algorithms: Vec<JwtAlgorithm>,
    /// By how much the clocks may differ.
    pub leeway: Duration,
    /// Where the token stands.
    pub place: TokenPlace,
    /// Claims that the token must have, each with the values that do; for `scope`, all values must be there.
    pub require: Vec<(String, Vec<String>)>,
    /// Claims that endpoints get as fields: the name of the claim, and that of the field in lower case.
    pub claims_to_headers: Vec<(String, String)>,
    /// Whether endpoints get the token.
    pub forward: bool,
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// Weir asks the issuer where they are (OpenID Connect Discovery 1.0, section 4), and fetches them there. The URL of
    /// that document.
    Discovery(FetchUrl),
    /// Weir fetches a key set.
    Url(FetchUrl),
    /// A key set in a file.
    SetFile(NamedFile),
    /// One public key in a file: PEM or a JWK.
    KeyFile(NamedFile),
    /// A secret in a file.
    SecretFile(NamedFile),
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// In a field of this name, in lower case. In `authorization`, it stands behind `Bearer`.
    Header(String),
    /// In the cookie of this name.
    Cookie(String),
    /// In the parameter of this name of the query.
    Query(String),
}

/// What Weir does with requests without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissing {
    /// Answers 401.
    #[default]
    Deny,
    /// Lets them pass, without claims.
    Pass,
}

impl Keywords for OnMissing {
    const ALL: &'static [(&'static str, Self)] = &[("deny", Self::Deny), ("pass", Self::Pass)];
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (&["aud", "audiences"], "`audience`"),
    (&["iss", "issuers"], "`issuer`"),
    (
        &["jwks", "jwks_uri", "jwksUrl", "remote_jwks", "keys_url"],
        "`jwks_url`",
    ),
    (&["local_jwks", "jwksFile"], "`jwks_file`"),
    (
        &["public_key", "public_key_file", "signingKey", "key"],
        "`key_file`",
    ),
    (&["secret", "signingSecret", "hmac_secret"], "`secret_file`"),
    (&["ca_file", "ca_cert", "trusted_ca"], "`ca`"),
    (
        &["clock_skew", "clock_skew_seconds", "clock_tolerance"],
        "`leeway`",
    ),
    (
        &[
            "scope",
            "scopes",
            "required_scopes",
            "claims",
            "required_claims",
        ],
        "`require`",
    ),
    (
        &["claim_to_headers", "forward_headers", "forwardHeaders"],
        "`claims_to_headers`",
    ),
    (&["allow_missing", "optional"], "`on_missing = \"pass\"`"),
    (&["alg", "algorithm"], "`algorithms`"),
];

table! {
    /// Tokens (JWT, RFC 7519) of one issuer that requests must carry. With an issuer and an audience alone, it may be
    /// written "ISSUER for AUDIENCE". A list stands for several issuers; the `iss` of a token chooses among them.
    /// [policies.md](policies.md#jwt) says what Weir checks.
    RawJwt, "jwt", "jwt of a policy", foreign FOREIGN_NAMES {
        /// The issuer: what `iss` of a token must be, to the letter. If no other key says where its keys are, Weir asks
        /// ISSUER/.well-known/openid-configuration.
        optional issuer: Spanned<String> = "issuer" as SpannedKind<PlainText>;
        /// For whom a token must be: `aud` of the token has this, or one of a list. A shared issuer also writes tokens
        /// for others, so the key is required; `"any"` takes them all.
        optional audience: Spanned<Vec<String>> = "audience" as SpannedKind<OneOrMany<PlainText>>;
        /// Where the issuer publishes its keys, as a JWK Set. Set it if the issuer has no discovery document.
        optional jwks_url: Spanned<FetchUrl> = "jwks_url" as SpannedKind<FetchUrlText>;
        /// A file with the keys, as a JWK Set.
        optional jwks_file: Spanned<NamedFile> = "jwks_file" as SpannedKind<NamedFileKind>;
        /// A file with one public key: PEM, or a JWK.
        optional key_file: Spanned<NamedFile> = "key_file" as SpannedKind<NamedFileKind>;
        /// A file with a secret of at least 32 bytes, for HS256, or for another HS algorithm that `algorithms` names. A
        /// line break at its end does not count.
        optional secret_file: Spanned<NamedFile> = "secret_file" as SpannedKind<NamedFileKind>;
        /// Authorities that the certificates of the servers with the keys must come from, PEM. Set it for an issuer with a
        /// certificate of your own authority; otherwise Weir trusts the system's authorities.
        optional ca: Spanned<NamedFile> = "ca" as SpannedKind<NamedFileKind>;
        /// The algorithms that may be used. The default is what the keys say: their `alg`, or else the one of their type,
        /// which is RS256 for RSA. A token never chooses another.
        optional algorithms: Vec<JwtAlgorithm> = "algorithms" as OneOrMany<Choice<JwtAlgorithm>>;
        /// By how much the clocks of Weir and the issuer may differ: Weir takes a token that much earlier and longer. The
        /// default is `"1m"`.
        optional leeway: Duration = "leeway" as PauseText;
        /// The request field that has the token. The default is Authorization, behind `Bearer`.
        optional header: Spanned<String> = "header" as SpannedKind<TokenFieldText>;
        /// The cookie that has the token.
        optional cookie: Spanned<String> = "cookie" as SpannedKind<CookieNameText>;
        /// The parameter of the query that has the token. Such tokens end up in logs and histories, so prefer a field.
        optional query: Spanned<String> = "query" as SpannedKind<QueryText>;
        /// Claims that a token must have, or the answer is 403. For `scope`, all values of a list must be granted; any
        /// other claim must be one of the values, or a list with one. A dot leads into a table:
        /// `"realm_access.roles"`.
        optional require: Vec<NamedEntry<Vec<String>>> = "require" as NamedEntries<ClaimName, ClaimValuesKind>;
        /// Claims that endpoints get as fields: CLAIM = FIELD. Weir takes fields of these names off every request, so that
        /// no client can forge them.
        optional claims_to_headers: Vec<NamedEntry<String>> =
            "claims_to_headers" as NamedEntries<ClaimName, TokenFieldText>;
        /// Whether endpoints get the token too. The default is false, because anyone who has a token can use it.
        optional forward: bool = "forward" as BooleanKind;
        /// What Weir does with a request without a token: `"deny"` answers 401, which is the default; `"pass"` lets it
        /// pass without claims. A token that is there must be valid in any case.
        optional on_missing: OnMissing = "on_missing" as Choice<OnMissing>;
    }
}

/// "ISSUER for AUDIENCE".
pub(crate) struct ShortText;

impl TextKind for ShortText {
    type Value = (String, String);
    const NOUN: &'static str = "an issuer and an audience";
    const PATTERN: Option<&'static str> = Some("^[^ ]+ for [^ ]+$");
    const EXAMPLES: &'static [&'static str] = &["https://issuer.example/ for my-api"];

    fn parse(text: &str) -> Result<(String, String), Problem> {
        const HELP: &str = "write \"https://ISSUER/ for AUDIENCE\", or a table";
        let words: Vec<_> = text.split(' ').collect();
        match words[..] {
            [issuer, "for", audience] if !issuer.is_empty() && !audience.is_empty() => {
                Ok((issuer.to_owned(), audience.to_owned()))
            }
            [_] => Err(Problem::new(format!("`{text}` names no audience")).help(HELP)),
            _ => Err(Problem::new(format!("`{text}` is not an issuer and an audience")).help(HELP)),
        }
    }
}

/// The name of a field for a token or a claim.
struct TokenFieldText;

impl TextKind for TokenFieldText {
    type Value = String;
    const NOUN: &'static str = "the name of a field";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    const EXAMPLES: &'static [&'static str] = &["X-Token"];

    fn parse(text: &str) -> Result<String, Problem> {
        const OF_HTTP: [&str; 12] = [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-connection",
            "http2-settings",
            "expect",
            "via",
        ];
        let name = text.to_ascii_lowercase();
        if !is_token(text) {
            return Err(not_a_field_name(text));
        }
        if name == "cookie" {
            let problem = Problem::new("the field `Cookie` has many values");
            return Err(problem.help("for a token in a cookie, write cookie = \"NAME\""));
        }
        if OF_HTTP.contains(&name.as_str()) {
            let problem = Problem::new(format!("the field `{text}` belongs to HTTP itself"));
            return Err(problem.help("choose another one"));
        }
        Ok(name)
    }
}

/// The name of a parameter that has one spelling.
struct QueryText;

impl TextKind for QueryText {
    type Value = String;
    const NOUN: &'static str = "the name of a parameter";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9._~-]+$");
    const EXAMPLES: &'static [&'static str] = &["access_token"];

    fn parse(text: &str) -> Result<String, Problem> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        match !text.is_empty() && text.bytes().all(is_plain) {
            true => Ok(text.to_owned()),
            false => Err(
                Problem::new(format!("`{text}` is not the name of a parameter"))
                    .help("use letters, digits, dots, hyphens and underscores"),
            ),
        }
    }
}
