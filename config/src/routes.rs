//! Routes: their targets and rewrites are resolved.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::check::{Names, times_agree};
use crate::decode::{At, Decoder};
use crate::diagnostic::Code;
use crate::file::RawRoute;
use crate::kinds::Text;
use crate::limits::ENCODED_SLASH;
use crate::model::{
    EncodedSlash, FieldMatch, Match, PathMatch, Pattern, Piece, Rewrite, Route, Segment, Target,
    ValueMatch,
};
use crate::pattern::{PathText, is_parameter_name};
use crate::pattern_index::PatternIndex;
use crate::placeholders::{check_location, check_path_pattern};
use crate::source::Span;
use crate::tls::is_certificate_name;

/// What listeners let routes see of a request.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// The certificate of a client.
    pub(crate) certificates: bool,
    /// Fields with odd names.
    pub(crate) odd_names: bool,
}

/// Makes routes of the tables and reports those that contradict themselves or each other. Also
/// gives the names of all routes, of those that could not be made as well.
pub(crate) fn routes(
    tables: Vec<RawRoute>,
    names: &Names,
    seen: Seen,
    cx: &mut Decoder<'_>,
) -> (Vec<Route>, BTreeSet<String>) {
    let mut route_names = RouteNames::given(&tables, cx);
    let mut routes: Vec<Route> = Vec::with_capacity(tables.len());
    let mut patterns = PatternIndex::default();
    for table in tables {
        let span = table.matches.span.clone();
        let name = route_names.of(&table);
        let Some(route) = route(table, name, names, cx) else {
            continue;
        };
        for path in &route.matches.paths {
            report_colons(path, &span, cx);
        }
        report_no_name(route.matches.client_cert.as_ref(), &span, cx);
        if !seen.odd_names {
            report_dropped_fields(&route.matches.headers, &span, cx);
        }
        if !seen.certificates {
            report_nobody_asks(route.matches.client_cert.as_ref(), &span, cx);
        }
        patterns.add(&route, &routes, &span, cx);
        routes.push(route);
    }
    patterns.report_shadowed(&routes, cx);
    (routes, route_names.taken)
}

/// The names of routes: given ones, and made-up ones that keep clear of them.
struct RouteNames {
    taken: BTreeSet<String>,
    /// How many routes share the text of a match.
    shared: HashMap<String, usize>,
}

impl RouteNames {
    fn given(tables: &[RawRoute], cx: &mut Decoder<'_>) -> Self {
        let mut taken = BTreeSet::new();
        let mut lines = HashMap::new();
        for name in tables.iter().filter_map(|table| table.name.as_ref()) {
            let span = name.span.clone();
            if name.value.is_empty() || name.value.chars().any(char::is_control) {
                cx.error(Code::BadValue, span, "a name has visible characters");
            } else if !taken.insert(name.value.clone()) {
                let first = lines.get(&name.value).copied().unwrap_or_default();
                let message = format!("a second route has the name `{}`", name.value);
                cx.error(Code::Duplicate, span, message).help(format!(
                    "the first one is in line {first}; logs, metrics and tests use the name: it must mean one route"
                ));
            } else {
                lines.insert(name.value.clone(), cx.line(&name.span));
            }
        }
        Self {
            taken,
            shared: HashMap::new(),
        }
    }

