//! `[[route]]`.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, Count, FallibleKind, InScope, Keywords, OrOff, PlainText, ShortOrLong, SpannedKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::slice::limits::LimitsPatch;
use crate::slice::listener::Underscores;
use crate::slice::redirect::{RawRedirect, Redirect, check_redirect};
use crate::slice::request_match::path::PathMatch;
use crate::slice::request_match::{Match, MatchText, RawMatch};
use crate::slice::respond::{RawRespond, Respond, RespondShortForm};
use crate::slice::retries::{RETRIES_MAX, RetriesPatch};
use crate::slice::rewrite::{RawReplace, Rewrite, check_rewrite};
use crate::slice::timeouts::{InRoute, TimeoutsPatch, times_agree};
use crate::slice::upstream::UpstreamNames;
use crate::text::diagnostic::{Code, Position};
use crate::value::placeholder::{PlaceholderPathKind, PlaceholderTextKind};

/// A match and what to do with the requests that it takes.
///
/// Order of choice: an exact host before a wildcard (longest first) before any host; then the path
/// segment by segment from the left, where two patterns first differ text before a parameter
/// before a star, so that an exact path comes before all else; then file order among equal
/// patterns, the first whose predicates all hold. A route whose predicates fail gives way to the
/// next candidate, up to less specific hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name if given, else the text of its match; what logs and metrics show.
    pub name: String,
    /// Which requests it takes.
    pub matches: Match,
    /// What happens to them.
    pub target: Target,
    /// Change of the path on its way upstream.
    pub rewrite: Option<Rewrite>,
    /// What becomes of requests with `%2F` or `%5C` in the path.
    pub encoded_slash: EncodedSlash,
    /// Which names of request fields go upstream, where the listener's rule does not hold.
    pub underscores: Option<Underscores>,
    /// What differs from upstream and top level; see [`Config::timeouts_of`].
    pub timeouts: TimeoutsPatch,
    /// What differs from the top level; see [`Config::limits_of`].
    pub limits: LimitsPatch,
    /// What differs from upstream and top level; see [`Config::retries_of`].
    pub retries: RetriesPatch,
    /// Where it is in the file.
    pub position: Position,
}

impl Route {
    /// A route with defaults only.
    #[must_use]
    pub fn new(name: &str, matches: Match, target: Target) -> Self {
        Self {
            name: name.to_owned(),
            matches,
            target,
            rewrite: None,
            encoded_slash: EncodedSlash::default(),
            underscores: None,
            timeouts: TimeoutsPatch::default(),
            limits: LimitsPatch::default(),
            retries: RetriesPatch::default(),
            position: Position::default(),
        }
    }
}

/// What a route does with its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Proxies them to an upstream.
    Upstream {
        /// Index in [`Config::upstreams`].
        index: usize,
    },
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
}

/// What becomes of requests with an encoded slash or backslash in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlash {
    /// They pass where an endpoint that decodes it would see a path of this route too; else 400.
    #[default]
    Auto,
    /// They pass: the endpoints take it for a character.
    Keep,
    /// They are answered 400.
    Refuse,
}

/// What becomes of encoded slashes.
const ENCODED_SLASH: Preset<EncodedSlash> = preset(
    EncodedSlash::Auto,
    "npm, GitLab and S3 need them; endpoints that decode them must not see another route's path",
);

impl Keywords for EncodedSlash {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("keep", Self::Keep),
        ("refuse", Self::Refuse),
    ];
}

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &[
            "path",
            "paths",
            "host",
            "hosts",
            "domain",
            "server_name",
            "prefix",
            "location",
            "rule",
            "method",
            "methods",
            "header",
            "query",
        ],
        "`match`",
    ),
    (
        &[
            "upstream",
            "backend",
            "use_backend",
            "proxy_pass",
            "reverse_proxy",
            "service",
            "target",
            "cluster",
        ],
        "`to`",
    ),
    (
        &["return", "status", "deny", "response", "body"],
        "`respond`",
    ),
    (&["rewrite", "set_path"], "`replace`"),
    (&["strip_prefix"], "`strip`"),
];

table! {
    /// A match and what to do with the requests that it takes. Exactly one of `to`, `redirect` and
    /// `respond` must be there. Which route is asked first: one for an exact host before one for
    /// a wildcard (the longest first) and that before one for any host; then the paths are compared
    /// segment by segment from the left, and where two first differ, text goes before a parameter
    /// and that before a star: a path in full before all others, `/users/admin/*` before
    /// `/users/{id}/*`; then the order of the file. A route whose predicates do not hold gives way
    /// to the next.
    RawRoute, "route", "[[route]]", foreign FOREIGN_NAMES {
        /// Which requests it takes: HOST/PATH. Without a host it takes every host; `*.` in front of
        /// one stands for one label or more. A star at the end of the path stands for any rest,
        /// even none, and `/v1/*` takes `/v1` too unless a route names that; `{name}` stands for one
        /// segment.
        required matches: Spanned<Option<Match>> = "match" as FallibleKind<ShortOrLong<MatchText, RawMatch>>;
        /// A name for logs, metrics and tests; else the text of the match.
        optional name: Spanned<String> = "name" as SpannedKind<PlainText>;
        /// The upstream that gets the requests.
        optional to: Spanned<Option<String>> = "to" as FallibleKind<PlainText>;
        /// Where the client is sent instead.
        optional redirect: Spanned<Option<Redirect>> = "redirect" as FallibleKind<ShortOrLong<PlaceholderTextKind, RawRedirect>>;
        /// An answer given by Weir itself: a status, a body, or both and more.
        optional respond: Spanned<Option<Respond>> = "respond" as FallibleKind<ShortOrLong<RespondShortForm, RawRespond>>;
        /// What is taken off the front of the path on its way upstream.
        optional strip: Spanned<Option<String>> = "strip" as FallibleKind<PlainText>;
        /// The path as it goes upstream: a text with placeholders, or one prefix for another.
        optional replace: Spanned<Option<Rewrite>> = "replace" as FallibleKind<ShortOrLong<PlaceholderPathKind, RawReplace>>;
        /// Requests with `%2F` or `%5C` in the path: `auto` passes them as they came, and answers 400 where an
        /// endpoint that decodes them would see a path of another route; `keep` trusts the endpoints to take them
        /// for characters; `refuse` answers 400. `config/paths.md` says how paths are matched and forwarded.
        preset(ENCODED_SLASH) encoded_slash: EncodedSlash = "encoded_slash" as Choice<EncodedSlash>;
        /// What becomes of request fields with odd names on their way upstream, in place of the listener's
        /// `underscores`, which says what `match` sees.
        optional underscores: Spanned<Underscores> = "underscores" as SpannedKind<Choice<Underscores>>;
        /// Time limits in place of the upstream's and the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<InRoute, TimeoutsPatch>;
        /// Limits in place of the top level's. Only `body` and `body_rate` matter here.
        optional limits: LimitsPatch = "limits" as InScope<InRoute, LimitsPatch>;
        /// Retry rules in place of the upstream's and the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as ShortOrLong<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
    }
}

