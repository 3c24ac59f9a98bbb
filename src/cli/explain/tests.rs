mod relays;

use super::Question;
use crate::plan::{EndpointSets, Plan};

const FILE: &str = r#"
[listen."127.0.0.1:8080"]
[listen."0.0.0.0:8081"]

[upstream.api]
servers = ["10.0.0.11:8080", { address = "10.0.0.12:8080", weight = 2 }]
timeouts = { total = "20s" }

[[route]]
name = "old"
match = "api.example.com/v0/*"
redirect = "https://{host}/v1/{rest}"

[[route]]
name = "beta"
match = { host = "api.example.com", path = "/v1/*", header = { x-beta = "1" } }
to = "api"

[[route]]
name = "api"
match = { host = "api.example.com", path = "/v1/*", method = ["GET", "HEAD"] }
to = "api"
strip = "/v1"

[[route]]
name = "health"
match = "/healthz"
respond = { status = 200, body = "fine" }
"#;

fn plan(text: &str) -> (weir_config::Config, Plan) {
    let (config, _) = weir_config::parse("edge.toml", text)
        .unwrap_or_else(|all| panic!("{}", weir_config::to_text(&all)));
    let plan = Plan::compile(&config).unwrap();
    (config, plan)
}

/// Explains without endpoints.
fn explain(plan: &Plan, question: &Question) -> Result<String, String> {
    super::explain((plan, &EndpointSets::default()), question)
}

/// A GET that says nothing of its client.
fn get(url: &str) -> Question {
    Question {
        method: "GET".to_owned(),
        url: url.to_owned(),
        ..Question::default()
    }
}

fn failures(config: &weir_config::Config, plan: &Plan) -> Vec<String> {
    let failed = plan.run_tests(config);
    failed.iter().map(ToString::to_string).collect()
}

fn ask(method: &str, url: &str, headers: &[&str]) -> Result<String, String> {
    let headers = headers.iter().map(|&line| line.to_owned()).collect();
    let (method, url) = (method.to_owned(), url.to_owned());
    let (config, plan) = plan(FILE);
    let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
    super::explain(
        (&plan, &endpoints),
        &Question {
            method,
            url,
            headers,
            ..Question::default()
        },
    )
}

#[test]
fn a_request_that_goes_upstream() {
    let text = ask(
        "GET",
        "http://API.example.com:8080/v1/./users?a=b#top",
        &["X-Beta: 0"],
    );
    assert_eq!(
        text.unwrap(),
        "\
request    GET http://API.example.com:8080/v1/./users?a=b#top
listener   127.0.0.1:8080, head within 10s and 16KiB, 100 fields, target 8KiB, idle 75s
matched as api.example.com/v1/users
routes     whose host and path match, in order of precedence:
    beta (line 14): header `x-beta` is not \"1\"
  > api (line 19): takes the request
others     whose path or host does not match:
    old (line 9): its path does not match
    health (line 25): its path does not match
route      api
upstream   api
  balance  p2c
  endpoint 10.0.0.11:8080
  endpoint 10.0.0.12:8080, weight 2
sent as    /users?a=b
timeouts   connect 2s, queue 10s, first byte 1m, body stall 30s, total 20s
pool       over all cores, at most 1024 connections to each endpoint and 1024 waiting requests
retries    at most 1, after about 25ms; at most 20% of the requests of the last 10s, but always 3
retried    GET, HEAD, OPTIONS, PUT, DELETE, after connect,reset,invalid,503
failover   if Weir cannot connect, it tries the next endpoint, at most 3 connections in all
ejection   after 5 failures in a row on a core, for 30s and longer each time; at most 50% of the endpoints
body       of any size, at least 240B/s
"
    );
}

#[test]
fn a_request_that_weir_answers() {
    let text = ask("GET", "http://api.example.com/v0/a", &[]).unwrap();
    assert!(
        text.contains("listener   none on port 80; the file has 127.0.0.1:8080, 0.0.0.0:8081\n"),
        "{text}"
    );
    assert!(
        text.ends_with("route      old\nanswer     307, location https://api.example.com/v1/a\n"),
        "{text}"
    );
    let text = ask("GET", "http://x:8081/healthz", &[]).unwrap();
    assert!(
        text.contains("listener   0.0.0.0:8081, head within 10s and 16KiB, 100 fields, target 8KiB, idle 75s\n"),
        "{text}"
    );
    assert!(
        text.contains("answer     200, 4 bytes, text/plain"),
        "{text}"
    );
}

