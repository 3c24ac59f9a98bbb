//! `headers` and `security_headers`: what endpoints and clients get.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::sync::mpsc::channel;

use e2e::*;
use http::{Request, Response};
use hyper::body::Incoming;
use peers::{Body, Client, PAIRS, Protocol, Server, Tls, answer, request, routed, run};

/// The fields of a message with one of these names, as lines in lower case and sorted.
fn lines(message: &Message, names: &[&str]) -> Vec<String> {
    let is_named = |name: &String| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let fields = message.fields.iter().filter(|(name, _)| is_named(name));
    let mut lines: Vec<_> = fields
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn requests_and_answers_follow_the_rules() {
    let endpoint = Endpoint::answering(|_| {
        "HTTP/1.1 200 OK\r\nServer: app/1.2\r\nX-Debug: 1\r\nx-debug: 2\r\nCache-Control: private\r\n\
         Content-Length: 2\r\n\r\nok"
    });
    let weir = Weir::with(
        r#"
[headers.request]
remove = ["X-Debug", "User-Agent"]
set = { X-Forwarded-Proto = "https", X-Real-IP = "{client_ip}", X-Url = "{scheme}://{host}{path}{query}", X-User = "{cookie:user}" }
add = { Accept = "text/plain", X-Request-Copy = "{request_id}" }
[headers.response]
remove = ["X-Debug", "Date"]
set = { Server = "edge", X-Served-By = "{upstream} {endpoint}" }
add = { Cache-Control = "no-transform", Link = ["<a>", "<b>"] }
"#,
        &[&endpoint],
    );
    let mut client = weir.connect();
    // Two requests on one connection: the fields that Weir keeps from request to request stay right.
    for cookie in ["user=ann", "other=1"] {
        client.send(format!(
            "GET /a?b=c HTTP/1.1\r\nHost: Weir.Test:80\r\nUser-Agent: x\r\nX-DEBUG: 1\r\nAccept: a/b\r\n\
             X-User: forged\r\nX_User: forged\r\nCookie: {cookie}\r\n\r\n"
        ));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        assert_eq!(
            lines(
                &answer,
                &[
                    "Server",
                    "X-Debug",
                    "Date",
                    "X-Served-By",
                    "Cache-Control",
                    "Link"
                ]
            ),
            [
                "cache-control: no-transform",
                "cache-control: private",
                "link: <a>",
                "link: <b>",
                "server: edge",
                &format!("x-served-by: up {}", endpoint.name),
            ]
        );
    }
    let requests = endpoint.requests();
    for (request, user) in requests.iter().zip([Some("ann"), None]) {
        assert_eq!(request.field("X-Debug"), None);
        assert_eq!(request.field("User-Agent"), None);
        assert_eq!(request.field("X_User"), None);
        assert_eq!(request.all("X-Forwarded-Proto"), ["https"]);
        assert_eq!(request.field("X-Real-IP"), Some("127.0.0.1"));
        assert_eq!(request.field("X-Url"), Some("http://weir.test/a?b=c"));
        assert_eq!(request.all("X-User"), Vec::from_iter(user));
        assert_eq!(request.all("Accept"), ["a/b", "text/plain"]);
        assert_eq!(
            request.field("X-Request-Copy"),
            request.field("X-Request-Id")
        );
        assert_eq!(request.field("Host"), Some("Weir.Test:80"));
        assert!(request.field("Via").is_some());
    }
    assert_eq!(requests.len(), 2);
}

#[test]
fn each_attempt_names_its_own_endpoint() {
    // It reads the request and closes, so the request goes to the next endpoint.
    let (tell, told) = channel();
    let closing = Endpoint::script(move |conn| {
        if let Some(request) = conn.next_request() {
            tell.send(request).unwrap();
        }
    });
    let good = Endpoint::answering(|request| ok(request.field("X-Endpoint").unwrap()));
    let weir = Weir::with(
        "retries = { count = 3, budget_min = 100 }\n\
         headers = { request.set.X-Endpoint = \"{endpoint}\", request.set.X-Agent = \"{header:User-Agent}\", \
         request.remove = \"User-Agent\", response.set.X-Endpoint = \"{endpoint}\" }\n",
        &[&closing, &good],
    );
    for n in 0..4 {
        let answer = weir.ask(format!(
            "GET /{n} HTTP/1.1\r\nHost: a\r\nUser-Agent: tool\r\nX-Endpoint: forged\r\n\r\n"
        ));
        assert_eq!((answer.status(), answer.text()), (200, good.name.clone()));
        assert_eq!(answer.field("X-Endpoint"), Some(&*good.name));
    }
    let failed: Vec<_> = told.try_iter().collect();
    assert!(!failed.is_empty());
    for (endpoint, requests) in [(&closing, failed), (&good, good.requests())] {
        for request in requests {
            assert_eq!(request.all("X-Endpoint"), [&*endpoint.name]);
            assert_eq!(request.all("X-Agent"), ["tool"]);
            assert_eq!(request.field("User-Agent"), None);
        }
    }
}

/// A field that a rule writes or removes cannot come in the trailers of a request either.
#[test]
fn trailers_bring_no_field_that_a_rule_names() {
    let endpoint = Endpoint::answering(|_| ok(""));
    let weir = Weir::with(
        "headers.request = { set = { X-User = \"ann\" }, remove = \"X-Gone\" }",
        &[&endpoint],
    );
    let answer = weir.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-User, X-Sum\r\n\r\n\
         1\r\na\r\n0\r\nx-user: bob\r\nX-Gone: 1\r\nX-Sum: 2\r\n\r\n",
    );
    assert_eq!(answer.status(), 200);
    let request = endpoint.only_request();
    assert_eq!(request.all("X-User"), ["ann"]);
    assert_eq!(request.trailer("X-User"), None);
    assert_eq!(request.trailer("X-Gone"), None);
    assert_eq!(request.trailer("X-Sum"), Some("2"));
}

