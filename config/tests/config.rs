//! The configuration that a valid file describes.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use weir_config::{
    Balance, Config, Cores, EndpointAddress, FieldMatch, ForwardedHeader, HostMatch, Listener,
    LogFormat, LogTarget, PathMatch, PlaceholderText, Position, Rewrite, Route, Segment, Target,
    TextPiece, Underscores, ValueMatch, parse,
};

fn config(text: &str) -> Config {
    match parse("test.toml", text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{}", weir_config::to_text(&errors)),
    }
}

fn example(name: &str) -> Config {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    config(&std::fs::read_to_string(root.join("examples").join(name)).expect("an example"))
}

#[test]
fn a_quick_config_is_what_the_smallest_file_says() {
    let mut written = example("minimal.toml");
    written.listeners[0].position = Position::default();
    written.routes[0].position = Position::default();
    written.upstreams[0].position = Position::default();
    written.upstreams[0].name = "default".to_owned();
    for endpoint in &mut written.upstreams[0].endpoints {
        endpoint.position = Position::default();
    }
    let endpoints = ["10.0.0.11:8080", "10.0.0.12:8080"];
    let quick = Config::quick(
        "0.0.0.0:8080".parse().expect("an address"),
        endpoints
            .map(|text| text.parse().expect("an endpoint"))
            .to_vec(),
    );
    assert_eq!(quick, written);
}

#[test]
fn trusted_peers_and_odd_names_are_read() {
    let config = example("everything.toml");
    let trusts = |listener| config.trusts_all_of(listener);
    let trusted: Vec<_> = config
        .listeners
        .iter()
        .filter(|each| trusts(each))
        .collect();
    assert_eq!(
        trusted
            .iter()
            .map(|each| each.address.to_string())
            .collect::<Vec<_>>(),
        ["unix:/run/weir/http.sock"]
    );
    assert_eq!(config.forwarded_header, ForwardedHeader::XForwardedFor);
    let keeps = |route: &&Route| route.underscores == Some(Underscores::Keep);
    assert_eq!(config.routes.iter().filter(keeps).count(), 1);
}