#[test]
fn a_request_that_is_refused() {
    for (method, url, headers, expected) in [
        (
            "GET",
            "http://x/",
            &[][..],
            "answer     404, reason no_route: ",
        ),
        (
            "PUT",
            "http://api.example.com/v1/a",
            &[],
            "answer     405, reason method_not_allowed: ",
        ),
        (
            "PUT",
            "http://api.example.com/v1/a",
            &[],
            "allow      GET, HEAD\n",
        ),
        (
            "GET",
            "http://x/a%00b",
            &[],
            "answer     400, reason bad_path: ",
        ),
        (
            "GET",
            "http://x/",
            &["Host: a b"],
            "answer     400, reason bad_host: ",
        ),
        (
            "GET",
            "http://x/",
            &["Expect: magic"],
            "answer     417, reason expectation_failed: ",
        ),
        (
            "POST",
            "http://x/",
            &["Content-Length: 1", "Transfer-Encoding: chunked"],
            "answer     400, reason bad_framing: ",
        ),
        (
            "TRACE",
            "http://x/healthz",
            &[],
            "answer     405, reason method_not_allowed: ",
        ),
    ] {
        let text = ask(method, url, headers).unwrap();
        assert!(
            text.contains(expected),
            "{method} {url} {headers:?}: {text}"
        );
    }
}

/// Explain says why Weir refuses a path although a route matches it, and which path goes upstream otherwise.
#[test]
fn paths_that_endpoints_read_differently() {
    let file = r#"
[listen."127.0.0.1:80"]
[upstream]
app = "10.0.0.1:80"
[[route]]
name = "admin"
match = "/admin/*"
respond = 403
[[route]]
name = "files"
match = "/static*"
to = "app"
replace = "/files/{rest}"
[[route]]
name = "strict"
match = "/strict/*"
to = "app"
encoded_slash = "refuse"
[[route]]
name = "rest"
match = "/*"
to = "app"
[[test]]
request = "GET http://a/admin//../users"
status = 400
[[test]]
request = "GET http://a/x/..%2fadmin/y"
status = 400
[[test]]
request = "GET http://a/static../secret"
status = 400
[[test]]
request = "GET http://a/@scope%2Fpackage"
route = "rest"
upstream = "app"
"#;
    let (config, plan) = plan(file);
    assert_eq!(plan.run_tests(&config), []);
    for (target, expected) in [
        ("/a/%2e%2E/b?c", "\nsent as    /b?c\n"),
        (
            "/admin//../users",
            "\nbecause    for an endpoint that resolves dot segments before it merges slashes, the path is /admin/users, which route `admin` takes\n",
        ),
        (
            "/admin%2fx",
            "for an endpoint that decodes %2F into a slash, the path is /admin/x, which route `admin` takes",
        ),
        (
            "/static../secret",
            "for an endpoint that resolves dot segments, the rewritten path is not the one that route `files` means",
        ),
        (
            "/strict/a",
            "\nslashes    an encoded slash is refused (encoded_slash = \"refuse\")\n",
        ),
        (
            "/strict/a%5Cb",
            "because    route `strict` has encoded_slash = \"refuse\"",
        ),
    ] {
        let question = get(&format!("http://a{target}"));
        let text = explain(&plan, &question).unwrap();
        assert!(text.contains(expected), "{target}: {text}");
    }
}

#[test]
fn a_host_field_replaces_that_of_the_url() {
    let text = ask(
        "GET",
        "http://127.0.0.1:8080/v1/a",
        &["host:api.example.com"],
    )
    .unwrap();
    assert!(text.contains("matched as api.example.com/v1/a\n"), "{text}");
    assert!(text.contains("\nroute      api\n"), "{text}");
}

