//! `[[route]]`: a match, and what Weir does with the requests that it takes.

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{
    Choice, FallibleKind, InScope, Keywords, OneOrMany, PlainText, ShortOrLong, SpannedKind,
};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, table};
use crate::policy::level::{Origin, Place, TargetKind};
use crate::policy::sets::PolicySets;
use crate::policy::{Policies, RawPolicies};
use crate::slice::limits::{self, LimitsPatch};
use crate::slice::listener::Underscores;
use crate::slice::placeholder_check::list_parameters;
use crate::slice::redirect::{RawRedirect, Redirect, check_redirect};
use crate::slice::request_match::path::PathMatch;
use crate::slice::request_match::{KnownListeners, Match, MatchText, RawMatch, WrittenMatch};
use crate::slice::respond::{RawRespond, Respond, RespondShortForm};
use crate::slice::retries::{RetriesKind, RetriesPatch};
use crate::slice::rewrite::{RawReplace, Rewrite, check_rewrite};
use crate::slice::split::{RawSplit, Split, To, ToKind, check_has_shares, check_split};
use crate::slice::timeouts::{self, TimeoutsPatch, check_timeouts};
use crate::text::diagnostic::{Code, Position};
use crate::value::authority::AuthorityText;
use crate::value::placeholder::{PlaceholderPathKind, PlaceholderTextKind};
use crate::value::upstream_names::UpstreamNames;

/// A match, and what Weir does with the requests that it takes.
///
/// Routes are tried in this order: an exact host, then the longest wildcard, then any host; among those, whole paths, then
/// regular expressions in file order; the other paths are compared segment by segment from the left, and at the first difference text wins over a parameter and a parameter
/// over a star; among equal patterns, file order. If a route's predicates fail, the next candidate is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name in the file, or else the text of its match; logs and metrics show it.
    pub name: String,
    /// The requests that it takes.
    pub matches: Match,
    /// What Weir does with them.
    pub target: Target,
    /// How Weir changes the path for endpoints.
    pub rewrite: Option<Rewrite>,
    /// The Host that endpoints get; `None` for that of the upstream.
    pub host: Option<String>,
    /// What Weir does with `%2F` and `%5C` in a path.
    pub encoded_slash: EncodedSlash,
    /// Which request fields with odd names endpoints get; `None` for the listener's rule.
    pub underscores: Option<Underscores>,
    /// Its overrides; see [`Config::timeouts_of`](crate::Config::timeouts_of).
    pub timeouts: TimeoutsPatch,
    /// Its overrides; see [`Config::limits_of`](crate::Config::limits_of).
    pub limits: LimitsPatch,
    /// Its overrides; see [`Config::retries_of`](crate::Config::retries_of).
    pub retries: RetriesPatch,
    /// Its policies: those of the top level, of its sets and its own.
    pub policies: Policies,
    /// Its position in the file.
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
            host: None,
            encoded_slash: EncodedSlash::default(),
            underscores: None,
            timeouts: TimeoutsPatch::default(),
            limits: LimitsPatch::default(),
            retries: RetriesPatch::default(),
            policies: Policies::default(),
            position: Position::default(),
        }
    }
}

/// What Weir does with the requests of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Sends them to an upstream.
    Upstream {
        /// Index in [`Config::upstreams`](crate::Config::upstreams).
        index: usize,
    },
    /// Sends them to several upstreams, a share to each.
    Split(Split),
    /// Redirects the client.
    Redirect(Redirect),
    /// Answers them itself.
    Respond(Respond),
}

/// What Weir does with encoded slashes and backslashes in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlash {
    /// Passes them if an endpoint that decodes them would see a path of this route too, and answers 400 otherwise.
    #[default]
    Auto,
    /// Passes them: the endpoints take them for characters.
    Keep,
    /// Answers 400.
    Refuse,
}

const ENCODED_SLASH: Preset<EncodedSlash> = preset(
    EncodedSlash::Auto,
    "npm, GitLab and S3 need encoded slashes, and no endpoint may see another route's path",
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
    (&["return", "status", "response", "body"], "`respond`"),
    (&["rewrite", "set_path"], "`replace`"),
    (&["strip_prefix"], "`strip`"),
    (
        &["middleware", "middlewares", "policy", "policies", "filters"],
        "`use`",
    ),
    (
        &["proxy_read_timeout", "first_byte", "timeout_server"],
        "`timeouts = { first_byte = \"...\" }`",
    ),
    (
        &["client_max_body_size", "max_body_size", "max_size"],
        "`limits = { body = \"...\" }`",
    ),
];

