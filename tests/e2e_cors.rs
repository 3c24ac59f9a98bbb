//! `cors`: preflights, the fields of answers, and their order among the policies.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};

use e2e::*;

const PAGE: &str = "https://app.example.com";

/// A request from a page of this origin.
fn from(origin: &str, line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: api.example.com\r\nOrigin: {origin}\r\n{fields}\r\n")
}

/// A preflight of `method` from a page of this origin.
fn preflight(origin: &str, path: &str, method: &str) -> String {
    let asks = format!(
        "Access-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: x-a\r\n"
    );
    from(origin, &format!("OPTIONS {path}"), &asks)
}

/// The names of the CORS fields that an answer has, and Vary.
fn cors_fields(message: &Message) -> Vec<String> {
    let named =
        |(name, value): &(String, String)| format!("{}: {value}", name.to_ascii_lowercase());
    let is_cors = |line: &String| line.starts_with("access-control-") || line.starts_with("vary");
    let mut lines: Vec<_> = message.fields.iter().map(named).filter(is_cors).collect();
    lines.sort();
    lines
}

/// An endpoint with CORS fields of its own.
fn endpoint() -> Endpoint {
    let own =
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Secret\r\nVary: Accept";
    Endpoint::answering(move |_| format!("HTTP/1.1 200 OK\r\n{own}\r\nContent-Length: 2\r\n\r\nok"))
}

#[test]
fn answers_for_listed_origins_can_be_read() {
    let endpoint = endpoint();
    let weir = Weir::with(
        &format!("cors = {{ origins = {PAGE:?}, credentials = true, expose = \"X-Request-Id\" }}"),
        &[&endpoint],
    );
    let answer = weir.ask(from(PAGE, "GET /", ""));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(
        cors_fields(&answer),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://app.example.com",
            "access-control-expose-headers: X-Request-Id",
            "vary: Accept, Origin",
        ]
    );
    for request in [from("https://evil.test", "GET /", ""), get("/")] {
        let answer = weir.ask(request);
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        assert_eq!(cors_fields(&answer), ["vary: Accept, Origin"]);
    }
    assert_eq!(endpoint.requests().len(), 3);
}