#[test]
fn bad_arguments_are_named() {
    for (url, headers, expected) in [
        ("/v1", &[][..], "`/v1` is no URL: write http://host/path"),
        (
            "http:///v1",
            &[],
            "`http:///v1` is no URL: write http://host/path",
        ),
        (
            "ftp://h/",
            &[],
            "`ftp` is no scheme that Weir serves: write http or https",
        ),
        ("http://h:x/", &[], "`x` is no port"),
        (
            "http://h/",
            &["a"],
            "`a` is no field line: write 'name: value'",
        ),
        (
            "http://h/",
            &["a: b\r\nc: d"],
            "a request has no line breaks in it",
        ),
        ("http://h/\n", &[], "a request has no line breaks in it"),
    ] {
        assert_eq!(
            ask("GET", url, headers).unwrap_err(),
            expected,
            "{url} {headers:?}"
        );
    }
    let text = ask("GET", "http://[::1]:8081?q", &[]).unwrap();
    assert!(
        text.contains("listener   0.0.0.0:8081, head within 10s and 16KiB, 100 fields, target 8KiB, idle 75s\nmatched as [::1]/\n"),
        "{text}"
    );
}

/// CONNECT has its own form of target, and gets the answer of the data path.
#[test]
fn methods_that_no_route_can_take() {
    for url in ["http://a:8080/x", "http://[::1]", "https://a:443"] {
        for method in ["CONNECT", "TRACE"] {
            let text = ask(method, url, &[]).unwrap();
            assert!(
                text.contains("answer     405, reason method_not_allowed:")
                    && !text.contains("routes")
                    && text.ends_with("allow      GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\n"),
                "{text}"
            );
        }
    }
    let test = "[[test]]\nrequest = \"CONNECT http://a:443/\"\nstatus = 405\n";
    let (config, plan) = plan(&format!("{FILE}{test}"));
    assert_eq!(plan.run_tests(&config), []);
}

/// A URL in a file and a URL in an argument become the request that a client would send.
#[test]
fn urls_become_the_targets_that_clients_send() {
    let file = r#"
[listen."127.0.0.1:80"]
[[route]]
match = "a.test/*"
respond = 403
[[route]]
match = "/*"
respond = 200
"#;
    for (method, url, status) in [
        ("GET", "http://a.test", 403),
        ("GET", "http://A.test./x", 403),
        ("GET", "http://a.test:/x", 403),
        ("GET", "http://a.test.:80/x", 403),
        ("GET", "http://b.test?x", 200),
        ("OPTIONS", "http://a.test", 404),
        ("OPTIONS", "http://a.test/", 403),
        ("OPTIONS", "http://b.test?x", 200),
    ] {
        let test = format!("[[test]]\nrequest = \"{method} {url}\"\nstatus = {status}\n");
        let (config, plan) = plan(&format!("{file}{test}"));
        assert_eq!(plan.run_tests(&config), [], "{method} {url}");
        let question = Question {
            method: method.into(),
            url: url.into(),
            ..Question::default()
        };
        let text = explain(&plan, &question).unwrap();
        assert!(text.contains(&format!("answer     {status}")), "{text}");
    }
}

#[test]
fn routes_of_other_hosts_are_counted_without_all() {
    let mut file = FILE.to_owned();
    for number in 0..30 {
        file.push_str(&format!(
            "[[route]]\nmatch = \"h{number}/*\"\nrespond = 404\n"
        ));
    }
    let plan = plan(&file).1;
    let question = get("http://x/healthz");
    let text = explain(&plan, &question).unwrap();
    assert!(text.contains("    23 more; --all lists them\n"), "{text}");
    let text = explain(
        &plan,
        &Question {
            all: true,
            ..question
        },
    )
    .unwrap();
    assert!(
        text.contains("h29/*") && !text.contains("more (--all)"),
        "{text}"
    );
}