#[test]
fn everything_is_read() {
    let config = example("everything.toml");
    assert_eq!(config.cores, Cores::Set(vec![2, 3, 4, 5, 6, 7, 10]));
    let admin = config.admin.as_ref().expect("an admin listener");
    assert_eq!(admin.address.to_string(), "127.0.0.1:9901");
    let token = admin.token_file.as_ref().expect("a token");
    assert_eq!(token.path.to_str(), Some("/etc/weir/admin.token"));
    assert_eq!(admin.allow.as_ref().map(Vec::len), Some(2));
    let log = config.access_log.as_ref().expect("a log");
    assert_eq!(log.to, LogTarget::File("/var/log/weir/access.log".into()));
    assert_eq!(log.format, LogFormat::Logfmt);
    assert_eq!(log.redact, Some(vec!["reset_code".to_owned()]));
    assert_eq!(log.request_headers, ["x-tenant"]);
    assert_eq!(log.response_headers, ["content-type", "x-cache"]);
    assert_eq!(config.trusted_proxies.len(), 4);
    assert_eq!(config.limits.body_rate, Some(240));
    assert_eq!(config.timeouts.total, None);
    assert_eq!(config.listeners.len(), 7);
    assert_eq!(config.connections_of(&config.listeners[0]), Some(10_000));
    assert_eq!(config.connections_of(&config.listeners[1]), None);
    assert_eq!(
        config.listener_timeouts(&config.listeners[0]).idle,
        Duration::from_secs(90)
    );
    // One table with `tcp` and `udp` is two listeners.
    let kinds = config.listeners.iter().map(|each| each.target.key());
    let kinds: Vec<_> = kinds.flatten().collect();
    assert_eq!(kinds, ["tcp", "udp", "passthrough"]);
    let is_passthrough = |each: &&Listener| each.target.key() == Some("passthrough");
    let passthrough = config.listeners.iter().find(is_passthrough);
    let idle = passthrough.map(|listener| config.relay_idle_of(listener));
    assert_eq!(idle, Some(Duration::from_secs(3600)));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.balance, Balance::RoundRobin);
    assert_eq!(
        upstream.endpoints[1].address,
        EndpointAddress::Name {
            host: "app.internal".to_owned(),
            port: 8080
        }
    );
    assert_eq!(upstream.endpoints[4].weight, 2);
    let route = &config.routes[0];
    assert_eq!(route.name, "everything");
    assert_eq!(route.target, Target::Upstream { index: 0 });
    assert_eq!(
        route.matches.hosts,
        [HostMatch::Wildcard("example.com".to_owned())]
    );
    assert_eq!(
        route.matches.paths,
        [PathMatch::Template {
            segments: vec![
                Segment::Literal("t".to_owned()),
                Segment::Parameter("tenant".to_owned())
            ],
            open: true
        }]
    );
    assert_eq!(route.matches.methods, ["GET", "HEAD"]);
    let header = |name: &str, value| FieldMatch {
        name: name.to_owned(),
        value,
    };
    assert_eq!(
        route.matches.headers,
        [
            header("x-version", ValueMatch::Exact("2".to_owned())),
            header("x-old", ValueMatch::Absent),
            header("x-trace", ValueMatch::Present),
            header("authorization", ValueMatch::Prefix("Bearer ".to_owned())),
        ]
    );
    assert_eq!(
        route.rewrite,
        Some(Rewrite::Path(PlaceholderText(vec![
            TextPiece::Text("/".to_owned()),
            TextPiece::Parameter("tenant".to_owned()),
            TextPiece::Text("/".to_owned()),
            TextPiece::Rest,
        ])))
    );
    let test = &config.tests[0];
    assert_eq!(
        (test.method.as_str(), test.scheme.as_str()),
        ("GET", "https")
    );
    assert_eq!(
        (test.host.as_str(), test.port),
        ("a.example.com", Some(8443))
    );
    assert_eq!(test.target, "/t/acme/x?format=json");
    assert_eq!(
        (test.route, test.upstream, test.status),
        (Some(0), Some(0), None)
    );
    assert!(
        test.headers
            .contains(&("x-version".to_owned(), "2".to_owned()))
    );
}

#[test]
fn settings_merge_from_the_top_to_the_route() {
    let config = config(
        r#"
        timeouts = { connect = "1s", first_byte = "10s", total = "1m" }
        retries = { count = 2, budget = "30%" }
        limits = { body = "1MiB" }
        listen."0.0.0.0:80" = {}
        [upstream.a]
        servers = "10.0.0.1:80"
        timeouts = { first_byte = "20s" }
        retries = { backoff = "1s" }
        [[route]]
        match = "/a"
        to = "a"
        timeouts = { total = "off" }
        limits = { body_rate = "off" }
        retries = 0
        [[route]]
        match = "/b"
        respond = 404
        timeouts = { idle = "1s" }
        "#,
    );
    let seconds = Duration::from_secs;
    let first = config.timeouts_of(&config.routes[0]);
    assert_eq!(first.connect, seconds(1), "from the top");
    assert_eq!(first.first_byte, seconds(20), "from the upstream");
    assert_eq!(first.total, None, "from the route");
    assert_eq!(first.idle, seconds(75), "the default");
    let second = config.timeouts_of(&config.routes[1]);
    assert_eq!((second.idle, second.first_byte), (seconds(1), seconds(10)));
    assert_eq!(second.total, Some(seconds(60)));
    let retries = config.retries_of(&config.routes[0]);
    assert_eq!((retries.count, retries.budget_percent), (Some(0), 30));
    assert_eq!(retries.backoff, seconds(1));
    let limits = config.limits_of(&config.routes[0]);
    assert_eq!((limits.body_bytes, limits.body_rate), (Some(1 << 20), None));
    assert_eq!(config.limits_of(&config.routes[1]).body_rate, Some(240));
}

