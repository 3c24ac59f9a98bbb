//! A core, `weir explain` and `[[test]]` blocks decide alike on random files and requests.
//!
//! Files and requests are random. A simulated core serves each request. The test compares what client and endpoint see
//! with the text of `explain` and with the verdict of a `[[test]]` block.

#![allow(clippy::unwrap_used)] // What fails here fails the test.

mod sim;

use std::fmt::Write as _;

use sim::message::{Framing, Head, read_body};
use sim::{Rig, check};
use weir::cli::explain::{Question, explain};
use weir::io::Tx;
use weir::io::sim::{Peer, Rng, Sim, World, at};
use weir::plan::{EndpointSets, Plan};
use weir_config::{Config, Position, Test};

const LISTENERS: [&str; 2] = ["10.1.0.1:80", "10.1.0.1:8080"];
const CLIENTS: [&str; 3] = ["192.0.2.1", "10.0.0.7", "10.1.0.7"];
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const UPSTREAMS: [&str; 3] = ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"];

/// Every outcome that a random request can have.
const KINDS: [&str; 17] = [
    "answered",
    "forwarded",
    "redirected",
    "refused: bad_framing",
    "refused: bad_host",
    "refused: bad_path",
    "refused: bad_request",
    "refused: body_too_large",
    "refused: expectation_failed",
    "refused: head_too_large",
    "refused: loop",
    "refused: method_not_allowed",
    "refused: no_route",
    "refused: target_too_long",
    "refused: token_missing",
    "refused: unsupported_protocol",
    "responded",
];

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Weir answered with an error: status, reason, Allow.
    Refused(u16, String, Option<String>),
    /// Weir redirected the client: status, location.
    Redirected(u16, String),
    /// A route's fixed answer: status, route.
    Responded(u16, String),
    /// An upstream received the request: its name and the target.
    Forwarded(String, String),
    /// A policy answered: status.
    Answered(u16),
}