#[test]
fn failing_test_blocks_say_what_happens_instead() {
    let tests = r#"
[[test]]
request = "GET http://api.example.com/v1/a"
route = "api"
upstream = "api"

[[test]]
request = "GET http://api.example.com/v1/a"
headers = { X-Beta = "1" }
route = "api"

[[test]]
request = "POST http://api.example.com/v1/a"
route = "api"

[[test]]
request = "GET http://api.example.com/v0/a"
upstream = "api"

[[test]]
request = "GET http://api.example.com/v1/a"
status = 200

[[test]]
request = "GET http://x:8080/nothing"
headers = { host = "api.example.com" }
status = 200

[[test]]
request = "GET http://x/nothing"
status = 404
"#;
    let (config, plan) = plan(&format!("{FILE}{tests}"));
    assert_eq!(
        failures(&config, &plan),
        [
            "line 36: test `GET http://api.example.com/v1/a`: expected route `api`, but route `beta` sends it to upstream `api`: comes after the route that takes the request",
            "line 41: test `POST http://api.example.com/v1/a`: expected route `api`, but Weir answers 405 (method_not_allowed): method is not GET or HEAD",
            "line 45: test `GET http://api.example.com/v0/a`: expected upstream `api`, but route `old` answers 307",
            "line 49: test `GET http://api.example.com/v1/a`: expected status 200, but route `api` sends it to upstream `api`",
            "line 53: test `GET http://x:8080/nothing`: expected status 200, but Weir answers 404 (no_route)",
        ]
    );
}

#[test]
fn a_test_says_what_it_does_not_check() {
    let file = r#"
[listen."127.0.0.1:8080"]

[upstream]
app = "127.0.0.1:1"

[[route]]
match = "/*"
to = "app"
ip = { allow = "10.0.0.0/8" }
limit = "1/s per ip"

[[test]]
request = "GET http://a/x"
status = 403
"#;
    let (config, plan) = plan(file);
    assert_eq!(
        failures(&config, &plan),
        [
            "line 14: test `GET http://a/x`: expected status 403, but route `/*` sends it to upstream `app`; the test does not check `ip` without a `client_ip`, `limit`",
        ]
    );
}

#[test]
fn explain_takes_a_client_certificate() {
    let routes = r#"
[listen."127.0.0.1:8080"]

[[route]]
name = "alice"
match = { path = "/*", client_cert = { prefix = "CN=alice" } }
respond = 201

[[route]]
name = "partners"
match = { path = "/*", client_cert = "DNS:a.example.com" }
respond = 202

[[route]]
name = "nobody"
match = { path = "/*", client_cert = false }
respond = 203
"#;
    let tests = r#"
[[test]]
request = "GET http://x/"
client_cert = "CN=alice,O=Example"
route = "alice"

[[test]]
request = "GET http://x/"
client_cert = ["CN=bob", "DNS:b.example.com", "DNS:a.example.com"]
route = "partners"

[[test]]
request = "GET http://x/"
route = "nobody"

[[test]]
request = "GET http://x/"
client_cert = "CN=eve"
status = 404
"#;
    let (config, plan) = plan(&format!("{routes}{tests}"));
    assert_eq!(plan.run_tests(&config), []);
    let question = Question {
        method: "GET".into(),
        url: "http://x/".into(),
        client_cert: vec!["DNS:a.example.com".into()],
        ..Question::default()
    };
    let text = explain(&plan, &question).unwrap();
    assert!(text.contains("route      partners"), "{text}");
    assert!(text.contains("client     DNS:a.example.com"), "{text}");
    let why = "the client's certificate does not begin with \"CN=alice\"";
    assert!(text.contains(why), "{text}");
}

#[test]
fn a_redirect_to_https_comes_before_any_route() {
    let file = r#"
[listen."127.0.0.1:80"]
redirect_https = 8443
[listen."127.0.0.1:8080"]
[[route]]
match = "/*"
respond = 200
"#;
    let tests = r#"
[[test]]
request = "GET http://x/a?b=c"
status = 308
[[test]]
request = "GET http://x/"
route = "/*"
[[test]]
request = "GET http://x:8080/"
status = 200
[[test]]
request = "GET http://x:9090/"
status = 200
"#;
    let (config, plan) = plan(&format!("{file}{tests}"));
    assert_eq!(
        failures(&config, &plan),
        [
            "line 13: test `GET http://x/`: expected route `/*`, but the listener redirects it to https (308, `redirect_https`)"
        ]
    );
    let question = get("http://x/a?b=c");
    let client_cert = vec!["partner.pem".to_owned()];
    let wrong = Question {
        client_cert,
        ..question.clone()
    };
    let said = explain(&plan, &wrong).unwrap_err();
    assert!(said.contains("`partner.pem` is neither"), "{said}");
    let text = explain(&plan, &question).unwrap();
    assert!(
        text.ends_with(
            "answer     308, location https://x:8443/a?b=c: the listener redirects every request to https\n"
        ),
        "{text}"
    );
}