/// `retries` of a route overrides `"off"` of the top level, and the other way round.
#[test]
fn a_number_of_retries_turns_failover_on_again() {
    let count = |top: &str, route: &str| {
        let config = config(&format!(
            "{top}\nlisten.\"0.0.0.0:80\" = {{}}\nupstream.a = [\"10.0.0.1:80\"]\n\
             [[route]]\nmatch = \"/\"\nto = \"a\"\n{route}\n"
        ));
        config.retries_of(&config.routes[0]).count
    };
    assert_eq!(count("", ""), Some(1));
    assert_eq!(count("retries = \"off\"", ""), None);
    assert_eq!(count("retries = \"off\"", "retries = 0"), Some(0));
    assert_eq!(
        count("retries = { count = \"off\" }", "retries = { count = 2 }"),
        Some(2)
    );
    assert_eq!(count("retries = 3", "retries = \"off\""), None);
    assert_eq!(
        count("retries = \"off\"", "retries = { backoff = \"1s\" }"),
        None
    );
}

#[test]
fn defaults_of_limits_follow_lower_limits() {
    let config = config(
        "limits = { head = \"4KiB\", connections = 100 }\n\
         [listen.\"0.0.0.0:80\"]\n[listen.\"0.0.0.0:81\"]\nconnections = 10\n\
         [[route]]\nmatch = \"/\"\nrespond = 404\n",
    );
    assert_eq!(config.limits.target_bytes, 4_096);
    assert_eq!(config.limits.connections_per_client, 100);
    assert_eq!(config.connections_per_client_of(&config.listeners[1]), 10);
}

#[test]
fn positions_have_the_lines_of_the_file() {
    let config = config(
        "[listen.\"0.0.0.0:80\"]\n\
         [upstream.a]\nservers = [\n\"10.0.0.1:80\",\n{ address = \"10.0.0.2:80\" },\n]\n\
         [upstream]\nb = \"10.0.0.3:80\"\n\
         [[route]]\nmatch = \"/a\"\nto = \"a\"\n\n[[route]]\nmatch = \"/b\"\nto = \"b\"\n\
         [[test]]\nrequest = \"GET http://x/\"\nstatus = 404\n",
    );
    assert_eq!(config.listeners[0].position.line, 1);
    assert_eq!(config.upstreams[0].position.line, 2);
    assert_eq!(config.upstreams[0].endpoints[0].position.line, 4);
    assert_eq!(config.upstreams[0].endpoints[1].position.line, 5);
    assert_eq!(config.upstreams[1].position.line, 8);
    assert_eq!(config.upstreams[1].endpoints[0].position.line, 8);
    assert_eq!(
        [
            config.routes[0].position.line,
            config.routes[1].position.line
        ],
        [9, 13]
    );
    assert_eq!(config.tests[0].position.line, 17);
}

#[test]
fn routes_without_names_get_names_of_their_own() {
    let config = config(
        "[listen.\"0.0.0.0:80\"]\n\
         [[route]]\nmatch = { path = \"/a\", method = \"GET\" }\nrespond = 200\n\
         [[route]]\nmatch = { path = \"/a\", method = \"PUT\" }\nrespond = 200\n\
         [[route]]\nmatch = \"/a\"\nrespond = 200\n\
         [[route]]\nname = \"/b\"\nmatch = \"/c\"\nrespond = 200\n\
         [[route]]\nmatch = \"/b\"\nrespond = 200\n",
    );
    let names: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["/a", "/a #2", "/a #3", "/b", "/b #2"]);
}

#[test]
fn files_with_crlf_and_a_byte_order_mark_are_read() {
    let text = "\u{feff}[listen.\"0.0.0.0:80\"]\r\n[[route]]\r\nmatch = \"/\"\r\nrespond = 404\r\n";
    assert_eq!(config(text).routes[0].position.line, 2);
    let errors = parse("x", "cores = 1\r\ncore = 1\r\n").expect_err("an invalid file");
    assert!(weir_config::to_text(&errors).contains("2 | core = 1\n"));
}

#[test]
fn diagnostics_as_json() {
    let errors = parse("edge \"1\".toml", "[listn]\n").expect_err("an invalid file");
    let json: serde_json::Value =
        serde_json::from_str(&weir_config::to_json(&errors)).expect("JSON");
    let first = &json[0];
    assert_eq!(first["code"], "unknown-key");
    assert_eq!(first["severity"], "error");
    assert_eq!(first["file"], "edge \"1\".toml");
    assert_eq!(
        (&first["line"], &first["column"], &first["length"]),
        (&1.into(), &2.into(), &5.into())
    );
    assert_eq!(first["label"], "did you mean `listen`?");
    assert_eq!(
        json[1]["line"],
        serde_json::Value::Null,
        "it is about the whole file"
    );
}

