//! The table against a matcher that looks at every route and sorts what matches by the documented
//! precedence.

use std::cmp::Reverse;

use weir_config::{FieldMatch, HostMatch, Match, PathMatch, Segment, ValueMatch};

use super::{ask, matches};
use crate::route::RouteId;
use crate::route::{RouteLookup, RouteTable};

const TABLES: u64 = 2_000;
const REQUESTS_PER_TABLE: usize = 25;

const REGEXES: [&str; 7] = [
    "/a",
    "/a.*",
    "^/[ab]+$",
    ".*b",
    "/(?:a|ab)/[^/]+/?",
    "/a/(b|c)(/.*)?",
    "(?:/a?b?)+",
];

#[test]
fn the_table_agrees_with_a_naive_matcher() {
    let (mut routed, mut refused, mut missed) = (0, 0, 0);
    let lines = REGEXES.map(|text| format!("{{ path = {{ regex = '{text}' }} }}\n"));
    let regexes = matches(&lines.concat());
    let regexes: Vec<PathMatch> = regexes.into_iter().flat_map(|spec| spec.paths).collect();
    for seed in 1..=TABLES {
        let mut random = Random {
            state: seed,
            regexes: regexes.clone(),
        };
        let specs: Vec<_> = (0..random.below(24)).map(|_| random.spec()).collect();
        let table = RouteTable::from_specs(&specs);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = random.request();
            let found = ask(&request.text(), |view| table.find(view));
            let expected = naive(&specs, &request);
            assert_eq!(found, expected, "seed {seed}, {request:?}, {specs:#?}");
            match found {
                RouteLookup::Route { .. } => routed += 1,
                RouteLookup::Ambiguous | RouteLookup::NeedsClaims { .. } => {
                    panic!("no query has a semicolon, and no route asks for claims")
                }
                RouteLookup::MethodNotAllowed(_) => refused += 1,
                RouteLookup::None => missed += 1,
            }
        }
    }
    // Without cases of all kinds, the comparison would prove little.
    assert!(
        routed > 10_000 && refused > 1_000 && missed > 1_000,
        "{routed} {refused} {missed}"
    );
}

#[derive(Debug)]
struct Request {
    method: &'static str,
    host: &'static str,
    path: String,
    x: Option<&'static str>,
    q: Option<&'static str>,
}

impl Request {
    fn text(&self) -> String {
        let query = self
            .q
            .map(|value| format!("?r=1&q={value}"))
            .unwrap_or_default();
        let field = self
            .x
            .map(|value| format!("\nX: {value}"))
            .unwrap_or_default();
        format!(
            "{} http://{}{}{query}{field}",
            self.method, self.host, self.path
        )
    }
}

fn naive(specs: &[Match], request: &Request) -> RouteLookup {
    let fits = |(host, path): &(&HostMatch, &PathMatch)| {
        host_fits(host, request.host) && path_fits(path, &request.path)
    };
    let mut candidates = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        for (host, path) in spec.patterns().filter(fits) {
            let pattern = spec.paths.iter().position(|each| each == path).unwrap();
            let class = match path {
                PathMatch::Exact(_) => 0,
                PathMatch::Regex(_) => 1,
                PathMatch::Prefix(_) | PathMatch::Template { .. } => 2,
            };
            let rank = (host_rank(host), class, path_rank(path), index, pattern);
            candidates.push((rank, (index, pattern), spec));
        }
    }
    candidates.sort_by(|a, b| a.0.cmp(&b.0));
    let fields_fit = |spec: &Match| {
        let x = spec
            .headers
            .iter()
            .all(|each| value_fits(&each.value, request.x));
        x && spec
            .query
            .iter()
            .all(|each| value_fits(&each.value, request.q))
    };
    candidates.retain(|(_, _, spec)| fields_fit(spec));
    let method_fits = |spec: &Match| {
        spec.methods.is_empty() || spec.methods.iter().any(|each| each == request.method)
    };
    if let Some((_, (index, pattern), _)) = candidates.iter().find(|(_, _, spec)| method_fits(spec))
    {
        return RouteLookup::Route {
            id: RouteId(*index as u32),
            pattern: *pattern,
        };
    }
    let mut methods: Vec<&str> = Vec::new();
    for method in candidates.iter().flat_map(|(_, _, spec)| &spec.methods) {
        if !methods.contains(&method.as_str()) {
            methods.push(method);
        }
    }
    if methods.is_empty() {
        RouteLookup::None
    } else {
        RouteLookup::MethodNotAllowed(methods.join(", "))
    }
}

fn host_fits(pattern: &HostMatch, host: &str) -> bool {
    match pattern {
        HostMatch::Any => true,
        HostMatch::Exact(name) => host == name,
        HostMatch::Wildcard(name) => host.ends_with(&format!(".{name}")),
    }
}

fn host_rank(pattern: &HostMatch) -> (u8, Reverse<usize>) {
    match pattern {
        HostMatch::Exact(_) => (0, Reverse(0)),
        HostMatch::Wildcard(name) => (1, Reverse(name.len())),
        HostMatch::Any => (2, Reverse(0)),
    }
}

fn path_fits(pattern: &PathMatch, path: &str) -> bool {
    let (segments, open) = match pattern {
        PathMatch::Exact(whole) => return path == whole,
        PathMatch::Prefix(start) => {
            return path.starts_with(start.as_str()) || is_bare(pattern, path);
        }
        PathMatch::Template { segments, open } => (segments, *open),
        PathMatch::Regex(regex) => {
            // Another implementation than that of the table.
            let whole = format!("^(?:{})$", regex.as_str());
            return regex_lite::Regex::new(&whole).unwrap().is_match(path);
        }
    };
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let is_long_enough = if open {
        parts.len() >= segments.len()
    } else {
        parts.len() == segments.len()
    };
    is_long_enough
        && segments
            .iter()
            .zip(parts)
            .all(|(segment, part)| match segment {
                Segment::Literal(text) => text == part,
                Segment::Parameter(_) => !part.is_empty(),
            })
}