#[test]
fn a_redirect_to_https_comes_before_any_refusal() {
    let (_, plan) = plan(
        "[listen.\"127.0.0.1:80\"]\nredirect_https = true\n[upstream]\napp = \"10.0.0.1:80\"\n[[route]]\nmatch = \"/*\"\nto = \"app\"\nencoded_slash = \"refuse\"\n",
    );
    for (method, path) in [("GET", "/a%2Fb"), ("GET", "/%00"), ("TRACE", "/")] {
        let question = Question {
            method: method.to_owned(),
            url: format!("http://x{path}"),
            headers: vec!["Upgrade: foo".to_owned(), "Connection: upgrade".to_owned()],
            ..Question::default()
        };
        let text = explain(&plan, &question).unwrap();
        let answer = format!("answer     308, location https://x{path}: ");
        assert!(text.contains(&answer), "{text}");
    }
}

#[test]
fn explain_refuses_a_body_that_the_head_announces_too_large() {
    let file = format!("[limits]\nbody = \"1KiB\"\n{FILE}");
    let ask = |headers: &[&str]| {
        let question = Question {
            method: "GET".to_owned(),
            url: "http://api.example.com:8080/v1/x".to_owned(),
            headers: headers.iter().map(|&line| line.to_owned()).collect(),
            ..Question::default()
        };
        explain(&plan(&file).1, &question).unwrap()
    };
    assert!(!ask(&["Content-Length: 1024"]).contains("413"));
    let text = ask(&["Content-Length: 1025"]);
    assert!(
        text.contains("answer     413, reason body_too_large"),
        "{text}"
    );
    assert!(text.contains("takes bodies of at most 1KiB"), "{text}");
}

#[test]
fn explain_names_dropped_fields() {
    let headers = ["X_Beta: 1", "X-Forwarded-For: 192.0.2.1", "Accept: */*"];
    let text = ask("GET", "http://api.example.com:8080/v1/x", &headers).unwrap();
    let line = "dropped    X_Beta, X-Forwarded-For: clients may not send this\n";
    assert!(text.contains(line), "{text}");
    let text = ask("GET", "http://api.example.com:8080/v1/x", &["X-Beta: 1"]).unwrap();
    assert!(!text.contains("dropped"), "{text}");
    // If the file trusts any proxy, the request is taken to come from it.
    let file = format!("trusted_proxies = \"10.0.0.0/8\"\n{FILE}");
    let question = |line: &str| Question {
        method: "GET".to_owned(),
        url: "http://api.example.com:8080/v1/x".to_owned(),
        headers: vec![line.to_owned()],
        ..Question::default()
    };
    let text = |line| explain(&plan(&file).1, &question(line)).unwrap();
    assert!(!text("X-Forwarded-For: 192.0.2.1").contains("dropped"));
    assert!(text("Forwarded: for=192.0.2.1").contains("dropped    Forwarded:"));
    let file = "trusted_proxies = \"10.0.0.0/8\"\n[listen.\"0.0.0.0:8080\"]\nredirect_https = true\n\
        [[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n";
    let text = |line| explain(&plan(file).1, &question(line)).unwrap();
    assert!(text("X-Forwarded-Proto: http").contains("308"));
    assert!(!text("X-Forwarded-Proto: https").contains("308"));
}