#[test]
fn weir_answers_preflights() {
    let endpoint = endpoint();
    let weir = Weir::with(
        &format!("cors = {{ origins = {PAGE:?}, max_age = \"10m\" }}"),
        &[&endpoint],
    );
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(preflight(PAGE, "/a", "DELETE"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (204, ""));
        assert_eq!(answer.field("Content-Length"), None);
        assert_eq!(
            cors_fields(&answer),
            [
                "access-control-allow-headers: x-a",
                "access-control-allow-methods: DELETE",
                "access-control-allow-origin: https://app.example.com",
                "access-control-max-age: 600",
                "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            ]
        );
    }
    client.send(preflight("https://evil.test", "/evil", "DELETE"));
    let answer = client.response();
    answer.expect_refusal(403, "origin_denied", "http_request_denied");
    assert_eq!(
        cors_fields(&answer),
        ["vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
    );
    let entry = weir.entry("/evil");
    assert_eq!(
        (entry.text("reason"), entry.text("policy")),
        ("origin_denied".to_owned(), "cors".to_owned())
    );
    assert_eq!(weir.entry("/a").text("policy"), "cors");
    assert!(endpoint.requests().is_empty());
    // Without the question for a method it is the endpoint's business.
    client.send(from(PAGE, "OPTIONS /a", ""));
    assert_eq!(client.response().status(), 200);
    assert_eq!(endpoint.only_request().method(), "OPTIONS");
}

#[test]
fn answers_of_weirs_own_can_be_read_too() {
    let weir = Weir::start(&format!(
        "cors = {PAGE:?}\n[upstream]\nnobody = [\"{}\"]\n[[route]]\nmatch = \"/down\"\nto = \"nobody\"\n\
         [[route]]\nmatch = \"/text\"\nrespond = \"text\"\n[[route]]\nmatch = \"/moved\"\nredirect = \"/text\"\n\
         [[route]]\nmatch = \"/closed\"\nrespond = \"text\"\ncors = \"off\"\n",
        free_address("127.0.0.1"),
    ));
    let readable = [
        "access-control-allow-origin: https://app.example.com",
        "vary: Origin",
    ];
    for (path, status) in [("/down", 502), ("/text", 200), ("/moved", 307)] {
        let answer = weir.ask(from(PAGE, &format!("GET {path}"), ""));
        assert_eq!(answer.status(), status);
        assert_eq!(cors_fields(&answer), readable, "{path}");
    }
    let closed = weir.ask(from(PAGE, "GET /closed", ""));
    assert_eq!(cors_fields(&closed), [""; 0]);
}

/// A page may read why its request failed, unless a policy before `cors` has refused the request.
#[test]
fn errors_before_and_after_cors() {
    let dir = Weir::dir();
    std::fs::write(dir.join("secret"), [b'k'; 64]).unwrap();
    let weir = Weir::start_in(
        &dir,
        &format!(
            "cors = {PAGE:?}\nlimits = {{ body = \"1KiB\" }}\n[[route]]\nmatch = \"/closed\"\nrespond = 200\nip = {{ deny = \"0.0.0.0/0\" }}\n\
         [[route]]\nmatch = {{ path = \"/get\", method = \"GET\" }}\nrespond = 200\n[[route]]\nmatch = \"/small\"\nto = \"nobody\"\n[upstream]\nnobody = [\"127.0.0.1:9\"]\n\
         [[route]]\nmatch = \"/token\"\nrespond = 200\njwt = {{ issuer = \"https://a.test\", audience = \"any\", secret_file = \"secret\" }}\n",
        ),
    );
    let readable = [
        "access-control-allow-origin: https://app.example.com",
        "vary: Origin",
    ];
    for (request, status, fields) in [
        (from(PAGE, "GET /closed", ""), 403, &[][..]),
        (preflight(PAGE, "/closed", "PUT"), 403, &[]),
        (from(PAGE, "GET /none", ""), 404, &readable),
        (
            from(PAGE, "POST /get", "Content-Length: 0\r\n"),
            405,
            &readable,
        ),
        (
            from(PAGE, "POST /small", "Content-Length: 2000\r\n"),
            413,
            &readable,
        ),
        (from(PAGE, "GET /token", ""), 401, &readable),
        (
            from("https://evil.test", "GET /token", ""),
            401,
            &["vary: Origin"],
        ),
    ] {
        let answer = weir.ask(&request);
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(cors_fields(&answer), fields, "{request}");
    }
    // With rules at the top level, the page can read that there is nothing.
    assert_eq!(weir.ask(preflight(PAGE, "/none", "PUT")).status(), 204);
    let denied = weir.ask(preflight("https://evil.test", "/none", "PUT"));
    denied.expect_refusal(403, "origin_denied", "http_request_denied");
    // A preflight has no token, and is answered before one is asked for.
    assert_eq!(weir.ask(preflight(PAGE, "/token", "GET")).status(), 204);
}

#[test]
fn a_page_may_read_that_it_asks_too_often() {
    let weir = Weir::start(&format!(
        "cors = {PAGE:?}\n[[route]]\nmatch = \"/a\"\nrespond = 200\nlimit = \"1/h per ip\"\n"
    ));
    let ask = || weir.ask(from(PAGE, "GET /a", ""));
    let statuses = [ask().status(), ask().status()];
    assert_eq!(statuses, [200, 429]);
    let readable = [
        "access-control-allow-origin: https://app.example.com",
        "vary: Origin",
    ];
    assert_eq!(cors_fields(&ask()), readable);
    // Preflights are not counted.
    assert_eq!(weir.ask(preflight(PAGE, "/a", "PUT")).status(), 204);
}

/// A preflight is matched as the request that it announces, whose fields and cookies it does not have.
#[test]
fn a_preflight_takes_the_route_of_the_announced_request() {
    let weir = Weir::start(
        "[[route]]\nmatch = { path = \"/a\", method = \"PUT\", header = { x-version = \"2\" }, cookie = { beta = true } }\nrespond = 201\ncors = \"https://put.example\"\n\
         [[route]]\nmatch = { path = \"/a\", method = \"DELETE\" }\nrespond = 202\ncors = \"https://delete.example\"\n\
         [[route]]\nmatch = { path = \"/a\", method = \"PATCH\" }\nrespond = 203\n\
         [[route]]\nmatch = { path = \"/a\", method = \"OPTIONS\" }\nrespond = 418\n",
    );
    let ask = |method: &str, origin: &str| weir.ask(preflight(origin, "/a", method)).status();
    assert_eq!(ask("PUT", "https://put.example"), 204);
    assert_eq!(ask("PUT", "https://delete.example"), 403);
    assert_eq!(ask("DELETE", "https://delete.example"), 204);
    assert_eq!(ask("DELETE", "https://put.example"), 403);
    // No route with `cors` takes PATCH, so OPTIONS is a method as any other.
    assert_eq!(ask("PATCH", "https://put.example"), 418);
    assert_eq!(
        weir.ask(from("https://put.example", "OPTIONS /a", ""))
            .status(),
        418
    );
}

/// The same over HTTP/2, whatever the endpoint speaks.
#[test]
fn every_pairing_of_protocols() {
    use peers::*;
    for (down, up) in PAIRS {
        run(async {
            let handler = |_| async {
                let mut answer = answer("ok");
                let star = http::HeaderValue::from_static("*");
                answer
                    .headers_mut()
                    .insert("access-control-allow-origin", star);
                answer
            };
            let server = Server::start(up, handler).await;
            let weir = Weir::start(&routed(
                &format!("cors = {PAGE:?}"),
                std::slice::from_ref(&server.name),
                "",
            ));
            let mut client = Client::connect(down, weir.address).await;
            let ask = |method| request(method, "/").header("origin", PAGE);
            let got = client.ask(ask("GET").body(Body::empty()).unwrap()).await;
            assert_eq!(got.status, 200, "{down:?} {up:?}");
            let origins: Vec<_> = got
                .headers
                .get_all("access-control-allow-origin")
                .iter()
                .collect();
            assert_eq!(origins, [PAGE]);
            let preflight = ask("OPTIONS").header("access-control-request-method", "PUT");
            let got = client.ask(preflight.body(Body::empty()).unwrap()).await;
            assert_eq!(
                (got.status, got.field("access-control-allow-methods")),
                (204, Some("PUT"))
            );
            assert_eq!(got.field("access-control-allow-origin"), Some(PAGE));
        });
    }
}

#[test]
fn a_preflight_with_a_body_leaves_the_connection_usable() {
    let endpoint = endpoint();
    let weir = Weir::with(&format!("cors = {PAGE:?}"), &[&endpoint]);
    let mut client = weir.connect();
    let request = preflight(PAGE, "/", "PUT").replace("Origin:", "Content-Length: 4\r\nOrigin:");
    client.send(format!("{request}body"));
    assert_eq!(client.response().status(), 204);
    client.send(get("/"));
    assert_eq!(client.response().status(), 200);
}

#[test]
fn explain_says_what_becomes_of_an_origin() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    std::fs::write(&file, format!("cors = {PAGE:?}\n[listen.\"127.0.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nrespond = 200\n")).unwrap();
    let explain = |method: &str, fields: &[&str]| {
        let mut arguments = vec![
            "explain",
            file.to_str().unwrap(),
            method,
            "http://a.test:8080/",
        ];
        for field in fields {
            arguments.extend(["-H", field]);
        }
        let (code, output) = run_weir(&arguments);
        assert_eq!(code, Some(0), "{output}");
        output
    };
    let allowed = explain("GET", &["Origin: https://app.example.com"]);
    assert!(
        allowed.contains("cors lets pages of https://app.example.com read the answer"),
        "{allowed}"
    );
    let ask = "Access-Control-Request-Method: PUT";
    let allowed = explain("OPTIONS", &["Origin: https://app.example.com", ask]);
    assert!(
        allowed.contains("cors answers: allows the preflight"),
        "{allowed}"
    );
    let denied = explain("OPTIONS", &["Origin: https://evil.test", ask]);
    assert!(denied.contains("403, reason origin_denied"), "{denied}");
    let _ = std::fs::remove_dir_all(dir);
}

/// A name, the path, and the options of fetch() each.
const FETCHES: &[(&str, &str, &str)] = &[
    ("simple", "/listed", "{}"),
    ("exposed", "/listed", "{}"),
    (
        "preflight",
        "/listed",
        "{method: 'DELETE', headers: {'X-A': 'b', 'Content-Type': 'application/json'}}",
    ),
    ("credentials", "/listed", "{credentials: 'include'}"),
    (
        "listed method",
        "/methods",
        "{method: 'PUT', headers: {'X-A': 'b'}}",
    ),
    ("other method", "/methods", "{method: 'DELETE'}"),
    (
        "other field",
        "/methods",
        "{method: 'PUT', headers: {'X-B': 'b'}}",
    ),
    (
        "cookies",
        "/cookies",
        "{credentials: 'include', method: 'PATCH', headers: {Authorization: 'Bearer a'}}",
    ),
    ("star", "/star", "{method: 'PUT'}"),
    ("star with credentials", "/star", "{credentials: 'include'}"),
    ("another origin", "/others", "{}"),
    ("preflight of another origin", "/others", "{method: 'PUT'}"),
    ("no cors", "/none", "{}"),
    ("regex", "/regex", "{method: 'PUT'}"),
];

/// Chromium's own judgement of Weir's answers: a page of one origin fetches from another, and posts what it could read.
#[test]
fn a_real_browser_reads_what_it_may() {
    let pages = Arc::new(Mutex::new(String::new()));
    let served = pages.clone();
    let (report, reported) = std::sync::mpsc::channel();
    let site = Endpoint::answering(move |request| match request.target() {
        "/page" => {
            let page = served.lock().unwrap().clone();
            let length = page.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
            )
        }
        "/report" => {
            let _ = report.send(request.text());
            ok("")
        }
        _ => "HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let origin = format!("http://{}", site.name);
    let api = endpoint();
    let weir = Weir::start(&format!(
        "[upstream]\napi = [\"{}\"]\n\
         [[route]]\nmatch = \"/listed\"\nto = \"api\"\ncors = {{ origins = {origin:?}, expose = \"X-Request-Id\", max_age = \"1m\" }}\n\
         [[route]]\nmatch = \"/methods\"\nto = \"api\"\ncors = {{ origins = {origin:?}, methods = \"PUT\", headers = \"X-A\" }}\n\
         [[route]]\nmatch = \"/cookies\"\nto = \"api\"\ncors = {{ origins = {origin:?}, credentials = true }}\n\
         [[route]]\nmatch = \"/star\"\nto = \"api\"\ncors = \"*\"\n\
         [[route]]\nmatch = \"/others\"\nto = \"api\"\ncors = \"https://app.example.com\"\n\
         [[route]]\nmatch = \"/none\"\nrespond = 200\n\
         [[route]]\nmatch = \"/regex\"\nto = \"api\"\ncors = [{{ regex = 'http://127\\.0\\.0\\.1:[0-9]+' }}]\n",
        api.name,
    ));
    let mut script = String::new();
    for (name, path, options) in FETCHES {
        let url = format!("http://{}{path}", weir.address);
        script += &format!("await ask({name:?}, {url:?}, {options});\n");
    }
    *pages.lock().unwrap() = format!(
        "<script>const lines = [];\n\
         async function ask(name, url, options) {{ try {{ const answer = await fetch(url, options); const text = await answer.text();\n\
         lines.push(name + ': ' + answer.status + ' ' + text + (name == 'exposed' ? ' ' + !!answer.headers.get('X-Request-Id') + ' ' + answer.headers.get('X-Secret') : '')); }}\n\
         catch (error) {{ lines.push(name + ': blocked'); }} }}\n\
         (async () => {{ {script} await fetch('/report', {{method: 'POST', body: lines.join('\\n')}}); }})();</script>"
    );
    let dir = Weir::dir();
    let mut browser = Browser::open(&format!("{origin}/page"), &dir);
    let report = reported
        .recv_timeout(DEADLINE)
        .expect("the browser's report");
    browser.close();
    let _ = std::fs::remove_dir_all(dir);
    assert_eq!(
        report.lines().collect::<Vec<_>>(),
        [
            "simple: 200 ok",
            "exposed: 200 ok true null",
            "preflight: 200 ok",
            "credentials: blocked",
            "listed method: 200 ok",
            "other method: blocked",
            "other field: blocked",
            "cookies: 200 ok",
            "star: 200 ok",
            "star with credentials: blocked",
            "another origin: blocked",
            "preflight of another origin: blocked",
            "no cors: blocked",
            "regex: 200 ok",
        ]
    );
    // What a preflight has forbidden never reaches the endpoint.
    let deleted =
        |request: &Message| request.target() == "/methods" && request.method() == "DELETE";
    assert!(!api.requests().iter().any(deleted));
    assert!(
        !api.requests()
            .iter()
            .any(|request| request.method() == "OPTIONS")
    );
}

/// A browser without a window.
struct Browser(Child);

impl Browser {
    fn open(page: &str, profile: &std::path::Path) -> Self {
        let child = Command::new("chromium-headless-shell")
            .args([
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-proxy-server",
            ])
            .args([
                "--disable-background-networking",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(page)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium-headless-shell, which scripts/setup installs");
        Self(child)
    }

    fn close(&mut self) {
        // Its other processes hold connections.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.close();
    }
}