/// A random request.
#[derive(Debug)]
struct DrawnRequest {
    listener: usize,
    method: &'static str,
    host: &'static str,
    path_and_query: String,
    fields: Vec<(&'static str, String)>,
    client: &'static str,
    /// The claims of the client's token. Empty: it has none.
    claims: Vec<(&'static str, &'static str)>,
}

#[test]
fn cores_explain_and_tests_decide_alike() {
    let (files, kinds) = (std::cell::Cell::new(0), std::cell::RefCell::new(Vec::new()));
    check(400, |world| {
        let mut rng = world.rng(1);
        let file = drawn_file(&mut rng);
        let Ok((mut config, _)) = weir_config::parse("drawn.toml", &file) else {
            return; // Two of the routes are equal, which a file may not have.
        };
        files.set(files.get() + 1);
        let plan = Plan::compile(&config).unwrap();
        let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
        let rig = Rig::start_with(world, (0, 1), &file, |_, plan| {
            for board in plan.states.key_boards() {
                board.post(board.source().read_file(SECRET).unwrap().keys);
            }
        });
        for (address, name) in UPSTREAMS.iter().zip(["u0", "u1", "u2"]) {
            world.endpoint(&at(address), move |peer| answer_all(peer, name));
        }
        for _ in 0..20 {
            let ask = drawn_ask(&mut rng, &plan.via);
            let live = served(world, &ask, &file);
            let text = explain((&plan, &endpoints), &ask.question())
                .unwrap_or_else(|error| panic!("{error}\n{ask:?}\n{file}"));
            let explained = outcome_of(&text, &ask);
            assert_eq!(
                explained, live,
                "explain (left) and a core (right)\n{ask:?}\n{file}\n{text}"
            );
            for (is_right, expected) in [(true, true), (false, false)] {
                config.tests = vec![ask.test(&live, &config, is_right)];
                let failures = plan.run_tests(&config);
                assert_eq!(
                    failures.is_empty(),
                    expected,
                    "a test with what a core does: {live:?}\n{ask:?}\n{file}\n{failures:?}"
                );
            }
            kinds.borrow_mut().push(live.kind());
        }
        rig.drain(std::time::Duration::from_secs(30));
    });
    // The random requests have reached every kind of decision.
    let mut kinds = kinds.into_inner();
    kinds.sort();
    kinds.dedup();
    let seen: Vec<_> = kinds.iter().map(String::as_str).collect();
    assert!(files.get() > 200, "{} files", files.get());
    assert_eq!(seen, KINDS);
}

/// Sends the request to a simulated core and returns the client's outcome.
fn served(world: &World, ask: &DrawnRequest, file: &str) -> Outcome {
    let (net, to) = (
        world.client_at(ask.client.parse().unwrap()),
        at(LISTENERS[ask.listener]),
    );
    let (wire, method) = (ask.encode(), ask.method);
    let case = format!("{ask:?}\n{file}");
    world.run(async move {
        let mut peer = Peer::connect(&net, &to).await.unwrap();
        peer.write(wire.as_bytes());
        let head = loop {
            let head = Head::read(&mut peer).await;
            let head = head.unwrap_or_else(|| panic!("no answer\n{case}"));
            if !head.line.starts_with("HTTP/1.1 1") {
                break head;
            }
        };
        let status: u16 = head.line[9..12].parse().unwrap();
        let get = |name: &str| head.get(name).map(str::to_owned);
        let outcome = if let Some(why) = get("proxy-status") {
            let reason = why.split('"').nth(1).unwrap().to_owned();
            Outcome::Refused(status, reason, get("allow"))
        } else if let Some(route) = get("x-route") {
            Outcome::Responded(status, route)
        } else if let Some(location) = get("location") {
            Outcome::Redirected(status, location)
        } else if let Some(upstream) = get("x-upstream") {
            Outcome::Forwarded(upstream, get("x-target").unwrap())
        } else {
            Outcome::Answered(status)
        };
        if method != "HEAD" {
            read_body(&mut peer, &head, head.framing(Framing::None)).await;
        }
        if peer.tx.queued() > 0 {
            // An early answer makes the rest of the body useless.
            peer.reset();
        } else {
            peer.finish();
            peer.read_to_end().await;
        }
        outcome
    })
}

/// An endpoint that answers with the target that it received.
async fn answer_all(mut peer: Peer<Sim>, name: &'static str) {
    while let Some(head) = Head::read(&mut peer).await {
        let framing = head.framing(Framing::None);
        read_body(&mut peer, &head, framing).await;
        let target = head.line.split(' ').nth(1).unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: {name}\r\nX-Target: {target}\r\nContent-Length: 0\r\n\r\n"
        );
        if peer.send(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The outcome in the text of `explain`.
fn outcome_of(text: &str, ask: &DrawnRequest) -> Outcome {
    let line = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(&format!("{key:<11}")))
    };
    let status = |answer: &str| answer[..3].parse::<u16>().unwrap();
    if let Some(upstream) = line("upstream") {
        let target = line("sent as").map_or_else(|| ask.target(), str::to_owned);
        return Outcome::Forwarded(upstream.to_owned(), target);
    }
    let answer = line("answer").unwrap();
    if let Some((_, rest)) = answer.split_once(", reason ") {
        let reason = rest.split(':').next().unwrap().to_owned();
        return Outcome::Refused(status(answer), reason, line("allow").map(str::to_owned));
    }
    if let Some((_, location)) = answer.split_once(", location ") {
        let location = location.split(": the listener").next().unwrap().to_owned();
        return Outcome::Redirected(status(answer), location);
    }
    if text.contains("\npolicy     cors answers") {
        return Outcome::Answered(status(answer));
    }
    Outcome::Responded(status(answer), line("route").unwrap().to_owned())
}

impl Outcome {
    fn kind(&self) -> String {
        match self {
            Self::Refused(_, reason, _) => format!("refused: {reason}"),
            Self::Redirected(..) => "redirected".to_owned(),
            Self::Responded(..) => "responded".to_owned(),
            Self::Forwarded(..) => "forwarded".to_owned(),
            Self::Answered(_) => "answered".to_owned(),
        }
    }
}

impl DrawnRequest {
    fn port(&self) -> Option<u16> {
        (self.listener == 1).then_some(8080)
    }

    fn authority(&self) -> String {
        match self.port() {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_owned(),
        }
    }

    fn target(&self) -> String {
        match (self.method, &*self.path_and_query) {
            ("CONNECT", _) => format!("{}:{}", self.host, self.port().unwrap_or(80)),
            ("OPTIONS", "") => "*".to_owned(),
            (_, path) if path.starts_with('/') => path.to_owned(),
            (_, query) => format!("/{query}"),
        }
    }