#[test]
fn diagnostics_beyond_the_bound_are_counted_and_errors_go_first() {
    let mut text =
        String::from("[listen.\"127.0.0.1:80\"]\n[[route]]\nmatch = \"/*\"\nrespond = 404\n");
    for n in 0..10_000 {
        text += &format!("[upstream.unused{n}]\nservers = [\"10.0.0.1:80\"]\n");
    }
    let (_, warnings) = parse("many.toml", &text).expect("a usable file");
    let last = warnings.last().expect("warnings");
    assert_eq!(warnings.len(), 101);
    assert_eq!(last.message, "9900 more warnings are not shown");
    assert!(!last.is_error());
    // Errors take the room of warnings.
    for n in 0..150 {
        text += &format!(
            "[[route]]\nmatch = \"/{n}\"\nrespond = 404\ntimeouts = {{ head = \"1s\" }}\n"
        );
    }
    text += "typo = 1\n";
    let all = parse("many.toml", &text).expect_err("an unusable file");
    assert!(all.iter().any(|each| each.message.contains("`typo`")));
    assert_eq!(all.len(), 101);
    assert_eq!(all[100].message, "51 more warnings are not shown");
    let many = all.iter().cycle().take(500).cloned().collect();
    assert_eq!(weir_config::bounded(many).len(), 101);
}

#[test]
fn excerpts_of_a_very_long_line_are_short() {
    let lists = "\"10.0.0.1:80\", ".repeat(100_000);
    let text = format!("[listen.\"0.0.0.0:80\"]\n[upstream]\nlong = [{lists} \"häst\", 5]\n");
    let all = parse("long.toml", &text).expect_err("an unusable file");
    let kept: usize = all
        .iter()
        .filter_map(|each| each.excerpt.as_ref())
        .map(|excerpt| excerpt.text.len())
        .sum();
    assert!(kept < 100 * 5_000, "{kept}");
    let first = weir_config::to_text(&all);
    assert!(
        first.lines().all(|line| line.chars().count() < 160),
        "{first}"
    );
    assert!(
        first.contains("3 | ...") && first.contains("^^^^"),
        "{first}"
    );
}

#[test]
fn tens_of_thousands_of_mistakes_cost_linear_time() {
    let listener = "[listen.\"127.0.0.1:80\"]\n";
    let each = |line: fn(usize) -> String| -> String { (0..50_000).map(line).collect() };
    for (name, text) in [
        ("the same header", each(|_| "[upstream.a]\n".to_owned())),
        ("the same key", each(|_| "cores = 1\n".to_owned())),
        ("open strings", each(|n| format!("k{n} = \"x\n"))),
        ("open headers", each(|n| format!("[upstream.a{n}\n"))),
        ("open lists", each(|n| format!("k{n} = [\n"))),
        ("wrong brackets", each(|n| format!("k{n} = [1}}\n"))),
        ("unknown keys", each(|n| format!("k{n} = 1\n"))),
        (
            "bad listeners",
            each(|n| format!("[listen.\"x{n}\"]\nbacklog = 0\n")),
        ),
        (
            "the same listener",
            each(|n| format!("[listen.\"unix:/run/{}x\"]\n", "./".repeat(n % 9))),
        ),
        (
            "routes of one name",
            each(|n| format!("[[route]]\nname = \"a\"\nmatch = \"/{n}\"\nrespond = 200\n")),
        ),
        (
            "tests of no route",
            each(|_| "[[test]]\nrequest = \"GET http://a/\"\nroute = \"none\"\n".to_owned()),
        ),
    ] {
        let begun = std::time::Instant::now();
        let all = parse("many.toml", &format!("{listener}{text}")).expect_err(name);
        assert!(all.len() <= 101, "{name}");
        // Quadratic time would take minutes.
        let taken = begun.elapsed();
        assert!(taken.as_secs() < 20, "{name}: {taken:?}");
        println!("{name}: {taken:?}");
    }
}