/// Redirects, fixed answers, refusals before a policy has run, failures, and answers without a route.
#[test]
fn answers_of_weirs_own_follow_the_rules_too() {
    let down = free_address("127.0.0.1");
    let weir = Weir::start(&format!(
        r#"
security_headers = true
headers.response = {{ set = {{ X-Edge = "{{method}} {{host}}{{path}}" }}, remove = "Cache-Control" }}
[upstream]
nobody = ["{down}"]
[[route]]
match = "/down/{{id}}"
to = "nobody"
headers.response.set = {{ X-User = "{{param:id}}", X-Endpoint = "{{endpoint}}" }}
[[route]]
match = "/text"
respond = "text"
[[route]]
match = "/moved"
redirect = "/text"
[[route]]
match = "/denied"
respond = "text"
ip = {{ deny = "127.0.0.0/8" }}
[[route]]
match = "/small"
to = "nobody"
limits.body = "1B"
[[route]]
match = "/plain"
respond = "text"
headers = "off"
security_headers = "off"
"#
    ));
    for (path, status) in [
        ("/down/7", 502),
        ("/text", 200),
        ("/moved", 307),
        ("/denied", 403),
        ("/small", 413),
        ("/nowhere", 404),
    ] {
        let answer = weir.ask(post(path, "body"));
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.all("X-Edge"), [format!("POST weir.test{path}")]);
        assert_eq!(answer.all("X-Content-Type-Options"), ["nosniff"], "{path}");
        assert_eq!(answer.all("X-Frame-Options"), ["SAMEORIGIN"], "{path}");
        assert_eq!(answer.field("Strict-Transport-Security"), None, "{path}");
        assert_eq!(answer.field("Cache-Control"), None, "{path}");
    }
    // Of a request that Weir cannot read, it has no host.
    let answer = weir.ask("GET /broken HTTP/1.1\r\nHost: weir.test\r\nBad Name: x\r\n\r\n");
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.field("X-Frame-Options"), Some("SAMEORIGIN"));
    assert_eq!(answer.field("X-Edge"), Some("GET /broken"));
    let answer = weir.ask(get("/down/7"));
    assert_eq!(answer.field("X-User"), Some("7"));
    assert_eq!(answer.field("X-Endpoint"), Some(&*down.to_string()));
    let answer = weir.ask(get("/plain"));
    assert_eq!(answer.field("X-Edge"), None);
    assert_eq!(answer.field("X-Frame-Options"), None);
}

/// An endpoint's own fields stay, and only clients that use HTTPS get HSTS.
#[test]
fn browsers_are_made_careful() {
    let tls = Tls::new();
    let dir = Weir::dir();
    let (listen, _) = tls.files(&dir);
    let endpoint = Endpoint::answering(
        |_| "HTTP/1.1 200 OK\r\nX-Frame-Options: DENY\r\nContent-Length: 0\r\n\r\n",
    );
    let weir = Weir::start_in(
        &dir,
        &format!(
            "security_headers = {{ hsts = \"max-age=60; includeSubDomains\", referrer = \"off\" }}\n\
             [listen.\"127.0.0.1:0\"]\n{listen}\n{}",
            route_to(&[&endpoint])
        ),
    );
    run(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = Client::connect_tls(protocol, weir.address, &tls).await;
            let answer = client
                .ask(request("GET", "/").body(Body::empty()).unwrap())
                .await;
            assert_eq!(answer.field("x-frame-options"), Some("DENY"));
            assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.field("referrer-policy"), None);
            assert_eq!(
                answer.field("strict-transport-security"),
                Some("max-age=60; includeSubDomains")
            );
        }
    });
}

/// Answers with the fields of the request.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let mut text = String::new();
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let mut response = answer(text);
    let fields = response.headers_mut();
    fields.insert("server", "app".parse().unwrap());
    fields.insert("x-debug", "1".parse().unwrap());
    response
}

#[test]
fn the_rules_are_the_same_in_every_pairing_of_protocols() {
    let keys = r#"
headers.request = { remove = ["X-Gone", "Accept"], set = { X-Set = "{header:X-Set}!", X-Empty = "{header:x-none}" }, add = { X-Set = "added {header:x-none}" } }
headers.response = { remove = ["X-Debug", "Server"], set = { X-Answer = "{method}" } }
"#;
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let server = Server::start(up, mirror).await;
            let weir = Weir::start(&routed(keys, std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(down, weir.address).await;
            for _ in 0..2 {
                let asked = request("GET", "/")
                    .header("x-gone", "1")
                    .header("accept", "*/*")
                    .header("x-set", "a")
                    .header("x-empty", "b");
                let answer = client.ask(asked.body(Body::empty()).unwrap()).await;
                let text = answer.text();
                assert_eq!(answer.status, 200);
                assert!(text.contains("x-set: a!\nx-set: added\n"), "{text}");
                for gone in ["x-gone", "accept", "x-empty"] {
                    assert!(!text.contains(gone), "{text}");
                }
                assert_eq!(answer.field("x-answer"), Some("GET"));
                assert_eq!(answer.field("server"), None);
                assert_eq!(answer.field("x-debug"), None);
            }
        });
    }
}