    fn encode(&self) -> String {
        let authority = self.authority();
        let host = self.fields.iter().find(|(name, _)| *name == "Host");
        let host = host.map_or(&*authority, |(_, value)| value);
        let mut wire = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\n",
            self.method,
            self.target()
        );
        let (mut length, mut is_chunked) = (0, false);
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != "Host") {
            let _ = write!(wire, "{name}: {value}\r\n");
            match *name {
                "Content-Length" => length = value.parse().unwrap_or(0),
                "Transfer-Encoding" => is_chunked = true,
                _ => {}
            }
        }
        if !self.claims.is_empty() {
            let _ = write!(wire, "Authorization: Bearer {}\r\n", self.token());
        }
        wire.push_str("\r\n");
        if is_chunked {
            wire.push_str("0\r\n\r\n");
        }
        wire.extend(std::iter::repeat_n('x', length));
        wire
    }

    /// A token with the claims.
    fn token(&self) -> String {
        let mut claims =
            serde_json::json!({ "iss": "https://idp.example/", "exp": 99_999_999_999_u64 });
        for (name, value) in &self.claims {
            claims[*name] = (*value).into();
        }
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn question(&self) -> Question {
        let fields = self.fields.iter();
        Question {
            method: self.method.to_owned(),
            url: format!("http://{}{}", self.authority(), self.path_and_query),
            headers: fields
                .map(|(name, value)| format!("{name}: {value}"))
                .collect(),
            client_ip: self.client.parse().ok(),
            claims: self
                .claims
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            ..Question::default()
        }
    }

    /// A `[[test]]` block that expects this outcome, or a wrong one.
    fn test(&self, outcome: &Outcome, config: &Config, is_right: bool) -> Test {
        let fields = self.fields.iter();
        let mut test = Test {
            method: self.method.to_owned(),
            scheme: "http".to_owned(),
            host: self.host.to_owned(),
            port: self.port(),
            target: self.path_and_query.clone(),
            headers: fields
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .collect(),
            client_cert: Vec::new(),
            client_ip: self.client.parse().ok(),
            claims: (!self.claims.is_empty()).then(|| {
                let pairs = self.claims.iter();
                pairs
                    .map(|(name, value)| (name.to_string(), vec![value.to_string()]))
                    .collect()
            }),
            route: None,
            upstream: None,
            status: None,
            position: Position::default(),
        };
        let other = usize::from(!is_right);
        match outcome {
            Outcome::Refused(status, ..)
            | Outcome::Redirected(status, _)
            | Outcome::Answered(status) => {
                test.status = Some(status + other as u16);
            }
            Outcome::Responded(status, route) => {
                let mut routes = config.routes.iter();
                let place = routes.position(|known| known.name == *route);
                test.status = Some(*status);
                test.route = Some(place.unwrap() + other);
            }
            Outcome::Forwarded(upstream, _) => {
                let mut upstreams = config.upstreams.iter();
                let place = upstreams.position(|known| *known.name == **upstream);
                test.upstream = Some((place.unwrap() + other) % UPSTREAMS.len());
            }
        }
        test
    }
}

fn drawn_file(rng: &mut Rng) -> String {
    let mut file = String::new();
    if rng.chance(400) {
        file.push_str("trusted_proxies = [\"0.0.0.0/0\", \"::/0\"]\n");
        let header = ["x-forwarded-for", "forwarded"][rng.below(2)];
        let _ = writeln!(file, "forwarded_header = \"{header}\"");
    }
    for (name, on_missing) in [("token", "deny"), ("guest", "pass")] {
        let _ = writeln!(
            file,
            "[policy.{name}]\njwt = {{ secret_file = \"s\", issuer = \"https://idp.example/\", audience = \"any\", \
             on_missing = \"{on_missing}\" }}"
        );
    }
    file.push_str("[limits]\n");
    if rng.chance(300) {
        file.push_str("target = \"256B\"\n");
    }
    if rng.chance(300) {
        file.push_str("fields = 8\n");
    }
    if rng.chance(300) {
        file.push_str("body = \"1KiB\"\n");
    }
    for (index, address) in LISTENERS.iter().enumerate() {
        let _ = writeln!(file, "[listen.\"{address}\"]");
        if rng.chance(if index == 0 { 400 } else { 100 }) {
            let port = ["true", "8443"][rng.below(2)];
            let _ = writeln!(file, "redirect_https = {port}");
        }
        if rng.chance(200) {
            file.push_str("underscores = \"keep\"\n");
        }
    }
    file.push_str("[upstream]\n");
    for (index, address) in UPSTREAMS.iter().enumerate() {
        let _ = writeln!(file, "u{index} = \"{address}\"");
    }
    for index in 0..rng.between(1, 7) {
        drawn_route(index, rng, &mut file);
    }
    file
}