table! {
    /// A match, and what Weir does with the requests that it takes: exactly one of `to`, `redirect` and `respond`. Weir
    /// tries routes in this order: those for an exact host, then for a wildcard (the longest first), then for any host;
    /// among them, those with this path in full, then those with a regular expression, in the order of the file; it
    /// compares the other paths segment by segment from the left, and at the first difference text goes before a
    /// parameter, and a parameter before a star, so `/users/admin/*` goes before `/users/{id}/*`; among equal matches,
    /// the order of the file decides. If a route's predicates fail, Weir tries the next.
    RawRoute, "route", "[[route]]", foreign FOREIGN_NAMES {
        /// The requests that the route takes: HOST/PATH. Without a host, it takes every host; `*.` in front of one
        /// stands for one label or more. A star at the end of the path stands for any rest, even none: `/v1/*` takes
        /// `/v1` too, unless another route names that. `{name}` stands for one segment.
        required matches: Spanned<Option<WrittenMatch>> = "match" as FallibleKind<ShortOrLong<MatchText, RawMatch>>;
        /// The route's name in logs, metrics and tests; the default is the text of its match. Set it to keep the name
        /// when the match changes.
        optional name: Spanned<String> = "name" as SpannedKind<PlainText>;
        /// Sends the requests to this upstream, or to several, each with its share: `{ app = 95, canary = 5 }`. Weir
        /// chooses once for each request; a retry stays with the upstream.
        optional to: Spanned<Option<To>> = "to" as FallibleKind<ToKind>;
        /// How Weir settles which upstream of a `to` with shares gets a request.
        optional split: RawSplit = "split" as RawSplit;
        /// Redirects the client to this address.
        optional redirect: Spanned<Option<Redirect>> = "redirect" as FallibleKind<ShortOrLong<PlaceholderTextKind, RawRedirect>>;
        /// Answers with this status, this body, or both and more, without an endpoint.
        optional respond: Spanned<Option<Respond>> = "respond" as FallibleKind<ShortOrLong<RespondShortForm, RawRespond>>;
        /// Takes this prefix off the path that endpoints get.
        optional strip: Spanned<Option<String>> = "strip" as FallibleKind<PlainText>;
        /// Replaces the path that endpoints get: by a text with placeholders, or one prefix by another.
        optional replace: Spanned<Option<Rewrite>> = "replace" as FallibleKind<ShortOrLong<PlaceholderPathKind, RawReplace>>;
        /// The host that endpoints get in Host or `:authority`; it overrides the upstream's. The requests that the route
        /// takes are in `match`.
        optional host: Spanned<String> = "host" as SpannedKind<AuthorityText>;
        /// What Weir does with requests that have `%2F` or `%5C` in the path. `"auto"` passes them as they came, and
        /// answers 400 if an endpoint that decodes them would see a path of another route. Set `"keep"` if all endpoints
        /// take them for characters, `"refuse"` to answer 400 always. [paths.md](paths.md) says how Weir matches and
        /// forwards paths.
        preset(ENCODED_SLASH) encoded_slash: EncodedSlash = "encoded_slash" as Choice<EncodedSlash>;
        /// Whether endpoints get request fields with odd names. It overrides the listener's `underscores`, which still
        /// decides what `match` sees.
        optional underscores: Spanned<Underscores> = "underscores" as SpannedKind<Choice<Underscores>>;
        /// Time limits that override the upstream's and the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as InScope<timeouts::InRoute, TimeoutsPatch>;
        /// Limits that override the top level's. Only `body` and `body_rate` have an effect.
        optional limits: LimitsPatch = "limits" as InScope<limits::InRoute, LimitsPatch>;
        /// Retry rules that override the upstream's and the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as RetriesKind;
        /// Sets of policies, by their names. Later ones go before earlier ones, and the route's own keys before all of
        /// them.
        optional used_sets: Vec<Spanned<String>> = "use" as OneOrMany<SpannedKind<PlainText>>;
        with policies: RawPolicies;
    }
}

/// The route that `table` describes, by the name `name`. `None` if it has no usable match or target.
pub(crate) fn check_route(
    table: RawRoute,
    name: String,
    policy_sets: &mut PolicySets,
    names: &UpstreamNames,
    listeners: &KnownListeners<'_>,
    cx: &mut Decoder<'_>,
) -> Option<Route> {
    let written = table.matches.value.as_ref();
    let matches = written.map(|written| written.resolve(listeners, cx));
    let rewrite = check_rewrite(
        table.strip.as_ref(),
        table.replace.as_ref(),
        matches.as_ref(),
        cx,
    );
    let timeouts = table.timeouts.unwrap_or_default();
    check_timeouts(&timeouts, &table.span, cx);
    check_encoded_slash(&table, matches.as_ref(), cx);
    if table.to.as_ref().is_none_or(|to| to.value.is_some()) {
        let to = table.to.as_ref().and_then(|to| to.value.as_ref());
        check_has_shares(table.split.as_ref(), to, cx);
    }
    let parameters = matches.as_ref().map(list_parameters);
    let place = Place {
        origin: &Origin::Route(name.clone()),
        span: &table.span,
        target: target_kind(&table),
        lacks_claims: false,
        parameters: parameters.as_deref(),
        upstreams: names,
    };
    let used_sets = table.used_sets.as_deref().unwrap_or_default();
    let policies = policy_sets.of_route(used_sets, &table.policies, &place, cx);
    if let Some(written) = written {
        written.check_claims(policies.jwt.is_some(), cx);
    }
    Some(Route {
        policies,
        position: cx.position(&table.span),
        target: check_target(&table, matches.as_ref(), names, cx)?,
        name,
        matches: matches?,
        rewrite,
        host: table.host.map(|spanned| spanned.value),
        encoded_slash: table.encoded_slash,
        underscores: table.underscores.map(|spanned| spanned.value),
        timeouts,
        limits: table.limits.unwrap_or_default(),
        retries: table.retries.unwrap_or_default(),
    })
}

