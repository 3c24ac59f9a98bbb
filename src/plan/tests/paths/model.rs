//! Every reading of a forwarded path leads to the same route: checked against a model of each kind of endpoint. The
//! models share no code with [`Reading`](crate::route::Reading).

use super::{routes, taken};
use crate::plan::{Decision, Plan, RouteId, RouteTarget, UpstreamId};

const TABLES: u64 = 400;
const REQUESTS_PER_TABLE: usize = 60;

#[test]
fn every_reading_of_a_forwarded_path_leads_to_its_route() {
    let (mut plain, mut odd, mut refused) = (0, 0, 0);
    for seed in 1..=TABLES {
        let mut random = Random(seed);
        let text = random.table();
        let plan = routes(&text);
        for _ in 0..REQUESTS_PER_TABLE {
            let path = random.path();
            let Some((id, forwarded)) = forwarded(&plan, &path) else {
                refused += usize::from(taken(&plan, &path).is_none());
                continue;
            };
            if has_dot_segment(&path) {
                assert!(!has_dot_segment(&forwarded), "{path} became {forwarded}");
            } else {
                assert_eq!(forwarded, path, "has no dot segment, seed {seed}");
            }
            for (name, read) in READINGS {
                let seen = read(&forwarded);
                let other = route_of(&plan, &seen).and_then(|id| upstream_of(&plan, id));
                assert_eq!(
                    other,
                    upstream_of(&plan, id),
                    "{path} is forwarded as {forwarded}, which is {seen} for {name}\n{text}"
                );
            }
            let is_odd = path.contains(['%', ';', '\\']) || has_dot_segment(&path);
            *(if is_odd { &mut odd } else { &mut plain }) += 1;
        }
    }
    // Without cases of all kinds, the property would prove little.
    assert!(
        plain > 500 && odd > 1_500 && refused > 3_000,
        "{plain} {odd} {refused}"
    );
}

/// A rewritten path leads where the rewrite says in every reading.
#[test]
fn every_reading_of_a_rewritten_path_leads_where_the_file_says() {
    type Leads = fn(&str) -> bool;
    let cases: [(&str, &str, Leads); 4] = [
        ("/a*", "replace = \"/files/{rest}\"", |seen| {
            seen.starts_with("/files/")
        }),
        (
            "/*",
            "replace = { prefix = \"/\", with = \"/in/\" }",
            |seen| seen.starts_with("/in/"),
        ),
        ("/{x}/*", "replace = \"/t/{x}/public/{rest}\"", |seen| {
            let mut segments = seen.split('/').skip(1);
            segments.next() == Some("t") && segments.nth(1) == Some("public")
        }),
        ("/{x}/{y}", "replace = \"/{y}-{x}/end\"", |seen| {
            let mut segments = seen.split('/').skip(1);
            segments.next().is_some_and(|first| first.contains('-'))
                && segments.next() == Some("end")
                && segments.next().is_none()
        }),
    ];
    let mut forwarded_odd = 0;
    for (pattern, rewrite, leads) in cases {
        let plan = routes(&format!(
            "[[route]]\nmatch = \"{pattern}\"\nto = \"app\"\n{rewrite}\n"
        ));
        for seed in 1..=8_000 {
            let mut random = Random(seed);
            let path = random.path();
            let Some((_, sent)) = forwarded(&plan, &path) else {
                continue;
            };
            for (name, read) in READINGS {
                let seen = merge(&read(&sent));
                let message =
                    format!("{path} is sent as {sent}, which is {seen} for {name}, by {rewrite}");
                // An endpoint that knows parameters cuts them off the text of the file too.
                assert!(leads(&seen), "{message}");
            }
            forwarded_odd += usize::from(path.contains(['%', ';']));
        }
    }
    assert!(forwarded_odd > 1_000, "{forwarded_odd}");
}

/// The route to an upstream that takes a request, and the path that goes there.
fn forwarded(plan: &Plan, path: &str) -> Option<(RouteId, String)> {
    super::decide(
        plan,
        &format!("GET {path}"),
        "a.example",
        |decision, sent| {
            let Decision::Route(id) = decision else {
                return None;
            };
            let is_upstream = matches!(plan.route(id)?.target, RouteTarget::Upstream(_));
            is_upstream.then(|| (id, String::from_utf8_lossy(sent).into_owned()))
        },
    )
}

fn upstream_of(plan: &Plan, id: RouteId) -> Option<UpstreamId> {
    match plan.route(id)?.target {
        RouteTarget::Upstream(upstream) => Some(upstream),
        RouteTarget::Split(_) | RouteTarget::Redirect(_) | RouteTarget::Respond(_) => None,
    }
}

/// The route of a path in normal form.
fn route_of(plan: &Plan, path: &str) -> Option<RouteId> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut head = super::super::Head::new();
    let mut server = super::super::Server::new(weir_proto_h1::Limits::default());
    server.receive(text.as_bytes(), &mut head).ok()?;
    let mut scratch = super::super::ViewBuffers::default();
    let view = scratch.view(&head, text.as_bytes()).ok()?;
    plan.table.find(&view).route()
}

fn has_dot_segment(path: &str) -> bool {
    let dots = path.replace("%2e", ".").replace("%2E", ".");
    dots.split('/').any(|segment| matches!(segment, "." | ".."))
}