fn drawn_route(index: usize, rng: &mut Rng, file: &mut String) {
    let paths = [
        "/*",
        "/a",
        "/a/*",
        "/a/b/*",
        "/a/{x}/*",
        "/{x}",
        "/b/*",
        "~/a/[ab]+",
        "~/a.*",
    ];
    let path = paths[rng.below(paths.len())];
    let _ = writeln!(file, "[[route]]\nname = \"r{index}\"");
    let mut parts = vec![match path.strip_prefix('~') {
        Some(regex) => format!("path = {{ regex = \"{regex}\" }}"),
        None => format!("path = \"{path}\""),
    }];
    let has_star = path.ends_with("/*");
    if rng.chance(300) {
        let host = ["a.example", "*.example", "other"][rng.below(3)];
        parts.push(format!("host = \"{host}\""));
    }
    if rng.chance(250) {
        let methods = ["\"GET\"", "[\"GET\", \"HEAD\", \"POST\"]", "\"BREW\""];
        parts.push(format!("method = {}", methods[rng.below(3)]));
    }
    if rng.chance(200) {
        let header = ["x-beta = \"1\"", "x_beta = true", "x-beta = false"][rng.below(3)];
        parts.push(format!("header = {{ {header} }}"));
    }
    if rng.chance(200) {
        parts.push("query = { q = \"1\" }".to_owned());
    }
    if rng.chance(150) {
        parts.push(format!("listener = \"{}\"", LISTENERS[rng.below(2)]));
    }
    if rng.chance(150) {
        let networks = ["\"10.0.0.0/8\"", "[\"192.0.2.1\", \"10.1.0.0/16\"]"];
        parts.push(format!("source = {}", networks[rng.below(2)]));
    }
    if rng.chance(150) {
        let cookies = ["c = \"1\"", "c = { prefix = \"2\" }", "c = false"];
        parts.push(format!("cookie = {{ {} }}", cookies[rng.below(3)]));
    }
    let asks_for_claims = rng.chance(200);
    if asks_for_claims {
        let claims = [
            "plan = \"gold\"",
            "plan = [\"gold\", \"silver\"], scope = \"read\"",
        ];
        parts.push(format!("claim = {{ {} }}", claims[rng.below(2)]));
    }
    let _ = writeln!(file, "match = {{ {} }}", parts.join(", "));
    if asks_for_claims || rng.chance(100) {
        let _ = writeln!(file, "use = \"{}\"", ["token", "guest"][rng.below(2)]);
    }
    if rng.chance(200) {
        file.push_str("cors = \"https://page.example\"\n");
    }
    match rng.below(8) {
        0 => {
            let status = [200, 204, 403][rng.below(3)];
            let _ = writeln!(
                file,
                "respond = {{ status = {status}, headers = {{ x-route = \"r{index}\" }} }}"
            );
        }
        1 => {
            let rest = if has_star { "/{rest}" } else { "{path}" };
            let locations = [
                "https://{host}{path}{query}",
                &format!("https://b.example{rest}"),
            ];
            let _ = writeln!(file, "redirect = \"{}\"", locations[rng.below(2)]);
        }
        _ => {
            let _ = writeln!(file, "to = \"u{}\"", rng.below(UPSTREAMS.len()));
            match rng.below(6) {
                0 if path.starts_with("/a") => file.push_str("strip = \"/a\"\n"),
                1 if has_star => file.push_str("replace = \"/new/{rest}\"\n"),
                2 if path.starts_with("/a") => {
                    file.push_str("replace = { prefix = \"/a\", with = \"/v0\" }\n");
                }
                _ => {}
            }
            if rng.chance(300) {
                let rule = ["keep", "refuse"][rng.below(2)];
                let _ = writeln!(file, "encoded_slash = \"{rule}\"");
            }
            if rng.chance(200) {
                file.push_str("limits = { body = \"10B\" }\n");
            }
        }
    }
}