/// The kind of the route's target; `None` if it has none.
fn target_kind(table: &RawRoute) -> Option<TargetKind> {
    let targets = [
        (table.to.is_some(), TargetKind::Upstream),
        (table.redirect.is_some(), TargetKind::Redirect),
        (table.respond.is_some(), TargetKind::Respond),
    ];
    let mut given = targets.iter().filter(|(is_there, _)| *is_there);
    given.next().map(|(_, kind)| *kind)
}

/// The target of a route; reports a route with none or several, and keys that its target leaves without effect.
fn check_target(
    table: &RawRoute,
    matches: Option<&Match>,
    names: &UpstreamNames,
    cx: &mut Decoder<'_>,
) -> Option<Target> {
    let targets = [
        ("to", table.to.as_ref().map(|to| &to.span)),
        ("redirect", table.redirect.as_ref().map(|to| &to.span)),
        ("respond", table.respond.as_ref().map(|to| &to.span)),
    ];
    let mut given = targets
        .iter()
        .filter_map(|(key, span)| Some((*key, (*span)?)));
    let Some((first, _)) = given.next() else {
        let is_suggested = |key: &&str| cx.has_suggested(&table.span, key);
        if ["to", "redirect", "respond"].iter().any(is_suggested) {
            return None;
        }
        let message = "this route has no target";
        cx.error(Code::MissingKey, table.span.clone(), message)
            .help("add to = \"UPSTREAM\", redirect = \"https://...\" or respond = 404");
        return None;
    };
    if let Some((second, span)) = given.next() {
        let message = format!("a route has one target, this one has `{first}` and `{second}`");
        cx.error(Code::Conflict, span.clone(), message)
            .help("remove one of them");
    }
    if first != "to" {
        let of_upstreams = [
            ("strip", table.strip.as_ref().map(|key| &key.span)),
            ("replace", table.replace.as_ref().map(|key| &key.span)),
            ("host", table.host.as_ref().map(|key| &key.span)),
            (
                "underscores",
                table.underscores.as_ref().map(|key| &key.span),
            ),
        ];
        let given = of_upstreams
            .iter()
            .filter_map(|(key, span)| Some((*key, (*span)?)));
        for (key, span) in given {
            let message = format!("`{key}` has no effect: this route sends nothing to endpoints");
            cx.error(Code::Conflict, span.clone(), message)
                .help(format!(
                    "leave it out: `{key}` is for a route with `to`, this one has `{first}`"
                ));
        }
    }
    if let Some(to) = &table.to {
        return match to.value.as_ref()? {
            To::Upstream(name) => {
                let name = Spanned {
                    value: name.clone(),
                    span: to.span.clone(),
                };
                names
                    .resolve(&name, cx)
                    .map(|index| Target::Upstream { index })
            }
            To::Shares(shares) => {
                check_split((shares, &to.span), table.split.as_ref(), names, cx).map(Target::Split)
            }
        };
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

/// Warns of an encoded slash in a match: an endpoint that decodes it would see a path of another route.
fn check_encoded_slash(table: &RawRoute, matches: Option<&Match>, cx: &mut Decoder<'_>) {
    if table.to.is_none() {
        if table.encoded_slash != ENCODED_SLASH.value {
            let message = "`encoded_slash` has no effect: this route sends nothing to endpoints";
            cx.error(Code::Conflict, table.span.clone(), message)
                .help("leave it out: it is for a route with `to`");
        }
        return;
    }
    let is_encoded = |path: &&PathMatch| {
        let text = path.to_string();
        let is_regex = matches!(path, PathMatch::Regex(_));
        !is_regex && (text.contains("%2F") || text.contains("%5C"))
    };
    let paths = matches.map_or(&[][..], |matches| &matches.paths);
    if let Some(path) = paths.iter().find(is_encoded)
        && table.encoded_slash != EncodedSlash::Keep
    {
        let message = format!("requests for `{path}` get 400: decoded, it is another path");
        cx.warning(Code::Unreachable, table.matches.span.clone(), message)
            .help("if all endpoints take it for a character, add encoded_slash = \"keep\"");
    }
}