/// Whether a path is `/v1/*` without its last slash and star.
fn is_bare(pattern: &PathMatch, path: &str) -> bool {
    let start = match pattern {
        PathMatch::Prefix(start) => start.strip_suffix('/'),
        _ => None,
    };
    start == Some(path)
}

/// The pattern from the left, a number for each byte of text, parameter and star. Of two that take
/// the same path, the one that has less where they first differ comes first.
fn path_rank(pattern: &PathMatch) -> Vec<u8> {
    const TEXT: u8 = 0;
    const PARAMETER: u8 = 1;
    const STAR: u8 = 2;
    let (segments, open) = match pattern {
        PathMatch::Exact(whole) => return vec![TEXT; whole.len()],
        PathMatch::Prefix(start) => return [vec![TEXT; start.len()], vec![STAR]].concat(),
        PathMatch::Template { segments, open } => (segments, *open),
        PathMatch::Regex(_) => return Vec::new(),
    };
    let mut rank = Vec::new();
    for segment in segments {
        rank.push(TEXT);
        match segment {
            Segment::Literal(text) => rank.extend(text.bytes().map(|_| TEXT)),
            Segment::Parameter(_) => rank.push(PARAMETER),
        }
    }
    if open {
        rank.extend([TEXT, STAR]);
    }
    rank
}

fn value_fits(wanted: &ValueMatch, value: Option<&str>) -> bool {
    match wanted {
        ValueMatch::Present => value.is_some(),
        ValueMatch::Absent => value.is_none(),
        ValueMatch::Exact(text) => value == Some(text),
        ValueMatch::Prefix(text) => value.is_some_and(|value| value.starts_with(text.as_str())),
    }
}

/// Small words, so that patterns and requests meet often.
struct Random {
    state: u64,
    regexes: Vec<PathMatch>,
}

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // xorshift64*.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn spec(&mut self) -> Match {
        let several = |random: &mut Self| 1 + random.below(4) / 3;
        let hosts = (0..several(self)).map(|_| self.host()).collect();
        let paths = (0..several(self)).map(|_| self.pattern()).collect();
        let mut spec = Match {
            hosts,
            paths,
            ..Match::everything()
        };
        if self.below(2) == 0 {
            let lists: [&[&str]; 5] = [&["GET"], &["PUT"], &["GET", "PUT"], &["X"], &["X", "GET"]];
            spec.methods = self
                .pick(&lists)
                .iter()
                .map(|&name| name.to_owned())
                .collect();
        }
        if self.below(4) == 0 {
            spec.headers.push(FieldMatch {
                name: "x".to_owned(),
                value: self.value(),
            });
        }
        if self.below(4) == 0 {
            spec.query.push(FieldMatch {
                name: "q".to_owned(),
                value: self.value(),
            });
        }
        spec
    }

    fn host(&mut self) -> HostMatch {
        match self.below(5) {
            0 => HostMatch::Exact(self.pick(&["a.b.c", "b.c", "c"]).to_owned()),
            1 => HostMatch::Wildcard(self.pick(&["b.c", "c", "a.b.c"]).to_owned()),
            _ => HostMatch::Any,
        }
    }

    fn value(&mut self) -> ValueMatch {
        match self.below(4) {
            0 => ValueMatch::Present,
            1 => ValueMatch::Absent,
            2 => ValueMatch::Exact("aa".to_owned()),
            _ => ValueMatch::Prefix("a".to_owned()),
        }
    }

    fn pattern(&mut self) -> PathMatch {
        if self.below(8) == 0 {
            let index = self.below(self.regexes.len());
            return self.regexes[index].clone();
        }
        let mut segments: Vec<_> = (0..self.below(5))
            .map(|place| match self.below(3) {
                0 => Segment::Parameter(format!("p{place}")),
                _ => Segment::Literal(self.pick(&["a", "b", "ab"]).to_owned()),
            })
            .collect();
        let is_template = segments
            .iter()
            .any(|each| matches!(each, Segment::Parameter(_)));
        let end = self.below(3);
        if end == 0 {
            segments.push(Segment::Literal(String::new()));
        }
        if is_template {
            let open = end == 1;
            return PathMatch::Template { segments, open };
        }
        let text: String = PathMatch::Template {
            segments,
            open: false,
        }
        .to_string();
        match self.below(2) {
            0 if !text.is_empty() => PathMatch::Exact(text),
            _ if text.is_empty() => PathMatch::Prefix("/".to_owned()),
            _ => PathMatch::Prefix(text),
        }
    }

    fn request(&mut self) -> Request {
        let mut path = String::new();
        for _ in 0..self.below(5) {
            path.push('/');
            path.push_str(self.pick(&["a", "b", "ab", "c"]));
        }
        if path.is_empty() || self.below(3) == 0 {
            path.push('/');
        }
        Request {
            method: self.pick(&["GET", "PUT", "X"]),
            host: self.pick(&["a.b.c", "x.a.b.c", "b.c", "c", "d"]),
            path,
            x: self.pick(&[None, Some("a"), Some("aa"), Some("b")]),
            q: self.pick(&[None, Some("a"), Some("aa"), Some("b")]),
        }
    }
}
