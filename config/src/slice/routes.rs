//! All routes together: their names, and routes that never match because of others.

use std::collections::{BTreeSet, HashMap};

use crate::decode::decoder::{Decoder, Spanned};
use crate::policy::sets::PolicySets;
use crate::slice::listener::{Listener, Underscores};
use crate::slice::request_match::path::PathMatch;
use crate::slice::request_match::path_regex::PATH_REGEXES_MAX;
use crate::slice::request_match::{
    KnownListeners, warn_of_certificate_name, warn_of_colons, warn_of_dropped_fields,
    warn_of_no_client_ca,
};
use crate::slice::route::{RawRoute, Route, check_route};
use crate::slice::route_conflicts::RouteConflicts;
use crate::text::diagnostic::Code;
use crate::value::upstream_names::UpstreamNames;

/// Makes routes from the tables. Reports routes that contradict themselves or each other.
pub(crate) fn check_routes(
    tables: Vec<RawRoute>,
    policy_sets: &mut PolicySets,
    upstream_names: &UpstreamNames,
    listeners: &[Listener],
    cx: &mut Decoder<'_>,
) -> (Vec<Route>, RouteNames) {
    // A listener that could not be read may have been the one that asks or keeps.
    let known = KnownListeners {
        readable: listeners,
        may_be_more: cx.has_errors(),
    };
    let is_certificate_asked = cx.has_errors() || listeners.iter().any(asks_for_certificates);
    let is_odd_name_kept = cx.has_errors() || listeners.iter().any(keeps_odd_names);
    let mut namer = RouteNamer::new(&tables, cx);
    let mut routes: Vec<Route> = Vec::with_capacity(tables.len());
    let mut conflicts = RouteConflicts::default();
    for table in tables {
        let span = table.matches.span.clone();
        let name = namer.name(&table);
        let route = check_route(table, name, policy_sets, upstream_names, &known, cx);
        let Some(route) = route else {
            continue;
        };
        for path in &route.matches.paths {
            warn_of_colons(path, &span, cx);
        }
        warn_of_certificate_name(route.matches.client_cert.as_ref(), &span, cx);
        if !is_odd_name_kept {
            warn_of_dropped_fields(&route.matches.headers, &span, cx);
        }
        if !is_certificate_asked {
            warn_of_no_client_ca(route.matches.client_cert.as_ref(), &span, cx);
        }
        conflicts.add(&route, &routes, &span, cx);
        routes.push(route);
    }
    conflicts.report_shadowed(&routes, cx);
    check_regexes(&routes, cx);
    let names = RouteNames::new(namer.taken, &routes);
    (routes, names)
}

/// Reports more regular expressions over paths than a file may have.
fn check_regexes(routes: &[Route], cx: &mut Decoder<'_>) {
    let regexes = routes.iter().flat_map(|route| &route.matches.paths);
    let count = regexes
        .filter(|path| matches!(path, PathMatch::Regex(_)))
        .count();
    if count > PATH_REGEXES_MAX {
        let message = format!(
            "the file has {count} regular expressions in paths, the most is {PATH_REGEXES_MAX}"
        );
        cx.file_error(Code::TooMany, message)
            .help("write paths with stars and parameters where they will do");
    }
}

fn asks_for_certificates(listener: &Listener) -> bool {
    let tls = listener.tls.as_ref();
    tls.is_some_and(|tls| tls.client_ca.is_some())
}

fn keeps_odd_names(listener: &Listener) -> bool {
    listener.underscores == Underscores::Keep
}

/// The names of all routes, also of unreadable ones.
pub(crate) struct RouteNames {
    all: BTreeSet<String>,
    index: HashMap<String, usize>,
}

impl RouteNames {
    fn new(all: BTreeSet<String>, routes: &[Route]) -> Self {
        let index = routes.iter().enumerate();
        let index = index.map(|(i, route)| (route.name.clone(), i)).collect();
        Self { all, index }
    }

    /// The index of the route `name`, if that route could be read; reports an unknown name, with the nearest known one.
    pub(crate) fn resolve(&self, name: &Spanned<String>, cx: &mut Decoder<'_>) -> Option<usize> {
        let found = self.index.get(&name.value).copied();
        if found.is_none() && !self.all.contains(&name.value) {
            let known = self.all.iter().map(String::as_str);
            cx.unknown_name(name, "route", known);
        }
        found
    }
}

/// Names the routes that have no name in the file after the text of their match, with a number where that is taken.
struct RouteNamer {
    taken: BTreeSet<String>,
    /// How many routes share the text of a match.
    shared: HashMap<String, usize>,
}

impl RouteNamer {
    /// Starts with the names in the file. Reports names that occur twice.
    fn new(tables: &[RawRoute], cx: &mut Decoder<'_>) -> Self {
        let mut taken = BTreeSet::new();
        let mut lines = HashMap::new();
        for name in tables.iter().filter_map(|table| table.name.as_ref()) {
            let span = name.span.clone();
            if name.value.is_empty() || name.value.chars().any(char::is_control) {
                cx.error(
                    Code::BadValue,
                    span,
                    "the name of a route has visible characters only",
                );
            } else if !taken.insert(name.value.clone()) {
                let first = lines.get(&name.value).copied().unwrap_or_default();
                let message = format!("a second route has the name `{}`", name.value);
                cx.error(Code::Duplicate, span, message).help(format!(
                    "the first one is in line {first}; give each a name of its own, because logs, metrics and tests use it"
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

    /// The name of the route that `table` describes; empty if its match could not be read.
    fn name(&mut self, table: &RawRoute) -> String {
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