#[test]
fn explain_says_which_server_would_be_asked() {
    let file = "[listen.\"0.0.0.0:80\"]\n[upstream]\na = [\"10.0.0.1:80\"]\n[[route]]\nmatch = \"/*\"\nto = \"a\"\n\
                forward_auth = { to = \"http://auth.internal/verify?x\", copy_to_request = \"Remote-User\", \
                copy_to_response = [\"Set-Cookie\", \"X-A\"], on_error = \"allow\" }\n";
    let question = Question {
        method: "GET".to_owned(),
        url: "http://a/".to_owned(),
        ..Question::default()
    };
    let text = explain(&plan(file).1, &question).unwrap();
    let row = "policy     forward_auth would check: asks http://auth.internal (GET /verify?x); \
               endpoints get its Remote-User; the client gets its Set-Cookie, X-A; \
               lets requests pass while it fails";
    assert!(text.lines().any(|line| line == row), "{text}");
    assert!(text.contains("upstream   a"), "{text}");
}

#[test]
fn explain_says_what_keeps_a_client_and_what_is_copied() {
    let file = "[listen.\"0.0.0.0:80\"]\n[upstream.a]\nservers = [\"10.0.0.1:80\"]\nsticky = { learn = \"SID\" }\n\
                [upstream.b]\nservers = [\"10.0.0.2:80\"]\n[[route]]\nmatch = \"/*\"\nto = \"a\"\nmirror = \"b, 5%\"\n";
    let question = Question {
        method: "GET".to_owned(),
        url: "http://a/".to_owned(),
        ..Question::default()
    };
    let text = explain(&plan(file).1, &question).unwrap();
    for row in [
        "policy     mirror send 5% of the requests to upstream b too, with bodies of up to 64KiB; \
         drop the answers, after at most 15s",
        "sticky     by the application's cookie SID",
    ] {
        assert!(text.lines().any(|line| line == row), "{text}");
    }
}

#[test]
fn explain_says_what_edits_the_answer_of_a_refused_request() {
    let (_, plan) = plan(
        r#"
security_headers = true
limits = { body = "10B" }
headers = { request = { set = { X-A = "b" } }, response = { set = { X-Top = "1" } } }
cors = "https://app.example.com"
compress = true
[listen."0.0.0.0:80"]
ip = { deny = "192.0.2.9" }
[upstream]
app = "10.0.0.1:80"
[[route]]
match = "/*"
to = "app"
ip = { deny = "192.0.2.8" }
jwt = { issuer = "https://idp.example.com/", audience = "any" }
headers = { response = { set = { X-Own = "1" } } }
"#,
    );
    let ask = |headers: &[&str], client_ip: &str| {
        let question = Question {
            method: "GET".to_owned(),
            url: "http://a.example.com/".to_owned(),
            headers: headers.iter().map(|&line| line.to_owned()).collect(),
            client_ip: Some(client_ip.parse().unwrap()),
            ..Question::default()
        };
        let text = explain(&plan, &question).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("policy"));
        let rows: Vec<_> = rows.map(|row| row.trim().to_owned()).collect();
        assert!(text.contains("\nanswer     4"), "{text}");
        let starts = rows
            .iter()
            .map(|row| row.split(':').next().unwrap().to_owned());
        (starts.collect::<Vec<_>>(), rows.join("\n"))
    };

    let (steps, text) = ask(&[], "192.0.2.1");
    let expected = [
        "ip passes",
        "ip passes",
        "cors takes CORS fields off the answer",
        "jwt refuses",
        "security_headers response",
        "headers response",
    ];
    assert_eq!(steps, expected);
    assert!(text.contains("X-Top") && text.contains("X-Own"), "{text}");
    assert!(!text.contains("X-A"), "{text}");

    let (steps, _) = ask(&[], "192.0.2.8");
    let expected = [
        "ip passes",
        "ip refuses",
        "security_headers response",
        "headers response",
    ];
    assert_eq!(steps, expected);

    // A listener's policy answers before there is a route, so the top level alone edits.
    let (steps, text) = ask(&[], "192.0.2.9");
    let expected = [
        "ip refuses",
        "security_headers response",
        "headers response",
    ];
    assert_eq!(steps, expected);
    assert!(text.contains("X-Top") && !text.contains("X-Own"), "{text}");

    // The body is too long for the route, so its steps do not run.
    let (steps, text) = ask(&["Content-Length: 11"], "192.0.2.1");
    let expected = [
        "ip passes",
        "cors takes CORS fields off the answer",
        "security_headers response",
        "headers response",
    ];
    assert_eq!(steps, expected);
    assert!(text.contains("X-Own"), "{text}");
}