type Read = fn(&str) -> String;

/// Endpoints by name. Each returns the path that it would look up, encoded so that it has one meaning.
const READINGS: [(&str, Read); 11] = [
    ("RFC 3986", |path| rfc3986(&decode(path, b""))),
    ("WHATWG", |path| whatwg(path)),
    ("nginx", |path| rfc3986(&merge(&decode(path, b"/")))),
    ("nginx without merge_slashes", |path| {
        rfc3986(&decode(path, b"/"))
    }),
    (
        "a server that merges encoded slashes only with their neighbours",
        |path| rfc3986(&decode(&merge(path), b"/")),
    ),
    ("IIS", |path| {
        rfc3986(&merge(&decode(path, b"/\\").replace('\\', "/")))
    }),
    ("a server on Windows that keeps %2F", |path| {
        rfc3986(&decode(path, b"\\").replace('\\', "/"))
    }),
    ("Tomcat", |path| {
        rfc3986(&merge(&decode(&cut(path), b"/\\").replace('\\', "/")))
    }),
    ("Jetty with ambiguous paths", |path| {
        rfc3986(&cut(&decode(path, b"/;")))
    }),
    ("a framework that cuts parameters off last", |path| {
        // A segment that becomes dots only now is a name.
        let named = |segment: &str| segment.replace("..", "two-dots").replace('.', "dot");
        let resolved = cut(&rfc3986(&decode(path, b"")));
        let segments = resolved.split('/').map(|segment| match segment {
            "." | ".." => named(segment),
            name => name.to_owned(),
        });
        segments.collect::<Vec<_>>().join("/")
    }),
    ("an old decoder of UTF-8", |path| {
        let path = ["%C0", "%C1", "%AF", "%AE", "%9C"]
            .iter()
            .fold(path.to_owned(), |path, octet| {
                path.replace(octet, &octet.to_ascii_lowercase())
            })
            .replace("%c0%af", "/")
            .replace("%c0.", ".")
            .replace("%c1%9c", "/")
            .replace("%c0%ae", ".");
        rfc3986(&merge(&decode(&path, b"/\\").replace('\\', "/")))
    }),
];

/// Decodes unreserved characters and those in `also`. The rest stays, in upper case.
fn decode(path: &str, also: &[u8]) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        let octet = u8::from_str_radix(digits, 16).unwrap();
        let is_decoded = octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
        if is_decoded || also.contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
        out.push_str(rest);
    }
    out
}

fn merge(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn cut(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.find(';') {
        Some(at) => &segment[..at],
        None => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// `remove_dot_segments` of RFC 3986, section 5.2.4, step by step.
fn rfc3986(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if let Some(rest) = input.strip_prefix("/./") {
            input = format!("/{rest}");
        } else if input == "/." {
            input = "/".to_owned();
        } else if let Some(rest) = input.strip_prefix("/../") {
            input = format!("/{rest}");
            output.truncate(output.rfind('/').unwrap_or(0));
        } else if input == "/.." {
            input = "/".to_owned();
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input = input[end..].to_owned();
        }
    }
    output
}

/// The path state of the URL standard: backslashes are slashes, `%2e` is a dot.
fn whatwg(path: &str) -> String {
    let slashed = path.replace('\\', "/");
    let parts: Vec<_> = slashed.split('/').skip(1).collect();
    let mut path: Vec<&str> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            ".." => {
                path.pop();
            }
            "." => {}
            _ => {
                path.push(part);
                continue;
            }
        }
        if is_last {
            path.push("");
        }
    }
    format!("/{}", path.join("/"))
}

/// Short words, so that patterns and paths meet often.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn table(&mut self) -> String {
        const PATTERNS: [&str; 12] = [
            "/a", "/a/*", "/a/b", "/a/b/*", "/b*", "/{x}/b", "/{x}/*", "/a/{x}/*", "/b/", "/c/*",
            "/a;b", "/{x}",
        ];
        let mut patterns: Vec<&str> = Vec::new();
        for _ in 0..1 + self.below(4) {
            let pattern = self.pick(&PATTERNS);
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        if self.below(3) > 0 {
            patterns.push("/*");
        }
        let targets = [
            "to = \"app\"",
            "to = \"app\"",
            "to = \"other\"",
            "respond = 403",
            "respond = 200",
        ];
        let mut text = String::new();
        for pattern in patterns {
            let target = self.pick(&targets);
            text += &format!("[[route]]\nmatch = \"{pattern}\"\n{target}\n");
        }
        text
    }

    fn path(&mut self) -> String {
        const PIECES: [&str; 31] = [
            "/", "/", "/", "/", "/", "/", "a", "a", "a", "b", "b", "c", ".", ".", "..", "..",
            "%2e", "%2E%2e", "%2f", "%2F", "%5c", "%5C", ";", ";a", "%3b", "%c0%af", "%c0%ae",
            "%c1%9c", "%61", "%252e", "%c0.",
        ];
        let mut path = String::from("/");
        let tame = self.below(4) == 0;
        for _ in 0..1 + self.below(8) {
            path.push_str(self.pick(if tame { &PIECES[..12] } else { &PIECES }));
        }
        path
    }
}