/// A random path, perhaps with a query.
fn drawn_path(rng: &mut Rng) -> String {
    let mut path = String::new();
    for _ in 0..rng.below(5) {
        let segments = [
            "a",
            "a",
            "b",
            "b",
            "c",
            "A",
            "%61",
            "a%2Fb",
            "%2f",
            "a%5Cb",
            "a;x",
            "..",
            ".",
            "",
            "%2e%2e",
            "%252e%252e",
            "a%252Fb",
            "%00",
            "%zz",
            "a\\b",
            "~",
        ];
        path.push('/');
        path.push_str(segments[rng.below(segments.len())]);
    }
    if rng.chance(30) {
        path.push_str(&format!("/{}", "long".repeat(80)));
    }
    path.push_str(["", "", "", "?q=1", "?q=2;q=1", "?"][rng.below(6)]);
    path
}

fn drawn_ask(rng: &mut Rng, via: &str) -> DrawnRequest {
    let methods = [
        "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "OPTIONS", "BREW", "TRACE",
        "CONNECT",
    ];
    let hosts = [
        "a.example",
        "a.example",
        "A.Example.",
        "b.example",
        "other",
        "[::1]",
        "no_host!",
    ];
    let method = methods[rng.below(methods.len())];
    let path = drawn_path(rng);
    let mut fields = Vec::new();
    let (loops, many) = (format!("1.1 {via}"), vec!["1.1 x"; 40].join(", "));
    put(&mut fields, rng, "Via", &[&loops, &many, "1.1 other"]);
    if put(
        &mut fields,
        rng,
        "Upgrade",
        &["websocket", "WebSocket", "h2c", "foo"],
    ) {
        put(&mut fields, rng, "Content-Length", &["3"]);
        fields.push(("Connection", "upgrade".to_owned()));
    } else {
        put(
            &mut fields,
            rng,
            "Content-Length",
            &["0", "5", "11", "2000", "x"],
        );
        put(&mut fields, rng, "Transfer-Encoding", &["chunked", "gzip"]);
    }
    put(&mut fields, rng, "Host", &["", "other", "a.example"]);
    put(&mut fields, rng, "Expect", &["100-continue", "more"]);
    put(&mut fields, rng, "X-Forwarded-Proto", &["https", "http"]);
    put(
        &mut fields,
        rng,
        "Forwarded",
        &["for=192.0.2.1;proto=https", "proto=http"],
    );
    put(
        &mut fields,
        rng,
        "X-Forwarded-For",
        &["192.0.2.1", "10.1.0.1", "unknown"],
    );
    put(&mut fields, rng, "Cookie", &["c=1", "a=b; c=22", "C=1"]);
    if method == "OPTIONS" && rng.chance(700) {
        fields.push(("Origin", "https://page.example".to_owned()));
        let asked = ["GET", "PUT", "BREW"][rng.below(3)];
        fields.push(("Access-Control-Request-Method", asked.to_owned()));
    }
    let claims: &[&[(&str, &str)]] = &[
        &[],
        &[],
        &[("plan", "gold")],
        &[("plan", "silver"), ("scope", "x read")],
        &[("plan", "iron")],
    ];
    put(&mut fields, rng, "X-Beta", &["1", "2"]);
    put(&mut fields, rng, "X_Beta", &["1"]);
    put(
        &mut fields,
        rng,
        "Content-Type",
        &["application/grpc", "text/plain"],
    );
    if rng.chance(50) {
        fields.extend((0..8).map(|_| ("X-More", "1".to_owned())));
    }
    DrawnRequest {
        listener: rng.below(2),
        method,
        host: hosts[rng.below(hosts.len())],
        path_and_query: path,
        client: CLIENTS[rng.below(3)],
        // `explain` does not see the token, which is one field more.
        claims: match fields.len() {
            0..6 => claims[rng.below(claims.len())].to_vec(),
            _ => Vec::new(),
        },
        fields,
    }
}

/// Sometimes adds a field with one of these values.
fn put(
    fields: &mut Vec<(&'static str, String)>,
    rng: &mut Rng,
    name: &'static str,
    values: &[&str],
) -> bool {
    let is_there = rng.chance(90);
    if is_there {
        fields.push((name, values[rng.below(values.len())].to_owned()));
    }
    is_there
}