    fn of(&mut self, table: &RawRoute) -> String {
        if let Some(name) = &table.name {
            return name.value.clone();
        }
        let Some(matches) = &table.matches.value else {
            return String::new();
        };
        let text = matches.to_string();
        let mut name = text.clone();
        let count = self.shared.entry(text.clone()).or_insert(0);
        loop {
            *count += 1;
            if *count > 1 {
                name = format!("{text} #{count}");
            }
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn route(table: RawRoute, name: String, names: &Names, cx: &mut Decoder<'_>) -> Option<Route> {
    let matches = table.matches.value.clone();
    let rewrite = rewrite(&table, matches.as_ref(), cx);
    let timeouts = table.timeouts.unwrap_or_default();
    times_agree(&timeouts, &table.at, cx);
    check_encoded_slash(&table, matches.as_ref(), cx);
    Some(Route {
        spot: cx.spot(&table.at),
        target: target(&table, matches.as_ref(), names, cx)?,
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

fn target(
    table: &RawRoute,
    matches: Option<&Match>,
    names: &Names,
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
        let is_meant = |key: &&str| cx.has_suggested(&table.at, key);
        if ["to", "redirect", "respond"].iter().any(is_meant) {
            return None;
        }
        cx.error(
            Code::MissingKey,
            table.at.clone(),
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
        let name = At {
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
            check_location(&target.location, matches, &redirect.span, cx);
            check_rest(&target.location, matches, &redirect.span, cx);
        }
        return Some(Target::Redirect(target));
    }
    table.respond.clone()?.value.map(Target::Respond)
}

fn rewrite(table: &RawRoute, matches: Option<&Match>, cx: &mut Decoder<'_>) -> Option<Rewrite> {
    if let (Some(_), Some(replace)) = (&table.strip, &table.replace) {
        let message = "`strip` and `replace` exclude each other";
        cx.error(Code::Conflict, replace.span.clone(), message)
            .help("replace = { prefix = \"/old\", with = \"/new\" } does both");
        return None;
    }
    let matches = matches?;
    if let Some(strip) = &table.strip {
        let prefix = plain_path(strip.value.as_ref()?, &strip.span, cx)?;
        check_prefix((&prefix, ""), matches, &strip.span, cx);
        return Some(Rewrite::Prefix {
            prefix,
            with: String::new(),
        });
    }
    let replace = table.replace.as_ref()?;
    match replace.value.as_ref()? {
        Rewrite::Prefix { prefix, with } => {
            let prefix = plain_path(prefix, &replace.span, cx)?;
            let with = plain_path(with, &replace.span, cx)?;
            check_prefix((&prefix, &with), matches, &replace.span, cx);
            if prefix.ends_with('/') != with.ends_with('/') {
                let message =
                    format!("`{prefix}` and `{with}` must both end with a slash, or none");
                cx.error(Code::Conflict, replace.span.clone(), message)
                    .help("else slashes would be doubled or lost");
            }
            Some(Rewrite::Prefix { prefix, with })
        }
        Rewrite::Path(pattern) => {
            check_path_pattern(pattern, matches, &replace.span, cx);
            check_rest(pattern, matches, &replace.span, cx);
            Some(Rewrite::Path(pattern.clone()))
        }
    }
}

/// A path without star or braces, in the form that requests are matched in.
fn plain_path(text: &str, span: &Span, cx: &mut Decoder<'_>) -> Option<String> {
    match PathText::parse(text) {
        Ok(PathMatch::Exact(path)) => Some(path),
        Ok(_) => {
            let message = format!("`{text}` must be a plain path, without star or braces");
            cx.error(Code::BadValue, span.clone(), message);
            None
        }
        Err(problem) => {
            cx.problem(span.clone(), text, problem);
            None
        }
    }
}

fn check_prefix((prefix, with): (&str, &str), matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    // What is stripped leaves a slash in front.
    let with = if with.is_empty() { "/" } else { with };
    for path in &matches.paths {
        let start = common_start(path);
        // `/v1/*` takes `/v1` too, and there is no more of that.
        let is_whole = || start.strip_suffix('/') == prefix.strip_suffix('/');
        if !start.starts_with(prefix) && !is_whole() {
            let message = format!("not every path of this route begins with `{prefix}`");
            cx.error(Code::Conflict, span.clone(), message)
                .label(format!("the match is `{matches}`"));
            return;
        }
        let rest = start.strip_prefix(prefix).unwrap_or_default();
        if prefix.ends_with('/') || rest.starts_with('/') {
            continue;
        }
        if !rest.is_empty() {
            let message =
                format!("`{prefix}` ends within a segment: `{start}` becomes `{with}{rest}`");
            cx.warning(Code::Conflict, span.clone(), message)
                .help("write whole segments");
            return;
        }
        if matches!(path, PathMatch::Prefix(_)) {
            let message =
                format!("paths such as `{prefix}0` match too, and would become `{with}0`");
            cx.warning(Code::Conflict, span.clone(), message)
                .help(format!("for whole segments only, match \"{prefix}/*\""));
            return;
        }
    }
}

/// Warns of a star within a segment whose rest becomes a segment: `/static*` and `/files/{rest}` make
/// `/files/../x` of `/static../x`, which is refused.
fn check_rest(pattern: &Pattern, matches: &Match, span: &Span, cx: &mut Decoder<'_>) {
    let Some(at) = pattern.0.iter().position(|piece| *piece == Piece::Rest) else {
        return;
    };
    let before = at.checked_sub(1).and_then(|before| pattern.0.get(before));
    if !matches!(before, Some(Piece::Text(text)) if text.ends_with('/')) {
        return;
    }
    let cuts =
        |path: &&PathMatch| matches!(path, PathMatch::Prefix(start) if !start.ends_with('/'));
    if let Some(path) = matches.paths.iter().find(cuts) {
        let start = common_start(path);
        let message = format!(
            "the star of `{path}` begins within a segment: requests for `{start}../x` are answered 400"
        );
        cx.warning(Code::Conflict, span.clone(), message)
            .help(format!("for whole segments only, match \"{start}/*\""));
    }
}

/// Warns of an encoded slash in a pattern: a request that has it would be another route's for endpoints that decode it.
fn check_encoded_slash(table: &RawRoute, matches: Option<&Match>, cx: &mut Decoder<'_>) {
    if table.to.is_none() {
        if table.encoded_slash != ENCODED_SLASH.value {
            let message = "`encoded_slash` does nothing: nothing of this route goes upstream";
            cx.error(Code::Conflict, table.at.clone(), message)
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

/// Warns of `:id`, which means any segment elsewhere, and here itself.
fn report_colons(path: &PathMatch, span: &Span, cx: &mut Decoder<'_>) {
    let literal = |segment: &Segment| match segment {
        Segment::Literal(text) => text.clone(),
        Segment::Parameter(_) => String::new(),
    };
    let segments: Vec<String> = match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => {
            path.split('/').map(str::to_owned).collect()
        }
        PathMatch::Template { segments, .. } => segments.iter().map(literal).collect(),
    };
    for name in segments.iter().filter_map(|each| each.strip_prefix(':')) {
        if is_parameter_name(name) {
            let message = format!("`:{name}` stands for itself, not for any segment");
            cx.warning(Code::NoEffect, span.clone(), message)
                .help(format!("a parameter is written \"{{{name}}}\""));
        }
    }
}

/// Warns of what neither the subject of a certificate nor one of its names looks like.
fn report_no_name(wanted: Option<&ValueMatch>, span: &Span, cx: &mut Decoder<'_>) {
    let Some(ValueMatch::Exact(text)) = wanted else {
        return;
    };
    if text.contains('=') || is_certificate_name(text) {
        return;
    }
    let kind = match text {
        text if text.contains("://") => "URI:",
        text if text.contains('@') => "email:",
        text if text.parse::<IpAddr>().is_ok() => "IP:",
        _ => "DNS:",
    };
    let message = format!("no certificate has the subject or name `{text}`");
    cx.warning(Code::NoEffect, span.clone(), message)
        .help(format!("client_cert = \"{kind}{text}\""));
}

/// Warns of wanted fields that every listener drops.
fn report_dropped_fields(wanted: &[FieldMatch], span: &Span, cx: &mut Decoder<'_>) {
    let is_odd = |name: &str| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    for field in wanted {
        if is_odd(&field.name) && field.value != ValueMatch::Absent {
            let message = format!(
                "every listener drops `{}`, but from gRPC requests",
                field.name
            );
            cx.warning(Code::Unreachable, span.clone(), message)
                .help("underscores = \"keep\" on a listener lets routes see such names");
        }
    }
}

/// Warns of a wanted certificate where no listener asks clients for one.
fn report_nobody_asks(wanted: Option<&ValueMatch>, span: &Span, cx: &mut Decoder<'_>) {
    if matches!(wanted, None | Some(ValueMatch::Absent)) {
        return;
    }
    let message = "no listener asks clients for a certificate: this route takes no request";
    cx.warning(Code::Unreachable, span.clone(), message)
        .help("a listener with `client_ca` in its `tls` does");
}

/// What every path that matches begins with.
pub(crate) fn common_start(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.clone(),
        PathMatch::Template { segments, .. } => {
            let mut start = "/".to_owned();
            for segment in segments {
                match segment {
                    Segment::Literal(text) => {
                        start.push_str(text);
                        start.push('/');
                    }
                    Segment::Parameter(_) => break,
                }
            }
            start
        }
    }
}