/// The route that `table` describes, by the name `name`. `None` if it has no usable match or target.
pub(crate) fn check_route(
    table: RawRoute,
    name: String,
    names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) -> Option<Route> {
    let matches = table.matches.value.clone();
    let rewrite = check_rewrite(
        table.strip.as_ref(),
        table.replace.as_ref(),
        matches.as_ref(),
        cx,
    );
    let timeouts = table.timeouts.unwrap_or_default();
    times_agree(&timeouts, &table.span, cx);
    check_encoded_slash(&table, matches.as_ref(), cx);
    Some(Route {
        position: cx.position(&table.span),
        target: check_target(&table, matches.as_ref(), names, cx)?,
        name,
        matches: matches?,
        rewrite,
        encoded_slash: table.encoded_slash,
        underscores: table.underscores.map(|at| at.value),
        timeouts,
        limits: table.limits.unwrap_or_default(),
        retries: table.retries.unwrap_or_default(),
    })
}

fn check_target(
    table: &RawRoute,
    matches: Option<&Match>,
    names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) -> Option<Target> {
    let given = [
        ("to", table.to.as_ref().map(|at| &at.span)),
        ("redirect", table.redirect.as_ref().map(|at| &at.span)),
        ("respond", table.respond.as_ref().map(|at| &at.span)),
    ];
    let mut given = given
        .iter()
        .filter_map(|(key, span)| Some((*key, (*span)?)));
    let Some((first, _)) = given.next() else {
        let is_meant = |key: &&str| cx.has_suggested(&table.span, key);
        if ["to", "redirect", "respond"].iter().any(is_meant) {
            return None;
        }
        cx.error(
            Code::MissingKey,
            table.span.clone(),
            "this route has no target",
        )
        .help("add to = \"UPSTREAM\", redirect = \"https://...\" or respond = 404");
        return None;
    };
    if let Some((second, span)) = given.next() {
        let message = format!("a route has one target, this one has `{first}` and `{second}`");
        cx.error(Code::Conflict, span.clone(), message);
    }
    if first != "to" {
        let rewrites = [
            ("strip", table.strip.as_ref().map(|at| &at.span)),
            ("replace", table.replace.as_ref().map(|at| &at.span)),
            ("underscores", table.underscores.as_ref().map(|at| &at.span)),
        ];
        for (key, span) in rewrites {
            if let Some(span) = span {
                let message = format!("`{key}` does nothing: nothing of this route goes upstream");
                cx.error(Code::Conflict, span.clone(), message)
                    .help(format!(
                        "`{key}` belongs to a route with `to`, this one has `{first}`"
                    ));
            }
        }
    }
    if let Some(to) = &table.to {
        let name = Spanned {
            value: to.value.clone()?,
            span: to.span.clone(),
        };
        return names
            .resolve(&name, cx)
            .map(|index| Target::Upstream { index });
    }
    if let Some(redirect) = &table.redirect {
        let target = redirect.value.clone()?;
        if let Some(matches) = matches {
            check_redirect(&target, matches, &redirect.span, cx);
        }
        return Some(Target::Redirect(target));
    }
    table.respond.clone()?.value.map(Target::Respond)
}

/// Warns of an encoded slash in a pattern: a request that has it would be another route's for endpoints that decode it.
fn check_encoded_slash(table: &RawRoute, matches: Option<&Match>, cx: &mut Decoder<'_>) {
    if table.to.is_none() {
        if table.encoded_slash != ENCODED_SLASH.value {
            let message = "`encoded_slash` does nothing: nothing of this route goes upstream";
            cx.error(Code::Conflict, table.span.clone(), message)
                .help("it belongs to a route with `to`");
        }
        return;
    }
    let is_encoded = |path: &&PathMatch| {
        let text = path.to_string();
        text.contains("%2F") || text.contains("%5C")
    };
    let paths = matches.map_or(&[][..], |matches| &matches.paths);
    if let Some(path) = paths.iter().find(is_encoded)
        && table.encoded_slash != EncodedSlash::Keep
    {
        let message =
            format!("requests for `{path}` are answered 400: decoded, it is another path");
        cx.warning(Code::Unreachable, table.matches.span.clone(), message)
            .help("encoded_slash = \"keep\" trusts the endpoints to take it for a character");
    }
}
